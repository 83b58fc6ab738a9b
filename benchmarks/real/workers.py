"""One end of a flow, as a process on a host.

    python -m benchmarks.real.workers receive-utp PORT CONGESTION [TARGET]
    python -m benchmarks.real.workers send-utp PORT CONGESTION [TARGET]
    python -m benchmarks.real.workers receive-tcp PORT CONGESTION
    python -m benchmarks.real.workers send-tcp PORT CONGESTION

It says when it is ready, is told ``zero`` (by the monotonic clock) and when to start and to end after that, and tells
at its end what it has counted.  ``utp_native.js`` speaks the same way.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from benchmarks.ends.talk import cpu_seconds
from benchmarks.processes import listen, say
from benchmarks.real.hosts import RECEIVER
from benchmarks.scenarios.measure import BINS_PER_SECOND

CHUNK = bytes(64 * 1024)
READ_BYTES = 256 * 1024
PATIENCE_S = 0.2


class Tally:
    """Bytes in tenths of a second from zero, and the processor time that it took."""

    def __init__(self, order: dict[str, float]) -> None:
        self.zero = order["zero"]
        self.start = self.zero + order["start_s"]
        self.end = self.zero + order["end_s"]
        self.bins = [0] * (round(order["end_s"] * BINS_PER_SECOND) + 1)
        self._cpu_seconds = 0.0

    def begin(self) -> None:
        """The flow starts now."""
        self._cpu_seconds = -cpu_seconds()

    def add(self, count: int) -> None:
        """So many bytes came."""
        index = int((time.monotonic() - self.zero) * BINS_PER_SECOND)
        if index < len(self.bins):
            self.bins[index] += count

    def report(self) -> None:
        """Tell what was counted."""
        used_seconds = self._cpu_seconds + cpu_seconds()
        say(bins=self.bins, cpu_share=used_seconds / (self.end - self.start))


class Sink(Protocol):
    """Counts what comes."""

    def __init__(self, add: Callable[[int], None]) -> None:
        self._add = add

    def dataReceived(self, data: bytes) -> None:
        self._add(len(data))


@implementer(IPushProducer)
class Source(Protocol):
    """Writes whenever the transport takes it."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:
            self.transport.write(CHUNK)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True


def words(congestion: str, target: str | None) -> str:
    """The end of an endpoint string."""
    return f":congestion={congestion}" + (f":target={target}" if target else "")


def run_until(tally: Tally) -> None:
    """Let the reactor run, from the start of the flow to its end."""
    from twisted.internet import reactor

    def finish() -> None:
        tally.report()
        # without goodbyes, which would take their time
        os._exit(0)

    reactor.callLater(max(tally.start - time.monotonic(), 0), tally.begin)
    reactor.callLater(max(tally.end - time.monotonic(), 0), finish)
    reactor.run()


def receive_utp(port: str, congestion: str, target: str | None = None) -> None:
    """Take one connection."""
    from twisted.internet import reactor

    tally: Tally | None = None

    def add(count: int) -> None:
        if tally is not None:
            tally.add(count)

    factory = Factory.forProtocol(lambda: Sink(add))
    # The sender's controller is measured, so the receiver does not hold it back.
    string = f"utp:{port}:interface={RECEIVER}:receive=off{words(congestion, target)}"
    serverFromString(reactor, string).listen(factory)
    say(ready=True)
    tally = Tally(listen())
    run_until(tally)


def send_utp(port: str, congestion: str, target: str | None = None) -> None:
    """Send as much as the path takes."""
    from twisted.internet import reactor

    endpoint = clientFromString(reactor, f"utp:{RECEIVER}:{port}{words(congestion, target)}")
    source = Source()
    say(ready=True)
    tally = Tally(listen())

    reactor.callLater(max(tally.start - time.monotonic(), 0), connectProtocol, endpoint, source)
    run_until(tally)


def choose(connection: socket.socket, congestion: str) -> None:
    """Set the congestion control of a TCP socket, and see that it is the one."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    chosen = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()
    if chosen != congestion:
        raise RuntimeError(f"TCP uses {chosen}, not {congestion}")


def receive_tcp(port: str, congestion: str) -> None:
    """Take one connection."""
    server = socket.create_server((RECEIVER, int(port)))
    choose(server, congestion)
    say(ready=True)
    tally = Tally(listen())
    server.settimeout(max(tally.end - time.monotonic(), 0))
    connection, _ = server.accept()
    tally.begin()
    connection.settimeout(PATIENCE_S)
    while time.monotonic() < tally.end:
        try:
            tally.add(len(connection.recv(READ_BYTES)))
        except TimeoutError:
            continue
    tally.report()
    # the sender shall end by itself, not by our reset
    sys.stdin.read()


def send_tcp(port: str, congestion: str) -> None:
    """Send as much as the path takes."""
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    choose(connection, congestion)
    say(ready=True)
    tally = Tally(listen())
    time.sleep(max(tally.start - time.monotonic(), 0))
    tally.begin()
    connection.connect((RECEIVER, int(port)))
    connection.settimeout(PATIENCE_S)
    while time.monotonic() < tally.end:
        try:
            connection.send(CHUNK)
        except TimeoutError:
            continue
    tally.report()
    os._exit(0)


ROLES: dict[str, Callable[..., None]] = {
    "receive-utp": receive_utp,
    "send-utp": send_utp,
    "receive-tcp": receive_tcp,
    "send-tcp": send_tcp,
}

if __name__ == "__main__":
    ROLES[sys.argv[1]](*sys.argv[2:])
