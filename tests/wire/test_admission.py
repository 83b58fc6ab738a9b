"""A port that is full: who gives way, and who never does."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, ScriptedClient, ScriptedPeer, Stream
from txutp import Settings, UTPClientEndpoint
from txutp.core.admission import SILENT_INTERVALS, ConnectionRefused
from txutp.core.packet import ST_RESET

SILENT_SECONDS = SILENT_INTERVALS * 29.5


def full(settings: Settings, count: int = 3) -> tuple[ScriptedClient, list[ScriptedPeer]]:
    """A port with connections of peers that never answer a probe, and have come a second after each other."""
    scene = ScriptedClient(settings=settings, confirm=False, protocol=HalfStream)
    peers = []
    for number in range(count):
        peer = ScriptedPeer(scene.network.reactor(f"10.0.0.{10 + number}"))
        peer.syn(1_000, 5_000)
        scene.run(0.001)
        (answer,) = peer.take()
        peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
        peer.state()
        scene.run(1)
        peers.append(peer)
    assert len(scene.accepting.made) == count
    return scene, peers


def come(scene: ScriptedClient, host: str = CLIENT) -> tuple[Accepting, list[Any]]:
    connecting = Accepting()
    failures: list[Any] = []
    endpoint = UTPClientEndpoint(scene.network.reactor(host), SERVER, PORT, timeout=2)
    endpoint.connect(connecting).addErrback(failures.append)
    scene.run(3)
    return connecting, failures


def test_the_longest_silent_makes_room_for_one_that_is_proven() -> None:
    scene, peers = full(Settings(maximum_connections=3))
    scene.run(SILENT_SECONDS)
    peers[0].data(b"still here")
    scene.run(0.001)
    for peer in peers:
        peer.take()
    connecting, failures = come(scene)
    assert not failures
    assert [bool(stream.lost) for stream in scene.accepting.made] == [False, True, False, False]
    gone = scene.accepting.made[1]
    assert gone.lost_type is error.ConnectionLost
    assert "does not answer" in str(gone.lost[0].value)
    assert ST_RESET in [packet.type for packet in peers[1].take()]
    connecting.made[0].transport.write(b"hello")  # type: ignore[union-attr]
    scene.run(1)
    assert bytes(scene.accepting.made[3].received) == b"hello"


def test_a_peer_that_was_heard_within_the_keepalives_is_not_evicted() -> None:
    scene, _ = full(Settings(maximum_connections=3))
    scene.run(SILENT_SECONDS - 10)
    _, failures = come(scene)
    assert len(failures) == 1
    assert not any(stream.lost for stream in scene.accepting.made)
    assert scene.ports[0].stats().syns_refused > 0


def test_without_keepalives_silence_says_nothing() -> None:
    scene, _ = full(Settings(maximum_connections=3, keepalive_us=None))
    scene.run(86_400)
    _, failures = come(scene)
    assert len(failures) == 1
    assert not any(stream.lost for stream in scene.accepting.made)


def test_a_forged_syn_ends_nothing() -> None:
    """Room is made when the source is proven."""
    scene, _ = full(Settings(maximum_connections=3))
    scene.run(SILENT_SECONDS + 5)
    forger = ScriptedPeer(scene.network.reactor("10.0.0.66"))
    for number in range(1_000):
        forger.syn(4 * number, number)
    scene.run(5)
    assert not any(stream.lost for stream in scene.accepting.made)
    assert scene.ports[0].stats().half_open == 0


def test_the_share_of_a_host_is_taken_from_that_host() -> None:
    scene, peers = full(Settings(maximum_connections_per_address=1))
    scene.run(SILENT_SECONDS)
    _, failures = come(scene, "10.0.0.11")
    assert not failures
    assert [bool(stream.lost) for stream in scene.accepting.made] == [False, True, False, False]
    assert peers


def test_a_syn_beyond_both_limits_is_refused_and_costs_nobody_a_place() -> None:
    """The port is full, and so is the host's share: a half-open connection of another host would go in vain."""
    scene, _ = full(Settings(maximum_connections=3, maximum_connections_per_address=1), 2)
    half_open = ScriptedPeer(scene.network.reactor("10.0.0.20"))
    half_open.syn(1_000, 5_000)
    scene.run(0.001)
    multiplexer = scene.ports[0]._utp.multiplexer
    before = list(multiplexer)
    second = ScriptedPeer(scene.network.reactor("10.0.0.10"))
    second.syn(2_000, 7_000)
    scene.run(0.001)
    assert list(multiplexer) == before
    assert len(before) == 3
    assert scene.ports[0].stats().syns_refused == 1


def test_a_syn_to_a_port_whose_limit_was_lowered_is_refused() -> None:
    scene, _ = full(Settings(maximum_connections=4), 2)
    half_open = ScriptedPeer(scene.network.reactor("10.0.0.20"))
    half_open.syn(1_000, 5_000)
    scene.run(0.001)
    multiplexer = scene.ports[0]._utp.multiplexer
    multiplexer.change_settings(Settings(maximum_connections=1))
    second = ScriptedPeer(scene.network.reactor("10.0.0.30"))
    second.syn(2_000, 7_000)
    scene.run(0.001)
    assert scene.ports[0].stats().syns_refused == 1
    assert {connection.address[0] for connection in multiplexer} >= {"10.0.0.10", "10.0.0.11"}


def test_our_own_connections_find_room_too() -> None:
    scene, _ = full(Settings(maximum_connections=3))
    multiplexer = scene.ports[0]._utp.multiplexer
    with pytest.raises(ConnectionRefused, match="maximum_connections is 3"):
        multiplexer.connect(("10.0.0.9", 1), scene.network.now_us)
    scene.run(SILENT_SECONDS + 5)
    for _ in range(3):
        multiplexer.connect(("10.0.0.9", 1), scene.network.now_us)
    with pytest.raises(ConnectionRefused, match="maximum_connections is 3"):
        multiplexer.connect(("10.0.0.9", 1), scene.network.now_us)
    scene.run(0.001)
    scene.ports[0]._utp.settle()
    assert all(stream.lost for stream in scene.accepting.made)


def test_a_reader_that_has_not_taken_everything_keeps_its_connection() -> None:
    """Its peer has ended, and may be gone; what has arrived waits."""
    scene, peers = full(Settings(maximum_connections=1), 1)
    scene.server.transport.pauseProducing()
    peers[0].data(b"to be read")
    peers[0].fin()
    scene.run(SILENT_SECONDS + 5)
    _, failures = come(scene)
    assert len(failures) == 1
    scene.server.transport.resumeProducing()
    scene.run(0.1)
    assert bytes(scene.server.received) == b"to be read"


def test_a_day_of_ghosts_fills_no_port() -> None:
    """Clients come, and vanish without a word."""
    scene = ScriptedClient(settings=Settings(maximum_connections=100), confirm=False)
    for number in range(150):
        stream, failures = come(scene, f"10.0.1.{number}")
        assert not failures
        for link in (scene.network.link(SERVER, f"10.0.1.{number}"), scene.network.link(f"10.0.1.{number}", SERVER)):
            link.loss = 1.0
        assert stream.made
    scene.run(100)
    assert scene.ports[0].stats().connections == 0
    assert all(isinstance(stream, Stream) and stream.lost for stream in scene.accepting.made)
