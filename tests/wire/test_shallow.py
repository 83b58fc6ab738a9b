"""Shallow: a small queue, a fair share, room for others, and sense in what a loss and a delay mean."""

from __future__ import annotations

import pytest

from tests.support import CLIENT, PORT, SERVER, Accepting, Pair, Stream
from tests.wire.test_transfer import SEGMENT
from txutp import Settings, Shallow, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.congestion.interface import Acknowledgement
from txutp.core.congestion.rhythm import next_beat_us
from txutp.core.congestion.shallow import (
    CONTESTED_US,
    DECREASE,
    GAIN_SEGMENTS,
    HEADER_BYTES,
    INCREASE,
    LOSS_FACTOR,
    LOSS_QUEUE_FACTOR,
    NOISE_FALL,
    NOISE_LIMIT_US,
    SLOW_START_GAIN,
    TARGET_DELAY_US,
    TARGET_PACKETS,
)
from txutp.core.rate import DeliveryRate
from txutp.core.rtt import RoundTrip
from txutp.testing import Link, Network

BASE_US = 40_000


class Bench:
    """A controller, and a path of 40 ms with a queue that the test chooses."""

    def __init__(self, window_segments: float | None = None, target_delay_us: int | None = None) -> None:
        self.controller = Shallow(segment_bytes=SEGMENT, target_delay_us=target_delay_us)
        self.now_us = 1_000_000
        self.round_trip = RoundTrip()
        self.round_trip.on_full_size(BASE_US, 0)
        self.delivery = DeliveryRate()
        if window_segments is not None:
            self.controller.slow_start = False
            self.controller._settled = True
            self.controller._slowdown_us = 1 << 60
            self.controller._window = window_segments * SEGMENT

    def ack(self, queue_us: int | None, limited: bool = True, other_us: int | None = None) -> None:
        """One segment arrives, a window's share of the round trip later."""
        self.now_us += int((BASE_US + (queue_us or 0)) * SEGMENT / self.controller.window_bytes)
        round_trip_us = queue_us if other_us is None else other_us
        self.round_trip.on_sample(BASE_US + (queue_us or 0))
        sent_us = self.now_us - BASE_US - (queue_us or 0)
        rate = self.delivery.on_ack(self.now_us, SEGMENT, sent_us, self.round_trip.smoothed_us, SEGMENT)
        self.controller.on_ack(
            Acknowledgement(self.now_us, SEGMENT, sent_us, queue_us, round_trip_us, self.round_trip, limited, rate)
        )

    def round(self, queue_us: int | None, limited: bool = True) -> float:
        """A whole round trip; gives by how many segments the window changed."""
        before = self.controller._window
        for _ in range(self.controller.window_bytes // SEGMENT):
            self.ack(queue_us, limited)
        return (self.controller._window - before) / SEGMENT

    def settle(self, queue_us: int) -> None:
        """Let the filter see this delay and nothing else, without moving the window."""
        window = self.controller._window
        for _ in range(3):
            self.round(queue_us)
            self.controller._window = window


# -- the law --


def test_slow_start_grows_by_half_and_ends_below_the_target() -> None:
    bench = Bench()
    for _ in range(3):
        before = bench.controller.window_bytes / SEGMENT
        assert bench.round(0) == pytest.approx(SLOW_START_GAIN * before, rel=0.15)
    bench.settle(TARGET_DELAY_US)
    assert not bench.controller.slow_start


def test_below_the_target_growth_is_proportional_to_window_and_distance() -> None:
    bench = Bench(100)
    bench.controller._lossless_rounds = 0  # no acceleration
    bench.settle(3_000)
    target_us = bench.controller.target_delay_us
    expected = INCREASE * 100 * (target_us - 3_000) / (BASE_US + 3_000)
    assert bench.round(3_000) == pytest.approx(max(expected, GAIN_SEGMENTS), rel=0.1)


def test_above_the_target_it_shrinks_in_proportion_but_never_below_the_floor() -> None:
    bench = Bench(100)
    bench.settle(15_000)
    target_us = bench.controller.target_delay_us
    expected = GAIN_SEGMENTS - DECREASE * (15_000 - target_us) / (BASE_US + 15_000) * 100
    assert bench.round(15_000) == pytest.approx(expected, rel=0.2)
    for _ in range(60):
        bench.round(400_000 + 2 * bench.controller.window_bytes)  # more of it makes the queue longer
    assert bench.controller.window_bytes == SEGMENT


def test_a_quiet_path_is_taken_faster_and_faster() -> None:
    bench = Bench(20)
    grown = [bench.round(0) for _ in range(8)]
    assert grown[0] == pytest.approx(max(GAIN_SEGMENTS, INCREASE * 20 * TARGET_DELAY_US / BASE_US), rel=0.2)
    assert grown[-1] > 4 * grown[0]


def test_a_rate_that_was_never_tried_is_not_known_to_be_free() -> None:
    bench = Bench(20)
    assert bench.round(0, limited=False) == 0
    bench.settle(15_000)
    assert bench.round(15_000, limited=False) < 0
    start = Bench()
    assert start.round(0, limited=False) == 0


def test_a_delay_counts_only_if_both_signals_show_it() -> None:
    """Drifting clocks fool timestamps, a full way back fools round trips."""
    bench = Bench(20)
    for _ in range(60):
        bench.ack(50_000, other_us=0)
        bench.ack(0, other_us=50_000)
    assert bench.controller._delay_us == 0


def test_answers_without_a_delay_change_nothing() -> None:
    bench = Bench(20)
    assert bench.round(None) == 0
    bench.settle(15_000)
    assert bench.controller._delay_us == 15_000
    bench.ack(None)
    assert bench.controller._delay_us == 15_000


def test_flows_with_the_same_rate_have_the_same_target_whatever_they_had_before() -> None:
    """Who had the link to itself has a late-comer now; that one would get more than half with a higher target."""
    half = TARGET_PACKETS * (SEGMENT + HEADER_BYTES) / 0.008  # so many packets last 8 ms at this rate
    bench = Bench(100)
    for rate in (2 * half, *(half,) * 100):  # 5 s with round trips of 50 ms
        bench.controller._rates = (rate, 0.0)
        bench.controller._next_round(bench.now_us)
        if rate > half:
            assert bench.controller.target_delay_us == TARGET_DELAY_US
    late_comer = Bench(100)
    late_comer.controller._rates = (half, 0.0)
    late_comer.controller._next_round(bench.now_us)
    assert late_comer.controller.target_delay_us == pytest.approx(8_000, abs=1)
    assert bench.controller.target_delay_us == pytest.approx(8_000, rel=0.15)


# -- losses --


def test_a_loss_costs_little_on_an_empty_queue_and_half_on_a_full_one() -> None:
    bench = Bench(100)
    bench.settle(0)
    bench.controller.on_loss(bench.now_us, SEGMENT, True)
    assert bench.controller._window == pytest.approx(LOSS_FACTOR * 100 * SEGMENT)
    bench.controller.on_loss(bench.now_us, SEGMENT, False)
    assert bench.controller._window == pytest.approx(LOSS_FACTOR * 100 * SEGMENT)

    full = Bench(100)
    full.settle(50_000)
    full.controller.on_loss(full.now_us, SEGMENT, True)
    assert full.controller._window == pytest.approx((LOSS_FACTOR - LOSS_QUEUE_FACTOR) * 100 * SEGMENT)


def test_after_a_loss_in_a_queue_nothing_pushes_for_a_while() -> None:
    """Somebody else wants the queue, or something manages it: at the target the window stands still."""
    for queues_us, pushes in (([TARGET_DELAY_US], False), ([0], True), ([TARGET_DELAY_US, 0], True)):
        bench = Bench(100)
        for queue_us in queues_us:
            bench.settle(queue_us)
            bench.controller._average_us = queue_us
            bench.controller.on_loss(bench.now_us, SEGMENT, True)
        bench.settle(TARGET_DELAY_US)
        assert bench.round(TARGET_DELAY_US) == pytest.approx(GAIN_SEGMENTS if pushes else 0, abs=0.05)
        bench.now_us += CONTESTED_US
        assert bench.round(TARGET_DELAY_US) == pytest.approx(GAIN_SEGMENTS, abs=0.05)


def test_a_few_losses_on_an_empty_queue_do_not_end_slow_start_but_many_do() -> None:
    bench = Bench()
    bench.round(0)
    bench.controller.on_loss(bench.now_us, SEGMENT, True)
    assert bench.controller.slow_start
    bench.controller.on_loss(bench.now_us, 10 * SEGMENT, False)
    assert not bench.controller.slow_start


def test_a_loss_that_was_none_gives_the_window_back() -> None:
    bench = Bench(100)
    bench.settle(50_000)
    bench.controller.on_loss(bench.now_us, SEGMENT, True)
    assert bench.controller._contested_until_us > bench.now_us
    bench.controller.on_spurious(bench.now_us)
    assert bench.controller._window == pytest.approx(100 * SEGMENT)
    assert bench.controller._contested_until_us <= bench.now_us
    bench.controller.on_timeout(bench.now_us)
    assert bench.controller.slow_start
    bench.controller.on_spurious(bench.now_us)
    assert not bench.controller.slow_start
    assert bench.controller._window == pytest.approx(100 * SEGMENT)


def test_after_a_timeout_slow_start_goes_to_half_of_what_was_used() -> None:
    bench = Bench(100)
    bench.controller.on_timeout(bench.now_us)
    assert bench.controller.window_bytes == 2 * SEGMENT
    for _ in range(30):
        if not bench.controller.slow_start:
            break
        bench.round(0)
    assert 50 * SEGMENT <= bench.controller.window_bytes <= 55 * SEGMENT


# -- slowdowns and learning --


def test_every_few_seconds_the_window_makes_room_for_a_moment() -> None:
    bench = Bench(100)
    bench.controller._slowdown_us = bench.now_us
    bench.ack(0)
    begun_us = bench.now_us
    assert bench.controller.window_bytes == pytest.approx(25 * SEGMENT, rel=0.01)
    while bench.controller.window_bytes < 90 * SEGMENT:
        bench.ack(0)
    assert bench.now_us - begun_us == pytest.approx(1.5 * BASE_US, rel=0.1)
    assert bench.controller._slowdown_us == next_beat_us(bench.now_us)


def test_delay_that_is_there_without_us_is_tolerated_within_reason() -> None:
    bench = Bench(100)
    for _ in range(20):
        bench.controller._slowdown_us = bench.now_us
        for _ in range(300):
            bench.ack(30_000 + max(bench.controller.window_bytes - 100 * SEGMENT, 0))  # a push finds a queue
        bench.controller._window = 100.0 * SEGMENT
    assert bench.controller.target_delay_us == TARGET_DELAY_US + NOISE_LIMIT_US


def slow_down(bench: Bench, queue_us: int | None) -> int:
    """A slowdown that ends with this delay; gives what is tolerated then."""
    bench.controller._slowdown_us = bench.now_us
    bench.ack(bench.controller._delay_us)
    bench.now_us += 2 * BASE_US
    bench.ack(queue_us)
    bench.controller._window = 100.0 * SEGMENT
    return bench.controller.target_delay_us - TARGET_DELAY_US


def test_more_noise_counts_at_once_and_less_of_it_bit_by_bit() -> None:
    """Jitter is now more, now less; a tolerance that fell as fast as it rises would fall behind it."""
    bench = Bench(100)
    bench.settle(8_000)
    assert slow_down(bench, 8_000) == 8_000
    bench.settle(0)
    assert slow_down(bench, 0) == (1 - NOISE_FALL) * 8_000


def test_a_slowdown_that_measured_nothing_teaches_nothing() -> None:
    """What was sent before it saw our own queue.  On fast links that was taken for noise, for seconds."""
    bench = Bench(100)
    bench.settle(8_000)
    assert slow_down(bench, None) == 0


def test_the_first_slowdown_is_not_about_noise() -> None:
    """Slow start pushed others aside.  Who took their queue for noise would keep more than its share of the link."""
    bench = Bench(100)
    bench.controller._settled = False
    bench.settle(8_000)
    assert slow_down(bench, 8_000) == 0
    bench.settle(8_000)
    assert slow_down(bench, 8_000) == 8_000


# -- on a bottleneck --

RATE = 1_250_000  # bytes per second: 10 Mbit/s


class Flows:
    """Downloads over one bottleneck of 10 Mbit/s and 40 ms with a queue of 100 packets, begun one after another."""

    def __init__(self, starts: list[float], settings: Settings | None = None) -> None:
        self.network = Network(seed=1)
        self.link = Link(delay_us=20_000, rate_bytes_per_second=RATE, queue_bytes=150_000)
        self.network.connect(CLIENT, SERVER, self.link, Link(delay_us=20_000))
        self.settings = Settings(congestion=Shallow, receive_buffer_bytes=4 << 20) if settings is None else settings
        self.accepting = Accepting(Counting)
        UTPServerEndpoint(self.network.reactor(SERVER), PORT, settings=self.settings).listen(self.accepting)
        for start in starts:
            self.network.call_at(round(start * 1_000_000), self._begin)

    def _begin(self) -> None:
        endpoint = UTPClientEndpoint(self.network.reactor(CLIENT), SERVER, PORT, settings=self.settings)
        endpoint.connect(Accepting()).addCallback(lambda stream: stream.transport.write(bytes(100_000_000)))

    def rates(self, seconds: float) -> list[float]:
        """The share of the link that each flow has over the next seconds."""
        before = [stream.total for stream in self.accepting.made]
        self.network.run(seconds)
        return [(stream.total - had) / RATE / seconds for stream, had in zip(self.accepting.made, before, strict=False)]


class Counting(Stream):
    """Counts instead of keeping."""

    total = 0

    def dataReceived(self, data: bytes) -> None:
        self.total += len(data)


def test_one_flow_fills_the_link_with_a_few_milliseconds_of_queue() -> None:
    flows = Flows([0])
    flows.network.run(5)
    queue = []
    total = 0.0
    for _ in range(100):
        (rate,) = flows.rates(0.1)
        total += rate / 100
        queue.append(flows.link.queue_delay_us)
    assert total > 0.9
    assert sorted(queue)[50] < 1.7 * TARGET_DELAY_US
    assert flows.link.dropped == 0


@pytest.mark.parametrize("start", [1.5, 5, 5.03, 7])
def test_a_late_comer_gets_its_share(start: float) -> None:
    """After ten seconds, whatever the older flow is doing when it comes."""
    flows = Flows([0, start])
    flows.network.run(start + 8)
    first, second = flows.rates(4)
    assert 0.45 < second / (first + second) < 0.55
    assert first + second > 0.9


def test_the_same_queue_after_an_hour_of_drifting_clocks() -> None:
    """Classic LEDBAT forgets the empty path in that time, because its own queue hides it."""
    link = Link(delay_us=20_000, rate_bytes_per_second=50_000, queue_bytes=150_000)
    pair = Pair(link, Link(delay_us=20_000), settings=Settings(congestion=Shallow), client_drift_ppm=50)
    pair.client.transport.write(bytes(100_000_000))
    pair.run(60)
    early = sorted(link.queue_delay_us for _ in range(50) if not pair.run(0.2))
    pair.run(1_200)
    late = sorted(link.queue_delay_us for _ in range(50) if not pair.run(0.2))
    assert late[25] <= early[25] + 30_000  # one packet takes 29 ms here


def test_next_to_no_round_trip_is_no_reason_to_leap() -> None:
    """Through a real shaper an empty path takes 0.2 ms, and any target is far away then."""
    bench = Bench(20)
    bench.controller._lossless_rounds = 0
    bench.round_trip = RoundTrip()
    bench.round_trip.on_full_size(200, 0)
    assert bench.round(0) <= 0.7 * 20
