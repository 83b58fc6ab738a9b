"""Competitors that keep a queue which hardly moves: TCP with a full window, and something like BBR.

A sender that takes such a queue for the length of the path would add its own on top.  They are windows for the
``TCPSender`` of ``tcp.py``; ``COMPETITORS`` has them with Reno and CUBIC.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from benchmarks.scenarios.tcp import INITIAL_WINDOW, WINDOWS, Window
from txutp.core.units import SECOND_US

# Segments of a receive buffer of 256 KiB, which is more than most paths here carry in a round trip.
LIMITED_SEGMENTS = 187.0


class Limited:
    """TCP whose peer's buffer bounds what is in flight: it grows by one in a round trip up to that, and halves."""

    def __init__(self, limit: float = LIMITED_SEGMENTS) -> None:
        self.limit = limit
        self.segments = INITIAL_WINDOW
        self._threshold = limit

    def on_ack(self, now_us: int, acked: int, number: int, next_number: int, round_trip_us: int) -> None:
        growth = acked if self.segments < self._threshold else acked / self.segments
        self.segments = min(self.segments + growth, self.limit)

    def on_loss(self, now_us: int) -> None:
        self.segments = self._threshold = max(self.segments / 2, 2.0)

    def on_timeout(self, now_us: int) -> None:
        self._threshold = max(self.segments / 2, 2.0)
        self.segments = 1.0


class Model:
    """What BBR does among others: twice of what its model of the path holds, and a moment with next to nothing.

    The model is the largest rate of the last rounds and the smallest round trip of ten seconds.  Beside anybody else
    its window is what bounds it, so its pace is left out.
    """

    GAIN = 2.0
    ROUNDS = 10
    LEAST_SEGMENTS = 4.0
    EVERY_US = 10 * SECOND_US
    LASTS_US = 200_000

    def __init__(self) -> None:
        self.segments = INITIAL_WINDOW
        self._rates: deque[float] = deque([0.0], maxlen=self.ROUNDS)  # segments per microsecond, the newest last
        self._round_ends = 0
        self._round_began_us = 0
        self._round_acked = 0
        self._smallest_us = 0
        self._smallest_at_us = 0
        self._probing_until_us = 0

    def on_ack(self, now_us: int, acked: int, number: int, next_number: int, round_trip_us: int) -> None:
        self._round_acked += acked
        if round_trip_us and (not self._smallest_us or round_trip_us <= self._smallest_us):
            self._smallest_us, self._smallest_at_us = round_trip_us, now_us
        if number >= self._round_ends:
            if self._round_began_us and now_us > self._round_began_us and now_us >= self._probing_until_us:
                self._rates.append(self._round_acked / (now_us - self._round_began_us))
            self._round_ends, self._round_began_us, self._round_acked = next_number, now_us, 0
        if now_us < self._probing_until_us:
            return
        if now_us - self._smallest_at_us > self.EVERY_US:
            self._probing_until_us = now_us + self.LASTS_US
            self._smallest_us, self._smallest_at_us = 0, now_us
            self.segments = self.LEAST_SEGMENTS
            return
        holds = max(self._rates) * self._smallest_us
        self.segments = max(self.GAIN * holds, self.LEAST_SEGMENTS if holds else self.segments + acked)

    def on_loss(self, now_us: int) -> None:
        """A loss says nothing of the model."""

    def on_timeout(self, now_us: int) -> None:
        self.segments = 1.0


COMPETITORS: dict[str, Callable[[], Window]] = {**WINDOWS, "window-limited": Limited, "bbr-like": Model}
