"""Running the ends of a measurement: processes that talk in lines of JSON (``ends/``), here or in a namespace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.support import ROOT

# A process that takes longer than this hangs, and is ended.
LIMIT_SECONDS = 120


class Failed(Exception):
    """A measurement did not come to its end; the text says why, in one line."""


@dataclass(frozen=True)
class Host:
    """Where a process runs: an address, and the network namespace that has it (none: the system's own)."""

    address: str
    namespace: str = ""

    def command(self, *words: object) -> list[str]:
        """A command that runs there."""
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return prefix + [str(word) for word in words]


class Worker:
    """A process that talks in lines of JSON."""

    def __init__(self, process: subprocess.Popen[str], errors: Any) -> None:
        self._process = process
        self._errors = errors

    def line(self) -> dict[str, Any]:
        """What it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        try:
            words: dict[str, Any] = json.loads(line)
        except ValueError:
            raise Failed(self._last_words() or line.strip() or "it ended without a word") from None
        return words

    def tell(self, **words: object) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(words) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._last_words() or "it has ended") from None

    def ask(self) -> dict[str, Any]:
        """Write a line to its standard input, and return the answer."""
        self.tell()
        return self.line()

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def finish(self) -> None:
        """Wait until it has ended by itself, and well."""
        if self._process.wait():
            raise Failed(self._last_words() or "it ended badly")

    def _last_words(self) -> str:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors.read().splitlines() if line.strip()]
        return lines[-1] if lines else ""


@contextmanager
def worker(command: Sequence[str], code: Path = ROOT, limit_seconds: float = LIMIT_SECONDS) -> Iterator[Worker]:
    """Run a process while the block runs; ``code`` is the directory with the packages that it imports."""
    paths = [str(code), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            cwd=code,
            # Ctrl-C is for us alone: we end our processes
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        )
        limit = threading.Timer(limit_seconds, process.kill)
        limit.start()
        try:
            yield Worker(process, errors)
        finally:
            process.kill()
            process.wait()
            limit.cancel()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue


# In the process


def say(**words: object) -> None:
    """Tell the parent."""
    print(json.dumps(words), flush=True)


def listen() -> dict[str, Any]:
    """Returns the next line of the parent."""
    words: dict[str, Any] = json.loads(sys.stdin.readline())
    return words
