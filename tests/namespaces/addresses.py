"""Two programs for test_addresses.py: a server on all addresses of its host, and a client that asks at one by one."""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import defer, reactor, task
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from benchmarks.processes import say
from txutp import Settings, UTPClientEndpoint, listenUTP

TIMEOUT_SECONDS = 50
ATTEMPT_SECONDS = 8
ECHOED_BYTES = 300_000
PIECE_BYTES = 10_000


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def connectionLost(self, reason: object) -> None:
        counters = self.factory.port._utp.multiplexer.counters  # type: ignore[union-attr]
        say(local=self.transport.getHost().host, sends_failed=counters.sends_failed)


def serve() -> None:
    """Echo at every address, IPv4 and IPv6 on one port each; says the ports."""
    ports = {}
    for interface in ("", "::"):
        factory: Any = Factory.forProtocol(Echo)
        factory.port = listenUTP(reactor, 0, factory, interface=interface, settings=Settings(close_timeout_us=0))
        ports[interface] = factory.port.getHost().port
    say(ipv4=ports[""], ipv6=ports["::"])


class Asker(Protocol):
    def __init__(self, total_bytes: int) -> None:
        self.left = total_bytes
        self.done: defer.Deferred[None] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.left -= len(data)
        if self.left <= 0 and not self.done.called:
            self.done.callback(None)

    def connectionLost(self, reason: Any) -> None:
        if not self.done.called:
            self.done.errback(reason)


async def ask(host: str, port: int) -> None:
    """One connection to an address; says how it went."""
    asker = Asker(ECHOED_BYTES)
    try:
        endpoint = UTPClientEndpoint(reactor, host, port, timeout=ATTEMPT_SECONDS)
        await connectProtocol(endpoint, asker)
        transport: Any = asker.transport
        transport.write(bytes(ECHOED_BYTES))
        await asker.done
    except Exception as problem:
        say(host=host, problem=str(problem))
        return
    say(host=host, local=transport.getHost().host, peer=transport.getPeer().host)
    transport.abortConnection()


async def keep_asking(host: str, port: int, pieces: int) -> None:
    """A stream in pieces, twenty a second; says when a tenth has come back, and when all has."""
    asker = Asker(pieces * PIECE_BYTES)
    await connectProtocol(UTPClientEndpoint(reactor, host, port), asker)
    transport: Any = asker.transport
    for number in range(pieces):
        transport.write(bytes(PIECE_BYTES))
        await task.deferLater(reactor, 0.05)  # type: ignore[arg-type]
        if number == pieces // 10:
            say(begun=True)
    await asker.done
    say(host=host, left=asker.left)
    transport.abortConnection()


async def client(what: str, arguments: list[str]) -> None:
    if what == "keep":
        host, port, pieces = arguments
        await keep_asking(host, int(port), int(pieces))
        return
    for place in arguments:
        host, _, port = place.rpartition("/")
        await ask(host, int(port))


def main() -> None:
    """``serve``, ``ask HOST/PORT...`` or ``keep HOST PORT PIECES``."""
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve()
    else:
        working = defer.Deferred.fromCoroutine(client(what, arguments))
        working.addErrback(lambda failure: say(problem=str(failure.value)))
        working.addBoth(lambda result: reactor.callLater(0.2, reactor.stop))  # type: ignore[attr-defined]
    reactor.callLater(TIMEOUT_SECONDS, sys.exit)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
