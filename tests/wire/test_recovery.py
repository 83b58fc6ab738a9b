"""What was given up too early: reordering is learned, needless cuts are undone, no storm follows a timeout."""

from __future__ import annotations

import pytest

from tests.support import Pair, ScriptedClient
from tests.wire.test_transfer import SEGMENT, first_unacked, lossy_sender, pattern
from txutp import Ledbat, LedbatPlusPlus, Settings
from txutp.core.flow import MAXIMUM_TAIL_PROBES
from txutp.core.packet import ST_DATA, Packet
from txutp.testing import Datagram, Link


def window(scene: object) -> int:
    return scene.server.connection.sending.controller.window_bytes  # type: ignore[attr-defined]


def test_a_cut_for_a_packet_that_was_only_late_is_undone() -> None:
    """Three later ones arrive first; then the late one does, sooner than any answer to its repetition could."""
    scene = lossy_sender()
    before = window(scene)
    scene.run(0.02)
    scene.peer.state(selective_ack=0b111)
    scene.run(0.002)
    assert window(scene) == before // 2
    (resent,) = scene.peer.take()
    assert resent.seq_nr == first_unacked(scene)
    scene.peer.ack += 4
    scene.peer.state()
    scene.run(0.002)
    assert window(scene) >= before


def test_a_cut_stands_if_only_some_of_it_was_late() -> None:
    scene = lossy_sender()
    before = window(scene)
    scene.run(0.02)
    scene.peer.state(selective_ack=0b1110)  # two are missing
    scene.run(0.002)
    assert len(scene.peer.take()) >= 1
    scene.peer.ack += 1  # the first was only late; the answer to the second comes when it can
    scene.peer.state(selective_ack=0b111)
    scene.run(0.03)
    scene.peer.ack += 4
    scene.peer.state()
    scene.run(0.002)
    assert window(scene) < 0.8 * before


def test_an_answer_in_due_time_undoes_nothing() -> None:
    scene = lossy_sender()
    before = window(scene)
    scene.run(0.02)
    scene.peer.state(selective_ack=0b111)
    scene.run(0.025)
    scene.peer.ack += 4
    scene.peer.state()
    scene.run(0.002)
    assert window(scene) < 0.8 * before


def test_on_a_path_that_reorders_time_decides() -> None:
    """After the first lesson three later arrivals are no proof any more (RFC 8985 6.2.1)."""
    scene = lossy_sender()
    scene.peer.state(selective_ack=0b1)
    scene.run(0.001)
    scene.peer.ack += 2  # the hole was filled by the original
    scene.peer.state()
    scene.run(0.001)
    assert scene.server.connection.sending.reordering_seen
    scene.peer.take()
    scene.peer.state(selective_ack=0b111)
    scene.run(0.001)
    assert scene.peer.take() == []


def test_a_reordering_path_keeps_its_rate() -> None:
    """2 % of packets come 20 ms late: hardly anything is sent twice, and the window is not cut for nothing."""
    link = Link(delay_us=20_000, rate_bytes_per_second=1_250_000, queue_bytes=150_000, reorder=0.02)
    pair = Pair(link, Link(delay_us=20_000), settings=Settings(congestion=Ledbat))
    pair.client.transport.write(pattern(3_000_000))
    assert pair.run(4, until=lambda: len(pair.server.received) == 3_000_000)
    assert bytes(pair.server.received) == pattern(3_000_000)


def test_a_silence_that_ends_does_not_set_off_a_storm() -> None:
    """Everything in flight is held up for a second: the timeout repeats one packet, and the window comes back."""
    link = Link(delay_us=10_000, rate_bytes_per_second=1_250_000)
    pair = Pair(link, Link(delay_us=10_000), settings=Settings(congestion=Ledbat))
    pair.client.transport.write(pattern(2_000_000))
    pair.run(1)
    sending = pair.client.connection.sending
    held: list[Datagram] = []

    def hold(datagram: Datagram) -> None:
        held.append(datagram)
        datagram.dropped = True

    assert sending.controller is not None
    pair.down.hook = hold
    pair.run(0.1)
    before = sending.controller.window_bytes
    outstanding = sending.outstanding
    assert outstanding > 20
    while not sending.total_timeouts:
        pair.run(0.01)
    assert sending.controller.window_bytes == SEGMENT
    pair.down.hook = None
    for datagram in held[-3:]:
        datagram.dropped = False
        pair.network.transmit(datagram)
    pair.run(0.02)
    assert sending.controller.window_bytes >= before
    assert sending.segments_resent < outstanding / 4
    pair.run(5)
    assert bytes(pair.server.received) == pattern(2_000_000)


def tail_probes(scene: ScriptedClient, seconds: float) -> list[Packet]:
    """The DATA that leaves in a while in which the peer says nothing."""
    scene.run(seconds)
    return [packet for packet in scene.peer.take() if packet.type == ST_DATA]


def test_tail_probes_repeat_with_growing_waits_and_end() -> None:
    """The wait doubles, the timeout still comes, and it counts from the first probe."""
    scene = lossy_sender(count=3)
    sending = scene.server.connection.sending
    last = first_unacked(scene) + 2
    at_us = []
    began_us = scene.network.now_us
    while not sending.total_timeouts:
        at_us += [scene.network.now_us - began_us for packet in tail_probes(scene, 0.001)]
    assert at_us[-1] == scene.network.now_us - began_us, "the last one is due to the timeout"
    probes_us = at_us[:-1]
    assert 3 <= len(probes_us) <= MAXIMUM_TAIL_PROBES
    waited_us = probes_us[0]
    for count, probe_us in enumerate(probes_us[1:], 1):
        assert probe_us - probes_us[0] == pytest.approx(waited_us << count, abs=3_000)
    assert scene.network.now_us - began_us <= at_us[0] + sending.timeout_us + 2_000
    assert last > first_unacked(scene)


def test_the_second_tail_probe_is_the_oldest_segment() -> None:
    """A peer that holds the newest behind a gap which it cannot name answers only to the oldest."""
    scene = lossy_sender(count=10)
    scene.server.connection.sending.selective_seen = True  # so the first one is the newest
    probes = tail_probes(scene, 0.3)
    assert probes[0].seq_nr == first_unacked(scene) + 9 & 0xFFFF
    assert [packet.seq_nr for packet in probes[1:]] == [first_unacked(scene)] * (len(probes) - 1)
    assert len(probes) > 1


def test_an_answer_to_a_tail_probe_counts_however_soon_it_comes() -> None:
    """On a path that has become shorter, the answer shows that all which left before the probe is lost."""
    scene = lossy_sender(count=10)
    sending = scene.server.connection.sending
    segments = tail_probes(scene, 0.3)
    assert len(segments) > 1
    scene.peer.ack += 1
    scene.peer.state()
    scene.run(0.000001)
    (run,) = sending.runs
    assert sending.lost_segments + (run.resent & ~run.acked).bit_count() == 9


def test_a_tail_probe_does_not_count_as_a_cut_of_the_window() -> None:
    """A tail probe whose original was only slow changes neither window nor what is known of reordering."""
    scene = lossy_sender(count=3)
    before = window(scene)
    probes = tail_probes(scene, 0.2)
    assert 1 <= len(probes) < MAXIMUM_TAIL_PROBES
    scene.peer.ack += 3
    scene.peer.state()
    scene.run(0.001)
    assert window(scene) >= before
    assert scene.server.connection.sending.spurious_segments == 0


@pytest.mark.parametrize("controller", [Ledbat, LedbatPlusPlus])
@pytest.mark.parametrize("rate", [12_000, 20_000, 40_000])
def test_tail_probes_do_not_hide_that_packets_take_longer_than_the_handshake(controller: type, rate: int) -> None:
    """On a slow link a packet takes far longer than the SYN did, and what was probed is no sample of it."""
    pair = Pair(Link(delay_us=5_000, rate_bytes_per_second=rate), settings=Settings(congestion=controller))
    pair.client.transport.write(bytes(rate * 40))
    queue_us = []
    for _ in range(30):
        pair.run(1)
        queue_us.append(pair.up.queue_delay_us)
    stats = pair.client.transport.stats()
    assert len(pair.server.received) > 0.9 * 30 * rate
    assert max(queue_us) < 1_000_000
    assert stats.segs_retrans < 10
    assert stats.rtt > 1_382 / rate * 1_000
