"""Everything about a UDP port that its owner may choose, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

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


# The least rate: a packet of the size that every path carries whole takes six seconds.
LEAST_RATE_BYTES = 100


def limited(default: int | None, lowest: int, highest: int | None = None) -> Any:
    """A field that accepts numbers from ``lowest`` to ``highest``; those of a field without limits begin with 1."""
    return field(default=default, metadata={"limits": (lowest, highest)})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the connections of a UDP port behave.

    The fields from ``maximum_connections`` on are limits of the port itself, all others belong to each connection.
    Times are microseconds, sizes bytes.  A value that cannot work raises ``ValueError`` (or ``TypeError`` for a wrong
    type) with a sentence that says what is accepted.
    """

    # -- of each connection --

    congestion: ControllerFactory = Shallow
    """Called with ``segment_bytes`` and ``target_delay_us``; returns the congestion controller of one connection.

    It is called once when the settings are made, to see whether that is a controller."""
    target_delay_us: int | None = limited(None, 1_000, 100_000)  # RFC 6817: TARGET is at most 100 ms
    """Time that our packets may wait in queues; None is the default of the controller (LEDBAT: 100 ms, RFC 6817)."""

    receive_target_delay_us: int | None = limited(TARGET_DELAY_US, 1_000, 100_000)
    """How long packets may wait in queues on their way to us: peers that let them wait much longer are held back by the
    window that they see (``downlink.py``, RFC 9840).  None leaves that to the peers."""

    dscp: int | str | None = None
    """The DSCP mark of our packets (RFC 2474): a number from 0 to 63, or a name such as ``"le"``, ``"cs1"``,
    ``"af11"`` or ``"ef"``, which becomes a number.  None is lower effort (RFC 8622), as in libtorrent and
    Transmission; an adopted socket keeps its mark.  A system may refuse the mark; that is not an error."""
    maximum_datagram_bytes: int | None = limited(None, 150, 65_000)  # below lies no path; above no UDP datagram
    """The largest datagram we send; None means 1402 over IPv4 and 1232 over IPv6, as libutp."""
    receive_buffer_bytes: int = limited(1 << 20, 4_096, 1 << 30)
    """Bytes that a connection holds for an application that does not read: the window that the peer sees."""
    # sequence numbers are compared in a half space of 16 bits
    maximum_outstanding_packets: int = limited(950, 2, 32_000)
    """Packets sent and not acknowledged; libutp accepts 1023 ahead, libtorrent 953."""

    minimum_timeout_us: int = limited(500_000, 1_000)
    """The shortest retransmission timeout (BEP 29)."""
    maximum_timeout_us: int = limited(60 * SECOND_US, 1_000)
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
    keepalive_us: int | None = limited(29 * SECOND_US, SECOND_US)
    """After so long without sending, or hearing, a packet goes out that keeps NAT bindings open and asks the peer to
    answer; None: never.  A peer that has answered such a packet before is also asked earlier in a silence: after two
    seconds, and then whenever the silence has grown by a quarter (``liveness.py``).  All these times are shorter by up
    to an eighth, which the ids of a connection decide, so that not all connections send at once.  The peer is gone if
    it has been silent for 28 seconds more than this value, and has left 20 such packets unanswered: with the default
    value that takes a minute.  One that never has is not asked more than a few times.

    The host of a process that was killed answers such a packet with an ICMP error, so 2 seconds here mean that it is
    noticed within six seconds after any silence.  That takes 49 bytes/s of an idle connection, over IPv4."""
    idle_timeout_us: int | None = limited(None, SECOND_US)
    """Time without any packet from the peer after which a connection ends; None means never, as with TCP.  Keep it
    above the peer's keepalive."""
    close_timeout_us: int = limited(1 * SECOND_US, 0)
    """After close and with everything delivered, how long the application waits for the last FIN, theirs or the ack of
    ours.  Three retransmission timeouts are waited for in any case.  Without an ack our FIN is sent on behind its back,
    as often as data would be."""
    tombstone_us: int = limited(20 * SECOND_US, 0)
    """How long a closed connection is remembered, to answer late packets with an ack instead of a RESET."""

    up_bytes_per_second: int | None = limited(None, LEAST_RATE_BYTES)
    """The most that leaves in a second: from a listening port, of all connections on it together; from a client, of its
    own connection.  Whole IP packets of connections count, with the headers of IP, UDP and uTP; None is without a cap
    (``caps.py``).  ``setRateLimit`` of ports and transports changes it later."""
    down_bytes_per_second: int | None = limited(None, LEAST_RATE_BYTES)
    """The most that arrives in a second, in the same way.  The window that peers see is bounded, so that they send no
    faster; nothing that arrives is dropped."""
    connection_up_bytes_per_second: int | None = limited(None, LEAST_RATE_BYTES)
    """The most that leaves in a second from each connection of a listening port, or from a client's."""
    connection_down_bytes_per_second: int | None = limited(None, LEAST_RATE_BYTES)
    """The most that arrives in a second on each connection of a listening port, or on a client's."""

    # -- of the port --

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
    half_open_timeout_us: int = 10 * SECOND_US
    """Time that an incoming connection may stay unconfirmed (half-open)."""
    resets_per_second: int = limited(100, 0)
    """RESETs per second for packets of unknown connections; 0 means none."""
    receive_memory_bytes: int | None = limited(None, 65_536)
    """What all connections of the port hold of received data, with 100 bytes for each segment: data that paused readers
    have not taken, also of connections that have ended, and segments behind a gap.  When it is used up windows shrink,
    and what does not fit is refused and comes again, but nothing that was acknowledged is dropped (``memory.py``).
    None means 128 MiB, or eight times ``receive_buffer_bytes`` if that is more."""

    def __post_init__(self) -> None:
        if self.dscp is not None:
            object.__setattr__(self, "dscp", dscp_of(self.dscp))
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in LIMITS:
                check_number(option.name, value, option.type == "int | None")
            elif isinstance(option.default, bool) and not isinstance(value, bool):
                raise TypeError(f"{option.name} is True or False, not {value!r}")
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


# The lowest and the highest number that a field accepts; None: there is no highest one.
LIMITS: dict[str, tuple[int, int | None]] = {
    option.name: option.metadata.get("limits", (1, None))
    for option in fields(Settings)
    if option.type in ("int", "int | None")
}

# Fields with bytes per second, see ``caps.py``.
RATES = tuple(name for name in LIMITS if name.endswith("_bytes_per_second"))


def check_number(name: str, value: Any, optional: bool) -> None:
    """Raises ``TypeError`` or ``ValueError`` unless a field accepts this value."""
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is a whole number{' or None' if optional else ''}, not {value!r}")
    lowest, highest = LIMITS[name]
    if value < lowest or (highest is not None and value > highest):
        accepted = f"at least {lowest}" if highest is None else f"from {lowest} to {highest}"
        raise ValueError(f"{name} is {accepted}, not {value}")
