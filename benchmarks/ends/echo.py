"""A server that sends back what comes.

Verb: serve.  Options: transport, host.  It says its CPU time for each line of input.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from benchmarks.ends.talk import Questions, Words, cpu_seconds, run
from benchmarks.ends.transports import server


class Echo(Protocol):
    """Sends back what comes."""

    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(reactor: Any, options: Words) -> None:
    """Listen until killed."""
    questions = Questions(reactor, lambda: questions.say({"cpu_seconds": cpu_seconds()}))
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    port = await server(reactor, options).listen(factory)
    questions.say({"port": port.getHost().port})
    await Deferred()


if __name__ == "__main__":
    run({"serve": serve})
