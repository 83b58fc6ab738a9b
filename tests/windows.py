"""What Windows lacks, taken away from this process; then an echo, 20 MB and the command.  ``test_windows.py`` runs it.

usage: python -m tests.windows transfer | command ARGUMENTS

It is an emulation: the kernel below is another one.  Sockets have no ``recvmsg`` and ``sendmsg``, there is no
``fcntl``, ``resource``, ``pwd``, pywin32, AF_UNIX or fork, constants of Linux are missing, and the clock that
``time.monotonic`` reads has ticks of 15.6 ms.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from types import SimpleNamespace
from typing import Any

TOTAL_BYTES = 20_000_000
MISSING_MODULES = (
    "fcntl",
    "resource",
    "pwd",
    "grp",
    "win32api",
    "win32file",
    "win32pipe",
    "win32process",
    "twisted.internet.stdio",
    "twisted.internet._win32stdio",
)
MISSING_IN_SOCKET = ("AF_UNIX", "CMSG_SPACE", "CMSG_LEN", "MSG_ERRQUEUE", "SO_RXQ_OVFL", "MSG_DONTWAIT", "SO_REUSEPORT")
MISSING_IN_SELECT = ("epoll", "poll")


class NoMessages:
    """In the place of a method that sockets of Windows do not have; ``hasattr`` of the class finds none either."""

    def __get__(self, instance: object, owner: type) -> None:
        raise AttributeError("sockets have no control messages here")


class WindowsSocket(socket.socket):
    """A socket without control messages."""

    recvmsg = recvmsg_into = sendmsg = NoMessages()  # type: ignore[assignment]


def take_away() -> None:
    """Twisted and others make their own choices for this system first; what is imported later finds Windows."""
    import click
    import rich.progress
    import rich.table
    import twisted.internet.endpoints
    from twisted.internet import selectreactor

    assert click
    assert rich
    assert twisted
    selectreactor.install()
    assert not any(name.startswith("txutp") for name in sys.modules)
    for name in MISSING_MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((socket, MISSING_IN_SOCKET), (select, MISSING_IN_SELECT), (os, ("fork", "register_at_fork"))):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    socket.socket = WindowsSocket  # type: ignore[misc]
    coarse = time.get_clock_info
    time.get_clock_info = lambda name: SimpleNamespace(resolution=0.015625) if name == "monotonic" else coarse(name)  # type: ignore[assignment,misc,return-value]
    time.monotonic_ns = lambda: time.perf_counter_ns() // 15_625_000 * 15_625_000  # type: ignore[assignment]
    sys.platform = "win32"  # type: ignore[assignment]


def transfer() -> None:
    from twisted.internet import defer, endpoints, error, protocol, reactor

    from txutp.environment import finest_clock_ns

    running: Any = reactor
    said: dict[str, Any] = {}

    class Echo(protocol.Protocol):
        received = 0

        def dataReceived(self, data: bytes) -> None:
            Echo.received += len(data)
            if Echo.received <= 1_000:
                self.transport.write(data)  # type: ignore[union-attr]

    async def talk() -> None:
        listening = endpoints.serverFromString(reactor, "utp:0:interface=127.0.0.1")
        port = await listening.listen(protocol.Factory.forProtocol(Echo))
        number = port.getHost().port
        answer: defer.Deferred[bytes] = defer.Deferred()
        client = protocol.Protocol()
        client.dataReceived = answer.callback  # type: ignore[method-assign]
        await endpoints.connectProtocol(endpoints.clientFromString(reactor, f"utp:127.0.0.1:{number}"), client)
        transport: Any = client.transport
        transport.write(b"e" * 1_000)
        said["echo"] = len(await answer)
        for _ in range(TOTAL_BYTES // 1_000_000):
            transport.write(bytes(1_000_000))
        await transport.acknowledged()
        said["received"] = Echo.received
        said["fine clock"] = finest_clock_ns() is time.perf_counter_ns
        said["port"] = type(port._utp.port).__name__
        by_name = endpoints.clientFromString(reactor, f"utp:localhost:{number}:timeout=10")
        other = await endpoints.connectProtocol(by_name, protocol.Protocol())
        said["by name"] = True
        for end in (transport, other.transport):
            end.loseConnection()
        nobody = endpoints.clientFromString(reactor, "utp:127.0.0.1:9:timeout=1")
        try:
            await endpoints.connectProtocol(nobody, protocol.Protocol())
        except error.ConnectError as problem:
            said["nobody"] = type(problem).__name__
        await port.stopListening()

    def end(result: Any) -> None:
        if result is not None:
            result.printTraceback(sys.stderr)
        else:
            print(json.dumps(said))
        running.callLater(0, running.stop)

    running.callWhenRunning(lambda: defer.ensureDeferred(talk()).addBoth(end))
    running.run()


if __name__ == "__main__":
    take_away()
    if sys.argv[1] == "transfer":
        transfer()
    else:
        sys.argv = ["txutp", *sys.argv[2:]]
        from txutp.cli import main

        main()
