"""A virtual environment with somebody's program, to be run over uTP; and what shows that it was."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.project.test_examples import Program

ROOT = Path(__file__).resolve().parent.parent.parent
HOST = "127.0.0.1"
INSTALL_SECONDS = 300
# These programs import much, and the machine may be busy.
PATIENCE_SECONDS = 120


class Installed:
    """A directory to work in, and a virtual environment with packages."""

    def __init__(self, place: Path, *packages: str) -> None:
        self.place = place
        self.report = place / "report"
        home = place / "venv"
        venv.create(home, with_pip=True)
        self.scripts = home / ("Scripts" if os.name == "nt" else "bin")
        pip = [str(self.scripts / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run(
            [*pip, *packages], capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False, cwd=place
        )
        if done.returncode:
            pytest.skip(f"{packages[0]} cannot be installed: {done.stderr.strip().splitlines()[-1]}")

    @property
    def environment(self) -> dict[str, str]:
        """Commands are those of the virtual environment, and txutp is that of this checkout."""
        return {"PATH": os.pathsep.join([str(self.scripts), os.environ["PATH"]]), "PYTHONPATH": str(ROOT)}

    def command(self, line: str) -> str:
        """A command line as it is written for a terminal, with the whole path of its program."""
        program, rest = line.split(" ", 1)
        return f"{shlex.quote(str(self.scripts / program))} {rest}"

    def rebound(self, line: str, options: str = "") -> str:
        """The same program over uTP, with a line in the report."""
        return self.command(f"python -m txutp.rebinding --report={shlex.quote(str(self.report))} {options} {line}")

    @contextmanager
    def running(self, command: str, folder: Path | None = None) -> Iterator[Program]:
        """A program that ends with the block, if it has not ended before."""
        program = Program(command, folder or self.place, **self.environment)
        program._deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            yield program
        finally:
            program.process.kill()
            program.process.wait()

    def run(self, command: str, folder: Path | None = None) -> str:
        """Run a program to its good end; returns what it said."""
        with self.running(command, folder) as program:
            return "\n".join(program.end())

    def stop(self, program: Program, signal_number: int = signal.SIGTERM) -> None:
        """Ask a server to end, as a service manager does, and wait until it has."""
        program.process.send_signal(signal_number)
        assert program.process.wait(PATIENCE_SECONDS) in (0, -signal_number), program.said

    def reported(self, name: str) -> tuple[int, int]:
        """How many uTP connections all processes of this name have accepted, and made."""
        accepted = made = 0
        for line in self.report.read_text().splitlines():
            if line.startswith(f"{name} ("):
                found = re.search(r"accepted: (\d+), made: (\d+)", line)
                assert found, line
                accepted += int(found[1])
                made += int(found[2])
        return accepted, made


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, f"{what} takes too long"
        time.sleep(0.1)


def some_file(path: Path, size: int = 5_000_000) -> str:
    """Write a file of random bytes; returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = os.urandom(size)
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tcp_ports() -> set[int]:
    """The TCP ports that somebody listens on."""
    if not sys.platform.startswith("linux") or shutil.which("ss") is None:
        return set()
    listed = subprocess.run(["ss", "-lntH"], capture_output=True, text=True, check=True).stdout
    return {int(line.split()[3].rpartition(":")[2]) for line in listed.splitlines()}
