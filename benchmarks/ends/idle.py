"""Connections that do nothing: a server that tells what memory they take, and their clients on one UDP port.

Verb serve, options: transport, host, connections, trace, collect.  It answers each line of input with the memory in
use, after a collection of garbage unless ``collect`` is false, with its CPU time and the datagrams that it has sent.
Verb visit, options: host, port, batches.  Each line of input makes the next batch of connections; from one UDP port
for each ten thousand, because ids have 16 bits.

On each connection one byte goes there and back; then it is idle.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory

from benchmarks.ends.echo import Echo
from benchmarks.ends.talk import Questions, Words, cpu_seconds, run
from benchmarks.ends.transports import server
from txutp import Settings, UTPProtocol
from txutp.core.connection import Connection
from txutp.core.states import CLOSED, CONNECTED

STATUS = Path("/proc/self/status")

# So many handshakes are under way at a time.
AT_ONCE = 50

# Connections from one UDP port.
EACH_PORT = 10_000


def resident_bytes() -> int | None:
    """What the process has in memory; None where the kernel does not tell it this way."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


async def serve(reactor: Any, options: Words) -> None:
    """Listen; with each line of input, say how much memory is used."""
    if options["trace"]:
        tracemalloc.start()

    def look() -> None:
        if options.get("collect", True):
            gc.collect()
        traced_bytes = tracemalloc.get_traced_memory()[0] if options["trace"] else None
        questions.say(
            {
                "traced_bytes": traced_bytes,
                "resident_bytes": resident_bytes(),
                "cpu_seconds": cpu_seconds(),
                "datagrams_sent": port.stats().datagrams_sent,
            }
        )

    questions = Questions(reactor, look)
    factory = Factory.forProtocol(Echo)
    factory.noisy = False
    port = await server(reactor, options).listen(factory)
    questions.say({"port": port.getHost().port})
    await Deferred()


class Visit:
    """One connection of the client: a byte there, a byte back.  It is what ``UTPProtocol`` calls an owner."""

    __slots__ = ("_clients", "_sent", "connection", "utp")

    hungry = False  # there is nothing more to send

    def __init__(self, clients: Clients, utp: UTPProtocol) -> None:
        self.connection: Connection | None = None
        self.utp = utp
        self._clients = clients
        self._sent = False

    def settle(self) -> None:
        """Something happened to the connection."""
        connection = self.connection
        assert connection is not None
        if connection.state == CLOSED:
            sys.exit("a connection was lost")
        if connection.state == CONNECTED and not self._sent:
            self._sent = True
            connection.write(b"x")
            self.utp.touch(connection)
        if connection.take(1):
            self._clients.arrived()


class Clients:
    """Connections from a few UDP ports."""

    def __init__(self, reactor: Any, options: Words, done: Callable[[], None]) -> None:
        limit = 1 << 20
        settings = Settings(maximum_connections=limit, maximum_connections_per_address=limit)
        self.ports = [UTPProtocol(reactor, settings) for _ in range(-(-max(options["batches"]) // EACH_PORT))]
        self._address = (options["host"], options["port"])
        self._done = done
        self._visits: list[Visit] = []
        self._wanted = 0
        self._missing = 0
        for utp in self.ports:
            reactor.listenUDP(0, utp, interface=options.get("interface", ""))

    def connect(self, count: int) -> None:
        """Make so many more connections; ``done`` is called when they are there."""
        self._wanted = self._missing = count
        for _ in range(min(count, AT_ONCE)):
            self._next()

    def arrived(self) -> None:
        """One of them is idle now."""
        self._missing -= 1
        if self._wanted:
            self._next()
        elif not self._missing:
            self._done()

    def _next(self) -> None:
        self._wanted -= 1
        visit = Visit(self, self.ports[len(self._visits) % len(self.ports)])
        self._visits.append(visit)
        visit.connection = visit.utp.connect(self._address, visit)


async def visit(reactor: Any, options: Words) -> None:
    """Make the next batch of connections with each line of input, and say so when they are there."""
    batches = iter(options["batches"])
    questions = Questions(reactor, lambda: clients.connect(next(batches)))
    clients = Clients(reactor, options, lambda: questions.say({"done": True}))
    await Deferred()


if __name__ == "__main__":
    run({"serve": serve, "visit": visit})
