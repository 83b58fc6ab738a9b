"""Bounds: settings that cannot work, many connections, and datagrams that nobody meant well."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Accepting, Leaving, Pair, ScriptedClient, ScriptedPeer, ScriptedServer
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.congestion import Ledbat
from txutp.core.flow import NEVER_US
from txutp.core.multiplexer import SMALLEST_WINDOW_BYTES, SPARE_DEADLINES
from txutp.core.settings import LIMITS
from txutp.testing import Datagram, Link, Network


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("target_delay_us", 200_000, "target_delay_us is from 1000 to 100000, not 200000"),
        ("target_delay_us", 0, "target_delay_us is from 1000 to 100000, not 0"),
        ("maximum_datagram_bytes", 70_000, "maximum_datagram_bytes is from 150 to 65000, not 70000"),
        ("receive_buffer_bytes", 10, "receive_buffer_bytes is from 4096 to 1073741824, not 10"),
        ("maximum_timeouts", 0, "maximum_timeouts is at least 1, not 0"),
        ("keepalive_us", 5, "keepalive_us is at least 1000000, not 5"),
        ("minimum_timeout_us", 61_000_000, "minimum_timeout_us .* must not be above maximum_timeout_us"),
        ("resets_per_second", -1, "resets_per_second is at least 0, not -1"),
    ],
)
def test_a_value_that_cannot_work_is_refused_with_a_sentence(field: str, value: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Settings(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("maximum_connections", "many", "maximum_connections is a whole number, not 'many'"),
        ("keepalive_us", 1.5, "keepalive_us is a whole number or None, not 1.5"),
        ("maximum_timeouts", True, "maximum_timeouts is a whole number, not True"),
        ("congestion", "ledbat", "congestion is a controller class or another callable, not 'ledbat'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_a_sentence(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        Settings(**{field: value})


@pytest.mark.parametrize("field", LIMITS)
def test_each_number_has_limits_that_hold(field: str) -> None:
    lowest, highest = LIMITS[field]
    # a shortest timeout above the longest one is refused for another reason
    other: dict[str, Any] = {"minimum_timeout_us": lowest} if field == "maximum_timeout_us" else {}
    for accepted in (lowest, highest):
        if accepted is not None:
            assert getattr(Settings(**{field: accepted} | other), field) == accepted
    for refused in (lowest - 1, None if highest is None else highest + 1):
        if refused is not None:
            with pytest.raises(ValueError, match=field):
                Settings(**{field: refused})  # type: ignore[arg-type]


def test_settings_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Settings(Ledbat)  # type: ignore[misc]


def test_settings_do_not_change_under_a_port() -> None:
    with pytest.raises(AttributeError):
        Settings().keepalive_us = 1  # type: ignore[misc]
    assert replace(Settings(), keepalive_us=None).keepalive_us is None


def test_connections_that_are_gone_are_not_kept_until_their_deadlines() -> None:
    """One that is busy always has a deadline before all of theirs, so none of those is looked at for long."""
    scene = Pair(back=Link(delay_us=10_000, rate_bytes_per_second=100_000))
    scene.server.transport.write(pattern(1_000_000))
    multiplexer = scene.ports[0]._utp.multiplexer
    endpoint = UTPClientEndpoint(scene.client_reactor, SERVER, PORT)
    visitors = Accepting(Leaving)
    for _ in range(30):
        for _ in range(10):
            endpoint.connect(visitors)
        scene.run(0.2)
    assert sum(len(visitor.lost) for visitor in visitors.made) == 300
    assert len(multiplexer) == 1
    assert len(multiplexer._deadlines) <= SPARE_DEADLINES + 4

    # the timers of the one that stays still work
    def lose(datagram: Datagram) -> None:
        datagram.dropped = True

    scene.up.hook = scene.down.hook = lose
    scene.run(60)
    assert scene.server.lost_type is error.ConnectionLost


def test_windows_shrink_when_the_socket_overflows_and_grow_again() -> None:
    pair = Pair()
    utp = pair.ports[0]._utp
    largest_bytes = Settings().receive_buffer_bytes

    def window_bytes() -> int:
        """What the client is told."""
        pair.client.transport.write(b"x")
        pair.run(0.1)
        return pair.client.transport.stats().send_window

    assert window_bytes() == largest_bytes
    for _ in range(3):
        utp.overflowed(2)  # the same burst
    assert window_bytes() == largest_bytes * 3 // 4
    pair.run(1)
    utp.overflowed(2)
    assert window_bytes() == largest_bytes * 9 // 16
    assert pair.ports[0].stats().receive_overflows == 8
    pair.run(8)
    assert window_bytes() == largest_bytes * 9 // 16
    for _ in range(10):
        pair.run(10)
        window_bytes()
    assert window_bytes() == largest_bytes

    for _ in range(20):
        pair.run(1)
        utp.overflowed(2)
    assert window_bytes() == SMALLEST_WINDOW_BYTES


def test_data_for_a_window_that_has_shrunk_is_not_lost() -> None:
    pair = Pair(settings=Settings(maximum_datagram_bytes=1_400))
    data = pattern(3_000_000)
    pair.server.transport.pauseProducing()
    pair.client.transport.write(data)
    for _ in range(10):
        pair.run(1)
        pair.ports[0]._utp.overflowed(1)
    assert len(pair.server.received) == 0
    pair.server.transport.resumeProducing()
    assert pair.run(60, until=lambda: len(pair.server.received) == len(data))
    assert bytes(pair.server.received) == data


def test_idle_connections_cost_no_time() -> None:
    """1000 idle and 100 busy streams: work and timers follow the busy ones."""
    network = Network(seed=3)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000))
    accepting, connecting = Accepting(), Accepting()
    quiet = Settings(keepalive_us=None)
    UTPServerEndpoint(network.reactor(SERVER), 1, settings=quiet).listen(accepting)
    for _ in range(1_100):
        UTPClientEndpoint(network.reactor(CLIENT), SERVER, 1, settings=quiet).connect(connecting)
    assert network.run(30, until=lambda: len(accepting.made) == len(connecting.made) == 1_100)
    network.run(40)
    busy = connecting.made[:100]
    for stream in busy:
        stream.transport.write(pattern(50_000))
    network.run(10)
    assert sum(len(stream.received) for stream in accepting.made) == 100 * 50_000

    network.run(60)
    server = network.reactor(SERVER)
    multiplexer = network.ports[SERVER, 1].protocol.multiplexer
    assert len(multiplexer) == 1_100
    assert multiplexer.next_deadline_us() is None
    assert server.getDelayedCalls() == []
    assert all(connection.deadline_us == NEVER_US for connection in multiplexer)
    assert not any(connection.sending.runs or connection.receiving.early for connection in multiplexer)


# -- hostile input --


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=40))
def test_random_datagrams_change_no_stream(datagrams: list[bytes]) -> None:
    """Any bytes, to a port with a live connection: nothing raises, the stream is what was sent."""
    scene = ScriptedClient()
    stranger = ScriptedPeer(scene.network.reactor("10.0.0.66"))
    for number, datagram in enumerate(datagrams):
        (stranger if number % 2 else scene.peer).send_bytes(datagram)
    scene.peer.data(b"genuine")
    scene.run(0.1)
    assert bytes(scene.server.received) == b"genuine"
    # no more comes back than went in
    assert sum(map(len, stranger.datagrams)) <= sum(map(len, datagrams[1::2]))


def nearly(rng: random.Random, scene: ScriptedClient) -> bytes:
    """A datagram that is almost right for the live connection."""
    kind = rng.randrange(6) << 4 | rng.choice((1, 1, 1, 2))
    extension = rng.choice((0, 0, 0, 1, 2, 3, 200))
    connection_id = rng.choice((1_000, 1_001, 1_002, rng.randrange(65_536)))
    sequence = (scene.peer.sequence + rng.choice((2_000, 30_000, -5, -1))) & 0xFFFF
    ack = (scene.peer.ack + rng.choice((-5, 5, 100, 30_000))) & 0xFFFF
    header = bytes((kind & 0xFF, extension)) + connection_id.to_bytes(2, "big") + rng.randbytes(12)
    return header + sequence.to_bytes(2, "big") + ack.to_bytes(2, "big") + rng.randbytes(rng.randrange(60))


@pytest.mark.parametrize("seed", range(20))
def test_nearly_right_datagrams_change_no_stream(seed: int) -> None:
    """Right ids and wild numbers: nothing raises, nothing of it reaches the stream, memory stays bounded."""
    rng = random.Random(seed)
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=50_000))
    expected = b""
    for number in range(400):
        for _ in range(3):
            scene.peer.send_bytes(nearly(rng, scene))
        data = b"%d," % number
        scene.peer.data(data)
        expected += data
        scene.run(0.001)
    assert bytes(scene.server.received) == expected, seed
    receiving = scene.server.connection.receiving
    assert receiving.early_bytes + receiving.ready_bytes <= 50_000


@pytest.mark.parametrize("seed", range(10))
def test_corrupted_datagrams_never_raise(seed: int) -> None:
    """Flipped bits (that a UDP checksum would catch): the stream may suffer, the program does not."""
    pair = Pair(link=Link(delay_us=5_000, corrupt=0.2), seed=seed, wait=False)
    if pair.run(30, until=lambda: bool(pair.connecting.made and pair.accepting.made)):
        pair.client.transport.write(pattern(100_000))
        pair.server.transport.write(pattern(100_000))
        pair.run(60)
    assert pair.network.now_us > 0


@pytest.mark.parametrize("seed", range(10))
def test_a_client_survives_a_server_of_noise(seed: int) -> None:
    rng = random.Random(seed)
    scene = ScriptedServer(answer=False)
    for _ in range(200):
        scene.peer.send_bytes(rng.randbytes(rng.randrange(80)))
        header = bytes((rng.randrange(5) << 4 | 1, 0)) + scene.syn.connection_id.to_bytes(2, "big")
        # never the ack that would answer the SYN
        scene.peer.send_bytes(header + rng.randbytes(14) + (scene.syn.seq_nr + 1 & 0xFFFF).to_bytes(2, "big"))
    scene.run(1)
    assert scene.connecting.made == []
    scene.peer.state()
    scene.run(0.1)
    assert scene.client.made == 1
