"""What a flow with much to send has and an idle one does not: a congestion controller, its senses, and its pace.

The flow makes one when it wants to send more than a few packets.  ``on_ack`` turns what an acknowledgement says into
delays for the controller; ``paced_bytes`` says how much of what the window allows may leave now.
"""

from __future__ import annotations

from txutp.core.bursts import Bursts
from txutp.core.congestion.crowd import Crowd
from txutp.core.congestion.interface import SMALL_SEGMENTS, SPARSE_SEGMENTS, Acknowledgement, Controller
from txutp.core.congestion.overload import Overload
from txutp.core.congestion.rhythm import BEAT_US, rest_us
from txutp.core.delay import PathDelay
from txutp.core.pacing import BURST_SEGMENTS, Pacer
from txutp.core.rate import DeliveryRate
from txutp.core.rtt import RoundTrip
from txutp.core.settings import Settings
from txutp.core.units import SECOND_US

# The window, in segments, below which a controller without a pace gets one.
SMALL_UNPACED_SEGMENTS = 2


class Steering:
    """The controller of one flow, and what it is told."""

    __slots__ = (
        "_beat",
        "_count_due_us",
        "_crowd",
        "_pacer",
        "_small_segments",
        "bursts",
        "controller",
        "delay",
        "delivery",
        "overload",
        "queue_delay_us",
    )

    def __init__(self, settings: Settings, segment_bytes: int, crowd: Crowd, now_us: int) -> None:
        self.controller: Controller = settings.congestion(
            segment_bytes=segment_bytes, target_delay_us=settings.target_delay_us
        )
        join = getattr(self.controller, "join", None)
        if join is not None:
            join(crowd, now_us)
        self._crowd = crowd
        self._count_due_us = 0  # when the crowd shall hear of the window again
        self._small_segments = 0  # in a crowd the pace alone keeps a smaller window than this
        self._look_around()
        self._beat = 0  # the last one at which the pace alone kept the window
        self.delay: PathDelay = PathDelay()
        self.delivery: DeliveryRate = DeliveryRate()
        self.overload: Overload = Overload()
        self.bursts: Bursts = Bursts()
        self.queue_delay_us: int = 0  # the last sample, by both signals
        self._pacer = Pacer() if self.controller.pacing_gain else None
        if self._is_small:
            self._pacer = self._pacer or Pacer()
            self._pacer.start(now_us)

    @property
    def window_bytes(self) -> int:
        """How much may be in flight: the window, or the whole segments that a small one has begun."""
        window_bytes = self.controller.window_bytes
        if self._small_segments and self._is_small:
            segment_bytes = self.controller.segment_bytes
            return -(-window_bytes // segment_bytes) * segment_bytes
        return window_bytes

    @property
    def _is_small(self) -> bool:
        """Whether the pace alone keeps the window; never while ``_small_segments`` is 0, as for a flow alone."""
        controller = self.controller
        return controller.window_bytes < self._small_segments * controller.segment_bytes

    @property
    def is_sparse(self) -> bool:
        """Whether the window is less than a segment, so that what is sent again waits for the pace, too."""
        controller = self.controller
        return controller.window_bytes < min(self._small_segments, SPARSE_SEGMENTS) * controller.segment_bytes

    def _look_around(self) -> None:
        """See whether there is a crowd, of which the controller knows."""
        controller = self.controller
        if self._crowd.flows > 1 and getattr(controller, "join", None) is not None:
            self._small_segments = SMALL_SEGMENTS if controller.pacing_gain else SMALL_UNPACED_SEGMENTS
        else:
            self._small_segments = 0

    @property
    def due_us(self) -> int:
        """When what ``paced_bytes`` did not allow may leave."""
        assert self._pacer is not None
        return self._pacer.due_us

    def pacing_rate(self, round_trip: RoundTrip) -> float:
        """Bytes per second; 0 without a pace."""
        limit = self.overload.rate_limit
        if not round_trip.smoothed_us:
            return limit
        controller = self.controller
        window_bytes = controller.window_bytes
        if self._small_segments and self._is_small:
            # The round trip of now: the smoothed one lags by eight samples, and with a packet in a round trip windows
            # and queue would swing.  Where even samples are rare, the last one is old, and counts for less.
            weight = min(window_bytes / controller.segment_bytes, 1.0)
            rate = window_bytes * SECOND_US / (round_trip.base_us + weight * self.queue_delay_us)
        else:
            rate = controller.pacing_gain * window_bytes * SECOND_US / round_trip.smoothed_us
        return min(rate, limit) if rate and limit else rate or limit

    def limited_by_window(self, round_trip: RoundTrip) -> bool:
        """Whether the window and not a limit of the rate bounds what leaves."""
        limit = self.overload.rate_limit
        return not limit or self.controller.window_bytes * SECOND_US <= limit * round_trip.smoothed_us

    def on_ack(
        self,
        now_us: int,
        acked_bytes: int,
        sent_us: int,
        full_size_us: int,
        difference_us: int,
        round_trip: RoundTrip,
        window_limited: bool,
    ) -> None:
        """Something arrived; ``full_size_us`` is the round trip of a full-size packet, 0 if none was answered."""
        one_way_us = both_ways_us = None
        if full_size_us:
            both_ways_us = round_trip.on_full_size(full_size_us, now_us)
            one_way_us = self.delay.on_difference(difference_us, full_size_us, now_us)
            self.queue_delay_us = both_ways_us if one_way_us is None else min(one_way_us, both_ways_us)
        controller = self.controller
        if now_us >= self._count_due_us:
            self._count_due_us = self._crowd.count(now_us, controller.window_bytes, controller.segment_bytes)
            self._look_around()
        if self.overload.on_ack(now_us, acked_bytes, round_trip.smoothed_us, controller.segment_bytes):
            self.bursts.on_interval()
        rate = self.delivery.on_ack(now_us, acked_bytes, sent_us, round_trip.smoothed_us, controller.segment_bytes)
        controller.on_ack(
            Acknowledgement(now_us, acked_bytes, sent_us, one_way_us, both_ways_us, round_trip, window_limited, rate)
        )

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool, burst: bool, base_us: int) -> None:
        """Something was lost, see ``Controller.on_loss``; ``burst`` tells that neighbouring segments were."""
        self.overload.on_loss(lost_bytes)
        self.bursts.on_loss(new_window, burst, base_us)
        self.controller.on_loss(now_us, lost_bytes, new_window)

    def on_timeout(self, now_us: int) -> None:
        """Nothing came back for a whole retransmission timeout."""
        self.overload.on_timeout()
        self.controller.on_timeout(now_us)

    def paced_bytes(self, now_us: int, wanted_bytes: int, segment_bytes: int, round_trip: RoundTrip) -> int:
        """How much of it may leave now: all, or whole segments.  If nothing, ``due_us`` says when to ask again."""
        pacer = self._pacer
        overload = self.overload
        small = self._small_segments > 0 and self._is_small
        if pacer is None:
            if not overload.rate_limit and not small:
                return wanted_bytes
            pacer = self._pacer = Pacer()
        elif not self.controller.pacing_gain and not overload.rate_limit and not small:
            return wanted_bytes
        bytes_per_second = self.pacing_rate(round_trip)
        if not bytes_per_second:
            return wanted_bytes
        if small:
            self._rest(now_us, bytes_per_second, round_trip)
        allowed_bytes = pacer.allowance_bytes(
            now_us,
            bytes_per_second,
            segment_bytes,
            wanted_bytes,
            round_trip.smoothed_us,
            self.bursts.burst_us,
            1 if small else BURST_SEGMENTS,
        )
        if allowed_bytes >= wanted_bytes:
            return wanted_bytes
        return allowed_bytes // segment_bytes * segment_bytes

    def _rest(self, now_us: int, bytes_per_second: float, round_trip: RoundTrip) -> None:
        """Charge a rest to the pace at each beat: nothing leaves in it, and all that follows is later by as much.

        So the packets of many small flows are as far apart after the rest as before it.
        """
        beat = now_us // BEAT_US
        if beat == self._beat + 1:
            assert self._pacer is not None
            self._pacer.on_sent(int(bytes_per_second * rest_us(round_trip.smoothed_us) / SECOND_US))
        self._beat = beat

    def on_capped(self, is_held: bool, now_us: int) -> None:
        """A cap holds back what the pace allowed, or does so no longer."""
        if self._pacer is not None:
            self._pacer.hold(is_held, now_us)

    def on_sent(self, sent_bytes: int) -> None:
        """So much left; negative if it did not after all."""
        if self._pacer is not None:
            self._pacer.on_sent(sent_bytes)
