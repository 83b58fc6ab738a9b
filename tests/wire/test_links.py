"""The links of radio, cable and busy hosts: datagrams arrive when the model says, in order, and none appears twice."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from twisted.internet.protocol import DatagramProtocol

from benchmarks.scenarios.queues import DropTail
from tests.support import CLIENT, SERVER, Pair
from txutp.core.packet import ST_DATA, ST_STATE, Packet
from txutp.testing import HARQ, Grants, Link, Network, Outage, ThinnedAcks, Trace, Turns

PORT = 7_000


class Hearing(DatagramProtocol):
    """Writes down what comes, and when."""

    noisy = False

    def __init__(self, network: Network) -> None:
        self.heard: list[tuple[int, bytes]] = []
        self._network = network

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((self._network.now_us, datagram))


class Bench:
    """One link, and what comes out of it."""

    def __init__(self, link: Link) -> None:
        link.header_bytes = 0
        self.network = Network(1)
        self.network.connect(CLIENT, SERVER, link, Link())
        self.hearing = Hearing(self.network)
        self.network.reactor(SERVER).listenUDP(PORT, self.hearing)
        self.port = self.network.reactor(CLIENT).listenUDP(0, DatagramProtocol())

    def send_at(self, at_us: int, data: bytes = bytes(1_000)) -> None:
        self.network.call_at(at_us, lambda: self.port.write(data, (SERVER, PORT)))

    def arrivals_us(self) -> list[int]:
        self.network.run(10)
        return [at_us for at_us, _ in self.hearing.heard]


# -- traces --


def test_a_trace_lets_a_packet_leave_at_each_of_its_numbers_and_begins_anew() -> None:
    bench = Bench(Link(service=Trace.parse("# made up\n1\n1\n5\n10\n", packet_bytes=1_000)))
    for _ in range(7):
        bench.send_at(0)
    assert bench.arrivals_us() == [1_000, 1_000, 5_000, 10_000, 11_000, 11_000, 15_000]


def test_the_rest_of_an_opportunity_serves_waiting_packets_only() -> None:
    bench = Bench(Link(service=Trace([1, 2, 3, 4, 5], packet_bytes=1_000)))
    for _ in range(4):
        bench.send_at(0, bytes(500))
    bench.send_at(3_500, bytes(600))
    bench.send_at(4_500, bytes(600))  # the rest of the opportunity at 4 ms is gone
    assert bench.arrivals_us() == [1_000, 1_000, 2_000, 2_000, 4_000, 5_000]


def test_a_datagram_larger_than_an_opportunity_takes_several() -> None:
    bench = Bench(Link(service=Trace([1, 2, 3, 4, 5], packet_bytes=400)))
    bench.send_at(0)
    bench.send_at(0, bytes(600))
    assert bench.arrivals_us() == [3_000, 4_000]


@pytest.mark.parametrize("numbers", [[], [0], [2, 1], [-1, 1]])
def test_a_trace_that_cannot_be_followed_is_refused(numbers: list[int]) -> None:
    with pytest.raises(ValueError, match="trace"):
        Trace(numbers)


def test_a_made_up_trace_has_the_rate_that_was_asked_for_and_reads_back() -> None:
    trace = Trace.generate(random.Random(1), seconds=60, megabits=8, volatility=0.3)
    assert trace.megabits == pytest.approx(8, rel=0.2)
    assert Trace.parse(trace.text).opportunities_ms == trace.opportunities_ms
    paused = Trace.generate(random.Random(1), seconds=60, megabits=8, outages_per_minute=6, outage_ms=2_000)
    numbers = paused.opportunities_ms
    assert max(later - earlier for earlier, later in pairwise(numbers)) > 500
    assert trace.carried_bytes(0, 30_000_000) + trace.carried_bytes(30_000_000, 60_000_000) == pytest.approx(
        len(trace.opportunities_ms) * 1_504, rel=0.01
    )


def test_a_link_tells_how_long_its_trace_will_take_without_using_it() -> None:
    link = Link(service=Trace([1, 5, 10], packet_bytes=1_000), discipline=DropTail())
    bench = Bench(link)
    for _ in range(3):
        bench.send_at(0)
    bench.network.run(0)
    assert [bench.network.wait_us(link) for _ in range(2)] == [10_000, 10_000]
    assert bench.arrivals_us() == [1_000, 5_000, 10_000]
    assert bench.network.wait_us(link) == 0


# -- turns and grants --


def test_a_turn_carries_what_waited_when_it_began_and_no_more_than_its_most() -> None:
    turns = Turns(random.Random(1), others_us=20_000, rate_bytes_per_second=1_000_000, most_packets=3, overhead_us=0)
    bench = Bench(Link(service=turns))
    for _ in range(4):
        bench.send_at(0)
    arrivals_us = bench.arrivals_us()
    first_us = arrivals_us[0] - 1_000
    assert arrivals_us[:3] == [first_us + 1_000, first_us + 2_000, first_us + 3_000]
    assert 18_000 <= arrivals_us[3] - 1_000 - arrivals_us[2] <= 22_000


def test_a_station_with_much_to_send_gets_what_full_turns_carry() -> None:
    turns = Turns(random.Random(1), others_us=5_000, rate_bytes_per_second=10_000_000, most_packets=32)
    bench = Bench(Link(service=turns))
    for _ in range(3_200):
        bench.send_at(0)
    last_us = bench.arrivals_us()[-1]
    assert 3_200 * 1_000 * 8 / last_us == pytest.approx(turns.megabits(1_000), rel=0.02)


def test_a_packet_leaves_in_the_grant_that_it_asked_for() -> None:
    bench = Bench(Link(service=Grants(1_000_000, every_us=2_000, delay_us=4_000)))
    for at_us in (500, 600, 2_000, 2_100):
        bench.send_at(at_us)
    assert bench.arrivals_us() == [7_000, 8_000, 9_000, 10_000]
    bench.send_at(bench.network.now_us + 1_000)
    before_us = bench.network.now_us
    assert bench.arrivals_us()[-1] == before_us + 7_000


# -- stages --


def test_a_block_that_fails_is_late_as_a_whole_and_holds_up_what_follows() -> None:
    harq = HARQ(random.Random(3), share=0.3, repeat_us=8_000, most=2)
    bench = Bench(Link(behind=[harq]))
    sent_us = range(0, 2_000_000, 500)
    for at_us in sent_us:
        bench.send_at(at_us)
    arrivals_us = bench.arrivals_us()
    assert len(arrivals_us) == len(sent_us)
    assert arrivals_us == sorted(arrivals_us)
    late = [arrival_us - at_us for arrival_us, at_us in zip(arrivals_us, sent_us, strict=True)]
    assert max(late) == 16_000
    assert min(late) == 0
    for first, second in zip(late[::2], late[1::2], strict=True):
        assert second in (first, first - 500)  # one block


@pytest.mark.parametrize("held", [False, True])
def test_an_outage_loses_or_holds_what_comes_meanwhile(held: bool) -> None:
    bench = Bench(Link(delay_us=1_000, behind=[Outage(10_000, 20_000, held)]))
    for at_us in (9_999, 10_000, 19_999, 20_000):
        bench.send_at(at_us)
    expected = [10_999, 21_000, 21_000, 21_000] if held else [10_999, 21_000]
    assert bench.arrivals_us() == expected
    assert bench.network.link(CLIENT, SERVER).dropped == (0 if held else 2)


def test_stages_follow_each_other() -> None:
    bench = Bench(Link(behind=[Outage(0, 1_500, held=True), Outage(1_000, 4_000, held=True)], gate_us=3_000))
    bench.send_at(0)
    assert bench.arrivals_us() == [6_000]


def test_of_the_acks_that_came_meanwhile_only_the_newest_of_each_flow_passes() -> None:
    thinned = ThinnedAcks(10_000)
    bench = Bench(Link(behind=[thinned]))

    def packet(kind: int, connection_id: int, ack: int) -> bytes:
        return Packet(kind, connection_id, 1, 1, 1_000, 1, ack, None, b"x" if kind == ST_DATA else b"").encode()

    for at_us, each in (
        (1_000, packet(ST_STATE, 7, 1)),
        (2_000, packet(ST_DATA, 7, 1)),
        (3_000, packet(ST_STATE, 7, 2)),
        (4_000, packet(ST_STATE, 8, 1)),
        (11_000, packet(ST_STATE, 7, 3)),
        (12_000, b"something else"),
    ):
        bench.send_at(at_us, each)
    bench.network.run(1)
    assert bench.hearing.heard == [
        (10_000, packet(ST_DATA, 7, 1)),
        (10_000, packet(ST_STATE, 7, 2)),
        (10_000, packet(ST_STATE, 8, 1)),
        (20_000, packet(ST_STATE, 7, 3)),
        (20_000, b"something else"),
    ]
    assert thinned.dropped == 1


# -- coarse clocks --


def test_a_coarse_clock_shows_ticks_and_coarse_timers_ring_at_them() -> None:
    network = Network(1)
    reactor = network.reactor(CLIENT, clock_tick_us=15_625, timer_tick_us=10_000)
    rang: list[tuple[str, int]] = []
    network.run(0.02)
    assert reactor.monotonic_us() == 15_625
    reactor.callLater(0, lambda: rang.append(("at once", network.now_us)))
    reactor.callLater(0.001, lambda: rang.append(("later", network.now_us)))
    reactor.ring_at(16_000, lambda: rang.append(("alarm", reactor.monotonic_us())))
    network.run(1)
    assert rang == [("at once", 20_000), ("later", 30_000), ("alarm", 31_250)]


def test_each_host_has_ticks_of_its_own_clock() -> None:
    network = Network(1)
    reactor = network.reactor(CLIENT, clock_offset_us=3_000, timer_tick_us=10_000)
    rang: list[int] = []
    for delay_us in (1, 7_000, 7_001):
        reactor.callLater(delay_us / 1_000_000, lambda: rang.append(network.now_us))
    network.run(1)
    assert rang == [7_000, 7_000, 17_000]


# -- all of it --


@pytest.mark.parametrize(
    "link",
    [
        lambda: Link(
            25_000, service=Trace.generate(random.Random(1), 20, 8, outages_per_minute=10), queue_bytes=90_000
        ),
        lambda: Link(10_000, service=Turns(random.Random(1), 5_000, 15_000_000), queue_bytes=90_000),
        lambda: Link(10_000, service=Grants(1_250_000), queue_bytes=90_000),
        lambda: Link(10_000, rate_bytes_per_second=1_250_000, queue_bytes=90_000, behind=[HARQ(random.Random(1))]),
        lambda: Link(10_000, rate_bytes_per_second=1_250_000, behind=[Outage(100_000, 600_000)]),
        lambda: Link(10_000, rate_bytes_per_second=1_250_000, gate_us=40_000),
    ],
)
def test_a_stream_arrives_whole_over_each_of_them(link: Any) -> None:
    data = random.Random(2).randbytes(300_000)
    pair = Pair(link(), Link(10_000, behind=[ThinnedAcks(10_000)]))
    pair.client.transport.write(data)
    assert pair.run(60, until=lambda: len(pair.server.received) == len(data)), pair.network
    assert bytes(pair.server.received) == data


def test_a_link_that_remembers_is_one_way() -> None:
    for link in (Link(service=Trace([1])), Link(behind=[Outage(0, 1)])):
        with pytest.raises(ValueError, match="one way"):
            Network().connect(CLIENT, SERVER, link)
