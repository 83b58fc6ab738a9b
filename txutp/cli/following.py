"""The uTP connections in a sequence of datagrams, and what can be said of each: as ``txutp dump`` shows them.

A connection has two ids, one apart, one for each direction; the side that sent the SYN sends the higher one.  Whether a
datagram is uTP shows only from its connection: a single one may be anything that begins alike.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from txutp.core.packet import (
    HEADER_BYTES,
    ST_DATA,
    ST_FIN,
    ST_RESET,
    ST_STATE,
    ST_SYN,
    VERSION,
    Packet,
    parse_untrusted,
)
from txutp.core.sequence import MASK16, signed32, unwrap

Side = tuple[str, int]
DATA_FIRST_BYTE = ST_DATA << 4 | VERSION

# Packets of a direction of which it is known whether they were sent before: all that a window may hold, and more.
REMEMBERED_PACKETS = 32_768

# Upper edges of the histogram of queue delays, in milliseconds.
HISTOGRAM_MS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass
class Direction:
    """What one side of a connection sent."""

    source: Side
    connection_id: int
    packets: int = 0
    data_packets: int = 0
    payload_bytes: int = 0
    """New payload, each byte once."""
    retransmitted_packets: int = 0
    retransmitted_bytes: int = 0
    out_of_order_packets: int = 0
    """DATA that came behind a later one and was no retransmission."""
    selective_acks: int = 0
    fins: int = 0
    resets: int = 0
    zero_windows: int = 0
    largest_payload_bytes: int = 0
    round_trips_us: list[int] = field(default_factory=list)
    """From a packet that was sent once to its acknowledgement, where the capture was made."""
    delays_us: list[int] = field(default_factory=list)
    """What the peer says our packets took, of which only differences mean something: clocks differ."""
    _sent_us: dict[int, int | None] = field(default_factory=dict)
    _highest: int | None = None

    @property
    def queue_delays_us(self) -> list[int]:
        """The delays above the smallest one."""
        if not self.delays_us:
            return []
        first = self.delays_us[0]
        relative = [signed32(delay - first) for delay in self.delays_us]
        least = min(relative)
        return [delay - least for delay in relative]

    def histogram(self) -> dict[str, int]:
        """Returns how many delays are up to each edge, and above the last one."""
        counts = dict.fromkeys([f"<={edge}ms" for edge in HISTOGRAM_MS] + [f">{HISTOGRAM_MS[-1]}ms"], 0)
        for delay_us in self.queue_delays_us:
            edge = next((f"<={edge}ms" for edge in HISTOGRAM_MS if delay_us <= edge * 1_000), f">{HISTOGRAM_MS[-1]}ms")
            counts[edge] += 1
        return counts

    def on_sent(self, packet: Packet, payload_bytes: int, time_us: int) -> str:
        """Count a packet; returns a remark about it, or an empty string."""
        self.packets += 1
        self.selective_acks += packet.selective_ack is not None
        self.fins += packet.type == ST_FIN
        self.resets += packet.type == ST_RESET
        self.zero_windows += packet.wnd_size == 0 and packet.type in (ST_DATA, ST_STATE)
        if packet.type not in (ST_DATA, ST_FIN):
            return ""
        highest = self._highest
        sequence = packet.seq_nr if highest is None else unwrap(packet.seq_nr, highest)
        self.data_packets += packet.type == ST_DATA
        self.largest_payload_bytes = max(self.largest_payload_bytes, payload_bytes)
        if sequence in self._sent_us:
            self._sent_us[sequence] = None  # its acknowledgement is no round trip (Karn)
            self.retransmitted_packets += 1
            self.retransmitted_bytes += payload_bytes
            return "retransmission"
        self._sent_us[sequence] = time_us
        if len(self._sent_us) > REMEMBERED_PACKETS:
            del self._sent_us[next(iter(self._sent_us))]
        self.payload_bytes += payload_bytes
        if highest is not None and sequence < highest:
            self.out_of_order_packets += 1
            return "out of order"
        self._highest = sequence
        return ""

    def on_answered(self, packet: Packet, time_us: int) -> None:
        """The other side has sent a packet, with an acknowledgement, and the delay of a packet of this side."""
        if packet.type == ST_SYN:
            return
        if packet.timestamp_diff_us:
            self.delays_us.append(packet.timestamp_diff_us)
        if self._highest is not None:
            sequence = unwrap(packet.ack_nr, self._highest)
            sent_us = self._sent_us.get(sequence)
            if sent_us is not None:
                self.round_trips_us.append(time_us - sent_us)
                self._sent_us[sequence] = None


@dataclass
class Followed:
    """A connection."""

    number: int
    begun_us: int
    seen: tuple[Direction, Direction]
    """Both directions, the one that was seen first at the beginning."""
    syns: int = 0
    syn_us: int | None = None
    handshake_us: int | None = None
    """From the last SYN to the first answer."""
    last_us: int = 0

    @property
    def directions(self) -> tuple[Direction, Direction]:
        """The initiator's direction, then the acceptor's, as the ids tell."""
        first, second = self.seen
        mirrored = second.packets and (second.connection_id - first.connection_id & MASK16) == 1
        return (second, first) if mirrored else (first, second)

    @property
    def is_certain(self) -> bool:
        """Whether both sides have spoken with ids that fit, or one with a SYN."""
        return bool(self.syns) or all(direction.packets for direction in self.seen)

    @property
    def end(self) -> str:
        """Returns how it ended: ``FIN`` of both sides, ``RESET``, ``half closed``, or ``open``."""
        first, second = self.seen
        if first.resets or second.resets:
            return "RESET"
        if first.fins and second.fins:
            return "FIN"
        return "half closed" if first.fins or second.fins else "open"


class Seen(NamedTuple):
    """One packet of a connection."""

    connection: Followed
    packet: Packet
    payload_bytes: int
    """The size of its payload on the wire."""
    remark: str
    """What is special about it, or an empty string."""


def packets_in(data: bytes) -> list[bytes]:
    """Returns the uTP packets in what a capture shows as one datagram.

    A kernel may cut a burst into datagrams behind the point of the capture (GSO), or join them in front of it (GRO):
    all of them are DATA of one connection, of one size but for the last, with numbers that follow each other.
    """
    if len(data) < 2 * HEADER_BYTES or data[0] != DATA_FIRST_BYTE:
        return [data]
    beginning, sequence = data[:4], int.from_bytes(data[16:18], "big")
    stride = data.find(beginning, HEADER_BYTES)
    while 0 < stride <= len(data) - HEADER_BYTES:
        parts = [data[offset : offset + stride] for offset in range(0, len(data), stride)]
        if all(
            len(part) >= HEADER_BYTES
            and part[:4] == beginning
            and int.from_bytes(part[16:18], "big") == sequence + index & MASK16
            for index, part in enumerate(parts)
        ):
            return parts
        stride = data.find(beginning, stride + 1)
    return [data]


class Follower:
    """Sorts datagrams into connections."""

    def __init__(self) -> None:
        self.connections: list[Followed] = []
        self._known: dict[tuple[Side, Side, int], tuple[Followed, int]] = {}

    def on_datagram(self, time_us: int, source: Side, destination: Side, data: bytes, length: int) -> Seen | None:
        """Returns what can be said of a datagram; None if it is not uTP."""
        packet = parse_untrusted(data)
        if packet is None:
            return None
        followed, index = self._find(time_us, source, destination, packet)
        followed.last_us = time_us
        payload_bytes = len(packet.data) + length - len(data)
        sent, other = followed.seen[index], followed.seen[1 - index]
        if packet.type == ST_SYN:
            followed.syns += 1
            followed.syn_us = time_us
            remark = "SYN again" if followed.syns > 1 else ""
        elif index and followed.handshake_us is None and followed.syn_us is not None:
            followed.handshake_us = time_us - followed.syn_us
            remark = "answers the SYN"
        else:
            remark = ""
        remark = sent.on_sent(packet, payload_bytes, time_us) or remark
        other.on_answered(packet, time_us)
        return Seen(followed, packet, payload_bytes, remark)

    def _find(self, time_us: int, source: Side, destination: Side, packet: Packet) -> tuple[Followed, int]:
        """Returns the connection of a packet, and which of its directions the packet belongs to."""
        # The initiator sends one more than the id in its SYN.
        sent_id = packet.connection_id + (packet.type == ST_SYN) & MASK16
        ids = [sent_id]
        if packet.type == ST_RESET:
            # The sender of a RESET may know only the id that it was sent.
            ids += [sent_id + 1 & MASK16, sent_id - 1 & MASK16]
        for known_id in ids:
            known = self._known.get((source, destination, known_id))
            # A SYN behind an end begins another connection with the same ids.
            if known is not None and (packet.type != ST_SYN or known[0].end in ("open", "half closed")):
                followed, index = known
                if not followed.seen[index].packets:
                    followed.seen[index].connection_id = known_id
                return known
        return self._begin(time_us, source, destination, sent_id, packet.type == ST_SYN), 0

    def _begin(self, time_us: int, source: Side, destination: Side, sent_id: int, by_syn: bool) -> Followed:
        lower_id, higher_id = sent_id - 1 & MASK16, sent_id + 1 & MASK16
        followed = Followed(
            len(self.connections) + 1, time_us, (Direction(source, sent_id), Direction(destination, lower_id))
        )
        self.connections.append(followed)
        self._known[source, destination, sent_id] = followed, 0
        # Without a SYN the answers may have the id on either side.
        for answering_id in (lower_id,) if by_syn else (lower_id, higher_id):
            self._known[destination, source, answering_id] = followed, 1
        return followed
