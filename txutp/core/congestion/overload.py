"""A limit of the rate, for paths that drop what comes too fast whatever the window is.

A window bounds what is in flight, and that is too coarse for some paths.  A policer, or a queue of a packet or two on
a path with next to no round trip, drops most of what comes although the window is at its least, and no delay announces
it.

``Steering`` reports what was acknowledged and what was lost, and applies ``rate_limit``.  A path's own losses are
judged as its own delay is: the smallest share of the last intervals is the path's, and a share that does not fall when
the rate does is, too.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

INTERVAL_SEGMENTS = 256  # with fewer, chance alone would look like a policer
CLEAN_SEGMENTS = 64  # are enough to raise a limit if nothing was lost
INTERVAL_ROUND_TRIPS = 2
BASE_INTERVALS = 8  # the smallest loss share of these is the path's own

EXCESS = 0.08  # share of an interval above the path's own that begins a limit
LIMITED_EXCESS = 0.015  # ...and that lowers an existing one
INDEPENDENT = 0.5  # of the share that began a limit: if that much is still lost, the rate is not the cause
STEP = 0.95  # of what arrived is the new limit
LEAST = 0.7  # of the first limit: if more than that is lost at less, the rate is not the cause either
RESTING_INTERVALS = 32  # without a limit after one that did not help
STEPS = 3  # intervals at a lower rate, before the loss counts as independent of it
RISE = 0.02  # of the limit, after an interval without excess...
CLEAN_INTERVALS = 4  # ...doubled with each after this number without a loss, above the limit that was too high
LARGEST_RISE = 0.25
UNUSED = 4  # times what arrives: a limit that is so far off limits nothing

# Longer gaps between two acknowledgements are silence and no part of the rate.
GAP_ROUND_TRIPS = 4
GAP_US = 50_000


class Overload:
    """What one flow has learned about its path's losses."""

    __slots__ = (
        "_acked_bytes",
        "_acked_us",
        "_active_us",
        "_base_shares",
        "_began_rate",
        "_began_share",
        "_clean_intervals",
        "_excessive",
        "_fell_from",
        "_lost_bytes",
        "_resting_intervals",
        "rate_limit",
    )

    def __init__(self) -> None:
        self.rate_limit: float = 0.0  # bytes per second; 0 is without limit
        self._acked_bytes = 0
        self._lost_bytes = 0
        self._active_us = 0  # length of this interval without silence
        self._acked_us = 0  # the last acknowledgement
        self._base_shares: tuple[float, ...] = ()
        self._began_share = 0.0  # loss share that began the limit
        self._began_rate = 0.0  # the limit as it began
        self._resting_intervals = 0
        self._clean_intervals = 0
        self._fell_from = 0.0  # the limit that was too high
        self._excessive = False  # the last interval lost too much

    @property
    def base_share(self) -> float:
        """The share of packets that the path itself loses."""
        return min(self._base_shares, default=0.0)

    def on_ack(self, now_us: int, acked_bytes: int, smoothed_us: int, segment_bytes: int) -> bool:
        """``acked_bytes`` more arrived; returns whether that ended an interval."""
        self._active_us += min(now_us - self._acked_us, GAP_ROUND_TRIPS * smoothed_us + GAP_US)
        self._acked_us = now_us
        self._acked_bytes += acked_bytes
        if self._active_us < INTERVAL_ROUND_TRIPS * smoothed_us:
            return False
        clean = self.rate_limit and not self._lost_bytes
        segments = CLEAN_SEGMENTS if clean else INTERVAL_SEGMENTS
        if self._acked_bytes + self._lost_bytes < segments * segment_bytes:
            return False
        self._end_interval()
        return True

    def on_loss(self, lost_bytes: int) -> None:
        """``lost_bytes`` more were lost."""
        self._lost_bytes += lost_bytes

    def on_spurious(self, late_bytes: int) -> None:
        """So much of what was lost arrived after all."""
        self._lost_bytes -= late_bytes

    def on_timeout(self) -> None:
        """An interval with a pause in it says nothing of the rate."""
        self._begin_interval()

    def _begin_interval(self) -> None:
        self._acked_bytes = self._lost_bytes = self._active_us = 0

    def _end_interval(self) -> None:
        lost_bytes = max(self._lost_bytes, 0)
        share = lost_bytes / (self._acked_bytes + lost_bytes)
        rate = self._acked_bytes * SECOND_US / max(self._active_us, 1)
        if self.rate_limit:
            self._adjust(share, rate)
        else:
            self._judge(share, rate)
        self._begin_interval()

    def _judge(self, share: float, rate: float) -> None:
        """Begin a limit at the second interval in a row with too much loss: the first may be an overshoot."""
        excess = share - self.base_share
        if excess <= EXCESS or self._resting_intervals:
            self._resting_intervals = max(self._resting_intervals - 1, 0)
            self._excessive = False
            self._remember(share)
        elif not self._excessive:
            self._excessive = True
        else:
            self._excessive = False
            self.rate_limit = self._began_rate = self._fell_from = STEP * rate
            self._began_share = share
            self._base_shares = ()
            self._clean_intervals = 0

    def _adjust(self, share: float, rate: float) -> None:
        """Move the limit to where next to nothing gets lost, or give it up if that does not help."""
        excess = share - (self.base_share if len(self._base_shares) >= STEPS else 0.0)
        self._remember(share)
        if excess <= LIMITED_EXCESS:
            self._raise(share, rate)
        else:
            self._clean_intervals = 0
            self._fell_from = self.rate_limit
            self.rate_limit = min(self.rate_limit, STEP * rate)
        independent = len(self._base_shares) >= STEPS and self.base_share > INDEPENDENT * self._began_share
        if independent or self.rate_limit < LEAST * self._began_rate:
            self.rate_limit = 0.0
            self._resting_intervals = RESTING_INTERVALS

    def _raise(self, share: float, rate: float) -> None:
        doublings = max(self._clean_intervals - CLEAN_INTERVALS, 0)
        self.rate_limit *= 1 + min(RISE * 2**doublings, LARGEST_RISE)
        if share:
            self._clean_intervals = 0
        elif self.rate_limit > UNUSED * rate:
            self.rate_limit = 0.0
        elif self.rate_limit > self._fell_from:
            self._clean_intervals += 1

    def _remember(self, share: float) -> None:
        self._base_shares = (*self._base_shares[1 - BASE_INTERVALS :], share)
