"""Our side of the matrix of peers: txutp in a process of its own, doing one simple thing.

    python ours.py listen VERB [OPTIONS]
    python ours.py connect PORT VERB [OPTIONS]

The verbs, the options and the lines of JSON are those of peer.js, with these in addition:

    --settings JSON      fields of ``Settings``
    --local-port PORT    the port that a client leaves from
    --expect N           end only when N bytes have been received, for peers that know no half close
    --pause-seconds S    how long to be silent between the first and the second half of what is sent

A client that cannot connect prints a line with the error, too.  Each error is the name of an exception.  A line
{"up": true} says that the other side has acknowledged a megabyte, or has sent one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint

CHUNK_BYTES = 64 * 1024
UP_BYTES = 1_000_000
CONNECT_SECONDS = 10


def say(**what: object) -> None:
    """Print a line for the test."""
    print(json.dumps(what), flush=True)


class Count:
    """How many bytes there were, and which."""

    def __init__(self) -> None:
        self.bytes = 0
        self._hash = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.bytes += len(data)
        self._hash.update(data)

    def tally(self) -> dict[str, Any]:
        return {"bytes": self.bytes, "sha256": self._hash.hexdigest()}


@implementer(IHalfCloseableProtocol, IPullProducer)
class Talker(Protocol):
    """One connection.  It writes a chunk whenever the transport asks for one."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.received, self.sent = Count(), Count()
        self.heard_end = self.said_all = self.said_end = self.producing = self.is_up = False
        self.left = side.options.bytes
        self.pause_at = self.left // 2 if side.options.pause_seconds else -1

    def say_up(self, _: object = None) -> None:
        """Say once that bytes get through."""
        if not self.is_up:
            self.is_up = True
            say(up=True)

    def put(self, data: bytes) -> None:
        """Write, and keep the books."""
        self.sent.add(data)
        self.transport.write(data)

    def send(self) -> None:
        """Send all the bytes that this side has to send, and what comes after them."""
        self.producing = True
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        length = min(CHUNK_BYTES, self.left)
        if self.left > self.pause_at > self.left - length:
            length = self.left - self.pause_at
        if length:
            self.put(os.urandom(length))
            self.left -= length
        if self.sent.bytes >= UP_BYTES and not self.is_up:
            self.transport.acknowledged().addCallbacks(self.say_up, lambda failure: None)
        if self.left and self.left != self.pause_at:
            return
        self.stopProducing()
        if self.left:
            reactor.callLater(self.side.options.pause_seconds, self.send)
            self.pause_at = -1
        else:
            self.said_all = True
            self.end()

    def end(self) -> None:
        """Close our half, or all of it, if it is time to."""
        if self.said_end or not self.said_all or self.received.bytes < self.side.options.expect:
            return
        self.said_end = True
        if self.heard_end or self.side.options.verb == "send-close":
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def stopProducing(self) -> None:
        if self.producing:
            self.producing = False
            self.transport.unregisterProducer()

    # From here on: what Twisted calls.

    def connectionMade(self) -> None:
        options = self.side.options
        if options.greeting:
            self.put(options.greeting.encode())
        if options.verb in ("exchange", "send-close"):
            self.send()

    def dataReceived(self, data: bytes) -> None:
        self.received.add(data)
        if self.received.bytes >= UP_BYTES:
            self.say_up()
        if self.side.options.verb == "echo":
            self.put(data)
        self.end()

    def readConnectionLost(self) -> None:
        self.heard_end = True
        if self.side.options.verb == "answer":
            self.send()
        elif self.said_end or self.side.options.verb == "echo":
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        error = None if reason.check(ConnectionDone) else reason.type.__name__
        say(received=self.received.tally(), sent=self.sent.tally(), ended=self.heard_end, error=error)
        self.side.one_less()


class Side(Factory):
    """This program."""

    noisy = False

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.left = options.connections
        self.settings = Settings(**options.settings)

    def buildProtocol(self, address: object) -> Talker:
        return Talker(self)

    def one_less(self) -> None:
        """End the program after the last connection."""
        self.left -= 1
        if not self.left:
            # What closing needs after the last callback has its time when the reactor stops.
            reactor.callLater(0, reactor.stop)

    def listen(self) -> None:
        options = self.options
        endpoint = UTPServerEndpoint(reactor, options.port, interface=options.host, settings=self.settings)
        endpoint.listen(self).addCallback(lambda port: say(port=port.getHost().port))

    def connect(self) -> None:
        options = self.options
        bind = ("::" if ":" in options.host else "", options.local_port) if options.local_port else None
        for _ in range(options.connections):
            endpoint = UTPClientEndpoint(
                reactor, options.host, options.port, timeout=CONNECT_SECONDS, bindAddress=bind, settings=self.settings
            )
            connectProtocol(endpoint, Talker(self)).addErrback(self.not_connected)

    def not_connected(self, failure: Failure) -> None:
        say(error=failure.type.__name__)
        self.one_less()


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["listen", "connect"])
    parser.add_argument("what", nargs="+")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--expect", type=int, default=0)
    parser.add_argument("--greeting", default="")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--local-port", type=int, default=0)
    parser.add_argument("--pause-seconds", type=float, default=0)
    options = parser.parse_args()
    options.verb = options.what[-1]
    if options.role == "connect":
        options.port = int(options.what[0])
    side = Side(options)
    reactor.callWhenRunning(side.listen if options.role == "listen" else side.connect)
    reactor.run()


if __name__ == "__main__":
    main()
