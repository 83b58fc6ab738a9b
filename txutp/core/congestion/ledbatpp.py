"""LEDBAT++, as draft-irtf-iccrg-ledbat-plus-plus-06 describes it (section 4).

Against classic LEDBAT: the delay of whole round trips instead of one way, so that clocks do not matter; a gain that
follows the length of the path; a decrease in proportion to the window; and periodic slowdowns, in which queues drain
so that late-comers see the empty path.
"""

from __future__ import annotations

from math import ceil

from txutp.core.congestion.crowd import Crowd
from txutp.core.congestion.interface import MINIMUM_WINDOW_SEGMENTS, Acknowledgement, window_after_loss
from txutp.core.congestion.rhythm import next_beat_us

TARGET_DELAY_US = 60_000
CURRENT_FILTER = 4  # samples, of which the smallest counts
INITIAL_WINDOW_SEGMENTS = 2
SMALLEST_GAIN = 16  # the gain is never less than one divided by this
SLOW_START_EXIT = 0.75  # of the target
DECREASE = 1.0  # the draft's Constant
SLOWDOWN_ROUND_TRIPS = 2  # before the first one, and how long the window is held down in each
SLOWDOWN_SHARE = 9  # the next one comes after so many times the length of the last


class LedbatPlusPlus:
    """LEDBAT++ (draft-irtf-iccrg-ledbat-plus-plus-06) for one flow, with a target of 60 ms.

    The first slow start grows by the gain; later ones, up to a threshold that was reached before, double: with the
    gain a short path would spend most of its time there.
    """

    __slots__ = (
        "_before_cut",
        "_crowd",
        "_cut_us",
        "_held_until_us",
        "_initial",
        "_recent_us",
        "_slowdown_from_us",
        "_slowdown_started_us",
        "_threshold",
        "_window",
        "segment_bytes",
        "slow_start",
        "target_delay_us",
    )

    pacing_gain: float = 1.25

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        self.segment_bytes: int = segment_bytes
        self.target_delay_us: int = TARGET_DELAY_US if target_delay_us is None else target_delay_us
        self.slow_start: bool = True
        self._initial = True  # the slow start that ends by delay
        self._window = float(INITIAL_WINDOW_SEGMENTS * segment_bytes)
        self._threshold = float("inf")
        self._before_cut = (0.0, self._threshold, False)  # window, threshold and slow start
        self._recent_us: list[int] = []
        self._cut_us = -1  # when the window was cut; packets sent before tell nothing of its effect
        self._slowdown_from_us = -1  # when the next slowdown is due
        self._slowdown_started_us = -1  # of the one under way
        self._held_until_us = -1  # the window stays at its least until then
        self._crowd: Crowd | None = None

    def join(self, crowd: Crowd, now_us: int) -> None:
        """Be one of the flows of a port, which share growth, least window, and pauses; each begins with 2 segments."""
        self._crowd = crowd

    @property
    def window_bytes(self) -> int:
        return int(self._window)

    def on_ack(self, ack: Acknowledgement) -> None:
        now_us = ack.now_us
        delay_us = ack.round_trip_delay_us
        if delay_us is not None:
            recent = self._recent_us
            recent.append(delay_us)
            if len(recent) > CURRENT_FILTER:
                del recent[0]
            delay_us = min(recent)

        if now_us < self._held_until_us:
            return
        if self.slow_start:
            self._grow(ack, delay_us)
            return
        if delay_us is None:
            return
        share = 1.0 if self._crowd is None else self._crowd.gain_share(self.segment_bytes)
        change = window_change(
            ack.acked_bytes,
            self._window,
            share * self.segment_bytes,
            delay_us,
            self.target_delay_us,
            ack.round_trip.base_us,
        )
        if change > 0 and not ack.window_limited:
            return
        if change < 0 and ack.sent_us <= self._cut_us:
            return
        self._set_window(self._window + change)
        if now_us >= self._slowdown_from_us >= 0:
            self._begin_slowdown(now_us, ack.round_trip.smoothed_us)

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        # as Reno; a ramp that loses has found its threshold
        if not new_window:
            return
        if now_us < self._held_until_us:
            # what the window was before the slowdown has lost it, not the least that it is now
            self._before_cut = (self._window, self._threshold, True)
            self._threshold = max(self._threshold / 2, float(MINIMUM_WINDOW_SEGMENTS * self.segment_bytes))
            return
        self._before_cut = (self._window, self._threshold, False)
        queued = min(self._recent_us, default=0) > self.target_delay_us / 2
        self._set_window(window_after_loss(self._window, self.segment_bytes, queued))
        self._threshold = self._window
        self._cut_us = now_us
        if self.slow_start:
            self._leave_slow_start(now_us, 0)

    def on_timeout(self, now_us: int) -> None:
        # RFC 5681 3.1: the threshold is held while what left again is lost again
        window = self._threshold if self._slowdown_started_us >= 0 else self._window
        least = float(MINIMUM_WINDOW_SEGMENTS * self.segment_bytes)
        first = not self.slow_start or self._threshold == float("inf")
        if window > least or (first and window < least):
            self._before_cut = (window, self._threshold, self.slow_start and self._slowdown_started_us < 0)
        if window > least or first:
            self._threshold = max(window / 2, min(window, least))
        self._set_window(min(window / 2, least))
        self._held_until_us = self._slowdown_started_us = -1
        self._recent_us.clear()
        self.slow_start = True

    def on_spurious(self, now_us: int) -> None:
        window, threshold, slow_start = self._before_cut
        if self._slowdown_started_us >= 0:
            # the queue shall drain all the same; the ramp behind it ends where the cut began
            self._threshold = max(self._threshold, window, threshold if threshold < float("inf") else 0.0)
            return
        self._threshold, self.slow_start = threshold, slow_start
        self._set_window(max(self._window, window))

    def _grow(self, ack: Acknowledgement, delay_us: int | None) -> None:
        """Slow start: the first by the gain until the queue shows, the others up to the threshold.

        Those need no delay.  After an overflow there is none for long: what was sent again tells no round trip.
        """
        if self._initial:
            if delay_us is None:
                return
            if delay_us > SLOW_START_EXIT * self.target_delay_us:
                self._leave_slow_start(ack.now_us, ack.round_trip.smoothed_us)
                return
        if ack.window_limited:
            share = gain(self.target_delay_us, ack.round_trip.base_us) if self._initial else 1.0
            self._window += share * min(ack.acked_bytes, self._window)
            if self._window >= self._threshold:
                self._window = self._threshold
                self._leave_slow_start(ack.now_us, ack.round_trip.smoothed_us)

    def _leave_slow_start(self, now_us: int, smoothed_us: int) -> None:
        self.slow_start = False
        if self._slowdown_started_us >= 0:
            duration_us = now_us - self._slowdown_started_us
            self._slowdown_from_us = self._common_moment_us(now_us + SLOWDOWN_SHARE * duration_us)
            self._slowdown_started_us = -1
        elif self._initial:
            self._slowdown_from_us = now_us + SLOWDOWN_ROUND_TRIPS * smoothed_us
        self._initial = False

    def _common_moment_us(self, soonest_us: int) -> int:
        """When to slow down: if there are others, at the same moment as all flows of this host."""
        if self._crowd is None or self._crowd.flows == 1:
            return soonest_us
        return next_beat_us(soonest_us - 1)

    def _begin_slowdown(self, now_us: int, smoothed_us: int) -> None:
        least = float(MINIMUM_WINDOW_SEGMENTS * self.segment_bytes)
        if self._window <= least:  # the pace makes it rest
            self._slowdown_from_us = self._common_moment_us(now_us + SLOWDOWN_SHARE * smoothed_us)
            return
        self._threshold = self._window
        self._window = least
        self._slowdown_started_us = self._cut_us = now_us
        self._held_until_us = now_us + SLOWDOWN_ROUND_TRIPS * smoothed_us
        self.slow_start = True

    def _set_window(self, window: float) -> None:
        share = 1.0 if self._crowd is None else self._crowd.least_segments
        self._window = max(window, share * MINIMUM_WINDOW_SEGMENTS * self.segment_bytes)


def gain(target_delay_us: int, base_us: int) -> float:
    """Segments that the window grows by in one round trip (section 4.2 of the draft)."""
    return 1.0 / min(SMALLEST_GAIN, ceil(2 * target_delay_us / max(base_us, 1)))


def window_change(
    acked_bytes: int, window: float, segment_bytes: float, delay_us: int, target_delay_us: int, base_us: int
) -> float:
    """By how many bytes the window moves for one acknowledgement (section 4.2 of the draft)."""
    share = min(acked_bytes / window, 1.0)
    growth = gain(target_delay_us, base_us) * segment_bytes
    if delay_us <= target_delay_us:
        return share * growth
    return share * max(growth - DECREASE * window * (delay_us / target_delay_us - 1), -window / 2)
