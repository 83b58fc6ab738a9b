"""What one connection measures of the data that comes in, and the window that the peer sees while it shall yield.

Every packet of uTP tells how long it took, plus the difference of the clocks, and how long our last packet took, minus
the same difference.  The sum is a round trip, at every packet, without sending anything.  Only full-size packets count.
``downlink.py`` has the rules; a ``Yielding`` is made with the first data, and reports to a ``Downlink``.

The buffer keeps its capacity, so what is in flight is accepted: only the window in our headers is smaller.  It is never
less than two segments for a single peer.  Of a crowd each may have less than that; then they take turns.
"""

from __future__ import annotations

from collections.abc import Callable

from txutp.core.delay import NOT_A_SAMPLE, PathDelay
from txutp.core.downlink import FLOOR_SEGMENTS, Downlink
from txutp.core.memory import LEAST_WINDOW_BYTES
from txutp.core.receiving import ReceiveBuffer
from txutp.core.rtt import RoundTrip
from txutp.core.sequence import MASK32, signed32
from txutp.core.units import SECOND_US

NEVER_US = 1 << 62

# A peer that waits for its turn looks so often whether those before it have used theirs.
IMPATIENT_US = 500_000

# What was measured is forgotten after so long without data.
IDLE_US = 10_000_000

# On watch: looks per interval, the segments between two of them at most, and how long an interval is at least.
LOOKS = 16
LARGEST_STEP_SEGMENTS = 1_024
INTERVAL_US = 50_000

# Round trips that cannot be; a little less than nothing is the grain of coarse clocks.
LONGEST_ROUND_TRIP_US = 60_000_000
COARSE_US = 50_000
UNKNOWN_ROUND_TRIP_US = 100_000  # assumed where neither the peer nor our own data tells one

# Smaller segments in a row after which the peer's full segment counts as smaller.
SMALLER_SEGMENTS = 64

# Round trips, and time for timers, within which a peer that uses its window comes near the edge of it.
USED_ROUND_TRIPS = 1.25
USED_MARGIN_US = 5_000

# Later segments that make a missing one count as lost (RFC 5681 3.2), unless it arrives before a repair could.
OVERTAKEN_SEGMENTS = 3
SOONEST_REPAIR_SHARE = 0.9


class Yielding:
    """The incoming data of one connection."""

    __slots__ = (
        "_arrived_bytes",
        "_downlink",
        "_edge_bytes",
        "_interval_bytes",
        "_interval_us",
        "_least_us",
        "_looks_again_us",
        "_lost_sequence",
        "_path",
        "_round_bytes",
        "_round_us",
        "_smaller_segments",
        "_step",
        "_target_delay_us",
        "_ticked_us",
        "_timestamp_us",
        "granted_bytes",
        "granted_us",
        "heard_us",
        "is_in_row",
        "lost_us",
        "offered_bytes",
        "open_window",
        "rate",
        "round_trip",
        "round_trip_us",
        "segment_bytes",
        "share_bytes",
        "uses_window",
        "waited_us",
    )

    def __init__(
        self,
        target_delay_us: int,
        downlink: Downlink,
        open_window: Callable[[], None],
        bytes_received: int,
        now_us: int,
    ) -> None:
        """``open_window`` lets a packet leave that tells the peer of its window."""
        self.open_window: Callable[[], None] = open_window
        self._target_delay_us = target_delay_us
        self._downlink = downlink

        # what is measured
        self._path = PathDelay()  # `ours` is the way in
        self.round_trip: RoundTrip = RoundTrip()
        self.round_trip_us: int = 0  # of the last full-size packet
        self._timestamp_us = -1  # of the last full-size packet...
        self._ticked_us = now_us  # ...and when it was another one for the last time
        self.waited_us: int = 0  # a full-size packet in queues on its way to us
        self.heard_us: int = now_us
        self.segment_bytes: int = 0  # the payload of a full packet
        self._smaller_segments = 0  # smaller ones, in a row
        self._arrived_bytes = bytes_received  # payload of the connection, at the last look
        self.rate: float = 0.0  # bytes per second, in the last interval
        self._interval_us = now_us
        self._interval_bytes = 0
        self._step = 0  # segments between two looks
        self._least_us = -1  # waited, in this interval

        # while peers are held back
        self.offered_bytes: float = 0.0  # what may be on its way; 0 while it is not bounded
        self.share_bytes: float = 0.0  # the part of the window of all
        self.granted_bytes: float = 0.0  # while peers take turns
        self.granted_us: int = 0
        self._looks_again_us = 0
        self.is_in_row: bool = False  # waits for its turn
        self._round_us = 0  # a round ends when the peer has used its window, or should have
        self._round_bytes = 0
        self._edge_bytes = 0.0  # so far the peer may have come
        self.uses_window: bool = True  # in the last round
        self._lost_sequence = -1  # all that is missing before it was counted as lost
        self.lost_us: int = -SECOND_US  # when

    # -- questions --

    @property
    def target_delay_us(self) -> int:
        """How long packets may wait."""
        return self._downlink.target_delay_us or self._target_delay_us

    def bound_bytes(self, window_bytes: int) -> int:
        """The window to advertise, where the buffer has room for ``window_bytes``."""
        downlink = self._downlink
        if not downlink.is_engaged:
            return window_bytes
        if not downlink.takes_turns:
            return min(window_bytes, max(int(self.offered_bytes), LEAST_WINDOW_BYTES))
        # a peer that neither waits nor has a grant has not used it, and may do so at any time
        granted_bytes = int(self.granted_bytes)
        if granted_bytes or not self.is_in_row:
            # libutp sends nothing into a window that its largest packet does not fit in
            granted_bytes = max(granted_bytes, LEAST_WINDOW_BYTES)
        return min(window_bytes, granted_bytes)

    @property
    def looks_again_us(self) -> int:
        """When to call ``wait_on``, because the peer waits for its turn."""
        return self._looks_again_us if self.is_in_row else NEVER_US

    def is_idle(self, now_us: int) -> bool:
        """Whether nothing came for long, and nobody misses what was measured."""
        return now_us - self.heard_us > IDLE_US and not self.is_in_row

    # -- facts --

    def wait_on(self, now_us: int) -> None:
        """It still waits: peers whose turn it is may have nothing to send."""
        self._looks_again_us = now_us + IMPATIENT_US
        self._downlink.on_silence(now_us)

    def on_data(
        self,
        now_us: int,
        reply_us: int,
        difference_us: int,
        size: int,
        bytes_received: int,
        known_round_trip_us: int,
        receiving: ReceiveBuffer,
    ) -> int:
        """DATA came; returns after how many more segments to tell of the next.

        ``reply_us`` is our clock minus the packet's timestamp, ``difference_us`` what the peer says of our last packet,
        ``size`` the payload of the packet, ``bytes_received`` that of the connection, new bytes only, and
        ``known_round_trip_us`` what our own data has measured, or 0.
        """
        arrived_bytes = bytes_received - self._arrived_bytes
        self._arrived_bytes = bytes_received
        self.heard_us = now_us
        self._looks_again_us = now_us + IMPATIENT_US
        measured = self._is_full(size) and self._ticks(now_us - reply_us & MASK32, now_us)
        if measured:
            self._measure(reply_us, difference_us, known_round_trip_us, now_us)
        self._interval_bytes += arrived_bytes
        elapsed_us = now_us - self._interval_us
        ended = elapsed_us >= max(self.round_trip.smoothed_us, INTERVAL_US)
        if ended:
            self.rate = self._interval_bytes * SECOND_US / elapsed_us
            self._step = min(self._interval_bytes // max(LOOKS * self.segment_bytes, 1), LARGEST_STEP_SEGMENTS)
            self._interval_us = now_us
            self._interval_bytes = 0

        downlink = self._downlink
        if not downlink.is_engaged:
            self.offered_bytes = 0.0
            if ended and self._least_us >= 0:
                self.waited_us, self._least_us = self._least_us, -1
                downlink.watch(self, self._target_delay_us, now_us)
            # a stream that has just begun may be fast
            seen = self._interval_bytes // max(LOOKS * self.segment_bytes, 1)
            return max(self._step, min(seen, LARGEST_STEP_SEGMENTS))
        self._judge_losses(now_us, receiving)
        downlink.on_arrival(self, arrived_bytes, measured, now_us)
        self._offer(now_us)
        return 0

    # -- what is measured --

    def _is_full(self, size: int) -> bool:
        if size >= self.segment_bytes:
            self.segment_bytes = size
            self._smaller_segments = 0
            return True
        self._smaller_segments += 1
        if self._smaller_segments > SMALLER_SEGMENTS:
            self.segment_bytes = size
        return False

    def _ticks(self, timestamp_us: int, now_us: int) -> bool:
        """Whether the peer's clock goes on, if only in steps."""
        if timestamp_us != self._timestamp_us:
            self._timestamp_us = timestamp_us
            self._ticked_us = now_us
        return now_us - self._ticked_us <= COARSE_US

    def _measure(self, reply_us: int, difference_us: int, known_round_trip_us: int, now_us: int) -> None:
        round_trip_us = self._round_trip_of(reply_us, difference_us, known_round_trip_us)
        self.round_trip_us = round_trip_us
        self.round_trip.on_sample(round_trip_us)
        waited_us = self.round_trip.on_full_size(round_trip_us, now_us)
        one_way_us = self._path.on_difference(reply_us, round_trip_us, now_us)
        if one_way_us is not None and one_way_us < waited_us:
            waited_us = one_way_us
        if self._downlink.is_engaged:
            self.waited_us = waited_us
        elif self._least_us < 0 or waited_us < self._least_us:
            self._least_us = waited_us

    def _round_trip_of(self, reply_us: int, difference_us: int, known_us: int) -> int:
        """The round trip that ends with a packet; the clocks' difference is in both numbers, with opposite signs."""
        if difference_us not in NOT_A_SAMPLE:
            round_trip_us = signed32(reply_us + difference_us & MASK32)
            if -COARSE_US < round_trip_us <= LONGEST_ROUND_TRIP_US:
                self._path.on_reply(difference_us, self.heard_us)
                return max(round_trip_us, 1)
        # the peer tells nothing that can be: what the packet waited is on top of what our own data needed
        ours = self._path.ours
        waited_us = max(signed32(reply_us - ours.base_us & MASK32), 0) if self.round_trip.smoothed_us else 0
        return (known_us or UNKNOWN_ROUND_TRIP_US) + min(waited_us, SECOND_US)

    def _judge_losses(self, now_us: int, receiving: ReceiveBuffer) -> None:
        """Tell of segments that others have overtaken, once for those of one round trip."""
        if self._lost_sequence >= 0 and receiving.next_sequence > self._lost_sequence:
            self._lost_sequence = -1
            if now_us - self.lost_us < SOONEST_REPAIR_SHARE * self.round_trip.base_us:
                self._downlink.on_spurious(now_us)
        early = receiving.early
        if len(early) < OVERTAKEN_SEGMENTS or self._lost_sequence >= 0:
            return
        ahead = receiving.selective_ack_mask().bit_length()
        self._lost_sequence = receiving.next_sequence + ahead
        self.lost_us = now_us
        self._downlink.on_loss(self, (1 + ahead - len(early)) * self.segment_bytes, now_us)

    # -- the window --

    def _offer(self, now_us: int) -> None:
        """Turn our share into what the peer is told."""
        downlink = self._downlink
        if not downlink.is_engaged:
            return
        share_bytes = self.share_bytes
        least_bytes = float(FLOOR_SEGMENTS * self.segment_bytes)
        if not self.offered_bytes:
            # it came when others were held back already, or is the first
            self.offered_bytes = share_bytes or least_bytes
            self._begin_round(now_us)
        if downlink.takes_turns:
            self.uses_window = True
            self.offered_bytes = least_bytes
            self._begin_round(now_us)
            return
        self._judge_use(now_us)
        self.offered_bytes = share_bytes or least_bytes
        self._edge_bytes = min(self._edge_bytes, self._round_bytes + self.offered_bytes)

    def _begin_round(self, now_us: int) -> None:
        self._round_us = now_us
        self._round_bytes = self._arrived_bytes
        self._edge_bytes = self._arrived_bytes + self.offered_bytes

    def _judge_use(self, now_us: int) -> None:
        """Whether the peer uses its window, or is limited elsewhere."""
        if self._arrived_bytes > self._edge_bytes - self.segment_bytes:
            self.uses_window = True
        elif now_us - self._round_us > USED_ROUND_TRIPS * self.round_trip.smoothed_us + USED_MARGIN_US:
            self.uses_window = False
        else:
            return
        self._begin_round(now_us)
