"""What a reactor makes of errors on a UDP socket, in a process of its own: ``python worker.py REACTOR``.

It says what it found as JSON; see test_errors.py.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

LOCAL = "127.0.0.1"
TIMEOUT_SECONDS = 10
IDLE_SECONDS = 0.2

# No IPv4 datagram is so long: the socket refuses it, and leaves an entry in the error queue.
TOO_LONG_BYTES = 65_520

QT: list[Any] = []  # the application, which lives as long as the process


def install_asyncio(loop: Any) -> None:
    from twisted.internet import asyncioreactor

    asyncioreactor.install(loop)


def install_loop_of(module: str) -> Callable[[], None]:
    """Asyncio's reactor on another event loop."""
    return lambda: install_asyncio(importlib.import_module(module).new_event_loop())


def install_qt() -> None:
    """Qt without a screen."""
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    os.environ["QT_API"] = "pyqt5"
    QT.append(importlib.import_module("PyQt5.QtCore").QCoreApplication([]))
    importlib.import_module("qreactor").install()


INSTALL: dict[str, Callable[[], None]] = {
    **{
        name: lambda name=name: importlib.import_module(f"twisted.internet.{name}reactor").install()
        for name in ("select", "poll", "epoll")
    },
    "asyncio": lambda: install_asyncio(asyncio.new_event_loop()),
    "uvloop": install_loop_of("uvloop"),
    "rloop": install_loop_of("rloop"),
    "qt": install_qt,
}


def main() -> None:
    """Everything in turn, on the reactor that is named on the command line."""
    INSTALL[sys.argv[1]]()

    from twisted.internet import defer, endpoints, protocol, reactor, task

    from txutp import UTPClientEndpoint, UTPServerEndpoint
    from txutp.udp import ports as udp

    reads = 0
    do_read = udp.BatchPort.doRead

    def counted(port: Any) -> None:
        nonlocal reads
        reads += 1
        do_read(port)

    udp.BatchPort.doRead = counted  # type: ignore[method-assign]

    class Echo(protocol.Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

    class Asker(protocol.Protocol):
        answered: Any = None

        def dataReceived(self, data: bytes) -> None:
            self.answered.callback(data)

    async def echoes(asker: Any) -> bool:
        asker.answered = defer.Deferred()
        asker.transport.write(b"x")
        try:
            return await asker.answered.addTimeout(TIMEOUT_SECONDS, reactor) == b"x"
        except defer.TimeoutError:
            return False

    async def work() -> dict[str, object]:
        nonlocal reads
        port: Any = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(protocol.Factory.forProtocol(Echo))
        number = port.getHost().port

        def connect(to: int) -> Any:
            endpoint = UTPClientEndpoint(reactor, LOCAL, to, timeout=TIMEOUT_SECONDS)
            return endpoints.connectProtocol(endpoint, Asker())

        async def connects() -> bool:
            try:
                asker = await connect(number)
            except Exception:
                return False
            works = await echoes(asker)
            asker.transport.abortConnection()
            return works

        async def goes_on(what: str) -> None:
            """The connection that is up, new ones, and no read in vain."""
            nonlocal reads
            found[f"{what}: the old connection"] = await echoes(first)
            found[f"{what}: a new one"] = await connects()
            reads = 0
            await task.deferLater(reactor, IDLE_SECONDS, lambda: None)
            found[f"{what}: idle reads"] = reads < 50

        found: dict[str, object] = {}
        first: Any = await connect(number)
        await goes_on("before")

        # The server answers a SYN, and nobody is there any more.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
            gone.sendto(struct.pack(">BBHIIIHH", 0x41, 0, 900, 1, 0, 1 << 20, 1, 0), (LOCAL, number))
        await task.deferLater(reactor, 0.1, lambda: None)
        await goes_on("a forged SYN")

        # The client asks where nobody listens.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind((LOCAL, 0))
            nobody = closed.getsockname()[1]
        try:
            await connect(nobody)
        except Exception as problem:
            found["a closed port: refused"] = "refused" in str(problem).lower()
        await goes_on("a closed port")

        # The kernel refuses a datagram of either port, and says so once more in the error queue.
        for utp in (port._utp, first.transport._utp):
            for _ in range(2):
                try:
                    utp.port.socket.sendto(bytes(TOO_LONG_BYTES), (LOCAL, 9))
                except OSError:
                    continue
        await task.deferLater(reactor, 0.1, lambda: None)
        await goes_on("EMSGSIZE")

        first.transport.abortConnection()
        await port.stopListening()
        return found

    def run() -> None:
        def say(what: object) -> None:
            print(json.dumps(what if isinstance(what, dict) else {str(what): False}), flush=True)
            reactor.stop()  # type: ignore[attr-defined]

        defer.Deferred.fromCoroutine(work()).addBoth(say)

    reactor.callWhenRunning(run)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
