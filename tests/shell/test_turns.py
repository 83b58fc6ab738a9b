"""What begins in one turn of the reactor goes on in a later one, as with TCP: for servers, clients and their wrappers.

Everything that a peer can say at once arrives at once here; the application counts the turns of the reactor between
``connectionMade`` and what follows it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as real_reactor
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.shell.test_unread import certificate
from tests.support import CLIENT, PORT, SERVER, ScriptedPeer, until
from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.newcomers import Newcomers
from txutp.protocol import UTPProtocol
from txutp.socket import Server, Socket
from txutp.testing import Network

REQUEST = b"GET / HTTP/1.0\r\n\r\n"


class Turns(Protocol):
    """Notes what it hears, and with each of it whether a turn has passed since ``connectionMade``."""

    def __init__(self, at_once: Callable[[Any], object] | None = None) -> None:
        self._at_once = at_once  # done in connectionMade
        self.ready = False
        self.heard: list[tuple[str, bool]] = []
        self.received = b""

    def connectionMade(self) -> None:
        self.transport.reactor.callLater(0, setattr, self, "ready", True)  # type: ignore[union-attr]
        if self._at_once is not None:
            self._at_once(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self.heard.append(("data", self.ready))
        self.received += data

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.heard.append(("lost", self.ready))


@implementer(IHalfCloseableProtocol)
class HalfCloseableTurns(Turns):
    """The same, with the ends of both halves."""

    def readConnectionLost(self) -> None:
        self.heard.append(("read lost", self.ready))

    def writeConnectionLost(self) -> None:
        self.heard.append(("write lost", self.ready))


@implementer(IPushProducer)
class Producer:
    """Writes once, as often as it is resumed."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def resumeProducing(self) -> None:
        self._transport.write(b"x" * 100)

    def pauseProducing(self) -> None:
        """It writes only when it is asked."""

    def stopProducing(self) -> None:
        """It does nothing by itself."""


def nothing(transport: Any) -> None:
    """Only look."""


def register_push(transport: Any) -> None:
    transport.registerProducer(Producer(transport), True)


def register_pull(transport: Any) -> None:
    transport.registerProducer(Producer(transport), False)


def abort(transport: Any) -> None:
    transport.abortConnection()


def leave(transport: Any) -> None:
    transport.write(b"bye")
    transport.loseConnection()


def end_writing(transport: Any) -> None:
    transport.loseWriteConnection()


def fail(transport: Any) -> None:
    raise ZeroDivisionError("in connectionMade")


def wrapped(factory: Factory) -> Factory:
    return WrappingFactory(factory)


def bare(factory: Factory) -> Factory:
    return factory


# What a peer says in one moment, when it has been answered.
SAYINGS: dict[str, Callable[[ScriptedPeer], None]] = {
    "data": lambda peer: peer.data(REQUEST),
    "data and fin": lambda peer: (peer.data(REQUEST), peer.fin()),  # type: ignore[return-value, func-returns-value]
    "fin": lambda peer: peer.fin(),
    "state and data": lambda peer: (peer.state(), peer.data(REQUEST)),  # type: ignore[return-value, func-returns-value]
    "data and reset": lambda peer: (peer.data(REQUEST), peer.reset()),  # type: ignore[return-value, func-returns-value]
    "state": lambda peer: peer.state(),
}


def factory_of(turns: Turns) -> Factory:
    factory = Factory()
    factory.buildProtocol = lambda addr: turns  # type: ignore[method-assign]
    factory.noisy = False
    return factory


def server_hears(made: Callable[[], Turns], wrap: Callable[[Factory], Factory], say: str) -> Turns:
    """A server, and a peer that proves its source with everything that it has to say."""
    network = Network(1)
    turns = made()
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(wrap(factory_of(turns)))
    peer = ScriptedPeer(network.reactor(CLIENT))
    peer.syn(1_000, 5_000)
    network.run(0.001)
    (answer,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    SAYINGS[say](peer)
    network.run(200)
    return turns


def client_hears(made: Callable[[], Turns], wrap: Callable[[Factory], Factory], say: str) -> Turns:
    """A client, and a peer that answers with everything that it has to say."""
    network = Network(1)
    turns = made()
    peer = ScriptedPeer(network.reactor(SERVER), PORT)
    attempt = UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT).connect(wrap(factory_of(turns)))
    attempt.addErrback(lambda failure: None)
    network.run(0.001)
    (syn,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = syn.connection_id, 7_000, syn.seq_nr
    peer.state()
    SAYINGS[say](peer)
    network.run(200)
    return turns


@pytest.mark.parametrize("say", SAYINGS)
@pytest.mark.parametrize("wrap", [bare, wrapped])
@pytest.mark.parametrize("at_once", [nothing, register_push, register_pull, leave, abort, end_writing, fail])
@pytest.mark.parametrize("kind", [Turns, HalfCloseableTurns])
@pytest.mark.parametrize("hears", [server_hears, client_hears])
def test_nothing_follows_connection_made_in_its_turn(
    hears: Callable[..., Turns], kind: type[Turns], at_once: Callable[[Any], object], wrap: Any, say: str
) -> None:
    turns = hears(lambda: kind(at_once), wrap, say)
    assert [what for what, ready in turns.heard if not ready] == []
    if (hears, say) == (client_hears, "data and reset"):
        assert turns.heard == []  # the attempt failed in the turn in which it would have succeeded
        return
    assert turns.ready
    if at_once is nothing and "data" in say:
        assert turns.received == REQUEST
    if at_once in (abort, leave, fail):
        assert [what for what, _ in turns.heard].count("lost") == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates
@pytest.mark.parametrize("starts", [True, False])
def test_nothing_follows_connection_made_in_its_turn_with_tls(starts: bool) -> None:
    """What comes first is no TLS, which ends the connection: with ``startTLS`` and with a wrapped factory alike."""
    options = certificate()
    at_once = (lambda transport: transport.startTLS(options)) if starts else nothing
    wrap = bare if starts else lambda factory: TLSMemoryBIOFactory(options, False, factory)
    turns = server_hears(lambda: Turns(at_once), wrap, "data and fin")
    assert turns.ready
    assert turns.heard == [("lost", True)]


def test_a_write_in_connection_made_leaves_with_the_answer() -> None:
    """The wait costs no packet: what the peer said is acknowledged by the answer to it."""

    class Answering(Turns):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.write(b" and an answer")  # type: ignore[union-attr]

    network = Network(1)
    greeting = Answering(lambda transport: transport.write(b"a greeting"))
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(factory_of(greeting))
    peer = ScriptedPeer(network.reactor(CLIENT))
    peer.syn(1_000, 5_000)
    network.run(0.001)
    (answer,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    peer.data(REQUEST)
    network.run(0.000_001)
    (packet,) = peer.take()
    assert (packet.data, packet.ack_nr) == (b"a greeting and an answer", 5_001)


def test_a_connection_that_nothing_else_happens_to_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    turns_taken: list[object] = []
    go_on = Newcomers._go_on
    monkeypatch.setattr(Newcomers, "_go_on", lambda self: (turns_taken.append(self), go_on(self)))
    server_hears(Turns, bare, "state")
    client_hears(Turns, bare, "state")
    assert turns_taken == []
    server_hears(Turns, bare, "data")
    assert len(turns_taken) == 1


def test_what_another_connection_does_to_a_newcomer_waits_too() -> None:
    """Two clients are accepted in one turn, and the second one ends the first one."""
    network = Network(1)
    made: list[Turns] = []

    class Replacing(Turns):
        def connectionMade(self) -> None:
            super().connectionMade()
            if made:
                made[0].transport.abortConnection()  # type: ignore[union-attr]
            made.append(self)

    factory = Factory.forProtocol(Replacing)
    factory.noisy = False
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(factory)
    peers = [ScriptedPeer(network.reactor(CLIENT)) for _ in range(2)]
    for peer in peers:
        peer.syn(1_000, 5_000)
    network.run(0.001)
    for peer in peers:
        (answer,) = peer.take()
        peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
        peer.state()
    network.run(1)
    first, second = made
    assert (first.heard, second.heard) == ([("lost", True)], [])


def test_a_port_that_closes_meanwhile_tells_those_that_wait() -> None:
    """Each connection hears of its end, and no call is left behind."""
    network = Network(1)
    host = network.reactor(SERVER)
    ports: list[Any] = []
    # the port itself, not only the listener on it
    turns = Turns(lambda transport: host.callLater(0, ports[0]._utp.transport.stopListening))
    UTPServerEndpoint(host, PORT).listen(factory_of(turns)).addCallback(ports.append)
    peer = ScriptedPeer(network.reactor(CLIENT))
    peer.syn(1_000, 5_000)
    network.run(0.001)
    (answer,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    peer.data(REQUEST)
    network.run(10)
    assert turns.heard[-1] == ("lost", True)
    assert [what for what, _ in turns.heard].count("lost") == 1
    assert host.getDelayedCalls() == []


# -- on a real reactor --


@pytest.mark.parametrize("kind", ["tcp", "utp"])
@pytest_twisted.ensureDeferred
async def test_a_program_that_needs_a_turn_to_be_ready_hears_everything(kind: str) -> None:
    server, client = Turns(), Turns(lambda transport: transport.write(REQUEST))
    port = await serverFromString(real_reactor, f"{kind}:0:interface=127.0.0.1").listen(factory_of(server))
    endpoint = clientFromString(real_reactor, f"{kind}:127.0.0.1:{port.getHost().port}")
    await connectProtocol(endpoint, client)
    await until(lambda: server.received == REQUEST)
    assert all(ready for _, ready in server.heard)
    client.transport.loseConnection()  # type: ignore[union-attr]
    await until(lambda: ("lost", True) in server.heard and ("lost", True) in client.heard)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_plain_udp_port_keeps_turns_apart_too() -> None:
    """``reactor.listenUDP`` with a ``UTPProtocol`` is settled by a timer, which is another way in."""
    turns = Turns()
    listening = UTPServerEndpoint(real_reactor, 0, interface="127.0.0.1")
    port = await listening.listen(factory_of(turns))
    calling = UTPProtocol(real_reactor)
    udp_port = real_reactor.listenUDP(0, calling, "127.0.0.1")  # type: ignore[attr-defined]
    connection = calling.connect(("127.0.0.1", port.getHost().port), Owner())
    await until(lambda: connection.accepted)
    connection.write(REQUEST)
    calling.touch(connection)
    await until(lambda: turns.received == REQUEST)
    assert all(ready for _, ready in turns.heard)
    await udp_port.stopListening()
    await until(lambda: turns.heard[-1][0] == "lost")
    await port.stopListening()


class Owner:
    """Of a connection that has no transport."""

    hungry = False

    def settle(self) -> None:
        """The test looks at the connection itself."""


@pytest_twisted.ensureDeferred
async def test_sockets_in_the_style_of_node_keep_turns_apart() -> None:
    """The events ``connection`` and ``connect`` never come in one turn with ``data``."""
    events: list[tuple[str, bool]] = []
    ready: set[Socket] = set()

    def listen_to(socket: Socket, data: bytes) -> None:
        real_reactor.callLater(0, ready.add, socket)  # type: ignore[attr-defined]
        socket.on("data", lambda piece: events.append((piece.decode(), socket in ready)))
        socket.write(data)

    server = Server(lambda socket: listen_to(socket, b"hello"), real_reactor)
    server.listen(0, "127.0.0.1")
    client = Socket(real_reactor)
    client.connect(server.address().port, "127.0.0.1", lambda: listen_to(client, b"here I am"))  # type: ignore[union-attr]
    await until(lambda: len(events) == 2)
    assert sorted(events) == [("hello", True), ("here I am", True)]
    client.end()
    server.close()
    await client.closed()
