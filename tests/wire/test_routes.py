"""A path that becomes longer is learned within seconds; a queue that somebody else keeps is not taken for the path."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.support import CLIENT, PORT, SERVER, Accepting
from tests.wire.test_shallow import BASE_US, RATE, Bench, Counting
from tests.wire.test_swarm import Fixed
from tests.wire.test_transfer import SEGMENT
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.congestion.crowd import Crowd
from txutp.core.congestion.route import (
    CONSTANT_SPREAD_US,
    CONSTANT_US,
    FIRST_EXTRA_SEGMENTS,
    GROUP_SAMPLES,
    PAUSE_US,
    WATCH_US,
    RouteCheck,
)
from txutp.core.congestion.shallow import PUSHING_FLOWS
from txutp.core.units import SECOND_US
from txutp.testing import HARQ, Link, Network

OTHER = "10.0.0.9"


class Limited(Fixed):
    """A sender whose window is full always, so that the rest of it waits in the queue and hardly moves."""

    join = None  # type: ignore[assignment]
    window_segments = 100
    pacing_gain = 0.0


class Flows:
    """Flows of one host over 10 Mbit/s and 40 ms with a queue of 300 packets, and perhaps one of another host."""

    def __init__(self, flows: int = 1, harq: float = 0.0, **link: Any) -> None:
        self.network = Network(seed=1)
        if harq:
            link["behind"] = (HARQ(self.network.random, harq),)
        self.link = Link(delay_us=BASE_US // 2, rate_bytes_per_second=RATE, queue_bytes=300 * (SEGMENT + 48), **link)
        self.back = Link(delay_us=BASE_US // 2)
        self.accepting = Accepting(Counting)
        # the receiver leaves everything to the sender
        self.settings = Settings(receive_target_delay_us=None, receive_buffer_bytes=4 << 20)
        for host in (CLIENT, OTHER):
            self.network.connect(host, SERVER, self.link, self.back)
        UTPServerEndpoint(self.network.reactor(SERVER), PORT, settings=self.settings).listen(self.accepting)
        for _ in range(flows):
            self.add(CLIENT, self.settings)

    def add(self, host: str, settings: Settings) -> None:
        endpoint = UTPClientEndpoint(self.network.reactor(host), SERVER, PORT, settings=settings)
        endpoint.connect(Accepting()).addCallback(lambda stream: stream.transport.write(bytes(200_000_000)))
        self.network.run(0.2)

    def lengthen(self, more_us: int) -> None:
        """Both ways together."""
        self.link.delay_us += more_us // 2
        self.back.delay_us += more_us // 2

    def shares(self, seconds: float) -> list[float]:
        """The part of the link that each flow has over the next seconds."""
        before = [stream.total for stream in self.accepting.made]
        self.network.run(seconds)
        return [(stream.total - had) / RATE / seconds for stream, had in zip(self.accepting.made, before, strict=True)]


# -- on a bottleneck --


@pytest.mark.parametrize(
    ("more_ms", "link"), [(30, {}), (45, {"jitter_us": 5_000}), (60, {"gate_us": 10_000}), (100, {"harq": 0.1})]
)
def test_a_longer_route_is_learned(more_ms: int, link: dict[str, Any]) -> None:
    """It looks like a queue at first, to both ends; with windows of a few segments that would last for minutes."""
    flows = Flows(**link)
    flows.network.run(4)
    flows.lengthen(more_ms * 1_000)
    flows.network.run(2)
    assert sum(flows.shares(1)) < 0.6
    flows.network.run(11)
    assert sum(flows.shares(3)) > 0.85


def test_several_flows_of_a_host_learn_it() -> None:
    """Each asks at another moment, or all of them together would be the queue that they look for."""
    flows = Flows(4)
    flows.network.run(6)
    flows.lengthen(40_000)
    flows.network.run(14)
    shares = flows.shares(4)
    assert sum(shares) > 0.85
    assert min(shares) > 0.1


@pytest.mark.parametrize("after_s", [4, 8.7])
def test_a_queue_that_somebody_else_keeps_is_not_the_path(after_s: float) -> None:
    """It is as long as ever and does not move, but what is pushed into it makes it longer."""
    flows = Flows()
    flows.network.run(after_s)
    flows.add(OTHER, Settings(congestion=Limited, receive_buffer_bytes=4 << 20))
    flows.network.run(2)
    queue_us = flows.link.queue_delay_us
    assert queue_us > 50_000
    ours, theirs = flows.shares(20)
    assert theirs > 0.94
    assert 0 < ours < 0.04
    assert flows.link.queue_delay_us < queue_us + 8_000


# -- one controller --


def learned(bench: Bench, seconds: float, grows_us: float, queue_us: int = 40_000) -> bool:
    """Let packets be delayed by this, and by so much more for each segment of the window."""
    until_us = bench.now_us + seconds * SECOND_US
    while bench.now_us < until_us:
        bench.ack(queue_us + int(grows_us * bench.controller.window_bytes / SEGMENT))
        if bench.controller._absorbed_us:
            return True
    return False


def test_a_delay_that_does_not_answer_is_the_path() -> None:
    bench = Bench(1)
    assert learned(bench, 4, grows_us=0)
    assert bench.controller.base_us >= BASE_US
    assert bench.controller.window_bytes >= 4 * SEGMENT
    assert bench.controller._delay_us == 0
    bench.ack(40_000)
    assert bench.controller.base_us == BASE_US + 40_000


def test_a_delay_that_answers_is_a_queue() -> None:
    """Each segment in it takes a millisecond to send; the window is back where it was after each push."""
    bench = Bench(1)
    bench.controller._slow_maximum = RATE
    assert not learned(bench, 60, grows_us=1_000)
    assert bench.controller.window_bytes < 2 * SEGMENT


def test_a_fast_link_needs_larger_pushes() -> None:
    """A few segments do not show in it; those that would are tried one after another."""
    bench = Bench(1)
    bench.controller._slow_maximum = 20 * RATE
    assert not learned(bench, 60, grows_us=50)
    bench = Bench(1)
    bench.controller._slow_maximum = 20 * RATE
    assert learned(bench, 10, grows_us=0)
    assert bench.controller.window_bytes > 4 * FIRST_EXTRA_SEGMENTS * SEGMENT


@pytest.mark.parametrize("end", ["loss", "timeout", "fast"])
def test_a_push_ends_with_what_it_was_for(end: str) -> None:
    bench = Bench(1)
    controller = bench.controller
    while controller._route is None or not controller._route.extra_bytes:
        bench.ack(40_000)
    pushed = controller._window
    if end == "loss":
        controller.on_loss(bench.now_us, SEGMENT, new_window=True)
    elif end == "timeout":
        controller.on_timeout(bench.now_us)
    else:
        bench.ack(1_000)
    assert controller._route is None
    assert controller._window < pushed - 3 * SEGMENT


def test_an_application_that_sends_less_has_tried_nothing() -> None:
    bench = Bench(1)
    until_us = bench.now_us + 30 * SECOND_US
    while bench.now_us < until_us:
        bench.ack(40_000, limited=False)
    assert not bench.controller._absorbed_us


class Many(Crowd):
    """More flows than may push, with half a segment each."""

    flows = PUSHING_FLOWS + 1  # type: ignore[assignment]
    mean_window_bytes = SEGMENT / 2  # type: ignore[assignment]


@pytest.mark.parametrize(("moves_us", "expected"), [(0, True), (CONSTANT_SPREAD_US + 1_000, False)])
def test_in_a_large_crowd_only_a_constant_delay_is_the_path(moves_us: int, expected: bool) -> None:
    """Flows that are too small to show in a queue would all take that for the answer of an empty path."""
    bench = Bench(0.5)
    controller = bench.controller
    controller._crowd = crowd = Many()
    controller._least_segments = crowd.least_segments
    until_us = bench.now_us + 3 * CONSTANT_US
    number = 0
    while bench.now_us < until_us and not controller._absorbed_us:
        number += 1
        bench.ack(40_000 + number % 2 * moves_us)
        assert controller._route is None or not controller._route.extra_bytes
    assert bool(controller._absorbed_us) is expected


@pytest.mark.parametrize("many", [False, True])
def test_what_may_wait_is_no_longer_path(many: bool) -> None:
    """Flows that took their own short queue for the path would add another one to it, again and again."""
    bench = Bench(0.5 if many else 2)
    controller = bench.controller
    if many:
        controller._crowd = crowd = Many()
        controller._least_segments = crowd.least_segments
    bench.ack(40_000)
    until_us = bench.now_us + 30 * SECOND_US
    while bench.now_us < until_us:
        controller._window = float(SEGMENT)
        bench.ack(round(0.75 * controller.target_delay_us))
    assert controller._route is not None
    assert not controller._absorbed_us


# -- the check itself --


def watched(delays_us: list[int]) -> RouteCheck:
    """A check that has seen these again and again for long enough."""
    check = RouteCheck(0, RATE)
    for number in range(40):
        check.on_sample(WATCH_US, WATCH_US, delays_us[number % len(delays_us)])
    return check


def test_it_waits_for_what_left_after_the_window_grew() -> None:
    check = watched([30_000])
    assert check.is_ripe(WATCH_US)
    assert check.push(WATCH_US, 50_000, SEGMENT) >= 4 * SEGMENT
    for _ in range(2 * GROUP_SAMPLES):
        check.on_sample(WATCH_US + 60_000, WATCH_US + 49_999, 30_000)
    assert not check.is_judged
    for _ in range(GROUP_SAMPLES):
        check.on_sample(WATCH_US + 110_000, WATCH_US + 50_000, 30_000)
    assert check.is_judged
    assert not check.has_grown()


def test_where_delays_scatter_the_push_is_larger() -> None:
    still, scattered = watched([30_000]), watched([34_000] * GROUP_SAMPLES + [30_000])
    assert scattered.push(0, 1, SEGMENT) > 1.5 * still.push(0, 1, SEGMENT)


def test_a_delay_that_moves_much_is_never_asked_about() -> None:
    check = watched([20_000] * 2 * GROUP_SAMPLES + [60_000] * 2 * GROUP_SAMPLES)
    assert not check.is_ripe(WATCH_US)
    assert not check.is_ripe(WATCH_US + 1), "it is watched anew"


def test_a_delay_that_falls_is_asked_about_again() -> None:
    """Packets meet another phase of a path that batches: the lower delay is the one to compare with."""
    check = watched([30_000])
    extra = check.push(WATCH_US, 0, SEGMENT)
    for delay_us, grown in ((24_000, False), (24_500, False), (31_000, True)):
        check._begin_group()
        for _ in range(GROUP_SAMPLES):
            check.on_sample(2 * WATCH_US, 2 * WATCH_US, delay_us)
        assert check.has_grown() is grown
        assert check.low_us == 24_000
        assert check.is_enough() is False
    assert check.push(WATCH_US, 0, SEGMENT) > extra
    assert check.is_enough()


def test_after_a_queue_has_answered_there_is_a_pause() -> None:
    bench = Bench(1)
    controller = bench.controller
    begins: list[int] = []
    before = 0.0
    while len(begins) < 5:
        bench.ack(40_000 + int(3_000 * controller.window_bytes / SEGMENT))
        extra = controller._route.extra_bytes if controller._route else 0.0
        if extra > before:
            begins.append(bench.now_us)
        before = extra
    gaps_us = [later - earlier for earlier, later in pairwise(begins)]
    assert min(gaps_us) > PAUSE_US + WATCH_US
    assert max(gaps_us) < 2 * PAUSE_US + WATCH_US + SECOND_US
