"""LEDBAT and what feeds it: delay samples, base delays, clocks, and behaviour on a bottleneck."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from twisted.internet.endpoints import clientFromString

from tests.support import CLIENT, PORT, SERVER, Accepting, Pair, ScriptedClient
from tests.wire.test_transfer import SEGMENT, lossy_sender, pattern
from txutp import Ledbat, Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.congestion.interface import Acknowledgement, Traced
from txutp.core.congestion.ledbat import GAIN_BYTES, window_change
from txutp.core.delay import SLOT_US, DelayHistory, PathDelay
from txutp.core.rtt import RoundTrip
from txutp.testing import Datagram, Link, Network

TARGET = 100_000


def steady(window_segments: int = 100) -> Ledbat:
    """A controller behind its slow start."""
    controller = Ledbat(segment_bytes=SEGMENT)
    controller._window = float(window_segments * SEGMENT)
    controller.slow_start = False
    return controller


def acked(delay_us: int | None, limited: bool = True) -> Acknowledgement:
    """One segment arrived, and its answer reports this delay."""
    return Acknowledgement(0, SEGMENT, 0, delay_us, delay_us, RoundTrip(), limited)


def one_round_trip(controller: Ledbat, delay_us: int | None, limited: bool = True) -> int:
    """Acknowledge one window in segments; gives by how much the window changed."""
    before = controller.window_bytes
    for _ in range(before // SEGMENT):
        controller.on_ack(acked(delay_us, limited))
    return controller.window_bytes - before


# -- the window --


def test_below_the_target_the_window_grows_by_the_gain() -> None:
    """RFC 6817 2.4.2 with BEP 29's gain: at most 3000 bytes per round trip outside of slow start."""
    assert one_round_trip(steady(), 0) == pytest.approx(GAIN_BYTES, rel=0.05)
    assert one_round_trip(steady(), TARGET // 2) == pytest.approx(GAIN_BYTES / 2, rel=0.05)
    assert one_round_trip(steady(), TARGET) == pytest.approx(0, abs=2)


def test_above_the_target_the_window_shrinks_by_as_much_down_to_the_floor() -> None:
    """Delay = 2 * target: about 3000 bytes less per round trip, never below two segments."""
    assert one_round_trip(steady(), 2 * TARGET) == pytest.approx(-GAIN_BYTES, rel=0.05)
    controller = steady(4)
    for _ in range(100):
        one_round_trip(controller, 50 * TARGET)
    assert controller.window_bytes == 2 * SEGMENT


def test_one_round_trip_takes_at_most_half() -> None:
    assert window_change(10_000, 10_000.0, 100 * TARGET, TARGET) == -5_000


def test_no_growth_unless_the_window_is_the_limit() -> None:
    assert one_round_trip(steady(), 0, limited=False) == 0
    assert one_round_trip(steady(), 2 * TARGET, limited=False) < 0


@pytest.mark.parametrize("size", [500, 3 * SEGMENT])
def test_an_application_that_says_little_does_not_grow_its_window(size: int) -> None:
    """A small write every few round trips, for a minute: the window stays where it was."""
    pair = Pair()
    sending = pair.client.connection.sending
    windows = set()
    for _ in range(600):
        pair.client.transport.write(bytes(size))
        pair.run(0.1)
        windows.add(sending.window_bytes)
    assert len(windows) == 1
    assert (sending.controller is None) == (size == 500), "who says next to nothing needs no steering"


def test_slow_start_doubles_and_ends_near_the_target() -> None:
    controller = Ledbat(segment_bytes=SEGMENT)
    for expected in (4, 8, 16):
        one_round_trip(controller, 0)
        assert controller.window_bytes == pytest.approx(expected * SEGMENT, rel=0.1)
    for _ in range(3):
        controller.on_ack(acked(95_000))
    assert not controller.slow_start


def test_a_loss_halves_and_a_timeout_leaves_one_segment() -> None:
    """RFC 6817 2.4.2."""
    controller = steady(100)
    controller.on_loss(0, SEGMENT, True)
    assert controller.window_bytes == 50 * SEGMENT
    controller.on_loss(0, SEGMENT, False)
    assert controller.window_bytes == 50 * SEGMENT
    controller.on_timeout(0)
    assert controller.window_bytes == SEGMENT
    assert controller.slow_start
    for _ in range(6):
        one_round_trip(controller, 0)
    assert 24 * SEGMENT <= controller.window_bytes <= 26 * SEGMENT + 6 * GAIN_BYTES


def test_many_losses_in_a_window_cut_once_and_the_next_window_cuts_again() -> None:
    """20 packets of one window are lost: one halving; a loss in the next window halves again."""
    scene = lossy_sender(count=60)
    controller = scene.server.connection.sending.controller
    assert controller is not None
    before = controller.window_bytes
    # every third of the sixty is missing, which shows one by one as the others arrive
    for last in range(3, 60):
        mask = sum(1 << number - 1 for number in range(1, last) if number % 3)
        scene.peer.state(selective_ack=mask)
        scene.run(0.0001)
    assert scene.server.connection.sending.losses > 10
    assert controller.window_bytes == before // 2

    # all is repaired, new data leaves, and some of that is lost
    first = scene.peer.ack + 1
    last = scene.server.connection.sending.next_sequence - 1
    missing = {first, *range(first + 3, last + 1, 3), last}
    while missing:
        scene.run(0.02)
        missing -= {packet.seq_nr for packet in scene.peer.take()}
        scene.peer.ack = min(missing, default=last + 1) - 1
        scene.peer.state()
        scene.run(0.0001)
    settled = controller.window_bytes
    packets = scene.push(pattern(20 * SEGMENT))
    assert len(packets) == 20
    scene.peer.state(selective_ack=0b1111)
    scene.run(0.0001)
    assert controller.window_bytes == pytest.approx(settled / 2, rel=0.1)


def test_idle_does_not_collapse_the_window() -> None:
    """Nothing outstanding: no timeout fires, and the window is what it was."""
    pair = Pair()
    pair.client.transport.write(pattern(300_000))
    pair.run(5)
    controller = pair.client.connection.sending.controller
    assert controller is not None
    before = controller.window_bytes
    assert before > 50_000
    pair.run(3_600)
    assert controller.window_bytes == before
    assert pair.client.connection.sending.total_timeouts == 0


# -- samples --


@pytest.mark.parametrize("sample", [0, 0x7FFFFFFF])
def test_no_sample_is_no_sample(sample: int) -> None:
    """timestamp_difference 0 and 0x7fffffff: no update of the window."""
    assert PathDelay().on_difference(sample, 50_000, 0) is None
    controller = steady()
    assert one_round_trip(controller, None) == 0


@pytest.mark.parametrize("start", [0xFFFFFF00, 0xFFFF0000, 0, 0x7FFFFFF0])
def test_samples_across_the_wrap_are_small_differences(start: int) -> None:
    history = DelayHistory()
    delays = [history.on_sample(start + step & 0xFFFFFFFF, step) for step in (0, 100, 50_000, 300, 0)]
    assert delays == [0, 100, 50_000, 300, 0]


def test_a_lower_sample_becomes_the_base() -> None:
    history = DelayHistory()
    history.on_sample(10_000, 0)
    assert history.on_sample(8_000, 1) == 0
    assert history.on_sample(10_000, 2) == 2_000


def test_the_base_forgets_after_its_minutes() -> None:
    """A route that became longer is believed when the minima of its past are gone (RFC 6817 BASE_HISTORY)."""
    history = DelayHistory()
    history.on_sample(1_000, 0)
    now_us = 0
    for _ in range(13):
        now_us += SLOT_US + 1
        delay_us = history.on_sample(41_000, now_us)
    assert delay_us == 0


def test_a_sample_longer_than_the_round_trip_is_clamped() -> None:
    """And one outlier of ten seconds does not collapse the window, because the smallest of three counts."""
    delay = PathDelay()
    delay.on_difference(1_000, 50_000, 0)
    assert delay.on_difference(10_001_000, 50_000, 1) == 50_000

    controller = steady()
    for _ in range(3):
        controller.on_ack(acked(1_000))
    before = controller.window_bytes
    controller.on_ack(acked(10_000_000))
    assert controller.window_bytes >= before


def test_a_falling_base_of_theirs_raises_ours() -> None:
    """Clock drift: their base falls by 10 ms, so our samples rise by as much; that is no queue."""
    delay = PathDelay()
    delay.on_reply(1_000_000, 2_000_000)
    delay.on_difference(500_000, 1_000_000, 0)
    delay.on_reply(990_000, 2_500_000)
    assert delay.on_difference(510_000, 1_000_000, 1) == 0


def test_a_large_fall_is_another_route_and_shifts_nothing() -> None:
    delay = PathDelay()
    delay.on_reply(1_000_000, 2_000_000)
    delay.on_difference(500_000, 1_000_000, 0)
    delay.on_reply(900_000, 2_500_000)
    assert delay.on_difference(510_000, 1_000_000, 1) == 10_000


@pytest.mark.parametrize("drift_ppm", [-30.0, 30.0])
def test_drifting_clocks_leave_the_throughput_alone(drift_ppm: float) -> None:
    """About 10 ms in 325 s, for twenty minutes: the link stays full, and the queue near the target."""
    link = Link(delay_us=20_000, rate_bytes_per_second=50_000, queue_bytes=100_000)
    pair = Pair(link=link, back=Link(delay_us=20_000), client_offset_us=5_000_000, client_drift_ppm=drift_ppm)

    endless(pair.connecting)
    pair.run(60)
    before = len(pair.server.received)
    queues = []
    for _ in range(19 * 6):
        pair.run(10)
        queues.append(pair.up.queue_delay_us)
    rate = (len(pair.server.received) - before) / (19 * 60)
    assert rate > 0.93 * 50_000
    # over twenty minutes a base of its own queue adds to what the target allows, but not without bound
    assert statistics.median(queues[:30]) < 160_000
    assert statistics.median(queues) < 400_000


# -- on a bottleneck --


def stream(network: Network, source: str, number: int) -> tuple[Accepting, Accepting]:
    """A connection from a host to the server, with classic LEDBAT."""
    accepting, connecting = Accepting(), Accepting()
    settings = Settings(congestion=Ledbat, receive_target_delay_us=None)
    UTPServerEndpoint(network.reactor("10.0.0.1"), 7_000 + number, settings=settings).listen(accepting)
    UTPClientEndpoint(network.reactor(source), "10.0.0.1", 7_000 + number, settings=settings).connect(connecting)
    network.run(1, until=lambda: bool(connecting.made and accepting.made))
    return accepting, connecting


def endless(connecting: Accepting) -> None:
    """Let a client send without end."""
    transport = connecting.made[0].transport

    class Endless:
        def resumeProducing(self) -> None:
            transport.write(bytes(20_000))

        def stopProducing(self) -> None:
            pass

    transport.registerProducer(Endless(), False)


def test_buffer_bloat() -> None:
    """A slow link with a huge queue: the queue stays near the target instead of filling."""
    network = Network(seed=1)
    link = Link(delay_us=25_000, rate_bytes_per_second=125_000, queue_bytes=500_000)
    network.connect("10.0.0.2", "10.0.0.1", link, Link(delay_us=25_000))
    accepting, connecting = stream(network, "10.0.0.2", 0)
    endless(connecting)
    network.run(30)
    queues = []
    before = len(accepting.made[0].received)
    for _ in range(300):
        network.run(0.1)
        queues.append(link.queue_delay_us)
    assert 60_000 < statistics.median(queues) < 140_000
    assert len(accepting.made[0].received) - before > 0.95 * 125_000 * 30 * 1382 / 1430
    assert link.dropped < 20


def test_two_flows_share() -> None:
    """Two flows that know the empty path: Jain's index of their rates on one bottleneck is at least 0.9.

    A late-comer takes the queue of the first for the empty path, and classic LEDBAT then starves the earlier one
    (Rossi et al., GLOBECOM 2010); that is no part of this promise.
    """
    network = Network(seed=2)
    link = Link(delay_us=25_000, rate_bytes_per_second=250_000, queue_bytes=40_000)
    network.connect("10.0.0.2", "10.0.0.1", link, Link(delay_us=25_000))
    pairs = [stream(network, "10.0.0.2", number) for number in range(2)]
    for _, connecting in pairs:
        connecting.made[0].transport.write(bytes(20 * SEGMENT))
        network.run(2)
    for _, connecting in pairs:
        endless(connecting)
    flows = [accepting for accepting, _ in pairs]
    network.run(20)
    before = [len(flow.made[0].received) for flow in flows]
    network.run(60)
    rates = [len(flow.made[0].received) - start for flow, start in zip(flows, before, strict=True)]
    jain = sum(rates) ** 2 / (2 * sum(rate * rate for rate in rates))
    assert jain >= 0.9, rates


def test_a_traced_controller_reports_and_behaves_the_same() -> None:
    """Tracing is a wrapper, so that the untraced path has no branch for it."""
    events: list[tuple[int, str, int, int | None]] = []

    def traced(*, segment_bytes: int, target_delay_us: int | None) -> Traced:
        controller = Ledbat(segment_bytes=segment_bytes, target_delay_us=target_delay_us)
        return Traced(controller, lambda *event: events.append(event))

    lost: list[Datagram] = []

    def lose_one(datagram: Datagram) -> None:
        if len(datagram.data) > 1_000:
            lost.append(datagram)
            datagram.dropped = len(lost) == 40

    pair = Pair(settings=Settings(congestion=traced, target_delay_us=50_000, receive_target_delay_us=None))
    pair.up.hook = lose_one
    pair.client.transport.write(pattern(300_000))
    pair.run(10)
    assert bytes(pair.server.received) == pattern(300_000)
    assert {event[1] for event in events} == {"ack", "loss"}
    connection = pair.client.connection
    assert connection.sending.controller is not None
    assert connection.sending.controller.target_delay_us == 50_000
    assert events[-1][2] == connection.sending.controller.window_bytes


ONE_FILE = '''
class Constant:
    """Twenty packets, whatever happens."""

    pacing_gain = 0.0
    target_delay_us = 0

    def __init__(self, *, segment_bytes, target_delay_us=None):
        self.segment_bytes = segment_bytes

    @property
    def window_bytes(self):
        return 20 * self.segment_bytes

    def on_ack(self, ack):
        pass

    def on_loss(self, now_us, lost_bytes, new_window):
        pass

    def on_timeout(self, now_us):
        pass

    def on_spurious(self, now_us):
        pass
'''


def test_a_controller_of_your_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A string names it, and a connection runs with it: 20 packets in each round trip of 100 ms."""
    (tmp_path / "constant_window.py").write_text(ONE_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    network = Network(seed=1)
    network.connect(CLIENT, SERVER, Link(delay_us=50_000))
    accepting, connecting = Accepting(), Accepting()
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(accepting)
    string = f"utp:{SERVER}:{PORT}:congestion=constant_window.Constant"
    clientFromString(network.reactor(CLIENT), string).connect(connecting)
    assert network.run(10, until=lambda: bool(accepting.made and connecting.made))

    connecting.made[0].transport.write(bytes(10_000_000))
    network.run(1)
    before = len(accepting.made[0].received)
    network.run(10)

    assert connecting.made[0].connection.sending.window_bytes == 20 * SEGMENT
    assert len(accepting.made[0].received) - before == pytest.approx(100 * 20 * SEGMENT, rel=0.05)


class Told(Ledbat):
    """Keeps what it is told of delays."""

    delays_us: list[int | None] = []

    def on_ack(self, ack: Acknowledgement) -> None:
        self.delays_us.append(ack.round_trip_delay_us)
        super().on_ack(ack)


def test_only_full_size_packets_tell_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 Mbit/s a packet of 100 bytes is 10 ms faster than a full one: it is no sample, and it moves no base."""
    monkeypatch.setattr(Told, "delays_us", [])
    link = Link(delay_us=20_000, rate_bytes_per_second=125_000)
    pair = Pair(link, Link(delay_us=20_000), settings=Settings(congestion=Told, receive_target_delay_us=None))
    pair.client.transport.write(bytes(10 * SEGMENT))
    pair.run(2)
    sending = pair.client.connection.sending
    assert sending.steering is not None
    assert None not in Told.delays_us
    bases_us = (sending.round_trip.base_us, sending.steering.delay.ours.base_us)

    Told.delays_us.clear()
    for _ in range(20):
        pair.client.transport.write(bytes(100))
        pair.run(0.2)

    assert Told.delays_us == [None] * 20
    assert sending.round_trip.minimum_us < bases_us[0] - 9_000
    assert (sending.round_trip.base_us, sending.steering.delay.ours.base_us) == bases_us


def test_the_round_trip_follows_rfc_6298() -> None:
    """Numbers that one can check by hand (RFC 6298 2.2 and 2.3)."""
    round_trip = RoundTrip()
    assert round_trip.timeout_us(500_000, 60_000_000) == 1_000_000
    round_trip.on_sample(100_000)
    assert (round_trip.smoothed_us, round_trip.variation_us) == (100_000, 50_000)
    round_trip.on_sample(200_000)
    assert (round_trip.smoothed_us, round_trip.variation_us) == (112_500, 62_500)
    assert round_trip.minimum_us == 100_000
    assert round_trip.timeout_us(300_000, 60_000_000) == 112_500 + 4 * 62_500
    assert round_trip.timeout_us(500_000, 60_000_000) == 500_000
    assert round_trip.timeout_us(500_000, 60_000_000, backoff=3) == 4_000_000
    assert round_trip.timeout_us(500_000, 60_000_000, backoff=10) == 60_000_000


def test_a_scripted_peer_that_reports_delay_shrinks_us() -> None:
    """Only what the peer reports matters: 300 ms of queue on a round trip of 500 ms."""
    scene = ScriptedClient()
    scene.peer.window = 1 << 20
    scene.server.transport.write(pattern(3_000_000))
    windows = []
    for number in range(30):
        scene.run(0.5)
        packets = scene.peer.take()
        scene.peer.ack += len(packets)
        scene.peer.state(timestamp_diff_us=1_000 if number < 4 else 301_000)
        scene.run(0.0001)
        assert scene.server.connection.sending.controller is not None
        windows.append(scene.server.connection.sending.controller.window_bytes)
    assert windows[-1] < windows[5]


def test_a_window_bounded_by_the_peer_does_not_grow() -> None:
    """The peer's window is the limit of a long transfer: ours stops growing not far above it (RFC 6817 2.4.2)."""
    pair = Pair(link=Link(delay_us=5_000), settings=Settings(receive_buffer_bytes=200_000))
    endless(pair.connecting)
    pair.run(20)
    assert pair.client.connection.sending.controller is not None
    assert 200_000 <= pair.client.connection.sending.controller.window_bytes < 500_000
