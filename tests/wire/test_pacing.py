"""Pacing: a window leaves spread over its round trip, in bursts no larger than a millisecond carries."""

from __future__ import annotations

from tests.support import Pair
from tests.wire.test_transfer import SEGMENT, pattern
from txutp import Ledbat, Settings, Shallow
from txutp.core.pacing import BURST_SEGMENTS, BURST_US, LATENESS_US, SECOND_US, Pacer
from txutp.core.packet import ST_DATA
from txutp.testing import Link

RATE = 1_000_000.0  # bytes per second: 700 us per segment of this test


def drained() -> Pacer:
    """A pacer that has just let a burst go."""
    pacer = Pacer()
    assert pacer.allowance_bytes(1_000_000, RATE, 700, 10_000) == 1_400
    pacer.on_sent(1_400)
    return pacer


def test_a_rested_flow_may_send_a_burst_and_no_more() -> None:
    pacer = drained()
    assert pacer.allowance_bytes(1_000_000, RATE, 700, 10_000) == 0
    assert pacer.due_us == 1_000_000 + BURST_SEGMENTS * 700


def test_the_rate_is_kept_over_time() -> None:
    pacer = drained()
    sent, now_us = 0, 1_000_000
    while now_us < 2_000_000:
        allowed = pacer.allowance_bytes(now_us, RATE, 700, 10_000)
        pacer.on_sent(allowed)
        sent += allowed
        now_us = max(pacer.due_us, now_us + 1)
    assert abs(sent - RATE) <= 2 * 1_400


def test_a_fast_path_sends_what_a_millisecond_carries() -> None:
    pacer = Pacer()
    assert pacer.allowance_bytes(1_000_000, 100 * RATE, 700, 1_000_000) == 100 * RATE * BURST_US / SECOND_US


def test_less_than_a_burst_leaves_if_it_is_all_there_is() -> None:
    pacer = drained()
    assert pacer.allowance_bytes(1_000_300, RATE, 700, 250) == 300


def test_a_late_timer_is_caught_up_but_not_a_late_day() -> None:
    pacer = drained()
    assert pacer.allowance_bytes(1_000_000, RATE, 700, 10_000) == 0
    due_us = pacer.due_us
    assert pacer.allowance_bytes(due_us + 1_500, RATE, 700, 10_000) == 1_400 + 1_500
    pacer.on_sent(2_900)
    assert pacer.allowance_bytes(due_us + 1_500, RATE, 700, 10_000) == 0
    assert pacer.allowance_bytes(due_us + SECOND_US, RATE, 700, 10_000) == 1_400 + LATENESS_US


def test_on_a_long_round_trip_half_a_window_is_caught_up() -> None:
    pacer = drained()
    assert pacer.allowance_bytes(1_000_000, RATE, 700, 10_000_000, 100_000) == 0
    assert pacer.allowance_bytes(pacer.due_us + SECOND_US, RATE, 700, 10_000_000, 100_000) == 1_400 + 40_000
    # and of a very long one no more than a tenth of a second
    pacer = drained()
    assert pacer.allowance_bytes(1_000_000, RATE, 700, 10_000_000, SECOND_US) == 0
    assert pacer.allowance_bytes(pacer.due_us + SECOND_US, RATE, 700, 10_000_000, SECOND_US) == 1_400 + 100_000


def bursts(settings: Settings) -> list[int]:
    """How many DATA packets a fresh connection on a path of 50 ms sends at once, for the first two round trips."""
    pair = Pair(Link(delay_us=50_000), settings=settings)
    up, _ = pair.record()
    begun_us = pair.network.now_us
    pair.client.transport.write(pattern(200 * SEGMENT))
    pair.run(0.2)
    moments: dict[int, int] = {}
    for datagram in up.datagrams:
        packet = datagram.packet
        if packet is not None and packet.type == ST_DATA and datagram.sent_at_us < begun_us + 200_000:
            moments[datagram.sent_at_us] = moments.get(datagram.sent_at_us, 0) + 1
    return list(moments.values())


def test_even_the_first_window_is_paced() -> None:
    """Nobody knows yet what the queues of the path hold."""
    paced = bursts(Settings(congestion=Shallow))
    assert sum(paced) > 20
    assert max(paced) <= BURST_SEGMENTS


def test_a_controller_without_a_pace_sends_what_its_window_allows() -> None:
    assert max(bursts(Settings(congestion=Ledbat))) > BURST_SEGMENTS
