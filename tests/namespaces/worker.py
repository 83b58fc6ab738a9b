"""One end of a transfer inside a namespace; see support.py."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict
from random import Random

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from txutp import UTPClientEndpoint, listenUTP

TIMEOUT_SECONDS = 50


def say(**what: object) -> None:
    """Tell our parent."""
    print(json.dumps(what), flush=True)


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


def main() -> None:
    """``receive HOST BYTES`` or ``send HOST PORT BYTES``."""
    what, host, *numbers = sys.argv[1:]
    if what == "receive":
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
