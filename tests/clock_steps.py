"""A process whose wall clock is set while its uTP streams run; ``test_clock_steps.py`` runs it.

usage: python -m tests.clock_steps REACTOR STEP_SECONDS

What ``reactor.seconds`` returns steps, as the system's wall clock would; the monotonic clock goes on.  A relay drops
what it is told to.  The program prints one line of JSON: how many seconds each thing took.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet import defer
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

STREAM_BYTES = 300_000


class Relay(DatagramProtocol):
    """Between client and server; drops the next ``drop`` datagrams of the client, and every ``every``th."""

    noisy = False
    drop = every = count = 0
    client: Any = None
    server: Any = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        transport: Any = self.transport
        if addr == self.server:
            transport.write(datagram, self.client)
            return
        self.client = addr
        self.count += 1
        if self.drop:
            self.drop -= 1
        elif not self.every or self.count % self.every:
            transport.write(datagram, self.server)


class Sink(Protocol):
    received = 0

    def dataReceived(self, data: bytes) -> None:
        Sink.received += len(data)


async def main(reactor: Any, step_seconds: float) -> dict[str, float]:
    from twisted.internet.protocol import ClientFactory

    from txutp import UTPClientEndpoint, connectUTP, listenUTP

    offset = 0.0
    real_seconds = reactor.seconds

    def seconds() -> float:
        return float(real_seconds()) + offset

    reactor.seconds = seconds
    server = listenUTP(reactor, 0, Factory.forProtocol(Sink), interface="127.0.0.1")
    relay = Relay()
    relay.server = ("127.0.0.1", server.getHost().port)
    port = reactor.listenUDP(0, relay, "127.0.0.1")
    endpoint = UTPClientEndpoint(reactor, "127.0.0.1", port.getHost().port, timeout=30)

    def protocol() -> Any:
        return endpoint.connect(Factory.forProtocol(Protocol))

    async def stream(client: Any) -> float:
        begin = time.monotonic()
        client.transport.write(bytes(STREAM_BYTES))
        await client.transport.acknowledged()
        return time.monotonic() - begin

    took: dict[str, float] = {}
    client = await protocol()
    await stream(client)  # with a timer that stays pending

    # a lost packet whose timer was set before the step
    relay.drop = 1
    begin = time.monotonic()
    client.transport.write(b".")
    done = client.transport.acknowledged()
    reactor.callLater(0.02, lambda: None)
    await turn(reactor)
    offset = step_seconds
    await done
    took["lost before"] = time.monotonic() - begin

    # a stream with loss, while the clock steps back again
    relay.every = 10
    whole = defer.ensureDeferred(stream(client))
    await turn(reactor)
    offset = 0
    took["stream"] = await whole
    relay.every = 0

    # a new connection whose first SYN is lost, and one that nobody answers
    relay.drop = 1
    begin = time.monotonic()
    connecting = protocol()
    await turn(reactor)
    offset = step_seconds
    await connecting
    took["connect"] = time.monotonic() - begin

    class Unheard(ClientFactory):
        failed: defer.Deferred[None]

        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            self.failed.callback(None)

    for name, host in (("time-out", "127.0.0.1"), ("time-out by name", "localhost")):
        silent = reactor.listenUDP(0, DatagramProtocol(), "127.0.0.1")
        factory = Unheard()
        factory.failed = defer.Deferred()
        begin = time.monotonic()
        connectUTP(reactor, host, silent.getHost().port, factory, timeout=2)
        await turn(reactor)
        offset = step_seconds - offset
        await factory.failed
        took[name] = time.monotonic() - begin
    return took


def turn(reactor: Any) -> defer.Deferred[None]:
    """Fires in a later turn of the reactor, by no timer."""
    done: defer.Deferred[None] = defer.Deferred()
    reactor.callFromThread(reactor.callFromThread, done.callback, None)
    return done


def run(reactor_name: str, step_seconds: float) -> None:
    from twisted.application.reactors import installReactor

    installReactor(reactor_name)
    from twisted.internet import reactor

    running: Any = reactor

    failures = []

    def end(result: Any) -> None:
        if isinstance(result, dict):
            print(json.dumps(result))
        else:
            result.printTraceback(sys.stderr)
            failures.append(result)
        running.callFromThread(running.stop)

    running.callWhenRunning(lambda: defer.ensureDeferred(main(running, step_seconds)).addBoth(end))
    running.run()
    sys.exit(len(failures))


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))
