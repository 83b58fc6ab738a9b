"""What the benchmarks share: the processes that are measured, and what runs them.

Each end of a connection is a process of its own, so that its CPU time is its own.  They talk in lines of JSON on their
standard output: a receiver says ``{"port": ...}`` first, and each says at its end what it measured.  ``utp_native.js``
speaks the same way.

    python benchmarks/support.py receive TRANSPORT BYTES
    python benchmarks/support.py send TRANSPORT BYTES PORT
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

import twisted
import txutp
from txutp.udp import BatchPort

HOST = "127.0.0.1"
CHUNK = bytes(64 * 1024)

# A process that takes longer than this hangs.
LIMIT_SECONDS = 600


class OtherPorts:
    """The reactor, with UDP ports as other systems or other programs would give them to txutp."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def __getattr__(self, name: str) -> Any:
        # What the reactor provides is not handed on: txutp sees no IReactorFDSet, and so it calls listenUDP.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reactor, name)


class NoOffload(OtherPorts):
    """UDP ports with large buffers that send and receive one datagram at a time."""

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> BatchPort:
        udp_port = BatchPort(port, protocol, interface, self.reactor, offload=False)
        udp_port.startListening()
        return udp_port


# Name on the command line -> first word of the endpoint string, and the reactor to use.
TRANSPORTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "utp": ("utp", lambda reactor: reactor),
    "utp-no-offload": ("utp", NoOffload),
    "utp-listen-udp": ("utp", OtherPorts),
    "tcp": ("tcp", lambda reactor: reactor),
}


# The processes that are measured


def cpu_seconds() -> float:
    """What this process has used so far, in user and kernel mode."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(words: dict[str, Any]) -> None:
    """One line to whoever started us."""
    print(json.dumps(words), flush=True)


class Receiver(Protocol):
    """Counts what comes, and closes when the other side has ended."""

    def __init__(self, total_bytes: int) -> None:
        self.ended: Deferred[None] = Deferred()
        self._missing_bytes = total_bytes
        self._seconds = 0.0
        self._cpu_seconds = 0.0

    def connectionMade(self) -> None:
        self._seconds = -time.monotonic()
        self._cpu_seconds = -cpu_seconds()

    def dataReceived(self, data: bytes) -> None:
        self._missing_bytes -= len(data)
        if not self._missing_bytes:
            self._seconds += time.monotonic()
            self._cpu_seconds += cpu_seconds()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._missing_bytes:
            sys.exit(f"{self._missing_bytes} bytes did not come: {reason.getErrorMessage()}")
        say({"seconds": self._seconds, "cpu_seconds": self._cpu_seconds})
        self.ended.callback(None)


@implementer(IPushProducer)
class Sender(Protocol):
    """Writes 64 KiB at a time, as fast as the transport takes it, ends its half, and waits for the other one."""

    transport: Any

    def __init__(self, total_bytes: int) -> None:
        self.ended: Deferred[None] = Deferred()
        self._left_bytes = total_bytes
        self._paused = False
        self._cpu_seconds = 0.0

    def connectionMade(self) -> None:
        self._cpu_seconds = -cpu_seconds()
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._cpu_seconds += cpu_seconds()
        say({"cpu_seconds": self._cpu_seconds})
        self.ended.callback(None)

    def resumeProducing(self) -> None:
        self._paused = False
        while self._left_bytes and not self._paused:
            data = CHUNK[: self._left_bytes]
            self._left_bytes -= len(data)
            self.transport.write(data)
        if not self._left_bytes:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


async def receive(reactor: Any, transport: str, total_bytes: str) -> None:
    """Take one connection."""
    word, adapt = TRANSPORTS[transport]
    receiver = Receiver(int(total_bytes))
    endpoint = serverFromString(adapt(reactor), f"{word}:0:interface={HOST}")
    port = await endpoint.listen(Factory.forProtocol(lambda: receiver))
    say({"port": port.getHost().port})
    await receiver.ended


async def send(reactor: Any, transport: str, total_bytes: str, port: str) -> None:
    """Make one connection."""
    word, adapt = TRANSPORTS[transport]
    sender = Sender(int(total_bytes))
    await connectProtocol(clientFromString(adapt(reactor), f"{word}:{HOST}:{port}"), sender)
    await sender.ended


# What runs them


class Worker:
    """A process that talks in lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> dict[str, Any]:
        """What it says next; if it says nothing any more, the benchmark ends."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(map(str, self._process.args))} ended early")  # type: ignore[arg-type]
        words: dict[str, Any] = json.loads(line)
        return words

    def tell(self, line: str = "") -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


@contextmanager
def worker(*command: object) -> Iterator[Worker]:
    """Run a process while the block runs."""
    process = subprocess.Popen(
        [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    limit = threading.Timer(LIMIT_SECONDS, process.kill)
    limit.start()
    try:
        with process:
            yield Worker(process)
            process.kill()
    finally:
        process.kill()
        limit.cancel()


def machine() -> str:
    """Processor and kernel in a few words."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores of {processor}, {platform.system()} {platform.release()}"


def versions() -> str:
    """Python, Twisted and txutp."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, Twisted {twisted.__version__}, txutp {txutp.__version__}"


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Median, and the smallest and largest value."""
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} [{least:.{digits}f}-{most:.{digits}f}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


if __name__ == "__main__":
    react({"receive": receive, "send": send}[sys.argv[1]], sys.argv[2:])
