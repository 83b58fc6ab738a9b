"""What the interop tests share, from the outside in.

``running`` starts another program and never leaves it behind; ``listening`` and ``connected`` give
connections of ours through endpoint strings; a ``Stream`` is our side of one connection, in the
test's hands. ``within`` gives a test a limit of time.

With TXUTP_INTEROP_TRANSPORT=tcp everybody speaks TCP. That proves the tests themselves, and tells a
fault of our transport from a fault of the machine.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue, maybeDeferred, succeed
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

# The word in front of every endpoint string.
TRANSPORT = os.environ.get("TXUTP_INTEROP_TRANSPORT", "utp")

HOST = "127.0.0.1"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PYTHON = (sys.executable,)

# libutp frees a closed connection on a timer of half a second, and the machine may be busy.
CONNECT_SECONDS = 10


def within(seconds: float) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[None]]]:
    """Decorate a test so that it is cancelled, cleaned up and failed after so many seconds."""

    def decorate(test: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
        @functools.wraps(test)
        async def limited(*arguments: Any, **keywords: Any) -> None:
            running = Deferred.fromCoroutine(test(*arguments, **keywords))
            await running.addTimeout(seconds, reactor)

        return limited

    return decorate


def seeded_bytes(length: int, seed: int = 1) -> bytes:
    """Bytes without a pattern, but the same for the same seed."""
    return random.Random(seed).randbytes(length)


def tally_of(data: bytes) -> dict[str, Any]:
    """How a peer's result describes these bytes, and how ``Stream.received`` does."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


async def is_probed(stream: Stream) -> bool:
    """Leave a connection alone for a few seconds; whether its peer has answered a probe of ours meanwhile."""
    for _ in range(50):
        if stream.transport._connection.answers_probes:  # type: ignore[union-attr]
            return True
        await deferLater(reactor, 0.1)
    return False


def python_package(name: str) -> str:
    """The version of a Python package that is installed here; empty if it is not."""
    return importlib.metadata.version(name) if importlib.util.find_spec(name) is not None else ""


def no_python(package: str) -> str:
    """What is missing for a peer in Python."""
    return "" if python_package(package) else f"{package} is missing: run `pip install {package}`"


class Moment:
    """Something that happens once. Any number may await it, before or after it happened."""

    def __init__(self) -> None:
        self.has_come = False
        self._waiting: list[Deferred[None]] = []

    def come(self) -> None:
        """Let everybody go on who waits."""
        self.has_come = True
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(None)

    def __await__(self) -> Generator[Deferred[None], None, None]:
        if self.has_come:
            return succeed(None).__await__()
        deferred: Deferred[None] = Deferred()
        self._waiting.append(deferred)
        return deferred.__await__()


# Other programs


class Program(ProcessProtocol):
    """A child process that talks in lines. ``running`` makes one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.errors = b""
        self.ended = Moment()
        self.exit_code: int | None = None
        self._unfinished_line = b""
        self._lines: DeferredQueue[str | None] = DeferredQueue()

    async def line(self) -> str:
        """The next line of its output; if it ends without one, the test fails with its errors."""
        line = await self._lines.get()
        if line is None:
            self._lines.put(None)
            raise AssertionError(f"{self.name} ended early. {self.last_words()}")
        return line

    async def rest(self) -> list[str]:
        """All lines until its end, which must be a good one."""
        lines = []
        while (line := await self._lines.get()) is not None:
            lines.append(line)
        await self.finished()
        return lines

    async def result(self) -> dict[str, Any]:
        """The next line of its output, which is JSON."""
        result: dict[str, Any] = json.loads(await self.line())
        return result

    async def says(self, words: bytes) -> None:
        """Wait until these words have come on its standard error."""
        while words not in self.errors and not self.ended.has_come:
            await deferLater(reactor, 0.02)
        assert words in self.errors, f"{self.name} ended early. {self.last_words()}"

    async def finished(self) -> None:
        """Wait for its end, which must be a good one."""
        await self.ended
        assert self.exit_code == 0, f"{self.name} failed. {self.last_words()}"

    def last_words(self) -> str:
        """Its exit code and standard error, for the reader of a failed test."""
        return f"Exit code {self.exit_code}. {self.errors.decode(errors='replace')}"

    def interrupt(self) -> None:
        """Ask it to end, as Ctrl-C does."""
        self.transport.signalProcess("INT")

    def kill(self) -> None:
        """End it without a chance to say goodbye, as ``kill -9`` does."""
        self.transport.signalProcess("KILL")

    # From here on: what Twisted calls.

    def outReceived(self, data: bytes) -> None:
        *lines, self._unfinished_line = (self._unfinished_line + data).split(b"\n")
        for line in lines:
            self._lines.put(line.decode())

    def errReceived(self, data: bytes) -> None:
        self.errors += data

    def processEnded(self, reason: Failure) -> None:
        self.exit_code = reason.value.exitCode
        self._lines.put(None)
        self.ended.come()


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Program]:
    """Run a program while the block runs; kill it if it is still there at the end."""
    program = Program(" ".join(Path(word).name for word in command[:3]))
    # A Python program finds this checkout, and so Twisted finds the plugin in it.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = reactor.spawnProcess(program, command[0], command, env=environment)
    try:
        yield program
    finally:
        if not program.ended.has_come:
            process.signalProcess("KILL")
            await program.ended
        # pytest shows this if the test failed.
        print(f"{program.name}: {program.last_words()}", file=sys.stderr)


# Our side of a connection


@implementer(IHalfCloseableProtocol)
class Stream(Protocol):
    """A connection that counts and hashes what arrives, and does nothing by itself."""

    def __init__(self) -> None:
        self.has_begun = Moment()  # something has arrived
        self.has_ended = Moment()  # the other side has ended; we may still write
        self.is_lost = Moment()
        self.reason: Failure | None = None
        self._received_bytes = 0
        self._hash = hashlib.sha256()

    @property
    def received(self) -> dict[str, Any]:
        """What has arrived so far, in the words of ``tally_of``."""
        return {"bytes": self._received_bytes, "sha256": self._hash.hexdigest()}

    def end(self, data: bytes = b"") -> None:
        """Write the last bytes and close our half; the other half stays open."""
        self.transport.write(data)
        self.transport.loseWriteConnection()

    def write_and_close(self, data: bytes) -> None:
        """Write the last bytes and close at once."""
        self.transport.write(data)
        self.transport.loseConnection()

    async def close(self) -> None:
        """Close, and wait until that is done."""
        self.transport.loseConnection()
        await self.is_lost

    # From here on: what Twisted calls.

    def dataReceived(self, data: bytes) -> None:
        self._received_bytes += len(data)
        self._hash.update(data)
        self.has_begun.come()

    def readConnectionLost(self) -> None:
        self.has_ended.come()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.has_ended.come()
        self.is_lost.come()


class Echo(Stream):
    """Sends back what arrives, and ends when the other side has ended."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.transport.loseConnection()


class Listener(Factory):
    """Makes a stream for each connection and hands them out in the order of their coming."""

    noisy = False

    def __init__(self, kind: type[Stream]) -> None:
        self.port = 0
        self.streams: list[Stream] = []
        self._kind = kind
        self._connected: DeferredQueue[Stream] = DeferredQueue()

    def buildProtocol(self, address: IAddress) -> Stream:
        stream = self._kind()
        self.streams.append(stream)
        # The stream has its transport one turn of the reactor later.
        reactor.callLater(0, self._connected.put, stream)
        return stream

    async def stream(self) -> Stream:
        """The next stream that nobody has taken yet."""
        return await self._connected.get()


async def drop(stream: Stream) -> None:
    """Get rid of a connection, whatever state it is in."""
    if not stream.is_lost.has_come and stream.transport is not None:
        stream.transport.abortConnection()
        await stream.is_lost


@asynccontextmanager
async def listening(kind: type[Stream] = Stream) -> AsyncIterator[Listener]:
    """Listen on a free port while the block runs; drop what is still connected at the end."""
    listener = Listener(kind)
    port = await serverFromString(reactor, f"{TRANSPORT}:0:interface={HOST}").listen(listener)
    listener.port = port.getHost().port
    try:
        yield listener
    finally:
        await maybeDeferred(port.stopListening)
        for stream in listener.streams:
            await drop(stream)


@asynccontextmanager
async def connected(
    port: int, kind: type[Stream] = Stream, timeout_seconds: int = CONNECT_SECONDS
) -> AsyncIterator[Stream]:
    """Be connected while the block runs; drop the connection if it is still there at the end."""
    endpoint = clientFromString(reactor, f"{TRANSPORT}:{HOST}:{port}:timeout={timeout_seconds}")
    stream = await connectProtocol(endpoint, kind())
    try:
        yield stream
    finally:
        await drop(stream)
