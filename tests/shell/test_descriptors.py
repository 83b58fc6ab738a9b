"""No file descriptors are left: what needs one fails at once and says why, what has one goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# In a process of its own, for the limit holds for a whole process.
PROGRAM = """
import os, resource
from twisted.internet import defer, error, reactor, task
from tests.support import Accepting
from txutp import UTPClientEndpoint, listenUTP

HOST = "127.0.0.1"

async def main():
    accepting, connecting = Accepting(), Accepting()
    port = listenUTP(reactor, 0, accepting, interface=HOST).getHost().port
    other = UTPClientEndpoint(reactor, HOST, port, timeout=10, bindAddress=("127.0.0.5", 0))
    stream = await UTPClientEndpoint(reactor, HOST, port).connect(connecting)

    before = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (60, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    taken = []
    try:
        while True:
            taken.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    for _ in range(3):
        try:
            await other.connect(connecting)
        except error.ConnectBindError as problem:
            assert "Too many open files" in str(problem), problem
        else:
            raise AssertionError("it connected")
        try:
            listenUTP(reactor, 0, accepting, interface=HOST)
        except error.CannotListenError as problem:
            assert "Too many open files" in str(problem), problem
        else:
            raise AssertionError("it listens")
    await UTPClientEndpoint(reactor, HOST, port, timeout=10).connect(connecting)  # from the port that is there
    stream.transport.write(b"alive")
    while bytes(accepting.made[0].received) != b"alive":
        await task.deferLater(reactor, 0.01)

    for descriptor in taken:
        os.close(descriptor)
    assert len(os.listdir("/proc/self/fd")) == before
    await other.connect(connecting)
    print("well")

task.react(lambda reactor: defer.ensureDeferred(main()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="It looks into /proc.")
def test_without_descriptors_nothing_new_begins_and_what_is_there_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("well\n", 0), done.stderr
