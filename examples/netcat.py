"""Standard input to a stream, and the stream to standard output: for programs that are not made with Twisted.

    python examples/netcat.py utp:127.0.0.1:6881

The end of the input ends our half of the stream.  The end of the stream ends the program.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectError, ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    """The terminal, or the network: what it reads is written to the other one."""

    other: Side

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()
        self.reason: Failure = connectionDone

    def dataReceived(self, data: bytes) -> None:
        self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        # The other one waits for no more of us, and ends behind what it has to write.
        self.other.transport.unregisterProducer()
        self.other.transport.loseWriteConnection()

    def writeConnectionLost(self) -> None:
        """Reading goes on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason
        self.ended.callback(None)


class Network(Side):
    def readConnectionLost(self) -> None:
        self.transport.unregisterProducer()
        self.transport.loseConnection()


async def main(reactor: Any, where: str) -> None:
    """Status 1 says that there was no connection, or that it broke."""
    network, terminal = Network(), Side()
    network.other, terminal.other = terminal, network
    try:
        await connectProtocol(clientFromString(reactor, where), network)
    except (ConnectError, DNSLookupError) as problem:
        sys.exit(f"{where}: {problem}")
    StandardIO(terminal, reactor=reactor)
    # Each reads no faster than the other one writes.
    network.transport.registerProducer(terminal.transport, True)
    terminal.transport.registerProducer(network.transport, True)
    await network.ended
    terminal.transport.unregisterProducer()
    terminal.transport.loseConnection()
    await terminal.ended
    if not network.reason.check(ConnectionDone):
        sys.exit(f"{where}: {network.reason.getErrorMessage()}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or ":" not in sys.argv[1]:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
