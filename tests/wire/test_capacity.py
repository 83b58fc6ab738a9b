"""What losses show of a path: full queues that no delay announces, policers, short queues, the path's own losses."""

from __future__ import annotations

import random

import pytest

from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.scenarios.running import run
from txutp.core.bursts import BURSTS_IN_ROUND_TRIP, CALM_INTERVALS, SHORTEST_BURST_US, Bursts
from txutp.core.congestion.capacity import (
    CEILING_LEAST,
    CEILING_RISE,
    CEILING_START,
    LEAST_KEPT,
    OWN_LOSS_RISE,
    REMEMBERED_US,
    SCATTERED_SHARE,
    TARGET_SHARE,
    Capacity,
)
from txutp.core.congestion.overload import INTERVAL_SEGMENTS, STEPS, Overload
from txutp.core.pacing import BURST_US

SEGMENT = 1_382
WINDOW = 100 * SEGMENT
NOW_US = 1_000_000
ROUND_TRIP_US = 1_000


# -- how much of a window is kept --


def lossy(lost_segments: int, waited_us: int = 0, is_visible: bool = False) -> tuple[Capacity, float]:
    """A window of a hundred segments lost some; how much of it is kept."""
    capacity = Capacity()
    capacity.begin_loss(NOW_US, WINDOW, waited_us, is_visible)
    return capacity, capacity.keep(NOW_US, lost_segments * SEGMENT, SEGMENT)


def test_scattered_losses_cost_no_more_than_the_controller_takes() -> None:
    _, kept = lossy(int(SCATTERED_SHARE * 100))
    assert kept == WINDOW


def test_a_window_that_overflowed_keeps_what_arrived() -> None:
    _, kept = lossy(40, waited_us=3_000, is_visible=True)
    assert kept == WINDOW - 39 * SEGMENT


def test_more_losses_of_the_same_window_count_together() -> None:
    capacity, _ = lossy(15)
    kept = capacity.keep(NOW_US, 15 * SEGMENT, SEGMENT)
    assert kept == pytest.approx(WINDOW - (30 - 20) * SEGMENT)


def test_no_loss_takes_more_than_half_of_a_window() -> None:
    _, kept = lossy(99)
    assert kept == LEAST_KEPT * WINDOW


# -- the ceiling --


def test_a_window_near_what_overflowed_grows_slowly() -> None:
    capacity, _ = lossy(25)
    ceiling = 75 * SEGMENT
    assert capacity.limit_window(WINDOW, NOW_US) == pytest.approx(CEILING_START * ceiling)
    later_us = NOW_US + 100_000
    assert capacity.limit_window(WINDOW, later_us) == pytest.approx((CEILING_START + CEILING_RISE / 10) * ceiling)
    assert capacity.limit_window(10 * SEGMENT, NOW_US) == 10 * SEGMENT


def test_a_ceiling_is_forgotten() -> None:
    capacity, _ = lossy(25)
    assert capacity.limit_window(WINDOW, NOW_US + REMEMBERED_US + 1) == WINDOW
    assert capacity.limit_window(WINDOW, NOW_US) == WINDOW, "once and for all"


def test_a_ceiling_is_not_far_below_the_window() -> None:
    """A peer that cannot name all that it holds makes losses look larger than they are."""
    capacity, _ = lossy(99)
    assert capacity.limit_window(WINDOW, NOW_US) == pytest.approx(CEILING_START * CEILING_LEAST * WINDOW)


def test_a_window_in_recovery_does_not_lower_the_ceiling_much() -> None:
    capacity, _ = lossy(25)
    before = capacity.limit_window(WINDOW, NOW_US)
    capacity.begin_loss(NOW_US + 5_000, WINDOW / 2, 0, False)
    capacity.keep(NOW_US + 5_000, 40 * SEGMENT, SEGMENT)
    assert before * 0.8 < capacity.limit_window(WINDOW, NOW_US + 5_000) < before


# -- the depth of the queue --


def test_the_target_is_half_of_what_the_queue_holds() -> None:
    capacity, _ = lossy(1, waited_us=3_000, is_visible=True)
    assert capacity.overflowed
    assert capacity.limit_target(4_000, 0) == TARGET_SHARE * 3_000
    assert capacity.limit_target(4_000, 1_000) == 1_000 + TARGET_SHARE * 2_000, "above the noise"
    assert capacity.limit_target(1_000, 0) == 1_000
    assert capacity.limit_target(4_000, 3_500) == 4_000, "a queue in the noise says nothing"


def test_a_delay_that_is_no_queue_says_nothing_of_its_depth() -> None:
    capacity, _ = lossy(1, waited_us=300, is_visible=False)
    assert not capacity.overflowed
    assert capacity.limit_target(4_000, 0) == 4_000


def test_a_loss_far_below_the_depth_is_the_paths_own() -> None:
    """Without this, each random loss on a busy link would halve the target."""
    capacity, _ = lossy(1, waited_us=3_000, is_visible=True)
    capacity.begin_loss(NOW_US, WINDOW, 1_500, True)
    assert not capacity.overflowed
    assert capacity.limit_target(4_000, 0) == pytest.approx(TARGET_SHARE * 3_000 * OWN_LOSS_RISE)


def test_growth_is_careful_while_a_full_queue_is_remembered() -> None:
    capacity, _ = lossy(1, waited_us=3_000, is_visible=True)
    assert capacity.is_suspect(NOW_US + REMEMBERED_US - 1)
    assert not capacity.is_suspect(NOW_US + REMEMBERED_US)
    assert not Capacity().is_suspect(0)


# -- the limit of the rate --


class Path:
    """Delivers up to a rate, and loses the rest, and a share of everything besides."""

    def __init__(self, capacity: float = 0.0, own_loss: float = 0.0) -> None:
        self.overload = Overload()
        self.now_us = NOW_US
        self.capacity = capacity
        self.own_loss = own_loss

    def interval(self, wanted: float) -> float:
        """A whole interval at a wanted rate, as far as the limit allows it; returns the share that got lost."""
        rate = min(wanted, self.overload.rate_limit or wanted)
        passing = (min(rate, self.capacity) if self.capacity else rate) * (1 - self.own_loss)
        share = 1 - passing / rate
        total_bytes = INTERVAL_SEGMENTS * SEGMENT
        steps = 64
        if share:
            self.overload.on_loss(round(total_bytes * share))
        for _ in range(steps):
            self.now_us += round(total_bytes / rate / steps * 1_000_000)
            self.overload.on_ack(self.now_us, -(-round(total_bytes * (1 - share)) // steps), ROUND_TRIP_US, SEGMENT)
        return share


RATE = 10e6


def test_a_policer_bounds_the_rate_and_little_is_lost_then() -> None:
    path = Path(capacity=RATE)
    shares = [path.interval(2 * RATE) for _ in range(60)]
    assert shares[0] == shares[1] == 0.5, "the first may be an overshoot"
    assert sum(shares[2:]) / len(shares[2:]) < 0.03
    assert 0.85 * RATE < path.overload.rate_limit < 1.3 * RATE


def test_one_interval_with_losses_sets_no_limit() -> None:
    path = Path(capacity=RATE)
    path.interval(2 * RATE)
    path.interval(RATE / 2)
    path.interval(2 * RATE)
    assert not path.overload.rate_limit


def test_a_limit_goes_when_the_policer_does() -> None:
    path = Path(capacity=RATE)
    for _ in range(10):
        path.interval(2 * RATE)
    path.capacity = 0.0
    intervals = 0
    while path.overload.rate_limit:
        path.interval(100 * RATE if intervals > 40 else 2 * RATE)
        intervals += 1
        assert intervals < 60


@pytest.mark.parametrize("own_loss", [0.02, 0.1, 0.3])
def test_losses_that_do_not_fall_with_the_rate_are_the_paths_own(own_loss: float) -> None:
    path = Path(own_loss=own_loss)
    limited = 0
    for _ in range(100):
        path.interval(RATE)
        limited += bool(path.overload.rate_limit)
    assert limited <= STEPS + 1
    assert path.overload.base_share == pytest.approx(own_loss, abs=0.01)


def test_a_policer_on_a_lossy_path_is_found_all_the_same() -> None:
    path = Path(capacity=RATE, own_loss=0.05)
    shares = [path.interval(2 * RATE) for _ in range(60)]
    assert sum(shares[20:]) / len(shares[20:]) < 0.05 + 0.04


def test_losses_that_come_and_go_whatever_the_rate_is_do_not_wear_the_rate_down() -> None:
    """Reordering that is taken for loss, for example."""
    chance = random.Random(1)
    path = Path()
    slowest = RATE
    for _ in range(400):
        path.own_loss = chance.choice([0.0, 0.0, 0.05, 0.1, 0.2])
        path.interval(RATE)
        slowest = min(slowest, path.overload.rate_limit or RATE)
    assert slowest > 0.5 * RATE


def test_packets_that_arrived_late_do_not_count_as_lost() -> None:
    path = Path()
    for _ in range(4):
        path.overload.on_loss(INTERVAL_SEGMENTS * SEGMENT // 2)
        path.overload.on_spurious(INTERVAL_SEGMENTS * SEGMENT // 2)
        path.interval(RATE)
    assert not path.overload.rate_limit
    assert path.overload.base_share == 0


def test_a_pause_is_no_slowness() -> None:
    """An interval with a timeout in it is not looked at."""
    path = Path(capacity=RATE)
    path.interval(2 * RATE)
    for _ in range(10):
        path.overload.on_loss(INTERVAL_SEGMENTS * SEGMENT // 2)
        path.overload.on_timeout()
    assert not path.overload.rate_limit


# -- the length of bursts --


def test_the_loss_of_neighbours_shortens_bursts_once_for_each_window() -> None:
    bursts = Bursts()
    base_us = BURSTS_IN_ROUND_TRIP * BURST_US
    bursts.on_loss(True, False, base_us)
    assert bursts.burst_us == BURST_US, "scattered losses say nothing of bursts"
    bursts.on_loss(False, True, base_us)
    bursts.on_loss(False, True, base_us)
    assert bursts.burst_us == BURST_US // 2
    for _ in range(20):
        bursts.on_loss(True, True, base_us)
    assert bursts.burst_us == SHORTEST_BURST_US


def test_where_few_bursts_fit_a_round_trip_the_window_is_the_matter() -> None:
    bursts = Bursts()
    bursts.on_loss(True, True, BURSTS_IN_ROUND_TRIP * BURST_US - 1)
    assert bursts.burst_us == BURST_US


def test_bursts_are_long_again_after_calm_intervals() -> None:
    bursts = Bursts()
    bursts.on_loss(True, True, BURSTS_IN_ROUND_TRIP * BURST_US)
    for _ in range(CALM_INTERVALS):
        bursts.on_interval()
    assert bursts.burst_us == BURST_US // 2
    bursts.on_interval()
    assert bursts.burst_us == BURST_US


def test_an_interval_ends_after_enough_segments() -> None:
    """The flow's bursts are told then."""
    overload = Overload()
    full_bytes = INTERVAL_SEGMENTS * SEGMENT
    assert not overload.on_ack(NOW_US, full_bytes - 1, ROUND_TRIP_US, SEGMENT)
    assert overload.on_ack(NOW_US, 1, ROUND_TRIP_US, SEGMENT)
    assert not overload.on_ack(NOW_US + 1, full_bytes, ROUND_TRIP_US, SEGMENT), "shorter than two round trips"


# -- whole transfers --


@pytest.mark.parametrize(
    "name",
    [
        "queue0.1-80M-0.1ms",
        "queue1-80M-0.1ms",
        "queue1-80M-1ms",
        "queue1-800M-10ms",
        "queue10-8M-1ms",
        "policer-80M-1ms",
        "buffer212-800M-0.2ms",
    ],
)
def test_a_short_queue_is_not_flooded(name: str) -> None:
    """The default controller gets nine tenths of what LEDBAT does, and sends at most one packet of twenty again."""
    scenario = SCENARIOS[f"grid-{name}"]
    (ours,) = run(scenario, "shallow", 1).flows
    (classic,) = run(scenario, "ledbat", 1).flows
    assert ours.goodput_megabits > 0.9 * classic.goodput_megabits
    assert ours.resent_share < 0.05 + (0.03 if "policer" in name else 0.0)


@pytest.mark.parametrize("name", ["loss1%-80M-10ms", "loss5%-8M-10ms", "loss10%-80M-100ms"])
def test_random_losses_cost_less_than_they_cost_classic_congestion_control(name: str) -> None:
    scenario = SCENARIOS[f"grid-{name}"]
    (ours,) = run(scenario, "shallow", 1).flows
    (reno,) = run(scenario, "reno", 1).flows
    assert ours.goodput_megabits > reno.goodput_megabits
