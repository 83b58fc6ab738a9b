"""How tests run the ``txutp`` command: a process of its own, with pipes in the place of a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_SECONDS = 60


def command(*arguments: str) -> list[str]:
    """How this Python runs it."""
    return [sys.executable, "-m", "txutp", *arguments]


def environment() -> dict[str, str]:
    """The checkout, where endpoint strings find the plugin too; and nothing that colours what is printed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {"PYTHONPATH": os.pathsep.join(paths)}
    return {name: os.environ[name] for name in os.environ if name != "FORCE_COLOR"} | changed


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, with pipes in the place of a terminal."""
    return subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


class Running:
    """A command that runs while a block does, with binary pipes; its standard error goes to a file."""

    def __init__(self, place: Path, *arguments: str, **options: Any) -> None:
        self.arguments = arguments
        self._errors = place / f"errors-{len(list(place.iterdir()))}"
        with self._errors.open("wb") as errors:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE} | options
            self.process = subprocess.Popen(command(*arguments), cwd=ROOT, env=environment(), stderr=errors, **pipes)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def said(self) -> str:
        """What it has printed on standard error."""
        return self._errors.read_text(encoding="utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Wait until standard error matches a pattern; returns the match."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            match = re.search(pattern, self.said)
            if match is not None:
                return match
            assert time.monotonic() < deadline, (self.arguments, self.said)
            assert self.process.poll() is None, (self.arguments, self.said)
            time.sleep(0.02)

    def port(self) -> str:
        """Returns the port that it says it listens on."""
        return self.wait_for(r"(?:Listening on|Forwarding) \S+:(\d+)[. ]")[1]

    def end(self, data: bytes | None) -> tuple[int, bytes]:
        """Write this to standard input, and end that (None: it is no pipe); returns exit code and standard output."""
        output, _ = self.process.communicate(data, timeout=TIMEOUT_SECONDS)
        return self.process.returncode, output
