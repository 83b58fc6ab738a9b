"""Many flows of a port: the queue, the share, and the courtesy of one; and that they come back when the path does."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.support import CLIENT, PORT, SERVER, Accepting
from tests.wire.test_shallow import Counting
from tests.wire.test_transfer import SEGMENT
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.congestion.crowd import LEAST_SEGMENTS, TICK_US, Crowd
from txutp.core.congestion.interface import Acknowledgement
from txutp.core.congestion.rhythm import BEAT_US, next_beat_us, rest_us
from txutp.core.congestion.steering import Steering
from txutp.core.flow import Flow
from txutp.core.rtt import RoundTrip
from txutp.core.units import SECOND_US
from txutp.testing import Link, Network

RATE = 1_250_000  # bytes per second: 10 Mbit/s
PACKET_BYTES = SEGMENT + 48
BASE_US = 50_000


class Swarm:
    """Flows of one client port over a bottleneck of 10 Mbit/s and 50 ms with a queue of 100 packets."""

    def __init__(self, flows: int, congestion: type = Shallow, seed: int = 1, **settings: int) -> None:
        self.network = Network(seed)
        self.link = Link(delay_us=BASE_US // 2, rate_bytes_per_second=RATE, queue_bytes=100 * PACKET_BYTES)
        self.back = Link(delay_us=BASE_US // 2)
        self.network.connect(CLIENT, SERVER, self.link, self.back)
        self.settings = Settings(congestion=congestion, receive_target_delay_us=None, **settings)  # type: ignore[arg-type]
        self.accepting = Accepting(Counting)
        self.connecting = Accepting(Counting)
        UTPServerEndpoint(self.network.reactor(SERVER), PORT, settings=self.settings).listen(self.accepting)
        self.add(flows)

    def add(self, flows: int) -> None:
        """So many more, within a tenth of a second."""
        for number in range(flows):
            self.network.call_at(self.network.now_us + 100_000 * number // flows, self._begin)

    def _begin(self) -> None:
        endpoint = UTPClientEndpoint(self.network.reactor(CLIENT), SERVER, PORT, settings=self.settings)
        connected = endpoint.connect(self.connecting)
        connected.addCallback(lambda stream: stream.transport.write(bytes(20_000_000)))

    def run(self, seconds: float) -> tuple[float, float, float]:
        """Let them send; returns the use of the link, Jain's index, and the median of the wait in milliseconds."""
        before = [stream.total for stream in self.accepting.made]
        waits_ms = []
        for _ in range(round(seconds * 100)):
            self.network.run(0.01)
            waits_ms.append(self.link.queue_delay_us / 1_000)
        got = [stream.total - had for stream, had in zip(self.accepting.made, before, strict=False)]
        use = sum(got) / seconds / RATE * PACKET_BYTES / SEGMENT
        fairness = sum(got) ** 2 / (len(got) * sum(each**2 for each in got)) if sum(got) else 0.0
        return use, fairness, sorted(waits_ms)[len(waits_ms) // 2]

    @property
    def windows(self) -> list[int]:
        """What the controllers have chosen, in bytes."""
        controllers = [stream.connection.sending.controller for stream in self.connecting.made]
        return [controller.window_bytes for controller in controllers if controller is not None]

    @property
    def resent_share(self) -> float:
        """Of all segments that left."""
        stats = [stream.transport.stats() for stream in self.connecting.made]
        return sum(each.segs_retrans for each in stats) / sum(each.segs_out for each in stats)


# -- on a bottleneck --


@pytest.mark.parametrize("flows", [12, 30, 50])
def test_a_swarm_keeps_a_short_queue_and_shares_evenly(flows: int) -> None:
    """With windows of a packet or more fifty flows would keep 98 ms; thirty shared as unevenly as nine to one."""
    swarm = Swarm(flows)
    swarm.run(8)
    use, fairness, wait_ms = swarm.run(6)
    assert use > 0.9
    assert fairness > 0.95
    assert wait_ms < (19 if flows < 20 else 15)
    assert swarm.resent_share < 0.01


def test_two_hundred_newcomers_do_not_storm_the_port() -> None:
    swarm = Swarm(200)
    swarm.run(6)
    use, fairness, wait_ms = swarm.run(5)
    assert use > 0.9
    assert fairness > 0.9
    assert wait_ms < 25
    assert swarm.resent_share < 0.03


def test_newcomers_get_their_share_of_a_full_link() -> None:
    swarm = Swarm(20)
    swarm.run(6)
    swarm.add(20)
    swarm.run(8)
    use, fairness, wait_ms = swarm.run(4)
    assert use > 0.9
    assert fairness > 0.9
    assert wait_ms < 15


def test_ledbatpp_shares_these_rules() -> None:
    """Without them fifty flows fill the queue: 109 ms."""
    swarm = Swarm(50, LedbatPlusPlus)
    swarm.run(10)
    use, fairness, wait_ms = swarm.run(6)
    assert use > 0.9
    assert fairness > 0.9
    assert wait_ms < 85


# -- when the path goes, and comes back --


@pytest.mark.parametrize("congestion", [Shallow, LedbatPlusPlus, Ledbat])
def test_a_swarm_is_back_after_an_outage(congestion: type) -> None:
    swarm = Swarm(50, congestion)
    swarm.run(6)
    swarm.link.loss = swarm.back.loss = 1.0
    swarm.run(5)
    swarm.link.loss = swarm.back.loss = 0.0
    swarm.run(5)
    use, *_ = swarm.run(3)
    assert use > 0.85


def test_a_swarm_takes_a_link_that_others_leave() -> None:
    """With next to no window there are seconds between two answers, and growth by a few per cent would take minutes."""
    swarm = Swarm(80)
    swarm.run(6)
    for turn in range(24):  # somebody else's queue, which moves
        swarm.link.delay_us = BASE_US // 2 + (300_000, 200_000)[turn % 2]
        swarm.run(0.5)
    assert max(swarm.windows) < SEGMENT / 10
    swarm.link.delay_us = BASE_US // 2
    swarm.run(9)
    use, *_ = swarm.run(3)
    assert use > 0.85


def test_a_longer_route_is_learned_although_packets_are_rare() -> None:
    swarm = Swarm(200)
    swarm.run(6)
    swarm.link.delay_us += 40_000
    swarm.run(6)
    assert swarm.run(1)[0] < 0.7, "it looks like a queue"
    swarm.run(7)
    assert swarm.run(4)[0] > 0.8


def test_each_flow_of_a_swarm_notices_that_its_peer_is_gone() -> None:
    """The wait for the pace is no answer: timeouts are counted on."""
    swarm = Swarm(100)
    swarm.run(4)
    swarm.link.delay_us += 200_000
    swarm.run(8)
    assert max(swarm.windows) < SEGMENT / 5
    swarm.link.loss = swarm.back.loss = 1.0
    swarm.network.run(300)
    assert all(stream.lost for stream in swarm.connecting.made)


def test_what_is_lost_below_a_segment_waits_for_the_pace() -> None:
    """No new data goes before it, and its timer is that of the pace."""
    swarm = Swarm(60)
    swarm.run(5)
    swarm.link.loss = 0.5
    held = 0
    for _ in range(300):
        swarm.network.run(0.01)
        for stream in swarm.connecting.made:
            sending = stream.connection.sending
            if sending.probe_due:
                held += 1
                assert sending.is_paced
                assert sending.deadline_us > swarm.network.now_us
    assert held > 100


# -- below one packet --


class Fixed:
    """A controller that knows of crowds, with a window that a test has chosen."""

    target_delay_us = 4_000
    pacing_gain = 1.25
    window_segments = 0.25

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        self.segment_bytes = segment_bytes
        self.losses = 0

    def join(self, crowd: Crowd, now_us: int) -> None:
        pass

    @property
    def window_bytes(self) -> int:
        return int(self.window_segments * self.segment_bytes)

    def on_ack(self, ack: Acknowledgement) -> None:
        pass

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        self.losses += new_window

    def on_timeout(self, now_us: int) -> None:
        pass

    def on_spurious(self, now_us: int) -> None:
        pass


def crowd_of(flows: int, now_us: int, window_segments: float = 1.0) -> Crowd:
    crowd = Crowd()
    for _ in range(flows):
        crowd.count(now_us, round(window_segments * SEGMENT), SEGMENT)
    return crowd


def departures(window_segments: float, from_us: int, to_us: int) -> list[int]:
    """When packets leave, if one may be sent at any time."""
    controller = type("Chosen", (Fixed,), {"window_segments": window_segments})
    steering = Steering(Settings(congestion=controller), SEGMENT, crowd_of(2, from_us), from_us)
    round_trip = RoundTrip()
    round_trip.on_sample(BASE_US)
    left = []
    for now_us in range(from_us, to_us, 500):
        if steering.paced_bytes(now_us, SEGMENT, SEGMENT, round_trip):
            steering.on_sent(SEGMENT)
            left.append(now_us)
    return left


@pytest.mark.parametrize("window_segments", [0.125, 0.5, 1.5, 3.0])
def test_the_pace_keeps_a_small_window(window_segments: float) -> None:
    gaps = [later - earlier for earlier, later in pairwise(departures(window_segments, 10_000, 2_900_000))]
    assert gaps
    assert gaps == pytest.approx([BASE_US / window_segments] * len(gaps), rel=0.01, abs=1_000)


def test_no_packet_leaves_in_the_rest_and_no_burst_after_it() -> None:
    left = departures(2.0, BEAT_US - 500_000, BEAT_US + 500_000)
    rest = [at_us for at_us in left if BEAT_US < at_us < BEAT_US + rest_us(BASE_US)]
    assert len(rest) <= 1, "what was half due before"
    gaps = sorted(later - earlier for earlier, later in pairwise(left))
    assert gaps[0] > 0.9 * BASE_US / 2
    assert gaps[-1] == pytest.approx(BASE_US / 2 + rest_us(BASE_US), abs=1_000)


def test_a_flow_that_was_silent_owes_no_rest() -> None:
    controller = type("Chosen", (Fixed,), {"window_segments": 2.0})
    steering = Steering(Settings(congestion=controller), SEGMENT, crowd_of(2, 10_000), 10_000)
    round_trip = RoundTrip()
    round_trip.on_sample(BASE_US)
    assert not steering.paced_bytes(11_000, SEGMENT, SEGMENT, round_trip)
    assert steering.paced_bytes(5 * BEAT_US + 1_000, SEGMENT, SEGMENT, round_trip) == SEGMENT


def test_a_segment_of_before_leaves_again_when_segments_have_become_smaller() -> None:
    """It is larger than the whole window then.  With nothing in flight it waits for the pace, and for nothing else."""
    settings = Settings(congestion=Fixed)
    flow = Flow(1, SEGMENT, settings, crowd_of(2, 0))
    flow.begin(0)
    flow.peer_window_bytes = 1 << 20
    flow.round_trip.on_sample(BASE_US)
    flow.write(bytes(10 * SEGMENT))

    def left(from_us: int) -> int:
        """When something leaves, for the first time or again."""
        for now_us in range(from_us, from_us + 2 * SECOND_US, 1_000):
            if flow.next_resend(now_us) is not None or (not flow.lost_segments and flow.next_run(now_us, False)):
                return now_us
        raise AssertionError("nothing leaves any more")

    first_us = left(1_000)
    flow.set_datagram_bytes(SEGMENT - 100)
    assert flow.window_bytes < SEGMENT
    timeout_us = first_us + flow.timeout_us
    flow.handle_timeout(timeout_us, 0)
    assert flow.lost_segments == 1
    again_us = left(timeout_us)
    assert flow.segments_resent == 1
    assert again_us < timeout_us + 8 * BASE_US


def test_a_lone_flow_is_as_it_was() -> None:
    """Whole segments in flight, the pace of the controller, and no least window below one segment."""
    steering = Steering(Settings(congestion=Fixed), SEGMENT, Crowd(), 0)
    round_trip = RoundTrip()
    round_trip.on_sample(BASE_US)
    assert not steering.is_sparse
    assert steering.pacing_rate(round_trip) == pytest.approx(1.25 * 0.25 * SEGMENT * SECOND_US / BASE_US, rel=0.01)


# -- what a port knows --


def test_newcomers_share_the_windows_of_one() -> None:
    crowd = Crowd()
    windows = [crowd.enter(1_000, 10 * SEGMENT) for _ in range(4)]
    assert windows == pytest.approx([10 * SEGMENT / number for number in (1, 2, 3, 4)])


def test_a_newcomer_begins_with_what_the_others_have() -> None:
    crowd = crowd_of(50, TICK_US // 2, 0.8)
    assert crowd.enter(TICK_US + 1, 10 * SEGMENT) == pytest.approx(0.8 * SEGMENT, rel=0.01)
    assert crowd.least_segments == LEAST_SEGMENTS or crowd.least_segments == pytest.approx(1 / 50)


def test_large_windows_do_not_hide_small_ones() -> None:
    """A flow whose path is another one must not let all others grow as if they were alone."""
    crowd = crowd_of(9, 0, 0.5)
    crowd.count(0, 5_000 * SEGMENT, SEGMENT)
    assert crowd.mean_window_bytes < 1.5 * SEGMENT
    assert crowd.gain_share(SEGMENT) < 0.2


def test_silent_flows_are_forgotten() -> None:
    crowd = crowd_of(50, 0)
    assert crowd.flows == 50
    crowd.count(TICK_US, SEGMENT, SEGMENT)
    assert crowd.flows == 50
    crowd.count(2 * TICK_US, SEGMENT, SEGMENT)
    assert crowd.flows == 1
    assert crowd.gain_share(SEGMENT) == 1.0
    assert crowd.enter(100 * TICK_US, 10 * SEGMENT) == 10 * SEGMENT


def test_all_flows_of_a_host_make_room_at_once() -> None:
    """Whatever their round trips are: longer intervals are multiples of shorter ones."""
    beats = [next_beat_us(12_345_678, least_us) for least_us in (0, BEAT_US, BEAT_US + 1, 5 * BEAT_US)]
    assert beats == [15_000_000, 15_000_000, 18_000_000, 24_000_000]
    assert next_beat_us(15_000_000) == 18_000_000
