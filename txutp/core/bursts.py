"""The length of a paced burst, for queues that hold less than one.

Such a queue drops the end of each burst although the path is idle between bursts, and no delay announces the loss.
``Steering`` reports losses and each interval that ``Overload`` has ended, and applies ``burst_us``.
"""

from __future__ import annotations

from txutp.core.pacing import BURST_US

SHORTEST_BURST_US = 125
BURSTS_IN_ROUND_TRIP = 2  # least number of bursts for which a burst, and not the window, is the cause of a loss
CALM_INTERVALS = 8  # intervals without a loss of neighbours, after which bursts become twice as long again


class Bursts:
    """The burst length of one flow."""

    __slots__ = ("_calm_intervals", "_lost", "burst_us")

    def __init__(self) -> None:
        self.burst_us: int = BURST_US  # the time whose share of the rate may leave at once
        self._lost = False  # whether the last window with a loss lost neighbours
        self._calm_intervals = 0

    def on_loss(self, new_window: bool, burst: bool, base_us: int) -> None:
        """Packets were lost: the first ones of a window if ``new_window``, and neighbours if ``burst``."""
        if new_window:
            self._lost = False
        if burst and not self._lost and base_us >= BURSTS_IN_ROUND_TRIP * self.burst_us:
            self._lost = True
            self._calm_intervals = 0
            self.burst_us = max(self.burst_us // 2, SHORTEST_BURST_US)

    def on_interval(self) -> None:
        """An interval ended; bursts grow again after enough calm ones."""
        if self._calm_intervals < CALM_INTERVALS:
            self._calm_intervals += 1
        else:
            self._calm_intervals = 0
            self.burst_us = min(2 * self.burst_us, BURST_US)
