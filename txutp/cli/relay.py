"""Two streams that are carried into each other: bytes, half closes, back-pressure and ends.

A ``Relay`` has two sides, which are ordinary Protocols: give each to an endpoint, a factory or another transport.  A
side that is connected first waits for the other one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    """One of the two streams of a relay."""

    transport: Any
    other: Side

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.received_bytes: int = 0
        self.read_ended: bool = False  # the stream that comes has ended
        self.gone: bool = False
        self._write_ended = False  # we have ended the stream that goes

    def connectionMade(self) -> None:
        if self._relay.ending:
            self.drop()
        elif self.other.connected:
            self._relay.begin()
        else:
            self.transport.pauseProducing()
            self._relay.first_connected()

    def dataReceived(self, data: bytes) -> None:
        self.received_bytes += len(data)
        self.other.transport.write(data)

    def readConnectionLost(self) -> None:
        self.read_ended = True
        self.other.end_writing()
        if self.other.read_ended:
            self._relay.close()

    def writeConnectionLost(self) -> None:
        if not self._write_ended:
            self._relay.fail(Failure(ConnectionLost("the other end of the output is closed")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        if reason.check(ConnectionDone):
            if not self.read_ended:
                self.read_ended = True
                self.other.end_writing()
            self._relay.close()
        else:
            self._relay.fail(reason)
        self._relay.look_for_end()

    def end_writing(self) -> None:
        """End the stream that goes, behind what was written."""
        self._write_ended = True
        if self.connected and not self.gone:
            self.transport.unregisterProducer()
            if hasattr(self.transport, "loseWriteConnection"):
                self.transport.loseWriteConnection()
            else:
                self.transport.loseConnection()

    def close(self) -> None:
        """End both directions, behind what was written."""
        self._write_ended = True
        if self.connected and not self.gone:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def drop(self) -> None:
        """End both directions at once."""
        self._write_ended = True
        if self.connected and not self.gone:
            self.transport.unregisterProducer()
            self.transport.abortConnection()


class Relay:
    """Joins its two sides.

    ``first_connected`` is called when the first one is connected, and waits.  ``ended`` fires when both have gone, with
    None after an orderly end; it fails with the first reason that was not orderly.
    """

    def __init__(self, first_connected: Callable[[], object] = lambda: None) -> None:
        self.first_connected = first_connected
        self.sides: tuple[Side, Side] = Side(self), Side(self)
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]
        self.ending: bool = False
        self.ended: Deferred[None] = Deferred()
        self._failure: Failure | None = None

    def begin(self) -> None:
        """Both sides are connected: let each one's stream flow into the other, as fast as that takes it."""
        for side in self.sides:
            side.other.transport.registerProducer(side.transport, True)
        for side in self.sides:
            side.transport.resumeProducing()

    def close(self) -> None:
        """End in an orderly way: what was read still leaves."""
        if not self.ending:
            self.ending = True
            for side in self.sides:
                side.close()
            self.look_for_end()

    def fail(self, reason: Failure) -> None:
        """One side is no good any more; the other one hears that its stream is not complete."""
        if self._failure is None:
            self._failure = reason
        self.ending = True
        for side in self.sides:
            side.drop()
        self.look_for_end()

    def look_for_end(self) -> None:
        """Fire ``ended`` if no side is left."""
        if self.ending and not self.ended.called and all(side.gone or not side.connected for side in self.sides):
            if self._failure is None:
                self.ended.callback(None)
            else:
                self.ended.errback(self._failure)
