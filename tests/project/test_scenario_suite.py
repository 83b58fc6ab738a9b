"""The scenarios of congestion control: queues, the models of TCP, measuring, and the command.

What the scenarios say of our controllers is in the tables that the command prints; here is tested whether it can be
believed.  Formulas that one can check by hand stand beside the numbers.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("click")
pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from matplotlib.image import imread
from twisted.internet.protocol import DatagramProtocol

from benchmarks.scenarios.catalogue import GROUPS, QUICK, SCENARIOS
from benchmarks.scenarios.controllers import UTP_CONTROLLERS
from benchmarks.scenarios.definitions import Change, Flow, Path, Queue, Scenario, Span
from benchmarks.scenarios.flows import TCPTransfer
from benchmarks.scenarios.graphs import _peaks, _summed_up, draw
from benchmarks.scenarios.jobs import chosen, plan
from benchmarks.scenarios.libutp import Libutp
from benchmarks.scenarios.measure import QueueSamples, fair_after_s, jain, percentile, rate_megabits, reached_s
from benchmarks.scenarios.paths import PACKET_BYTES, RECEIVER, SENDER, lay
from benchmarks.scenarios.published import MODEL, PUBLISHED
from benchmarks.scenarios.queues import RED, BurstLoss, CoDel, DropTail, FQCoDel, Policer
from benchmarks.scenarios.report import CELLS, Row
from benchmarks.scenarios.running import Numbers, run
from benchmarks.scenarios.tcp import SEGMENT_BYTES, Cubic, HyStart, Ranges, Reno
from txutp.testing import Datagram, Link, Network

ROOT = FilePath(__file__).resolve().parent.parent.parent
MILLISECOND = 1_000
SECOND = 1_000_000


def datagram(port: int = 1, size: int = 1_250) -> Datagram:
    return Datagram(("10.0.0.1", port), ("10.0.0.2", 1), bytes(size), 0, header_bytes=0)


def simulate(path: Path, *flows: Flow, seconds: float = 30, spans: tuple[Span, ...] = (), seed: int = 1) -> Numbers:
    return run(Scenario("test", "", path, flows, seconds, spans), "ledbat", seed)


class Blast(DatagramProtocol):
    """Remembers when what arrived, and sends without asking anybody."""

    noisy = False
    transport: Any

    def __init__(self, network: Network) -> None:
        self.network = network
        self.arrived: list[tuple[int, bytes]] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.arrived.append((self.network.now_us, datagram))

    def send(self, count: int, size: int = 1_250) -> None:
        for number in range(count):
            self.transport.write(number.to_bytes(4, "big") + bytes(size - 4), (RECEIVER, 1))


def blasters(link: Link, seed: int = 1) -> tuple[Network, Blast, Blast]:
    """Someone who sends into a link, and someone behind it."""
    network = Network(seed)
    network.connect(SENDER, RECEIVER, link, Link())
    sender, receiver = Blast(network), Blast(network)
    network.reactor(SENDER).listenUDP(1, sender)
    network.reactor(RECEIVER).listenUDP(1, receiver)
    return network, sender, receiver


# -- the link --


def test_a_discipline_is_asked_when_the_link_is_free() -> None:
    """1250 bytes at 10 Mbit/s take a millisecond: one is on its way, and of the nine others four fit."""
    queue = DropTail(limit_packets=4)
    network, sender, receiver = blasters(
        Link(delay_us=5_000, rate_bytes_per_second=1_250_000, discipline=queue, header_bytes=0)
    )

    sender.send(10)
    network.run(1)

    assert [at_us for at_us, _ in receiver.arrived] == [6_000, 7_000, 8_000, 9_000, 10_000]
    assert queue.dropped == network.link(SENDER, RECEIVER).dropped == 5


def test_a_new_rate_holds_for_what_waits_already() -> None:
    link = Link(rate_bytes_per_second=1_250_000, discipline=DropTail(), header_bytes=0)
    network, sender, receiver = blasters(link)

    sender.send(4)
    network.call_at(1_500, lambda: setattr(link, "rate_bytes_per_second", 125_000))
    network.run(1)

    assert [at_us for at_us, _ in receiver.arrived] == [1_000, 2_000, 12_000, 22_000]


def test_fractions_of_microseconds_count() -> None:
    """A gigabit carries 1420 bytes in 11.36 us; 11 would be three percent too fast."""
    network, sender, receiver = blasters(Link(rate_bytes_per_second=125_000_000, discipline=DropTail(), header_bytes=0))

    sender.send(1_000, 1_420)
    network.run(1)

    assert receiver.arrived[-1][0] == 11_360


def test_the_wait_is_what_a_newcomer_would_wait() -> None:
    """Ten milliseconds of packets at first; whole packets and parts of them drain alike."""
    for discipline in (None, DropTail()):
        link = Link(rate_bytes_per_second=1_250_000, discipline=discipline, header_bytes=0)
        network, sender, _ = blasters(link)

        sender.send(10)
        network.run(0)
        assert network.wait_us(link) == 10_000
        network.run(0.0035)
        assert network.wait_us(link) == 6_500
        network.run(1)
        assert network.wait_us(link) == 0


def test_queue_samples_are_on_a_grid() -> None:
    link = Link(rate_bytes_per_second=1_250_000, discipline=DropTail(), header_bytes=0)
    network, sender, _ = blasters(link)
    samples = QueueSamples(network, link, 2_000)

    sender.send(5)
    network.run(0.01)

    assert samples.milliseconds == [0.0, 3.0, 1.0, 0.0, 0.0, 0.0]
    assert samples.between(2_000, 4_000) == [3.0, 1.0]


def test_a_gate_lets_packets_arrive_together() -> None:
    link = Link(delay_us=1_000, rate_bytes_per_second=1_250_000, gate_us=4_000, discipline=DropTail(), header_bytes=0)
    network, sender, receiver = blasters(link)

    sender.send(6)
    network.run(1)

    assert [at_us for at_us, _ in receiver.arrived] == [5_000] * 4 + [9_000] * 2


@pytest.mark.parametrize("keep_order", [True, False])
def test_jitter_keeps_order_or_does_not(keep_order: bool) -> None:
    link = Link(rate_bytes_per_second=1_250_000, jitter_us=20_000, keep_order=keep_order, discipline=DropTail())
    network, sender, receiver = blasters(link)

    sender.send(100)
    network.run(1)

    numbers = [int.from_bytes(data[:4], "big") for _, data in receiver.arrived]
    assert sorted(numbers) == list(range(100))
    assert (numbers == sorted(numbers)) == keep_order


def test_a_discipline_is_for_one_way() -> None:
    with pytest.raises(ValueError, match="give a link back"):
        Network().connect(SENDER, RECEIVER, Link(discipline=DropTail()))


def test_changes_of_a_path() -> None:
    network = Network(1)
    link = lay(Path(10, 20, changes=(Change(1, megabits=4), Change(2, delay_ms=60))), network)

    assert (link.rate_bytes_per_second, link.delay_us) == (1_250_000, 20_000)
    network.run(1)
    assert (link.rate_bytes_per_second, link.delay_us) == (500_000, 20_000)
    network.run(1)
    assert (link.rate_bytes_per_second, link.delay_us) == (500_000, 60_000)


# -- disciplines --


def test_drop_tail_counts_bytes_or_packets() -> None:
    by_bytes, by_packets = DropTail(limit_bytes=3_000), DropTail(limit_packets=3)

    assert [by_bytes.enqueue(datagram(size=size), 0) for size in (1_500, 1_000, 501, 500)] == [True, True, False, True]
    assert [by_packets.enqueue(datagram(), 0) for _ in range(4)] == [True, True, True, False]
    assert (by_bytes.backlog_bytes, by_packets.backlog_bytes) == (3_000, 3_750)
    assert (by_bytes.dropped, by_packets.dropped) == (1, 1)


def red_drops(backlog_packets: int, arrivals: int = 20_000) -> float:
    """The share that RED drops while its queue stays as long as this."""
    red = RED(random.Random(1), 1_000, weight=1.0, limit_packets=1_000)
    while len(red) < backlog_packets:
        red.enqueue(datagram(), 0)
    before = red.dropped
    for _ in range(arrivals):
        if red.enqueue(datagram(), 0):
            red.dequeue(0)
    return (red.dropped - before) / arrivals


def test_red_drops_more_the_longer_the_average_is() -> None:
    """Halfway from 5 to 15 the chance is 0.05; spread evenly, 1 / 0.05 packets lie between two drops at most, so the
    share is 2 / (1 / 0.05 + 1) or a little less.  At 22 it is 0.1 + 0.9 * 7 / 15."""
    assert red_drops(4) == 0
    assert red_drops(10) == pytest.approx(0.095, abs=0.015)
    assert 0.4 < red_drops(22) < 0.8
    assert red_drops(14) > red_drops(10) > red_drops(6) > 0


def test_the_average_of_red_falls_while_the_link_is_idle() -> None:
    red = RED(random.Random(1), 1_000, weight=0.1)
    for _ in range(50):
        red.enqueue(datagram(), 0)
    busy = red.average
    while red.dequeue(0):
        pass

    red.enqueue(datagram(), 10_000)

    assert red.average == pytest.approx(busy * 0.9**11)


def test_red_forgets_while_nothing_comes_through() -> None:
    """A packet that is dropped at an empty queue does not stop the clock: senders in back-off get through again."""
    red = RED(random.Random(1), 1_000, limit_packets=1_000)
    red.average = 29.0

    passed = [red.enqueue(datagram(), second * SECOND) for second in range(4)]

    assert passed == [False, True, True, True]
    assert red.average < 5


def test_codel_keeps_a_standing_queue_at_its_target() -> None:
    """RFC 8289: 5 ms.  The same flows on drop-tail stand an order of magnitude higher."""
    flows, spans = (Flow("reno"),) * 4, (Span(5, 20),)
    with_codel = simulate(Path(queue=Queue("codel")), *flows, seconds=20, spans=spans).spans[0]
    without = simulate(Path(queue=Queue(packets=100)), *flows, seconds=20, spans=spans).spans[0]

    assert 2 < with_codel.queue_p50_ms < 10
    assert with_codel.utilisation > 0.9
    assert without.queue_p50_ms > 50


def test_codel_drops_more_and_more_often() -> None:
    """RFC 8289 5.3: after 100 ms above the target, then 100 ms / sqrt(n) after the one before: with twice what the
    link carries, in one second as many as sum(1 / sqrt(k)) <= 10 has terms, which are 33."""
    codel = CoDel(limit_packets=10_000)
    drops = []
    for now_us in range(0, 3 * SECOND, MILLISECOND):
        codel.enqueue(datagram(), now_us)
        if now_us % (2 * MILLISECOND) == 0:
            before = codel.dropped
            codel.dequeue(now_us)
            drops += [now_us] * (codel.dropped - before)

    assert 100 * MILLISECOND < drops[0] < 120 * MILLISECOND
    assert drops[1] - drops[0] == pytest.approx(100 * MILLISECOND, abs=3 * MILLISECOND)
    assert sum(at_us <= drops[0] + SECOND for at_us in drops) == pytest.approx(34, abs=2)


def test_codel_leaves_short_queues_alone() -> None:
    codel = CoDel()
    for now_us in range(0, 10 * SECOND, 5 * MILLISECOND):
        for _ in range(4):
            assert codel.enqueue(datagram(), now_us)
        for wait_us in range(4):
            assert codel.dequeue(now_us + wait_us * MILLISECOND) is not None

    assert codel.dropped == 0


def test_fair_queueing_lets_a_thin_flow_pass_a_fat_one() -> None:
    queue = FQCoDel()
    for _ in range(100):
        queue.enqueue(datagram(port=1), 0)
    for _ in range(2):
        queue.enqueue(datagram(port=2), 0)

    ports = [each.source[1] for each in (queue.dequeue(0) for _ in range(102)) if each]

    assert len(ports) == 102
    assert ports.index(2) <= 3
    assert ports[:6].count(2) == 2
    assert queue.backlog_bytes == 0
    assert queue.dequeue(0) is None


def test_fair_queueing_drops_from_the_fattest_flow() -> None:
    queue = FQCoDel(limit_packets=20)
    for _ in range(30):
        queue.enqueue(datagram(port=1), 0)
    assert queue.enqueue(datagram(port=2), 0)

    assert len(queue) == 20
    assert queue.dropped == 11
    assert queue.backlog_bytes == 20 * 1_250


def test_fair_queueing_isolates() -> None:
    """Four against one: without it each gets what it can, with it a fifth."""
    numbers = simulate(
        Path(queue=Queue("fq-codel")), Flow("reno"), *[Flow("cubic")] * 4, seconds=15, spans=(Span(5, 15),)
    )

    rates = numbers.spans[0].rates_megabits
    assert rates[0] / sum(rates) == pytest.approx(0.2, abs=0.02)


def test_a_policer_passes_its_rate_and_a_bucket() -> None:
    """Twice the rate for ten seconds: the rate passes, and one bucket."""
    policer = Policer(125_000, 10_000)
    passed = sum(policer.enqueue(datagram(), number * 5_000) for number in range(2_000))

    assert passed * 1_250 == pytest.approx(10 * 125_000 + 10_000, abs=1_250)


def test_losses_in_bursts() -> None:
    loses = BurstLoss(random.Random(1), 0.02, 5)
    lost = [loses() for _ in range(200_000)]
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))

    assert sum(lost) / len(lost) == pytest.approx(0.02, rel=0.15)
    assert sum(lost) / bursts == pytest.approx(5, rel=0.15)


# -- the models of TCP --


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=40), st.integers(0, 70))
def test_ranges_are_sets(parts: list[tuple[int, int]], below: int) -> None:
    ranges, numbers = Ranges(), set()
    for start, length in parts:
        part = set(range(start, start + length))
        new = ranges.add(start, start + length)
        assert sorted(number for low, high in new for number in range(low, high)) == sorted(part - numbers)
        numbers |= part
        low, high = ranges.around(start)
        assert low <= start < high
    ranges.forget_below(below)
    kept = [number for low, high in zip(ranges.starts, ranges.ends, strict=True) for number in range(low, high)]
    assert kept == sorted(number for number in numbers if number >= below)


def test_reno_grows_by_one_in_a_round_trip_and_halves() -> None:
    reno = Reno()
    reno.on_ack(0, 10, 0, 0, 0)
    assert reno.segments == 20
    reno.on_loss(0)
    assert reno.segments == 10
    for _ in range(10):
        reno.on_ack(0, 1, 0, 0, 0)
    assert reno.segments == pytest.approx(11, abs=0.1)
    reno.on_timeout(0)
    assert (reno.segments, reno.threshold) == (1, pytest.approx(5.5, abs=0.1))


def test_cubic_is_back_where_it_was_after_its_k() -> None:
    """RFC 9438: 0.7 times the window after a loss; K = cubic root of (0.3 * 200 / 0.4)."""
    cubic = Cubic()
    cubic.segments, cubic.threshold = 200.0, 100.0
    cubic.on_loss(0)
    assert cubic.segments == pytest.approx(140)

    middle = reached = 0.0
    k_us = round((0.3 * 200 / 0.4) ** (1 / 3) * SECOND)
    for now_us in range(1_000, k_us + 1, 1_000):
        cubic.on_ack(now_us, 1, 0, 0, 50_000)
        if now_us <= k_us / 2:
            middle = cubic.segments
        reached = cubic.segments

    assert reached == pytest.approx(200, rel=0.02)
    assert middle - 140 > 0.8 * (reached - 140)  # concave: most of it early


def test_cubic_leaves_room_when_it_could_not_come_back() -> None:
    cubic = Cubic()
    cubic.segments, cubic.threshold = 200.0, 100.0
    cubic.on_loss(0)
    cubic.on_loss(1)
    assert cubic._maximum == pytest.approx(140 * 0.85)


def test_slow_start_of_cubic_slows_down_when_round_trips_grow() -> None:
    """RFC 9406: an eighth more than in the round before, seen eight times; then a quarter as fast, five rounds long."""
    start = HyStart()
    number = grown = 0
    for round_number, round_trip_us in enumerate([50_000, 50_000, 58_000, 58_000, 58_000, 58_000, 58_000, 58_000]):
        grown = 0
        for _ in range(20):
            number += 1
            grown += start.growth(1, number, number + 20, round_trip_us) == 1
        if round_number < 2:
            assert grown == 20
    assert grown < 2
    assert start.over


def test_cubic_leaves_slow_start_before_it_loses() -> None:
    """Reno needs a loss to find the end of a queue of 500 packets."""
    path = Path(queue=Queue(packets=500))

    assert simulate(path, Flow("cubic"), seconds=4).flows[0].resent_share == 0
    assert simulate(path, Flow("reno"), seconds=4).flows[0].resent_share > 0


@pytest.mark.parametrize("kind", ["reno", "cubic"])
def test_tcp_fills_a_path_whose_queue_holds_as_much_as_the_path(kind: str) -> None:
    """44 packets are on a path of 10 Mbit/s and 50 ms: half of twice as many keeps it full."""
    numbers = simulate(Path(queue=Queue(packets=44)), Flow(kind), spans=(Span(3, 30),))

    assert numbers.spans[0].utilisation > 0.97
    assert numbers.flows[0].resent_share < 0.02
    assert numbers.spans[0].queue_p95_ms > 30


def test_reno_follows_the_law_of_the_square_root() -> None:
    """Mathis et al. 1997: sqrt(3 / 2) / sqrt(loss) segments in a round trip."""
    rates = [
        simulate(Path(50, 20, Queue(), loss=0.01), Flow("reno"), seed=seed).flows[0].goodput_megabits
        for seed in range(1, 4)
    ]

    law = math.sqrt(1.5 / 0.01) * SEGMENT_BYTES * 8 / 0.04 / SECOND
    assert sum(rates) / len(rates) == pytest.approx(law, rel=0.25)


def test_two_of_a_kind_share() -> None:
    span = (Span(10, 60),)
    numbers = simulate(Path(queue=Queue(packets=60)), Flow("reno"), Flow("reno"), seconds=60, spans=span)

    assert numbers.spans[0].jain > 0.95
    assert numbers.spans[0].utilisation > 0.98


def transfer(segments: int, *lost: int, twice: bool = False) -> TCPTransfer:
    """A transfer of which some segments are lost (once, or the same ones twice)."""
    network = Network(1)
    link = lay(Path(queue=Queue(packets=1_000)), network)
    missing = list(lost) * (2 if twice else 1)

    def hook(sent: Datagram) -> None:
        number = int.from_bytes(sent.data[1:9], "big")
        if sent.data[0] == 2 and number in missing:
            missing.remove(number)
            sent.dropped = True

    link.hook = hook
    flow = TCPTransfer(network, Flow("reno", transfer_bytes=segments * SEGMENT_BYTES), 0, lambda: None, "reno")
    flow.start()
    network.run(30)
    assert not missing
    assert flow.deliveries.total_bytes == segments * SEGMENT_BYTES
    return flow


def test_selective_acks_repair_many_losses_of_a_window_in_one_recovery() -> None:
    flow = transfer(200, *range(40, 60, 2))

    assert flow.tcp.resent == 10
    assert (flow.tcp.cuts, flow.tcp.timeouts) == (1, 0)


def test_a_lost_repair_is_repaired_without_a_timeout() -> None:
    flow = transfer(200, 40, twice=True)

    assert flow.tcp.resent == 2
    assert flow.tcp.timeouts == 0


def test_a_lost_tail_is_probed() -> None:
    flow = transfer(50, 48, 49)

    assert flow.tcp.timeouts == 0
    assert flow.deliveries.finished_us is not None
    assert flow.deliveries.finished_us < SECOND


def test_what_was_only_late_costs_little() -> None:
    """Two of a hundred arrive 20 ms late on a path of 40 ms: the window comes back, and patience grows."""
    numbers = simulate(Path(delay_ms=20, queue=Queue(packets=60), reorder=0.02), Flow("reno"), spans=(Span(5, 30),))

    assert numbers.spans[0].utilisation > 0.95
    assert numbers.flows[0].resent_share < 0.05


def test_everything_lost_is_found_by_the_timeout() -> None:
    """All of a window, and the probe too."""
    flow = transfer(30, *range(10, 30), 29)

    assert flow.tcp.timeouts >= 1


# -- measuring --


def test_percentiles_and_fairness() -> None:
    assert percentile(range(101), 50) == 50
    assert percentile(range(101), 95) == 95
    assert percentile([], 50) == 0
    assert jain([1, 1, 1, 1]) == 1
    assert jain([1, 0, 0, 0]) == 0.25


def test_rates_and_when_they_were_reached() -> None:
    """12500 bytes in a tenth of a second are 1 Mbit/s; nine tenths of it, over half a second, are reached."""
    bins = [0] * 10 + [6_250] * 10 + [12_500] * 10

    assert rate_megabits(bins, 1, 2) == 0.5
    assert rate_megabits(bins, 2, 3) == 1.0
    assert reached_s(bins, 1, 1.0) == 1.4
    assert reached_s(bins, 1, 2.0) is None


def test_fairness_has_to_hold() -> None:
    first = [1_000] * 600
    second = [0] * 100 + [1_000] * 20 + [0] * 80 + [1_000] * 400

    assert fair_after_s(first, second, 0, 60) == pytest.approx(22, abs=1)
    assert fair_after_s(first, [0] * 600, 0, 60) is None


# -- runs --


def test_the_same_seed_gives_the_same_numbers() -> None:
    path = Path(loss=0.005, queue=Queue("red"))
    flows = (Flow(), Flow("cubic", 1))
    first, again, other = (simulate(path, *flows, seconds=5, seed=seed) for seed in (1, 1, 2))

    assert asdict(first) == asdict(again)
    assert first.flows[0].bins != other.flows[0].bins


def test_a_transfer_ends_when_all_of_it_was_delivered() -> None:
    numbers = simulate(Path(queue=Queue(packets=50)), Flow(transfer_bytes=500_000))

    flow = numbers.flows[0]
    assert sum(flow.bins) == 500_000
    assert flow.finished_s == numbers.seconds < 5
    assert len(flow.bins) == int(flow.finished_s * 10) + 1
    assert flow.goodput_megabits == pytest.approx(4 / (flow.finished_s - flow.start_s))


def test_a_flow_stops_when_it_is_told_to() -> None:
    numbers = simulate(Path(), Flow(stop_s=3), Flow("reno", stop_s=3), seconds=6, spans=(Span(2, 3), Span(4, 6)))

    assert numbers.spans[0].utilisation > 0.5
    assert numbers.spans[1].utilisation == 0


def test_classic_ledbat_with_a_small_target_yields_to_reno() -> None:
    """LCN 2010: 0.99 for TCP with a target of 25 ms and a queue of a hundred packets."""
    numbers = simulate(Path(queue=Queue(packets=100)), Flow("reno"), Flow(target_ms=25), spans=(Span(5, 30),))

    assert numbers.spans[0].tcp_share is not None
    assert numbers.spans[0].tcp_share > 0.95
    assert numbers.spans[0].utilisation > 0.97


def test_classic_ledbat_alone_stands_at_its_target() -> None:
    numbers = simulate(Path(queue=Queue(packets=60)), Flow(target_ms=40), seconds=20, spans=(Span(10, 20),))

    assert numbers.spans[0].queue_p50_ms == pytest.approx(40, abs=5)
    assert numbers.spans[0].utilisation > 0.98


@pytest.mark.parametrize(
    ("name", "published_megabits"),
    [("lan", 89.2), ("broadband", 6.40), ("high-bdp", 2.10), ("shallow", 4.75), ("long", 8.82)],
)
def test_libutp_comes_out_as_published(name: str, published_megabits: float) -> None:
    """The rates of utp-go's classic controller, where no chance is in them."""
    numbers = run(SCENARIOS[f"profile-{name}"], "libutp", 1)

    assert numbers.flows[0].goodput_megabits == pytest.approx(published_megabits, rel=0.06)
    if name == "long":
        assert numbers.spans[0].queue_p50_ms == pytest.approx(32.3, rel=0.06)


def test_libutp_starves_itself_as_published() -> None:
    """COMNET 2013: the first stream falls to nothing while there is a second one, and fills the link after that."""
    together, at_last, alone = run(SCENARIOS["paper-comnet-s2b"], "libutp", 1).spans

    assert together.rates_megabits[0] / sum(together.rates_megabits) < 0.4
    assert at_last.rates_megabits[0] / sum(at_last.rates_megabits) < 0.1
    assert alone.utilisation > 0.98


def test_libutp_cuts_once_in_a_tenth_of_a_second_and_down_to_a_packet() -> None:
    controller = Libutp(segment_bytes=SEGMENT_BYTES)
    controller._window = 64.0 * SEGMENT_BYTES
    for now_us, segments in ((0, 32), (99_999, 32), (100_000, 16)):
        controller.on_loss(now_us, SEGMENT_BYTES, new_window=True)
        assert controller.window_bytes == segments * SEGMENT_BYTES
    for number in range(10):
        controller.on_loss((number + 2) * 100_000, SEGMENT_BYTES, new_window=True)
    assert controller.window_bytes == SEGMENT_BYTES
    controller.on_timeout(2_000_000)
    assert controller.window_bytes == SEGMENT_BYTES
    assert not controller.slow_start


def test_what_goes_upwards_is_not_counted_with_the_others() -> None:
    path = Path(back_megabits=2, back_queue=Queue(packets=50))
    numbers = simulate(path, Flow("reno"), Flow("reno", upwards=True), seconds=10, spans=(Span(2, 10),))

    down, up = numbers.spans[0].rates_megabits
    assert 1 < up < 2
    assert numbers.spans[0].tcp_share == 1
    assert numbers.spans[0].utilisation == pytest.approx(down / (10 * SEGMENT_BYTES / PACKET_BYTES))


# -- the catalogue and the command --


def test_the_catalogue_is_sound() -> None:
    assert set(QUICK) <= set(SCENARIOS)
    assert set(PUBLISHED) <= set(SCENARIOS)
    assert set(MODEL) <= set(SCENARIOS)
    for scenario in SCENARIOS.values():
        assert scenario.group in GROUPS
        assert scenario.cells
        assert set(scenario.cells) <= set(CELLS)
        assert scenario.controllers is None or set(scenario.controllers) <= set(UTP_CONTROLLERS)
        for span in scenario.spans:
            assert 0 <= span.from_s < span.to_s <= scenario.seconds


def test_all_have_ten_seeds_although_many_are_without_chance() -> None:
    """The moment of a start is a seed's, too, and a run may turn on it."""
    for scenario in SCENARIOS.values():
        jobs = plan([scenario], chosen(scenario, ("ledbat",)), 10, held_out=False)
        assert {job.seed for job in jobs} == set(range(1, 11))


def test_a_queue_is_told_with_its_range() -> None:
    """Over the seeds, as everything else."""
    numbers = simulate(Path(), Flow("reno"), seconds=2, spans=(Span(1, 2),))
    runs = []
    for wait_ms in (1.0, 2.0):
        (span,) = numbers.spans
        runs.append(replace(numbers, spans=[replace(span, queue_p50_ms=wait_ms, queue_p95_ms=3.0)]))
    assert Row(SCENARIOS["single-q100"], runs, {}).queue() == "queue 1.5 [1.0-2.0]/3.0"


def test_tcp_alone_is_run_once_for_all_that_compare_with_it() -> None:
    scenarios = [SCENARIOS["tcp-reno-q100-together"], replace(SCENARIOS["tcp-reno-q100-together"], name="other")]

    jobs = plan(scenarios, ("ledbat", "reno"), 2, held_out=True)

    assert sorted((job.scenario.name, job.controller, job.seed) for job in jobs) == [
        ("alone", "alone", 11),
        ("alone", "alone", 12),
        ("other", "ledbat", 11),
        ("other", "ledbat", 12),
        ("tcp-reno-q100-together", "ledbat", 11),
        ("tcp-reno-q100-together", "ledbat", 12),
    ]
    assert chosen(SCENARIOS["profile-lan"], ("ledbat", "reno")) == ["ledbat", "reno"]


def test_pictures_show_peaks_means_and_ranges() -> None:
    waits = [0.0] * 1_000 + [50.0] + [0.0] * 1_000
    times, high = _peaks(waits, 0.01)

    assert max(high) == 50
    assert times[high.index(50.0)] == pytest.approx(10, abs=0.1)
    assert len(times) < 1_000
    assert _summed_up([[1.0, 2.0, 6.0]]) == ([3.0], [[2.0], [3.0]])


def test_pictures_of_everything_that_is_drawn(tmp_path: FilePath) -> None:
    """A scenario over time, what TCP kept, and the sweep: each is a picture with ink on it."""
    runs, alone = {}, {}
    for name in ("target-30%-together", "target-80%-together", "tcp-reno-q40-together", "single-step-up"):
        short = replace(SCENARIOS[name], seconds=3, spans=(Span(1, 3),))
        runs[name, "ledbat"] = [run(short, "ledbat", seed) for seed in (1, 2)]
        if "kept" in short.cells:
            alone[name] = {seed: run(short.alone(), "alone", seed) for seed in (1, 2)}

    files = draw(tmp_path, runs, alone)

    assert {file.name for file in files} == {
        "target-30-percent-together.png",
        "target-80-percent-together.png",
        "tcp-reno-q40-together.png",
        "single-step-up.png",
        "kept.png",
        "targets.png",
    }
    for file in files:
        pixels = imread(file)
        assert pixels.shape[0] > 100
        assert 0.001 < (pixels[:, :, :3] < 0.9).any(axis=2).mean() < 0.5


def command(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; modules in the directory ``before`` hide those that are installed."""
    paths = [*filter(None, [before]), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.scenarios", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def test_the_command_prints_and_writes(tmp_path: FilePath) -> None:
    names = ["profile-shallow", "paper-deference"]
    options = [word for name in names for word in ("--only", name)]
    done = command(*options, "--controller", "ledbat", "--seeds", "1", "--jobs", "2", "--output", str(tmp_path))

    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines() if "|" in line]
    assert [row[0] for row in rows if row[0] in names] == names
    assert "**ledbat**" in rows[0]
    assert float(rows[2][rows[0].index("**ledbat**")].split(",")[0]) > 1
    assert "kept" in done.stdout
    assert (tmp_path / "tables.md").read_text().startswith("### One transfer")
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert [run["scenario"] for run in numbers["runs"]] == names
    assert [run["scenario"] for run in numbers["tcp_alone"]] == ["alone"]
    assert {file.name for file in tmp_path.glob("*.png")} == {f"{name}.png" for name in names}


def test_without_matplotlib_the_command_says_what_to_install(tmp_path: FilePath) -> None:
    (tmp_path / "matplotlib.py").write_text("raise ModuleNotFoundError('away', name='matplotlib')")
    results = tmp_path / "results"
    options = ("--only", "profile-shallow", "--controller", "ledbat", "--seeds", "1", "--output", str(results))
    done = command(*options, before=str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert 'No graphs without matplotlib. Please run: pip install ".[benchmarks]"' in done.stderr
    assert {file.name for file in results.iterdir()} == {"tables.md", "numbers.json"}


def test_the_command_says_what_it_does_not_know() -> None:
    done = command("--only", "profile-lunch")

    assert done.returncode == 2
    assert "profile-lunch" in done.stderr
