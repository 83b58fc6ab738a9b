"""Loss recovery with a peer that does not name the segments that arrived behind a gap.

BEP 29 leaves selective acks to the receiver.  npm's ``utp`` sends none, KTorrent empty ones.  Such a peer repeats its
ack for each packet that arrives behind a gap, and an ack that fills the gap goes as far as the next one.  The flow
makes a ``GapSearch`` with the first of these duplicate acks, and asks it

- ``is_expected`` whether one of them is for a segment that the peer got twice;
- ``pipe_bytes`` how many bytes are still in the network: segments that arrived have left it, although it is not known
  which ones they are (RFC 5681 3.2, RFC 3042);
- ``assume_round_trip`` how long a round trip may take where none can be measured, because a segment that arrived
  behind a gap is acknowledged only when the gap is filled;
- ``search`` after each ack, whether more segments shall be retransmitted than the first missing one.

``SendBuffer.detect_first_loss`` finds the first one.  A gap is seen only when the one before it is filled (RFC 6582),
which takes a round trip, so each of a few losses in a large window would take a round trip.  But the number of lost
segments is known: all acks have come for segments that left longer ago than a round trip.  If some of them are lost and
the window has room, the segments behind the first gap are retransmitted, lost or not, and the peer drops duplicates.
That is bounded: at least one in ``SMALLEST_SHARE`` has to be lost, and one in ``LARGEST_SHARE`` where new data waits
for the same window.
"""

from __future__ import annotations

from txutp.core.congestion.steering import Steering
from txutp.core.delay import NOT_A_SAMPLE
from txutp.core.rtt import PROBE_MARGIN_US, RoundTrip
from txutp.core.sending import SendBuffer
from txutp.core.sequence import signed32

LARGEST_SHARE = 2
SMALLEST_SHARE = 64

# Least time between two searches of all runs, for each run, unless a gap was filled in between.  A search takes a
# quarter of it, and a peer may send duplicate acks as fast as it likes.
RUN_US = 1


class GapSearch:
    """The gaps of one flow whose peer names no segments behind them."""

    __slots__ = (
        "_assumed_us",
        "_credited_bytes",
        "_departed_segments",
        "_expected_duplicates",
        "_expected_until_us",
        "_recent_segments",
        "_round_trip",
        "_searched_us",
        "_window_tells",
    )

    def __init__(self, round_trip: RoundTrip) -> None:
        self._round_trip = round_trip
        self._departed_segments = 0  # counted as in flight, but arrived or lost
        self._searched_us = 0  # time of the last search of all runs
        self._recent_segments = 0  # retransmitted by then, and perhaps not answered yet
        self._assumed_us = 0  # round trip that was assumed since one was measured
        self._credited_bytes = 0  # reported to the controller before an ack named them
        self._expected_duplicates = 0  # acks to come for segments that the peer got twice
        self._expected_until_us = 0  # when these acks have come at the latest
        self._window_tells = False  # the peer's window shrinks by the segments that wait behind a gap

    @property
    def answer_us(self) -> int:
        """The longest time that an answer usually takes; it may still come later."""
        round_trip = self._round_trip
        return max(round_trip.smoothed_us, self._assumed_us) + max(4 * round_trip.variation_us, PROBE_MARGIN_US)

    def pipe_bytes(self, flight_bytes: int, segment_bytes: int) -> int:
        """Returns how many of the bytes in flight are still in the network."""
        return max(flight_bytes - self._departed_segments * segment_bytes, 0)

    def on_measured(self) -> None:
        """A round trip was measured."""
        self._assumed_us = 0

    def assume_round_trip(self, difference_us: int, steering: Steering | None, repair_us: int, limit_us: int) -> int:
        """Returns the round trip by the peer's clock, else the time that the repair of a gap took; 0 if unknown.

        The controller and the search use it.  The timeout does not: it is the upper limit.
        """
        base_us = self._round_trip.base_us
        if difference_us in NOT_A_SAMPLE:
            assumed_us = max(repair_us, base_us) if repair_us else 0
        elif steering is None:
            assumed_us = 0
        else:
            assumed_us = base_us + max(signed32(difference_us - steering.delay.ours.base_us), 0)
        if assumed_us:
            self._assumed_us = assumed_us = min(assumed_us, limit_us)
        return assumed_us

    def is_expected(self, arrived_bytes: int, now_us: int) -> bool:
        """Whether a duplicate ack is for a segment that the peer got twice.

        ``arrived_bytes`` is by how much the peer's window has become smaller, which shows that a segment arrived.
        """
        if arrived_bytes > 0:
            self._window_tells = True
        elif self._expected_duplicates and now_us < self._expected_until_us:
            self._expected_duplicates -= 1
            return True
        return False

    def credit(self, new_bytes: int) -> None:
        """Count bytes that the controller was told of before they were acknowledged."""
        self._credited_bytes += new_bytes

    def uncredited(self, acked_bytes: int, gaps_remain: bool) -> int:
        """Returns how many of the bytes that an ack names the controller was not told of yet."""
        credited_bytes = min(self._credited_bytes, acked_bytes)
        self._credited_bytes -= credited_bytes if gaps_remain else self._credited_bytes
        return acked_bytes - credited_bytes

    def search(
        self,
        sending: SendBuffer,
        window_bytes: int,
        segment_bytes: int,
        new_may_leave: bool,
        filled: bool,
        now_us: int,
    ) -> None:
        """After an ack: count the segments that have left the network, and retransmit more if that is worthwhile.

        ``filled`` says that the ack filled a gap, ``new_may_leave`` that new data waits for the congestion window only.
        The first retransmission leaves alone.
        """
        if not sending.runs or sending.first_unacked > sending.nameless_sequence:
            self._departed_segments = 0
            return
        nameless = sending.nameless_segments
        if not filled and now_us < self._searched_us + RUN_US * len(sending.runs):
            arrived = min(nameless, sending.outstanding - sending.lost_segments - self._recent_segments)
            self._departed_segments = max(self._departed_segments, arrived)
            return
        self._searched_us = now_us
        # Where only the number of acks shows how much arrived, a segment that was sent twice would count twice.
        masks, overdue, recent = sending.overdue(now_us - self.answer_us, not self._window_tells)
        self._recent_segments = recent
        self._departed_segments = max(overdue, min(nameless, sending.outstanding - sending.lost_segments - recent))
        lost = overdue - nameless
        head = sending.runs[0]
        bit = 1 << sending.first_unacked - head.first
        if lost <= 0 or sending.lost_segments > 1 or not (head.resent & bit or (filled and head.lost & bit)):
            return
        room = (window_bytes - self.pipe_bytes(sending.flight_bytes, segment_bytes)) // segment_bytes
        worth = LARGEST_SHARE if new_may_leave else min(room, SMALLEST_SHARE)
        if room > 0 and lost * worth >= overdue:
            queued = sending.send_again(masks, room)
            self._departed_segments = max(self._departed_segments - queued, 0)
            self._expected_duplicates += nameless * queued // overdue
            self.on_resent(now_us)

    def on_resent(self, now_us: int) -> None:
        """A segment is retransmitted: if the peer has it, its ack will look like a duplicate one (RFC 6582 4.1)."""
        if self._expected_duplicates:
            self._expected_until_us = now_us + 2 * self.answer_us

    def on_timeout(self, nameless_segments: int, now_us: int) -> None:
        """All segments in flight are given up; ``nameless_segments`` of them arrived behind gaps."""
        self._expected_duplicates += nameless_segments
        self.on_resent(now_us)
        self._departed_segments = self._credited_bytes = 0
