"""What ``txutp demo`` does: two processes fill one uTP connection in both directions at once, and compare notes.

``demo.py`` calls it.  ``demonstrate`` runs here, ``serve`` in a child process.  Both sides speak an ordinary Twisted
Protocol, ``Exchange``; they meet through endpoint strings; the child says on its standard output, in lines of JSON,
where it listens and at the end what it sent and received.  The child ends when its standard input does, so it never
outlives us.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from twisted.internet.defer import Deferred, DeferredQueue, TimeoutError
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.error import ConnectError, ConnectionDone, ProcessExitedAlready
from twisted.internet.error import TimeoutError as ConnectTimeoutError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.core.stats import ConnectionStats

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
CONNECT_SECONDS = 10
REPORT_SECONDS = 20  # between the end of the connection here and the last word of the child

SERVER_ENDED = "The server process ended too early."


class Lost(Exception):
    """The connection, or the process at its other end, went away too early."""


class TimedOut(Exception):
    """The other side did not answer any more."""


class Tally:
    """Bytes that went by: how many, and which."""

    def __init__(self) -> None:
        self.bytes: int = 0
        self._hash = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Their hash so far."""
        return self._hash.hexdigest()

    def add(self, data: bytes) -> None:
        """These came next."""
        self.bytes += len(data)
        self._hash.update(data)


@implementer(IPushProducer)
class Source:
    """Writes pseudo-random bytes as fast as the transport takes them, then ends our half of the connection."""

    def __init__(self, transport: Any, total_bytes: int) -> None:
        self.sent: Tally = Tally()
        self._transport = transport
        self._left_bytes = total_bytes
        self._random = random.Random()
        self._paused = False

    def resumeProducing(self) -> None:
        self._paused = False
        while self._left_bytes and not self._paused:
            data = self._random.randbytes(min(CHUNK_BYTES, self._left_bytes))
            self._left_bytes -= len(data)
            self.sent.add(data)
            self._transport.write(data)
        if not self._left_bytes:
            self._transport.unregisterProducer()
            self._transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


@dataclass(frozen=True, slots=True)
class Report:
    """What one side of the exchange says at its end."""

    sent_bytes: int
    sent_sha256: str
    received_bytes: int
    received_sha256: str
    receiving_seconds: float
    stats: dict[str, Any]
    """``ConnectionStats`` as a dictionary."""


@implementer(IHalfCloseableProtocol)
class Exchange(Protocol):
    """Sends so many bytes, receives what the other side sends, and closes when both have ended their half.

    ``finished`` fires with None when the connection has ended, whatever the reason.
    """

    transport: Any

    def __init__(self, total_bytes: int) -> None:
        self.received: Tally = Tally()
        self.finished: Deferred[None] = Deferred()
        self.reason: Failure | None = None
        self._total_bytes = total_bytes
        self._source: Source | None = None
        self._began_seconds = 0.0
        self._last_seconds = 0.0
        self._halves_open = 2

    @property
    def stats(self) -> ConnectionStats:
        """How the connection is doing; only once there is one."""
        stats: ConnectionStats = self.transport.stats()
        return stats

    def report(self) -> Report:
        """What went by in both directions."""
        assert self._source is not None, "the connection was never made"
        return Report(
            sent_bytes=self._source.sent.bytes,
            sent_sha256=self._source.sent.sha256,
            received_bytes=self.received.bytes,
            received_sha256=self.received.sha256,
            receiving_seconds=self._last_seconds - self._began_seconds,
            stats=asdict(self.stats),
        )

    def abort(self) -> None:
        """End it at once, if it has begun and not ended."""
        if self.transport is not None:
            self.transport.abortConnection()

    # From here on: what Twisted calls.

    def connectionMade(self) -> None:
        self._began_seconds = self._last_seconds = time.monotonic()
        self._source = Source(self.transport, self._total_bytes)
        self.transport.registerProducer(self._source, True)
        self._source.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        self.received.add(data)
        self._last_seconds = time.monotonic()

    def readConnectionLost(self) -> None:
        self._half_ended()

    def writeConnectionLost(self) -> None:
        self._half_ended()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.finished.callback(None)

    def _half_ended(self) -> None:
        self._halves_open -= 1
        if not self._halves_open:
            self.transport.loseConnection()


# The child process


class Parent(Protocol):
    """Standard input and output, as the child sees them."""

    transport: Any

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def say(self, words: dict[str, Any]) -> None:
        """One line."""
        self.transport.write(json.dumps(words).encode() + b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone.callback(None)


async def serve(reactor: Any, total_bytes: int) -> None:
    """Take one connection, do our part of the exchange, and tell the parent."""
    # On Windows it needs pywin32, which the command itself does not.
    from twisted.internet.stdio import StandardIO

    parent = Parent()
    StandardIO(parent, reactor=reactor)
    exchange = Exchange(total_bytes)
    # No parent, no server.
    parent.gone.addCallback(lambda nothing: None if exchange.finished.called else exchange.finished.cancel())

    factory = Factory.forProtocol(lambda: exchange)
    factory.noisy = False
    port = await serverFromString(reactor, f"utp:0:interface={HOST}").listen(factory)
    parent.say({"port": port.getHost().port})

    await exchange.finished
    parent.say(asdict(exchange.report()))
    parent.transport.loseConnection()
    await parent.gone


# This process


class Server(ProcessProtocol):
    """The child process, as we see it."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self._unfinished_line = b""
        self._lines: DeferredQueue[dict[str, Any] | None] = DeferredQueue()

    async def line(self, reactor: Any, seconds: float) -> dict[str, Any]:
        """What it says next."""
        try:
            words = await self._lines.get().addTimeout(seconds, reactor)
        except TimeoutError:
            raise TimedOut("The server process does not say anything.") from None
        if words is None:
            raise Lost(SERVER_ENDED)
        return words

    def stop(self) -> None:
        """End it, if it has not ended."""
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("KILL")

    # From here on: what Twisted calls.

    def outReceived(self, data: bytes) -> None:
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        for line in lines:
            self._lines.put(json.loads(line))

    def errReceived(self, data: bytes) -> None:
        sys.stderr.write(data.decode(errors="replace"))

    def processEnded(self, reason: Failure) -> None:
        self._lines.put(None)
        self.ended.callback(None)


@dataclass(frozen=True, slots=True)
class Direction:
    """One of the two directions: what its sender sent, what its receiver received, and how the sender did."""

    bytes_sent: int
    bytes_received: int
    sha256_sent: str
    sha256_received: str
    seconds: float
    """From the beginning of the connection to the last byte, at the receiver."""
    sender: dict[str, Any]
    """``ConnectionStats`` as a dictionary."""

    @property
    def identical(self) -> bool:
        """Whether what arrived is what was sent."""
        return (self.bytes_sent, self.sha256_sent) == (self.bytes_received, self.sha256_received)

    @property
    def goodput_megabits_per_second(self) -> float:
        """Bytes that the application got, in 10**6 bits per second."""
        return self.bytes_received * 8 / 1_000_000 / self.seconds if self.seconds else 0.0

    @property
    def retransmitted_share(self) -> float:
        """How much of what left had left before, from 0 to 1."""
        sent = self.sender["bytes_sent"]
        return self.sender["bytes_retrans"] / sent if sent else 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """Both directions of a finished exchange."""

    to_server: Direction
    to_client: Direction

    @property
    def identical(self) -> bool:
        """Whether everything arrived as it was sent."""
        return self.to_server.identical and self.to_client.identical


async def demonstrate(reactor: Any, total_bytes: int, begun: Callable[[Exchange], None]) -> Outcome:
    """Exchange so many bytes each way with a child process.

    ``begun`` is called with our side when it is connected.  Raises ``Lost`` or ``TimedOut``; cancelling ends both
    sides.
    """
    server = Server()
    exchange = Exchange(total_bytes)
    command = [sys.executable, "-m", "txutp", "demo-server", "--bytes", str(total_bytes)]
    # env=None hands our environment on; without it the child would have none.
    reactor.spawnProcess(server, sys.executable, command, env=None)
    # Its end is not noticed by the connection before several timeouts.
    server.ended.addCallback(lambda nothing: exchange.abort())
    try:
        port = (await server.line(reactor, CONNECT_SECONDS))["port"]
        endpoint = clientFromString(reactor, f"utp:{HOST}:{port}:timeout={CONNECT_SECONDS}")
        try:
            await connectProtocol(endpoint, exchange)
        except ConnectTimeoutError as problem:
            raise TimedOut(str(problem)) from problem
        except ConnectError as problem:
            raise Lost(str(problem)) from problem
        begun(exchange)
        await exchange.finished
        check_end(exchange, server)
        theirs = Report(**await server.line(reactor, REPORT_SECONDS))
    finally:
        exchange.abort()
        server.stop()
        await server.ended
    ours = exchange.report()
    return Outcome(to_server=direction(ours, theirs), to_client=direction(theirs, ours))


def check_end(exchange: Exchange, server: Server) -> None:
    """Raise an exception unless the connection ended as it should."""
    reason = exchange.reason
    if reason is None or reason.check(ConnectionDone):
        return
    if server.ended.called:
        raise Lost(SERVER_ENDED)
    problem = str(reason.value)
    if exchange.stats.close_reason == "TIMED_OUT":
        raise TimedOut(problem)
    raise Lost(problem)


def direction(sender: Report, receiver: Report) -> Direction:
    """What the sender and the receiver of one direction say, side by side."""
    return Direction(
        bytes_sent=sender.sent_bytes,
        bytes_received=receiver.received_bytes,
        sha256_sent=sender.sent_sha256,
        sha256_received=receiver.received_sha256,
        seconds=receiver.receiving_seconds,
        sender=sender.stats,
    )
