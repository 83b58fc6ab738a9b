"""How much memory idle connections take on a server: many of them on one UDP port.

    python benchmarks/idle_memory.py
    python benchmarks/idle_memory.py --connections 1000

The clients are in a process of their own, and on one UDP port too.  On each connection one byte goes there and back;
then it is idle.  The server is started twice, because looking at every Python object costs memory itself: once
tracemalloc counts the bytes of Python objects, once the kernel tells how much the process has in memory (RSS).  A
connection here is everything that comes with it: transport and an empty Protocol included.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support import HOST, machine, markdown, versions, worker
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react

from txutp import Settings, UTPProtocol, UTPServerEndpoint
from txutp.core.connection import CLOSED, CONNECTED, Connection

HERE = Path(__file__)
STATUS = Path("/proc/self/status")

# So many handshakes are under way at a time.
AT_ONCE = 50

# Connections that are there before the first look, so that what is made once is not counted.
WARM_UP = 100


def resident_bytes() -> int | None:
    """What the process has in memory; None where the kernel does not tell it this way."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return None


class Questions(Protocol):
    """Standard input and output: each line that comes is answered by calling a function."""

    transport: Any

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer

    def say(self, words: dict[str, Any]) -> None:
        """A line to whoever started us."""
        self.transport.write(json.dumps(words).encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        for _ in data.splitlines():
            self._answer()


# The server


class Echo(Protocol):
    """Sends back what comes."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


async def serve(reactor: Any, how: str, connections: str) -> None:
    """Listen; with each line of input, say how much memory is used."""
    if how == "trace":
        tracemalloc.start()

    def look() -> None:
        gc.collect()
        traced_bytes = tracemalloc.get_traced_memory()[0] if how == "trace" else None
        questions.say({"traced_bytes": traced_bytes, "resident_bytes": resident_bytes()})

    questions = Questions(look)
    StandardIO(questions, reactor=reactor)
    settings = Settings(
        maximum_connections=int(connections) + WARM_UP,
        maximum_connections_per_address=int(connections) + WARM_UP,
    )
    endpoint = UTPServerEndpoint(reactor, 0, interface=HOST, settings=settings)
    port = await endpoint.listen(Factory.forProtocol(Echo))
    questions.say({"port": port.getHost().port})
    await Deferred()


# The clients


class Visit:
    """One connection of the client: a byte there, a byte back.  It is what ``UTPProtocol`` calls an owner."""

    __slots__ = ("_clients", "_sent", "connection")

    def __init__(self, clients: Clients) -> None:
        self.connection: Connection | None = None
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
            self._clients.utp.touch(connection)
        if connection.take(1):
            self._clients.arrived()

    def refill(self) -> None:
        """There is nothing more to send."""


class Clients:
    """Connections from one UDP port."""

    def __init__(self, reactor: Any, port: int, done: Callable[[], None]) -> None:
        limit = 1 << 20
        settings = Settings(maximum_connections=limit, maximum_connections_per_address=limit)
        self.utp = UTPProtocol(reactor, settings)
        self._address = (HOST, port)
        self._done = done
        self._visits: list[Visit] = []
        self._wanted = 0
        self._missing = 0
        reactor.listenUDP(0, self.utp, interface=HOST)

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
        visit = Visit(self)
        self._visits.append(visit)
        visit.connection = self.utp.connect(self._address, visit)


async def visit(reactor: Any, port: str, connections: str) -> None:
    """Make ``WARM_UP`` connections with the first line of input, and the others with the second."""
    counts = iter((WARM_UP, int(connections)))
    questions = Questions(lambda: clients.connect(next(counts)))
    clients = Clients(reactor, int(port), lambda: questions.say({"done": True}))
    StandardIO(questions, reactor=reactor)
    await Deferred()


# What runs them


def measure(how: str, connections: int) -> dict[str, Any]:
    """By how much the server's memory grew per connection, in bytes."""
    with worker(sys.executable, HERE, "--serve", how, connections) as server:
        port = server.line()["port"]
        with worker(sys.executable, HERE, "--visit", port, connections) as clients:
            looks = []
            for _ in range(2):
                clients.tell()
                clients.line()
                server.tell()
                looks.append(server.line())
    before, after = looks
    return {
        name: None if before[name] is None or after[name] is None else (after[name] - before[name]) / connections
        for name in before
    }


def main() -> None:
    """Measure what the command line says, and print it."""
    # Our own processes.
    if sys.argv[1:2] in (["--serve"], ["--visit"]):
        react(serve if sys.argv[1] == "--serve" else visit, sys.argv[2:])

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=10_000, help="how many (default: 10000)")
    parser.add_argument("--json", action="store_true", help="print bytes per connection as JSON instead of a table")
    options = parser.parse_args()

    traced_bytes = measure("trace", options.connections)["traced_bytes"]
    resident = measure("plain", options.connections)["resident_bytes"]

    if options.json:
        counts = {"connections": options.connections, "traced_bytes": traced_bytes, "resident_bytes": resident}
        print(json.dumps(counts))
        return
    print(f"{options.connections} idle connections on one UDP port, memory of the server for each of them.")
    print(f"{machine()}; {versions()}.\n")
    rows = [
        ["Python objects (tracemalloc)", f"{traced_bytes / 1024:.2f}"],
        ["the whole process (RSS)", "not known here" if resident is None else f"{resident / 1024:.2f}"],
    ]
    print(markdown(["", "KiB for each connection"], rows))


if __name__ == "__main__":
    main()
