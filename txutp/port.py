"""Listening: ``listenUTP``, the port that it gives, and the transports of accepted connections.

A listening port owns one UDP port and shares it with the connections that it accepted: they live on when it stops
listening, and the UDP port closes with the last of them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    ILoggingContext,
)
from twisted.logger import Logger
from twisted.python import log, reflect
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.core.connection import Connection
from txutp.core.settings import Settings
from txutp.protocol import UTPProtocol
from txutp.tls import TLSCapableTransport
from txutp.transport import log_prefix_of
from txutp.udp import listen_udp, twisted_address

# UDP ports that nobody listens on any more but connections still use; TCP allows to listen there again, so do we.
_left_open: WeakKeyDictionary[Any, dict[tuple[int, str], UTPProtocol]] = WeakKeyDictionary()


def left_open(reactor: Any, port: int, interface: str) -> UTPProtocol | None:
    """The protocol of such a port, if it is still open; it is no longer left then."""
    utp = _left_open.get(reactor, {}).pop((port, interface), None)
    return utp if utp is not None and utp.port is not None else None


@implementer(IListeningPort, ILoggingContext)
class UTPPort:
    """A UDP port that accepts uTP connections for a factory."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        port: int,
        factory: Any,
        backlog: int = 50,
        interface: str = "",
        settings: Settings | None = None,
    ) -> None:
        self.port = port
        self.factory = factory
        self.backlog = backlog
        self.interface = interface
        self.reactor = reactor
        self.connected = False
        self.disconnected = False
        self.sessionno = 0
        settings = Settings() if settings is None else settings
        self._settings = replace(settings, maximum_half_open=max(backlog, settings.maximum_half_open))
        self._utp: UTPProtocol | None = None
        self._bound: Any = None  # the UDP address

    def __repr__(self) -> str:
        name = reflect.qual(self.factory.__class__)
        where = f"on {self.getHost().port}" if self.connected else "(not listening)"
        return f"<{self.__class__} of {name} {where}>"

    def logPrefix(self) -> str:
        return reflect.qual(self.factory.__class__)

    def startListening(self) -> None:
        """Bind the UDP port and accept; raises ``CannotListenError``."""
        prefix = reflect.qual(self.factory.__class__)
        if ILoggingContext.providedBy(self.factory):
            prefix = self.factory.logPrefix()
        utp = left_open(self.reactor, self.port, self.interface)
        if utp is None:
            utp = UTPProtocol(self.reactor, self._settings, self._accept, prefix=prefix)
            self._bound = listen_udp(self.reactor, self.port, utp, self.interface).getHost()
        else:
            utp.accept_again(self._accept)
            self._bound = utp.port_address
        self._utp = utp
        self.connected = True
        self.disconnected = False
        self.factory.doStart()

    def stopListening(self) -> Deferred[None] | None:
        """Accept no more.  Fires when what was written before a loseConnection has arrived; None if not listening."""
        if not self.connected or self._utp is None:
            return None
        number = self.getHost().port
        quiet = self._leave()

        def stopped(result: None) -> None:
            log.msg(f"(UTP Port {number} Closed)", system=self.logPrefix())
            self.factory.doStop()

        # Never before this call has returned, as with TCP.
        done: Deferred[None] = Deferred()
        quiet.addCallback(lambda result: self.reactor.callLater(0, done.callback, None))
        return done.addCallback(stopped)

    loseConnection = stopListening

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Stop at once, without waiting for anything, as a port of the kernel does when its reactor ends."""
        if self.connected:
            self._leave()
            self.factory.doStop()

    def _leave(self) -> Deferred[None]:
        """Accept no more; the UDP port stays open for the connections that it has."""
        utp = self._utp
        assert utp is not None
        self.connected = False
        self.disconnected = True
        utp.stop_accepting()
        quiet = utp.when_quiet()
        utp.close_when_empty()
        ports = _left_open.setdefault(self.reactor, {})
        for key in [key for key, other in ports.items() if other.port is None]:
            del ports[key]
        if utp.port is not None:
            ports[self._bound.port, self.interface] = utp
        return quiet

    def getHost(self) -> Any:
        """The UDP address that is bound."""
        assert self._bound is not None, "the port was never started"
        return self._bound

    def _accept(self, connection: Connection) -> None:
        """A connection proved its source: make its protocol."""
        utp = self._utp
        assert utp is not None
        transport = UTPServerTransport(utp, connection, self.sessionno, self._bound.port)
        self.sessionno += 1
        try:
            protocol = self.factory.buildProtocol(twisted_address(connection.address))
        except Exception:
            self._log.failure("buildProtocol raised")
            protocol = None
        if protocol is None:
            connection.abort()
            utp.touch(connection)
            return
        connection.owner = transport
        transport.begin(protocol)


class UTPServerTransport(TLSCapableTransport):
    """The transport of an accepted connection."""

    def __init__(self, utp: UTPProtocol, connection: Connection, sessionno: int, port: int) -> None:
        super().__init__(utp, connection, "-")
        self.sessionno = sessionno
        self._port_number = port
        self.hostname = twisted_address(connection.address).host

    def begin(self, protocol: Any) -> None:
        self.logstr = f"{log_prefix_of(protocol)},{self.sessionno},{self.hostname}"
        self._repr = f"<{protocol.__class__.__name__} #{self.sessionno} on {self._port_number}>"
        super().begin(protocol)

    def __repr__(self) -> str:
        return self._repr


def listenUTP(
    reactor: Any,
    port: int,
    factory: Any,
    backlog: int = 50,
    interface: str = "",
    settings: Settings | None = None,
) -> UTPPort:
    """Accept uTP connections on a UDP port; as ``reactor.listenTCP``.

    ``interface`` is a numeric address, "" for all of IPv4 and "::" for IPv6.  ``backlog`` connections at least may be
    under way without having proved their source (``Settings.maximum_half_open`` allows more).  Raises
    ``CannotListenError``.
    """
    listening = UTPPort(reactor, port, factory, backlog, interface, settings)
    listening.startListening()
    return listening
