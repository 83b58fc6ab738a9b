"""When the next packets may leave: a window spread over its round trip instead of sent in one burst.

The flow asks ``allowance_bytes`` before it sends and tells ``on_sent``; if there is none, it asks again at ``due_us``.
Credit grows with time, up to a small burst: less would need a timer for each packet, more would fill shallow queues.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

# A burst may hold so many packets, or what the rate carries in this time.
BURST_SEGMENTS = 2
BURST_US = 1_000

# Timers are late, by a millisecond on most systems; so much lateness is caught up.
LATENESS_US = 4_000
# Where a thousand connections are busy they are late by as long as it takes to serve all the others.  Half of a window
# is caught up then, or the fewer bursts would have to be the smaller ones, too.
LATENESS_SHARE = 0.4
LARGEST_LATENESS_US = 100_000


class Pacer:
    """The credit of one flow, in bytes."""

    __slots__ = ("_credit", "_updated_us", "due_us")

    def __init__(self) -> None:
        self._credit = 0.0
        self._updated_us = 0
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
        """How much may leave now; 0 unless it is a burst worth sending, or all that is wanted."""
        burst = max(burst_segments * segment_bytes, bytes_per_second * burst_us / SECOND_US)
        limit = burst
        if 0 < self.due_us < now_us:
            tolerated_us = max(LATENESS_US, min(LATENESS_SHARE * round_trip_us, LARGEST_LATENESS_US))
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

    def on_sent(self, sent_bytes: int) -> None:
        """So much left."""
        self._credit -= sent_bytes
