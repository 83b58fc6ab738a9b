"""What all connections of a port hold of received data: one limit, fair shares, nothing dropped, nobody stuck."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import PORT, SERVER, Accepting, Pair, ScriptedClient, ScriptedPeer, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint
from txutp.core.memory import LEAST_WINDOW_BYTES, OBJECT_BYTES, ReceiveMemory
from txutp.core.receiving import EARLY, EARLY_MAXIMUM_AHEAD, IN_ORDER, REFUSED, ReceiveBuffer
from txutp.core.stats import PortCounters

SEGMENT_BYTES = 1_382
TURN_BYTES = 512 * 1024  # more than is read in one turn


def memory_of(limit_bytes: int) -> ReceiveMemory:
    return ReceiveMemory(limit_bytes, PortCounters())


def buffer_of(memory: ReceiveMemory, capacity_bytes: int = 1 << 20) -> ReceiveBuffer:
    buffer = ReceiveBuffer(capacity_bytes, memory)
    buffer.next_sequence = 1
    return buffer


# -- one buffer --


def test_early_segments_are_charged_with_their_objects_until_they_are_taken() -> None:
    memory = memory_of(1 << 20)
    buffer = buffer_of(memory)
    for sequence in (2, 3, 5):
        assert buffer.insert(sequence, bytes(1_000)) == EARLY
    assert memory.held_bytes == 3 * (1_000 + OBJECT_BYTES)
    buffer.insert(1, bytes(1_000))
    assert memory.held_bytes == 4 * (1_000 + OBJECT_BYTES)
    assert len(buffer.take(1 << 20)) == 3_000
    assert memory.held_bytes == 1_000 + OBJECT_BYTES
    buffer.forget_behind(4)
    assert memory.held_bytes == 0


def test_data_in_order_is_charged_when_it_stays() -> None:
    memory = memory_of(1 << 20)
    buffer = buffer_of(memory)
    buffer.insert_run((bytes(1_000),) * 10, 10_000)
    assert memory.held_bytes == 0
    buffer.charge()
    buffer.charge()
    assert memory.held_bytes == 10 * (1_000 + OBJECT_BYTES)
    buffer.take(5_000)
    assert memory.held_bytes == 5 * (1_000 + OBJECT_BYTES)
    buffer.discard()
    assert memory.held_bytes == 0


def test_an_end_frees_what_waits_behind_a_gap_and_leaves_the_rest() -> None:
    memory = memory_of(1 << 20)
    buffer = buffer_of(memory)
    buffer.insert(1, b"ready")
    buffer.insert(3, b"early")
    buffer.end()
    assert (memory.held_bytes, buffer.early, buffer.selective_ack_mask()) == (0, {}, 0)
    buffer.charge()
    assert memory.held_bytes == 5 + OBJECT_BYTES
    assert buffer.take(100) == b"ready"
    assert memory.held_bytes == 0


def test_a_buffer_alone_gets_a_quarter_of_what_is_free() -> None:
    memory = memory_of(1_000_000)
    buffer = buffer_of(memory)
    sequence = 2
    while buffer.insert(sequence, bytes(SEGMENT_BYTES)) == EARLY:
        sequence += 1
    assert memory.held_bytes == pytest.approx(200_000, rel=0.05)
    assert memory.counters.segments_refused == 1
    assert 0 < buffer.window_bytes <= 2 * SEGMENT_BYTES


def test_a_crowd_and_a_newcomer_have_the_same_limit() -> None:
    """100 buffers take all that they can; what is left is free for others."""
    memory = memory_of(10_000_000)
    crowd = [buffer_of(memory) for _ in range(100)]
    for sequence in range(2, 500):
        for buffer in crowd:
            buffer.insert(sequence, bytes(SEGMENT_BYTES))
    held = [buffer.held_bytes for buffer in crowd]
    assert max(held) <= 2 * min(held)
    assert 10_000_000 - memory.held_bytes >= 4 * max(held) - 10 * SEGMENT_BYTES
    newcomer = buffer_of(memory)
    assert newcomer.window_bytes >= max(held) - 2 * SEGMENT_BYTES


def test_a_full_memory_takes_one_segment_of_each_connection() -> None:
    memory = memory_of(100_000)
    buffer_of(memory).memory.charge(200_000)
    buffer = buffer_of(memory)
    assert buffer.window_bytes == LEAST_WINDOW_BYTES
    assert not buffer.insert_run((bytes(SEGMENT_BYTES),) * 2, 2 * SEGMENT_BYTES)
    assert buffer.insert(2, b"early") == REFUSED
    assert buffer.insert(1, bytes(SEGMENT_BYTES)) == IN_ORDER
    assert buffer.window_bytes == 0
    assert buffer.insert(2, b"x") == REFUSED
    assert buffer.insert(2, b"") == IN_ORDER, "an end needs no room"
    buffer.take(1 << 20)
    assert buffer.window_bytes == LEAST_WINDOW_BYTES
    assert buffer.insert(3, bytes(SEGMENT_BYTES)) == IN_ORDER


# -- any buffers --

COUNT = 5
OPERATIONS = st.lists(
    st.tuples(
        st.integers(0, COUNT - 1),
        st.sampled_from(["segment", "segment", "segment", "run", "next", "take", "sip", "discard", "turn"]),
        st.integers(0, 30),
    ),
    max_size=120,
)


class Arriving:
    """One stream into a buffer: what was accepted, and what the reader had."""

    def __init__(self, memory: ReceiveMemory, number: int, size: int) -> None:
        self.buffer = buffer_of(memory, 40_000)
        self.payloads = [bytes([number * 40 + place]) * (size + place % 3) for place in range(40)]
        self.accepted: set[int] = set()
        self.taken = b""
        self.discarded = False

    def insert(self, place: int) -> None:
        """A segment comes, for the first time or again."""
        buffer = self.buffer
        must_fit = buffer.next_sequence == place + 1 and not buffer.ready_bytes
        result = buffer.insert(place + 1, self.payloads[place])
        if place in self.accepted:
            assert result not in (EARLY, IN_ORDER), "what was accepted is never dropped"
        elif result in (EARLY, IN_ORDER):
            self.accepted.add(place)
        assert result == IN_ORDER or not must_fit, "the next one has room when its reader has taken everything"

    def take(self, limit_bytes: int) -> None:
        if self.buffer.ready_bytes:
            self.taken += self.buffer.take(limit_bytes)

    def apply(self, what: str, place: int) -> None:
        buffer = self.buffer
        if what == "segment":
            self.insert(place)
        elif what == "next" and buffer.next_sequence <= 40:
            self.insert(buffer.next_sequence - 1)
        elif what == "run":
            first = buffer.next_sequence - 1
            payloads = self.payloads[first : first + 3]
            if payloads and buffer.insert_run(payloads, sum(map(len, payloads))):
                self.accepted |= set(range(first, first + len(payloads)))
        elif what in ("take", "sip"):
            self.take(1 << 30 if what == "take" else 100)
        elif what == "discard":
            buffer.discard()
            self.discarded = True


@settings(max_examples=200, deadline=None)
@given(OPERATIONS, st.integers(1, 40_000), st.sampled_from([1, 30, 1_382]))
def test_shares_of_any_buffers(operations: list[tuple[int, str, int]], limit_bytes: int, size: int) -> None:
    """The sum is right at the end of each turn, the limit holds, and every stream goes on to its end."""
    memory = memory_of(limit_bytes)
    streams = [Arriving(memory, number, size) for number in range(COUNT)]
    segment_bytes = size + 2 + OBJECT_BYTES
    for number, what, place in operations:
        stream = streams[number]
        stream.apply(what, place)
        stream.buffer.charge()
        assert memory.held_bytes == sum(stream.buffer.held_bytes for stream in streams)
        assert memory.held_bytes <= limit_bytes + COUNT * segment_bytes
        assert stream.buffer.window_bytes > 0 or stream.buffer.held_bytes > 0
    for stream in streams:
        while stream.buffer.next_sequence <= 40:
            stream.take(1 << 30)
            stream.insert(stream.buffer.next_sequence - 1)
        stream.take(1 << 30)
        stream.buffer.charge()
        assert stream.discarded or stream.taken == b"".join(stream.payloads)
    assert memory.held_bytes == 0


# -- whole ports --


def crowd_of(scene: ScriptedClient, count: int) -> list[ScriptedPeer]:
    """So many peers with a connection each, besides the first one."""
    peers = []
    reactor: Any = scene.network.reactor("10.0.0.66")
    first = scene.peer
    for number in range(count):
        scene.peer = ScriptedPeer(reactor)
        scene.connection_id = 2_000 + number
        scene.handshake()
        peers.append(scene.peer)
    scene.peer = first
    return peers


def test_a_crowd_with_gaps_is_bounded_and_starves_nobody() -> None:
    """1,000 connections send all that they can behind a gap; others connect, and their streams are exact."""
    limit_bytes = 4 << 20
    scene = ScriptedClient(settings=Settings(receive_memory_bytes=limit_bytes))
    peers = crowd_of(scene, 1_000)
    (port,) = scene.ports
    most_bytes = 0
    honest = Accepting()
    for ahead in range(1, 31):
        for peer in peers:
            peer.data(bytes(SEGMENT_BYTES), seq_nr=peer.sequence + ahead)
        scene.run(0.001)
        most_bytes = max(most_bytes, port.stats().held_bytes)
    assert limit_bytes * 0.9 < most_bytes <= limit_bytes
    assert port.stats().segments_refused > 20_000
    assert len(port._utp.multiplexer) == 1_001

    for host in ("10.0.0.2", "10.0.0.66"):
        UTPClientEndpoint(scene.network.reactor(host), SERVER, PORT).connect(honest)
    assert scene.run(5, until=lambda: len(honest.made) == 2)
    data = pattern(300_000)
    for stream in honest.made:
        stream.transport.write(data)  # type: ignore[union-attr]
    assert scene.run(60, until=lambda: all(len(stream.received) == len(data) for stream in scene.accepting.made[-2:]))
    assert all(bytes(stream.received) == data for stream in scene.accepting.made[-2:])

    # what was acknowledged selectively is all there when the gaps close
    masks = [connection.receiving.selective_ack_mask() for connection in port._utp.multiplexer]
    for peer in peers:
        peer.data(bytes(SEGMENT_BYTES))
    scene.run(0.01)
    received = [len(stream.received) // SEGMENT_BYTES for stream in scene.accepting.made[1:1_001]]
    assert received == [mask.bit_count() + 1 for mask in masks[1:1_001]]
    assert port.stats().held_bytes == 0


def test_a_crowd_that_nobody_reads_is_bounded_and_goes_on_when_it_is_read() -> None:
    """The same for paused readers; single bytes are charged with the objects that hold them."""
    limit_bytes = 1 << 20
    scene = ScriptedClient(settings=Settings(receive_memory_bytes=limit_bytes))
    peers = crowd_of(scene, 100)
    (port,) = scene.ports
    for stream in scene.accepting.made:
        stream.transport.pauseProducing()  # type: ignore[union-attr]
    for number in range(300):
        for place, peer in enumerate(peers):
            size = 1 if place % 2 else SEGMENT_BYTES
            acknowledged = scene.accepting.made[place + 1].connection.receiving.next_sequence
            peer.data(bytes([number % 256]) * size, seq_nr=acknowledged)
        scene.run(0.0001)
        assert port.stats().held_bytes <= limit_bytes + 100 * (SEGMENT_BYTES + OBJECT_BYTES) + TURN_BYTES
    assert port.stats().held_bytes > limit_bytes // 2
    assert port.stats().segments_refused > 1_000
    for stream in scene.accepting.made:
        stream.transport.resumeProducing()  # type: ignore[union-attr]
    scene.run(1)
    assert port.stats().held_bytes == 0
    assert all(peer.take()[-1].wnd_size > LEAST_WINDOW_BYTES for peer in peers)


class Sipping(Stream):
    """Pauses after each piece for a moment."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        transport: Any = self.transport
        transport.pauseProducing()
        transport.reactor.callLater(0.3, transport.resumeProducing)


def test_a_slow_reader_moves_on_although_others_hold_everything() -> None:
    pair = Pair(protocol=Sipping, settings=Settings(receive_memory_bytes=65_536))
    memory = pair.ports[0]._utp.multiplexer.memory
    memory.charge(100_000)  # of others
    data = pattern(40_000)
    pair.client.transport.write(data)  # type: ignore[union-attr]
    assert pair.run(120, until=lambda: len(pair.server.received) == len(data))
    memory.charge(-100_000)
    rest = pattern(400_000, 1)
    pair.client.transport.write(rest)  # type: ignore[union-attr]
    assert pair.run(60, until=lambda: len(pair.server.received) == len(data + rest))
    assert bytes(pair.server.received) == data + rest


# -- behind the end --


def unread(pair: Pair, data: bytes) -> None:
    """The server is paused, has received the data, and the client has reset the connection."""
    pair.server.transport.pauseProducing()  # type: ignore[union-attr]
    pair.client.transport.write(data)  # type: ignore[union-attr]
    assert pair.run(10, until=lambda: pair.server.connection.bytes_received == len(data))
    pair.run(0.1)
    pair.client.transport.abortConnection()  # type: ignore[union-attr]
    pair.run(1)


@pytest.mark.parametrize("leave", ["resumeProducing", "loseConnection", "abortConnection"])
def test_unread_data_of_an_ended_connection_counts_until_its_reader_takes_it_or_leaves(leave: str) -> None:
    pair = Pair()
    data = pattern(100_000)
    unread(pair, data)
    (port,) = pair.ports
    assert port.stats().connections == 0
    assert len(data) < port.stats().held_bytes < 1.3 * len(data)
    getattr(pair.server.transport, leave)()
    pair.run(1)
    assert port.stats().held_bytes == 0
    assert bytes(pair.server.received) == (data if leave == "resumeProducing" else b"")


def test_an_end_frees_what_was_early() -> None:
    scene = ScriptedClient()
    scene.peer.data(bytes(1_000), seq_nr=5_007)
    scene.run(0.01)
    assert scene.ports[0].stats().held_bytes == 1_000 + OBJECT_BYTES
    scene.peer.reset()
    scene.run(0.01)
    assert scene.ports[0].stats().held_bytes == 0


def test_an_application_that_aborts_with_data_unread_frees_it() -> None:
    pair = Pair()
    pair.server.transport.pauseProducing()  # type: ignore[union-attr]
    pair.client.transport.write(pattern(50_000))  # type: ignore[union-attr]
    pair.run(1)
    assert pair.ports[0].stats().held_bytes > 50_000
    pair.server.transport.abortConnection()  # type: ignore[union-attr]
    pair.run(1)
    assert pair.ports[0].stats().held_bytes == 0


def test_ended_connections_whose_readers_are_behind_keep_their_places() -> None:
    """Otherwise each newcomer could leave some data behind, without end."""
    pair = Pair(server_settings=Settings(maximum_connections=1))
    unread(pair, b"unread")
    late = Accepting()
    endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT, timeout=30)
    failed: list[Any] = []
    endpoint.connect(late).addErrback(failed.append)
    pair.run(20)
    assert (late.made, failed) == ([], [])
    pair.server.transport.resumeProducing()  # type: ignore[union-attr]
    pair.run(10)
    assert len(late.made) == 1
    assert bytes(pair.server.received) == b"unread"


def test_a_day_of_ends_leaves_no_charge() -> None:
    """Many streams with losses, aborts and pauses: what is held at the end is nothing."""
    pair = Pair()
    memory = pair.ports[0]._utp.multiplexer.memory
    pair.up.loss = 0.2
    endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT)
    for number in range(60):
        visitors = Accepting()
        endpoint.connect(visitors)
        pair.run(5)
        for stream in visitors.made:
            stream.transport.write(pattern(50_000))  # type: ignore[union-attr]
            pair.run(0.05 * (number % 10))
            (server,) = pair.accepting.made[-1:]
            if number % 3 == 0:
                server.transport.pauseProducing()  # type: ignore[union-attr]
            pair.run(0.2)
            (stream if number % 2 else server).transport.abortConnection()  # type: ignore[union-attr]
        pair.run(3)
        for stream in pair.accepting.made:
            stream.transport.resumeProducing()  # type: ignore[union-attr]
    pair.client.transport.abortConnection()  # type: ignore[union-attr]
    pair.run(120)
    assert memory.held_bytes == 0


def test_how_much_a_port_may_hold() -> None:
    assert Settings().port_memory_bytes == 128 << 20
    assert Settings(receive_buffer_bytes=64 << 20).port_memory_bytes == 512 << 20
    assert Settings(receive_memory_bytes=100_000).port_memory_bytes == 100_000
    with pytest.raises(ValueError, match="receive_memory_bytes is at least 65536, not 1"):
        Settings(receive_memory_bytes=1)


def test_early_segments_of_one_connection_are_as_many_as_a_selective_ack_can_name() -> None:
    memory = memory_of(1 << 30)
    buffer = buffer_of(memory)
    for sequence in range(2, 4_000):
        buffer.insert(sequence, b"xx")
    assert len(buffer.early) == EARLY_MAXIMUM_AHEAD
