"""Several processes on one port, and how the kernel steers to them.

Verb serve, options: transport, host, workers, what ("echo" or "sink").  It answers each line of input with what all
processes have counted together.
Verb steer, options: workers, connections.  It sends the SYN and a later packet of so many connections to a group of
sockets, and tells how many of them reached a wrong one.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.ends.shared import COUNTS
from benchmarks.ends.talk import Questions, Words, run, say
from txutp.core.packet import ST_DATA, ST_SYN, encode_header
from txutp.workers import Workers
from txutp.workers.group import SocketGroup

PROGRAM = "benchmarks.ends.shared"

# Connections whose packets are in the sockets at a time.
AT_ONCE = 64


async def serve(reactor: Any, options: Words) -> None:
    """Start the processes, and serve until killed."""
    host, workers = options["host"], options["workers"]
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.NamedTemporaryFile())
        file.write(bytes(COUNTS.size * workers))
        file.flush()

        def counts() -> list[tuple[int, float, float]]:
            file.seek(0)
            return list(COUNTS.iter_unpack(file.read()))

        def look() -> None:
            received_bytes, cpu_seconds, accepted = zip(*counts(), strict=True)
            questions.say(
                {
                    "at_seconds": time.monotonic(),
                    "cpu_seconds": sum(cpu_seconds),
                    "received_bytes": received_bytes,
                    "accepted": accepted,
                }
            )

        questions = Questions(reactor, look)
        arguments = [options["transport"], host]
        if options["transport"] == "utp":
            service = Workers(
                reactor, ["-m", PROGRAM, *arguments, "0", file.name, options["what"]], workers, [(host, 0)]
            )
            service.startService()
            await service.when_ready()
            port = service.addresses[0][1]
        else:
            holder = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind((host, 0))
            port = holder.getsockname()[1]
            for number in range(workers):
                words = [*arguments, str(port), file.name, options["what"], str(number)]
                subprocess.Popen(
                    [sys.executable, "-c", ORPHAN, str(os.getpid()), PROGRAM, *words], stdin=subprocess.DEVNULL
                )
        while not all(cpu_seconds for _, cpu_seconds, _ in counts()):
            await deferLater(reactor, 0.02, lambda: None)
        questions.say({"port": port})
        await Deferred()


# A process of TCP ends with its parent, which may be killed.
ORPHAN = """
import ctypes, os, runpy, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit()
sys.argv[:] = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def steer(reactor: Any, options: Words) -> Any:
    """Count what reaches a wrong socket."""
    workers, connections = options["workers"], options["connections"]
    group = SocketGroup("127.0.0.1", 0, workers)
    wrong = lost = 0
    began = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for first in range(0, connections, AT_ONCE):
            ids = range(first, min(first + AT_ONCE, connections))
            for connection_id in ids:
                for kind, step in ((ST_SYN, 0), (ST_DATA, 1)):
                    header = encode_header(kind, connection_id + step & 0xFFFF, 1, 0, 0, 1, 0)
                    sender.sendto(header, group.address)
            found = 0
            for number, its in enumerate(group.sockets):
                try:
                    while True:
                        data = its.recv(100)
                        found += 1
                        receive_id = int.from_bytes(data[2:4], "big") + (data[0] >> 4 == ST_SYN) & 0xFFFF
                        wrong += receive_id % workers != number
                except BlockingIOError:
                    continue
            lost += 2 * len(ids) - found
    group.close()
    seconds = time.monotonic() - began
    say({"wrong": wrong, "lost": lost, "datagrams": 2 * connections, "seconds": seconds})
    done: Deferred[None] = Deferred()
    done.callback(None)
    return done


if __name__ == "__main__":
    run({"serve": serve, "steer": steer})
