"""What the ``txutp`` commands move beside what the library does between the same endpoints, over loopback.

``python -m benchmarks.commands 10`` moves 10 GB with each of them, and tells how much memory that took.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import end
from benchmarks.processes import LIMIT_SECONDS, Failed
from benchmarks.support import ROOT
from benchmarks.transfers import row

# What a pipe is asked to take at once.
PIECE_BYTES = 1 << 20

# A file system in memory, and the largest file that goes there.
MEMORY = "/dev/shm"
LARGEST_IN_MEMORY_BYTES = 1 << 30

# Time between two looks at the memory of a process.
LOOK_SECONDS = 0.02


class Command:
    """A running command; its resources are known when it has ended."""

    def __init__(self, code: Path, *words: object, limit_seconds: float = LIMIT_SECONDS, **pipes: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "txutp", *map(str, words)],
            cwd=code,
            env={**os.environ, "PYTHONPATH": str(code)},
            stderr=subprocess.PIPE,
            encoding=None,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes},
        )
        self._limit = threading.Timer(limit_seconds, self.process.kill)
        self._limit.start()
        self._said: list[str] = []
        self._peak_mebibytes = 0.0
        self._watcher = threading.Thread(target=self._watch_memory, daemon=True)
        self._watcher.start()

    def _watch_memory(self) -> None:
        """Note the peak until the process has ended; what ``wait4`` says may be that of the process that started it."""
        status = Path(f"/proc/{self.process.pid}/status")
        while True:
            try:
                match = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
            except OSError:
                return
            if match is None:
                return
            self._peak_mebibytes = int(match[1]) / 1024
            time.sleep(LOOK_SECONDS)

    def port(self) -> int:
        """Returns the port that it says it listens on."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._said.append(line.decode())
            match = re.search(r"(?:Listening on|Forwarding) \S+:(\d+)[. ]", self._said[-1])
            if match is not None:
                return int(match[1])
        raise Failed(self._said[-1].strip() if self._said else "it ended without a word")

    def ended(self, *codes: int) -> tuple[float, float, str]:
        """Wait for its end; returns CPU seconds, mebibytes of memory at most, and what it said on standard error."""
        assert self.process.stderr is not None
        said = self.process.stderr.read().decode()
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self._limit.cancel()
        if self.process.returncode not in codes:
            raise Failed(said.strip().rpartition("\n")[2] or f"it ended with {self.process.returncode}")
        self._watcher.join()
        return usage.ru_utime + usage.ru_stime, self._peak_mebibytes or usage.ru_maxrss / 1024, said


@functools.cache
def startup_cpu_seconds(code: Path) -> float:
    """What a command uses before it does anything."""
    return Command(code, "cat", "--help").ended(0)[0]


def told(total_bytes: int, seconds: float, code: Path, *ends: tuple[float, float, str]) -> Values:
    """Returns the values of a transfer, with what its commands used: the sending one, and the receiving one."""
    values: Values = {"megabytes_per_second": total_bytes / 1e6 / seconds}
    for name, (cpu_seconds, mebibytes, _) in zip(("sender", "receiver"), ends, strict=False):
        cpu_seconds -= startup_cpu_seconds(code)
        values[f"{name}_cpu_seconds_per_gigabyte"] = cpu_seconds / (total_bytes / 1e9)
        values[f"{name}_resident_mebibytes"] = mebibytes
    return values


def in_thread(function: Callable[..., object], *arguments: object) -> threading.Thread:
    """Run something beside."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def cat(network: Network, total_bytes: int, code: Path, limit_seconds: float = LIMIT_SECONDS) -> Values:
    """Pipe to pipe: the kernel fills and empties them without a copy."""
    source = f"utp:0:interface={network.receiver.address}"
    receiver = Command(code, "cat", "-l", source, stdout=subprocess.PIPE, limit_seconds=limit_seconds)
    emptying = in_thread(emptied, receiver.process.stdout)
    port = receiver.port()
    words = ("cat", "--json", network.receiver.address, port)
    sender = Command(code, *words, stdin=subprocess.PIPE, limit_seconds=limit_seconds)
    filling = in_thread(filled, sender.process.stdin, total_bytes)
    sent = sender.ended(0)
    received = receiver.ended(0)
    filling.join()
    emptying.join()
    return told(total_bytes, json.loads(sent[2])["seconds"], code, sent, received)


def filled(pipe: Any, total_bytes: int) -> None:
    """Write so many zeros to a pipe."""
    with tempfile.TemporaryFile() as zeros, pipe:
        zeros.truncate(PIECE_BYTES)
        while total_bytes:
            total_bytes -= os.splice(zeros.fileno(), pipe.fileno(), min(PIECE_BYTES, total_bytes), offset_src=0)


def emptied(pipe: Any) -> None:
    """Read a pipe to its end."""
    with open(os.devnull, "wb") as nothing, pipe:
        while os.splice(pipe.fileno(), nothing.fileno(), PIECE_BYTES):
            continue


def send(network: Network, total_bytes: int, code: Path, limit_seconds: float = LIMIT_SECONDS) -> Values:
    """A file to a folder, with hashes at both ends."""
    # No disk shall be measured, but memory has no room for very much.
    in_memory = os.path.isdir(MEMORY) and total_bytes <= LARGEST_IN_MEMORY_BYTES
    with tempfile.TemporaryDirectory(dir=MEMORY if in_memory else None) as place:
        file, folder = Path(place, "file"), Path(place, "folder")
        folder.mkdir()
        with file.open("wb") as made:
            made.truncate(total_bytes)
        source = f"utp:0:interface={network.receiver.address}"
        receiver = Command(code, "receive", "-l", source, "-o", folder, limit_seconds=limit_seconds)
        words = ("send", "--json", file, network.receiver.address, receiver.port())
        sender = Command(code, *words, stdout=subprocess.PIPE, limit_seconds=limit_seconds)
        assert sender.process.stdout is not None
        document = sender.process.stdout.read()
        sent, received = sender.ended(0), receiver.ended(0)
    return told(total_bytes, json.loads(document)["seconds"], code, sent, received)


def forward(network: Network, total_bytes: int, code: Path, limit_seconds: float = LIMIT_SECONDS) -> Values:
    """From a sender of the library to a receiver over TCP: three processes, of which the command is the one between."""
    address = network.receiver.address
    of_receiver = {"limit_seconds": limit_seconds, "bytes": total_bytes}
    with end("tcp", "stream", "receive", network.receiver, code, **of_receiver) as receiving:
        destination = f"tcp:{address}:{receiving.line()['port']}"
        between = Command(code, "forward", f"utp:0:interface={address}", destination, limit_seconds=limit_seconds)
        to = {"host": address, "port": between.port(), "bytes": total_bytes}
        with end("utp", "stream", "send", network.sender, code, limit_seconds, **to) as sending:
            seconds = receiving.line()["seconds"]
            sending.line()
    between.process.send_signal(signal.SIGINT)
    return told(total_bytes, seconds, code, between.ended(128 + signal.SIGINT))


COMMANDS = {"cat": cat, "forward": forward, "send": send}
LABELS = {
    "cat": "`txutp cat`, from pipe to pipe",
    "forward": "`txutp forward`, from uTP to TCP",
    "send": "`txutp send`, with SHA-256 at both ends",
}


def why_not() -> str:
    """Why the commands cannot be measured here; empty if they can."""
    return "" if hasattr(os, "splice") else "pipes are filled with splice, which this system lacks"


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    """The library first, which the commands are compared to."""
    network = Network()
    yield [
        row(network, "utp", "utp", sizes.stream_bytes, label="the library", name="library"),
        *(
            Row(
                name=name,
                label=LABELS[name],
                measure=lambda code, measure=measure: measure(network, sizes.stream_bytes, code),
                why_not=why_not(),
                ours=True,
            )
            for name, measure in COMMANDS.items()
        ),
    ]


PART = Part(
    "commands",
    "One stream through the commands, over loopback",
    (
        Column("MB/s", "megabytes_per_second", drawn=True),
        Column("of the library's", "megabytes_per_second", against="library"),
        Column("CPU s/GB, sender or forwarder", "sender_cpu_seconds_per_gigabyte", drawn=True),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte"),
        Column("MiB, sender or forwarder", "sender_resident_mebibytes"),
        Column("MiB, receiver", "receiver_resident_mebibytes"),
    ),
    opened,
)


def main(words: Sequence[str]) -> None:
    """Move so many gigabytes with each command, and tell how it went."""
    try:
        [gigabytes] = map(float, words)
    except ValueError:
        sys.exit("How many gigabytes? python -m benchmarks.commands 10")
    for name, measure in COMMANDS.items():
        values = measure(Network(), int(gigabytes * 1e9), ROOT, LIMIT_SECONDS * max(1, gigabytes))
        print(name, ", ".join(f"{metric} {value:.3g}" for metric, value in values.items()), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
