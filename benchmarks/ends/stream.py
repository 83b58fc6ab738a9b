"""One stream from a sender to a receiver, as fast as the transport takes it.

Verbs: receive and send.  Options: transport, host, bytes; for send also port.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from benchmarks.ends.talk import Stopwatch, Words, run, say
from benchmarks.ends.transports import client, counted, server, use_cubic

CHUNK = bytes(64 * 1024)


class Receiver(Protocol):
    """Counts what comes, and closes when the other side has ended."""

    def __init__(self, total_bytes: int) -> None:
        self.ended: Deferred[None] = Deferred()
        self._missing_bytes = total_bytes
        self._result: Words = {}

    def connectionMade(self) -> None:
        self._stopwatch = Stopwatch()

    def dataReceived(self, data: bytes) -> None:
        self._missing_bytes -= len(data)
        if not self._missing_bytes:
            self._result = self._stopwatch.read() | counted(self.transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._missing_bytes:
            sys.exit(f"{self._missing_bytes} bytes did not come: {reason.getErrorMessage()}")
        say(self._result)
        self.ended.callback(None)


@implementer(IPushProducer)
class Sender(Protocol):
    """Writes 64 KiB at a time, as fast as the transport takes it, ends its half, and waits for the other one."""

    transport: Any

    def __init__(self, total_bytes: int) -> None:
        self.ended: Deferred[None] = Deferred()
        self._left_bytes = total_bytes
        self._paused = False
        self._counted: Words = {}

    def connectionMade(self) -> None:
        self._stopwatch = Stopwatch()
        use_cubic(self.transport)
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # the UDP port has gone by now, but not what it counted before the last bytes
        say(self._counted | counted(self.transport) | self._stopwatch.read())
        self.ended.callback(None)

    def resumeProducing(self) -> None:
        self._paused = False
        while self._left_bytes and not self._paused:
            data = CHUNK[: self._left_bytes]
            self._left_bytes -= len(data)
            self.transport.write(data)
        if not self._left_bytes:
            self._counted = counted(self.transport)
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


async def receive(reactor: Any, options: Words) -> None:
    """Take one connection."""
    receiver = Receiver(options["bytes"])
    port = await server(reactor, options).listen(Factory.forProtocol(lambda: receiver))
    say({"port": port.getHost().port})
    await receiver.ended


async def send(reactor: Any, options: Words) -> None:
    """Make one connection."""
    sender = Sender(options["bytes"])
    await connectProtocol(client(reactor, options), sender)
    await sender.ended


if __name__ == "__main__":
    run({"receive": receive, "send": send})
