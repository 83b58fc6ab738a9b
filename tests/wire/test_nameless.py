"""Peers that do not name what arrived behind a gap: npm's ``utp`` sends no selective acks, KTorrent sends empty ones.

Losses are found by their duplicate and partial acks (RFC 5681, RFC 6582), and cost about what they cost elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from statistics import mean

import pytest

from tests.support import Pair, ScriptedClient
from tests.wire.test_transfer import SEGMENT, first_unacked, lossy_sender, pattern
from txutp import Ledbat, Settings, Shallow
from txutp.core.flow import Flow
from txutp.core.packet import HEADER_BYTES, NO_EXTENSION, SELECTIVE_ACK, ST_DATA, ST_STATE
from txutp.testing import Datagram, Link

# The round trip of `lossy_sender`.
ROUND_TRIP = 0.02


def flow_of(scene: ScriptedClient) -> Flow:
    return scene.server.connection.sending


def duplicate(scene: ScriptedClient, count: int = 1) -> None:
    """The peer gets so many packets behind a gap, and says only that."""
    for _ in range(count):
        scene.peer.state()
        scene.run(0.0001)


def acknowledge(scene: ScriptedClient, count: int) -> None:
    """The peer's ack goes so much further."""
    scene.peer.ack += count
    scene.peer.state()
    scene.run(0.0001)


def resent(scene: ScriptedClient) -> list[int]:
    """What has left since the last look, counted from the first packet that the peer misses."""
    return [packet.seq_nr - first_unacked(scene) & 0xFFFF for packet in scene.peer.take() if packet.type == ST_DATA]


# -- packet by packet --


def test_each_partial_ack_brings_the_next_lost_packet_back() -> None:
    """Of twenty packets two are lost; the first is found by duplicate acks, the other without any, and none by time."""
    scene = lossy_sender(count=20)
    scene.run(ROUND_TRIP)
    duplicate(scene, 18)
    assert resent(scene) == [0]
    scene.run(ROUND_TRIP)
    acknowledge(scene, 5)
    assert resent(scene) == [0]
    scene.run(ROUND_TRIP)
    acknowledge(scene, 15)
    assert flow_of(scene).outstanding == 0
    assert flow_of(scene).total_timeouts == 0
    assert flow_of(scene).segments_resent == 2


def test_segments_that_must_be_lost_are_retransmitted_at_once() -> None:
    """Of twenty packets four arrived, and all acks have come: most of what is sent again is lost."""
    scene = lossy_sender(count=20)
    scene.run(2 * ROUND_TRIP)
    duplicate(scene, 3)
    assert resent(scene) == [0]
    duplicate(scene)
    again = resent(scene)
    assert again == list(range(1, len(again) + 1))
    assert len(again) > 5


def test_a_partial_ack_of_a_packet_that_was_only_late_brings_nothing_back() -> None:
    """The answer comes sooner than one to the repetition could, so it is none: the rest is still on its way."""
    scene = lossy_sender()
    scene.run(ROUND_TRIP)
    duplicate(scene, 3)
    assert resent(scene) == [0]
    scene.run(0.002)
    acknowledge(scene, 4)
    assert resent(scene) == []
    assert flow_of(scene).reordering_seen


def test_where_packets_overtake_duplicate_acks_count_after_a_while() -> None:
    """A quarter of the shortest round trip (RFC 8985 6.2), and not for ever."""
    scene = lossy_sender(count=20)
    scene.run(ROUND_TRIP)
    duplicate(scene, 3)
    scene.run(0.002)
    acknowledge(scene, 4)
    assert flow_of(scene).reordering_seen
    scene.run(0.002)
    scene.peer.take()
    duplicate(scene, 5)
    assert resent(scene) == []
    scene.run(ROUND_TRIP / 2)
    duplicate(scene)
    assert resent(scene) == [0]


def test_a_peer_that_names_what_it_has_shows_no_gap_by_acks_alone() -> None:
    """It would have named what came behind the gap, so its ack is for something that came twice (RFC 6675 2)."""
    scene = lossy_sender(count=20)
    scene.run(ROUND_TRIP)
    scene.peer.state(selective_ack=0b1)
    scene.run(0.0001)
    acknowledge(scene, 2)
    scene.run(0.002)
    scene.peer.take()
    duplicate(scene, 10)
    scene.run(ROUND_TRIP / 2)
    duplicate(scene, 10)
    assert resent(scene) == []


@pytest.mark.parametrize("selective", [False, True], ids=["names nothing", "has named some"])
def test_the_tail_is_probed_with_a_packet_that_tells_most(selective: bool) -> None:
    """A peer that names what it has is asked with the last packet, another one with the first."""
    scene = lossy_sender()
    if selective:
        scene.run(ROUND_TRIP)
        scene.peer.state(selective_ack=0b1)
        scene.run(0.0001)
    scene.peer.take()
    assert scene.run(0.3, until=lambda: bool(scene.peer.datagrams))
    assert resent(scene) == [9 if selective else 0]


def test_a_retransmission_that_is_lost_goes_again_without_a_timeout() -> None:
    """Packets that left later arrive, and an answer to the retransmission would have been here."""
    scene = lossy_sender(count=20)
    scene.run(ROUND_TRIP)
    duplicate(scene, 3)
    assert resent(scene) == [0]
    duplicate(scene, 3)
    assert resent(scene) == []
    scene.run(0.028)
    duplicate(scene)
    assert 0 in resent(scene)
    assert flow_of(scene).total_timeouts == 0


def test_duplicate_acks_let_new_data_leave() -> None:
    """One packet has left the network for each of them (RFC 3042, RFC 5681 3.2)."""
    scene = lossy_sender()
    flow = flow_of(scene)
    while True:  # fill the window
        scene.push(pattern(flow.window_bytes))
        if flow.window_bytes - flow.flight_bytes < SEGMENT:
            break
    for _ in range(2):
        duplicate(scene)
        left = resent(scene)
        assert 1 <= len(left) <= 2, "in slow start the window grows besides"
        assert left[-1] == flow.outstanding - 1


def test_an_ack_that_fills_a_gap_is_no_round_trip() -> None:
    """Nobody knows when the packets behind the gap arrived (Karn's rule, for all that the ack covers)."""
    scene = lossy_sender()
    round_trip = flow_of(scene).round_trip
    before = round_trip.smoothed_us, round_trip.variation_us
    scene.run(ROUND_TRIP)
    duplicate(scene, 9)
    scene.run(0.2)
    acknowledge(scene, 10)
    assert (round_trip.smoothed_us, round_trip.variation_us) == before


def test_after_the_gap_round_trips_are_measured_again() -> None:
    scene = lossy_sender()
    scene.run(ROUND_TRIP)
    duplicate(scene, 9)
    acknowledge(scene, 10)
    round_trip = flow_of(scene).round_trip
    before = round_trip.smoothed_us
    scene.push(pattern(SEGMENT))
    scene.run(0.03)
    acknowledge(scene, 1)
    assert round_trip.smoothed_us > before


def test_no_number_of_duplicate_acks_counts_for_more_than_is_in_flight() -> None:
    """A peer may send as many as it likes: of what is in flight the first is missing, so all others is the most."""
    scene = lossy_sender()
    flow = flow_of(scene)
    window_bytes = flow.window_bytes
    scene.run(ROUND_TRIP)
    for _ in range(200):
        duplicate(scene)
        assert flow.nameless_segments < flow.outstanding
        assert 0 <= flow.pipe_bytes <= flow.flight_bytes
    assert flow.window_bytes <= window_bytes + 10 * SEGMENT
    assert flow.bytes_resent <= 10 * SEGMENT


def test_the_first_name_ends_the_guessing() -> None:
    """A peer whose first duplicate ack was lost, or empty, and that names what it has after all."""
    scene = lossy_sender()
    flow = flow_of(scene)
    scene.run(ROUND_TRIP)
    duplicate(scene, 2)
    assert flow.nameless_segments == 2
    scene.peer.state(selective_ack=0b1111)
    scene.run(0.0001)
    assert resent(scene) == [0]
    assert flow.nameless_segments == 0
    assert flow.pipe_bytes == flow.flight_bytes


def test_a_window_that_shrinks_tells_what_an_ack_for_several_packets_does_not() -> None:
    """The peer acknowledges four packets at once that came behind a gap, and has less room by so much."""
    scene = lossy_sender()
    scene.run(ROUND_TRIP)
    scene.peer.window -= 4 * SEGMENT
    duplicate(scene)
    assert flow_of(scene).nameless_segments == 4


# -- over a network --


TOTAL_BYTES = 1_000_000
SEEDS = range(8)


def without_names(datagram: Datagram) -> None:
    """Take the selective ack out of a STATE."""
    if datagram.data[0] == ST_STATE << 4 | 1 and datagram.data[1] != NO_EXTENSION:
        datagram.data = datagram.data[:1] + bytes((NO_EXTENSION,)) + datagram.data[2:HEADER_BYTES]


def with_empty_ones(datagram: Datagram) -> None:
    """Each STATE has a selective ack without a single byte, as KTorrent's."""
    if datagram.data[0] == ST_STATE << 4 | 1:
        datagram.data = datagram.data[:1] + bytes((SELECTIVE_ACK,)) + datagram.data[2:HEADER_BYTES] + b"\0\0"


def as_npm_utp(datagram: Datagram) -> None:
    """No selective ack, always the same window, and no time."""
    without_names(datagram)
    data = datagram.data
    datagram.data = data[:8] + bytes(4) + (1 << 18).to_bytes(4, "big") + data[16:]


HOOKS: dict[str, Callable[[Datagram], None] | None] = {
    "names": None,
    "none": without_names,
    "empty": with_empty_ones,
    "npm utp": as_npm_utp,
}


@cache
def upload(
    peer: str, loss: float, reorder: float, seed: int, megabits: float = 0.0, congestion: type = Shallow
) -> tuple[float, int]:
    """1 MB over a path of 25 ms; returns the seconds that it took, and how many packets left again."""
    link = Link(
        delay_us=25_000,
        loss=loss,
        reorder=reorder,
        rate_bytes_per_second=megabits * 125_000,
        queue_bytes=90_000 if megabits else None,
    )
    back = Link(delay_us=25_000, loss=loss, reorder=reorder)
    pair = Pair(link, back, seed=seed, settings=Settings(congestion=congestion))
    pair.down.hook = HOOKS[peer]
    began_us = pair.network.now_us
    data = pattern(TOTAL_BYTES)
    pair.client.transport.write(data)  # type: ignore[union-attr]
    assert pair.run(60, until=lambda: len(pair.server.received) == TOTAL_BYTES), pair.network
    assert bytes(pair.server.received) == data
    assert not pair.client.lost
    return (pair.network.now_us - began_us) / 1_000_000, pair.client.connection.sending.segments_resent


@pytest.mark.parametrize("congestion", [Shallow, Ledbat])
@pytest.mark.parametrize("reorder", [0.0, 0.02])
@pytest.mark.parametrize("peer", ["none", "empty"])
def test_losses_cost_at_most_a_third_more_than_with_names(peer: str, reorder: float, congestion: type) -> None:
    named = mean(upload("names", 0.03, reorder, seed, 0.0, congestion)[0] for seed in SEEDS)
    nameless = mean(upload(peer, 0.03, reorder, seed, 0.0, congestion)[0] for seed in SEEDS)
    assert nameless <= 1.3 * named


# npm's `utp` shows neither by its window nor by its clock that something arrived behind a gap, which costs more.
@pytest.mark.parametrize(("peer", "price"), [("none", 1.0), ("empty", 1.0), ("npm utp", 1.8)])
def test_on_a_path_with_a_rate_they_cost_little_more_either(peer: str, price: float) -> None:
    named = mean(upload("names", 0.03, 0.0, seed, 10)[0] for seed in SEEDS)
    nameless = mean(upload(peer, 0.03, 0.0, seed, 10)[0] for seed in SEEDS)
    assert nameless <= price * named


@pytest.mark.parametrize("reorder", [0.0, 0.02])
@pytest.mark.parametrize("peer", ["none", "empty", "npm utp"])
def test_one_loss_in_ten_ends_in_success(peer: str, reorder: float) -> None:
    for seed in SEEDS:
        seconds, _ = upload(peer, 0.1, reorder, seed)
        assert seconds < 50, "one in forty has to wait for several timeouts in a row"


@pytest.mark.parametrize("megabits", [0.0, 10.0])
@pytest.mark.parametrize("peer", ["none", "empty", "npm utp"])
def test_retransmissions_are_bounded(peer: str, megabits: float) -> None:
    """To guess costs packets; on average no more than the stream itself has, at a loss that makes it guess most."""
    assert mean(upload(peer, 0.03, 0.0, seed, megabits)[1] for seed in SEEDS) < TOTAL_BYTES / SEGMENT


@pytest.mark.parametrize("peer", ["none", "npm utp"])
def test_without_losses_nothing_is_sent_again(peer: str) -> None:
    assert upload(peer, 0.0, 0.0, 1) == (pytest.approx(upload("names", 0.0, 0.0, 1)[0], rel=0.1), 0)
