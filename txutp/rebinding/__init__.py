"""uTP for programs that take no endpoint strings: ``reactor.listenTCP`` and ``connectTCP`` speak it where a rule says.

    with rebound(reactor, connecting & ports(8000)):
        ...

``python -m txutp.rebinding PROGRAM ARGUMENTS`` does that for a whole program, see ``__main__.py``.

Everything that Twisted makes of these calls follows: ``tcp:`` and ``ssl:`` strings, ``HostnameEndpoint``,
``wrapClientTLS``, ``Agent``, ``internet.TCPServer``.  Sockets that were opened by others stay what they are:
``adoptStreamPort``, and with it ``systemd:`` strings, and UNIX sockets.

A rebound reactor has one ``Switch``: it stands in the place of the methods, asks the rules, the last one first, and
calls the reactor's own method if none of them chooses the call.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

from txutp.arguments import checked_settings
from txutp.core.settings import Settings
from txutp.rebinding.counts import Counts
from txutp.rebinding.posing import PosingConnector, PosingPort
from txutp.rebinding.rules import Call, Rule, connecting, everything, hosts, listening, ports

__all__ = [
    "Call",
    "Counts",
    "Rebinding",
    "Rule",
    "connecting",
    "everything",
    "hosts",
    "listening",
    "ports",
    "rebound",
    "rebound_when_installed",
]

METHODS = ("listenTCP", "connectTCP", "listenSSL", "connectSSL")

_switches: WeakKeyDictionary[Any, Switch] = WeakKeyDictionary()


def rebound(reactor: Any, rule: Callable[[Call], bool] = everything, settings: Settings | None = None) -> Rebinding:
    """From now on calls that the rule chooses speak uTP, with these settings, until ``undo()`` or the end of ``with``.

    Ports and connections that exist then live on.  Rebindings of one reactor may overlap, and end in any order: a call
    belongs to the latest one whose rule chooses it.
    """
    if not callable(rule):
        raise TypeError(f"a rule is called with a Call, unlike {rule!r}")
    missing = [name for name in METHODS[:2] if not callable(getattr(reactor, name, None))]
    if missing:
        raise TypeError(f"{reactor!r} has no {' and no '.join(missing)}, so there is nothing to rebind")
    rebinding = Rebinding(reactor, rule, checked_settings(settings))
    switch = _switches.get(reactor)
    if switch is None or not switch.rebindings:
        switch = _switches[reactor] = Switch(reactor)
    switch.rebindings.append(rebinding)
    return rebinding


def rebound_when_installed(
    rule: Callable[[Call], bool] = everything,
    settings: Settings | None = None,
    installed: Callable[[Rebinding], None] | None = None,
) -> None:
    """Rebind the reactor that is in use, or else each one that this process installs from now on.

    ``installed`` is called with each rebinding.  The reactor is not imported, so the program can still choose one.
    """
    from twisted.internet import main

    def rebind(reactor: Any) -> None:
        rebinding = rebound(reactor, rule, settings)
        if installed is not None:
            installed(rebinding)

    present = sys.modules.get("twisted.internet.reactor")
    if present is not None:
        rebind(present)
    install = main.installReactor

    @wraps(install)
    def install_and_rebind(reactor: Any) -> None:
        install(reactor)
        rebind(reactor)

    main.installReactor = install_and_rebind


class Rebinding:
    """A rule for a reactor; also a context manager."""

    def __init__(self, reactor: Any, rule: Callable[[Call], bool], settings: Settings | None) -> None:
        self.reactor = reactor
        self.rule = rule
        self.counts: Counts = Counts()
        self._settings = settings

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.rule!r}: {self.counts}>"

    def __enter__(self) -> Rebinding:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.undo()

    def undo(self) -> None:
        """Choose no call any more; with the last rebinding the reactor is as it was.  It may be called twice."""
        switch = _switches.get(self.reactor)
        if switch is not None and self in switch.rebindings:
            switch.rebindings.remove(self)
            if not switch.rebindings:
                switch.restore()
                del _switches[self.reactor]

    def listen(self, interface: str, port: int, factory: Any, backlog: int) -> PosingPort:
        """As ``listenTCP``."""
        listening_port = PosingPort(self.reactor, port, factory, backlog, interface, self._settings)
        listening_port.counts = self.counts
        listening_port.startListening()
        where = listening_port.getHost()
        self.counts.listened.append(
            f"[{where.host}]:{where.port}" if ":" in where.host else f"{where.host}:{where.port}"
        )
        return listening_port

    def connect(
        self, host: str, port: int | str, factory: Any, timeout: float | None, bindAddress: Any
    ) -> PosingConnector:
        """As ``connectTCP``."""
        bind_address = unbound(bindAddress) or bindAddress
        connector = PosingConnector(self.reactor, host, port, factory, timeout, bind_address, self._settings)
        connector.counts = self.counts
        connector.connect()
        return connector


class Switch:
    """Stands in for the methods of a reactor; its functions have the signatures of Twisted's."""

    def __init__(self, reactor: Any) -> None:
        self.rebindings: list[Rebinding] = []
        self._attributes = vars(reactor)
        self._passing = False  # a method of the reactor may call another one, for a call that was decided already
        self._own: dict[str, Any] = {}  # the reactor's methods
        self._before: dict[str, Any] = {}  # those that were set on this very object
        self._ours: dict[str, Any] = {}
        for name in METHODS:
            method = getattr(reactor, name, None)
            if method is None:
                continue
            self._own[name] = method
            if name in self._attributes:
                self._before[name] = method
            self._ours[name] = getattr(self, name)
            setattr(reactor, name, self._ours[name])

    def restore(self) -> None:
        """Put back what was there; what others have put over it stays, and reaches the reactor through us."""
        for name, ours in self._ours.items():
            if self._attributes.get(name) is not ours:
                continue
            if name in self._before:
                self._attributes[name] = self._before[name]
            else:
                del self._attributes[name]

    def listenTCP(self, port: Any, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        """Listen for a factory."""
        host, number = unbound(port) or (interface, port)
        rebinding = self._choose(True, host, number)
        if rebinding is None:
            return self._pass("listenTCP", port, factory, backlog, interface)
        return rebinding.listen(host, number, factory, backlog)

    def connectTCP(
        self, host: str, port: int | str, factory: Any, timeout: float | None = 30, bindAddress: Any = None
    ) -> Any:
        """Connect a factory."""
        rebinding = self._choose(False, host, port)
        if rebinding is None:
            return self._pass("connectTCP", host, port, factory, timeout, bindAddress)
        return rebinding.connect(host, port, factory, timeout, bindAddress)

    def listenSSL(self, port: Any, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> Any:
        """Listen for a factory, over TLS."""
        host, number = unbound(port) or (interface, port)
        rebinding = self._choose(True, host, number, tls=True)
        if rebinding is None:
            return self._pass("listenSSL", port, factory, contextFactory, backlog, interface)
        return rebinding.listen(host, number, over_tls(contextFactory, False, factory), backlog)

    def connectSSL(
        self,
        host: str,
        port: int | str,
        factory: Any,
        contextFactory: Any,
        timeout: float | None = 30,
        bindAddress: Any = None,
    ) -> Any:
        """Connect a factory, over TLS."""
        rebinding = self._choose(False, host, port, tls=True)
        if rebinding is None:
            return self._pass("connectSSL", host, port, factory, contextFactory, timeout, bindAddress)
        return rebinding.connect(host, port, over_tls(contextFactory, True, factory), timeout, bindAddress)

    def _choose(self, listens: bool, host: str, port: int | str, tls: bool = False) -> Rebinding | None:
        """The rebinding whose call this is; None if it is TCP's."""
        if self._passing or not self.rebindings:
            return None
        if isinstance(port, str):
            with suppress(OSError):  # the caller hears of an unknown one from the connector
                port = socket.getservbyname(port, "tcp")
        call = Call(listens, host, port, tls)
        for rebinding in reversed(self.rebindings):
            if rebinding.rule(call):
                return rebinding
        for rebinding in self.rebindings:
            rebinding.counts.left_to_tcp += 1
        return None

    def _pass(self, name: str, *arguments: Any) -> Any:
        was_passing, self._passing = self._passing, True
        try:
            return self._own[name](*arguments)
        finally:
            self._passing = was_passing


def unbound(binding: Any) -> tuple[str, int] | None:
    """Host and port of what ``twisted.internet.tcp.makeBinding`` returns since Twisted 26; None if it is none."""
    if not hasattr(binding, "_reusePort"):
        return None
    return binding._address or "", binding._port


def over_tls(contextFactory: Any, is_client: bool, factory: Any) -> Any:
    """A factory that speaks TLS for another one, as the reactor's own ``listenSSL`` and ``connectSSL`` make it."""
    try:
        from twisted.protocols.tls import TLSMemoryBIOFactory
    except ImportError as problem:
        raise NotImplementedError("TLS needs pyOpenSSL: pip install twisted[tls]") from problem
    return TLSMemoryBIOFactory(contextFactory, is_client, factory)
