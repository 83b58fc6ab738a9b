"""Pacing: a window leaves spread over its round trip instead of in one burst.

The flow asks ``allowance_bytes`` before it sends, and calls ``on_sent`` afterwards; while the allowance is 0, it asks
again at ``due_us``.  Credit grows with time up to a small burst: a smaller one would need a timer for each packet, a
larger one would fill shallow queues.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

# The size of a burst: in packets, or as the time whose share of the rate it is, whichever is more.
BURST_SEGMENTS = 2
BURST_US = 1_000

# Lateness of a timer that is caught up; on most systems timers are late by a millisecond.
LATENESS_US = 4_000
# Lateness that is caught up, as a share of the round trip, and at most.  Where a thousand connections are busy, a timer
# is late by the time that all the others take, so fewer bursts leave, and each has to be larger.
LATENESS_SHARE = 0.4
LARGEST_LATENESS_US = 100_000


class Pacer:
    """The credit of one flow, in bytes."""

    __slots__ = ("_credit", "_held_since_us", "_updated_us", "due_us")

    def __init__(self) -> None:
        self._credit = 0.0
        self._updated_us = 0
        self._held_since_us = 0  # a cap on the rate has held back what was allowed
        self.due_us: int = 0  # when the burst that was refused may leave; 0 if none was

    def start(self, now_us: int) -> None:
        """Begin without credit: the first packet waits for its turn, too."""
        self._credit = 0.0
        self._updated_us = now_us

    def allowance_bytes(
        self,
        now_us: int,
        bytes_per_second: float,
        segment_bytes: int,
        wanted_bytes: int,
        round_trip_us: int = 0,
        burst_us: int = BURST_US,
        burst_segments: int = BURST_SEGMENTS,
    ) -> int:
        """Returns how much may leave now: a whole burst or more, or all that is wanted; else 0."""
        burst = max(burst_segments * segment_bytes, bytes_per_second * burst_us / SECOND_US)
        limit = burst
        if 0 < self.due_us < now_us:
            tolerated_us = max(LATENESS_US, min(LATENESS_SHARE * round_trip_us, LARGEST_LATENESS_US))
            if self._held_since_us:
                tolerated_us = now_us - self.due_us
            limit += bytes_per_second * min(now_us - self.due_us, tolerated_us) / SECOND_US
        elapsed_us = now_us - self._updated_us
        self._updated_us = now_us
        credit = self._credit = min(self._credit + elapsed_us * bytes_per_second / SECOND_US, limit)
        needed = min(burst, wanted_bytes)
        # a thousandth of a byte is a matter of rounding
        if credit + 1e-3 >= needed:
            self.due_us = 0
            return int(credit + 1e-3)
        self.due_us = now_us + max(int((needed - credit) * SECOND_US / bytes_per_second), 1)
        return 0

    def hold(self, is_held: bool, now_us: int) -> None:
        """A cap holds back what was allowed: all of that time is caught up, or there would be two waits in a row."""
        if not is_held:
            self._held_since_us = 0
            return
        if not self._held_since_us:
            self._held_since_us = now_us
        self.due_us = self._held_since_us

    def on_sent(self, sent_bytes: int) -> None:
        """Take the credit for bytes that have left."""
        self._credit -= sent_bytes
