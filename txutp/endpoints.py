"""Endpoints, and the ``utp:`` strings that make them.

utp:6881                                   a server on all IPv4 addresses
utp:6881:interface=127.0.0.1               on one of them
utp:port=6881:interface=\\:\\:               on IPv6
utp:fd=3                                   on a UDP socket that this process was given
utp:127.0.0.1:6881                         a client
utp:host=example.org:port=6881:timeout=10  a client that gives up after ten seconds
utp:example.org:6881:localPort=6881        a client that leaves from our own port, which may be listening
utp:example.org:6881:believeUnreachable=no a client that no ICMP error stops, as hole punching needs it

Both kinds take ``congestion=ledbat`` (or ``ledbat++``, ``shallow``, or the dotted name of a controller class) and
``target=25ms``, how long packets may wait in queues.
"""

from __future__ import annotations

import os
from dataclasses import replace
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
from twisted.python.reflect import namedAny
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
from txutp.core.controllers import CONTROLLERS
from txutp.core.settings import Settings
from txutp.core.units import SECOND_US
from txutp.datagrams import checked_datagram_protocol
from txutp.port import adoptUTPPort, listenUTP

__all__ = ["AdoptedUTPServerEndpoint", "UTPClientEndpoint", "UTPServerEndpoint"]

UNITS_US = {"us": 1, "ms": 1_000, "s": SECOND_US}


@implementer(IStreamServerEndpoint)
class UTPServerEndpoint:
    """Listens for uTP connections on a UDP port."""

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
        self._datagram_protocol = datagramProtocol
        self._reactor = reactor
        self._port = checked_port(port, 0)
        self._backlog = checked_backlog(backlog)
        self._interface = checked_interface(interface)
        self._settings = checked_settings(settings)

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
            datagramProtocol=self._datagram_protocol,
        )


@implementer(IStreamServerEndpoint)
class AdoptedUTPServerEndpoint:
    """Listens for uTP connections on a UDP socket that is bound already; as ``AdoptedStreamServerEndpoint``."""

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
        self._datagram_protocol = datagramProtocol
        self._used = False

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
                self._datagram_protocol,
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
        bindAddress: str | tuple[str, int] | None = None,
        settings: Settings | None = None,
    ) -> None:
        """``bindAddress`` is a numeric address of ours, alone or with a port; see ``connectUTP`` for the others."""
        self._reactor = reactor
        self._host = checked_host(host.decode("idna") if isinstance(host, bytes) else host)
        # Of a number that no port has Twisted's endpoints tell whoever connects.
        self._port = port if isinstance(port, str) else checked_number(port, 1)
        self._timeout = checked_timeout(timeout)
        self._bind_address = checked_bind_address((bindAddress, 0) if isinstance(bindAddress, str) else bindAddress)
        self._settings = checked_settings(settings)

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
        parse = _parse_adopted_server if "fd" in kwargs else _parse_server
        return parse(reactor, *args, **kwargs)


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class UTPClientParser:
    """Makes endpoints of ``utp:`` client strings."""

    prefix = "utp"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> UTPClientEndpoint:
        return _parse_client(reactor, *args, **kwargs)


def _parse_server(
    reactor: Any,
    port: str,
    backlog: str = "50",
    interface: str = "",
    *,
    congestion: str | None = None,
    target: str | None = None,
) -> UTPServerEndpoint:
    return UTPServerEndpoint(reactor, int(port), int(backlog), interface, _parse_settings(congestion, target))


def _parse_adopted_server(
    reactor: Any,
    *,
    fd: str,
    backlog: str = "50",
    congestion: str | None = None,
    target: str | None = None,
) -> AdoptedUTPServerEndpoint:
    return AdoptedUTPServerEndpoint(reactor, int(fd), int(backlog), _parse_settings(congestion, target))


def _parse_client(
    reactor: Any,
    host: str,
    port: str,
    timeout: str = "30",
    bindAddress: str | None = None,
    *,
    localPort: str | None = None,
    believeUnreachable: str = "yes",
    congestion: str | None = None,
    target: str | None = None,
) -> UTPClientEndpoint:
    if believeUnreachable not in ("yes", "no"):
        raise ValueError(f"believeUnreachable is yes or no, not {believeUnreachable!r}")
    settings = replace(_parse_settings(congestion, target), believe_unreachable=believeUnreachable == "yes")
    bind_address = None if bindAddress is None and localPort is None else (bindAddress or "", int(localPort or 0))
    return UTPClientEndpoint(reactor, host, checked_port(int(port), 1), float(timeout), bind_address, settings)


def _parse_settings(congestion: str | None, target: str | None) -> Settings:
    """The settings that a string asks for; ValueError with what is accepted."""
    chosen: dict[str, Any] = {}
    if congestion is not None:
        if congestion in CONTROLLERS:
            chosen["congestion"] = CONTROLLERS[congestion]
        else:
            try:
                chosen["congestion"] = namedAny(congestion)
            except Exception as problem:
                known = ", ".join(CONTROLLERS)
                raise ValueError(
                    f"congestion is one of {known}, or the dotted name of a controller class, not {congestion!r}"
                ) from problem
    if target is not None:
        chosen["target_delay_us"] = _parse_duration_us(target)
    return Settings(**chosen)


def _parse_duration_us(text: str) -> int:
    """Microseconds in ``25ms``, ``0.025s`` or ``25000us``."""
    number = text.rstrip("mus")
    unit = text[len(number) :]
    try:
        return round(float(number) * UNITS_US[unit])
    except (KeyError, ValueError, OverflowError) as problem:
        raise ValueError(f"a time is a number with a unit, like 25ms, 0.025s or 25000us, not {text!r}") from problem
