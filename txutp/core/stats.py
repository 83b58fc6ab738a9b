"""Statistics: the counters of a UDP port, and the state of a port and of a connection at one moment."""

from __future__ import annotations

from dataclasses import dataclass


class PortCounters:
    """Counters since the port was opened; each counts datagrams unless its name says otherwise."""

    __slots__ = (
        "bytes_received",
        "cookies_sent",
        "datagrams_received",
        "datagrams_sent",
        "dropped_malformed",
        "dropped_unknown",
        "foreign",
        "half_open_evicted",
        "receive_overflows",
        "resets_sent",
        "segments_refused",
        "send_calls",
        "sends_failed",
        "sends_refused",
        "syns_refused",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)
        self.datagrams_received: int
        self.bytes_received: int
        self.datagrams_sent: int
        self.send_calls: int  # system calls, so datagrams_sent / send_calls is the batch size
        self.sends_refused: int  # by a full socket; sent later, not lost
        self.sends_failed: int  # network unreachable, for instance
        self.receive_overflows: int  # dropped by the kernel of this host, because they were not read in time
        self.foreign: int  # not uTP: passed to the other protocol on the port
        self.dropped_malformed: int  # an extension chain that runs past its datagram
        self.dropped_unknown: int  # of unknown connections
        self.syns_refused: int  # the port does not listen, or a limit was reached
        self.cookies_sent: int  # SYNs that were answered without state
        self.half_open_evicted: int  # half-open connections that made room for newer ones
        self.resets_sent: int
        self.segments_refused: int  # not acknowledged, because the receive memory of the port is short

    def snapshot(self) -> dict[str, int]:
        """Returns all counters by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class StreamTotals:
    """Sums of what connections have counted; the names are those of ``ConnectionStats``."""

    __slots__ = (
        "bytes_acked",
        "bytes_received",
        "bytes_retrans",
        "bytes_sent",
        "connections",
        "segs_in",
        "segs_out",
        "segs_retrans",
        "timeouts",
    )

    def __init__(self) -> None:
        self.connections: int = 0  # of which this is the sum
        self.bytes_acked: int = 0
        self.bytes_received: int = 0
        self.bytes_retrans: int = 0
        self.bytes_sent: int = 0
        self.segs_in: int = 0
        self.segs_out: int = 0
        self.segs_retrans: int = 0
        self.timeouts: int = 0


@dataclass(frozen=True, slots=True)
class PortStats:
    """The state of a listening port at one moment.  Counters begin when its UDP port is opened."""

    connections: int
    """Connections on the UDP port, with those of clients that share it."""
    half_open: int
    """Incoming connections among them whose source is not proven yet."""

    datagrams_received: int
    """Datagrams received, of every kind."""
    bytes_received: int
    """Bytes of the datagrams that were received."""
    datagrams_sent: int
    """Datagrams sent."""
    send_calls: int
    """System calls for sending, so that ``datagrams_sent / send_calls`` is the batch size."""
    sends_refused: int
    """Times that the socket was full; the datagrams left later."""
    sends_failed: int
    """Times that the network could not be reached."""
    receive_overflows: int
    """Datagrams that the kernel of this host dropped because they were not read in time."""
    foreign: int
    """Datagrams that were not uTP; the other protocol on the port got them, if there is one."""
    dropped_malformed: int
    """Datagrams with an extension that runs past their end."""
    dropped_unknown: int
    """Packets of unknown connections."""
    syns_refused: int
    """SYNs that were refused, because the port does not listen or a limit is reached."""
    cookies_sent: int
    """SYNs that were answered with a cookie, without state, because too many connections were half-open."""
    half_open_evicted: int
    """Half-open connections that were evicted for newer ones."""
    resets_sent: int
    """RESETs that answered packets of unknown connections."""
    segments_refused: int
    """Segments that were not accepted while the port's receive memory was short; their senders repeat them."""

    held_bytes: int
    """Received data that the port holds, limited by ``Settings.receive_memory_bytes``: bytes that paused readers have
    not taken, and segments behind gaps, with 100 bytes more for each segment."""

    asked_buffer_bytes: int | None
    """Kernel memory for datagrams that txutp asked for, each way; None if the port has no buffers of its own."""
    granted_receive_bytes: int | None
    """Kernel memory granted for datagrams that arrive; None if that is not known."""
    granted_send_bytes: int | None
    """Kernel memory granted for datagrams that are sent; None if that is not known."""

    up_limit: int | None
    """Bytes per second that all connections may send together; None without a cap."""
    down_limit: int | None
    """Bytes per second that all connections may receive together; None without a cap."""


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """The state of a connection at one moment; names and meanings are those of ``ss -ti`` where it has them.

    Times are milliseconds, 0 before there was a sample.
    """

    state: str
    """The name of the state: SYN_SENT, SYN_RECEIVED, CONNECTED or CLOSED."""
    close_reason: str | None
    """The name of the reason for which it is CLOSED, such as DONE, RESET or TIMED_OUT; None before."""

    rtt: float
    """Round-trip time, smoothed (RFC 6298)."""
    rttvar: float
    """Variation of the round-trip time (RFC 6298)."""
    minrtt: float
    """The shortest round trip."""
    rto: float
    """The current retransmission timeout, with back-off."""

    queue_delay: float
    """Time that our packets waited in queues on their way to the peer: the last sample."""
    base_delay: float
    """Delay of the empty path to the peer, plus the difference of both clocks: it has a meaning of its own only if the
    clocks agree, and may be negative."""
    target: float
    """The queue delay that the congestion controller aims at; 0 while too little was sent for a controller."""

    cwnd: int
    """Bytes that the congestion controller allows in flight."""
    mss: int
    """Payload bytes in a full packet."""
    pmtu: int
    """Bytes in a full packet with the headers of uTP, UDP and IP, which the path is known, or assumed, to carry."""
    pacing_rate: float
    """Bytes per second at which packets leave; 0 if the controller does not pace."""
    delivery_rate: float
    """Bytes per second that reached the peer, by the last sample, which takes half a round trip or more.  0 before the
    first sample: while no more than a few packets were sent."""
    send_window: int
    """Bytes that the peer has room for."""
    receive_window: int
    """Bytes that the peer may have in flight: the room in the buffer, or less if the peer shall yield."""
    unsent: int
    """Bytes that were written and not sent yet."""
    unacked: int
    """Packets sent and not acknowledged, with those behind a gap."""
    in_flight: int
    """Payload bytes sent that are neither acknowledged nor considered lost."""
    lost: int
    """Packets in flight that are considered lost and wait to be retransmitted."""

    receive_queue_delay: float
    """Time that the peer's packets waited in queues on their way to us: the last measurement, 0 before the first one.
    If ``Settings.receive_target_delay_us`` is None it is measured only while there is a congestion controller."""
    receive_target: float
    """Time that the peer's packets may wait; 0 if that is left to the peer, and while too little arrives to measure."""
    receive_rate: float
    """Bytes per second that arrived in the last interval that was measured."""

    up_limit: int | None
    """Bytes per second that may leave: the lower one of the connection's cap and the port's; None without a cap."""
    down_limit: int | None
    """Bytes per second that may arrive, in the same way."""
    held: float
    """How long data has waited for ``up_limit`` so far, in milliseconds.  Waits for the port's cap and for the
    connection's own count once."""

    lastsnd: float
    """Time since the last packet was sent, of any type."""
    lastrcv: float
    """Time since the last packet arrived.  Every packet of uTP has an acknowledgement, so this is ``lastack`` too."""

    bytes_sent: int
    """Payload bytes sent, with retransmissions."""
    bytes_retrans: int
    """Payload bytes of retransmissions."""
    bytes_acked: int
    """Payload bytes that the peer acknowledged."""
    bytes_received: int
    """Payload bytes received, without duplicates."""
    segs_out: int
    """Packets sent, of every type."""
    segs_in: int
    """Packets received, of every type."""
    segs_retrans: int
    """Packets retransmitted."""
    timeouts: int
    """Retransmission timeouts."""
