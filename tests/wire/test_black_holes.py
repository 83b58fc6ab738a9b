"""Paths that swallow large packets without a word: streams go on in parts, and no byte is lost, doubled or moved."""

from __future__ import annotations

import random

import pytest

from tests.support import PORT, SERVER, Accepting, Pair, ScriptedClient, ScriptedServer
from tests.wire.test_transfer import SEGMENT, pattern
from txutp import Settings, UTPClientEndpoint
from txutp.core.batch import Batch
from txutp.core.packet import EXTENSION_BITS, HEADER_BYTES, SELECTIVE_ACK, ST_DATA, encode_bits, encode_selective_ack
from txutp.core.parts import (
    ANSWERED_QUESTIONS,
    LOOK_AGAIN_US,
    MAXIMUM_JOINED_SEGMENTS,
    MAXIMUM_REMEMBERED_HOSTS,
    PART,
    PART_MARK,
    PARTS_WANTED,
    PARTS_WELCOME,
    REMEMBERED_US,
    SMALLEST_DATAGRAM_BYTES,
    BlackHoleSearch,
    PartJoiner,
    SmallPaths,
    encode_part,
)
from txutp.testing import Link
from txutp.udp.offload import BatchSender

ETHERNET = 1_500
USUAL = 1_402


def swallowing(mtu_bytes: int, **fields: float) -> Pair:
    """A path of 40 ms whose way to the server carries packets up to a size."""
    link = Link(delay_us=20_000, mtu_bytes=mtu_bytes, rate_bytes_per_second=1_250_000, **fields)  # type: ignore[arg-type]
    return Pair(link, Link(delay_us=20_000), interface_mtu_bytes=ETHERNET)


def transfer(pair: Pair, size: int, seconds: float = 60) -> float:
    """Send so much to the server, and see that it arrives; returns how long it took."""
    begin_us = pair.network.now_us
    before = len(pair.server.received)
    data = pattern(size)
    pair.client.transport.write(data)
    assert pair.run(seconds, until=lambda: len(pair.server.received) == before + size), pair.network
    assert pair.server.received[before:] == data
    return (pair.network.now_us - begin_us) / 1_000_000


def remembered(pair: Pair) -> int:
    return len(pair.client.transport._utp.multiplexer.small_paths)


# -- streams --


@pytest.mark.parametrize("mtu_bytes", [1_300, 1_200, 1_000, 600, 576])
@pytest.mark.parametrize("size", [1_400, 3_000, 50_000, 300_000])
def test_a_stream_whose_first_full_packets_vanish_goes_on_with_smaller_ones(mtu_bytes: int, size: int) -> None:
    pair = swallowing(mtu_bytes)
    assert transfer(pair, size) < 3
    assert not pair.client.lost
    assert pair.client.connection.sending.total_timeouts <= 2
    assert transfer(pair, size) < 1, "what is written later is cut small from the start"


@pytest.mark.parametrize("mtu_bytes", [1_400, 1_200, 600])
@pytest.mark.parametrize("size", [3_000, 500_000])
def test_a_path_that_becomes_narrow_in_mid_stream_is_noticed(mtu_bytes: int, size: int) -> None:
    pair = swallowing(1 << 20)
    pair.client.transport.write(pattern(500_000))
    pair.run(0.3)
    assert 0 < len(pair.server.received) < 500_000
    pair.up.mtu_bytes = mtu_bytes
    assert pair.run(4, until=lambda: len(pair.server.received) == 500_000), pair.network
    assert pair.server.received == pattern(500_000)
    transfer(pair, size, seconds=3)


def test_the_search_finds_the_size_that_arrives_and_larger_ones_when_the_hole_is_gone() -> None:
    pair = swallowing(1_300)
    transfer(pair, 3_000_000)
    sending = pair.client.connection.sending
    assert 1_300 - 28 - 20 <= sending.segment_bytes + HEADER_BYTES <= 1_300 - 28
    pair.up.mtu_bytes = 1 << 20
    pair.run(601)
    transfer(pair, 1_000_000)
    assert sending.segment_bytes + HEADER_BYTES >= USUAL
    assert not remembered(pair)


@pytest.mark.parametrize("seed", range(6))
def test_a_path_that_changes_all_the_time_loses_and_moves_no_byte(seed: int) -> None:
    """Originals come late and twice, among their parts, in both directions."""
    chance = random.Random(seed)
    link = Link(
        delay_us=20_000,
        loss=0.02,
        reorder=0.05,
        reorder_delay_us=3_000_000,
        duplicate=0.05,
        rate_bytes_per_second=250_000,
    )
    pair = Pair(link, seed=seed, settings=Settings(maximum_timeouts=50), interface_mtu_bytes=ETHERNET)
    data = pattern(400_000)
    pair.client.transport.write(data)
    pair.server.transport.write(data)
    parts = 0

    def count(datagram: object) -> None:
        nonlocal parts
        parts += PART_MARK in datagram.data[:40]  # type: ignore[attr-defined]

    pair.up.hook = pair.down.hook = count
    for _ in range(400):
        pair.run(chance.uniform(0.1, 1.5))
        pair.up.mtu_bytes = chance.choice([576, 900, 1_300, 1 << 20])
        pair.down.mtu_bytes = chance.choice([576, 1_200, 1 << 20])
        assert data.startswith(pair.server.received)
        assert data.startswith(pair.client.received)
        if len(pair.server.received) == len(pair.client.received) == len(data):
            break
    assert pair.server.received == pair.client.received == data
    assert parts > 3


# -- what is no black hole --


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "path",
    [{"loss": 0.1}, {"loss": 0.1, "rate_bytes_per_second": 250_000}, {"rate_bytes_per_second": 125_000}],
)
def test_loss_and_congestion_are_no_black_hole(path: dict[str, float], seed: int) -> None:
    link = Link(delay_us=20_000, queue_bytes=6_000 if "loss" not in path else None, **path)  # type: ignore[arg-type]
    pair = Pair(link, seed=seed)
    transfer(pair, 300_000, seconds=300)
    assert pair.client.connection.sending.segment_bytes == SEGMENT
    assert not remembered(pair)


@pytest.mark.parametrize("outage_seconds", [0.7, 2, 5])
@pytest.mark.parametrize("both_ways", [True, False])
def test_an_outage_is_no_black_hole(outage_seconds: float, both_ways: bool) -> None:
    pair = swallowing(1 << 20)
    pair.client.transport.write(pattern(1_000_000))
    pair.run(0.3)
    pair.up.loss = 1.0
    pair.down.loss = 1.0 if both_ways else 0.0
    pair.run(outage_seconds)
    pair.up.loss = pair.down.loss = 0.0
    assert pair.run(60, until=lambda: len(pair.server.received) == 1_000_000)
    assert pair.client.connection.sending.segment_bytes >= SEGMENT
    assert not remembered(pair)


def test_a_mistake_is_mended_by_the_next_probe() -> None:
    pair = swallowing(1_300)
    transfer(pair, 50_000)
    pair.up.mtu_bytes = 1 << 20
    transfer(pair, 500_000)
    assert pair.client.connection.sending.segment_bytes >= SEGMENT
    assert not remembered(pair)


# -- other peers --


def test_a_peer_that_does_not_answer_gets_no_part() -> None:
    """Its connection ends as before, and the next one begins with small segments."""
    scene = ScriptedServer()
    scene.client.transport.write(pattern(20_000))  # type: ignore[union-attr]
    scene.run(20)
    assert scene.client.lost
    datagrams = scene.peer.datagrams
    assert not any(PART_MARK in datagram[:40] for datagram in datagrams)
    assert sum(PARTS_WANTED in datagram for datagram in datagrams) > 1

    # the client's port has gone with the connection, and what it knows has not
    scene.peer.datagrams.clear()
    again = Accepting()
    attempt = UTPClientEndpoint(scene.client_reactor, SERVER, PORT).connect(again)
    attempt.addErrback(lambda failure: None)
    scene.run(0.001)
    (syn,) = scene.peer.take()
    scene.peer.send_id, scene.peer.ack = syn.connection_id, syn.seq_nr
    scene.peer.state()
    scene.run(0.001)
    again.made[0].transport.write(pattern(20_000))  # type: ignore[union-attr]
    scene.run(0.001)
    assert max(len(datagram) for datagram in scene.peer.datagrams) == SMALLEST_DATAGRAM_BYTES


@pytest.mark.parametrize("answers", range(ANSWERED_QUESTIONS))
def test_fewer_answers_prove_nothing(answers: int) -> None:
    search = BlackHoleSearch()
    for attempt in range(answers):
        assert search.on_stuck(7, 0, attempt)
        assert not search.on_stuck(7, 0, attempt), "one attempt, one question"
        assert not search.on_answer(7, 0)
        assert not search.on_answer(7, 0), "one question, one answer"
    search.on_stuck(7, 1, 100)  # one as large arrived
    assert not search.on_answer(7, 1)
    assert not search.on_answer(8, 1)


def test_a_question_is_answered_and_draws_no_part() -> None:
    scene = ScriptedClient()
    bits = encode_selective_ack(0, EXTENSION_BITS) + encode_bits(PARTS_WANTED)
    say_state(scene, bits)
    scene.run(1)
    (answer,) = [datagram for datagram in scene.peer.datagrams if PARTS_WELCOME in datagram]
    assert len(answer) == HEADER_BYTES + len(bits)
    # an answer that nobody asked for changes nothing
    say_state(scene, encode_selective_ack(0, EXTENSION_BITS) + encode_bits(PARTS_WELCOME))
    scene.run(1)
    scene.server.transport.write(pattern(SEGMENT))  # type: ignore[union-attr]
    scene.run(0.1)
    assert max(len(datagram) for datagram in scene.peer.datagrams) == USUAL


def say_state(scene: ScriptedClient, extensions: bytes) -> None:
    peer = scene.peer
    written: list[bytes] = []
    send_bytes = peer.send_bytes
    peer.send_bytes = written.append  # type: ignore[method-assign]
    peer.state()
    peer.send_bytes = send_bytes  # type: ignore[method-assign]
    header = bytearray(written[0])
    header[1] = SELECTIVE_ACK
    peer.send_bytes(bytes(header) + extensions)


def say_part(scene: ScriptedClient, sequence: int, offset: int, total: int, payload: bytes, **fields: int) -> None:
    peer = scene.peer
    written: list[bytes] = []
    send_bytes = peer.send_bytes
    peer.send_bytes = written.append  # type: ignore[method-assign]
    peer.send(ST_DATA, seq_nr=sequence, **fields)
    peer.send_bytes = send_bytes  # type: ignore[method-assign]
    header = bytearray(written[0])
    header[1] = SELECTIVE_ACK
    bits = encode_bits(encode_part(offset, total))
    peer.send_bytes(bytes(header) + encode_selective_ack(0, EXTENSION_BITS) + bits + payload)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 2), (0, 2, 0, 1, 1)])
def test_parts_come_in_any_order_and_twice(order: tuple[int, ...]) -> None:
    scene = ScriptedClient()
    first = scene.peer.sequence
    data = pattern(1_300)
    for place in order:
        say_part(scene, first, 500 * place, 1_300, data[500 * place : 500 * place + 500])
    scene.run(0.1)
    assert scene.server.received == data
    scene.peer.data(b"behind", seq_nr=first + 1)
    scene.peer.data(data, seq_nr=first)  # the original, late
    scene.run(0.1)
    assert scene.server.received == data + b"behind"
    assert scene.peer.take()[-1].ack_nr == (first + 1) & 0xFFFF


def test_the_original_among_its_parts() -> None:
    scene = ScriptedClient()
    first = scene.peer.sequence
    data = pattern(1_300)
    say_part(scene, first, 0, 1_300, data[:500])
    scene.peer.data(data, seq_nr=first)
    say_part(scene, first, 500, 1_300, data[500:])
    scene.peer.data(b"behind", seq_nr=first + 1)
    scene.run(0.1)
    assert scene.server.received == data + b"behind"


@pytest.mark.parametrize(
    ("offset", "total", "size"),
    [(0, 0, 0), (0, 0, 10), (0, 10, 0), (5, 10, 6), (65_535, 65_535, 1), (10, 5, 1), (1, 10, 9)],
)
def test_a_part_that_cannot_be_delivers_nothing(offset: int, total: int, size: int) -> None:
    scene = ScriptedClient()
    say_part(scene, scene.peer.sequence, offset, total, bytes(size))
    scene.run(0.1)
    assert not scene.server.received
    scene.peer.data(b"goes on")
    scene.run(0.1)
    assert scene.server.received == b"goes on"


def test_a_part_with_an_impossible_ack_is_not_kept() -> None:
    scene = ScriptedClient()
    first = scene.peer.sequence
    say_part(scene, first, 0, 4, b"xx", ack_nr=scene.peer.ack + 9_000)
    say_part(scene, first, 2, 4, b"cd")
    scene.run(0.1)
    assert not scene.server.received
    say_part(scene, first, 0, 4, b"ab")
    scene.run(0.1)
    assert scene.server.received == b"abcd"


# -- bounds --


def test_few_segments_are_incomplete_at_once() -> None:
    joiner = PartJoiner()
    for sequence in range(100, 200):
        assert joiner.add(sequence, 1, encode_part(0, 2), b"a") is None
    assert len(joiner._segments) == MAXIMUM_JOINED_SEGMENTS
    # the one that comes next in order always finds a place
    assert joiner.add(1, 1, encode_part(0, 2), b"a") is None
    assert joiner.add(1, 1, encode_part(1, 2), b"b") == b"ab"
    assert joiner.add(500, 400, encode_part(0, 2), b"a") is None
    assert list(joiner._segments) == [500], "what has come otherwise is forgotten"


def test_a_segment_in_single_bytes_takes_no_memory() -> None:
    joiner = PartJoiner()
    for offset in range(0, 60_000, 2):
        assert joiner.add(1, 1, encode_part(offset, 60_000), b"a") is None
        assert len(joiner._segments[1][1]) <= 60_000 // 256 + 2


def test_hosts_are_remembered_for_a_while_and_not_too_many() -> None:
    paths = SmallPaths()
    for number in range(MAXIMUM_REMEMBERED_HOSTS + 10):
        paths.remember(str(number), SMALLEST_DATAGRAM_BYTES, number)
    assert len(paths) == MAXIMUM_REMEMBERED_HOSTS
    assert paths.find("0", 0) is None
    assert paths.find("500", 500 + REMEMBERED_US - 1) == (SMALLEST_DATAGRAM_BYTES, 500)
    paths.remember("500", SMALLEST_DATAGRAM_BYTES, 90_000)
    assert paths.find("500", 500 + REMEMBERED_US) is None, "the same again is no news"
    paths.forget("501")
    assert paths.find("501", 501) is None
    assert PART.size == len(PARTS_WANTED)


def test_the_next_connection_begins_small_and_looks_again() -> None:
    pair = swallowing(1_000)
    transfer(pair, 20_000)
    up, _ = pair.record()
    utp = pair.client.transport._utp

    def connect() -> Accepting:
        connecting = Accepting(type(pair.client))
        UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(connecting)
        assert pair.run(1, until=lambda: bool(connecting.made))
        assert connecting.made[0].transport._utp is utp, "clients share their port"  # type: ignore[union-attr]
        return connecting

    first = connect().made[0]
    up.datagrams.clear()
    first.transport.write(pattern(50_000))  # type: ignore[union-attr]
    pair.run(2)
    assert len(pair.accepting.made[1].received) == 50_000
    assert max(datagram.wire_bytes for datagram in up.datagrams) <= 1_000
    assert not first.connection.sending.total_timeouts

    pair.up.mtu_bytes = 1 << 20
    pair.run(LOOK_AGAIN_US / 1_000_000)
    second = connect().made[0]
    second.transport.write(pattern(500_000))  # type: ignore[union-attr]
    pair.run(5)
    assert len(pair.accepting.made[2].received) == 500_000
    assert second.connection.sending.segment_bytes >= SEGMENT
    assert not len(utp.multiplexer.small_paths)


class CountingSocket:
    """Counts datagrams and their control messages."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, int]] = []

    def sendmsg(self, buffers: list[bytes], ancillary: list[object], flags: int, address: object) -> None:
        self.sent.append((sum(map(len, buffers)), len(ancillary)))


@pytest.mark.parametrize(("alone", "sent"), [(False, [(30, 1)]), (True, [(10, 0)] * 3)])
def test_on_such_a_path_no_run_leaves_in_one_system_call(alone: bool, sent: list[tuple[int, int]]) -> None:
    sender = BatchSender()
    sender.offload_send = True
    sender.socket = CountingSocket()
    batch = Batch(("10.0.0.1", 1), [bytes(10)] * 3, 3, 10)
    batch.alone = alone
    assert sender.send_batch(batch) == 3
    assert sender.socket.sent == sent


def test_after_a_black_hole_was_found_each_datagram_leaves_alone() -> None:
    pair = swallowing(1_000)
    transfer(pair, 20_000)
    pair.client.transport.write(pattern(20_000))
    batch = pair.client.connection.next_batch(pair.client_reactor.monotonic_us())
    assert batch is not None
    assert batch.alone
