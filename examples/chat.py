"""A chat in which one may fall silent and go on listening: half close, both ways.

    python examples/chat.py serve utp:6881:interface=127.0.0.1
    python examples/chat.py join utp:127.0.0.1:6881 NAME "first line" "second line"

Whoever has said everything ends their half of the stream and still hears the others.  When all are silent, the server
says goodbye to all.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Guest(LineOnlyReceiver):
    """One who is here, on the server."""

    def connectionMade(self) -> None:
        self.silent = False
        self.factory.guests.append(self)
        print(f"{len(self.factory.guests)} here", flush=True)

    def lineReceived(self, line: bytes) -> None:
        for guest in self.factory.guests:
            if guest is not self:
                guest.sendLine(line)

    def readConnectionLost(self) -> None:
        self.silent = True
        if len(self.factory.guests) > 1 and all(guest.silent for guest in self.factory.guests):
            for guest in self.factory.guests:
                guest.sendLine(b"goodbye")
                guest.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """We never end our half alone."""

    def connectionLost(self, reason: Failure) -> None:
        self.factory.guests.remove(self)


class Speaker(LineOnlyReceiver):
    """The other end: says its lines, ends its half, and prints what it hears until the server ends."""

    def __init__(self, name: str, lines: tuple[str, ...]) -> None:
        self.name = name
        self.lines = lines
        self.over: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        for line in self.lines:
            self.sendLine(f"{self.name}: {line}".encode())
        self.transport.loseWriteConnection()

    def lineReceived(self, line: bytes) -> None:
        print(line.decode(), flush=True)

    def connectionLost(self, reason: Failure) -> None:
        self.over.callback(None)


async def main(reactor: Any, verb: str, where: str, name: str = "", *lines: str) -> None:
    if verb == "serve":
        factory = Factory.forProtocol(Guest)
        factory.guests = []  # type: ignore[attr-defined]
        port = await serverFromString(reactor, where).listen(factory)
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await Deferred()
    speaker = await connectProtocol(clientFromString(reactor, where), Speaker(name, lines))
    await speaker.over


if __name__ == "__main__":
    fewest_words = {"serve": 3, "join": 4}
    if len(sys.argv) < 2 or len(sys.argv) < fewest_words.get(sys.argv[1], len(sys.argv) + 1):
        sys.exit(__doc__)
    react(main, sys.argv[1:])
