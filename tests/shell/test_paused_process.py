"""A process that was paused (a signal, a debugger, a virtual machine) reads what its peers said before it judges them.

A reactor runs its timers before it reads.  So after the pause all of them ring, while what the peers said waits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.protocol import ClientFactory
from zope.interface import directlyProvides, providedBy

from tests.socket.test_socket import THERE, Scene, written_down
from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, ScriptedClient, ScriptedServer, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPServerEndpoint, connectUTP
from txutp.core.flow import NEVER_US
from txutp.testing import Link, Network, SimulatedPort, SimulatedReactor


def pause(network: Network, host: str, seconds: float, then: Callable[[], object] = lambda: None) -> None:
    """The process of a host stands still; when it goes on its timers ring, and then it reads what has come."""
    reactor: Any = network.reactor(host)
    ports: list[Any] = [port for (its_host, _), port in network.ports.items() if its_host == host]
    held: list[tuple[Any, int]] = []
    reactor._run = lambda call, at_us: held.append((call, at_us))
    for port in ports:
        port.read = lambda: None
    network.run(seconds)
    del reactor._run
    for port in ports:
        del port.read
        if port.arrived:
            network.call_at(network.now_us, port.read)
    for call, at_us in held:
        SimulatedReactor._run(reactor, call, at_us)


@pytest.mark.parametrize("size", [1, 1_000])
def test_packets_of_any_size_are_read_first(size: int) -> None:
    """Larger ones are joined before they are taken."""
    pair = Pair(settings=Settings(maximum_timeouts=50), server_settings=Settings(idle_timeout_us=6_000_000))
    for _ in range(20):
        pair.client.transport.write(b".")
        pair.run(1)
    pair.network.call_at(pair.network.now_us + 5_000_000, lambda: pair.client.transport.write(bytes(size)))
    pause(pair.network, SERVER, 10)
    pair.run(5)
    assert not pair.server.lost
    assert len(pair.server.received) == 20 + size


@pytest.mark.parametrize("paused_seconds", [6.001, 10, 25])
def test_a_peer_that_talked_all_the_time_is_not_silent(paused_seconds: float) -> None:
    """With an idle timeout of six seconds.  A longer pause is our end for a peer that probes."""
    talker = Settings(keepalive_us=2_000_000)
    pair = Pair(settings=talker, server_settings=Settings(idle_timeout_us=6_000_000))
    pair.run(5)
    pause(pair.network, SERVER, paused_seconds)
    pair.run(5)
    assert not pair.server.lost
    pair.client.transport.write(b"still here")
    pair.run(1)
    assert bytes(pair.server.received) == b"still here"


def test_a_peer_that_said_nothing_is_still_found_out() -> None:
    pair = Pair(settings=Settings(idle_timeout_us=6_000_000))
    pair.up.hook = lambda datagram: setattr(datagram, "dropped", True)
    pause(pair.network, SERVER, 10)
    pair.run(0.001)
    assert pair.server.lost_type is error.ConnectionLost


def test_an_answer_that_came_in_time_connects() -> None:
    """The SYN-ACK came while the process stood still for longer than the timeout."""
    scene = ScriptedServer(answer=False, timeout=5)
    scene.network.call_at(1_000_000, scene.peer.state)
    pause(scene.network, CLIENT, 7)
    scene.run(1)
    assert scene.failures == []
    assert scene.client.made == 1


def test_an_answer_for_a_name_that_came_in_time_connects() -> None:
    """There the time is kept by a timer of Twisted's, for all addresses together."""
    network = Network(seed=1)
    network.connect(CLIENT, SERVER, Link(delay_us=400_000))
    here: Any = network.reactor(CLIENT)
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(Accepting())

    class Resolver:
        def resolveHostName(self, receiver: Any, host: str, port: int, **options: Any) -> None:
            receiver.resolutionBegan(None)
            receiver.addressResolved(IPv4Address("UDP", SERVER, port))
            receiver.resolutionComplete()

    here.nameResolver = Resolver()
    directlyProvides(here, providedBy(here), IReactorPluggableNameResolver)
    factory = ClientFactory()
    factory.noisy = False
    factory.protocol = Stream
    failures: list[Any] = []
    factory.clientConnectionFailed = lambda connector, reason: failures.append(reason)  # type: ignore[method-assign]
    connector = connectUTP(here, "a.name", PORT, factory, timeout=2)
    network.run(0.1)
    pause(network, CLIENT, 5)
    network.run(1)
    assert failures == []
    assert connector.state == "connected"


def test_a_source_that_was_proven_in_time_is_accepted() -> None:
    """The STATE came while the server stood still for longer than half-open connections may last."""
    scene = ScriptedClient(confirm=False)
    scene.peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = scene.peer.take()
    scene.peer.send_id, scene.peer.sequence, scene.peer.ack = 1_001, 5_001, answer.seq_nr - 1
    scene.network.call_at(1_000_000, scene.peer.state)
    pause(scene.network, SERVER, 12)
    scene.run(0.001)
    assert len(scene.accepting.made) == 1


def test_an_ack_that_came_in_time_is_no_timeout() -> None:
    """Not the last one that ends a connection, and not one for which the window shrinks."""
    pair = Pair(settings=Settings(maximum_timeouts=1))
    pair.client.transport.write(pattern(50_000))
    pair.run(0.0001)
    pause(pair.network, CLIENT, 5)
    pair.run(5)
    stats = pair.client.transport.stats()
    assert not pair.client.lost
    assert (stats.timeouts, stats.bytes_retrans) == (0, 0)
    assert bytes(pair.server.received) == pattern(50_000)


def test_an_end_that_came_in_time_is_acknowledged() -> None:
    """The peer's FIN waits to be read while the time for it is over."""
    scene = ScriptedClient()
    scene.server.transport.loseConnection()
    scene.run(0.001)
    (fin,) = scene.peer.take()
    scene.peer.ack = fin.seq_nr
    scene.peer.state()
    scene.run(0.001)
    assert scene.server.connection._linger_deadline_us < NEVER_US
    scene.network.call_at(1_000_000, scene.peer.fin)
    pause(scene.network, SERVER, 5)
    assert not scene.server.lost
    scene.run(0.001)
    assert scene.server.lost_type is error.ConnectionDone
    assert {packet.ack_nr for packet in scene.peer.take()} == {5_001}


def test_a_socket_does_not_tell_of_a_silence_that_was_our_own() -> None:
    """In Node's style: its timeout is a timer, too."""
    scene = Scene()
    socket, accepted = scene.pair()
    events = written_down(accepted, "timeout", "data")
    accepted.resume()
    accepted.setTimeout(6_000)
    scene.run(5)
    scene.network.call_at(scene.network.now_us + 2_000_000, lambda: socket.write("still here") and None)
    pause(scene.network, THERE, 10)
    scene.run(1)
    assert events == [("data", b"still here")]
    scene.run(6)
    assert events[1:] == ["timeout"]


def test_a_socket_that_never_runs_dry_does_not_put_the_judgement_off_for_ever() -> None:
    """Somebody else talks without a pause, and each turn reads some of it."""
    pair = Pair(settings=Settings(idle_timeout_us=6_000_000), protocol=HalfStream)
    port: SimulatedPort = pair.network.ports[SERVER, PORT]
    pair.up.hook = lambda datagram: setattr(datagram, "dropped", True)
    turns = [0]
    on_timer = port.protocol._on_timer

    def chatter() -> None:
        turns[0] += 1
        port.protocol.multiplexer.counters.datagrams_received += 1
        on_timer()

    port.protocol._on_timer = chatter
    pair.run(7)
    assert pair.server.lost_type is error.ConnectionLost
    assert turns[0] < 50


def test_a_peer_that_spoke_before_the_last_probe_was_judged_is_heard() -> None:
    """The path is back when we are stopped, right after the last probe that a silent peer gets."""
    pair = Pair(settings=Settings(keepalive_us=None), server_settings=Settings())
    pair.run(20)
    pair.up.loss = pair.down.loss = 1.0
    assert pair.run(60, until=lambda: pair.server.connection.is_on_trial)
    pair.up.loss = pair.down.loss = 0.0
    pair.network.call_at(pair.network.now_us + 5_000_000, lambda: pair.client.transport.write(b"here"))
    pause(pair.network, SERVER, 10)
    pair.run(100)
    assert not pair.server.lost
    assert not pair.client.lost


def test_timers_that_judge_nobody_do_not_wait() -> None:
    """A keepalive rings once."""
    pair = Pair(settings=Settings(keepalive_us=1_000_000))
    utp = pair.network.ports[SERVER, PORT].protocol
    rings = [0]
    on_timer = utp._on_timer

    def counted() -> None:
        rings[0] += 1
        on_timer()

    utp._on_timer = counted
    pair.run(10)
    assert rings[0] <= 16
