"""LEDBAT++ by the numbers of its draft (draft-irtf-iccrg-ledbat-plus-plus-06, section 4)."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.support import Pair
from tests.wire.test_transfer import SEGMENT
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow
from txutp.core.congestion.interface import Acknowledgement
from txutp.core.congestion.ledbatpp import TARGET_DELAY_US, gain, window_change
from txutp.core.rtt import RoundTrip
from txutp.testing import Link

BASE_US = 120_000  # with a target of 60 ms the gain is one


class Bench:
    """A controller on a path of 120 ms."""

    def __init__(self) -> None:
        self.controller = LedbatPlusPlus(segment_bytes=SEGMENT)
        self.round_trip = RoundTrip()
        self.round_trip.on_full_size(BASE_US, 0)
        self.round_trip.on_sample(BASE_US)
        self.now_us = 1_000_000

    def ack(self, delay_us: int | None, limited: bool = True) -> None:
        self.now_us += BASE_US * SEGMENT // self.controller.window_bytes
        self.controller.on_ack(
            Acknowledgement(self.now_us, SEGMENT, self.now_us - BASE_US, 0, delay_us, self.round_trip, limited)
        )

    def round(self, delay_us: int, limited: bool = True) -> float:
        """A whole round trip; gives by how many segments the window changed."""
        before = self.controller.window_bytes
        for _ in range(before // SEGMENT):
            self.ack(delay_us, limited)
        return (self.controller.window_bytes - before) / SEGMENT

    def leave_slow_start(self) -> None:
        """Grow to some 64 segments, then see three quarters of the target in the queue."""
        for _ in range(5):
            self.round(0)
        for _ in range(4):
            self.ack(TARGET_DELAY_US * 3 // 4 + 1)
        assert not self.controller.slow_start


@pytest.mark.parametrize(("base_ms", "expected"), [(5, 1 / 16), (30, 1 / 4), (60, 1 / 2), (120, 1), (500, 1)])
def test_gain_follows_the_length_of_the_path(base_ms: int, expected: float) -> None:
    """GAIN = 1 / min(16, CEIL(2 * TARGET / base))."""
    assert gain(60_000, base_ms * 1_000) == expected


def test_decrease_is_multiplicative_and_at_most_half() -> None:
    window = 100.0 * SEGMENT
    per_round_trip = window_change(100 * SEGMENT, window, SEGMENT, 72_000, 60_000, BASE_US)
    assert per_round_trip == pytest.approx(SEGMENT - 0.2 * window)
    assert window_change(100 * SEGMENT, window, SEGMENT, 600_000, 60_000, BASE_US) == -window / 2
    assert window_change(SEGMENT, window, SEGMENT, 60_000, 60_000, BASE_US) == pytest.approx(SEGMENT / 100)


def test_slow_start_ends_at_three_quarters_of_the_target() -> None:
    bench = Bench()
    assert bench.round(0) == pytest.approx(2, abs=0.5)
    bench.leave_slow_start()


def test_the_first_slowdown_comes_two_round_trips_after_slow_start() -> None:
    """Two packets for two round trips, then up again to where it was."""
    bench = Bench()
    bench.leave_slow_start()
    begun_us = bench.now_us
    before = bench.controller.window_bytes
    while bench.controller.window_bytes > 2 * SEGMENT:
        bench.ack(0)
    assert bench.now_us - begun_us == pytest.approx(2 * BASE_US, rel=0.1)
    held_us = bench.now_us
    while bench.controller.window_bytes == 2 * SEGMENT:
        bench.ack(0)
    assert bench.now_us - held_us == pytest.approx(2 * BASE_US, rel=0.6)
    while bench.controller.slow_start:
        bench.ack(TARGET_DELAY_US)  # later slow starts end at the threshold only
    assert bench.controller.window_bytes == pytest.approx(before, rel=0.05)


def test_the_next_slowdown_waits_nine_times_as_long_as_the_last_took() -> None:
    bench = Bench()
    bench.leave_slow_start()
    while not bench.controller.slow_start:
        bench.ack(0)
    begun_us = bench.now_us
    while bench.controller.slow_start:
        bench.ack(0)
    took_us = bench.now_us - begun_us
    ended_us = bench.now_us
    while not bench.controller.slow_start:
        bench.ack(TARGET_DELAY_US)
    assert bench.now_us - ended_us == pytest.approx(9 * took_us, rel=0.1)


def test_the_way_back_needs_no_delays() -> None:
    """What was sent again tells none.  After an overflow the window stayed at two packets until all was repaired."""
    bench = Bench()
    bench.leave_slow_start()
    bench.controller.on_loss(bench.now_us, SEGMENT, True)
    before = bench.controller.window_bytes
    bench.controller._slowdown_from_us = bench.now_us
    bench.ack(0)
    assert bench.controller.slow_start
    for _ in range(60):
        bench.ack(None)
    assert not bench.controller.slow_start
    assert bench.controller.window_bytes == pytest.approx(before, rel=0.05)


def test_an_answer_without_a_delay_is_no_reason_to_go_on_before_the_first_queue() -> None:
    bench = Bench()
    before = bench.controller.window_bytes
    for _ in range(10):
        bench.ack(None)
    assert bench.controller.window_bytes == before


def test_losses_halve_and_unlimited_growth_is_refused() -> None:
    bench = Bench()
    bench.leave_slow_start()
    before = bench.controller.window_bytes
    bench.controller.on_loss(bench.now_us, SEGMENT, True)
    assert bench.controller.window_bytes == before // 2
    assert bench.round(0, limited=False) == 0
    bench.controller.on_spurious(bench.now_us)
    assert bench.controller.window_bytes == before
    bench.controller.on_timeout(bench.now_us)
    assert bench.controller.window_bytes == 2 * SEGMENT


def test_on_a_link_it_fills_and_leaves_and_comes_back() -> None:
    """Windows of two packets appear in the trace, and the queue stays at the target in between."""
    link = Link(delay_us=50_000, rate_bytes_per_second=1_250_000, queue_bytes=500_000)
    pair = Pair(link, Link(delay_us=50_000), settings=Settings(congestion=LedbatPlusPlus, receive_target_delay_us=None))
    pair.client.transport.write(bytes(50_000_000))
    windows, queues = [], []
    for _ in range(1_500):
        pair.run(0.02)
        controller = pair.client.connection.sending.controller
        assert controller is not None
        windows.append(controller.window_bytes // SEGMENT)
        queues.append(link.queue_delay_us)
    assert min(windows[100:]) == 2
    assert 40_000 < sorted(queues)[1_000] < 75_000
    assert len(pair.server.received) > 0.75 * 30 * 1_250_000


# -- any order of events --

EVENTS = st.lists(
    st.tuples(st.sampled_from(["ack", "ack", "round", "loss", "timeout", "spurious"]), st.integers(0, 200_000)),
    max_size=60,
)

CUT_IN_SLOWDOWN = [("loss", 0), ("ack", 0), ("spurious", 0), ("timeout", 0), ("spurious", 0)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.sampled_from([Shallow, Ledbat, LedbatPlusPlus]), EVENTS)
@example(LedbatPlusPlus, CUT_IN_SLOWDOWN)
def test_a_window_is_a_number_after_any_events(congestion: type, events: list[tuple[str, int]]) -> None:
    """Also where a cut turns out to be for nothing in the middle of something else.  LEDBAT++'s became infinite."""
    bench = Bench()
    bench.controller = controller = congestion(segment_bytes=SEGMENT)
    was_cut = False
    for event, delay_us in events:
        if event == "ack":
            bench.ack(delay_us)
        elif event == "round":
            bench.round(delay_us)
        elif event == "loss":
            controller.on_loss(bench.now_us, SEGMENT, True)
            was_cut = True
        elif event == "timeout":
            controller.on_timeout(bench.now_us)
            was_cut = True
        elif was_cut:
            controller.on_spurious(bench.now_us)
        assert SEGMENT / 50 <= controller.window_bytes < 1 << 40
