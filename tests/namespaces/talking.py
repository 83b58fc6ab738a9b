"""Two programs for test_host_faults.py: a server that echoes, and a client that streams to it and checks what returns.

Each prints a line of JSON for every thing that happens to it.
"""

from __future__ import annotations

import json
import socket
import sys
from random import Random
from typing import Any

from twisted.internet import defer, reactor, task
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from txutp import Settings, UTPClientEndpoint, listenUTP

TIMEOUT_SECONDS = 50
PIECE_BYTES = 20_000
PIECES_EACH_SECOND = 20

# Time after an end in which it might be told again.
AFTER_END_SECONDS = 0.3

# A peer is given up after one and a half seconds of silence.
HASTY = Settings(
    minimum_timeout_us=100_000,
    maximum_timeout_us=400_000,
    maximum_timeouts=5,
    idle_timeout_us=1_500_000,
    close_timeout_us=100_000,
    tombstone_us=0,
)
PATIENCE = {"patient": Settings(close_timeout_us=0), "hasty": HASTY}


def say(**what: object) -> None:
    """Tell our parent."""
    print(json.dumps(what), flush=True)


class Talker(Protocol):
    """Counts its ends, and tells of them when there was time for a second one."""

    transport: Any

    def __init__(self) -> None:
        self.ends: list[str] = []

    def connectionLost(self, reason: Any) -> None:
        self.ends.append(reason.type.__name__)
        if len(self.ends) == 1:
            reactor.callLater(AFTER_END_SECONDS, lambda: say(ends=self.ends))  # type: ignore[attr-defined]


class Echo(Talker):
    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Asker(Talker):
    """Streams for so many pieces, and looks at each byte that comes back."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.data = Random(1).randbytes(pieces * PIECE_BYTES)
        self.written = self.heard = 0
        self.done: defer.Deferred[None] = defer.Deferred()

    def dataReceived(self, data: bytes) -> None:
        assert data == self.data[self.heard : self.heard + len(data)], "other bytes"
        self.heard += len(data)
        if self.heard == len(self.data):
            self.done.callback(None)

    async def stream(self) -> None:
        """Write it all, a piece at a time; return when all has come back, or the connection is gone."""
        while self.written < len(self.data) and not self.ends:
            self.transport.write(self.data[self.written : self.written + PIECE_BYTES])
            self.written += PIECE_BYTES
            if self.written == 10 * PIECE_BYTES:
                say(begun=True)
            await task.deferLater(reactor, 1 / PIECES_EACH_SECOND)  # type: ignore[arg-type]
        while not (self.done.called or self.ends):
            await task.deferLater(reactor, 0.05)  # type: ignore[arg-type]
        say(exact=self.heard == len(self.data))
        self.transport.loseConnection()


def serve(settings: Settings, buffer_bytes: int) -> None:
    """Echo to all who come; a number of bytes is asked for as the size of the socket's receive buffer."""
    port: Any = listenUTP(reactor, 0, Factory.forProtocol(Echo), settings=settings)
    udp_socket = port._utp.transport.socket
    if buffer_bytes:
        udp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    say(port=port.getHost().port, buffer=udp_socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))


async def ask(host: str, number: int, settings: Settings, pieces: int) -> None:
    asker = Asker(pieces)
    await connectProtocol(UTPClientEndpoint(reactor, host, number, settings=settings), asker)
    await asker.stream()


def main() -> None:
    """``serve PATIENCE BUFFER_BYTES``, or ``ask HOST PORT PATIENCE PIECES``."""
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(PATIENCE[arguments[0]], int(arguments[1]))
    else:
        host, number, patience, pieces = arguments
        asking = ask(host, int(number), PATIENCE[patience], int(pieces))
        defer.Deferred.fromCoroutine(asking).addErrback(lambda failure: say(problem=str(failure.value)))
    reactor.callLater(TIMEOUT_SECONDS, sys.exit)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
