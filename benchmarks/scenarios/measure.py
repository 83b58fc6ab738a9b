"""Numbers from what happened: deliveries in bins of time, and the true queue on a grid of time.

``flows.py`` fills a ``Deliveries``, ``running.py`` a ``QueueSamples``; the functions below are for both and for tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from txutp.core.units import SECOND_US
from txutp.testing import Link, Network

BIN_US = 100_000
BINS_PER_SECOND = SECOND_US // BIN_US

# A rate is reached when it is held for so long.
REACHED_BINS = 5
REACHED_SHARE = 0.9

# A rate is back when a flow has so much of it for so long.
BACK_SHARE = 0.8
BACK_BINS = 10

# Shares are fair inside this, in a moving span of so many seconds, for so many seconds.
FAIR = (0.45, 0.55)
FAIR_SPAN_SECONDS = 4
FAIR_HOLDS_SECONDS = 10


class Deliveries:
    """What one flow delivered in order, in bins."""

    def __init__(
        self, network: Network, transfer_bytes: int | None = None, done: Callable[[], None] | None = None
    ) -> None:
        self.bins: list[int] = []
        self.total_bytes = 0
        self.finished_us: int | None = None
        self._network = network
        self._transfer_bytes = transfer_bytes
        self._done = done

    def add(self, count: int) -> None:
        """So many bytes more."""
        now_us = self._network.now_us
        index = now_us // BIN_US
        bins = self.bins
        if index >= len(bins):
            bins.extend([0] * (index + 1 - len(bins)))
        bins[index] += count
        self.total_bytes += count
        if self._transfer_bytes is not None and self.total_bytes >= self._transfer_bytes and self.finished_us is None:
            self.finished_us = now_us
            if self._done is not None:
                self._done()


class QueueSamples:
    """How long a datagram that came now would wait at a link, asked again and again."""

    def __init__(self, network: Network, link: Link, every_us: int) -> None:
        self.every_us = every_us
        self.milliseconds: list[float] = []
        self._network = network
        self._link = link
        self._sample()

    def _sample(self) -> None:
        network = self._network
        self.milliseconds.append(network.wait_us(self._link) / 1_000)
        network.call_at(network.now_us + self.every_us, self._sample)

    def between(self, from_us: float, to_us: float) -> list[float]:
        """The samples of a span of time."""
        return self.milliseconds[int(from_us // self.every_us) : int(to_us // self.every_us) + 1]


def rate_megabits(bins: Sequence[int], from_s: float, to_s: float) -> float:
    """The mean rate between two times."""
    if to_s <= from_s:
        return 0.0
    total_bytes = sum(bins[round(from_s * BINS_PER_SECOND) : round(to_s * BINS_PER_SECOND)])
    return total_bytes * 8 / SECOND_US / (to_s - from_s)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of the values do not exceed."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def jain(rates: Sequence[float]) -> float:
    """Jain's index: one if all have the same, one divided by their number if one has all."""
    squares = sum(rate * rate for rate in rates)
    return sum(rates) ** 2 / (len(rates) * squares) if squares else 1.0


def reached_s(bins: Sequence[int], from_s: float, megabits: float) -> float | None:
    """How long after ``from_s`` a rate was held for the first time; None if it never was."""
    first = round(from_s * BINS_PER_SECOND)
    wanted_bytes = REACHED_SHARE * megabits * SECOND_US / 8 * REACHED_BINS / BINS_PER_SECOND
    for end in range(first + REACHED_BINS, len(bins) + 1):
        if sum(bins[end - REACHED_BINS : end]) >= wanted_bytes:
            return (end - first) / BINS_PER_SECOND
    return None


def back_s(bins: Sequence[int], from_s: float, megabits: float) -> float | None:
    """How long after ``from_s`` a flow had most of a rate again, and held it; None if it never did."""
    first = round(from_s * BINS_PER_SECOND)
    wanted_bytes = BACK_SHARE * megabits * SECOND_US / 8 * BACK_BINS / BINS_PER_SECOND
    for start in range(first, len(bins) - BACK_BINS + 1):
        if sum(bins[start : start + BACK_BINS]) >= wanted_bytes:
            return (start - first) / BINS_PER_SECOND
    return None


def fair_after_s(first: Sequence[int], second: Sequence[int], from_s: float, to_s: float) -> float | None:
    """How long after ``from_s`` two flows began to share fairly, and held it; None if they never did."""
    held = 0
    for start in range(int(from_s), int(to_s) - FAIR_SPAN_SECONDS + 1):
        one = rate_megabits(first, start, start + FAIR_SPAN_SECONDS)
        other = rate_megabits(second, start, start + FAIR_SPAN_SECONDS)
        fair = FAIR[0] <= other / ((one + other) or 1) <= FAIR[1]
        held = held + 1 if fair else 0
        if held == FAIR_HOLDS_SECONDS:
            return start - FAIR_HOLDS_SECONDS + 1 - from_s + FAIR_SPAN_SECONDS / 2
    return None
