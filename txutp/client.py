"""Outgoing connections: ``connectUTP`` and what it gives, from a name to an address to a connection to a protocol.

An outgoing connection has a UDP port of its own, which closes before anybody hears that the connection is lost.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import base, error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.core.connection import CLOSED
from txutp.core.multiplexer import ConnectionRefused
from txutp.core.settings import Settings
from txutp.errors import exception_for
from txutp.protocol import UTPProtocol
from txutp.tls import TLSCapableTransport
from txutp.transport import log_prefix_of
from txutp.udp import listen_udp, numeric_address, twisted_address


class UTPClientTransport(TLSCapableTransport):
    """The transport of an outgoing connection: from a name to an address, to a connection, to a protocol."""

    _tlsClientDefault = True

    def __init__(self, connector: UTPConnector, settings: Settings) -> None:
        self._connector: UTPConnector | None = connector
        self._settings = settings
        self._candidates: list[str] = []
        self._connecting = True
        self.hostname = connector.host
        self.addr: Any = (connector.host, connector.port)
        super().__init__(UTPProtocol(connector.reactor, settings), None, "Uninitialized")
        self._resolve(connector.host, connector.port)

    def __repr__(self) -> str:
        return f"<{self.__class__} to {self.addr} at {id(self):x}>"

    # -- from a name to addresses --

    def _resolve(self, host: str, port: int) -> None:
        if isIPAddress(host) or isIPv6Address(host):
            self._candidates.append(host)
            self.reactor.callLater(0, self._try_next)
            return
        if IReactorPluggableNameResolver.providedBy(self.reactor):
            self.reactor.nameResolver.resolveHostName(Candidates(self), host, port, transportSemantics="UDP")
            return
        resolved: Deferred[str] = self.reactor.resolve(host)
        resolved.addCallbacks(self._candidates.append, lambda failure: None)
        resolved.addCallback(lambda result: self._try_next())

    def candidate(self, host: str) -> None:
        """The resolver found an address."""
        self._candidates.append(host)

    def _try_next(self) -> None:
        """Connect to the next address; without one, the attempt has failed."""
        connector = self._connector
        if not self._connecting or connector is None:
            return
        if not self._candidates:
            self.failIfNotConnected(error.DNSLookupError(f"no results for hostname lookup: {connector.host}"))
            return
        host = self._candidates.pop(0)
        if not 0 < connector.port < 65_536:
            self.failIfNotConnected(OverflowError(f"port must be 1-65535, not {connector.port}"))
            return
        local_host, local_port = connector.bindAddress or ("", 0)
        if not local_host and ":" in host:
            local_host = "::"
        if self._utp.port_address is not None:  # that one was for the address before
            self._utp = UTPProtocol(self.reactor, self._settings)
        try:
            listen_udp(self.reactor, local_port, self._utp, local_host)
        except error.CannotListenError as problem:
            self.failIfNotConnected(error.ConnectBindError(problem.socketError.errno, str(problem.socketError)))
            return
        try:
            where = numeric_address(host, connector.port)
            self._peer = twisted_address(where)
            self.addr = where
            self._connection = self._utp.connect(where, self)
            self._connection.alone = True
        except ConnectionRefused as problem:
            self.failIfNotConnected(error.ConnectError(string=str(problem)))
        except OSError as problem:
            self.failIfNotConnected(error.getConnectError((problem.errno, str(problem))))

    # -- from a connection to a protocol --

    def settle(self) -> None:
        if not self._connecting:
            super().settle()
            return
        connection = self._connection
        if connection is None or self._connector is None:
            return
        if connection.state == CLOSED:
            if self._candidates:
                self._connection = None
                self._utp.close_when_empty()
                self._try_next()
            else:
                self.failIfNotConnected(exception_for(connection.close_reason))
            return
        if connection.accepted:
            self._connecting = False
            self._connected()
            super().settle()

    def _connected(self) -> None:
        connector = self._connector
        assert connector is not None
        self._on_lost = connector.connectionLost
        try:
            protocol = connector.buildProtocol(self.getPeer())
        except Exception:
            failure = Failure()
            self.connected = 1
            self.protocol = _Nobody()
            self._fail(failure, "buildProtocol raised")
            return
        if protocol is None:
            self.connected = 1
            self.protocol = _Nobody()
            self.loseConnection()
            return
        self.logstr = f"{log_prefix_of(protocol)},client"
        self.begin(protocol)

    def failIfNotConnected(self, problem: Any) -> None:
        """Give the attempt up; nothing happens once it has succeeded."""
        if not self._connecting or self._connector is None:
            return
        self._connecting = False
        connector, self._connector = self._connector, None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.owner = None
            connection.fail(connection.close_reason)
            self._utp.multiplexer.forget(connection, self._utp.now_us())
        self._utp_released()
        connector.connectionFailed(problem if isinstance(problem, Failure) else Failure(problem))

    def _utp_released(self) -> None:
        self._utp.close_when_empty()


class _Nobody:
    """Stands in for a protocol that the factory did not build."""

    def dataReceived(self, data: bytes) -> None:
        pass

    def connectionLost(self, reason: Failure) -> None:
        pass


@implementer(IResolutionReceiver)
class Candidates:
    """Collects the addresses of a name for a client."""

    def __init__(self, client: UTPClientTransport) -> None:
        self._client = client

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        pass

    def addressResolved(self, address: Any) -> None:
        self._client.candidate(address.host)

    def resolutionComplete(self) -> None:
        self._client._try_next()


class UTPConnector(base.BaseConnector):
    """An ``IConnector``: what connectUTP gives, and what a ClientFactory may use to connect again."""

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int | str,
        factory: Any,
        timeout: float | None,
        bindAddress: tuple[str, int] | None,
        settings: Settings,
    ) -> None:
        super().__init__(factory, timeout, reactor)  # type: ignore[arg-type]
        if isinstance(port, str):
            try:
                port = socket.getservbyname(port, "tcp")
            except OSError as problem:
                raise error.ServiceNameUnknownError(string=f"{problem} ({port!r})") from problem
        self.host = host
        self.port = port
        self.bindAddress = bindAddress
        self._settings = settings

    def _makeTransport(self) -> UTPClientTransport:  # type: ignore[override]
        return UTPClientTransport(self, self._settings)

    def getDestination(self) -> Any:
        """Where to: an address if ``host`` is one, else the name in the place of one, as TCP has it."""
        if isIPv6Address(self.host):
            return twisted_address((self.host, self.port))
        return IPv4Address("UDP", self.host, self.port)


def connectUTP(
    reactor: Any,
    host: str,
    port: int | str,
    factory: Any,
    timeout: float | None = 30,
    bindAddress: tuple[str, int] | None = None,
    settings: Settings | None = None,
) -> UTPConnector:
    """Connect to a uTP port; as ``reactor.connectTCP``.

    ``port`` is a number or the name of a service, ``timeout`` in seconds (None for none), ``bindAddress`` our own
    (host, port).  Failures reach the factory's ``clientConnectionFailed``.
    """
    connector = UTPConnector(
        reactor, host, port, factory, timeout, bindAddress, Settings() if settings is None else settings
    )
    connector.connect()
    return connector
