"""The transport as an application meets it: producers, pauses, exceptions, and what TCP promises."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, ILoggingContext, IPushProducer, ITCPTransport, ITransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.support import HalfStream, Pair, ScriptedClient, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings
from txutp.testing import Link


class Producer:
    """Writes numbered blocks when it is asked to."""

    def __init__(self, transport: Any, blocks: int, streaming: bool, size: int = 30_000) -> None:
        self.transport = transport
        self.blocks = blocks
        self.size = size
        self.streaming = streaming
        self.calls: list[str] = []
        self.running = False
        transport.registerProducer(self, streaming)

    def begin(self) -> None:
        """A streaming producer starts by itself."""
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.calls.append("resume")
        self.running = True
        while self.blocks and self.running:
            self.blocks -= 1
            self.transport.write(pattern(self.size, self.blocks))
            if not self.streaming:
                break
        if not self.blocks and self.running:
            self.running = False
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.calls.append("pause")
        self.running = False

    def stopProducing(self) -> None:
        self.calls.append("stop")
        self.running = False
        self.blocks = 0


def test_it_provides_what_it_says() -> None:
    pair = Pair()
    for interface in (ITransport, ITCPTransport, IConsumer, IPushProducer, ILoggingContext):
        verifyObject(interface, pair.client.transport)
        verifyObject(interface, pair.server.transport)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_producer_feeds_the_stream(streaming: bool) -> None:
    """Push and pull: everything arrives, and never much more than bufferSize waits."""
    pair = Pair(link=Link(delay_us=10_000, rate_bytes_per_second=1_000_000, queue_bytes=50_000))
    producer = Producer(pair.client.transport, 40, streaming)
    most = 0
    if streaming:
        producer.begin()
    while producer.blocks and pair.network.now_us < 60_000_000:
        pair.run(0.01)
        most = max(most, pair.client.connection.sending.unsent_bytes)
    pair.client.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.server.lost))
    assert bytes(pair.server.received) == b"".join(pattern(30_000, number) for number in reversed(range(40)))
    assert most <= pair.client.transport.bufferSize + 30_000
    assert "stop" not in producer.calls


def test_lose_connection_waits_for_a_producer() -> None:
    pair = Pair()
    producer = Producer(pair.client.transport, 20, streaming=False)
    pair.client.transport.loseConnection()
    assert pair.run(30, until=lambda: bool(pair.server.lost))
    assert len(pair.server.received) == 20 * 30_000
    assert producer.calls.count("resume") == 20
    assert pair.client.lost_type is error.ConnectionDone


@pytest.mark.parametrize("protocol", [Stream, HalfStream])
def test_the_end_of_the_peers_stream_does_not_cut_a_producer_off(protocol: type[Stream]) -> None:
    """A request ends with a half close; a producer writes the answer bit by bit, behind a call of loseConnection."""

    class Answering(protocol):  # type: ignore[misc,valid-type]
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.producer = Producer(self.transport, 20, streaming=True, size=2_000)
            self.transport.loseConnection()
            self.write_on()

        def write_on(self) -> None:
            producer = self.producer
            producer.blocks -= 1
            self.transport.write(pattern(producer.size, producer.blocks))
            if producer.blocks:
                pair.server_reactor.callLater(0.1, self.write_on)
            else:
                self.transport.unregisterProducer()

    pair = Pair(protocol=HalfStream, wait=False)
    pair.accepting.protocol = Answering
    assert pair.run(1, until=lambda: bool(pair.connecting.made))
    pair.client.transport.write(b"GET")
    pair.client.transport.loseWriteConnection()
    assert pair.run(60, until=lambda: pair.client.read_lost == 1)
    assert pair.client.received == b"".join(pattern(2_000, number) for number in reversed(range(20)))
    pair.client.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


@pytest.mark.parametrize("both", [True, False])
def test_a_transport_that_closes_holds_no_close_back(both: bool) -> None:
    """As in a proxy, whose two transports are each other's producers: nothing unregisters the one that goes first."""
    one, other = Pair(), Pair()
    one.client.transport.registerProducer(other.client.transport, True)
    other.client.transport.registerProducer(one.client.transport, True)
    if both:
        one.client.transport.loseConnection()
        other.client.transport.loseConnection()
    else:
        other.client.transport.abortConnection()
    for pair in (other, one):
        assert pair.run(5, until=lambda pair=pair: bool(pair.client.lost))
        assert pair.run(5, until=lambda pair=pair: bool(pair.server.lost))
    assert one.client.lost_type is one.server.lost_type is error.ConnectionDone


def test_a_producer_that_waits_for_ever_ends_with_the_peer() -> None:
    """Its transport was closed, and the peer goes: keepalives tell that, and the producer is stopped."""
    pair = Pair()
    producer = Producer(pair.client.transport, 40, streaming=True)
    pair.client.transport.loseConnection()
    pair.run(1)
    pair.server.transport.loseConnection()
    assert pair.run(120, until=lambda: bool(pair.client.lost))
    assert pair.server.lost_type is error.ConnectionDone
    assert producer.calls[-1] == "stop"


def test_a_second_producer_is_refused_and_a_late_one_is_stopped() -> None:
    pair = Pair()
    Producer(pair.client.transport, 1_000, streaming=True)
    with pytest.raises(RuntimeError, match="was never unregistered"):
        pair.client.transport.registerProducer(object(), True)
    transport = pair.client.transport
    transport.abortConnection()
    pair.run(1)

    class Late:
        stopped = 0

        def stopProducing(self) -> None:
            self.stopped += 1

    late = Late()
    transport.registerProducer(late, True)
    assert late.stopped == 1
    assert transport.producer is None
    transport.unregisterProducer()


def test_a_producer_is_stopped_once_before_connection_lost() -> None:
    order: list[str] = []

    class Watching(Stream):
        def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
            super().connectionLost(reason)
            order.append("lost")

    pair = Pair(protocol=Watching)
    producer = Producer(pair.client.transport, 1_000_000, streaming=True)
    producer.begin()
    producer.stopProducing = lambda: order.append("stop")  # type: ignore[method-assign]
    pair.run(1)
    pair.server.transport.abortConnection()
    pair.run(1)
    assert order[-2:] == ["stop", "lost"]
    assert order.count("stop") == 1


def test_one_transport_feeds_another() -> None:
    """portforward registers a transport as producer of another: back-pressure goes through both."""
    first, second = Pair(seed=1), Pair(seed=2, link=Link(delay_us=1_000, rate_bytes_per_second=20_000))
    source, sink = first.server.transport, second.client.transport
    sink.registerProducer(source, True)
    first.server.dataReceived = sink.write  # type: ignore[method-assign]
    first.client.transport.write(pattern(3_000_000))
    for _ in range(200):
        first.run(0.01)
        second.run(0.01)
    held = first.server.connection.receiving.ready_bytes
    assert source._paused
    assert held > 500_000
    assert second.client.connection.sending.unsent_bytes < 400_000


def test_reading_pauses_and_resumes() -> None:
    """No delivery and no end while paused; both after, in the next turn, not within resumeProducing."""
    pair = Pair()
    pair.server.transport.pauseProducing()
    pair.client.transport.write(b"held back")
    pair.client.transport.loseConnection()
    pair.run(3)
    assert pair.server.received == b""
    assert not pair.server.lost
    pair.server.transport.resumeProducing()
    assert pair.server.received == b""
    pair.run(3)
    assert bytes(pair.server.received) == b"held back"
    assert pair.server.lost_type is error.ConnectionDone


def test_pausing_within_data_received_holds_the_rest() -> None:
    class Sipping(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.pauseProducing()

    pair = Pair(protocol=Sipping)
    pair.client.transport.write(pattern(2_000_000))
    pair.run(30)
    first = len(pair.server.received)
    assert 0 < first <= 300_000
    for _ in range(2_000):
        pair.server.transport.resumeProducing()
        pair.run(0.1)
        if len(pair.server.received) == 2_000_000:
            break
    assert bytes(pair.server.received) == pattern(2_000_000)


@pytest.mark.parametrize("data", ["text", bytearray(b"x"), memoryview(b"x"), 5, None])
def test_only_bytes_are_written(data: Any) -> None:
    pair = Pair()
    with pytest.raises(TypeError, match="Data must be bytes"):
        pair.client.transport.write(data)
    with pytest.raises(TypeError, match="Data must be bytes"):
        pair.client.transport.writeSequence([b"fine", data])
    pair.run(1)
    assert pair.server.received == b""


def test_write_sequence_takes_generators() -> None:
    pair = Pair()
    pair.client.transport.writeSequence(piece for piece in (b"a", b"b", b"c"))
    pair.client.transport.write(b"")
    pair.run(1)
    assert bytes(pair.server.received) == b"abc"


def test_writes_after_lose_connection_still_arrive() -> None:
    """As TCP: until the FIN is on its way."""
    pair = Pair()
    pair.client.transport.write(b"a")
    pair.client.transport.loseConnection()
    pair.client.transport.write(b"b")
    pair.run(3)
    assert bytes(pair.server.received) == b"ab"


def test_everything_after_the_end_is_harmless() -> None:
    pair = Pair()
    transport = pair.client.transport
    peer, host = transport.getPeer(), transport.getHost()
    transport.loseConnection()
    pair.run(3)
    assert len(pair.client.lost) == 1
    transport.write(b"x")
    transport.writeSequence([b"x"])
    transport.loseConnection()
    transport.loseWriteConnection()
    transport.abortConnection()
    transport.pauseProducing()
    transport.resumeProducing()
    transport.stopProducing()
    transport.stopConsuming()
    transport.setTcpNoDelay(True)
    assert transport.getPeer() == peer
    assert transport.getHost() == host
    assert (peer.host, peer.port, peer.type) == ("10.0.0.1", 6881, "UDP")
    pair.run(3)
    assert len(pair.client.lost) == 1


class Kaput(Exception):
    pass


@pytest.mark.parametrize("where", ["connectionMade", "dataReceived", "connectionLost"])
def test_an_exception_ends_only_its_own_connection(where: str) -> None:
    """What a protocol raises is the reason of its own end; the port and others go on."""

    def fail(self: Stream, *arguments: Any) -> None:
        getattr(Stream, where)(self, *arguments)
        raise Kaput

    failing = type("Failing", (Stream,), {where: fail})
    scene = ScriptedClient(protocol=failing)
    scene.peer.data(b"x")
    scene.run(0.1)
    scene.peer.fin()
    scene.run(4)
    expected = error.ConnectionDone if where == "connectionLost" else Kaput
    assert scene.server.lost_type is expected
    scene.peer.take()
    scene.connection_id = 3_000
    scene.handshake()
    assert len(scene.accepting.made) == 2


@pytest.mark.parametrize("where", ["readConnectionLost", "writeConnectionLost"])
def test_an_exception_in_a_half_close_ends_the_connection(where: str) -> None:
    def fail(self: HalfStream) -> None:
        raise Kaput

    pair = Pair(protocol=type("Failing", (HalfStream,), {where: fail}))
    pair.client.transport.loseWriteConnection()
    pair.run(3)
    failing = pair.server if where == "readConnectionLost" else pair.client
    assert failing.lost_type is Kaput


def test_abort_within_data_received_is_not_re_entrant() -> None:
    class Aborting(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.abortConnection()
            assert not self.lost

    pair = Pair(protocol=Aborting)
    pair.client.transport.write(pattern(100_000))
    pair.run(3)
    assert pair.server.lost_type is error.ConnectionAborted
    assert pair.server.deliveries == 1


def test_a_factory_that_builds_nothing_resets() -> None:
    pair = Pair(wait=False)
    pair.accepting.buildProtocol = lambda addr: None  # type: ignore[method-assign, assignment, return-value]
    pair.run(1)
    assert pair.client.lost_type is error.ConnectionLost


def test_half_close_from_both_sides_ends_when_the_application_says_so() -> None:
    pair = Pair(protocol=HalfStream)
    pair.client.transport.loseWriteConnection()
    pair.server.transport.loseWriteConnection()
    pair.run(60)
    assert (pair.client.read_lost, pair.client.write_lost) == (1, 1)
    assert (pair.server.read_lost, pair.server.write_lost) == (1, 1)
    assert not pair.client.lost
    pair.client.transport.loseConnection()
    pair.server.transport.loseConnection()
    pair.run(3)
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_log_prefixes_and_session_numbers() -> None:
    pair = Pair()
    assert pair.client.transport.logPrefix() == "Stream,client"
    assert pair.server.transport.logPrefix() == "Stream,0,10.0.0.2"
    assert pair.server.transport.sessionno == 0
    assert repr(pair.server.transport) == "<Stream #0 on 6881>"


def test_the_advertised_buffer_is_a_setting() -> None:
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=77_777))
    scene.peer.data(b"x")
    scene.run(0.01)
    assert scene.peer.take()[-1].wnd_size == 77_777


def outcome_of(deferred: Deferred[None]) -> list[Any]:
    """A list that gets what a Deferred fires with: None, or the type of the exception."""
    outcome: list[Any] = []
    deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.type))
    return outcome


def test_acknowledged_fires_when_the_peer_has_everything_written_so_far() -> None:
    """Not when it has left, and in the order of writing; what is written later makes no difference."""
    pair = Pair(link=Link(delay_us=50_000, rate_bytes_per_second=1_000_000, queue_bytes=50_000))
    transport = pair.client.transport
    transport.write(pattern(10_000))
    first = outcome_of(transport.acknowledged())
    transport.write(pattern(300_000))
    second = outcome_of(transport.acknowledged())

    assert pair.run(60, until=lambda: bool(first))
    assert 10_000 <= len(pair.server.received) < 310_000
    assert not second
    assert pair.run(60, until=lambda: bool(second))
    assert len(pair.server.received) == 310_000
    assert first == second == [None]


def test_acknowledged_has_fired_already_if_nothing_is_under_way() -> None:
    pair = Pair()
    assert pair.client.transport.acknowledged().called
    pair.client.transport.write(b"x")
    assert not pair.client.transport.acknowledged().called
    pair.run(1)
    assert pair.client.transport.acknowledged().called


def test_selective_acks_behind_a_gap_acknowledge_nothing() -> None:
    """A peer may take those back."""
    scene = ScriptedClient()
    scene.push(pattern(1_000))
    before = outcome_of(scene.server.transport.acknowledged())
    scene.peer.ack += 1
    head = scene.peer.ack
    scene.server.transport.setTcpNoDelay(True)
    for number in range(3):
        scene.push(pattern(1_000, number))
    after = outcome_of(scene.server.transport.acknowledged())

    scene.peer.state(ack_nr=head - 1, selective_ack=0b11)
    scene.run(0.001)
    assert (before, after) == ([], [])
    scene.peer.state(ack_nr=head)
    scene.run(0.001)
    assert (before, after) == ([None], [])
    scene.peer.state(ack_nr=head + 3)
    scene.run(0.001)
    assert after == [None]


def test_acknowledged_survives_loss() -> None:
    """Whatever is lost and sent again: all of it fires, in order, never before the bytes are there."""
    pair = Pair(link=Link(delay_us=10_000, loss=0.1), seed=7)
    fired: list[int] = []
    for number in range(1, 51):
        pair.client.transport.write(pattern(20_000, number))

        def arrived(result: None, number: int = number) -> None:
            assert len(pair.server.received) >= number * 20_000
            fired.append(number)

        pair.client.transport.acknowledged().addCallback(arrived)
    assert pair.run(120, until=lambda: len(fired) == 50)
    assert fired == list(range(1, 51))


def test_lose_connection_does_not_lose_the_acknowledgement() -> None:
    """It fires before connectionLost, although the end may be told with the same ack."""
    order: list[str] = []

    class Watching(Stream):
        def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
            super().connectionLost(reason)
            order.append("lost")

    pair = Pair(protocol=Watching)
    transport = pair.client.transport
    transport.write(pattern(100_000))
    transport.acknowledged().addCallback(lambda result: order.append("acknowledged"))
    transport.loseConnection()
    assert pair.run(30, until=lambda: bool(pair.client.lost))
    assert order[0] == "acknowledged"
    assert "lost" in order[1:]
    assert transport.acknowledged().called


@pytest.mark.parametrize("end", ["abort", "reset", "silence"])
def test_acknowledged_fails_with_the_reason_of_the_end(end: str) -> None:
    """Exactly once, before connectionLost; asked after the end it fails at once."""
    pair = Pair()
    transport = pair.client.transport
    transport.write(b"these arrive")
    pair.run(1)
    if end == "silence":
        pair.up.loss = 1.0
    transport.write(pattern(500_000))
    failures: list[Failure] = []
    lost_before: list[int] = []
    for _ in range(2):
        acknowledged = transport.acknowledged()
        acknowledged.addErrback(lambda failure: (failures.append(failure), lost_before.append(len(pair.client.lost))))
    if end == "abort":
        transport.abortConnection()
    elif end == "reset":
        pair.server.transport.abortConnection()
    pair.run(600)
    assert failures == pair.client.lost * 2
    assert pair.client.lost_type is (error.ConnectionAborted if end == "abort" else error.ConnectionLost)
    assert lost_before == [0, 0]
    assert outcome_of(transport.acknowledged()) == [pair.client.lost_type]


def test_acknowledged_can_be_cancelled() -> None:
    """Also while another one is told of the end."""
    pair = Pair()
    transport = pair.client.transport
    transport.write(pattern(100_000))
    first, second, third = (transport.acknowledged() for _ in range(3))
    first.addBoth(lambda result: third.cancel())
    outcomes = [outcome_of(deferred) for deferred in (first, second, third)]
    second.cancel()
    assert outcomes == [[], [CancelledError], []]
    transport.abortConnection()
    pair.run(1)
    assert outcomes == [[None], [CancelledError], [CancelledError]]


@pytest.mark.parametrize("streaming", [True, False])
def test_acknowledged_counts_what_a_producer_wrote_so_far(streaming: bool) -> None:
    pair = Pair(link=Link(delay_us=10_000, rate_bytes_per_second=1_000_000, queue_bytes=50_000))
    producer = Producer(pair.client.transport, 20, streaming)
    if streaming:
        producer.begin()
    written = 20 - producer.blocks
    arrived: list[int] = []
    pair.client.transport.acknowledged().addCallback(lambda result: arrived.append(len(pair.server.received)))
    assert pair.run(60, until=lambda: bool(arrived))
    assert written * 30_000 <= arrived[0] < 20 * 30_000
    pair.client.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.server.lost))
    assert len(pair.server.received) == 20 * 30_000


def test_what_is_written_when_an_acknowledgement_fires_is_sent() -> None:
    """A program may write one block after the other this way, and close within the last."""
    pair = Pair()
    transport = pair.client.transport

    def more(result: None, number: int = 0) -> None:
        if number == 5:
            transport.loseConnection()
            return
        transport.write(pattern(10_000, number))
        transport.acknowledged().addCallback(more, number + 1)

    more(None)
    assert pair.run(30, until=lambda: bool(pair.server.lost))
    assert bytes(pair.server.received) == b"".join(pattern(10_000, number) for number in range(5))


def test_acknowledged_with_tls_counts_what_tls_has_handed_down() -> None:
    """The ciphertext, so it fires when the peer's computer has that."""
    ssl = pytest.importorskip("twisted.internet.ssl", reason="pyOpenSSL is not installed")
    pair = Pair()
    pair.client.transport.startTLS(ssl.CertificateOptions())
    pair.client.transport.write(b"waits for the handshake of TLS")
    outcome = outcome_of(pair.client.transport.acknowledged())
    assert pair.run(5, until=lambda: bool(outcome))
    assert outcome == [None]
    assert pair.server.received
    assert b"waits" not in pair.server.received
