"""The figures of the uTP ports and connections of a reactor, as they are when asked.

Nothing is collected meanwhile: the connections count anyway, and what ended connections and closed ports have counted
is kept as sums, so that a sum over all of them never goes back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from txutp.core.connection import Connection
from txutp.core.states import CLOSED
from txutp.core.stats import ConnectionStats, PortCounters, StreamTotals
from txutp.endpoints import host_and_port
from txutp.openports import OpenPorts, open_ports_of
from txutp.protocol import UTPProtocol
from txutp.udp.ports import twisted_address

CONNECTION_FIGURES = tuple(field.name for field in fields(ConnectionStats))
PORT_COUNTS = tuple(PortCounters.__slots__)
STREAM_COUNTS = tuple(StreamTotals.__slots__)

# The name of all ports that clients leave from: their numbers are random, and would be a new series each time.
CLIENTS = "clients"

# Closed ports beyond so many different names are summed up under one.
MAXIMUM_NAMES = 100
OTHERS = "others"

Counts = dict[str, int]


class Monitor:
    """Those of one reactor."""

    def __init__(self, ports: OpenPorts) -> None:
        self._names: dict[UTPProtocol, str] = {}
        self._closed: dict[str, Counts] = {}
        ports.watch(self._opened, self._ended)

    def ports(self) -> list[tuple[str, UTPProtocol]]:
        """The open ports and their names: an address and a number, or "clients"."""
        return [(name, utp) for utp, name in self._names.items()]

    def connections(self) -> Iterator[tuple[str, UTPProtocol, Connection]]:
        """All connections, with the port that each has."""
        for name, utp in self.ports():
            for connection in utp.multiplexer:
                yield name, utp, connection

    def counts(self) -> dict[str, Counts]:
        """What was counted, by the name of the port; no number ever becomes smaller."""
        sums = {name: dict(counts) for name, counts in self._closed.items()}
        for name, utp in self.ports():
            add(sums.setdefault(name, {}), counts_of(utp))
        return sums

    def _opened(self, utp: UTPProtocol) -> None:
        address = utp.port_address
        listens = utp.accept is not None
        self._names[utp] = host_and_port(address.host, address.port) if listens else CLIENTS

    def _ended(self, utp: UTPProtocol) -> None:
        name = self._names.pop(utp, CLIENTS)
        if name not in self._closed and len(self._closed) >= MAXIMUM_NAMES:
            name = OTHERS
        add(self._closed.setdefault(name, {}), counts_of(utp))


def add(sums: Counts, counts: Counts) -> None:
    """Add counts to sums."""
    for name, count in counts.items():
        sums[name] = sums.get(name, 0) + count


def counts_of(utp: UTPProtocol) -> Counts:
    """What an open port has counted, and its connections, those that have ended included."""
    multiplexer = utp.multiplexer
    totals = StreamTotals()
    for connection in multiplexer:
        connection.add_to(totals)
    counts = {f"port_{name}": getattr(multiplexer.counters, name) for name in PORT_COUNTS}
    for name in STREAM_COUNTS:
        counts[f"stream_{name}"] = getattr(totals, name) + getattr(multiplexer.ended, name)
    return counts


def monitor_of(reactor: Any) -> Monitor:
    """Returns the one of a reactor, which keeps it; it counts ports that have closed from its first use on."""
    found = getattr(reactor, "_txutp_monitor", None)
    if not isinstance(found, Monitor):
        found = reactor._txutp_monitor = Monitor(open_ports_of(reactor))
    return found


def program_figures(monitor: Monitor, reactor: Any) -> dict[str, Any]:
    """Returns what holds for the whole program, and its ports."""
    return {
        "program": os.path.basename(sys.argv[0]) if sys.argv else "",
        "pid": os.getpid(),
        "time": reactor.seconds(),
        "ports": [
            {
                "port": name,
                "connections": len(utp.multiplexer),
                "half_open": utp.multiplexer.half_open,
                "held_bytes": utp.multiplexer.memory.held_bytes,
                **utp.multiplexer.counters.snapshot(),
            }
            for name, utp in monitor.ports()
        ],
    }


def connection_figures(name: str, utp: UTPProtocol, connection: Connection) -> dict[str, Any] | None:
    """Returns what one connection is like: the fields of ``ConnectionStats``, and whose it is; None if it has ended."""
    if connection.state == CLOSED:
        return None
    stats = connection.stats(utp.now_us())
    where = twisted_address(connection.address)
    figures: dict[str, Any] = {
        "port": name,
        "peer": host_and_port(where.host, where.port),
        "id": connection.receive_id,
        "initiator": connection.initiator,
    }
    for field in CONNECTION_FIGURES:
        figures[field] = getattr(stats, field)
    return figures
