"""One end of a transfer inside a namespace; see support.py."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from random import Random

from twisted.internet import reactor
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from benchmarks.processes import say
from txutp import Settings, UTPClientEndpoint, listenUTP

TIMEOUT_SECONDS = 50


def stop() -> None:
    """End, at the latest when time is up."""
    if reactor.running:  # type: ignore[attr-defined]
        reactor.stop()  # type: ignore[attr-defined]


class Receiver(Protocol):
    """Takes a stream and answers with one byte when it has all."""

    total_bytes = 0

    def connectionMade(self) -> None:
        self.left = self.total_bytes
        self.digest = hashlib.sha256()

    def dataReceived(self, data: bytes) -> None:
        self.digest.update(data)
        self.left -= len(data)
        if not self.left:
            self.transport.write(b".")
            say(sha256=self.digest.hexdigest())

    def connectionLost(self, reason: object) -> None:
        stop()


class Sender(Protocol):
    """Sends a stream, and is done when it was answered."""

    total_bytes = 0

    def connectionMade(self) -> None:
        data = Random(1).randbytes(self.total_bytes)
        self.digest = hashlib.sha256(data)
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        say(sha256=self.digest.hexdigest(), stats=asdict(self.transport.stats()))  # type: ignore[union-attr]
        self.transport.loseConnection()

    def connectionLost(self, reason: object) -> None:
        stop()


KEEPALIVE_SECONDS = 1
FULL_SECONDS = 5


class Full:
    """Fills the socket with datagrams of another protocol, and watches what its idle connections cost meanwhile."""

    def __init__(self, host: str, number: int) -> None:
        self.there = host, number
        self.datagrams = DatagramProtocol()
        settings = Settings(keepalive_us=KEEPALIVE_SECONDS * 1_000_000)
        listening = listenUTP(
            reactor, 0, Factory.forProtocol(Protocol), settings=settings, datagramProtocol=self.datagrams
        )
        self.utp = listening._utp
        ours = ("", listening.getHost().port)
        for _ in range(3):
            endpoint = UTPClientEndpoint(reactor, host, number, bindAddress=ours, settings=settings)
            endpoint.connect(Factory.forProtocol(Protocol))
        reactor.callLater(0.5, self.fill)  # type: ignore[attr-defined]

    def fill(self) -> None:
        """Until the kernel takes no more."""
        counters = self.utp.multiplexer.counters
        while not counters.sends_refused:
            self.datagrams.transport.write(bytes(1_400), self.there)
        self.rings = 0
        self.utp._on_timer = self.count(self.utp._on_timer)
        self.cpu_seconds = time.process_time()
        reactor.callLater(FULL_SECONDS, self.tell)  # type: ignore[attr-defined]

    def count(self, on_timer: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.rings += 1
            on_timer()

        return counted

    def tell(self) -> None:
        say(
            connections=self.utp.connections,
            blocked=self.utp._outbox._blocked,
            rings=self.rings,
            cpu_seconds=time.process_time() - self.cpu_seconds,
        )
        stop()


def main() -> None:
    """``receive HOST BYTES``, ``send HOST PORT BYTES`` or ``fill HOST PORT``."""
    what, host, *numbers = sys.argv[1:]
    if what == "fill":
        Full(host, int(numbers[0]))
    elif what == "receive":
        Receiver.total_bytes = int(numbers[0])
        port = listenUTP(reactor, 0, Factory.forProtocol(Receiver), interface=host)
        say(port=port.getHost().port)
    else:
        Sender.total_bytes = int(numbers[1])
        UTPClientEndpoint(reactor, host, int(numbers[0])).connect(Factory.forProtocol(Sender))
    reactor.callLater(TIMEOUT_SECONDS, stop)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
