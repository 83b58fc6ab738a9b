"""Events of one connection for a qlog trace: packets sent, received and lost, and the metrics of the flow.

``txutp/qlog`` calls it with each datagram as it is on the wire, and writes the events that it returns: pairs of a name
and data, without a time.  No other module of the core uses it, so a connection without a trace pays nothing for it.

The names and fields are those of qlog 0.3 (draft-ietf-quic-qlog-main-schema-02, draft-ietf-quic-qlog-quic-events-01)
where it has them, because qvis reads these.  Events and fields of uTP alone are in the namespace ``utp``, which
``docs/howto/traces.md`` describes.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from typing import Any

from txutp.core.address import local_of
from txutp.core.connection import Connection
from txutp.core.packet import HEADER_BYTES, NAMES, ST_DATA, ST_FIN, ST_SYN, Packet, parse_untrusted
from txutp.core.sequence import unwrap
from txutp.core.states import CLOSED, REASON_NAMES, STATE_NAMES

Event = tuple[str, dict[str, Any]]

# QUIC numbers packets in three spaces and acknowledges each within its own.  uTP has one, so all of its packets are of
# the one type that readers of qlog expect to carry data.
PACKET_TYPE = "1RTT"

# Names in a ``recovery:metrics_updated`` event, names in ``ConnectionStats``, and the factors between them.
RECOVERY_METRICS = (
    ("min_rtt", "minrtt", 1),
    ("smoothed_rtt", "rtt", 1),
    ("rtt_variance", "rttvar", 1),
    ("congestion_window", "cwnd", 1),
    ("bytes_in_flight", "in_flight", 1),
    ("packets_in_flight", "unacked", 1),
    ("pacing_rate", "pacing_rate", 8),
)

# Names in a ``utp:metrics_updated`` event, names in ``ConnectionStats``, and the factors between them.
UTP_METRICS = (
    ("queue_delay", "queue_delay", 1),
    ("receive_queue_delay", "receive_queue_delay", 1),
    ("target_delay", "target", 1),
    ("base_delay", "base_delay", 1),
    ("retransmission_timeout", "rto", 1),
    ("segment_bytes", "mss", 1),
    ("delivery_rate", "delivery_rate", 8),
    ("send_window", "send_window", 1),
    ("receive_window", "receive_window", 1),
    ("bytes_unsent", "unsent", 1),
    ("bytes_acked", "bytes_acked", 1),
    ("bytes_received", "bytes_received", 1),
    ("bytes_retransmitted", "bytes_retrans", 1),
    ("timeouts", "timeouts", 1),
)


def ranges_of(numbers: list[int]) -> list[list[int]]:
    """Returns ascending numbers as ranges, each with its first and last number."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ranges


class ConnectionTrace:
    """The trace of one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._state = connection.state
        self._lost: set[int] = set()
        self._highest_sent = -1  # sequence number of a DATA, FIN or SYN
        self._acked = -1  # the highest cumulative ack of the peer
        self._reverse_acked = -1  # ours
        self._told: dict[str, Any] = {}  # metrics

    def begin(self, bound: tuple[str, int]) -> Iterator[Event]:
        """The connection, or its trace, begins; ``bound`` is the address of our UDP port."""
        connection = self.connection
        host, port = connection.address[:2]
        data = {
            "ip_version": "v6" if ":" in host else "v4",
            "src_ip": local_of(connection.address) or bound[0],
            "src_port": bound[1],
            "dst_ip": host,
            "dst_port": port,
            "src_cid": str(connection.receive_id),
            "dst_cid": str(connection.send_id),
            "protocol": "UTP",
            "initiator": connection.initiator,
            "state": STATE_NAMES[connection.state],
        }
        yield "connectivity:connection_started", data

    def sent(self, datagram: bytes) -> Iterator[Event]:
        """A datagram has left."""
        packet = parse_untrusted(datagram)
        if packet is None:
            return
        sequence = unwrap(packet.seq_nr, self.connection.sending.next_sequence)
        data = self._packet(packet, datagram, sequence)
        frames = data["frames"]
        if packet.type != ST_SYN:
            ack = unwrap(packet.ack_nr, self.connection.receiving.next_sequence)
            frames.append(self._ack_frame(packet, ack, self._reverse_acked))
            self._reverse_acked = max(self._reverse_acked, ack)
        if packet.type in (ST_DATA, ST_FIN, ST_SYN):
            if packet.type == ST_DATA and sequence < self.connection.sending.first_unacked:
                data["utp"]["presence_probe"] = True
            elif sequence <= self._highest_sent:
                data["utp"]["retransmission"] = True
            self._highest_sent = max(self._highest_sent, sequence)
        yield "transport:packet_sent", data

    def not_sent(self, count: int, reason: str) -> Iterator[Event]:
        """The system failed to send datagrams, which counts as a loss."""
        yield "utp:send_failed", {"packets": count, "reason": reason}

    def received(self, datagram: bytes) -> Iterator[Event]:
        """A datagram has come, and the connection has taken it, or dropped it."""
        packet = parse_untrusted(datagram)
        if packet is None:
            return
        sequence = unwrap(packet.seq_nr, self.connection.receiving.next_sequence)
        data = self._packet(packet, datagram, sequence)
        if packet.type != ST_SYN:
            ack = unwrap(packet.ack_nr, self.connection.sending.next_sequence)
            data["frames"].append(self._ack_frame(packet, ack, self._acked))
            self._acked = max(self._acked, ack)
        yield "transport:packet_received", data

    def changed(self, now_us: int, by_timeout: bool = False) -> Iterator[Event]:
        """Yields the changes since the last call: losses, the state, metrics."""
        connection = self.connection
        sending = connection.sending
        if sending.lost_segments or self._lost:
            lost = {
                run.first + index
                for run in sending.runs
                if run.lost
                for index in range(run.count)
                if run.lost >> index & 1
            }
            for sequence in sorted(lost - self._lost):
                data: dict[str, Any] = {"header": {"packet_type": PACKET_TYPE, "packet_number": sequence}}
                if by_timeout:
                    data["trigger"] = "pto_expired"
                yield "recovery:packet_lost", data
            self._lost = lost
        if connection.state != self._state:
            names = {"old": STATE_NAMES[self._state], "new": STATE_NAMES[connection.state]}
            self._state = connection.state
            yield "connectivity:connection_state_updated", names
        stats = connection.stats(now_us)
        for name, metrics in (("recovery:metrics_updated", RECOVERY_METRICS), ("utp:metrics_updated", UTP_METRICS)):
            news = {}
            for key, attribute, factor in metrics:
                value = getattr(stats, attribute) * factor
                if not isfinite(value):
                    value = None  # JSON has no such numbers
                if self._told.get(key) != value:
                    news[key] = self._told[key] = value
            if news:
                yield name, news

    def end(self, now_us: int) -> Iterator[Event]:
        """The connection has ended, or was evicted and will hear of that later."""
        yield from self.changed(now_us)
        connection = self.connection
        is_closed = connection.state == CLOSED
        reason = REASON_NAMES[connection.close_reason] if is_closed else "EVICTED"
        yield "connectivity:connection_closed", {"reason": reason}

    def _packet(self, packet: Packet, datagram: bytes, sequence: int) -> dict[str, Any]:
        """Returns the data of a packet event, without its acks."""
        payload_bytes = len(packet.data)
        # A STATE and a RESET have the number of a packet that is not sent yet, and are not acknowledged.
        numbered = packet.type in (ST_DATA, ST_FIN, ST_SYN)
        header = {"packet_type": PACKET_TYPE, "packet_number": sequence} if numbered else {"packet_type": PACKET_TYPE}
        frames: list[dict[str, Any]] = []
        if payload_bytes:
            frames.append({"frame_type": "stream", "stream_id": 0, "length": payload_bytes})
        return {
            "header": header,
            "raw": {"length": len(datagram), "payload_length": payload_bytes},
            "frames": frames,
            "utp": {
                "type": NAMES[packet.type],
                "connection_id": packet.connection_id,
                "timestamp": packet.timestamp_us,
                "timestamp_difference": packet.timestamp_diff_us,
                "window": packet.wnd_size,
                "seq_nr": packet.seq_nr,
                "ack_nr": packet.ack_nr,
                "extension_bytes": len(datagram) - HEADER_BYTES - payload_bytes,
            },
        }

    def _ack_frame(self, packet: Packet, ack: int, before: int) -> dict[str, Any]:
        """Returns an ack in the form of QUIC, without the ranges of the acks before it."""
        first = min(before + 1, ack) if before >= 0 else ack
        mask = packet.selective_ack or 0
        selective = [ack + 2 + index for index in range(mask.bit_length()) if mask >> index & 1]
        return {"frame_type": "ack", "acked_ranges": [[first, ack], *ranges_of(selective)]}
