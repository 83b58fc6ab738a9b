"""The bottlenecks of the benchmark on real sockets: each is built once, carries what it should, and is gone afterwards.

Only their rate, their delay and their queue are looked at, in ranges that a busy machine stays in.
"""

from __future__ import annotations

import random
import subprocess
import time

import pytest

pytest.importorskip("click")

from benchmarks.real.catalogue import CANDIDATES, SCENARIOS, alone, is_routed, with_candidate
from benchmarks.real.hosts import Hosts, why_no_wire, why_not
from benchmarks.real.router import Router
from benchmarks.real.running import measures
from benchmarks.real.simulated import simulate
from benchmarks.real.wire import Link, Way, Wire
from benchmarks.scenarios.jobs import Job
from benchmarks.scenarios.measure import percentile, rate_megabits

needs_hosts = pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing")
needs_wire = pytest.mark.skipif(bool(why_no_wire()), reason=why_no_wire() or "nothing")

PORT = 7_000
SECONDS = 4.0
MEGABITS = 8.0
DELAY_MS = 15.0
QUEUE_PACKETS = 50
FULL_QUEUE_MS = QUEUE_PACKETS * 1_500 * 8 / MEGABITS / 1_000


def transfer(path: Hosts) -> tuple[float, float, float]:
    """CUBIC for some seconds: its rate in Mbit/s, the shortest delay of a probe, and the median of all above that."""
    with path as hosts:
        names = list(hosts.names.values())
        workers = [
            hosts.start_python("receiver", "workers", "receive-tcp", PORT, "cubic"),
            hosts.start_python("sender", "workers", "send-tcp", PORT, "cubic"),
            hosts.start_python("receiver", "probe", "receive"),
            hosts.start_python("sender", "probe", "send"),
        ]
        for worker in workers:
            assert worker.line() == {"ready": True}
        zero = time.monotonic() + 0.5
        for worker in workers:
            worker.tell(zero=zero, start_s=0.0, end_s=SECONDS)
        bins = workers[0].line()["bins"]
        delays_ms = workers[2].line()["delays_ms"]
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    assert not [name for name in names if name in left]
    least_ms = min(delays_ms)
    waits_ms = [delay - least_ms for delay in delays_ms]
    return rate_megabits(bins, 1, SECONDS), least_ms, percentile(waits_ms, 95)


@needs_hosts
def test_the_router_has_its_rate_and_its_queue() -> None:
    megabits, least_ms, high_ms = transfer(Router(MEGABITS, QUEUE_PACKETS))

    assert 0.3 * MEGABITS < megabits <= MEGABITS
    assert least_ms < 15
    assert 0.2 * FULL_QUEUE_MS < high_ms < 2.5 * FULL_QUEUE_MS


@needs_wire
def test_the_link_in_user_space_has_its_rate_its_delay_and_its_queue() -> None:
    megabits, least_ms, high_ms = transfer(Wire(Link(MEGABITS, DELAY_MS, QUEUE_PACKETS)))

    assert 0.3 * MEGABITS < megabits <= MEGABITS
    assert DELAY_MS <= least_ms < DELAY_MS + 15
    assert 0.2 * FULL_QUEUE_MS < high_ms < 2.5 * FULL_QUEUE_MS


@needs_wire
def test_hosts_are_gone_after_a_failure() -> None:
    path = Wire(Link())
    with pytest.raises(ZeroDivisionError), path:
        raise ZeroDivisionError
    left = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout

    assert not [name for name in path.names.values() if name in left]


def arrivals(way: Way) -> list[float]:
    return [arrival_s for arrival_s, _ in way.travelling]


def test_packets_wait_for_each_other() -> None:
    """At 1 Mbit/s a packet of 125 bytes takes a millisecond; all travel for ten."""
    way = Way(Link(megabits=1, delay_ms=10), True, -1, random.Random(1))
    for now_s in (0.0, 0.0, 0.0005, 0.1):
        way.take(bytes(125), now_s)

    assert arrivals(way) == pytest.approx([0.011, 0.012, 0.013, 0.111])


def test_only_one_way_is_limited() -> None:
    way = Way(Link(megabits=1, delay_ms=10), False, -1, random.Random(1))
    for _ in range(3):
        way.take(bytes(125), 0.0)

    assert arrivals(way) == pytest.approx([0.01] * 3)


@pytest.mark.parametrize("link", [Link(1, 0, queue_packets=2), Link(1, 0, queue_bytes=250)])
def test_a_full_queue_takes_nothing(link: Link) -> None:
    """One packet is being sent, two wait, the others find no room."""
    way = Way(link, True, -1, random.Random(1))
    for _ in range(5):
        way.take(bytes(125), 0.0)
    assert (way.carried_packets, way.dropped) == (3, 2)

    # the second one's turn has come, so there is room again
    way.take(bytes(125), 0.0015)
    assert (way.carried_packets, way.dropped) == (4, 2)


def test_some_packets_get_lost() -> None:
    way = Way(Link(loss=0.1), True, -1, random.Random(1))
    for _ in range(1_000):
        way.take(b"packet", 0.0)

    assert way.carried_packets + way.lost == 1_000
    assert 50 < way.lost < 150


def test_scenarios_can_be_run_in_both_worlds() -> None:
    """They are scenarios of the suite; only candidates differ in their targets."""
    for make in SCENARIOS.values():
        scenario = with_candidate(make(20.0), CANDIDATES["shallow 10 ms"])
        assert [flow.target_ms for flow in scenario.flows if flow.kind == "utp"] == [10] * (
            len(scenario.flows) - scenario.has_tcp
        )
        assert 0 < scenario.spans[0].from_s < scenario.spans[0].to_s == scenario.seconds
        if scenario.has_tcp:
            assert [flow.start_s for flow in alone(scenario).flows] == [0.0]
            assert is_routed(alone(scenario)) == is_routed(scenario)
    assert {name for name, make in SCENARIOS.items() if is_routed(make(20.0))} == {
        "router",
        "router-cubic-first",
        "router-reno-first",
    }


def test_what_is_said_becomes_numbers() -> None:
    """Half the path for a second flow that comes late, and a queue of 3 ms above the shortest delay."""
    scenario = SCENARIOS["late"](4.0)  # the second flow starts after 2 of 6 seconds, and the last 2 are looked at
    tenths = round(scenario.seconds * 10)
    a_tenth_bytes = round(10e6 / 8 / 10)
    half = [0] * 20 + [a_tenth_bytes // 2] * (tenths - 20)
    numbers = measures(
        scenario,
        [
            ({"bins": [a_tenth_bytes] * 20 + half[20:], "cpu_share": 0.1}, {"cpu_share": 0.2}),
            ({"bins": half, "cpu_share": 0.1}, {"cpu_share": 0.2}),
        ],
        {
            "sent_s": [-1.0, 4.5, 5.0, 5.5],
            "delays_ms": [20.0, 23.0, 23.0, 23.0],
            "carried_bytes": [number * a_tenth_bytes for number in range(tenths + 1)],
        },
        {},
    )

    assert numbers.newcomer_share == pytest.approx(0.5)
    assert numbers.use == pytest.approx(1.0, rel=0.01)
    assert (numbers.queue_p50_ms, numbers.queue_p95_ms) == (3.0, 3.0)
    assert (numbers.cpu_sender, numbers.cpu_receiver) == (0.2, 0.1)
    assert not numbers.is_disturbed


def test_the_simulation_says_the_same_things() -> None:
    scenario = with_candidate(SCENARIOS["one"](3.0), CANDIDATES["shallow"])
    job = Job(scenario, "shallow", 1)
    numbers = simulate([job], 1)[job]

    assert 2 < numbers.goodput_megabits < 10
    assert 0.3 < numbers.use < 1.05
    assert 0 < numbers.queue_p50_ms < 60
