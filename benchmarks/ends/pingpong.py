"""A message there and back, again and again: how long each takes.

Verb: play.  Options: transport, host, port, bytes, count.  The first tenth is not counted.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from benchmarks.ends.talk import Words, run, say
from benchmarks.ends.transports import client

WARM_UP_SHARE = 0.1


class Player(Protocol):
    """Sends the next message when the one before has come back."""

    transport: Any

    def __init__(self, message_bytes: int, count: int) -> None:
        self.ended: Deferred[None] = Deferred()
        self._message = bytes(message_bytes)
        self._left = count
        self._missing_bytes = 0
        self._sent_ns = 0
        self._took_ns: list[int] = []

    def connectionMade(self) -> None:
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            set_no_delay(True)
        self._send()

    def _send(self) -> None:
        self._missing_bytes = len(self._message)
        self._sent_ns = time.perf_counter_ns()
        self.transport.write(self._message)

    def dataReceived(self, data: bytes) -> None:
        self._missing_bytes -= len(data)
        if self._missing_bytes:
            return
        self._took_ns.append(time.perf_counter_ns() - self._sent_ns)
        self._left -= 1
        if self._left:
            self._send()
            return
        took_ns = sorted(self._took_ns[int(len(self._took_ns) * WARM_UP_SHARE) :])
        say({"p50_us": took_ns[len(took_ns) // 2] / 1e3, "p99_us": took_ns[len(took_ns) * 99 // 100] / 1e3})
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._left:
            self.ended.errback(reason)
        else:
            self.ended.callback(None)


async def play(reactor: Any, options: Words) -> None:
    player = Player(options["bytes"], options["count"])
    await connectProtocol(client(reactor, options), player)
    await player.ended


if __name__ == "__main__":
    run({"play": play})
