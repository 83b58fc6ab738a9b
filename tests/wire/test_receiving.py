"""The receive buffer: what is next in order has room, what was accepted stays, and memory is bounded."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import HalfStream, ScriptedClient
from tests.wire.test_transfer import pattern
from txutp import Settings
from txutp.core.memory import ReceiveMemory
from txutp.core.receiving import (
    DUPLICATE,
    EARLY,
    IN_ORDER,
    MANY_PIECES,
    REFUSED,
    SHORT_BYTES,
    ReceiveBuffer,
)
from txutp.core.stats import PortCounters


def buffer_of(capacity_bytes: int) -> ReceiveBuffer:
    """An empty one, in which 1 comes first."""
    buffer = ReceiveBuffer(capacity_bytes, ReceiveMemory(1 << 40, PortCounters()))
    buffer.next_sequence = 1
    return buffer


def test_the_missing_segment_has_room_whatever_waits_behind_the_gap() -> None:
    """The segments behind it are shorter, so what was kept free for one of their size does not hold it."""
    buffer = buffer_of(4_096)
    assert [buffer.insert(sequence, bytes(size)) for sequence, size in ((2, 1_382), (3, 900), (4, 500))] == [EARLY] * 3
    assert buffer.insert(1, bytes(1_382)) == IN_ORDER
    assert (buffer.next_sequence, buffer.ready_bytes, buffer.early_bytes) == (5, 4_164, 0)
    assert buffer.window_bytes == 0


def test_a_reader_that_takes_nothing_still_holds_the_peer_up() -> None:
    buffer = buffer_of(4_096)
    assert [buffer.insert(sequence, bytes(1_382)) for sequence in (1, 2, 3)] == [IN_ORDER, IN_ORDER, REFUSED]
    buffer.take(1)
    assert buffer.insert(3, bytes(1_382)) == IN_ORDER


def test_a_buffer_that_has_shrunk_below_one_segment_takes_one_at_a_time() -> None:
    buffer = buffer_of(4_096)
    assert buffer.insert(2, bytes(1_000)) == EARLY
    buffer.capacity_bytes = 500
    assert buffer.insert(1, bytes(1_382)) == IN_ORDER
    assert buffer.insert(3, bytes(1_382)) == REFUSED
    assert len(buffer.take(1 << 20)) == 2_382
    assert buffer.insert(3, bytes(1_382)) == IN_ORDER


def test_an_end_needs_no_room() -> None:
    buffer = buffer_of(4_096)
    buffer.insert(1, bytes(4_096))
    assert not buffer.would_refuse(2, 0)
    assert buffer.insert(2, b"") == IN_ORDER


def mask_of(buffer: ReceiveBuffer) -> int:
    """The selective ack, one early segment after the other."""
    return sum(1 << sequence - buffer.next_sequence - 1 for sequence in buffer.early)


class Sender:
    """Segments of one stream, and what became of each."""

    def __init__(self, sizes: list[int], capacity_bytes: int) -> None:
        self.payloads = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
        self.accepted: set[int] = set()
        self.taken = b""
        self.buffer = buffer_of(capacity_bytes)
        self.most_bytes = 0

    def send(self, index: int) -> int:
        """One segment arrives, for the first time or again."""
        buffer = self.buffer
        result = buffer.insert(index + 1, self.payloads[index])
        assert (result == DUPLICATE) == (index in self.accepted), "what was accepted is never dropped"
        if result != REFUSED:
            self.accepted.add(index)
        assert buffer.early_bytes == sum(map(len, buffer.early.values()))
        assert buffer.ready_bytes == sum(map(len, buffer.ready))
        assert buffer.selective_ack_mask() == mask_of(buffer)
        self.most_bytes = max(self.most_bytes, buffer.ready_bytes + buffer.early_bytes)
        return result

    def take(self, limit_bytes: int) -> None:
        if self.buffer.ready_bytes:
            self.taken += self.buffer.take(limit_bytes)

    def finish(self) -> None:
        """The application reads, and the peer repeats what is next in order: each such segment is accepted."""
        while self.buffer.next_sequence <= len(self.payloads):
            self.take(1 << 30)
            assert self.send(self.buffer.next_sequence - 1) == IN_ORDER
        self.take(1 << 30)
        assert self.taken == b"".join(self.payloads)
        assert self.buffer.ready_bytes == self.buffer.early_bytes == 0


SIZES = st.lists(st.one_of(st.integers(0, 30), st.just(1_382), st.integers(0, 3_000)), min_size=1, max_size=40)
ARRIVALS = st.lists(st.one_of(st.integers(0, 39), st.just("take"), st.just("sip")), max_size=80)


@settings(max_examples=300, deadline=None)
@given(SIZES, ARRIVALS, st.integers(1, 20_000))
def test_what_was_lost_is_accepted_when_it_comes_again(
    sizes: list[int], arrivals: list[int | str], capacity_bytes: int
) -> None:
    """In any order, of any size, with a reader of any appetite; and the buffer holds one segment too much at most."""
    sender = Sender(sizes, capacity_bytes)
    for arrival in arrivals:
        if isinstance(arrival, str):
            sender.take(1 << 30 if arrival == "take" else 100)
        else:
            sender.send(arrival % len(sizes))
    sender.finish()
    assert sender.most_bytes <= capacity_bytes + max(sizes)


@settings(max_examples=300, deadline=None)
@given(SIZES, ARRIVALS, st.lists(st.integers(1, 20_000), min_size=80, max_size=80))
def test_a_buffer_that_shrinks_and_grows_keeps_both_promises(
    sizes: list[int], arrivals: list[int | str], capacities: list[int]
) -> None:
    sender = Sender(sizes, capacities[0])
    for arrival, capacity_bytes in zip(arrivals, capacities, strict=False):
        sender.buffer.capacity_bytes = capacity_bytes
        if isinstance(arrival, str):
            sender.take(1 << 30 if arrival == "take" else 100)
        else:
            sender.send(arrival % len(sizes))
    sender.finish()
    assert sender.most_bytes <= max(capacities) + max(sizes)


def test_segments_behind_the_end_are_in_no_selective_ack() -> None:
    buffer = buffer_of(100_000)
    for sequence in (3, 4, 7, 9):
        buffer.insert(sequence, b"early")
    buffer.forget_behind(4)
    assert sorted(buffer.early) == [3, 4]
    assert buffer.selective_ack_mask() == mask_of(buffer) == 0b110
    buffer.forget_behind(0)
    assert buffer.selective_ack_mask() == buffer.early_bytes == 0


@pytest.mark.parametrize("size", [1, 2, 100, 1_000])
@pytest.mark.parametrize("in_runs", [True, False])
@pytest.mark.parametrize("limit_bytes", [1 << 30, 700])
def test_short_segments_take_no_more_memory_than_what_they_carry(size: int, in_runs: bool, limit_bytes: int) -> None:
    """A peer may send single bytes to an application that has paused."""
    stream = pattern(min(size * 20_000, 1_000_000))
    segments = [stream[at : at + size] for at in range(0, len(stream), size)]
    buffer = buffer_of(len(stream))
    most_pieces = 0
    for number, segment in enumerate(segments, 1):
        if in_runs:
            assert buffer.insert_run((segment,), len(segment))
        else:
            assert buffer.insert(number, segment) == IN_ORDER
        most_pieces = max(most_pieces, len(buffer.ready))
    if size <= SHORT_BYTES:
        assert most_pieces <= MANY_PIECES + len(segments) // MANY_PIECES + 1
    taken = b""
    while buffer.ready_bytes:
        taken += buffer.take(limit_bytes)
    assert taken == stream


def test_a_reader_that_sips_while_short_segments_come_gets_them_in_order() -> None:
    stream = pattern(30_000)
    buffer = buffer_of(len(stream))
    taken = b""
    for number in range(len(stream)):
        buffer.insert(number + 1, stream[number : number + 1])
        if number % 1_500 == 7:
            taken += buffer.take(300)
    while buffer.ready_bytes:
        taken += buffer.take(300)
    assert taken == stream


# -- the connection around it --


def test_a_lost_segment_closes_its_gap_although_the_window_is_used_up() -> None:
    """Its retransmission was refused before, again and again, while both sides were alive."""
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=4_096))
    first, second, third, fourth = pattern(1_382), pattern(1_382, 1), pattern(900, 2), pattern(500, 3)
    for number, data in ((2, second), (3, third), (4, fourth), (1, first)):
        scene.peer.data(data, seq_nr=5_000 + number)
        scene.run(0.01)
    assert bytes(scene.server.received) == first + second + third + fourth
    last = scene.peer.take()[-1]
    assert (last.ack_nr, last.wnd_size) == (5_004, 4_096)


def test_an_end_for_which_there_is_no_room_takes_nothing_away() -> None:
    """A FIN may carry payload.  While the reader is slow it is refused whole, and what has arrived stays."""
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=4_096), protocol=HalfStream)
    scene.server.transport.pauseProducing()
    scene.peer.data(pattern(2_000))
    scene.peer.data(pattern(800, 2), seq_nr=5_003)
    scene.peer.fin(data=pattern(2_000, 1), seq_nr=5_002)
    scene.run(0.01)
    receiving = scene.server.connection.receiving
    assert (receiving.ready_bytes, receiving.early_bytes, scene.server.connection.at_eof) == (2_000, 800, False)
    scene.server.transport.resumeProducing()
    scene.run(0.01)
    scene.peer.fin(data=pattern(2_000, 1), seq_nr=5_002)
    scene.run(0.01)
    assert bytes(scene.server.received) == pattern(2_000) + pattern(2_000, 1)
    assert scene.server.read_lost == 1
