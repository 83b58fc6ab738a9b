"""A packet that comes twice shows nothing the second time: what is repeated until it is heard goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Accepting, Pair, ScriptedClient, ScriptedServer, Stream
from tests.wire.test_transfer import pattern
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.connection import STATE_REPEATS
from txutp.core.packet import ST_STATE
from txutp.testing import Link, Network

# -- the STATE that proves our source --


def states(scene: ScriptedServer, seconds: float = 20) -> int:
    """How many come in a while in which the server says nothing."""
    scene.run(seconds)
    return [packet.type for packet in scene.peer.take()].count(ST_STATE)


@pytest.mark.parametrize("copies", [0, 1, 5])
def test_a_syn_ack_that_comes_again_does_not_show_that_we_were_heard(copies: int) -> None:
    scene = ScriptedServer()
    for _ in range(copies):
        scene.peer.state()
        scene.run(0.001)
    assert states(scene) == 1 + STATE_REPEATS


def data(scene: ScriptedServer) -> None:
    scene.peer.data(b"220 hello")


def an_end(scene: ScriptedServer) -> None:
    scene.peer.fin()


def a_keepalive(scene: ScriptedServer) -> None:
    scene.peer.state(ack_nr=scene.peer.ack - 1)


def a_state_of_a_server_that_has_sent_something(scene: ScriptedServer) -> None:
    """What that was is lost."""
    scene.peer.state(seq_nr=scene.peer.sequence + 1)


def an_ack_of_what_we_say(scene: ScriptedServer) -> None:
    scene.client.transport.write(b"EHLO")  # type: ignore[union-attr]
    scene.run(0.0001)
    scene.peer.state(ack_nr=scene.peer.ack + 1)


@pytest.mark.parametrize(
    "proof", [data, an_end, a_keepalive, a_state_of_a_server_that_has_sent_something, an_ack_of_what_we_say]
)
@pytest.mark.parametrize("copies", [0, 3])
def test_packets_of_a_server_that_has_our_ack_show_that(proof: Callable[[ScriptedServer], None], copies: int) -> None:
    scene = ScriptedServer()
    for _ in range(copies):
        scene.peer.state()
        scene.run(0.001)
    proof(scene)
    scene.run(0.001)
    scene.peer.take()
    for _ in range(copies):
        scene.peer.state()
    assert states(scene, 10) == 0


def test_our_own_first_words_do_not_show_that_they_were_heard() -> None:
    """A SYN-ACK that was late comes behind them."""
    scene = ScriptedServer()
    scene.client.transport.write(b"EHLO")  # type: ignore[union-attr]
    scene.run(0.001)
    scene.peer.state()
    scene.run(0.001)
    connection = scene.client.connection
    assert connection._unheard
    assert connection.sending.outstanding == 1


@pytest.mark.parametrize("seed", range(60))
def test_a_server_that_speaks_first_is_heard_on_a_path_that_loses_and_duplicates(seed: int) -> None:
    """A third of these clients used to wait for ever, and their server was never made."""
    network = Network(seed)
    network.connect(CLIENT, SERVER, Link(delay_us=20_000, loss=0.25, duplicate=0.9))

    class Greeter(Stream):
        def connectionMade(self) -> None:
            assert self.transport is not None
            self.transport.write(b"220 hello")

    settings = Settings(keepalive_us=None)
    UTPServerEndpoint(network.reactor(SERVER), PORT, settings=settings).listen(Accepting(Greeter))
    connecting = Accepting()
    failures: list[object] = []
    endpoint = UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, settings=settings)
    endpoint.connect(connecting).addErrback(failures.append)
    assert network.run(120, until=lambda: bool(failures) or any(stream.received for stream in connecting.made))


# -- the STATE that tells of room --


def closed_and_opened() -> ScriptedClient:
    """Our reader was slow, the peer has filled our window, and the STATE that opens it again is lost."""
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=4_096, keepalive_us=None))
    scene.server.transport.pauseProducing()
    for _ in range(3):
        scene.peer.data(pattern(1_365))
    scene.run(0.01)
    assert scene.peer.take()[-1].wnd_size == 1
    scene.server.transport.resumeProducing()
    scene.run(0.001)
    assert [packet.wnd_size for packet in scene.peer.take()] == [4_096]
    return scene


def test_old_data_does_not_show_that_the_peer_knows_of_the_room() -> None:
    scene = closed_and_opened()
    scene.peer.data(pattern(1_365), seq_nr=5_001)
    scene.run(0.001)
    assert len(scene.peer.take()) == 1, "an answer, which may be lost as well"
    scene.run(60)
    assert [packet.wnd_size for packet in scene.peer.take() if packet.ack_nr == 5_003] == [4_096] * STATE_REPEATS


def test_new_data_shows_it() -> None:
    scene = closed_and_opened()
    scene.peer.data(pattern(1_365))
    scene.run(0.001)
    scene.peer.take()
    scene.run(20)
    assert scene.peer.take() == []


# -- a RESET --


def test_an_icmp_error_counts_as_long_as_nothing_but_syn_acks_came() -> None:
    """A server may have stopped right after its SYN-ACK, which the network duplicates."""
    scene = ScriptedServer()
    scene.peer.state()
    scene.run(0.001)
    scene.client.connection.port_is_closed()
    scene.client_reactor.network.ports[scene.peer.remote].protocol.touch(scene.client.connection)
    scene.run(0.001)
    assert scene.client.lost_type is error.ConnectionLost


# -- packets that come twice --


@pytest.mark.parametrize("path", [{}, {"reorder": 0.02}], ids=str)
@pytest.mark.parametrize("congestion", [Shallow, Ledbat, LedbatPlusPlus])
def test_a_path_that_doubles_every_other_packet_takes_little_of_the_rate(
    congestion: type, path: dict[str, Any]
) -> None:
    """Acks for what came twice are no signs of loss.  LEDBAT fell to a third of the rate, and the others to half."""

    def upload(duplicate: float) -> tuple[int, int]:
        """How many bytes arrive in 8 s over 5 Mbit/s and 50 ms, and how many segments leave again."""
        pair = Pair(
            Link(delay_us=25_000, rate_bytes_per_second=625_000, queue_bytes=125_000, duplicate=duplicate, **path),
            Link(delay_us=25_000, duplicate=duplicate, **path),
            settings=Settings(congestion=congestion),
        )
        pair.client.transport.write(bytes(5_000_000))  # type: ignore[union-attr]
        pair.run(8)
        return len(pair.server.received), pair.client.connection.sending.segments_resent

    single_bytes, _ = upload(0.0)
    double_bytes, resent_segments = upload(0.5)
    assert double_bytes > 0.6 * single_bytes
    assert resent_segments < 40
