"""When all flows of a host make room: at the same moments of its monotonic clock.

A queue shows every flow the empty path only when nobody fills it.  One flow of fifty that pauses alone sees the queue
of the other forty-nine.  Every connection, port and process of a host reads the same monotonic clock, so moments that
follow from that clock alone are common to all of them, without any exchange.

A controller that holds its window down from time to time asks ``next_beat_us`` when to do so.  Windows below a few
segments have no packets in flight to hold back; ``Steering`` makes them pause for ``rest_us`` at each beat.
"""

from __future__ import annotations

BEAT_US = 3_000_000
REST_ROUND_TRIPS = 1.5


def next_beat_us(now_us: int, least_us: int = 0) -> int:
    """The next common moment at which a flow makes room that does so every ``least_us`` or less often.

    Longer intervals are multiples of the shortest by a power of two, so that slow flows meet the others at every turn
    of theirs.
    """
    interval_us = BEAT_US
    while interval_us < least_us:
        interval_us *= 2
    return (now_us // interval_us + 1) * interval_us


def rest_us(smoothed_us: int) -> int:
    """How long a flow with this round trip holds still at a beat."""
    return int(REST_ROUND_TRIPS * smoothed_us)
