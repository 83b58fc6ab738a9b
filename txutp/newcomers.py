"""Keeps ``connectionMade`` and the events after it in separate turns of the reactor, as TCP does.

A kernel reports a new connection and its first bytes separately, so a program over TCP has one turn of the reactor
between ``connectionMade`` and the next event: ``dataReceived``, ``readConnectionLost``, ``connectionLost``.  A uTP
server accepts a connection with the packet that proves its source, which is the first DATA of many clients, so
without this module all of these events could come in a single turn.  ``UTPProtocol.settle`` asks it which connections
wait for the next turn.

A connection that waits sends nothing either: its first bytes leave with the answer to its first ``dataReceived``, so
the wait costs no packet.  A connection with no event after ``connectionMade`` does not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.states import CLOSED, PORT_CLOSED


class Newcomers:
    """The connections of one UDP port that were handed to the application in this turn of the reactor."""

    def __init__(self, reactor: Any, multiplexer: Multiplexer, settle: Callable[[], None]) -> None:
        self._reactor = reactor
        self._multiplexer = multiplexer
        self._settle = settle
        self.of_this_turn: set[Connection] = set()
        # These are marked as touched, but not in the multiplexer's list, so no other settle takes them.
        self._waiting: list[Connection] = []
        self._call: IDelayedCall | None = None

    def hand_over(self, connection: Connection, accept: Callable[[Connection], None] | None) -> bool:
        """Tell the application of a new connection; returns whether its other events wait for the next turn."""
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
        """Let the connections that were handed over in this turn wait; returns the other ones."""
        others: list[Connection] = []
        for connection in touched:
            (self._waiting if connection in self.of_this_turn else others).append(connection)
        return others

    def end_turn(self) -> None:
        """Schedule the next turn of the connections that wait; no connection is new after this."""
        self.of_this_turn.clear()
        if self._waiting and self._call is None:
            # A call of its own: a settle that is scheduled already may run before the calls of connectionMade.
            self._call = self._reactor.callLater(0, self._go_on)

    def release(self) -> None:
        """End the wait: the next settle takes these connections too."""
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
