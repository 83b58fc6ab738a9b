"""Endpoints, and the ``utp:`` strings that make them.

utp:6881                                   a server on all IPv4 addresses
utp:6881:interface=127.0.0.1               on one of them
utp:port=6881:interface=\\:\\:               on IPv6
utp:fd=3                                   on a UDP socket that this process was given
utp:127.0.0.1:6881                         a client
utp:host=example.org:port=6881:timeout=10  a client that gives up after ten seconds
utp:example.org:6881:localPort=6881        a client that leaves from our own port, which may be listening
utp:example.org:6881:believeUnreachable=no a client that no ICMP error stops, as hole punching needs it

Both kinds take options that are fields of ``Settings``, like ``congestion=ledbat``, ``target=25ms`` or ``buffer=4M``;
``strings.py`` lists them all.
"""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Any

from twisted.internet import defer, error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import _WrappingFactory
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.python.reflect import safe_repr
from zope.interface import implementer

from txutp.arguments import (
    checked_backlog,
    checked_bind_address,
    checked_host,
    checked_interface,
    checked_number,
    checked_port,
    checked_settings,
    checked_timeout,
)
from txutp.client import connectUTP
from txutp.companion import checked_datagram_protocol
from txutp.core.settings import Settings
from txutp.port import adoptUTPPort, listenUTP
from txutp.strings import read_client, read_server

__all__ = ["AdoptedUTPServerEndpoint", "UTPClientEndpoint", "UTPServerEndpoint"]


@implementer(IStreamServerEndpoint)
class UTPServerEndpoint:
    """Listens for uTP connections on a UDP port.

    The attribute ``datagramProtocol`` may be set up to the call of ``listen``.
    """

    def __init__(
        self,
        reactor: Any,
        port: int,
        backlog: int = 50,
        interface: str = "",
        settings: Settings | None = None,
        datagramProtocol: Any = None,
    ) -> None:
        """``port`` 0 lets the system choose; the other arguments are those of ``listenUTP``."""
        if datagramProtocol is not None:
            checked_datagram_protocol(datagramProtocol)
        self.datagramProtocol = datagramProtocol
        self._reactor = reactor
        self._port = checked_port(port, 0)
        self._backlog = checked_backlog(backlog)
        self._interface = checked_interface(interface)
        self._settings = checked_settings(settings)

    def __repr__(self) -> str:
        options: dict[str, object] = {} if self._backlog == 50 else {"backlog": self._backlog}
        if self.datagramProtocol is not None:
            options["datagramProtocol"] = self.datagramProtocol.__class__
        return described(self, host_and_port(self._interface or "*", self._port), options, self._settings)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires at once with the listening port, or with ``CannotListenError``."""
        return defer.execute(
            listenUTP,
            self._reactor,
            self._port,
            protocolFactory,
            backlog=self._backlog,
            interface=self._interface,
            settings=self._settings,
            datagramProtocol=self.datagramProtocol,
        )


@implementer(IStreamServerEndpoint)
class AdoptedUTPServerEndpoint:
    """Listens for uTP connections on a UDP socket that is bound already; as ``AdoptedStreamServerEndpoint``.

    The attribute ``datagramProtocol`` may be set up to the call of ``listen``.
    """

    def __init__(
        self,
        reactor: Any,
        fileno: int,
        backlog: int = 50,
        settings: Settings | None = None,
        datagramProtocol: Any = None,
    ) -> None:
        """``fileno`` is the file descriptor of the socket; it is closed when ``listen`` has made its own of it."""
        self._reactor = reactor
        self._fileno = fileno
        self._backlog = checked_backlog(backlog)
        self._settings = checked_settings(settings)
        self.datagramProtocol = datagramProtocol
        self._used = False

    def __repr__(self) -> str:
        options: dict[str, object] = {} if self._backlog == 50 else {"backlog": self._backlog}
        if self.datagramProtocol is not None:
            options["datagramProtocol"] = self.datagramProtocol.__class__
        return described(self, f"fd={self._fileno}", options, self._settings)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires at once with the listening port, or with why there is none; works only once."""
        if self._used:
            return defer.fail(error.AlreadyListened())
        self._used = True
        try:
            port = adoptUTPPort(
                self._reactor,
                self._fileno,
                protocolFactory,
                self._backlog,
                self._settings,
                self.datagramProtocol,
            )
            os.close(self._fileno)
        except Exception:
            return defer.fail()
        return defer.succeed(port)


@implementer(IStreamClientEndpoint)
class UTPClientEndpoint:
    """Connects to a uTP port; names are resolved by the reactor."""

    def __init__(
        self,
        reactor: Any,
        host: str | bytes,
        port: int,
        timeout: float | None = 30,
        bindAddress: str | bytes | tuple[str | bytes, int] | None = None,
        settings: Settings | None = None,
    ) -> None:
        """``bindAddress`` is an address of ours, alone or with a port; see ``connectUTP`` for the others."""
        self._reactor = reactor
        self._host = checked_host(host.decode("idna") if isinstance(host, bytes) else host)
        # Of a number that no port has Twisted's endpoints tell whoever connects.
        self._port = port if isinstance(port, str) else checked_number(port, 1)
        self._timeout = checked_timeout(timeout)
        self._bind_address = checked_bind_address(bindAddress)
        self._settings = checked_settings(settings)

    def __repr__(self) -> str:
        options: dict[str, object] = {} if self._timeout == 30 else {"timeout": self._timeout}
        if self._bind_address is not None:
            options["bindAddress"] = self._bind_address
        return described(self, host_and_port(self._host, self._port), options, self._settings)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the connected protocol, or with why there is none; cancelling it gives up."""
        try:
            factory = ConnectingFactory(protocolFactory)
            connectUTP(
                self._reactor,
                self._host,
                self._port,
                factory,
                timeout=self._timeout,
                bindAddress=self._bind_address,
                settings=self._settings,
            )
        except Exception:
            return defer.fail()
        return factory._onConnection


class ConnectingFactory(_WrappingFactory):
    """Twisted's, which lets go of what it knows at the end.

    Deferred, factory, connector and transport know each other, so that after each connection of a client twenty objects
    would be left to the garbage collector.
    """

    def clientConnectionLost(self, connector: Any, reason: Any) -> None:
        del self._onConnection, self._connector


@implementer(IPlugin, IStreamServerEndpointStringParser)
class UTPServerParser:
    """Makes endpoints of ``utp:`` server strings."""

    prefix = "utp"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> IStreamServerEndpoint:
        """Return an endpoint; raises TypeError or ValueError with the right form of a string."""
        arguments, settings = read_server(args, kwargs)
        if "fd" in arguments:
            return AdoptedUTPServerEndpoint(reactor, arguments.pop("fd"), settings=settings, **arguments)
        return UTPServerEndpoint(reactor, settings=settings, **arguments)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class UTPClientParser:
    """Makes endpoints of ``utp:`` client strings."""

    prefix = "utp"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> UTPClientEndpoint:
        """Return an endpoint; raises TypeError or ValueError with the right form of a string."""
        arguments, settings = read_client(args, kwargs)
        address, port = arguments.pop("bindAddress", None), arguments.pop("localPort", None)
        bind_address = None if address is None and port is None else (address or "", port or 0)
        return UTPClientEndpoint(reactor, bindAddress=bind_address, settings=settings, **arguments)


def described(endpoint: object, where: str, options: dict[str, object], settings: Settings | None) -> str:
    """The ``repr`` of an endpoint: class, address and non-default options.  It calls no code of the caller."""
    shown = dict(options)
    for field in fields(Settings):
        value = getattr(settings, field.name, field.default)
        is_default = value is field.default if field.name == "congestion" else value == field.default
        if not is_default:
            shown[field.name] = value
    words = [endpoint.__class__.__name__, where if where.isprintable() else ascii(where)]
    words += [
        f"{name}={value.__name__ if isinstance(value, type) else safe_repr(value)}" for name, value in shown.items()
    ]
    return f"<{' '.join(words)}>"


def host_and_port(host: str, port: object) -> str:
    """A host and its port as URLs have them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
