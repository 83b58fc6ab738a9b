"""Traces of uTP in qlog files, for ``txutp plot``, qvis and programs of your own.

::

    tracing = trace_reactor(reactor, "all.qlog")          # every uTP connection of the program, from now on
    tracing = trace_port(listeningPort, "server.qlog")    # those of one UDP port
    tracing = trace_connection(self.transport, "one.qlog")

A file is complete at any time, however the program ends.  ``docs/howto/traces.md`` says what is in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from txutp.core.connection import Connection
from txutp.core.states import CLOSED
from txutp.environment import environment_of
from txutp.openports import open_ports_of
from txutp.port import UTPPort
from txutp.protocol import UTPProtocol
from txutp.qlog.files import QlogFile
from txutp.qlog.observing import Observer, Sink
from txutp.unwrapping import utp_transport

__all__ = ["Tracing", "trace_connection", "trace_port", "trace_reactor"]

PathLike = str | os.PathLike[str]


class Tracing:
    """A trace that is being written; ``stop`` ends it.

    It ends by itself with the connection or the UDP port that it is about.
    """

    def __init__(self, sink: Sink, on_stopped: Callable[[], None] = lambda: None) -> None:
        self._sink = sink
        self._ports: list[UTPProtocol] = []
        self._on_stopped = on_stopped
        self._stopped = False

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} to {self._sink.file.path}{' (stopped)' if self._stopped else ''}>"

    def stop(self) -> None:
        """Write no more, and close the file; harmless when it has ended."""
        if self._stopped:
            return
        self._stopped = True
        self._on_stopped()
        ports, self._ports = self._ports, []
        for utp in ports:
            Observer.of(utp).remove(self._sink)
        self._sink.file.close()

    def _begin(self, utp: UTPProtocol) -> None:
        """Trace one more port."""
        self._ports.append(utp)
        Observer.of(utp).add(self._sink)

    def _end(self, utp: UTPProtocol) -> None:
        """A port has closed."""
        if utp in self._ports:
            self._ports.remove(utp)
            Observer.of(utp).remove(self._sink)


def trace_reactor(reactor: Any, path: PathLike, *, title: str = "txutp", vantage_point: str = "unknown") -> Tracing:
    """Write all uTP connections of a reactor to a qlog file, those of ports that are opened later included.

    ``vantage_point`` is "client", "server" or "unknown".  Raises ``OSError`` if the file cannot be created.
    """
    ports = open_ports_of(reactor)
    tracing = Tracing(
        _sink(reactor, path, title, vantage_point),
        lambda: ports.unwatch(tracing._begin, tracing._end),
    )
    ports.watch(tracing._begin, tracing._end)
    return tracing


def trace_port(port: UTPPort, path: PathLike, *, title: str = "txutp", vantage_point: str = "server") -> Tracing:
    """Write all connections of a listening port to a qlog file, those of clients that leave from there included.

    ``port`` is what ``listenUTP`` or an endpoint's ``listen`` returned.  Raises ``ValueError`` if it does not listen,
    and ``OSError`` if the file cannot be created.
    """
    if not isinstance(port, UTPPort):
        raise TypeError(f"a listening port of uTP is wanted, not {port!r}")
    utp = port._utp
    if utp is None or utp.port is None:
        raise ValueError(f"{port!r} is not open, so there is nothing to trace")
    return _trace_one(utp, _sink(port.reactor, path, title, vantage_point))


def trace_connection(transport: object, path: PathLike, *, title: str = "txutp") -> Tracing:
    """Write one connection to a qlog file, from now to its end.

    ``transport`` is that of a Protocol, below TLS or a policy, too.  Raises ``TypeError`` if it is not over uTP,
    ``ValueError`` if the connection has ended, and ``OSError`` if the file cannot be created.
    """
    beneath = utp_transport(transport)
    utp: Any = beneath._utp
    connection = beneath._connection
    if connection is None or connection.state == CLOSED or getattr(utp, "port", None) is None:
        raise ValueError(f"{transport!r} has no connection that is up, so there is nothing to trace")
    vantage_point = "client" if connection.initiator else "server"
    return _trace_one(utp, _sink(utp.reactor, path, title, vantage_point, connection))


def _sink(reactor: Any, path: PathLike, title: str, vantage_point: str, only: Connection | None = None) -> Sink:
    if vantage_point not in ("client", "server", "unknown"):
        raise ValueError(f'a vantage point is "client", "server" or "unknown", not {vantage_point!r}')
    file = QlogFile(path, title, vantage_point, round(reactor.seconds() * 1_000, 3))
    return Sink(file, only, environment_of(reactor).monotonic_us())


def _trace_one(utp: UTPProtocol, sink: Sink) -> Tracing:
    ports = open_ports_of(utp.reactor)
    tracing = Tracing(sink, lambda: ports.unwatch(on_open, on_close))

    def on_open(other: UTPProtocol) -> None:
        """Other ports are not traced."""

    def on_close(other: UTPProtocol) -> None:
        if other is utp:
            tracing.stop()

    sink.on_end = tracing.stop
    tracing._begin(utp)
    ports.watch(on_open, on_close)
    return tracing
