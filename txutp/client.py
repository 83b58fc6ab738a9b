"""Outgoing connections: ``connectUTP``, its connector, and its transport, which goes from a name to a protocol.

A name may have several addresses.  As in RFC 8305 they are tried one after the other, IPv6 and IPv4 in turn, each a
quarter of a second after the one before it or as soon as that one has failed; the first connection wins.

Other connections may share the UDP port; ``sharing.py`` chooses it.
"""

from __future__ import annotations

import socket
from itertools import chain, zip_longest
from typing import Any

from twisted.internet import base, error
from twisted.internet.abstract import isIPv6Address
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.arguments import (
    checked_bind_address,
    checked_host,
    checked_port,
    checked_settings,
    checked_timeout,
    is_numeric,
)
from txutp.core.address import remote_of
from txutp.core.admission import ConnectionRefused
from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.flow import NEVER_US
from txutp.core.settings import Settings
from txutp.core.states import CLOSED, PORT_CLOSED
from txutp.core.units import SECOND_US
from txutp.errors import exception_for
from txutp.protocol import UTPProtocol
from txutp.sharing import is_ipv6, port_to_connect_from
from txutp.timers import Timer, call_later
from txutp.tls import TLSCapableTransport
from txutp.transport import log_prefix_of
from txutp.udp.ports import numeric_address, twisted_address

# RFC 8305 section 5: the Connection Attempt Delay.
ATTEMPT_DELAY_SECONDS = 0.25

# Number of turns that the reactor gets for reading before a timer gives up an attempt: a reactor runs timers before it
# reads, and this process may have been paused.
LAST_LOOKS = 4

# The default settings, made once because that checks each value.
USUAL_SETTINGS = Settings()

_log = Logger()


class UTPClientTransport(TLSCapableTransport):
    """The transport of an outgoing connection: from a name to addresses, to a connection, to a protocol."""

    _tlsClientDefault = True
    logstr: str = "Uninitialized"  # as TCP has it

    def __init__(self, connector: UTPConnector, settings: Settings) -> None:
        self._connector: UTPConnector | None = connector
        self._settings = settings
        self._connecting = True
        self._untried: list[Address] = []
        self._attempts: list[Attempt] = []
        self._next_call: Timer | None = None  # tries the next address
        self._looks = 0  # turns for reading since time was up
        self._problem: Exception | None = None  # why the last attempt failed
        self.hostname: str = connector.host
        self.addr: Any = (connector.host, connector.port)
        nowhere: Any = Nowhere(connector.reactor)
        super().__init__(nowhere, None)
        self._resolve(connector)

    def __repr__(self) -> str:
        return f"<{self.__class__} to {self.addr} at {id(self):x}>"

    # -- from a name to addresses --

    def _resolve(self, connector: UTPConnector) -> None:
        reactor = self.reactor
        host, port = connector.host, connector.port
        if connector.is_numeric:
            self._resolved_numeric(host, port)
        elif IReactorPluggableNameResolver.providedBy(reactor):
            reactor.nameResolver.resolveHostName(Candidates(self), host, port, transportSemantics="UDP")
        elif hasattr(reactor, "resolve"):
            found: Deferred[str] = reactor.resolve(host)
            found.addCallbacks(lambda address: self.looked_up([(address, port)]), lambda failure: self.resolved([]))
        else:
            self._problem = error.DNSLookupError(f"this reactor resolves no names: {host}")
            self._next_call = call_later(reactor, 0, self.resolved, [])

    def _resolved_numeric(self, host: str, port: int) -> None:
        found: list[Address] = []
        try:
            found.append(numeric_address(host, port))
        except OSError as problem:  # there is no such scope
            self._problem = error.getConnectError((problem.errno, str(problem)))
        self.resolved(found)

    def looked_up(self, addresses: list[Address]) -> None:
        """Take the addresses that the reactor's resolver has found; the list may be empty."""
        tell = getattr(self._connector.factory, "clientNameResolved", None) if self._connector is not None else None
        if self._connecting and addresses and tell is not None:
            try:
                tell(self._connector, [twisted_address(where) for where in addresses])
            except Exception:
                _log.failure("clientNameResolved raised")
        self.resolved(addresses)

    def resolved(self, addresses: list[Address]) -> None:
        """Take the addresses of the name, the best first."""
        connector = self._connector
        if not self._connecting or connector is None:
            return
        self._untried = alternating(addresses)
        local_host = (connector.bindAddress or ("", 0))[0]
        if is_numeric(local_host) and addresses:
            # addresses of the other IP version cannot be reached from there
            self._untried = [where for where in self._untried if is_ipv6(where[0]) == is_ipv6(local_host)]
            self._problem = error.ConnectBindError(
                string=f"{connector.host} has no address that can be reached from {local_host}"
            )
        self._try_next()

    # -- from an address to a connection --

    def _try_next(self) -> None:
        """Begin to connect to the next address, and to the one after it in a while."""
        self._stop_waiting()
        while self._connecting and self._untried:
            if self._try(self._untried.pop(0)):
                break
        if not self._connecting:
            return
        if self._untried:
            self._next_call = call_later(self.reactor, ATTEMPT_DELAY_SECONDS, self._try_next)
        elif not self._attempts:
            # a failure is never reported from within the caller's call
            self._next_call = call_later(self.reactor, 0, self._fail_to_connect)

    def _try(self, where: Address) -> bool:
        """Begin to connect to an address; returns whether that was possible."""
        assert self._connector is not None
        attempt = Attempt(self)
        try:
            self.addr = where
            utp, where = port_to_connect_from(self.reactor, where, self._connector.bindAddress, self._settings)
            attempt.utp = utp
            attempt.connection = utp.connect(where, attempt, self._settings, self._connector.lone_timeout_us)
        except error.CannotListenError as refusal:
            problem = refusal.socketError
            self._problem = error.ConnectBindError(problem.errno, problem.strerror or str(problem))
            return False
        except ConnectionRefused as refusal:
            self._problem = error.ConnectError(string=str(refusal))
            return False
        self._attempts.append(attempt)
        return True

    def attempt_failed(self, attempt: Attempt) -> None:
        """An attempt has failed: try the next address now."""
        self._attempts.remove(attempt)
        reason = attempt.connection.close_reason
        self._problem = exception_for(reason)
        if reason == PORT_CLOSED:  # the reactor stops
            self._untried.clear()
        if self._untried:
            self._try_next()
        elif not self._attempts:
            self._fail_to_connect()

    def _fail_to_connect(self) -> None:
        """All addresses have failed, or there is none."""
        self.failIfNotConnected(
            self._problem or error.DNSLookupError(f"no results for hostname lookup: {self.hostname}")
        )

    def attempt_succeeded(self, attempt: Attempt) -> None:
        """An attempt has connected: it wins."""
        self._connecting = False
        self._attempts.remove(attempt)
        self._give_up_attempts()
        self._utp = attempt.utp
        self._connection = attempt.connection
        self._connection.owner = self
        self.addr = remote_of(self._connection.address)
        self._peer = twisted_address(self._connection.address)
        self._connected()

    def _give_up_attempts(self) -> None:
        self._stop_waiting()
        self._untried.clear()
        attempts, self._attempts = self._attempts, []
        for attempt in attempts:
            attempt.utp.give_up(attempt.connection)

    def _stop_waiting(self) -> None:
        call, self._next_call = self._next_call, None
        if call is not None and call.active():
            call.cancel()

    # -- from a connection to a protocol --

    def _connected(self) -> None:
        # The connector refers to this transport, so a reference back would leave both to the garbage collector.
        connector, self._connector = self._connector, None
        assert connector is not None
        self._on_lost = connector.connectionLost
        try:
            protocol = connector.buildProtocol(self.getPeer())
        except BaseException:
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
        try:
            self.logstr = f"{log_prefix_of(protocol)},client"
        except BaseException:
            # the protocol never had a transport, so it hears nothing; the factory does
            failure = Failure()
            _log.failure("logPrefix raised", failure=failure)
            self._on_lost = None
            self._utp.abort(self._connection)  # type: ignore[arg-type]
            connector.connectionFailed(failure)
            return
        self.begin(protocol)

    def failIfNotConnected(self, problem: Any) -> None:
        """Give up the attempt; does nothing if it has succeeded."""
        if not self._connecting or self._connector is None:
            return
        if isinstance(problem, error.TimeoutError) and self._attempts and self._looks < LAST_LOOKS:
            self._looks += 1
            self._stop_waiting()
            self._next_call = call_later(self.reactor, 0, self.failIfNotConnected, problem)
            return
        self._connecting = False
        connector, self._connector = self._connector, None
        self._give_up_attempts()
        connector.connectionFailed(problem if isinstance(problem, Failure) else Failure(problem))


class Attempt:
    """Owns a connection of a client until it is up."""

    utp: UTPProtocol
    connection: Connection
    hungry = False  # nothing was written yet

    def __init__(self, client: UTPClientTransport) -> None:
        self._client = client

    def settle(self) -> None:
        """Called by ``UTPProtocol`` when something happened to the connection."""
        if self.connection.state == CLOSED:
            self._client.attempt_failed(self)
        elif self.connection.accepted:
            self._client.attempt_succeeded(self)


class Nowhere:
    """Stands in for the UDP port of a client that has none yet."""

    port_address = None

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor


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
        self._found: dict[Address, None] = {}  # in order, each once

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """The timeout of the connector limits the lookup."""

    def addressResolved(self, address: Any) -> None:
        host, scope = address.host, getattr(address, "scopeID", 0)
        where = numeric_address(f"{host}%{scope}" if scope and "%" not in host else host, address.port)
        self._found[where] = None

    def resolutionComplete(self) -> None:
        self._client.looked_up(list(self._found))


def alternating(addresses: list[Address]) -> list[Address]:
    """Returns addresses with IPv6 and IPv4 in turn (RFC 8305 section 4)."""
    if len(addresses) < 2:
        return addresses
    first = [where for where in addresses if is_ipv6(where[0]) == is_ipv6(addresses[0][0])]
    second = [where for where in addresses if where not in first]
    return [where for where in chain(*zip_longest(first, second)) if where is not None]


class UTPConnector(base.BaseConnector):
    """An ``IConnector``, which ``connectUTP`` returns, and with which a ClientFactory may connect again."""

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int | str,
        factory: Any,
        timeout: float | None,
        bindAddress: str | bytes | tuple[str | bytes, int] | None,
        settings: Settings | None,
    ) -> None:
        if isinstance(port, str):
            try:
                port = socket.getservbyname(port, "tcp")
            except OSError as problem:
                raise error.ServiceNameUnknownError(string=f"{problem} ({port!r})") from problem
        port = checked_port(port, 1)
        self.is_numeric: bool = is_numeric(checked_host(host))
        timeout = checked_timeout(timeout)
        # The single connection to a numeric address has a timer anyway, and applies the timeout itself.  Otherwise the
        # timeout is for the lookup and all attempts together.
        self.lone_timeout_us: int = NEVER_US
        if self.is_numeric and timeout is not None:
            self.lone_timeout_us = round(timeout * SECOND_US)
            timeout = None
        super().__init__(factory, timeout, reactor)  # type: ignore[arg-type]
        self.host = host
        self.port = port
        self.bindAddress: tuple[str, int] | None = checked_bind_address(bindAddress)
        self._settings = checked_settings(settings) or USUAL_SETTINGS

    def connect(self) -> None:
        super().connect()
        call: Any = self.timeoutID
        if call is not None:
            # replaces Twisted's call, which follows the wall clock
            timer: Any = call_later(self.reactor, self.timeout, call.func, *call.args)
            call.cancel()
            self.timeoutID = timer

    def _makeTransport(self) -> UTPClientTransport:  # type: ignore[override]
        return UTPClientTransport(self, self._settings)

    def getDestination(self) -> Any:
        """Returns the destination; a name stands in the place of an address, as with TCP."""
        if isIPv6Address(self.host):
            return twisted_address((self.host, self.port))
        return IPv4Address("UDP", self.host, self.port)


def connectUTP(
    reactor: Any,
    host: str,
    port: int | str,
    factory: Any,
    timeout: float | None = 30,
    bindAddress: str | bytes | tuple[str | bytes, int] | None = None,
    settings: Settings | None = None,
) -> UTPConnector:
    """Connect to a uTP port; as ``reactor.connectTCP``.

    ``port`` is a number or the name of a service; ``timeout`` is in seconds, None for no timeout.  Without
    ``bindAddress`` the connection leaves from a UDP port that it shares with others.  With (host, port) it leaves from
    that port: from the one that listens there, if this reactor has it open, else from one of its own.  The host is an
    address of this computer, or a name of one, which is looked up at once as with TCP; an empty host and port 0 leave
    the choice to the system.  Failures reach the factory's ``clientConnectionFailed``.  If the factory has a method
    ``clientNameResolved(connector, addresses)``, it is called with the addresses of a name, the best first.
    """
    connector = UTPConnector(reactor, host, port, factory, timeout, bindAddress, settings)
    connector.connect()
    return connector
