"""After an outage a stream is soon as fast as before, whatever was lost, held or late meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.support import Pair, ScriptedClient
from tests.wire.test_transfer import SEGMENT
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow
from txutp.testing import HARQ, Link, Outage

CONTROLLERS = [Shallow, LedbatPlusPlus, Ledbat]
RATE = 500_000
DELAY_US = 25_000
BEGINS_US, ENDS_US = 8_000_000, 13_000_000
BACK_SECONDS = 5

Way = Callable[[], list[Outage]]


def clear() -> list[Outage]:
    return []


def lost() -> list[Outage]:
    return [Outage(BEGINS_US, ENDS_US)]


def held() -> list[Outage]:
    return [Outage(BEGINS_US, ENDS_US, held=True)]


def broken() -> list[Outage]:
    return [Outage(BEGINS_US, ENDS_US - 2_500_000), Outage(ENDS_US - 2_000_000, ENDS_US)]


def pair_with(there: Way, back: Way, controller: type, seed: int = 1, harq: float = 0.0) -> Pair:
    radio = [HARQ(random.Random(seed), harq)] if harq else []
    return Pair(
        Link(DELAY_US, rate_bytes_per_second=RATE, queue_bytes=RATE // 8, behind=[*there(), *radio]),
        Link(DELAY_US, behind=back()),
        settings=Settings(congestion=controller),
        seed=seed,
    )


def rate_after(pair: Pair) -> float:
    """The share of the rate in the two seconds that begin so long after the outage."""
    pair.client.transport.write(bytes(RATE * 25))
    pair.run(ENDS_US / 1_000_000 + BACK_SECONDS - pair.network.now_us / 1_000_000)
    before = len(pair.server.received)
    pair.run(2)
    return (len(pair.server.received) - before) / 2 / RATE


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize(
    ("there", "back", "harq"),
    [
        (lost, lost, 0.0),
        (held, held, 0.1),
        (lost, clear, 0.0),
        (clear, lost, 0.0),
        (clear, held, 0.0),
        (broken, broken, 0.0),
    ],
)
def test_the_rate_is_back_within_seconds(there: Way, back: Way, harq: float, controller: type) -> None:
    assert rate_after(pair_with(there, back, controller, harq=harq)) > 0.75


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_what_left_before_a_timeout_tells_no_round_trip(controller: type) -> None:
    pair = pair_with(held, held, controller)
    rate_after(pair)
    assert pair.client.transport.stats().rtt < 400


def test_a_path_that_takes_longer_than_the_timeout_is_still_measured() -> None:
    """Its answers are all to what left before a timeout, until the timeout has grown as long as they take."""
    pair = Pair(Link(DELAY_US, rate_bytes_per_second=RATE, queue_bytes=RATE), Link(DELAY_US))
    pair.client.transport.write(bytes(RATE * 60))
    pair.run(5)
    pair.up.delay_us = pair.down.delay_us = 600_000
    pair.run(15)
    timeouts = pair.client.transport.stats().timeouts
    assert timeouts <= 5
    pair.run(25)
    assert pair.client.transport.stats().rtt == pytest.approx(1_200, rel=0.25)
    assert pair.client.transport.stats().timeouts == timeouts


def test_in_back_off_one_packet_leaves_every_three_seconds() -> None:
    """An outage that ends between two timeouts is found out soon, however far apart these are."""
    scene = ScriptedClient()
    scene.push(b"x")
    scene.peer.ack += 1
    scene.peer.state()  # the first round trip
    scene.run(0.01)
    scene.push(b"y")
    began_us = scene.network.now_us
    left_us: list[int] = []
    while len(left_us) < 20 and scene.run(40, until=lambda: bool(scene.peer.datagrams)):
        left_us.append(scene.network.now_us - began_us)
        scene.peer.take()
        if scene.server.lost:
            break
    gaps_us = [later - earlier for earlier, later in pairwise(left_us)]
    assert max(gaps_us) <= 3_010_000
    late_seconds = [left / 1_000_000 for left in left_us if left > 1_000_000]
    # the fifth timeout ends the connection with a RESET
    assert late_seconds[:6] == pytest.approx([1.5, 3.5, 6.5, 7.5, 10.5, 13.5], abs=0.1)


def test_what_did_not_ask_the_pace_owes_it_nothing() -> None:
    """A probe leaves at once; with a slow pace a few of them, charged to it, were half a minute of silence."""
    pair = pair_with(lost, lost, Shallow)
    pair.client.transport.write(bytes(RATE * 25))
    pair.run(BEGINS_US / 1_000_000 + 2 - pair.network.now_us / 1_000_000)
    sending = pair.client.connection.sending
    assert sending.steering is not None
    pacer = sending.steering._pacer
    assert pacer is not None
    pacer._credit = 0.0
    for _ in range(3):
        sending.probe_due = True
        assert sending.next_resend(pair.network.now_us) is not None
    assert pacer._credit == 0


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_the_threshold_is_held_over_timeouts_in_a_row(controller: type) -> None:
    """RFC 5681 3.1: what was already sent again after a timeout is lost again, which says nothing new."""
    thresholds = []
    for timeouts in (1, 5):
        each = controller(segment_bytes=SEGMENT, target_delay_us=None)
        each.slow_start = False
        each._window = 40.0 * SEGMENT
        for number in range(timeouts):
            each.on_timeout(number * 1_000_000)
        thresholds.append(getattr(each, "_threshold", None) or each._threshold_bytes)
        each.on_spurious(10_000_000)
        assert each.window_bytes == 40 * SEGMENT
        assert not each.slow_start
    assert thresholds == [20 * SEGMENT, 20 * SEGMENT]


def test_a_loss_in_a_slowdown_is_of_the_window_before_it() -> None:
    controller = LedbatPlusPlus(segment_bytes=SEGMENT)
    controller.slow_start = controller._initial = False
    controller._window = 40.0 * SEGMENT
    controller._begin_slowdown(1_000_000, 50_000)
    controller.on_loss(1_010_000, SEGMENT, True)
    assert controller._threshold == 20 * SEGMENT
    assert controller.slow_start
