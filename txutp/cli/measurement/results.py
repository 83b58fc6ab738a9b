"""What both ends of a test saw, joined: intervals while it runs, totals at its end.

Samples count from the beginning, so an interval is the difference of two, and one that is missing makes an interval
longer and nothing wrong.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from txutp.cli.measurement.wire import Parameters, Sample, StreamSample
from txutp.cli.messages import ProtocolError

CLIENT, SERVER = "client", "server"
OTHER = {CLIENT: SERVER, SERVER: CLIENT}

# Samples of one end that may wait for those of the other one; each may have all streams.
LONGEST_QUEUE = 100

# A last interval that is shorter than this share of the others is not shown alone.
SHORTEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Interval:
    """How one direction did for a while; of several streams the sums, of delays the longest, of round trips the mean.

    What a transport does not tell is None.
    """

    direction: str
    start_seconds: float
    end_seconds: float
    bytes: int
    bits_per_second: float
    """Of what the receiver got."""
    retransmits: int | None
    cwnd_bytes: int | None
    rtt_ms: float | None
    queue_delay_ms: float | None
    """What data waited in queues."""
    reverse_queue_delay_ms: float | None
    """What their acknowledgements waited."""
    omitted: bool
    streams: tuple[Interval, ...] = ()


@dataclass(frozen=True, slots=True)
class Total:
    """What one end of a direction, or of one stream of it, counted."""

    bytes: int
    seconds: float
    bits_per_second: float
    retransmits: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A direction as a whole, without what was omitted."""

    direction: str
    sender: Total
    receiver: Total
    mean_rtt_ms: float | None
    mean_queue_delay_ms: float | None
    mean_reverse_queue_delay_ms: float | None
    streams: tuple[tuple[Total, Total], ...]
    """Sender and receiver of each stream."""


class Mean:
    """A mean of values that may be missing."""

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0

    def add(self, value: float | None) -> None:
        """One more."""
        if value is not None:
            self._sum += value
            self._count += 1

    @property
    def value(self) -> float | None:
        """The mean; None without a value."""
        return self._sum / self._count if self._count else None


def direction_from(sender: str) -> str:
    """The name of the direction in which an end sends."""
    return f"{sender}_to_{OTHER[sender]}"


class Results:
    """Collects the samples of both ends."""

    def __init__(self, parameters: Parameters, keep: bool = False) -> None:
        """``keep`` keeps all intervals; else memory does not grow."""
        self.parameters = parameters
        self.intervals: list[Interval] = []
        self.senders: list[str] = [
            end for end, sends in ((CLIENT, parameters.client_sends), (SERVER, parameters.server_sends)) if sends
        ]
        self._keep = keep
        nothing = Sample(0, 0.0, (StreamSample(),) * parameters.streams)
        self._newest = {CLIENT: nothing, SERVER: nothing}
        self._joined = {CLIENT: nothing, SERVER: nothing}
        self._baseline = {CLIENT: nothing, SERVER: nothing}
        self._waiting: dict[str, deque[Sample]] = {CLIENT: deque(), SERVER: deque()}
        self._means = {end: (Mean(), Mean(), Mean()) for end in self.senders}

    def ended(self, end: str) -> bool:
        """Whether an end has said its last word."""
        return self._newest[end].ended

    def add(self, end: str, sample: Sample) -> list[Interval]:
        """Take a sample of an end; returns the intervals that are complete with it."""
        if sample.number <= self._newest[end].number or self._newest[end].ended:
            raise ProtocolError("a sample comes out of order")
        waiting = self._waiting[end]
        if len(waiting) >= LONGEST_QUEUE:
            waiting.popleft()
        waiting.append(sample)
        self._newest[end] = sample
        complete: list[Interval] = []
        while self._waiting[CLIENT] and self._waiting[SERVER]:
            client, server = self._waiting[CLIENT][0], self._waiting[SERVER][0]
            if client.number == server.number or (client.ended and server.ended):
                self._waiting[CLIENT].popleft()
                self._waiting[SERVER].popleft()
                complete += self._join({CLIENT: client, SERVER: server})
            else:
                later = CLIENT if (client.ended, client.number) > (server.ended, server.number) else SERVER
                self._waiting[OTHER[later]].popleft()
        return complete

    def _join(self, samples: dict[str, Sample]) -> list[Interval]:
        before, self._joined = self._joined, samples
        number = samples[CLIENT].number
        omit = self.parameters.omit_seconds
        omitted = bool(omit) and before[CLIENT].number * self.parameters.interval_seconds < omit - 1e-9
        if omitted and number * self.parameters.interval_seconds >= omit - 1e-9:
            self._baseline = samples
        if samples[CLIENT].ended:
            shortest = SHORTEST_SHARE * self.parameters.interval_seconds
            if all(samples[end].seconds - before[end].seconds < shortest for end in samples) and before[CLIENT].number:
                return []
        intervals = [self._interval(sender, before, samples, omitted) for sender in self.senders]
        for interval, means in zip(intervals, self._means.values(), strict=True):
            if not omitted:
                values = interval.rtt_ms, interval.queue_delay_ms, interval.reverse_queue_delay_ms
                for mean, value in zip(means, values, strict=True):
                    mean.add(value)
        if self._keep:
            self.intervals += intervals
        return intervals

    def _interval(self, sender: str, before: dict[str, Sample], now: dict[str, Sample], omitted: bool) -> Interval:
        receiver = OTHER[sender]
        seconds = now[receiver].seconds - before[receiver].seconds
        direction, start, end = direction_from(sender), before[sender].seconds, now[sender].seconds
        parts = []
        for old, new, old_there, new_there in zip(
            before[sender].streams,
            now[sender].streams,
            before[receiver].streams,
            now[receiver].streams,
            strict=True,
        ):
            received_bytes = max(0, new_there.received_bytes - old_there.received_bytes)
            parts.append(
                Interval(
                    direction,
                    start,
                    end,
                    received_bytes,
                    received_bytes * 8 / seconds if seconds > 0 else 0.0,
                    _difference(old.retransmitted_segments, new.retransmitted_segments),
                    new.cwnd_bytes,
                    new.rtt_ms,
                    new.queue_delay_ms,
                    new.reverse_queue_delay_ms,
                    omitted,
                )
            )
        return Interval(
            direction,
            start,
            end,
            sum(part.bytes for part in parts),
            sum(part.bits_per_second for part in parts),
            _sum([part.retransmits for part in parts]),
            _sum([part.cwnd_bytes for part in parts]),
            _mean([part.rtt_ms for part in parts]),
            _longest([part.queue_delay_ms for part in parts]),
            _longest([part.reverse_queue_delay_ms for part in parts]),
            omitted,
            tuple(parts) if len(parts) > 1 else (),
        )

    def summaries(self) -> list[Summary]:
        """Returns what is known of each direction, by the newest samples of both ends."""
        return [self._summary(sender) for sender in self.senders]

    def _summary(self, sender: str) -> Summary:
        receiver = OTHER[sender]
        sent, sent_before = self._newest[sender], self._baseline[sender]
        received, received_before = self._newest[receiver], self._baseline[receiver]
        pairs = []
        for new, old, new_there, old_there in zip(
            sent.streams, sent_before.streams, received.streams, received_before.streams, strict=True
        ):
            of_sender = _total(
                new.sent_bytes - old.sent_bytes,
                new.sent_seconds - sent_before.seconds,
                _difference(old.retransmitted_segments, new.retransmitted_segments),
            )
            of_receiver = _total(
                new_there.received_bytes - old_there.received_bytes,
                new_there.received_seconds - received_before.seconds,
            )
            pairs.append((of_sender, of_receiver))
        rtt, queue_delay, reverse_queue_delay = self._means[sender]
        return Summary(
            direction_from(sender),
            _together([pair[0] for pair in pairs]),
            _together([pair[1] for pair in pairs]),
            rtt.value,
            queue_delay.value,
            reverse_queue_delay.value,
            tuple(pairs),
        )

    # -- as JSON; names are those of iperf3 where it has them --

    def interval_as_json(self, interval: Interval) -> dict[str, Any]:
        """Returns an interval for programs."""
        told = asdict(interval)
        streams = told.pop("streams")
        if streams:
            told["streams"] = streams
        return {"start": told.pop("start_seconds"), "end": told.pop("end_seconds")} | told

    def start_as_json(self) -> dict[str, Any]:
        """Returns what the test was to be."""
        return asdict(self.parameters)

    def end_as_json(self) -> dict[str, Any]:
        """Returns the totals: of the only direction, or of the one in which the client sends, and of each."""
        summaries = self.summaries()
        return {
            "sum_sent": asdict(summaries[0].sender),
            "sum_received": asdict(summaries[0].receiver),
            "directions": {
                summary.direction: {
                    "sender": asdict(summary.sender),
                    "receiver": asdict(summary.receiver),
                    "mean_rtt_ms": summary.mean_rtt_ms,
                    "mean_queue_delay_ms": summary.mean_queue_delay_ms,
                    "mean_reverse_queue_delay_ms": summary.mean_reverse_queue_delay_ms,
                    "streams": [
                        {"sender": asdict(sender), "receiver": asdict(receiver)} for sender, receiver in summary.streams
                    ],
                }
                for summary in summaries
            },
        }


def _total(size_bytes: int, seconds: float, retransmits: int | None = None) -> Total:
    size_bytes, seconds = max(0, size_bytes), max(0.0, seconds)
    return Total(size_bytes, seconds, size_bytes * 8 / seconds if seconds else 0.0, retransmits)


def _together(totals: list[Total]) -> Total:
    return _total(
        sum(total.bytes for total in totals),
        max(total.seconds for total in totals),
        _sum([total.retransmits for total in totals]),
    )


def _difference(before: int | None, now: int | None) -> int | None:
    return None if now is None else max(0, now - (before or 0))


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _longest(values: list[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)
