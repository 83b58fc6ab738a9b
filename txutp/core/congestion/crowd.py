"""What the connections of a port know of each other's windows.

Flows that each know nothing of the others push as many times as hard as one would, and begin with as many initial
windows.  So every flow that sends tells the port its window, once in ``TICK_US``, and may ask how large those of the
others are.  Flows that fall silent, or end, are forgotten after two ticks without a word.

``Steering`` counts each flow in; controllers that have a method ``join`` get the ``Crowd`` before anything is sent.
"""

from __future__ import annotations

TICK_US = 1_000_000
LEAST_SEGMENTS = 0.0125  # one packet in eighty round trips: with fewer a flow would not notice that the queue is gone
FULL_GAIN_SEGMENTS = 8  # windows that are as large in the mean, or larger, grow as those of lone flows do
LARGEST_SEGMENTS = 10  # a larger window counts as one of this size: a path that holds more needs no care


class Crowd:
    """The flows of one port that have much to send."""

    __slots__ = ("_bytes", "_entered", "_flows", "_last_bytes", "_last_flows", "_tick")

    def __init__(self) -> None:
        self._tick = 0
        self._entered = 0  # flows that began in this tick
        self._flows = self._bytes = 0  # that were counted in this tick...
        self._last_flows = self._last_bytes = 0  # ...and in the last one

    def enter(self, now_us: int, usual_bytes: float) -> float:
        """One more flow begins; returns its window.

        That is what the others have, or ``usual_bytes`` on a quiet port, divided by how many have begun in this tick.
        """
        self._turn(now_us)
        self._entered += 1
        if self._last_flows:
            usual_bytes = min(usual_bytes, self._last_bytes / self._last_flows)
        return usual_bytes / self._entered

    def count(self, now_us: int, window_bytes: int, segment_bytes: int) -> int:
        """One flow has this window; returns when it shall be told again."""
        self._turn(now_us)
        self._flows += 1
        self._bytes += min(window_bytes, LARGEST_SEGMENTS * segment_bytes)
        return (self._tick + 1) * TICK_US

    @property
    def flows(self) -> int:
        """How many there are."""
        return max(self._flows, self._last_flows, self._entered, 1)

    @property
    def least_segments(self) -> float:
        """The least window of each flow: all of them together never have less than one segment."""
        return max(1.0 / self.flows, LEAST_SEGMENTS)

    def gain_share(self, segment_bytes: int) -> float:
        """By what the constant growth of each flow is multiplied, so that all of them push no harder than one."""
        if self.flows == 1:
            return 1.0
        return min(self.mean_window_bytes / (FULL_GAIN_SEGMENTS * segment_bytes), 1.0)

    @property
    def mean_window_bytes(self) -> float:
        """The mean of all windows, none of which counts as more than ``LARGEST_SEGMENTS``; 0 if none is known."""
        if self._last_flows >= self._flows:
            return self._last_bytes / self._last_flows if self._last_flows else 0.0
        return self._bytes / self._flows

    def _turn(self, now_us: int) -> None:
        tick = now_us // TICK_US
        if tick == self._tick:
            return
        is_next = tick == self._tick + 1
        self._last_flows, self._last_bytes = (self._flows, self._bytes) if is_next else (0, 0)
        self._flows = self._bytes = self._entered = 0
        self._tick = tick
