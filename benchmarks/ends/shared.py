"""One of the processes that share a port: it echoes what comes, or takes it, and counts in a file that all have.

Arguments: transport, host, port, file, "echo" or "sink"; for TCP also its number.  uTP is shared by ``txutp.workers``,
TCP by SO_REUSEPORT alone, which the kernel steers by addresses.
"""

from __future__ import annotations

import mmap
import socket
import struct
import sys
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import AdoptedStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall

from benchmarks.ends.talk import cpu_seconds
from txutp import Settings, UTPServerEndpoint
from txutp.workers import this_worker

# What each process writes into its place: bytes received, CPU seconds, connections accepted; all 0 before it listens.
COUNTS = struct.Struct("=Qdd")
COUNTING_SECONDS = 0.02

MANY = 1 << 18


class Counts:
    """The place of one process in the file."""

    def __init__(self, path: str, number: int) -> None:
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._number = number
        self.received_bytes = 0
        self.accepted = 0

    def write(self) -> None:
        counts = self.received_bytes, cpu_seconds(), float(self.accepted)
        COUNTS.pack_into(self._memory, self._number * COUNTS.size, *counts)


class Counting(Protocol):
    """Takes what comes, or sends it back."""

    transport: Any

    def __init__(self, counts: Counts, echoes: bool) -> None:
        self._counts = counts
        self._echoes = echoes

    def connectionMade(self) -> None:
        self._counts.accepted += 1

    def dataReceived(self, data: bytes) -> None:
        self._counts.received_bytes += len(data)
        if self._echoes:
            self.transport.write(data)


def endpoint_of(transport: str, host: str, port: int) -> Any:
    """The endpoint of one process."""
    if transport == "utp":
        settings = Settings(
            maximum_connections=MANY,
            maximum_connections_per_address=MANY,
            maximum_half_open=MANY,
            maximum_half_open_per_address=MANY,
        )
        return UTPServerEndpoint(reactor, port, interface=host, settings=settings)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listening.bind((host, port))
    listening.listen(1_000)
    listening.setblocking(False)
    return AdoptedStreamServerEndpoint(reactor, listening.detach(), socket.AF_INET)


def main() -> None:
    """Serve until ended."""
    transport, host, port, path, what, *number = sys.argv[1:]
    worker = this_worker()
    counts = Counts(path, worker.number if worker is not None else int(number[0]))
    factory = Factory.forProtocol(lambda: Counting(counts, what == "echo"))
    factory.noisy = False
    listening = endpoint_of(transport, host, int(port)).listen(factory)
    listening.addCallback(lambda port: LoopingCall(counts.write).start(COUNTING_SECONDS))
    listening.addErrback(lambda failure: failure.printTraceback() or reactor.stop())
    reactor.run()


if __name__ == "__main__":
    main()
