"""Received data that a paused reader had not taken when the connection ended.

The end never overtakes the data.  The connection leaves the multiplexer at once; the transport keeps the unread data,
and gets an ``Unread`` in the place of the UDP port, which may be closed by then.  When the reader resumes, it gets the
rest, and behind the rest ``connectionLost``.

Until then the connection counts for the limits of its port: on connections, and on memory for received data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorCore
from twisted.protocols.policies import ProtocolWrapper

from txutp.core.connection import Connection
from txutp.core.states import ABORTED, DONE, PORT_CLOSED
from txutp.timers import Timer, call_later


class Unread:
    """Stands in for the UDP port of a connection that has ended, until its reader has taken everything.

    A reactor that stops ends the wait: then the protocol hears of the end although data is left.
    """

    def __init__(self, transport: Any, connection: Connection) -> None:
        self.utp: Any = transport._utp
        self.reactor: Any = self.utp.reactor
        self.now_us: Callable[[], int] = self.utp.now_us
        self.port_address: Any = self.utp.port_address
        self._transport = transport
        self._connection = connection
        self._call: Timer | None = None  # settles the transport
        self._shutdown_trigger: Any = None
        self.utp.multiplexer.keep_unread(connection)
        if IReactorCore.providedBy(self.reactor):
            self._shutdown_trigger = self.reactor.addSystemEventTrigger("during", "shutdown", self._give_up)

    # -- called by the transport, as a UTPProtocol is --

    def touch(self, connection: Connection) -> None:
        """Settle the transport in the next turn of the reactor."""
        if self._call is None:
            self._call = call_later(self.reactor, 0, self._settle)

    def abort(self, connection: Connection) -> None:
        """The application has aborted the connection."""
        connection.close_reason = ABORTED
        self.touch(connection)

    def close(self) -> None:
        """The transport tells its protocol of the end now: give the connection's places back."""
        self.utp.multiplexer.release_unread(self._connection)
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        trigger, self._shutdown_trigger = self._shutdown_trigger, None
        if trigger is not None:
            self.reactor.removeSystemEventTrigger(trigger)

    # -- called by the reactor --

    def _settle(self) -> None:
        self._call = None
        transport = self._transport
        if is_leaving(transport.protocol):
            transport.disconnecting = True
        transport.settle()

    def _give_up(self) -> None:
        """The reactor stops, so the reader takes no more data."""
        self._shutdown_trigger = None
        transport = self._transport
        transport.settle()
        if transport.connected:
            if self._connection.close_reason == DONE:
                # the stream is complete, but its reader has not taken all of it
                self._connection.close_reason = PORT_CLOSED
            transport.disconnecting = True
            transport.settle()


def is_leaving(protocol: Any) -> bool:
    """Whether TLS, or another wrapper, is closing: it may wait for an answer that cannot come any more."""
    protocol = getattr(protocol, "_wrappedProtocol", protocol)  # of an endpoint
    return isinstance(protocol, ProtocolWrapper) and bool(protocol.disconnecting)
