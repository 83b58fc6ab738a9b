"""Listening: ``listenUTP``, the port that it gives, and the transports of accepted connections.

A listening port opens one UDP port and shares it with the connections that it accepted, and with clients that want to
leave from there: they live on when it stops listening, and the UDP port closes with the last of them (``sharing.py``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    ILoggingContext,
)
from twisted.logger import Logger
from twisted.python import log, reflect
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.arguments import checked_backlog, checked_interface, checked_port, checked_rate, checked_settings
from txutp.companion import Companion
from txutp.core.connection import Connection
from txutp.core.settings import Settings
from txutp.core.stats import PortStats
from txutp.protocol import UTPProtocol
from txutp.sharing import adopt, port_to_listen_on
from txutp.timers import call_later
from txutp.tls import TLSCapableTransport
from txutp.transport import log_prefix_of
from txutp.udp.ports import KERNEL_BUFFER_BYTES, twisted_address


def stats_of(utp: UTPProtocol) -> PortStats:
    """How a UDP port is doing."""
    multiplexer = utp.multiplexer
    receive_bytes, send_bytes = (
        getattr(utp.port, name, 0) or None for name in ("granted_receive_bytes", "granted_send_bytes")
    )
    counters = multiplexer.counters.snapshot()
    rates = multiplexer.rates
    return PortStats(
        up_limit=rates.up.bytes_per_second if rates.up else None,
        down_limit=rates.down.bytes_per_second if rates.down else None,
        connections=len(multiplexer),
        half_open=multiplexer.half_open,
        held_bytes=multiplexer.memory.held_bytes,
        asked_buffer_bytes=KERNEL_BUFFER_BYTES if receive_bytes else None,
        granted_receive_bytes=receive_bytes,
        granted_send_bytes=send_bytes,
        **{name: count for name, count in counters.items() if name in PortStats.__slots__},
    )


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
        datagramProtocol: Any = None,
        fileDescriptor: int | None = None,
    ) -> None:
        self.port: int = checked_port(port, 0)
        self.factory = factory
        self.backlog: int = checked_backlog(backlog)
        self.interface: str = checked_interface(interface)
        self.reactor = reactor
        self.connected: bool = False
        self.disconnected: bool = False
        self.sessionno: int = 0
        settings = checked_settings(settings) or Settings()
        self._settings = replace(settings, maximum_half_open=max(backlog, settings.maximum_half_open))
        self._companion = None if datagramProtocol is None else Companion(datagramProtocol)
        self._file_descriptor = fileDescriptor  # of a socket to adopt
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
        if self._file_descriptor is not None:
            utp = adopt(self.reactor, self._file_descriptor, self._settings, self._accept, prefix)
        else:
            utp = port_to_listen_on(self.reactor, self.port, self.interface, self._settings, self._accept, prefix)
        self._utp = utp
        self._bound = utp.port_address
        utp.on_stopped = self.connectionLost
        try:
            if self._companion is not None:
                self._companion.join(utp)
            self.factory.doStart()
        except BaseException:
            self._leave()
            raise
        self.connected = True
        self.disconnected = False

    def stopListening(self) -> Deferred[None] | None:
        """Accept no more.  Fires when what was written before a loseConnection has arrived; None if not listening."""
        if not self.connected or self._utp is None:
            return None
        quiet = self._leave()
        # Never before this call has returned, as with TCP.
        done: Deferred[None] = Deferred()
        quiet.addCallback(lambda result: call_later(self.reactor, 0, done.callback, None))
        return done.addCallback(lambda result: self._stopped())

    loseConnection = stopListening

    def connectionLost(self, reason: Failure | None = None) -> None:
        """Stop at once, without waiting for anything: the reactor ends, or the UDP port is gone for another reason."""
        if self.connected:
            self._leave()
            self._stopped()

    def _stopped(self) -> None:
        log.msg(f"(UTP Port {self.getHost().port} Closed)", system=self.logPrefix())
        self.factory.doStop()

    def _leave(self) -> Deferred[None]:
        """Accept no more; the UDP port stays open for the connections that it has."""
        utp = self._utp
        assert utp is not None
        self.connected = False
        self.disconnected = True
        utp.on_stopped = None
        if self._companion is not None:
            self._companion.leave()
        utp.stop_accepting()
        quiet = utp.when_quiet()
        utp.close_when_empty()
        return quiet

    def getHost(self) -> Any:
        """The UDP address that is bound."""
        assert self._bound is not None, "the port was never started"
        return self._bound

    def setRateLimit(self, up: int | None = None, down: int | None = None) -> None:
        """Cap what all connections of the port together send (``up``) and receive (``down``) from now on.

        Bytes per second, with the headers of IP, UDP and uTP; None is without a cap.  It takes the place of
        ``Settings.up_bytes_per_second`` and ``down_bytes_per_second``; connections keep caps of their own besides.
        Connections of clients that leave from the port count, too, and so do those that live on after
        ``stopListening``.  TypeError or ValueError for what is no rate.
        """
        assert self._utp is not None, "the port was never started"
        self._utp.limit_rate(checked_rate(up, "up"), checked_rate(down, "down"))

    def stats(self) -> PortStats:
        """How the port is doing; what clients do that leave from there counts as well."""
        assert self._utp is not None, "the port was never started"
        return stats_of(self._utp)

    def _accept(self, connection: Connection) -> None:
        """A connection proved its source: make its protocol."""
        utp = self._utp
        assert utp is not None
        peer = self._peer_of(connection)
        transport = self._transport_class(utp, connection, peer.host, self.sessionno, self._bound.port)
        self.sessionno += 1
        try:
            protocol = self.factory.buildProtocol(peer)
        except BaseException:
            self._log.failure("buildProtocol raised")
            protocol = None
        if protocol is None:
            connection.abort()
            utp.touch(connection)
            return
        connection.owner = transport
        transport.begin(protocol)

    @property
    def _transport_class(self) -> type[UTPServerTransport]:
        return UTPServerTransport

    def _peer_of(self, connection: Connection) -> Any:
        """What the factory is told of the peer."""
        return twisted_address(connection.address)


class UTPServerTransport(TLSCapableTransport):
    """The transport of an accepted connection."""

    _log_prefix = "-"

    def __init__(self, utp: UTPProtocol, connection: Connection, hostname: str, sessionno: int, port: int) -> None:
        super().__init__(utp, connection)
        self.sessionno = sessionno
        self._port_number = port
        self.hostname = hostname

    def begin(self, protocol: Any) -> None:
        self._log_prefix = log_prefix_of(protocol)
        self._protocol_class = protocol.__class__
        super().begin(protocol)

    def logPrefix(self) -> str:
        return f"{self._log_prefix},{self.sessionno},{self.hostname}"

    @property
    def logstr(self) -> str:  # type: ignore[override]
        """The name of the transport in logs, as TCP's servers have it; made when it is needed."""
        return self.logPrefix()

    def __repr__(self) -> str:
        return f"<{self._protocol_class.__name__} #{self.sessionno} on {self._port_number}>"


def listenUTP(
    reactor: Any,
    port: int,
    factory: Any,
    backlog: int = 50,
    interface: str = "",
    settings: Settings | None = None,
    datagramProtocol: Any = None,
) -> UTPPort:
    """Accept uTP connections on a UDP port; as ``reactor.listenTCP``.

    ``interface`` is a numeric address of ours, a name of an IPv4 one (which is looked up at once, as TCP does it),
    "" for all of IPv4 and "::" for IPv6 (and IPv4, where the system has it so).
    ``backlog`` connections at least may be under way without having proved their source
    (``Settings.maximum_half_open`` allows more).  ``datagramProtocol`` is a ``DatagramProtocol`` that gets what is not
    uTP, and writes from the same port: a DHT node, say.  Raises ``CannotListenError``.
    """
    listening = UTPPort(reactor, port, factory, backlog, interface, settings, datagramProtocol)
    listening.startListening()
    return listening


def adoptUTPPort(
    reactor: Any,
    fileDescriptor: int,
    factory: Any,
    backlog: int = 50,
    settings: Settings | None = None,
    datagramProtocol: Any = None,
) -> UTPPort:
    """Listen for uTP on a UDP socket that other code has bound, as ``reactor.adoptDatagramPort`` does.

    The descriptor is duplicated: it stays yours to close.  What has arrived already is read.  ValueError says what is
    wrong with a descriptor that is not of such a socket.
    """
    listening = UTPPort(reactor, 0, factory, backlog, "", settings, datagramProtocol, fileDescriptor)
    listening.startListening()
    return listening
