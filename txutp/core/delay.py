"""From timestamp differences to the time that our packets waited in queues (RFC 6817 2.4.2 and section 4).

A sample is "their clock at receipt minus our clock at sending": delay plus an unknown, slowly drifting offset, modulo
2**32.  The smallest sample of the last minutes stands for the empty path; the excess of a sample is queueing delay.
"""

from __future__ import annotations

from txutp.core.sequence import MASK32, signed32

SLOT_US = 60_000_000
SLOTS = 13  # libutp's number; RFC 6817 suggests ten

# The largest fall of the peer's base that counts as clock drift and not as a change of route (libutp, libtorrent).
LARGEST_SHIFT_US = 10_000

# Number of equal answers in a row, and the spread of their round trips, that show that a peer always reports the same
# value (utp-rs does so when clocks differ by more than a minute).
CONSTANT_SAMPLES = 20
CONSTANT_SPREAD_US = 5_000

# The values that mean "no sample": 0, and 0x7fffffff, which an old uTorrent sent.
NOT_A_SAMPLE = (0, 0x7FFFFFFF)


class DelayHistory:
    """The base delay of one direction: the smallest of the minima of the last minutes."""

    __slots__ = ("_minima", "_slot_started_us", "base_us")

    def __init__(self) -> None:
        self.base_us: int = 0
        self._minima: list[int] = []
        self._slot_started_us = 0

    def on_sample(self, sample_us: int, now_us: int) -> int:
        """Returns the queueing delay in a sample, in microseconds; a sample below the base becomes the base."""
        minima = self._minima
        if not minima:
            self.base_us = sample_us
            minima.append(sample_us)
            self._slot_started_us = now_us
            return 0

        if now_us - self._slot_started_us > SLOT_US:
            self._slot_started_us = now_us
            minima.append(sample_us)
            del minima[:-SLOTS]
            newest = minima[-1]
            self.base_us = (newest + min(signed32(minimum - newest) for minimum in minima)) & MASK32
        elif signed32(sample_us - minima[-1]) < 0:
            minima[-1] = sample_us

        delay_us = signed32(sample_us - self.base_us)
        if delay_us < 0:
            self.base_us = sample_us
            return 0
        return delay_us

    def above_base_us(self, sample_us: int) -> int:
        """Returns the queueing delay in a sample without taking it; 0 as long as none was taken."""
        return max(signed32(sample_us - self.base_us), 0) if self._minima else 0

    def shift(self, shift_us: int) -> None:
        """Move the base and its history, because the clocks moved against each other."""
        self.base_us = (self.base_us + shift_us) & MASK32
        self._minima = [(minimum + shift_us) & MASK32 for minimum in self._minima]


class PathDelay:
    """Both directions of a path: the peer's direction is watched because a fall of its base shows that clocks drift."""

    __slots__ = ("_last_difference_us", "_longest_us", "_repeats", "_shortest_us", "ours", "theirs")

    def __init__(self) -> None:
        self.ours: DelayHistory = DelayHistory()
        self.theirs: DelayHistory = DelayHistory()
        self._last_difference_us = 0
        self._repeats = 0  # of the same answer in a row
        self._shortest_us = self._longest_us = 0  # round trips of these answers

    def on_reply(self, reply_us: int, now_us: int) -> None:
        """Take the difference of both clocks that a packet of the peer shows."""
        theirs = self.theirs
        before_us = theirs.base_us
        had_sample = bool(theirs._minima)
        theirs.on_sample(reply_us, now_us)
        # If their base fell a little, their clock gains on ours, and our own samples have risen by as much for good.
        if had_sample:
            fall_us = signed32(before_us - theirs.base_us)
            if 0 < fall_us <= LARGEST_SHIFT_US and self.ours._minima:
                self.ours.shift(fall_us)

    def on_difference(self, difference_us: int, round_trip_us: int, now_us: int) -> int | None:
        """Returns the queueing delay that the peer's answer reports, at most the round trip; None if it reports none.

        A delay longer than the round trip is impossible: the base is too low by the excess (libutp), so it moves up.
        """
        if difference_us in NOT_A_SAMPLE:
            return None
        if difference_us != self._last_difference_us:
            self._last_difference_us = difference_us
            self._repeats = 0
            self._shortest_us = self._longest_us = round_trip_us
        else:
            self._repeats += 1
            self._shortest_us = min(self._shortest_us, round_trip_us)
            self._longest_us = max(self._longest_us, round_trip_us)
            if self._repeats > CONSTANT_SAMPLES and self._longest_us - self._shortest_us > CONSTANT_SPREAD_US:
                return None
        delay_us = self.ours.on_sample(difference_us, now_us)
        if delay_us > round_trip_us > 0:
            self.ours.shift(delay_us - round_trip_us)
            return round_trip_us
        return delay_us
