"""What the interfaces of Twisted promise and Twisted's own tests do not ask, as mixins.

They are written like those of ``twisted.internet.test``: every test makes a reactor, connects two
protocols and runs until both have disconnected. They hold over TCP too, unless they say otherwise.
"""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import error, interfaces
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Protocol, ServerFactory
from twisted.internet.test.connectionmixins import ConnectableProtocol, runProtocolsWithReactor
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.conformance import binding
from tests.conformance.skips import ADDRESSES_OF_TCP, ITERABLES_OF_TCP, SILENCE_OF_TCP

if TYPE_CHECKING:
    Builder = binding.BoundBuilder
else:
    Builder = object

# How long a test waits to see that nothing happens.
SILENCE_SECONDS = 0.15


class Side(ConnectableProtocol):
    """One end of a connection, with what it was told in the order of the telling."""

    def __init__(self, made: Callable[[Any], object] | None = None) -> None:
        self.news: list[str] = []
        self.data = b""
        self.on_made = made
        self.on_data: Callable[[Any], object] | None = None
        self.on_lost: Callable[[Any], object] | None = None

    def connectionMade(self) -> None:
        """Note it, then do what the test wants."""
        self.news.append("made")
        if self.on_made is not None:
            self.on_made(self)

    def dataReceived(self, data: bytes) -> None:
        """Collect the data; one note for any number of pieces."""
        self.data += data
        if self.news[-1] != "data":
            self.news.append("data")
        if self.on_data is not None:
            self.on_data(self)

    def connectionLost(self, reason: Any) -> None:
        """Note it, then let the test end."""
        self.news.append("lost")
        if self.on_lost is not None:
            self.on_lost(self)
        super().connectionLost(reason)

    def writeToDetectPeerDisconnection(self) -> None:
        """Nothing: the transport has to find out by itself."""


@implementer(interfaces.IHalfCloseableProtocol)
class HalfCloseableSide(Side):
    """The same for a protocol that wants to hear of each direction."""

    def readConnectionLost(self) -> None:
        """The peer sends nothing more."""
        self.news.append("read lost")

    def writeConnectionLost(self) -> None:
        """We send nothing more."""
        self.news.append("write lost")


@implementer(interfaces.IPushProducer)
class Producer:
    """Produces nothing, and notes what its consumer wants."""

    def __init__(self, news: list[str]) -> None:
        self.news = news

    def resumeProducing(self) -> None:
        """More, please."""
        self.news.append("resume")

    def pauseProducing(self) -> None:
        """No more for now."""
        self.news.append("pause")

    def stopProducing(self) -> None:
        """Never more."""
        self.news.append("stop")


def utp_only(reason: str) -> Callable[[Any], Any]:
    """Skip a test over TCP, which for this reason cannot pass it."""

    def decorate(test: Any) -> Any:
        if not binding.OVER_UTP:
            test.skip = reason
        return test

    return decorate


def pending_calls(reactor: Any) -> list[Any]:
    """The timers that a connection has left behind; the asyncio reactor leaves one of its own."""
    return [call for call in reactor.getDelayedCalls() if "Reactor.stop." not in str(call)]


def lose(side: Side) -> None:
    """Close the connection of this side."""
    assert side.transport is not None
    side.transport.loseConnection()


class Promises(Builder):
    """What all of them need."""

    def run_sides(self, server: Side, client: Side) -> Any:
        """Connect the two and run until both have lost the connection."""
        return runProtocolsWithReactor(self, server, client, self.endpoints)


class ReadingPromises(Promises):
    """Pausing, resuming and the order of bytes."""

    def test_paused_transport_delivers_nothing(self) -> None:
        """A transport paused in connectionMade is silent until it is resumed, then tells all."""
        heard: list[bytes] = []

        def resume(side: Side) -> None:
            """Keep what was heard while paused, and go on."""
            heard.append(side.data)
            side.transport.resumeProducing()

        def pause(side: Side) -> None:
            """Pause at once and resume later."""
            side.transport.pauseProducing()
            side.reactor.callLater(SILENCE_SECONDS, resume, side)

        server = Side(pause)
        client = Side(lambda side: side.transport.write(b"x" * 5000))
        server.on_data = lambda side: len(side.data) == 5000 and lose(side)

        self.run_sides(server, client)

        self.assertEqual(heard, [b""])
        self.assertEqual(server.data, b"x" * 5000)

    def test_pause_in_data_received(self) -> None:
        """After pauseProducing in dataReceived no second dataReceived comes before the resume."""
        paused = [False]

        def resume(side: Side) -> None:
            """Go on to the next piece."""
            paused[0] = False
            side.transport.resumeProducing()

        def pause(side: Side) -> None:
            """Pause after every piece."""
            self.assertFalse(paused[0])
            if len(side.data) == 300_000:
                lose(side)
            else:
                paused[0] = True
                side.transport.pauseProducing()
                side.reactor.callLater(0.001, resume, side)

        server = Side()
        server.on_data = pause
        client = Side(lambda side: side.transport.write(b"x" * 300_000))

        self.run_sides(server, client)

        self.assertEqual(len(server.data), 300_000)

    def test_resume_is_not_reentrant(self) -> None:
        """resumeProducing never calls dataReceived before it has returned."""
        inside = [False]
        reentered: list[bool] = []

        def resume(side: Side) -> None:
            """Resume, and know it while that lasts."""
            inside[0] = True
            side.transport.resumeProducing()
            inside[0] = False

        def pause(side: Side) -> None:
            """Pause at once and resume later, when data waits."""
            side.transport.pauseProducing()
            side.reactor.callLater(SILENCE_SECONDS, resume, side)

        def received(side: Side) -> None:
            """Note whether resume() is below us on the stack."""
            reentered.append(inside[0])
            lose(side)

        server = Side(pause)
        server.on_data = received
        client = Side(lambda side: side.transport.write(b"hello"))

        self.run_sides(server, client)

        self.assertEqual(reentered, [False])

    def test_resume_after_lose_connection(self) -> None:
        """A transport that is being closed delivers nothing more, even if it is resumed."""

        def close(side: Side) -> None:
            """Close, then ask for more."""
            lose(side)
            side.transport.resumeProducing()

        server = Side(close)
        client = Side(lambda side: side.transport.write(b"too late"))

        self.run_sides(server, client)

        self.assertEqual(server.news, ["made", "lost"])

    def test_everything_is_silent_after_the_end(self) -> None:
        """After connectionLost all methods of a transport may still be called, without effect."""

        def use(side: Side) -> None:
            """Call whatever a tidy application calls while it cleans up."""
            transport = side.transport
            transport.pauseProducing()
            transport.resumeProducing()
            transport.write(b"x")
            transport.writeSequence([b"x", b"y"])
            transport.unregisterProducer()
            if binding.OVER_UTP:
                # TCP's would add a file descriptor to the reactor that is already closed.
                transport.loseWriteConnection()
            transport.loseConnection()
            transport.abortConnection()
            transport.stopProducing()

        server, client = Side(lose), Side()
        server.on_lost = client.on_lost = use

        self.run_sides(server, client)

        self.assertEqual(server.news, ["made", "lost"])
        self.assertEqual(client.news, ["made", "lost"])

    def test_no_data_inside_connection_made(self) -> None:
        """Data that came with the handshake is delivered after connectionMade has returned."""

        def speak(side: Side) -> None:
            """Speak first: a server may."""
            side.transport.write(b"welcome")
            self.assertEqual(side.news, ["made"])

        server, client = Side(speak), Side(speak)
        server.on_data = client.on_data = lambda side: len(side.data) == 7 and lose(side)

        self.run_sides(server, client)

        self.assertIn(b"welcome", (server.data, client.data))

    def test_empty_writes_are_nothing(self) -> None:
        """Writing no bytes sends nothing and calls nothing."""

        def write(side: Side) -> None:
            """Write nothing in every way."""
            side.transport.write(b"")
            side.transport.writeSequence([])
            side.transport.writeSequence([b"", b""])
            side.reactor.callLater(SILENCE_SECONDS, lose, side)

        server, client = Side(), Side(write)

        self.run_sides(server, client)

        self.assertEqual(server.news, ["made", "lost"])

    def test_only_bytes_can_be_written(self) -> None:
        """write and writeSequence refuse everything else, and then nothing was written."""
        errors: list[str] = []

        def write(side: Side) -> None:
            """Write what cannot be written."""
            for attempt in (
                lambda: side.transport.write("text"),
                lambda: side.transport.writeSequence([b"bytes", "text"]),
            ):
                errors.append(str(self.assertRaises(TypeError, attempt)))
            lose(side)

        server, client = Side(), Side(write)

        self.run_sides(server, client)

        self.assertEqual(errors, ["Data must be bytes"] * 2)
        self.assertEqual(server.data, b"")

    @utp_only(ITERABLES_OF_TCP)
    def test_generator_in_write_sequence(self) -> None:
        """writeSequence takes any iterable of bytes."""

        def write(side: Side) -> None:
            """Write from a generator."""
            side.transport.writeSequence(piece for piece in (b"one ", b"two ", b"three"))
            lose(side)

        server, client = Side(), Side(write)

        self.run_sides(server, client)

        self.assertEqual(server.data, b"one two three")

    def test_both_ways_at_once(self) -> None:
        """Four megabytes each way, in writes of all sizes, arrive unchanged and in order."""
        size = 4_000_000
        seeded = random.Random(5)
        contents = [seeded.randbytes(size) for _ in range(2)]
        digests = [hashlib.sha256(content).hexdigest() for content in contents]

        def sender(content: bytes) -> Callable[[Side], None]:
            """Something that writes the content in pieces."""

            def send(side: Side) -> None:
                start = 0
                while start < size:
                    end = start + seeded.choice([1, 7, 1400, 20_000, 300_000])
                    side.transport.write(content[start:end])
                    start = end

            return send

        complete: list[Side] = []

        def received(side: Side) -> None:
            """Close when both have everything."""
            if len(side.data) >= size:
                complete.append(side)
                if len(complete) == 2:
                    lose(side)

        server, client = Side(sender(contents[0])), Side(sender(contents[1]))
        server.on_data = client.on_data = received

        self.run_sides(server, client)

        found = [hashlib.sha256(side.data).hexdigest() for side in (client, server)]
        self.assertEqual(found, digests)


class ClosingPromises(Promises):
    """The ends of a connection."""

    def test_lose_connection_sends_everything(self) -> None:
        """Whatever was written before loseConnection arrives, however much it is."""

        def write(side: Side) -> None:
            """Write much more than any window and close."""
            side.transport.write(b"x" * 2_000_000)
            lose(side)

        server, client = Side(), Side(write)

        self.run_sides(server, client)

        self.assertEqual(len(server.data), 2_000_000)
        self.assertIsInstance(server.disconnectReason.value, error.ConnectionDone)
        self.assertIsInstance(client.disconnectReason.value, error.ConnectionDone)

    def test_write_after_lose_connection(self) -> None:
        """What is written right after loseConnection still arrives."""

        def write(side: Side) -> None:
            """Close between two writes."""
            side.transport.write(b"a")
            lose(side)
            side.transport.write(b"b")

        server, client = Side(), Side(write)

        self.run_sides(server, client)

        self.assertEqual(server.data, b"ab")

    def test_lose_connection_is_not_reentrant(self) -> None:
        """connectionLost comes after loseConnection has returned; ``disconnecting`` is at once."""
        seen: list[Any] = []

        def close(side: Side) -> None:
            """Close twice and look around."""
            lose(side)
            lose(side)
            seen.extend([bool(side.transport.disconnecting), list(side.news)])

        server, client = Side(close), Side()

        self.run_sides(server, client)

        self.assertEqual(seen, [True, ["made"]])
        self.assertEqual(server.news, ["made", "lost"])

    def test_both_sides_close_at_once(self) -> None:
        """Two closings that cross end cleanly on both sides."""
        server, client = Side(lose), Side(lose)

        self.run_sides(server, client)

        for side in (server, client):
            self.assertEqual(side.news, ["made", "lost"])
            self.assertIsInstance(side.disconnectReason.value, error.ConnectionDone)

    def test_abort_is_heard_by_the_peer(self) -> None:
        """The peer of an aborted connection hears ConnectionLost, without writing anything."""

        def abort(side: Side) -> None:
            """Abort when the connection is known to stand."""
            side.transport.abortConnection()

        server = Side(lambda side: side.transport.write(b"hello"))
        client = Side()
        client.on_data = abort

        self.run_sides(server, client)

        self.assertIsInstance(client.disconnectReason.value, error.ConnectionAborted)
        self.assertIsInstance(server.disconnectReason.value, error.ConnectionLost)

    def test_abort_overtakes_lose(self) -> None:
        """abortConnection after loseConnection does not wait for what was written."""

        def close(side: Side) -> None:
            """Write into a peer that does not read, close, lose patience."""
            side.transport.write(b"x" * 8_000_000)
            lose(side)
            side.reactor.callLater(SILENCE_SECONDS, side.transport.abortConnection)

        def startReading(side: Side) -> None:
            """Let the peer notice the end."""
            server.transport.resumeProducing()

        server = Side(lambda side: side.transport.pauseProducing())
        client = Side(close)
        client.on_lost = startReading

        self.run_sides(server, client)

        self.assertIsInstance(client.disconnectReason.value, error.ConnectionAborted)
        self.assertLess(len(server.data), 8_000_000)

    def test_half_close_keeps_the_other_half(self) -> None:
        """After loseWriteConnection the peer can still send, as long as it likes."""

        def ask(side: Side) -> None:
            """Ask, and say that this was all."""
            side.transport.write(b"question")
            side.transport.loseWriteConnection()

        def answer() -> None:
            """Answer when the question is complete."""
            server.news.append("read lost")
            server.transport.write(b"y" * 200_000)
            lose(server)

        server, client = HalfCloseableSide(), HalfCloseableSide(ask)
        server.readConnectionLost = answer  # type: ignore[method-assign]

        def read_lost() -> None:
            """A half closeable protocol has to close by itself."""
            client.news.append("read lost")
            lose(client)

        client.readConnectionLost = read_lost  # type: ignore[method-assign]

        self.run_sides(server, client)

        self.assertEqual(server.data, b"question")
        self.assertEqual(server.news, ["made", "data", "read lost", "lost"])
        self.assertEqual(len(client.data), 200_000)
        self.assertEqual(client.news, ["made", "write lost", "data", "read lost", "lost"])

    def test_exception_in_data_received(self) -> None:
        """A bug in a protocol is logged and ends its connection, and only that, with the bug."""

        def fail(side: Side) -> None:
            """The bug."""
            raise ZeroDivisionError("a bug")

        server = Side()
        server.on_data = fail
        client = Side(lambda side: side.transport.write(b"hello"))

        self.run_sides(server, client)

        self.assertIsInstance(server.disconnectReason.value, ZeroDivisionError)
        self.assertEqual(client.news, ["made", "lost"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_reactor_stops_with_open_connections(self) -> None:
        """Every protocol hears of the end when the reactor stops, and no timer is left."""
        reactor = self.buildReactor()
        server_side, client_side = Side(), Side()
        for side in (server_side, client_side):
            # runProtocolsWithReactor would set these.
            side._setAttributes(reactor, Deferred(), side)
        listening = self.endpoints.server(reactor).listen(Remembering([server_side]))

        def made(side: Side) -> None:
            """Stop when a byte has shown that the connection stands on both sides."""
            side.transport.write(b"x")

        client_side.on_made = made
        server_side.on_data = lambda side: reactor.stop()

        def connect(port: Any) -> Any:
            """Connect the one client."""
            endpoint = self.endpoints.client(reactor, port.getHost())
            return endpoint.connect(Remembering([client_side]))

        reactor.callWhenRunning(listening.addCallback, connect)
        self.runReactor(reactor)

        self.assertEqual(server_side.news, ["made", "data", "lost"])
        self.assertEqual(client_side.news, ["made", "lost"])
        self.assertEqual(pending_calls(reactor), [])


class Remembering(ClientFactory):
    """A factory, for either end, that hands out given protocols in order."""

    def __init__(self, protocols: list[Any]) -> None:
        self.protocols = list(protocols)
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Any:
        """The next protocol, or none when there are no more."""
        self.addresses.append(addr)
        return self.protocols.pop(0) if self.protocols else None


class ProducerPromises(Promises):
    """Producers, as ``IConsumer`` describes them."""

    def test_second_producer_is_refused(self) -> None:
        """Only one producer at a time; after unregisterProducer another one may come."""

        def register(side: Side) -> None:
            """Two at once, then one after the other."""
            transport = side.transport
            transport.registerProducer(Producer([]), True)
            self.assertRaises(RuntimeError, transport.registerProducer, Producer([]), True)
            transport.unregisterProducer()
            transport.registerProducer(Producer([]), True)
            transport.unregisterProducer()
            transport.unregisterProducer()
            lose(side)

        server, client = Side(register), Side()

        self.run_sides(server, client)

        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertIsInstance(server.disconnectReason.value, error.ConnectionDone)

    def test_producer_is_stopped_before_connection_lost(self) -> None:
        """When the peer goes, the producer hears it exactly once and before the protocol."""

        def register(side: Side) -> None:
            """Note the producer's news among those of the protocol."""
            side.transport.registerProducer(Producer(side.news), True)

        server, client = Side(register), Side(lose)

        self.run_sides(server, client)

        self.assertEqual(server.news, ["made", "stop", "lost"])

    def test_producer_that_comes_too_late(self) -> None:
        """A producer registered after the end is stopped at once."""

        def register(side: Side) -> None:
            """Register from connectionLost."""
            side.transport.registerProducer(Producer(side.news), True)

        server, client = Side(lose), Side()
        server.on_lost = register

        self.run_sides(server, client)

        self.assertEqual(server.news, ["made", "lost", "stop"])

    def test_pull_producer_is_asked_at_once(self) -> None:
        """Registering a pull producer asks it once before registerProducer returns."""
        seen: list[list[str]] = []

        def register(side: Side) -> None:
            """Look at what the producer was told so far."""
            news: list[str] = []
            side.transport.registerProducer(Producer(news), False)
            seen.append(list(news))
            side.transport.unregisterProducer()
            lose(side)

        server, client = Side(register), Side()

        self.run_sides(server, client)

        self.assertEqual(seen, [["resume"]])

    def test_pull_producer_writes_a_file(self) -> None:
        """A pull producer that writes one piece whenever it is asked gets all of it through."""
        pieces = [bytes([number]) * 30_000 for number in range(60)]

        @implementer(interfaces.IPullProducer)
        class FileSender:
            """Writes one piece at a time, as twisted.protocols.basic.FileSender does."""

            def __init__(self, side: Side) -> None:
                self.side = side
                self.waiting = list(pieces)

            def resumeProducing(self) -> None:
                """The next piece, or the end."""
                if self.waiting:
                    self.side.transport.write(self.waiting.pop(0))
                else:
                    self.side.transport.unregisterProducer()
                    lose(self.side)

            def stopProducing(self) -> None:
                """Not in this test."""

        server = Side(lambda side: side.transport.registerProducer(FileSender(side), False))
        client = Side()

        self.run_sides(server, client)

        self.assertEqual(client.data, b"".join(pieces))

    def test_slow_reader_pauses_the_producer(self) -> None:
        """Against a peer that does not read, a push producer is paused after bounded bytes."""
        written = [0]
        bound = 40_000_000

        @implementer(interfaces.IPushProducer)
        class Flood:
            """Writes as fast as it is allowed."""

            running = True

            def __init__(self, side: Side) -> None:
                self.side = side

            def resumeProducing(self) -> None:
                """Go on."""
                self.running = True
                self.side.reactor.callLater(0, self.produce)

            def pauseProducing(self) -> None:
                """Wait."""
                self.running = False

            def stopProducing(self) -> None:
                """End."""
                self.running = False

            def produce(self) -> None:
                """One piece, then let the reactor turn."""
                if self.running and written[0] < bound:
                    written[0] += 100_000
                    self.side.transport.write(b"x" * 100_000)
                    self.side.reactor.callLater(0, self.produce)

        def flood(side: Side) -> None:
            """Start, and give up a little later."""
            producer = Flood(side)
            side.transport.registerProducer(producer, True)
            producer.resumeProducing()
            side.reactor.callLater(1, side.transport.abortConnection)

        server = Side(lambda side: side.transport.pauseProducing())
        client = Side(flood)
        client.on_lost = lambda side: server.transport.resumeProducing()

        self.run_sides(server, client)

        self.assertLess(written[0], bound)

    def test_transport_produces_for_another(self) -> None:
        """A transport is a push producer: it can be registered with the one it feeds."""

        def register(side: Side) -> None:
            """Echo, with the transport as producer of itself, as port forwarders do."""
            side.transport.registerProducer(side.transport, True)

        def echo(side: Side) -> None:
            """Send back what came."""
            side.transport.write(side.data)
            side.data = b""

        def received(side: Side) -> None:
            """Close when everything is back."""
            if len(side.data) == 1_000_000:
                lose(side)

        server = Side(register)
        server.on_data = echo
        client = Side(lambda side: side.transport.write(b"x" * 1_000_000))
        client.on_data = received

        self.run_sides(server, client)

        self.assertEqual(client.data, b"x" * 1_000_000)


class EndpointPromises(Promises):
    """Listening, connecting, giving up and failing."""

    def run_steps(self, steps: Callable[[Any], Any]) -> Any:
        """Run a coroutine function, given a reactor, on that reactor until it is done."""
        reactor = self.buildReactor()
        outcome: list[Any] = []

        def start() -> None:
            """Begin when the reactor runs, and stop it at the end whatever that is."""
            running = Deferred.fromCoroutine(steps(reactor))
            running.addBoth(outcome.append)
            running.addBoth(lambda ignored: reactor.stop())

        reactor.callWhenRunning(start)
        self.runReactor(reactor)
        if hasattr(outcome[0], "raiseException"):
            outcome[0].raiseException()
        self.assertEqual(pending_calls(reactor), [])
        return outcome[0]

    def silent_port(self) -> int:
        """A port of a plain UDP socket that never answers."""
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        self.addCleanup(silent.close)
        return int(silent.getsockname()[1])

    def silent_client(self, reactor: Any) -> Any:
        """An endpoint whose connection attempt gets no answer."""
        server_address = binding.IPv4Address("TCP", "127.0.0.1", self.silent_port())
        return self.endpoints.client(reactor, server_address)

    def test_listen_is_done_at_once(self) -> None:
        """The Deferred of listen() has fired when listen() returns; many callers count on it."""
        reactor = self.buildReactor()

        port = self.successResultOf(self.endpoints.server(reactor).listen(Remembering([])))

        self.assertTrue(verifyObject(interfaces.IListeningPort, port))

    def test_no_protocol(self) -> None:
        """A client factory that builds no protocol makes connect() fail with NoProtocol."""

        async def steps(reactor: Any) -> None:
            port = await self.endpoints.server(reactor).listen(ServerFactory.forProtocol(Protocol))
            try:
                await self.endpoints.client(reactor, port.getHost()).connect(Remembering([]))
            except error.NoProtocol:
                return
            raise AssertionError("it connected without a protocol")

        self.run_steps(steps)

    def test_refused(self) -> None:
        """Connecting where nobody listens fails soon, with ConnectionRefusedError."""

        async def steps(reactor: Any) -> None:
            port = await self.endpoints.server(reactor).listen(Remembering([]))
            address = port.getHost()
            await port.stopListening()
            client = self.endpoints.client(reactor, address)
            try:
                await client.connect(ClientFactory.forProtocol(Protocol))
            except error.ConnectionRefusedError:
                return
            raise AssertionError("it connected to nobody")

        self.run_steps(steps)

    @utp_only(SILENCE_OF_TCP)
    def test_cancelled_connect(self) -> None:
        """Cancelling connect() while it waits fails it with ConnectingCancelledError."""

        async def steps(reactor: Any) -> None:
            connecting = self.silent_client(reactor).connect(ClientFactory.forProtocol(Protocol))
            reactor.callLater(SILENCE_SECONDS, connecting.cancel)
            try:
                await connecting
            except error.ConnectingCancelledError:
                return
            raise AssertionError("it connected to nobody")

        self.run_steps(steps)

    @utp_only(SILENCE_OF_TCP)
    def test_timeout(self) -> None:
        """An attempt that is never answered ends with TimeoutError, after the time given."""
        reactor = self.buildReactor()
        failures: list[Any] = []

        class Impatient(ClientFactory):
            """Notes how it failed."""

            def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
                """Note the reason and the state of the connector."""
                failures.append((reason.value, connector.state))
                reactor.stop()

        def connect() -> None:
            """Try to connect."""
            port = self.silent_port()
            binding.connect(reactor, "127.0.0.1", port, Impatient(), timeout=0.3)

        reactor.callWhenRunning(connect)
        self.runReactor(reactor)

        [(reason, state)] = failures
        self.assertIsInstance(reason, error.TimeoutError)
        self.assertEqual(state, "disconnected")
        self.assertEqual(pending_calls(reactor), [])

    def test_connections_survive_stop_listening(self) -> None:
        """stopListening ends soon while a connection lives on, and the port can be used again."""

        async def steps(reactor: Any) -> None:
            sides = [Side() for _ in range(4)]
            for side in sides:
                side._setAttributes(reactor, Deferred(), side)
            ends = [side._done for side in sides]
            first_server, first_client, second_server, second_client = sides

            # a connection, and then nobody listens any more
            port = binding.listen(reactor, 0, Remembering([first_server]), "127.0.0.1")
            address = port.getHost()
            endpoint = self.endpoints.client(reactor, address)
            await endpoint.connect(Remembering([first_client]))
            first_client.transport.write(b"before ")
            await data_of(reactor, first_server, b"before ")
            await port.stopListening()

            # the old connection still works, and a new one on the same port does too
            first_client.transport.write(b"after")
            await data_of(reactor, first_server, b"before after")
            again = binding.listen(reactor, address.port, Remembering([second_server]), "127.0.0.1")
            await self.endpoints.client(reactor, address).connect(Remembering([second_client]))
            second_client.transport.write(b"new")
            await data_of(reactor, second_server, b"new")
            first_server.transport.write(b"old")
            await data_of(reactor, first_client, b"old")

            # both end
            lose(first_client)
            lose(second_client)
            for end in ends:
                await end
            await again.stopListening()

        self.run_steps(steps)

    def test_many_connections_share_a_port(self) -> None:
        """Forty connections at once, each with its own data."""
        count = 40

        async def steps(reactor: Any) -> None:
            servers = [Side() for _ in range(count)]
            clients = [Side() for _ in range(count)]
            for side in servers + clients:
                side._setAttributes(reactor, Deferred(), side)
            ends = [side._done for side in servers + clients]
            port = await self.endpoints.server(reactor).listen(Remembering(servers))
            endpoint = self.endpoints.client(reactor, port.getHost())

            attempts = [endpoint.connect(Remembering([client])) for client in clients]
            for attempt in attempts:
                await attempt
            for number, client in enumerate(clients):
                client.transport.write(b"%d " % number * 2000)
                lose(client)
            for end in ends:
                await end
            await port.stopListening()

            received = sorted(server.data for server in servers)
            assert received == sorted(b"%d " % number * 2000 for number in range(count))

        self.run_steps(steps)


async def data_of(reactor: Any, side: Side, expected: bytes) -> None:
    """Wait until a side has received exactly this."""
    while side.data != expected:
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.005, turn.callback, None)
        await turn


class AddressPromises(Promises):
    """Interfaces, addresses and names."""

    def test_interfaces(self) -> None:
        """Both transports provide what stream transports provide."""

        def verify(side: Side) -> None:
            """Ask zope.interface."""
            for interface in (
                interfaces.ITransport,
                interfaces.ITCPTransport,
                interfaces.IConsumer,
                interfaces.IPushProducer,
                interfaces.ILoggingContext,
            ):
                verifyObject(interface, side.transport)

        def finish(side: Side) -> None:
            """The last one closes."""
            verify(side)
            lose(side)

        server, client = Side(verify), Side(finish)

        self.run_sides(server, client)

        self.assertEqual(self.flushLoggedErrors(), [])

    def test_addresses_agree(self) -> None:
        """Each side's host is the other side's peer, numeric and of the type of the transport."""
        addresses: dict[str, Any] = {}

        def note(name: str) -> Callable[[Side], None]:
            """Something that notes both addresses of a side."""

            def made(side: Side) -> None:
                addresses[name] = (side.transport.getHost(), side.transport.getPeer())
                side.transport.write(b"x")

            return made

        server, client = Side(note("server")), Side(note("client"))
        client.on_data = lose

        self.run_sides(server, client)

        self.assertEqual(addresses["server"], addresses["client"][::-1])
        for address in addresses["server"]:
            # Without the translation that assertEqual does for Twisted's tests.
            self.assertTrue(address.type == binding.ADDRESS_TYPE, address)
            self.assertTrue(address.host == "127.0.0.1", address)
            self.assertTrue(address.port > 0, address)

    @utp_only(ADDRESSES_OF_TCP)
    def test_addresses_after_the_end(self) -> None:
        """Transports know their addresses even after connectionLost."""
        seen: list[Any] = []

        def made(side: Side) -> None:
            """Note them while they are certain."""
            seen.append((side.transport.getHost(), side.transport.getPeer()))
            lose(side)

        def lost(side: Side) -> None:
            """And again."""
            seen.append((side.transport.getHost(), side.transport.getPeer()))
            side.transport.setTcpNoDelay(True)
            side.transport.getTcpKeepAlive()

        server, client = Side(), Side(made)
        client.on_lost = lost

        self.run_sides(server, client)

        self.assertEqual(seen[0], seen[1])

    def test_wildcard_port_knows_its_address(self) -> None:
        """A connection accepted by a port without an interface has a real local address."""
        hosts: list[str] = []
        reactor = self.buildReactor()

        def made(side: Side) -> None:
            """Note the local address of the server's side, and stop."""
            hosts.append(side.transport.getHost().host)
            reactor.stop()

        server, client = Side(made), Side()
        for side in (server, client):
            side._setAttributes(reactor, Deferred(), side)

        def connect() -> None:
            """Connect over the loopback interface."""
            port = binding.listen(reactor, 0, Remembering([server]))
            number = port.getHost().port
            binding.connect(reactor, "127.0.0.1", number, Remembering([client]))

        reactor.callWhenRunning(connect)
        self.runReactor(reactor)

        self.assertEqual(hosts, ["127.0.0.1"])
