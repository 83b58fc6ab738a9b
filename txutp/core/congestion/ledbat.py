"""Classic LEDBAT, as BEP 29 and RFC 6817 describe it and libutp and libtorrent run it.

The window grows while our packets wait less than the target in queues, and shrinks in proportion while they wait
longer.  Where the two references differ, the choice stands beside the line.
"""

from __future__ import annotations

from txutp.core.congestion.crowd import Crowd
from txutp.core.congestion.interface import MINIMUM_WINDOW_SEGMENTS, Acknowledgement, window_after_loss

TARGET_DELAY_US = 100_000  # BEP 29; RFC 6817 allows no more
GAIN_BYTES = 3_000  # BEP 29: at most this much growth per round trip
CURRENT_FILTER = 3  # RFC 6817 2.4.2: the smallest of the last samples counts (libutp's number)
INITIAL_WINDOW_SEGMENTS = 2  # RFC 6817 INIT_CWND
SLOW_START_EXIT = 0.9  # of the target (libutp)
INF = float("inf")


class Ledbat:
    """Classic LEDBAT (BEP 29, RFC 6817) for one flow, with a target of 100 ms.

    Its window has a floor of two segments, and slow start is exponential, as libtorrent's; libutp's is linear.
    """

    __slots__ = (
        "_before_cut",
        "_crowd",
        "_recent_us",
        "_threshold_bytes",
        "_window",
        "segment_bytes",
        "slow_start",
        "target_delay_us",
    )

    pacing_gain: float = 0.0  # none of the references paces

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        self.segment_bytes: int = segment_bytes
        self.target_delay_us: int = TARGET_DELAY_US if target_delay_us is None else target_delay_us
        self.slow_start: bool = True
        self._window = float(INITIAL_WINDOW_SEGMENTS * segment_bytes)
        self._threshold_bytes = INF
        self._before_cut = (0.0, self._threshold_bytes, False)  # window, threshold and slow start
        self._recent_us: list[int] = []
        self._crowd: Crowd | None = None

    def join(self, crowd: Crowd, now_us: int) -> None:
        """Be one of the flows of a port, which share their growth and their least window.

        Each begins with two segments as ever.  With less, flows that come together see the empty path, and then hold
        100 ms of a buffer of 114 ms against a TCP that comes with them, where it now and again overflows.
        """
        self._crowd = crowd

    @property
    def window_bytes(self) -> int:
        return int(self._window)

    def on_ack(self, ack: Acknowledgement) -> None:
        delay_us = ack.one_way_delay_us
        if delay_us is None:
            # a peer that takes no samples, or says the same always: our own clock has to do
            delay_us = ack.round_trip_delay_us
        if delay_us is None:
            grown = self._window + min(ack.acked_bytes, self._window)
            if self.slow_start and ack.window_limited and grown <= self._threshold_bytes < INF:
                self._window = grown  # what is sent again after a timeout tells no delay
            return
        recent = self._recent_us
        recent.append(delay_us)
        if len(recent) > CURRENT_FILTER:
            del recent[0]
        delay_us = min(recent)

        window = self._window
        acked_bytes = ack.acked_bytes
        if window < MINIMUM_WINDOW_SEGMENTS * self.segment_bytes:
            acked_bytes = min(acked_bytes, int(window))  # one packet may be more than a window
        change = window_change(acked_bytes, window, delay_us, self.target_delay_us)
        if change > 0:
            if not ack.window_limited:
                # RFC 6817 2.4.2: what was never tried is not known to be free
                return
            if self._crowd is not None:
                change *= self._crowd.gain_share(self.segment_bytes)

        if self.slow_start:
            if delay_us > SLOW_START_EXIT * self.target_delay_us:
                self.slow_start = False
                self._threshold_bytes = window
            elif window + acked_bytes > self._threshold_bytes:
                self.slow_start = False
            else:
                change = max(change, acked_bytes)
        self._set_window(window + change)

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        # RFC 6817 2.4.2: halve, at most once per round trip
        if not new_window:
            return
        self._before_cut = (self._window, self._threshold_bytes, False)
        queued = min(self._recent_us, default=0) > self.target_delay_us / 2
        kept = (
            window_after_loss(self._window, self.segment_bytes, queued) if self._crowd is not None else self._window / 2
        )
        self._set_window(kept)
        self._threshold_bytes = self._window
        self.slow_start = False

    def on_timeout(self, now_us: int) -> None:
        # RFC 6817 2.4.2: one segment; slow start again up to half of what was in use, also if that one is lost again
        # (RFC 5681 3.1)
        window = self._window
        if window > self.segment_bytes or not self.slow_start:
            self._before_cut = (window, self._threshold_bytes, self.slow_start)
            self._threshold_bytes = max(window / 2, min(window, MINIMUM_WINDOW_SEGMENTS * self.segment_bytes))
        self._window = max(min(window / 2, float(self.segment_bytes)), self._least_window / MINIMUM_WINDOW_SEGMENTS)
        self.slow_start = True
        self._recent_us.clear()

    def on_spurious(self, now_us: int) -> None:
        window, self._threshold_bytes, self.slow_start = self._before_cut
        self._set_window(max(self._window, window))

    def _set_window(self, window: float) -> None:
        self._window = max(window, self._least_window)

    @property
    def _least_window(self) -> float:
        """Two segments, of all flows of the port together."""
        share = 1.0 if self._crowd is None else self._crowd.least_segments
        return share * MINIMUM_WINDOW_SEGMENTS * self.segment_bytes


def window_change(acked_bytes: int, window: float, delay_us: int, target_delay_us: int) -> float:
    """By how many bytes LEDBAT moves the window for one acknowledgement (BEP 29; RFC 6817 2.4.2).

    A queue far above the target takes at most half a window per round trip, as LEDBAT++ has it: BEP 29 sets no bound,
    and with a target of 100 ms one second of queue would otherwise empty any window in one round trip.
    """
    window_factor = min(acked_bytes, window) / max(acked_bytes, window)
    per_round_trip = GAIN_BYTES * (target_delay_us - delay_us) / target_delay_us
    return window_factor * max(per_round_trip, -window / 2)
