"""Hundreds of connections on real sockets for as long as one likes, while their processes are killed and paused.

    python -m tests.soak --minutes 30
    python -m tests.soak --minutes 0.3 --connections 20 --every 4

Two client processes keep connections to a server on loopback, write at random, and check the echo; the server checks
what it receives.  In turns one of them is killed and started again, or stopped for a few seconds, so that its socket
overflows.  At the end the report says what went wrong, if anything: a wrong byte, a connection that ended although both
sides lived, a dead peer that was noticed too late, or memory that grew.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.protocol import Factory, Protocol

from txutp import UTPClientEndpoint, listenUTP

LOCAL = "127.0.0.1"
PROCESSES = 2

# Two ICMP errors from its host, each drawn by a keepalive, show a dead peer (docs/explanation/security.md).
NOTICED_SECONDS = 29.5 + 6

# How long a stopped process stays so, and what writes are: bytes, and seconds between two of one connection.
STOPPED_SECONDS = 3
LARGEST_WRITE_BYTES = 30_000
PAUSE_SECONDS = (0.05, 2.0)

# By how much the server's memory may be larger at the end than after its first restart of clients.
GROWTH = 1.25

# A stream repeats so many random bytes, which depend on its number.
PERIOD_BYTES = 65_521
NUMBER_BYTES = 4


class Pattern:
    """What a stream consists of, and how far it was read or written."""

    def __init__(self, number: int) -> None:
        self._block = random.Random(number).randbytes(PERIOD_BYTES) * 2
        self.position = 0

    def next(self, size: int) -> bytes:
        start = self.position % PERIOD_BYTES
        self.position += size
        return (self._block[start:] + self._block * (size // PERIOD_BYTES + 1))[:size]


class Echo(Protocol):
    """The server's end: checks, and sends back."""

    def __init__(self) -> None:
        self.head = b""
        self.pattern: Pattern | None = None
        self.process = -1

    def dataReceived(self, data: bytes) -> None:
        soak = self.factory.soak  # type: ignore[union-attr]
        if self.pattern is None:
            self.head += data
            if len(self.head) < NUMBER_BYTES:
                return
            number = int.from_bytes(self.head[:NUMBER_BYTES], "big")
            self.pattern, self.process = Pattern(number), number % PROCESSES
            soak.up[self.process].add(self)
            data = self.head[NUMBER_BYTES:]
        soak.received_bytes += len(data)
        if data != self.pattern.next(len(data)):
            soak.fault("the server received a wrong byte")
        self.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        soak = self.factory.soak  # type: ignore[union-attr]
        soak.up[self.process].discard(self)
        if self.process in soak.killed:
            soak.noticed.append(time.monotonic() - soak.killed[self.process])
        elif not soak.ends:
            soak.fault(f"a connection between living processes ended: {reason.value}")


class Writer(Protocol):
    """A client's end: writes at random, and checks the echo."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.written, self.echoed = Pattern(number), Pattern(number)
        self.random = random.Random(-number)

    def connectionMade(self) -> None:
        self.transport.write(self.number.to_bytes(NUMBER_BYTES, "big"))  # type: ignore[union-attr]
        self.write()

    def write(self) -> None:
        if self.written.position - self.echoed.position < 10 * LARGEST_WRITE_BYTES:
            self.transport.write(self.written.next(self.random.randrange(1, LARGEST_WRITE_BYTES)))  # type: ignore[union-attr]
        reactor.callLater(self.random.uniform(*PAUSE_SECONDS), self.write)  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        if data != self.echoed.next(len(data)):
            print("a client received a wrong byte", flush=True)
            os._exit(3)

    def connectionLost(self, reason: Any = None) -> None:
        print(f"a client lost its connection: {reason.value}", flush=True)
        os._exit(4)


def resident_kib() -> int:
    """The memory of this process."""
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * 4


class Soak:
    """One run."""

    def __init__(self, minutes: float, connections: int, every_seconds: float, kills: bool) -> None:
        self.seconds = minutes * 60
        self.connections = connections
        self.every_seconds = every_seconds
        self.may_kill = kills
        self.up: dict[int, set[Echo]] = {process: set() for process in range(-1, PROCESSES)}
        self.killed: dict[int, float] = {}
        self.noticed: list[float] = []
        self.faults: list[str] = []
        self.received_bytes = self.kills = self.stops = self.started = 0
        self.ends = False
        self.children: dict[int, subprocess.Popen[str]] = {}
        self.memory_kib: list[int] = []

    def fault(self, what: str) -> None:
        print(what, flush=True)
        self.faults.append(what)

    def start(self, process: int) -> None:
        self.started += 1
        command = [sys.executable, "-m", "tests.soak", "--client", str(self.port.getHost().port)]
        first = process + self.started * self.connections * PROCESSES
        command += ["--first", str(first), "--connections", str(self.connections // PROCESSES)]
        self.children[process] = subprocess.Popen(command, text=True)

    async def until(self, condition: Any, seconds: float, what: str) -> None:
        began = time.monotonic()
        while not condition():
            if time.monotonic() > began + seconds:
                self.fault(what)
                return
            await task.deferLater(reactor, 0.05)  # type: ignore[arg-type]

    async def all_up(self) -> None:
        each = self.connections // PROCESSES
        await self.until(lambda: all(len(self.up[n]) == each for n in self.children), 60, "not all are connected")

    async def run(self) -> None:
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        factory.soak = self  # type: ignore[attr-defined]
        self.port = listenUTP(reactor, 0, factory, interface=LOCAL)
        for process in range(PROCESSES):
            self.start(process)
        await self.all_up()
        end = time.monotonic() + self.seconds
        number = 0
        try:
            while time.monotonic() < end and not self.faults:
                await task.deferLater(reactor, self.every_seconds)  # type: ignore[arg-type]
                process, is_kill = number // 2 % PROCESSES, self.may_kill and number % 2 == 0
                number += 1
                child = self.children[process]
                if child.poll() is not None:
                    self.fault(f"a client ended with {child.returncode}")
                elif is_kill:
                    await self.kill(process, child)
                else:
                    self.stops += 1
                    child.send_signal(signal.SIGSTOP)
                    await task.deferLater(reactor, STOPPED_SECONDS)  # type: ignore[arg-type]
                    child.send_signal(signal.SIGCONT)
                self.memory_kib.append(resident_kib())
        finally:
            self.ends = True
            for child in self.children.values():
                child.kill()
                child.wait()

    async def kill(self, process: int, child: subprocess.Popen[str]) -> None:
        self.kills += 1
        self.killed[process] = time.monotonic()
        child.kill()
        child.wait()
        await self.until(lambda: not self.up[process], NOTICED_SECONDS, "a dead peer was noticed too late")
        del self.killed[process]
        self.start(process)
        await self.all_up()

    def report(self) -> int:
        """Print the figures; returns the exit status."""
        settled = self.memory_kib[1:] or [0]
        if settled[-1] > GROWTH * settled[0]:
            self.fault("the memory of the server grew")
        print(
            f"{self.connections} connections, {self.seconds / 60:g} minutes:"
            f" {self.received_bytes // 10**6} MB each way;"
            f" {self.kills} kills, noticed after {max(self.noticed, default=0):.1f} s at most;"
            f" {self.stops} stops of {STOPPED_SECONDS} s; memory {settled[0]} to {settled[-1]} KiB;"
            f" {len(self.faults)} faults"
        )
        return 1 if self.faults else 0


def be_client(port: int, first: int, connections: int) -> None:
    """A process with so many connections, until it is killed."""
    endpoint = UTPClientEndpoint(reactor, LOCAL, port)
    for number in range(first, first + connections * PROCESSES, PROCESSES):
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda addr, number=number: Writer(number)  # type: ignore[method-assign,misc]
        endpoint.connect(factory).addErrback(lambda failure: os._exit(5))
    reactor.run()  # type: ignore[attr-defined]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--every", type=float, default=20, help="seconds between two events")
    parser.add_argument("--no-kills", action="store_true", help="only stop processes")
    parser.add_argument("--client", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        be_client(options.client, options.first, options.connections)
        return
    soak = Soak(options.minutes, options.connections, options.every, not options.no_kills)
    done: Deferred[None] = ensureDeferred(soak.run())
    done.addErrback(lambda failure: soak.fault(str(failure)))
    done.addBoth(lambda result: reactor.stop())  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]
    sys.exit(soak.report())


if __name__ == "__main__":
    main()
