"""A program for the workers of ``test_workers.py``: listens on the ports of its arguments, and does what it is told.

Each argument is INTERFACE=PORT.  A connection says lines: ``who``, ``dial HOST PORT``, ``die``; after ``bulk`` all of
it comes back.  What is not uTP is answered by the worker that gets it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

from txutp import Settings, UTPClientEndpoint, listenUTP
from txutp.workers import this_worker

MISSING = "TXUTP_TEST_BROKEN"  # names a file; if it is there, the program ends before it listens
worker = this_worker()
assert worker is not None


class Told(Protocol):
    """Does what it is told."""

    transport: Any
    is_bulk = False
    unread = b""

    def dataReceived(self, data: bytes) -> None:
        self.unread += data
        while not self.is_bulk and b"\n" in self.unread:
            line, _, self.unread = self.unread.partition(b"\n")
            self.told(line.decode().split())
        if self.is_bulk:
            self.transport.write(self.unread)
            self.unread = b""

    def told(self, words: list[str]) -> None:
        if words == ["who"]:
            self.answer(f"{worker.number} {os.getpid()}")
        elif words[0] == "dial":
            self.dial(words[1], int(words[2]))
        elif words == ["die"]:
            os._exit(1)
        elif words == ["bulk"]:
            self.is_bulk = True

    def answer(self, words: str) -> None:
        self.transport.write(words.encode() + b"\n")

    def dial(self, host: str, port: int) -> None:
        """Connect from the port that the workers share, and pass on what the other side says."""
        shared = self.transport.getHost()
        endpoint = UTPClientEndpoint(reactor, host, port, timeout=20, bindAddress=(self.factory.interface, shared.port))
        dialled = connectProtocol(endpoint, Dialled(f"hello from {worker.number}\n".encode()))
        dialled.addCallback(lambda protocol: protocol.heard)
        dialled.addCallbacks(
            lambda heard: self.answer(f"{worker.number} {heard.decode().strip()}"),
            lambda failure: self.answer(f"{worker.number} {failure.type.__name__}"),
        )


class Dialled(Protocol):
    """Says a line, hears one, and goes."""

    transport: Any

    def __init__(self, line: bytes) -> None:
        self.line = line
        self.heard: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.line)

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()
        heard, self.heard = self.heard, Deferred()
        heard.callback(data)


class Foreign(DatagramProtocol):
    """Answers what is not uTP."""

    def datagramReceived(self, datagram: bytes, address: Any) -> None:
        self.transport.write(b"%d heard %b" % (worker.number, datagram), address)


if Path(os.environ.get(MISSING) or "none").exists():
    sys.exit(3)
for argument in sys.argv[1:]:
    interface, _, port = argument.partition("=")
    factory = Factory.forProtocol(Told)
    factory.noisy = False
    factory.interface = interface
    foreign = Foreign() if worker.number == 0 else None
    listenUTP(reactor, int(port), factory, interface=interface, settings=Settings(), datagramProtocol=foreign)
reactor.run()
