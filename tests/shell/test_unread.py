"""An end never overtakes what has arrived: a paused reader gets all of it, then the end, with the true reason."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error, ssl
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.protocol import Factory, Protocol

from tests.shell.test_shutdown import REACTORS, run
from tests.socket.test_socket import Scene, collected, types, written_down
from tests.support import PORT, SERVER, HalfStream, Pair, ScriptedClient, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint
from txutp.core.packet import ST_FIN, ST_RESET
from txutp.testing import Datagram

DATA = pattern(600_000)


def drop(datagram: Datagram) -> None:
    datagram.dropped = True


def multiplexer_of(pair: Pair) -> Any:
    """The multiplexer of the server's port."""
    return pair.ports[0]._utp.multiplexer


def paused(**options: Any) -> Pair:
    """A pair whose server reads nothing, and has received all that the client said."""
    pair = Pair(**options)
    pair.server.transport.pauseProducing()
    pair.client.transport.write(DATA)
    assert pair.run(10, until=lambda: pair.server.connection.bytes_received == len(DATA))
    return pair


# -- every end --


def it_closes(pair: Pair) -> None:
    """The peer closes, its tombstone goes, and it resets whatever is sent to it later."""
    pair.client.transport.loseConnection()
    pair.run(120)
    pair.server.transport.write(b"anybody there?")
    pair.run(60)


def it_aborts(pair: Pair) -> None:
    pair.client.transport.abortConnection()
    pair.run(1)


def it_vanishes(pair: Pair) -> None:
    """What we write is never acknowledged."""
    pair.up.hook = pair.down.hook = drop
    pair.server.transport.write(b"anybody there?")
    pair.run(60)


def it_is_silent(pair: Pair) -> None:
    """For longer than the settings allow."""
    pair.up.hook = pair.down.hook = drop
    pair.run(60)


def our_port_stops(pair: Pair) -> None:
    pair.network.ports[SERVER, PORT].stopListening()
    pair.run(1)


ENDS = [it_closes, it_aborts, it_vanishes, it_is_silent, our_port_stops]


@pytest.mark.parametrize("protocol", [Stream, HalfStream])
@pytest.mark.parametrize("end", ENDS)
def test_a_paused_reader_gets_what_had_arrived_before_it_hears_the_end(end: Any, protocol: type[Stream]) -> None:
    """The connection is gone from the port by then, and what is written meanwhile goes nowhere."""
    pair = paused(protocol=protocol, settings=Settings(idle_timeout_us=40_000_000, keepalive_us=20_000_000))
    server = pair.server
    end(pair)
    assert len(multiplexer_of(pair)) == 0
    assert (bytes(server.received), server.lost) == (b"", [])

    server.transport.write(b"too late")
    server.transport.resumeProducing()
    assert bytes(server.received) == b"", "never re-entrant"
    pair.run(0.001)
    assert bytes(server.received) == DATA
    assert server.lost_type is error.ConnectionLost
    assert server.transport.disconnected
    assert server.read_lost == (end is it_closes and protocol is HalfStream)
    pair.client.transport.abortConnection()
    pair.run(60)
    assert pair.server_reactor.getDelayedCalls() == []


def test_a_paused_reader_of_a_complete_stream_hears_a_clean_end() -> None:
    """However late it resumes, and however small the pieces are that it takes."""

    class Sipping(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            assert self.transport is not None
            self.transport.pauseProducing()

    pair = Pair(protocol=Sipping)
    pair.client.transport.write(DATA)
    pair.client.transport.loseConnection()
    pair.run(300)
    assert 0 < len(pair.server.received) < len(DATA)
    assert not pair.server.lost
    while not pair.server.lost and pair.network.now_us < 1_000_000_000:
        pair.server.transport.resumeProducing()
        pair.run(100)
    assert pair.server.deliveries > 3
    assert bytes(pair.server.received) == DATA
    assert pair.server.lost_type is pair.client.lost_type is error.ConnectionDone


@pytest.mark.parametrize("idle_us", [None, 40_000_000])
def test_a_peer_that_has_closed_is_left_alone_until_its_reader_is_ready(idle_us: int | None) -> None:
    """No keepalive, which would draw a RESET, and no idle timeout: the stream is here, and nothing else will come."""
    pair = paused(settings=Settings(idle_timeout_us=idle_us))
    pair.client.transport.loseConnection()
    pair.run(5)
    up, down = pair.record()
    pair.run(600)
    assert up.packets == down.packets == []
    assert len(multiplexer_of(pair)) == 1
    pair.server.transport.resumeProducing()
    pair.run(0.001)
    assert bytes(pair.server.received) == DATA
    assert [packet.type for packet in down.packets] == [ST_FIN]
    pair.run(5)
    assert pair.server.lost_type is error.ConnectionDone


def test_an_end_with_nothing_unread_is_told_to_a_paused_reader_at_once() -> None:
    pair = Pair()
    pair.server.transport.pauseProducing()
    pair.client.transport.abortConnection()
    pair.run(0.1)
    assert pair.server.lost_type is error.ConnectionLost


# -- the application goes --


@pytest.mark.parametrize(
    ("leave", "reason"), [("loseConnection", error.ConnectionLost), ("abortConnection", error.ConnectionAborted)]
)
@pytest.mark.parametrize("producing", [True, False])
def test_an_application_that_leaves_does_not_wait_for_what_is_unread(
    leave: str, reason: type[Exception], producing: bool
) -> None:
    pair = paused()
    it_aborts(pair)
    if producing:
        pair.server.transport.registerProducer(Recorded(), True)
    getattr(pair.server.transport, leave)()
    assert not pair.server.lost, "never re-entrant"
    pair.run(0.001)
    assert pair.server.lost_type is reason
    assert bytes(pair.server.received) == b""
    pair.run(60)
    assert pair.server_reactor.getDelayedCalls() == []


class Recorded:
    """A push producer that only remembers."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


def test_a_producer_is_paused_when_it_writes_behind_the_end_and_stopped_when_that_is_told() -> None:
    """One that writes until it is paused would never return."""
    pair = paused()
    it_aborts(pair)
    producer = Recorded()
    pair.server.transport.registerProducer(producer, True)
    pair.server.transport.write(b"x")
    pair.server.transport.write(b"x")
    assert producer.calls == ["pause"]
    pair.server.transport.resumeProducing()
    pair.run(0.001)
    assert producer.calls == ["pause", "stop"]
    assert bytes(pair.server.received) == DATA


def test_an_exception_of_the_reader_ends_it_with_that() -> None:
    pair = paused()
    it_aborts(pair)
    pair.server.dataReceived = lambda data: 1 / 0  # type: ignore[method-assign]
    pair.server.transport.resumeProducing()
    pair.run(0.001)
    assert pair.server.lost_type is ZeroDivisionError
    pair.run(60)
    assert pair.server_reactor.getDelayedCalls() == []


@pytest.mark.parametrize("late", ["behind the end", "behind our FIN"])
def test_what_was_written_too_late_never_counts_as_arrived(late: str) -> None:
    pair = paused(protocol=HalfStream)
    heard: list[Any] = []
    if late == "behind the end":
        it_aborts(pair)
    else:
        pair.server.transport.loseWriteConnection()
        pair.run(1)
    pair.server.transport.write(b"too late")
    pair.server.transport.acknowledged().addBoth(heard.append)
    pair.run(1)
    assert heard == []
    pair.server.transport.abortConnection()
    pair.run(1)
    assert heard[0].type is pair.server.lost_type is error.ConnectionAborted


def test_one_transport_that_feeds_another_hands_everything_on_before_it_ends() -> None:
    """A proxy: its reader is paused by the transport that it writes to, and its peer resets meanwhile."""
    first, second = Pair(seed=1), Pair(seed=2)
    source, sink = first.server.transport, second.client.transport
    sink.registerProducer(source, True)
    first.server.dataReceived = sink.write  # type: ignore[method-assign]
    second.server.transport.pauseProducing()
    data = pattern(3_000_000)
    first.client.transport.write(data)
    for _ in range(100):
        first.run(0.1)
        second.run(0.1)
    first.client.transport.loseConnection()
    first.run(1)
    arrived_bytes = first.server.connection.bytes_received
    first.client.transport.abortConnection()
    first.run(1)
    assert not first.server.lost
    second.server.transport.resumeProducing()
    for _ in range(100):
        first.run(0.1)
        second.run(0.1)
    assert first.server.lost_type is error.ConnectionLost
    assert bytes(second.server.received) == data[:arrived_bytes]


# -- over it: TLS, and sockets in Node's style --


class Sink(Protocol):
    """Keeps what it hears; pauses after the first piece."""

    def __init__(self, trust: Any) -> None:
        self.trust = trust  # None if TLS is there already
        self.received = b""
        self.lost: list[Any] = []

    def connectionMade(self) -> None:
        assert self.transport is not None
        if self.trust is not None:
            self.transport.startTLS(self.trust)

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        if not self.received:
            self.transport.pauseProducing()
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.type)


class Source(Stream):
    """A TLS server that says much and closes."""

    def connectionMade(self) -> None:
        super().connectionMade()
        assert self.transport is not None
        self.transport.startTLS(certificate())
        self.transport.write(DATA)
        self.transport.loseConnection()


def certificate() -> Any:
    crypto = pytest.importorskip("OpenSSL.crypto")
    key = crypto.PKey()
    key.generate_key(crypto.TYPE_RSA, 2048)
    own = crypto.X509()
    own.set_pubkey(key)
    own.gmtime_adj_notBefore(0)
    own.gmtime_adj_notAfter(86_400)
    own.sign(key, "sha256")
    return ssl.CertificateOptions(privateKey=key, certificate=own)


def tls_pair(wrapped: bool) -> tuple[Pair, Sink]:
    """A TLS client that pauses early in what the server says; the server closes behind that."""
    pair = Pair(protocol=Source, wait=False)
    trust = ssl.CertificateOptions(verify=False)
    sink = Sink(None if wrapped else trust)
    factory = Factory()
    factory.buildProtocol = lambda addr: sink  # type: ignore[method-assign,assignment]
    endpoint: Any = UTPClientEndpoint(pair.client_reactor, SERVER, PORT)
    if wrapped:
        endpoint = wrapClientTLS(trust, endpoint)
    endpoint.connect(factory)
    pair.run(120)
    assert 0 < len(sink.received) < len(DATA)
    assert sink.lost == []
    return pair, sink


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates
@pytest.mark.parametrize("wrapped", [True, False])
def test_the_end_does_not_overtake_what_tls_has_not_read(wrapped: bool) -> None:
    pair, sink = tls_pair(wrapped)
    sink.transport.resumeProducing()  # type: ignore[union-attr]
    pair.run(30)
    assert sink.received == DATA
    assert sink.lost == [error.ConnectionDone]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates
@pytest.mark.parametrize("wrapped", [True, False])
def test_leaving_tls_does_not_wait_for_the_answer_of_a_peer_that_is_gone(wrapped: bool) -> None:
    """TLS closes with a word and waits for one; the connection has ended, and the rest of it will not be read."""
    pair, sink = tls_pair(wrapped)
    (port,) = [port for (host, _), port in pair.network.ports.items() if host != SERVER]
    port.stopListening()
    pair.run(1)
    assert sink.lost == []
    sink.transport.loseConnection()  # type: ignore[union-attr]
    pair.run(1)
    assert sink.lost == [error.ConnectionLost]


@pytest.mark.parametrize("how", ["clean", "reset"])
def test_a_paused_socket_emits_the_rest_before_its_end(how: str) -> None:
    """What one delivery brought is held by the socket, the rest by the transport; both come before the last events."""
    for size in (1_000, 600_000):
        scene = Scene()
        socket, accepted = scene.pair()
        accepted.pause()
        events = written_down(accepted, "end", "error", "close")
        data = collected(accepted)
        accepted.pause()
        socket.write(DATA[:size])
        scene.run(5)
        if how == "clean":
            socket.end()
        else:
            socket.resetAndDestroy()
        scene.run(120)
        assert events == []
        assert data == []
        told: list[Any] = []
        if how == "reset":
            accepted.write("too late", told.append)
        accepted.resume()
        scene.run(5)
        assert b"".join(data) == DATA[:size]
        if how == "clean":
            assert events == ["end", ("close", False)]
        else:
            assert types(events) == [("error", error.ConnectionLost), ("close", True)]
            assert [type(problem) for problem in told] == [error.ConnectionLost]


def test_a_pipe_into_something_slow_brings_everything_before_the_end() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    third = scene.connect()
    assert scene.run(until=lambda: len(scene.accepted) == 2)
    slow = scene.accepted[1]
    accepted.pipe(third)
    slow.pause()
    data = pattern(3_000_000)
    socket.end(data)
    scene.run(200)
    assert third.writableLength > 0
    received = collected(slow)
    slow.resume()
    scene.run(200)
    assert b"".join(received) == data
    assert slow.destroyed


def test_destroying_a_paused_socket_ends_it_at_once() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    accepted.pause()
    socket.write(DATA)
    scene.run(5)
    socket.resetAndDestroy()
    scene.run(5)
    events = written_down(accepted, "end", "error", "close")
    accepted.destroy()
    scene.run(1)
    assert events == [("close", False)]


# -- the reactor stops --


@pytest.mark.parametrize("reactor", REACTORS)
def test_a_stopping_reactor_does_not_wait_for_a_paused_reader(reactor: str) -> None:
    """One whose connection had ended before, one whose peer has closed, and one that is in the middle: each hears."""
    code = """
        import time
        from twisted.internet import reactor
        from twisted.internet.endpoints import clientFromString, serverFromString
        from twisted.internet.protocol import Factory, Protocol

        class Paused(Protocol):
            def connectionMade(self):
                self.transport.pauseProducing()
                paused.append(self)
            def connectionLost(self, reason):
                print(reason.type.__name__)

        class Source(Protocol):
            def connectionMade(self):
                self.transport.write(b"x" * 100_000)
                sources.append(self)

        def part():
            sources[0].transport.abortConnection()
            sources[1].transport.loseConnection()
            reactor.callLater(0.5, stop)

        def stop():
            print(len(port._utp.multiplexer))
            global began
            began = time.monotonic()
            reactor.stop()

        paused, sources = [], []
        port = serverFromString(reactor, "utp:0:interface=127.0.0.1").listen(Factory.forProtocol(Paused)).result
        for _ in range(3):
            where = f"utp:127.0.0.1:{port.getHost().port}"
            clientFromString(reactor, where).connect(Factory.forProtocol(Source))
        reactor.callLater(0.5, part)
        reactor.run()
        print(time.monotonic() - began < 3)
        print(reactor.getDelayedCalls(), reactor.removeAll())
    """
    assert run(code, reactor) == "2\n" + "ConnectionLost\n" * 3 + "True\n[] []\n"


def test_a_reset_in_the_middle_of_a_window_leaves_what_was_acknowledged() -> None:
    """The peer knows that we have these bytes, so it never sends them again: nobody else could bring them."""
    scene = ScriptedClient()
    scene.server.transport.pauseProducing()
    scene.peer.data(b"first ")
    scene.peer.data(b"behind a gap", seq_nr=scene.peer.sequence + 1)
    scene.run(0.01)
    scene.peer.reset()
    scene.run(0.01)
    scene.server.transport.resumeProducing()
    scene.run(0.01)
    assert bytes(scene.server.received) == b"first "
    assert scene.server.lost_type is error.ConnectionLost
    assert [packet.type for packet in scene.peer.take()].count(ST_RESET) == 0
