"""Copy a file over uTP, with a progress bar that shows what has arrived, not what was handed to the system.

    python examples/copy_file.py receive utp:6881:interface=127.0.0.1 COPY
    python examples/copy_file.py send utp:127.0.0.1:6881 FILE

It needs click (the extra `cli`).  Beside the bar stands how the connection is doing: its round-trip time, how much may
be in flight, and how long packets wait in queues.
"""

from __future__ import annotations

import os
import sys
from typing import Any, BinaryIO

import click
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall, react
from twisted.protocols.basic import FileSender
from twisted.python.failure import Failure


class Stream(Protocol):
    """Writes what comes into a file, and tells when it is over; an end that is no good one is an error."""

    def __init__(self, file: BinaryIO, over: Deferred[None]) -> None:
        self.dataReceived = file.write
        self.over = over

    def connectionLost(self, reason: Failure) -> None:
        self.over.callback(None if reason.check(ConnectionDone) else reason)


async def receive(reactor: Any, where: str, path: str) -> None:
    with open(path, "wb") as file:
        over: Deferred[None] = Deferred()
        port = await serverFromString(reactor, where).listen(Factory.forProtocol(lambda: Stream(file, over)))
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await over
    print(f"{path}: {os.path.getsize(path)} bytes have come.")


async def send(reactor: Any, where: str, path: str) -> None:
    with (
        open(path, "rb") as file,
        click.progressbar(length=os.path.getsize(path), item_show_func=lambda words: words) as bar,
    ):
        stream = Stream(file, Deferred())
        transport = (await connectProtocol(clientFromString(reactor, where), stream)).transport

        def show() -> None:
            how = transport.stats()
            words = f"rtt {how.rtt:.1f} ms, cwnd {how.cwnd // 1024} KiB, queue {how.queue_delay:.1f} ms"
            bar.update(how.bytes_acked - bar.pos, words)

        LoopingCall(show).start(0.1)
        await FileSender().beginFileTransfer(file, transport)
        await transport.acknowledged()
        show()
    transport.loseConnection()
    await stream.over
    again = transport.stats().segs_retrans
    print(f"{path}: {bar.pos} bytes have arrived; {again} packets were sent again.")


if __name__ == "__main__":
    verbs = {"receive": receive, "send": send}
    if len(sys.argv) != 4 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    react(verbs[sys.argv[1]], sys.argv[2:])
