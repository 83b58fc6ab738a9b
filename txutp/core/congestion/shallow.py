"""Shallow: fill the link, keep the queue shallow, yield, and share: a proportional controller with a small target.

Classic LEDBAT parks a tenth of a second of packets in the queue in front of the slowest link.  This one aims at a few
milliseconds, which is possible because of five rules that LEDBAT lacks:

- the change of the window is proportional to window and distance, so it finds a new rate in a few round trips;
- packets are paced, so that a target smaller than a burst can be kept;
- a delay counts only if timestamps and round trips both show it, so neither clock drift nor a full way back does harm;
- every few seconds the window shrinks for a moment, so that our own queue drains and every flow sees the empty path:
  late-comers get their share, and what remains of the delay then is noise that has to be tolerated;
- a loss costs half the window only if there was a queue, and nothing pushes for some seconds then, because somebody
  else wants it; on an empty queue it is the path's own loss.  ``capacity.py`` tells of queues too short to be seen.

The rules and their numbers come from a simulation study of many variants; ``docs/notebook/congestion.md`` shows what
they reach in this project's own scenarios.  All updates are per acknowledgement, scaled by its share of the window.
"""

from __future__ import annotations

from txutp.core.congestion.capacity import VISIBLE_PACKETS, VISIBLE_SHARE, VISIBLE_US, Capacity
from txutp.core.congestion.crowd import FULL_GAIN_SEGMENTS, Crowd
from txutp.core.congestion.interface import SMALL_SEGMENTS, SPARSE_SEGMENTS, Acknowledgement
from txutp.core.congestion.rhythm import next_beat_us, rest_us
from txutp.core.congestion.route import PAUSE_US, RouteCheck
from txutp.core.units import SECOND_US

TARGET_DELAY_US = 4_000
NOISE_LIMIT_US = 10_000  # more tolerance than this would not yield behind short buffers
NOISE_FALL = 0.25  # of the difference is forgotten when there is less of it; more of it counts at once
TARGET_PACKETS = 2.5  # a flow with a low rate may let so many of its packets wait, although they take longer...
TARGET_PACKETS_LIMIT_US = 10_000  # ...within reason: ten flows with more would fill a short buffer
RATE_FALL = 0.02  # of the way down to what a flow delivers now, per round; up it goes at once
HEADER_BYTES = 20

INITIAL_WINDOW_SEGMENTS = 10
TIMEOUT_WINDOW_SEGMENTS = 2
TIMEOUT_THRESHOLD_SEGMENTS = 4

SLOW_START_GAIN = 0.5  # of what is acknowledged: times 1.5 per round trip
SLOW_START_EXIT = 0.75  # of the target
SLOW_START_CARRIED = 0.9  # of what the path delivered is kept then

GAIN_SEGMENTS = 0.5  # per round trip...
LARGEST_CATCH_UP = 8  # ...times up to this for a window below the mean, which has fewer acknowledgements
# ...times this, instead, where packets get lost without a queue: the path's own losses need not starve a flow
LOSSY_GAIN = 1.5
EMPTY_SHARE = 0.125  # of the target; a shorter delay is no queue
CONTESTED_US = 5_000_000  # ...but for so long after packets waited and one was lost: somebody else wants the queue
INCREASE = 0.25  # of window times distance from the target, relative to the round trip
CAUTIOUS_INCREASE = 0.05  # of the window per round trip while losses are recent
LARGEST_INCREASE = 0.5  # of the window per round trip: with next to no round trip any distance is large
DECREASE = 1.0
SPARSE_DECREASE = 0.5  # below one segment, because a sample is several round trips old there
LARGEST_DECREASE = 0.5  # of the window per round trip
QUIET_ROUNDS = 2  # after so many round trips with half the target or less, growth doubles with each...
LOSSLESS_ROUNDS = 30  # ...unless something was lost lately
LARGEST_ACCELERATION = 0.25  # of the window per round trip
QUIET_GAIN = 0.0625  # of a small window in each round trip, also in those without an acknowledgement...
LARGEST_QUIET_GAIN = 3.0  # ...and no more at once

STALE_ROUND_TRIPS = 2  # older delays tell nothing: packets that are sent again are not measured

LOSS_FACTOR = 0.9  # of the window stays after a loss on an empty queue...
LOSS_QUEUE_FACTOR = 0.4  # ...less this with a queue at the target
LEAST_LOSS_FACTOR = 0.5
SLOW_START_LOSS = 0.1  # of the window may be lost on an empty queue without an end of slow start

FIRST_SLOWDOWN_ROUND_TRIPS = 2
SLOWDOWN_INTERVAL_ROUND_TRIPS = 30  # at least
SLOWDOWN_DIVISOR = 4

PUSHING_FLOWS = 8  # with more flows on a port each one is too small to push, see ``route.py``

BUCKET_ACKS = 3


class Shallow:
    """The default: a proportional controller with a target of 4 ms, for one flow."""

    __slots__ = (
        "_absorbed_us",
        "_average_us",
        "_before_cut",
        "_bucket_acks",
        "_bucket_minimum_us",
        "_bucket_started_us",
        "_capacity",
        "_contested_until_us",
        "_crowd",
        "_cut_us",
        "_delay_us",
        "_few",
        "_least_segments",
        "_lossless_rounds",
        "_noise_us",
        "_previous_minimum_us",
        "_quiet",
        "_quiet_rounds",
        "_rates",
        "_round_delays",
        "_round_lost_bytes",
        "_round_started_us",
        "_route",
        "_sampled_us",
        "_saved_window",
        "_settled",
        "_slow_maximum",
        "_slowdown_us",
        "_threshold",
        "_window",
        "base_us",
        "segment_bytes",
        "slow_start",
        "target_delay_us",
        "wanted_delay_us",
    )

    pacing_gain: float = 1.25
    pushes: bool = True  # to find out whether a path has become longer

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        self.segment_bytes: int = segment_bytes
        self.wanted_delay_us: int = TARGET_DELAY_US if target_delay_us is None else target_delay_us
        self.target_delay_us: int = self.wanted_delay_us  # with tolerance for noise and slow links

        # the window, in bytes
        self.slow_start: bool = True
        self._window = float(INITIAL_WINDOW_SEGMENTS * segment_bytes)
        self._threshold = float("inf")  # slow start ends here; after a timeout only
        self._before_cut = (0.0, False, 0.0)  # window, slow start and saved window before the last cut
        self._cut_us = -1  # when the window was cut; packets sent before tell nothing of its effect
        self._contested_until_us = 0  # no constant growth before
        self._capacity = Capacity()
        self._crowd: Crowd | None = None
        self._least_segments = 1.0
        self._few = False  # the flows of the crowd have few packets in a round trip

        # queue delay: the smallest of this and the last bucket of half a round trip
        self._delay_us = 0
        self._bucket_minimum_us = -1
        self._previous_minimum_us = -1
        self._bucket_acks = 0
        self._bucket_started_us = 0
        self._sampled_us = 0  # the last time
        self._average_us = 0.0  # unfiltered, for judging losses
        self._noise_us = 0.0  # delay that is there without a queue of ours
        self.base_us: int = 0  # round trip of the empty path

        # rounds: each ends when a packet that was sent in it is acknowledged
        self._round_started_us = -1
        self._round_delays = (0, 0)  # the largest delay in this one and in the last
        self._round_lost_bytes = 0
        self._quiet = True  # no delay above half the target in this round
        self._quiet_rounds = 0
        self._lossless_rounds = LOSSLESS_ROUNDS + 1

        # delivery rate in bytes per second
        self._rates = (0.0, 0.0)  # the largest in this round and in the last
        self._slow_maximum = 0.0

        # slowdown
        self._slowdown_us = 0  # when it begins, or ends while the saved window is set
        self._saved_window = 0.0
        self._settled = False  # there was one since slow start

        # a new route
        self._absorbed_us = 0  # delay that turned out to be the path's own
        self._route: RouteCheck | None = None  # while all delays are long

    @property
    def window_bytes(self) -> int:
        return int(self._window)

    def join(self, crowd: Crowd, now_us: int) -> None:
        """Be one of the flows of a port: begin with what they have, or with a part of what all begin with."""
        self._crowd = crowd
        self._window = crowd.enter(now_us, INITIAL_WINDOW_SEGMENTS * self.segment_bytes)
        self._least_segments = crowd.least_segments
        self._few = self._usual_share(SMALL_SEGMENTS) < 1

    # -- facts --

    def on_ack(self, ack: Acknowledgement) -> None:
        now_us = ack.now_us
        smoothed_us = ack.round_trip.smoothed_us or 1
        if ack.delivery_rate > self._rates[0]:
            self._rates = (ack.delivery_rate, self._rates[1])
        delay_us = ack.round_trip_delay_us
        if delay_us is not None:
            if ack.one_way_delay_us is not None:
                delay_us = min(delay_us, ack.one_way_delay_us)
            self._measure_delay(now_us, delay_us, smoothed_us, ack.sent_us)
            self.base_us = ack.round_trip.base_us + self._absorbed_us
        if not self.base_us:
            return
        if ack.sent_us >= self._round_started_us:
            self._next_round(now_us)

        if self._saved_window:
            if now_us >= self._slowdown_us:
                self._end_slowdown(now_us, smoothed_us, delay_us is not None and ack.sent_us > self._cut_us)
            return
        if self.slow_start:
            self._grow_in_slow_start(ack, smoothed_us)
            return
        route = self._route
        if route is not None and route.extra_bytes:
            self._judge_push(route, ack)
            return
        self._steer(ack)
        if now_us >= self._slowdown_us:
            self._begin_slowdown(now_us, smoothed_us)
        elif route is not None and now_us >= route.due_us:
            self._check_route(route, now_us, smoothed_us)

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        if self._route is not None and self._route.extra_bytes:
            self._forget_route()
        self._lossless_rounds = 0
        self._round_lost_bytes += lost_bytes
        waited_us = self._waited_us()
        if waited_us >= self.target_delay_us:
            self._contested_until_us = now_us + CONTESTED_US
        elif waited_us < self.target_delay_us / 2:
            self._contested_until_us = 0  # nobody wants an empty queue: the path itself loses packets
        capacity = self._capacity
        if new_window:
            capacity.begin_loss(now_us, max(self._window, self._saved_window), waited_us, self._is_visible(waited_us))
            self._set_target()
        kept = capacity.keep(now_us, lost_bytes, self.segment_bytes)
        if self.slow_start:
            tolerated = max(SLOW_START_LOSS * self._window, 0 if self._is_small else self.segment_bytes)
            if self._delay_us < self.wanted_delay_us / 2 and self._round_lost_bytes <= tolerated:
                return
            self._remember_cut(now_us)
            self._leave_slow_start(now_us, self._loss_factor() * self._window)
        elif new_window:
            self._remember_cut(now_us)
            factor = self._loss_factor()
            self._saved_window *= factor
            # losses alone, without a queue, leave a segment: with less, only time can tell of the next one
            least = min(self._window, self.segment_bytes) if waited_us < self.target_delay_us else 0.0
            self._set_window(max(self._window * factor, least))
        if kept < self._window:
            self._set_window(kept)
        self._saved_window = min(self._saved_window, kept)

    def on_timeout(self, now_us: int) -> None:
        # RFC 5681 3.1: the threshold is held while what left again is lost again
        self._forget_route()
        window = self._saved_window or self._window
        least = float(TIMEOUT_WINDOW_SEGMENTS * self.segment_bytes)
        first = not self.slow_start or self._threshold == float("inf")
        if window > least or (first and window > self._least_segments * self.segment_bytes):
            self._remember_cut(now_us)
        if window < least:
            # what a timeout takes of a small window is half, and only once
            least = window / 2 if first else window
            if first:
                self._threshold = window
        elif window > least or first:
            self._threshold = max(window / 2, float(TIMEOUT_THRESHOLD_SEGMENTS * self.segment_bytes))
        self._bucket_minimum_us = self._previous_minimum_us = -1
        self._delay_us = 0
        self._saved_window = 0.0
        self._set_window(least)
        self._lossless_rounds = 0
        self.slow_start = True

    def on_spurious(self, now_us: int) -> None:
        window, slow_start, saved = self._before_cut
        # a window that was smaller than the threshold is reached sooner by going on
        self.slow_start = slow_start or (self.slow_start and window < self._threshold < float("inf"))
        self._contested_until_us = 0
        self._set_window(max(self._window, window))
        if self._saved_window:
            self._saved_window = max(self._saved_window, saved)

    # -- verbs of a receiver, which steers data that is under way already --

    def resume(self, now_us: int, window_bytes: float) -> None:
        """Go on from a window that the path has carried, without a slow start."""
        self._set_window(window_bytes)
        self._begin_steering(now_us)

    def widen(self, window_bytes: float) -> None:
        """Let the window be no smaller than this, except in a slowdown."""
        if not self._saved_window:
            self._set_window(max(self._window, window_bytes))

    # -- the window --

    def _grow_in_slow_start(self, ack: Acknowledgement, smoothed_us: int) -> None:
        if self._delay_us > SLOW_START_EXIT * self.target_delay_us and ack.sent_us > self._cut_us:
            self._cut_us = ack.now_us
            self._leave_slow_start(ack.now_us, self._window, SLOW_START_CARRIED)
        elif self._window >= self._threshold:
            self._begin_steering(ack.now_us)
        elif ack.window_limited:
            self._window += SLOW_START_GAIN * min(ack.acked_bytes, self._window)

    def _leave_slow_start(self, now_us: int, window: float, share: float = 1.0) -> None:
        """Go on with what the path has delivered, but with no less than half."""
        carried = share * max(self._rates) * self.base_us / SECOND_US
        self._set_window(min(window, max(carried, self._window / 2)))
        self._begin_steering(now_us)

    def _begin_steering(self, now_us: int) -> None:
        self.slow_start = False
        self._threshold = float("inf")
        self._slowdown_us = now_us + FIRST_SLOWDOWN_ROUND_TRIPS * max(self.base_us, 1)
        self._settled = False

    def _steer(self, ack: Acknowledgement) -> None:
        """Move the window towards the size at which packets wait for the target."""
        window = self._window
        delay_us = self._delay_us
        target_us = self.target_delay_us
        share = min(ack.acked_bytes / window, 1.0)
        if ack.now_us < self._contested_until_us:
            gain = 0.0
        elif window >= FULL_GAIN_SEGMENTS * self.segment_bytes and self._lossless_rounds > LOSSLESS_ROUNDS:
            gain = GAIN_SEGMENTS * self.segment_bytes  # as of most flows most of the time
        else:
            gain = self._gain(delay_us)
        distance = (target_us - delay_us) / max(self.base_us + delay_us, 1)
        if distance >= 0:
            if not ack.window_limited:
                return  # what was never tried is not known to be free
            lossless = self._lossless_rounds > LOSSLESS_ROUNDS
            suspect = self._capacity.is_suspect(ack.now_us)
            if lossless and self._quiet_rounds > QUIET_ROUNDS and not self._is_small:
                accelerated = gain * 2.0 ** min(self._quiet_rounds - QUIET_ROUNDS, 40)
                gain = max(gain, min(accelerated, (CAUTIOUS_INCREASE if suspect else LARGEST_ACCELERATION) * window))
            if gain and self._is_small and self._quiet_rounds >= QUIET_ROUNDS:
                rounds = ack.acked_bytes / window
                gain = max(gain, min((1 + QUIET_GAIN) ** rounds - 1, LARGEST_QUIET_GAIN) * window / share)
            largest = LARGEST_INCREASE if lossless and not suspect else CAUTIOUS_INCREASE
            change = max(gain, min(INCREASE * distance, largest) * window)
            self._set_window(max(self._capacity.limit_window(window + share * change, ack.now_us), window))
            return
        if ack.sent_us <= self._cut_us or self._is_stale(ack):
            return  # the last cut does not show yet
        decrease = DECREASE if window >= SPARSE_SEGMENTS * self.segment_bytes else SPARSE_DECREASE
        change = gain - min(LARGEST_DECREASE, -decrease * distance) * window
        self._set_window(window + share * change)

    def _gain(self, delay_us: int) -> float:
        """The constant growth in a round trip, in bytes: the same for all small windows of a port.

        So small flows come to have equal windows, and all of them together push no harder than one.  A flow below the
        mean, with acknowledgements as rare as its packets, makes up for that.
        """
        window = self._window
        segment_bytes = self.segment_bytes
        gain = GAIN_SEGMENTS * segment_bytes
        if self._lossless_rounds <= LOSSLESS_ROUNDS and delay_us < EMPTY_SHARE * self.target_delay_us:
            if window >= SPARSE_SEGMENTS * segment_bytes:
                return gain * LOSSY_GAIN
        elif window >= FULL_GAIN_SEGMENTS * segment_bytes:
            return gain
        crowd = self._crowd
        if crowd is None:
            return gain
        gain *= crowd.gain_share(segment_bytes)
        if window < SPARSE_SEGMENTS * segment_bytes:
            gain *= min(max(crowd.mean_window_bytes / window, 1.0), LARGEST_CATCH_UP)
        return gain

    def _is_stale(self, ack: Acknowledgement) -> bool:
        """Whether the delay is of long ago: while lost packets are sent again nothing is measured."""
        return ack.now_us - self._sampled_us > STALE_ROUND_TRIPS * ack.round_trip.smoothed_us

    def _set_window(self, window: float) -> None:
        self._window = max(window, self._least_segments * self.segment_bytes)

    @property
    def _flows(self) -> int:
        return 1 if self._crowd is None else self._crowd.flows

    @property
    def _is_small(self) -> bool:
        """Whether it is one of the small windows of a crowd, which the pace keeps."""
        return self._least_segments < 1 and self._window < SMALL_SEGMENTS * self.segment_bytes

    def _usual_share(self, segments: float) -> float:
        """The mean window of a crowd's flows in units of ``segments``, at most 1; without other flows it is 1."""
        if self._least_segments == 1 or self._crowd is None:
            return 1.0
        return min(self._crowd.mean_window_bytes / (segments * self.segment_bytes), 1.0)

    def _remember_cut(self, now_us: int) -> None:
        self._before_cut = (self._window, self.slow_start, self._saved_window)
        self._cut_us = now_us

    def _loss_factor(self) -> float:
        """How much of the window a loss leaves: little if there was a queue, for then it was ours.

        Where a full queue has shown, what waited in it is not needed to fill the path.
        """
        waited_us = self._waited_us()
        factor = LOSS_FACTOR - LOSS_QUEUE_FACTOR * min(1.0, waited_us / self.target_delay_us)
        if self._capacity.overflowed:
            factor = min(factor, max(LEAST_LOSS_FACTOR, self.base_us / (self.base_us + waited_us)))
        return factor

    def _is_visible(self, waited_us: float) -> bool:
        """Whether packets that waited for so long did so in a queue and not in a busy host."""
        packet_us = (self.segment_bytes + HEADER_BYTES) * SECOND_US / self._slow_maximum if self._slow_maximum else 0.0
        few_us, many_us = VISIBLE_US
        if waited_us < (few_us if waited_us <= VISIBLE_PACKETS[1] * packet_us else many_us):
            return False
        return waited_us >= max(VISIBLE_SHARE * self.base_us, VISIBLE_PACKETS[0] * packet_us, self._noise_us)

    def _waited_us(self) -> float:
        """How long packets waited of late, at the worst."""
        return max(self._average_us, *self._round_delays)

    # -- the slowdown --

    def _begin_slowdown(self, now_us: int, smoothed_us: int) -> None:
        if self._window <= SMALL_SEGMENTS * self.segment_bytes:  # in a crowd the pace makes it rest
            self._slowdown_us = self._next_slowdown_us(now_us, smoothed_us)
            return
        self._saved_window = self._window
        self._window = max(self._window / SLOWDOWN_DIVISOR, 2.0 * self.segment_bytes)
        self._slowdown_us = now_us + rest_us(smoothed_us)
        self._cut_us = now_us

    def _end_slowdown(self, now_us: int, smoothed_us: int, measured: bool) -> None:
        """``measured`` tells whether the delay is that of the emptied path: what was sent before saw our own queue.

        The first time it need not be noise either: what slow start has pushed aside still waits.
        """
        if measured and self._settled:
            self._noise_us = max(self._noise_us - NOISE_FALL * (self._noise_us - self._delay_us), self._delay_us)
        self._settled = True
        if self._route is not None:
            self._route.rested = True
        if self._lossless_rounds > LOSSLESS_ROUNDS:
            self._capacity.on_calm()
        self._set_target()
        self._window, self._saved_window = self._saved_window, 0.0
        self._slowdown_us = self._next_slowdown_us(now_us, smoothed_us)
        self._bucket_minimum_us = self._previous_minimum_us = -1
        self._cut_us = now_us

    def _next_slowdown_us(self, now_us: int, smoothed_us: int) -> int:
        """When the next one begins: at the same moment as those of all flows of this host."""
        return next_beat_us(now_us, SLOWDOWN_INTERVAL_ROUND_TRIPS * smoothed_us)

    # -- what is measured --

    def _measure_delay(self, now_us: int, sample_us: int, smoothed_us: int, sent_us: int) -> None:
        self._sampled_us = now_us
        if sample_us < self._absorbed_us:
            self._absorbed_us = sample_us
        sample_us -= self._absorbed_us
        self._average_us += (sample_us - self._average_us) / 16

        # With a packet or two in a round trip the delay before the last one is of long ago.  All flows of a crowd count
        # alike, or those with more samples would see less of the same queue.
        few = self._few and not self._saved_window
        if self._bucket_acks >= (1 if few else BUCKET_ACKS) and now_us - self._bucket_started_us >= smoothed_us // 2:
            self._previous_minimum_us = self._bucket_minimum_us
            self._bucket_minimum_us = -1
            self._bucket_acks = 0
            self._bucket_started_us = now_us
        self._bucket_acks += 1
        if self._bucket_minimum_us < 0 or sample_us < self._bucket_minimum_us:
            self._bucket_minimum_us = sample_us
        previous_us = self._previous_minimum_us
        delay_us = self._bucket_minimum_us
        if 0 <= previous_us < delay_us and not few:
            delay_us = previous_us
        self._delay_us = delay_us
        route = self._route
        if route is not None:
            if sample_us + sample_us < self.target_delay_us:
                self._forget_route()
            elif now_us >= route.sample_due_us:
                route.on_sample(now_us, sent_us, sample_us)
        elif delay_us > self.target_delay_us and not self.slow_start:
            self._route = RouteCheck(now_us, self._slow_maximum)

        if delay_us > self._round_delays[0]:
            self._round_delays = (delay_us, self._round_delays[1])
        if delay_us > self.target_delay_us / 2:
            self._quiet = False
            self._quiet_rounds = 0

    def _next_round(self, now_us: int) -> None:
        self._round_started_us = now_us
        best = self._rates[0]
        self._slow_maximum = max(best, self._slow_maximum - RATE_FALL * (self._slow_maximum - best))
        self._rates = (0.0, best)
        self._round_delays = (0, self._round_delays[0])
        self._round_lost_bytes = 0
        self._lossless_rounds += 1
        if self._quiet:
            self._quiet_rounds += 1
        self._quiet = True
        if self._crowd is not None:
            self._least_segments = self._crowd.least_segments
            self._few = self._usual_share(SMALL_SEGMENTS) < 1
        self._set_target()

    def _set_target(self) -> None:
        """What is asked for, and as much more as noise and the length of a packet demand.

        The latter is by the flow's own rate, so it pushes two flows that share a link towards equal rates.  But both
        have to know their rates of now: one that remembered for long that it had the link to itself would keep its
        target low, and the late-comer, who never had it, would get more than half.
        """
        target_us = self.wanted_delay_us + min(self._noise_us, NOISE_LIMIT_US)
        if self._slow_maximum:
            packets_us = TARGET_PACKETS * (self.segment_bytes + HEADER_BYTES) * SECOND_US / self._slow_maximum
            # many small flows are like one with as many times the rate
            more_us = self._usual_share(SMALL_SEGMENTS) * (TARGET_PACKETS_LIMIT_US - self.wanted_delay_us)
            target_us = max(target_us, min(packets_us, self.wanted_delay_us + more_us))
        if self._is_small and self._crowd is not None:
            rate = self._crowd.flows * self._window / max(self.base_us + self._delay_us, 1)
            target_us = max(target_us, min(TARGET_PACKETS * self.segment_bytes / rate, TARGET_PACKETS_LIMIT_US))
        self.target_delay_us = max(int(self._capacity.limit_target(target_us, self._noise_us)), 1)

    # -- a new route --

    def _check_route(self, route: RouteCheck, now_us: int, smoothed_us: int) -> None:
        """Send more for a moment if all delays were long for a while, and although this flow held still.

        That may have been in a slowdown; windows that are too small for one are small enough.
        """
        flows = self._flows
        pushes = self.pushes and flows <= PUSHING_FLOWS
        if pushes:
            still = route.rested or self._window <= SMALL_SEGMENTS * self.segment_bytes
            ripe = still and self._slowdown_us - now_us > 4 * smoothed_us and route.is_ripe(now_us)
        elif self._window > TIMEOUT_WINDOW_SEGMENTS * self.segment_bytes:
            route.watch(now_us)
            return
        else:
            ripe = route.is_constant(now_us, self._window < SPARSE_SEGMENTS * self.segment_bytes)
        if not ripe:
            return
        if route.low_us <= self.target_delay_us:
            route.watch(now_us)  # so much may wait
        elif pushes:
            self._window += route.push(now_us, smoothed_us, self.segment_bytes, flows)
        else:
            self._absorb(route.low_us)

    def _judge_push(self, route: RouteCheck, ack: Acknowledgement) -> None:
        """See whether the delay has grown with the window.  If it has not, it is the path's own."""
        if not route.is_judged:
            return
        now_us = ack.now_us
        flows = self._flows
        tried = ack.window_limited  # what was allowed was sent
        if tried and not route.has_grown():
            if route.is_enough(flows):
                self._absorb(route.low_us)
            else:
                self._window += route.push(now_us, ack.round_trip.smoothed_us, self.segment_bytes, flows)
            return
        self._set_window(self._window - route.end_push())
        # not again at the same moment as the others of this port: microseconds are as good as chance
        route.watch(now_us + PAUSE_US + now_us % 1_024 * PAUSE_US // 1_024 if tried else now_us)

    def _forget_route(self) -> None:
        """A packet was fast, lost, or late by a timeout: nothing to find out, and no push."""
        if self._route is not None:
            self._set_window(self._window - self._route.end_push())
            self._route = None

    def _absorb(self, delay_us: int) -> None:
        """Take this much of the delay for the path's own."""
        self._route = None
        self._absorbed_us += delay_us
        self._bucket_minimum_us = self._previous_minimum_us = -1
        self._delay_us = 0
        self._average_us = 0.0
        self._round_delays = (0, 0)
        self._noise_us = max(self._noise_us - delay_us, 0.0)
        self._set_target()
