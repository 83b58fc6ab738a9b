"""What begins in one turn of the reactor goes on in a later one, as with TCP.

A kernel reports a new connection and its first bytes separately, so a program over TCP has one turn of the reactor
between ``connectionMade`` and whatever follows it: ``dataReceived``, ``readConnectionLost``, ``connectionLost``.  A
server of uTP gets a connection with the packet that proves its source, which is the first DATA of many clients, so
that all of this could happen in a single turn.  ``protocol.py`` asks here which connections have to wait.

A connection that waits sends nothing either: its first bytes leave together with the answer to what it hears next
turn, in as few packets as without the wait.  Connections that nothing else happened to do not wait at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txutp.core.connection import CLOSED, PORT_CLOSED, Connection
from txutp.core.multiplexer import Multiplexer


class Newcomers:
    """The connections of one UDP port that were handed to the application in this turn of the reactor."""

    def __init__(self, reactor: Any, multiplexer: Multiplexer, settle: Callable[[], None]) -> None:
        self._reactor = reactor
        self._multiplexer = multiplexer
        self._settle = settle
        self.of_this_turn: set[Connection] = set()
        # They count as touched without being listed by the multiplexer, so that nothing settles them earlier.
        self._waiting: list[Connection] = []
        self._call: IDelayedCall | None = None

    def hand_over(self, connection: Connection, accept: Callable[[Connection], None] | None) -> bool:
        """Let the application know of a new connection.

        Returns whether all that has happened to it besides waits for the next turn.
        """
        if connection.initiator:
            if connection.owner is None or connection.state == CLOSED:
                return False
            connection.owner.settle()
        elif accept is not None:
            accept(connection)
        else:
            connection.abort(PORT_CLOSED)
        if connection.owner is None:
            return False
        self.of_this_turn.add(connection)
        ended = connection.eof_sequence is not None or connection.state == CLOSED
        if ended or connection.receiving.ready_bytes:
            self._waiting.append(connection)
            return True
        return False

    def put_off(self, touched: list[Connection]) -> list[Connection]:
        """Let those that were handed over in this turn wait for the next one; returns the others."""
        others: list[Connection] = []
        for connection in touched:
            (self._waiting if connection in self.of_this_turn else others).append(connection)
        return others

    def end_turn(self) -> None:
        """This turn of the reactor is over for all connections."""
        self.of_this_turn.clear()
        if self._waiting and self._call is None:
            # Behind whatever the application put off in connectionMade, and never in a settle that waits already.
            self._call = self._reactor.callLater(0, self._go_on)

    def release(self) -> None:
        """Nobody waits any more: they are settled with all others."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            connection.touched = False
            self._multiplexer.touch(connection)

    def _go_on(self) -> None:
        self.release()
        self._settle()
