"""Everything about a UDP port that its owner may choose, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from txutp.core.congestion.interface import ControllerFactory, check_factory
from txutp.core.congestion.shallow import TARGET_DELAY_US, Shallow
from txutp.core.dscp import dscp_of
from txutp.core.units import SECOND_US

# BEP 29 header, and what an IPv4 or IPv6 datagram may hold on any path that carries IPv6 tunnels or PPPoE (libutp).
IPV4_DATAGRAM_BYTES = 1402
IPV6_DATAGRAM_BYTES = 1232

# What a port holds of received data unless its owner says otherwise: so much, or so many full buffers.
DEFAULT_MEMORY_BYTES = 128 << 20
DEFAULT_MEMORY_BUFFERS = 8


def usual_datagram_bytes(host: str) -> int:
    """How large a datagram to a numeric address is before anything is known of the path."""
    return IPV6_DATAGRAM_BYTES if ":" in host else IPV4_DATAGRAM_BYTES


@dataclass(frozen=True)
class Settings:
    """How the connections of a UDP port behave.

    Times are microseconds, sizes bytes.  A value that cannot work raises ``ValueError`` (or ``TypeError`` for a wrong
    type) with a sentence that says what is accepted.
    """

    congestion: ControllerFactory = Shallow
    """Called with ``segment_bytes`` and ``target_delay_us``; returns the congestion controller of one connection.

    It is called once when the settings are made, to see whether that is a controller."""
    target_delay_us: int | None = None
    """Time that our packets may wait in queues; None is the default of the controller (LEDBAT: 100 ms, RFC 6817)."""

    receive_target_delay_us: int | None = TARGET_DELAY_US
    """How long packets may wait in queues on their way to us: peers that let them wait much longer are held back by the
    window that they see (``downlink.py``, RFC 9840).  None leaves that to the peers."""

    dscp: int | str | None = None
    """The DSCP mark of our packets (RFC 2474): a number from 0 to 63, or a name such as ``"le"``, ``"cs1"``,
    ``"af11"`` or ``"ef"``, which becomes a number.  None is lower effort (RFC 8622), as in libtorrent and
    Transmission; an adopted socket keeps its mark.  A system may refuse the mark; that is not an error."""
    maximum_datagram_bytes: int | None = None
    """The largest datagram we send; None means 1402 over IPv4 and 1232 over IPv6, as libutp."""
    receive_buffer_bytes: int = 1 << 20
    """Bytes that a connection holds for an application that does not read: the window that the peer sees."""
    receive_memory_bytes: int | None = None
    """What all connections of the port hold of received data, with 100 bytes for each segment: data that paused readers
    have not taken, also of connections that have ended, and segments behind a gap.  When it is used up windows shrink,
    and what does not fit is refused and comes again, but nothing that was acknowledged is dropped (``memory.py``).
    None means 128 MiB, or eight times ``receive_buffer_bytes`` if that is more."""
    maximum_outstanding_packets: int = 950
    """Packets sent and not acknowledged; libutp accepts 1023 ahead, libtorrent 953."""

    minimum_timeout_us: int = 500_000
    """The shortest retransmission timeout (BEP 29)."""
    maximum_timeout_us: int = 60 * SECOND_US
    """The longest retransmission timeout, after back-off (RFC 6298 2.5)."""
    maximum_timeouts: int = 5
    """Retransmission timeouts in a row that end the connection (libutp)."""

    syn_timeout_us: int = 3 * SECOND_US
    """Wait for the answer to the first SYN; doubled each time.  libtorrent opens a twin for an earlier repetition."""
    believe_unreachable: bool = True
    """Whether an ICMP error, such as "port unreachable", ends an attempt to connect at once, and two errors in a row
    from the peer's host end a connection that is up (``liveness.py``).  False believes none: the SYN is repeated until
    an answer, a RESET or the timeout.  Two peers that punch holes through NATs (BEP 55) can meet such an error before
    the hole is there."""
    connect_timeout_us: int = 30 * SECOND_US
    """Time for an outgoing connection to come up, unless the caller gave a ``timeout``."""
    half_open_timeout_us: int = 10 * SECOND_US
    """Time that an incoming connection may stay unconfirmed (half-open)."""
    keepalive_us: int | None = 29 * SECOND_US
    """After so long without sending, or hearing, a packet goes out that keeps NAT bindings open and asks the peer to
    answer; None: never.  A peer that has answered such a packet before is also asked earlier in a silence: after two
    seconds, and then whenever the silence has grown by a quarter (``liveness.py``).  It is gone if it has been silent
    for 28 seconds more than this value, and has left 20 such packets unanswered: with the default value that takes a
    minute.  One that never has is not asked more than a few times.

    The host of a process that was killed answers such a packet with an ICMP error, so 2 seconds here mean that it is
    noticed within six seconds after any silence.  That takes 49 bytes/s of an idle connection, over IPv4."""
    idle_timeout_us: int | None = None
    """Time without any packet from the peer after which a connection ends; None means never, as with TCP.  Keep it
    above the peer's keepalive."""
    close_timeout_us: int = 1 * SECOND_US
    """After close and with everything delivered, how long the application waits for the last FIN, theirs or the ack of
    ours.  Three retransmission timeouts are waited for in any case.  Without an ack our FIN is sent on behind its back,
    as often as data would be."""
    tombstone_us: int = 20 * SECOND_US
    """How long a closed connection is remembered, to answer late packets with an ack instead of a RESET."""

    maximum_connections: int = 20_000
    """Connections on this port, both directions.  Unconfirmed ones make room, and those that have been silent for
    longer than three keepalives; beyond that SYNs are not answered."""
    maximum_connections_per_address: int = 10_000
    """Connections with one remote host."""
    maximum_half_open: int = 1_000
    """Unconfirmed incoming connections; of further SYNs nothing is remembered, but they are answered, and connect
    (``cookies.py``).  A larger backlog counts."""
    maximum_half_open_per_address: int = 500
    """Unconfirmed incoming connections from one remote host.  Addresses can be forged, so SYNs beyond this limit are
    answered as well."""
    resets_per_second: int = 100
    """RESETs per second for packets of unknown connections; 0 means none."""

    def __post_init__(self) -> None:
        if self.dscp is not None:
            object.__setattr__(self, "dscp", dscp_of(self.dscp))
        optional = {
            "receive_memory_bytes",
            "target_delay_us",
            "receive_target_delay_us",
            "maximum_datagram_bytes",
            "keepalive_us",
            "idle_timeout_us",
        }
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("congestion", "dscp") or (value is None and field.name in optional):
                continue
            if isinstance(field.default, bool):
                if not isinstance(value, bool):
                    raise TypeError(f"{field.name} is True or False, not {value!r}")
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                also = " or None" if field.name in optional else ""
                raise TypeError(f"{field.name} is a whole number{also}, not {value!r}")
            lowest, highest = LIMITS.get(field.name, (1, None))
            if value < lowest or (highest is not None and value > highest):
                accepted = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
                raise ValueError(f"{field.name} is {accepted}, not {value}")
        if self.minimum_timeout_us > self.maximum_timeout_us:
            raise ValueError(
                f"minimum_timeout_us ({self.minimum_timeout_us}) must not be above"
                f" maximum_timeout_us ({self.maximum_timeout_us})"
            )
        check_factory(self.congestion, self.target_delay_us)

    @property
    def port_memory_bytes(self) -> int:
        """``receive_memory_bytes``, or what its default means."""
        if self.receive_memory_bytes is not None:
            return self.receive_memory_bytes
        return max(DEFAULT_MEMORY_BYTES, DEFAULT_MEMORY_BUFFERS * self.receive_buffer_bytes)


# What a field accepts where "at least 1" is not enough: lowest, highest.
LIMITS: dict[str, tuple[int, int | None]] = {
    "target_delay_us": (1_000, 100_000),  # RFC 6817: TARGET is at most 100 ms
    "receive_target_delay_us": (1_000, 100_000),
    "maximum_datagram_bytes": (150, 65_000),  # below lies no path; above no UDP datagram
    "receive_buffer_bytes": (4_096, 1 << 30),
    "receive_memory_bytes": (65_536, None),
    "maximum_outstanding_packets": (2, 32_000),  # sequence numbers are compared in a half space of 16 bits
    "minimum_timeout_us": (1_000, None),
    "maximum_timeout_us": (1_000, None),
    "keepalive_us": (SECOND_US, None),
    "idle_timeout_us": (SECOND_US, None),
    "close_timeout_us": (0, None),
    "tombstone_us": (0, None),
    "resets_per_second": (0, None),
}
