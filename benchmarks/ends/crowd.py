"""Many streams at once that never end.

Verbs: receive and send.  Options: transport, host, connections; for send also port.  Each answers a line of input with
its CPU time so far; the receiver also with the bytes that each stream has got, the sender with what was sent again.
The sender begins with the first line.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from benchmarks.ends.talk import Questions, Words, cpu_seconds, run
from benchmarks.ends.transports import client, counted, server, use_cubic

CHUNK = bytes(64 * 1024)

# So many handshakes are under way at a time.
AT_ONCE = 50

SUMMED = ("packets_sent", "packets_sent_again", "timeouts")


class Sink(Protocol):
    """Counts what comes; answers a single byte, which is the greeting of an idle connection."""

    transport: Any

    def __init__(self, sinks: list[Sink]) -> None:
        self.received_bytes = 0
        sinks.append(self)

    def dataReceived(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self.received_bytes == 1:
            self.transport.write(data)


@implementer(IPushProducer)
class Source(Protocol):
    """Writes as fast as the transport takes it, once told to."""

    transport: Any

    def __init__(self) -> None:
        self._paused = False

    def begin(self) -> None:
        use_cubic(self.transport)
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:
            self.transport.write(CHUNK)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._paused = True
        print(f"a stream ended: {reason.getErrorMessage()}", flush=True)  # no JSON, so the measurement fails


def summed(sources: list[Source]) -> Words:
    """What txutp counted for all streams together."""
    told = [counted(source.transport) for source in sources]
    return {name: sum(words.get(name, 0) for words in told) for name in SUMMED if any(name in words for words in told)}


async def receive(reactor: Any, options: Words) -> None:
    """Take all connections that come."""
    sinks: list[Sink] = []

    def look() -> None:
        questions.say(
            {
                "at_seconds": time.monotonic(),
                "cpu_seconds": cpu_seconds(),
                "received_bytes": [sink.received_bytes for sink in sinks if sink.received_bytes != 1],
            }
        )

    questions = Questions(reactor, look)
    factory = Factory.forProtocol(lambda: Sink(sinks))
    factory.noisy = False
    port = await server(reactor, options).listen(factory)
    questions.say({"port": port.getHost().port})
    await Deferred()


async def send(reactor: Any, options: Words) -> None:
    """Make the connections, say so, and send on all of them from the first line of input on."""
    begun = False

    def look() -> None:
        nonlocal begun
        questions.say({"cpu_seconds": cpu_seconds()} | summed(sources))
        if not begun:
            begun = True
            for source in sources:
                source.begin()

    endpoint = client(reactor, options)
    factory = Factory.forProtocol(Source)
    factory.noisy = False
    sources: list[Source] = []
    while (missing := options["connections"] - len(sources)) > 0:
        attempts = [endpoint.connect(factory) for _ in range(min(missing, AT_ONCE))]
        for attempt in attempts:
            sources.append(await attempt)
    questions = Questions(reactor, look)
    questions.say({"connected": len(sources)})
    await Deferred()


if __name__ == "__main__":
    run({"receive": receive, "send": send})
