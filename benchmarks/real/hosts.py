"""Hosts in network namespaces, and processes in them.  ``router.py`` and ``wire.py`` join two of them.

Nothing outside of the namespaces is touched; their names carry our process id, and ``Hosts`` removes them whatever
happens.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent.parent
TUN = Path("/dev/net/tun")

SENDER = "10.83.1.1"
RECEIVER = "10.83.2.1"

DEVICE = "eth0"  # of every host
END_SECONDS = 10

_serial = itertools.count()


def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "namespaces need root on Linux"
    for command in ("ip", "tc", "sysctl"):
        if shutil.which(command) is None:
            return f"the {command} command is not installed"
    name = f"txutp{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def why_no_wire() -> str:
    """Why there can be no link in user space; empty if there can."""
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError as problem:
        return f"{TUN}: {problem.strerror}"
    return why_not()


def call(*words: object) -> None:
    """A command that has to succeed; what it says against it is the error."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")


class Worker:
    """A process on a host that reads and writes lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self.process = process
        self.name = name

    def line(self) -> dict[str, Any]:
        """What it says next."""
        output: IO[str] | None = self.process.stdout
        assert output is not None
        said = output.readline()
        if not said:
            raise RuntimeError(f"{self.name} ended with {self.process.wait(END_SECONDS)}")
        words: dict[str, Any] = json.loads(said)
        return words

    def tell(self, **words: object) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()

    def close_input(self) -> None:
        """Say that nothing more comes."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def end(self) -> None:
        """Stop it if it still runs, and wait for it."""
        self.process.kill()
        self.process.wait(END_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


class Hosts:
    """``sender``, ``receiver`` and one between them.  A subclass says in ``_join`` how they are joined."""

    between = "router"

    def __init__(self) -> None:
        prefix = f"txutp{os.getpid()}r{next(_serial)}"
        self.names = {name: f"{prefix}{name}" for name in ("sender", "receiver", self.between)}
        self._workers: list[Worker] = []

    def __enter__(self) -> Hosts:
        try:
            for name in self.names.values():
                call("ip", "netns", "add", name)
                call("ip", "-n", name, "link", "set", "lo", "up")
                # neither router solicitations nor neighbours of IPv6 shall take a place in the queue
                self._sysctl(name, "net.ipv6.conf.all.disable_ipv6=1")
            self._join()
        except BaseException:
            self._remove()
            raise
        return self

    def _join(self) -> None:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        # an impatient second Ctrl-C shall not leave anything behind
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            for worker in self._workers:
                worker.end()
            for name in self.names.values():
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def _sysctl(self, name: str, setting: str) -> None:
        call("ip", "netns", "exec", name, "sysctl", "-qw", setting)

    def counters(self) -> dict[str, Any]:
        """What the bottleneck has seen; it may carry nothing after that."""
        return {}

    def start(self, host: str, *words: object) -> Worker:
        """Start a process on a host."""
        command = ["ip", "netns", "exec", self.names[host], *map(str, words)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            # Ctrl-C is for us alone: we end our workers
            start_new_session=True,
        )
        worker = Worker(process, " ".join(command))
        self._workers.append(worker)
        return worker

    def start_python(self, host: str, module: str, *words: object) -> Worker:
        """Start a module of this package on a host."""
        return self.start(host, sys.executable, "-m", f"benchmarks.real.{module}", *words)


def say(**words: object) -> None:
    """What a worker tells its parent."""
    print(json.dumps(words), flush=True)


def listen() -> dict[str, Any]:
    """What a worker is told by its parent."""
    words: dict[str, Any] = json.loads(sys.stdin.readline())
    return words


def hurry() -> None:
    """Let this process have a processor whenever it wants one: it stands for hardware, which does not wait for any."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        # as precise as it gets without: timers are not rounded to 50 microseconds
        Path("/proc/self/timerslack_ns").write_text("1")
