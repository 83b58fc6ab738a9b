"""Connect, one byte there and back, close, and again: how many a second.

Verb: visit.  Options: transport, host, port, count, at_once, and how: "endpoint", or "connect" for the older way
(``reactor.connectTCP``), or "own ports" for as many UDP ports as there are visits at once, as if each visitor were a
host of its own.  A visit is over with ``connectionLost``.  The first tenth is not counted.
"""

from __future__ import annotations

import sys
from itertools import cycle
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from benchmarks.ends.talk import Stopwatch, Words, run, say
from benchmarks.ends.transports import TRANSPORTS, client
from txutp import UTPClientEndpoint, connectUTP, listenUTP

WARM_UP_SHARE = 0.1


class Visit(Protocol):
    """One connection."""

    transport: Any

    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._answered = False

    def connectionMade(self) -> None:
        self.transport.write(b"x")

    def dataReceived(self, data: bytes) -> None:
        self._answered = True
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._answered:
            self._visits.failed(reason)
        else:
            self._visits.over()


class Visits(ClientFactory):
    """All of them: with the end of one the next begins."""

    noisy = False

    def __init__(self, reactor: Any, options: Words) -> None:
        self.done: Deferred[None] = Deferred()
        self._reactor = reactor
        self._options = options
        self._endpoints = cycle(endpoints(reactor, options))
        self._to_end = options["count"]
        self._warm_up = int(options["count"] * (1 - WARM_UP_SHARE))  # it is over when so many are left
        self._stopwatch = Stopwatch()
        at_once = min(options["at_once"], options["count"])
        self._to_begin = options["count"] - at_once
        for _ in range(at_once):
            self._begin()

    def buildProtocol(self, address: Any) -> Visit:
        return Visit(self)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed(reason)

    def _begin(self) -> None:
        if self._options["how"] != "connect":
            next(self._endpoints).connect(self).addErrback(self.failed)
        elif TRANSPORTS[self._options["transport"]][0] == "utp":
            connectUTP(self._reactor, self._options["host"], self._options["port"], self)
        else:
            self._reactor.connectTCP(self._options["host"], self._options["port"], self)

    def over(self) -> None:
        self._to_end -= 1
        if self._to_end == self._warm_up:
            self._stopwatch = Stopwatch()
        if self._to_begin:
            # as a program would that is not called back from within its own call
            self._to_begin -= 1
            self._reactor.callLater(0, self._begin)
        elif not self._to_end and not self.done.called:
            say(self._stopwatch.read() | {"visits": self._warm_up})
            self.done.callback(None)

    def failed(self, reason: Failure) -> None:
        if not self.done.called:
            self.done.errback(reason)
        print(f"a visit failed: {reason.getErrorMessage()}", file=sys.stderr)


def endpoints(reactor: Any, options: Words) -> list[Any]:
    """One endpoint, or for "own ports" of uTP several that leave from different ports."""
    if options["how"] != "own ports" or TRANSPORTS[options["transport"]][0] != "utp":
        return [client(reactor, options)]
    host, port = options["host"], options["port"]
    # a port on which nobody listens would close with each visit
    ports = [listenUTP(reactor, 0, Factory(), interface=host) for _ in range(options["at_once"])]
    return [UTPClientEndpoint(reactor, host, port, bindAddress=(host, each.getHost().port)) for each in ports]


async def visit(reactor: Any, options: Words) -> None:
    await Visits(reactor, options).done


if __name__ == "__main__":
    run({"visit": visit})
