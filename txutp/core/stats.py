"""Numbers to look at: the counters of a UDP port, and how one connection is doing."""

from __future__ import annotations

from dataclasses import dataclass


class PortCounters:
    """Whole numbers since the port was opened; each counts datagrams unless its name says otherwise."""

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
        self.sends_refused: int  # by our own full socket; sent later, not lost
        self.sends_failed: int  # network unreachable and the like
        self.receive_overflows: int  # dropped by our own kernel, because they were not read in time
        self.foreign: int  # not uTP: handed to the other protocol on the port
        self.dropped_malformed: int  # an extension chain that runs past its datagram
        self.dropped_unknown: int  # for no connection of ours
        self.syns_refused: int  # nobody listens, or a limit was reached
        self.cookies_sent: int  # SYNs that were answered and not remembered
        self.half_open_evicted: int  # unconfirmed connections that made room for newer ones
        self.resets_sent: int
        self.segments_refused: int  # not acknowledged, because the receive memory of the port is short

    def snapshot(self) -> dict[str, int]:
        """All counters by name."""
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
    """How a listening port was doing when it was asked.  What is counted is counted since its UDP port was opened."""

    connections: int
    """Connections on the UDP port, those of clients that leave from there included."""
    half_open: int
    """Incoming connections among them whose source is not proven yet."""

    datagrams_received: int
    """Datagrams of every kind that came."""
    bytes_received: int
    """Bytes of the datagrams that were received."""
    datagrams_sent: int
    """Datagrams that left."""
    send_calls: int
    """System calls for sending, so that ``datagrams_sent / send_calls`` is the batch size."""
    sends_refused: int
    """Times that the socket was full; what it did not take left later."""
    sends_failed: int
    """Times that the network could not be reached."""
    receive_overflows: int
    """Datagrams that our own kernel dropped, because they were not read in time."""
    foreign: int
    """Datagrams that were not uTP; the other protocol on the port got them, if there is one."""
    dropped_malformed: int
    """Datagrams with an extension that runs past their end."""
    dropped_unknown: int
    """Packets for connections that we do not have."""
    syns_refused: int
    """Attempts to connect that found nobody listening, or a limit reached."""
    cookies_sent: int
    """SYNs that were answered without being remembered, because too many others had not proved their source."""
    half_open_evicted: int
    """Connections that did not prove their source and had to make room for newer ones."""
    resets_sent: int
    """Answers to packets for connections that we do not have."""
    segments_refused: int
    """Segments that were not accepted while the port's receive memory was short; their senders repeat them."""

    held_bytes: int
    """What the port holds of received data, of ``Settings.receive_memory_bytes``: what paused readers have not taken,
    and what waits behind gaps, with 100 bytes for each segment."""

    asked_buffer_bytes: int | None
    """Kernel memory for datagrams that we asked for, each way; None if the port has no buffers of its own."""
    granted_receive_bytes: int | None
    """Kernel memory granted for datagrams that arrive; None if that is not known."""
    granted_send_bytes: int | None
    """Kernel memory granted for datagrams that are sent; None if that is not known."""


@dataclass(frozen=True, slots=True)
class ConnectionStats:
    """How a connection was doing when it was asked; names and meanings are those of ``ss -ti`` where it has them.

    Times are milliseconds, 0 before there was a sample.
    """

    state: str
    """The name of one of the states in ``connection.py``."""
    close_reason: str | None
    """Why it is CLOSED, by the name in ``connection.py``; None before."""

    rtt: float
    """Round-trip time, smoothed (RFC 6298)."""
    rttvar: float
    """Variation of the round-trip time (RFC 6298)."""
    minrtt: float
    """The shortest round trip."""
    rto: float
    """The retransmission timeout as it stands, back-off included."""

    queue_delay: float
    """How long our packets waited in queues on their way to the peer: the last sample."""
    base_delay: float
    """What an empty path takes on that way, by the difference of both clocks: alone it says something only if they
    agree.  It may be negative."""
    target: float
    """The queue delay that the congestion controller aims at; 0 while so little was sent that there is none."""

    cwnd: int
    """Bytes that the congestion controller lets be in flight."""
    mss: int
    """Payload bytes in a full packet."""
    pmtu: int
    """Bytes in a full packet with the headers of uTP, UDP and IP: what the path is known, or assumed, to carry."""
    pacing_rate: float
    """Bytes per second at which packets leave; 0 if the controller does not pace."""
    delivery_rate: float
    """Bytes per second at which the peer got our data lately: those that it acknowledged in half a round trip or more,
    by the last such measurement.  0 before there was one, as long as no more than a few packets were sent."""
    send_window: int
    """Bytes that the peer has room for."""
    receive_window: int
    """Bytes that the peer may have in flight: what we have room for, or less if the peer shall yield."""
    unsent: int
    """Bytes that were written and have not left yet."""
    unacked: int
    """Packets that left and are not acknowledged, those behind a gap included."""
    in_flight: int
    """Payload bytes that left and are neither acknowledged nor taken for lost."""
    lost: int
    """Packets in flight that are considered lost and wait to be sent again."""

    receive_queue_delay: float
    """How long the peer's packets waited in queues on their way to us, by the last measurement; 0 before the first one.
    Where ``Settings.receive_target_delay_us`` is None it is measured only while there is a congestion controller."""
    receive_target: float
    """Time that those packets may wait; 0 where that is left to the peer, and while too little arrives to measure."""
    receive_rate: float
    """Bytes per second that arrived in the last interval that was measured."""

    lastsnd: float
    """How long ago we sent a packet of any type."""
    lastrcv: float
    """How long ago a packet arrived.  Every packet of uTP has an acknowledgement, so this is ``lastack`` too."""

    bytes_sent: int
    """Payload bytes that left, retransmissions included."""
    bytes_retrans: int
    """Payload bytes of retransmissions."""
    bytes_acked: int
    """Payload bytes that the peer acknowledged."""
    bytes_received: int
    """Payload bytes that came and were new."""
    segs_out: int
    """Packets sent, of every type."""
    segs_in: int
    """Packets received, of every type."""
    segs_retrans: int
    """Packets sent again."""
    timeouts: int
    """Retransmission timeouts."""
