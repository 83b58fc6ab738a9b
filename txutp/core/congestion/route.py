"""Whether a delay that stays is a longer path: the flow sends more for a moment, and only a queue grows by that.

A controller that compares with the shortest delay takes a path that has become longer for a queue, and shrinks.  The
delay alone cannot tell the two apart: a TCP with a full window, or one that probes as BBR does, keeps a queue that
hardly moves.  What differs is the answer to more packets.  On an empty path they arrive as fast as before; behind
another flow's queue each of them makes all later ones wait longer.

A ``RouteCheck`` exists as long as no packet was faster than half of the target.  It has two phases:

*Watch*: the least delays of groups of samples tell how long packets take, and how far chance moves that.

*Push*: a round trip after the window grew by ``extra_bytes``, the least delay of one more group is compared.  In a
    queue the push would last twice as long as what chance moves, at the highest rate that the flow had before.

Many small flows do not push.  Each of them has so little that only a constant delay tells it of a new path.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

SAMPLE_US = 4_000  # at least between two samples: more of them would tell nothing more
GROUP_SAMPLES = 8
GROUPS = 3  # before a push
WATCH_US = 2_000_000
LEAST_VISIBLE_US = 2_000
LARGEST_SPREAD = 0.5  # of the delay; one that moves more is somebody's queue
LEAST_EXTRA_SEGMENTS = 4
FIRST_EXTRA_SEGMENTS = 16  # a push that has to be larger comes after smaller ones that nothing answered
EXTRA_FACTOR = 4
PAUSE_US = 4_000_000  # after a push that a queue has answered, and up to as much more by chance

# Without a push
CONSTANT_US = 5_000_000
CONSTANT_SAMPLES = 20
CONSTANT_SPARSE_SAMPLES = 5  # of a window below one segment, however long they take
CONSTANT_SPREAD_US = 2_000


class RouteCheck:
    """A delay that may be the path's own."""

    __slots__ = (
        "_counts_from_us",
        "_group_low_us",
        "_group_samples",
        "_groups",
        "_groups_high_us",
        "_high_us",
        "_least_us",
        "_samples",
        "_since_us",
        "due_us",
        "extra_bytes",
        "low_us",
        "rate",
        "rested",
        "sample_due_us",
    )

    def __init__(self, now_us: int, rate: float) -> None:
        self.rate = rate  # bytes per second that the flow had before
        self.extra_bytes = 0.0  # that the window has more than before, during a push
        self.watch(now_us)

    def watch(self, since_us: int) -> None:
        """Begin anew, and not before ``since_us``."""
        self.rested = False  # the flow held still meanwhile, so that what waits is not its own
        self.low_us = self._high_us = -1
        self._since_us = self._counts_from_us = since_us
        self.due_us = since_us + WATCH_US  # when to ask for what follows
        self.sample_due_us = since_us
        self._samples = self._groups = 0
        self._groups_high_us = 0  # the largest of the groups' least delays
        self._begin_group()

    def _begin_group(self) -> None:
        self._group_samples = 0
        self._group_low_us = -1

    def on_sample(self, now_us: int, sent_us: int, delay_us: int) -> None:
        """A packet that left at ``sent_us`` was delayed so long."""
        if sent_us < self._counts_from_us:
            return
        self.sample_due_us = now_us + SAMPLE_US
        self._group_samples += 1
        if self._group_low_us < 0 or delay_us < self._group_low_us:
            self._group_low_us = delay_us
        if self.extra_bytes:
            return
        self._samples += 1
        if self.low_us < 0 or delay_us < self.low_us:
            self.low_us = delay_us
        if delay_us > self._high_us:
            self._high_us = delay_us
        if self._group_samples == GROUP_SAMPLES:
            self._groups += 1
            self._groups_high_us = max(self._groups_high_us, self._group_low_us)
            self._begin_group()

    # -- with a push --

    def is_ripe(self, now_us: int) -> bool:
        """Whether there was enough to see for a push.  A delay that moves too much is watched anew."""
        if self._groups < GROUPS or now_us < self.due_us:
            return False
        if self._moves:
            self.watch(now_us)
            return False
        return True

    @property
    def _moves(self) -> bool:
        return self._groups_high_us - self.low_us > max(LARGEST_SPREAD * self.low_us, LEAST_VISIBLE_US)

    def push(self, now_us: int, round_trip_us: int, segment_bytes: int, flows: int = 1) -> float:
        """Begin a push, or a larger one, on a path for so many flows; returns by how much the window shall grow."""
        before = self.extra_bytes
        limit = EXTRA_FACTOR * before if before else FIRST_EXTRA_SEGMENTS * segment_bytes
        wanted = max(self._wanted_bytes(flows), LEAST_EXTRA_SEGMENTS * segment_bytes, before)
        self.extra_bytes = min(wanted, limit)
        self._counts_from_us = now_us + round_trip_us
        self._begin_group()
        return self.extra_bytes - before

    @property
    def is_judged(self) -> bool:
        """Whether enough has come back of a push."""
        return self._group_samples >= GROUP_SAMPLES

    def has_grown(self) -> bool:
        """Whether the delay grew with the push, or moves too much to tell.

        If it fell, packets meet another phase of a path that batches, or somebody else left: what is visible is more.
        """
        low_us = self._group_low_us
        if low_us > self.low_us - self._visible_us:
            return low_us >= self.low_us + self._visible_us
        self.low_us = low_us
        return self._moves

    def is_enough(self, flows: int = 1) -> bool:
        """Whether a queue on a path for so many flows would have shown in this push."""
        return self.extra_bytes >= self._wanted_bytes(flows)

    def end_push(self) -> float:
        """Returns by how much the window grew."""
        extra_bytes, self.extra_bytes = self.extra_bytes, 0.0
        return extra_bytes

    @property
    def _visible_us(self) -> int:
        return max(self._groups_high_us - self.low_us, LEAST_VISIBLE_US)

    def _wanted_bytes(self, flows: int) -> float:
        return 2 * self._visible_us * flows * self.rate / SECOND_US

    # -- without one --

    def is_constant(self, now_us: int, sparse: bool) -> bool:
        """Whether the delay did not move for a while.  One that moves is watched anew."""
        if now_us - self._since_us < CONSTANT_US:
            return False
        constant = self._high_us - self.low_us < CONSTANT_SPREAD_US
        enough = self._samples > (CONSTANT_SPARSE_SAMPLES if sparse else CONSTANT_SAMPLES)
        if constant and enough:
            return True
        if not (constant and sparse):
            self.watch(now_us)
        return False
