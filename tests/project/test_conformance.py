"""Twisted's own tests, bound to uTP in tests/conformance, under each of the five reactors.

They run under trial in a process of their own, because they install and make reactors, which a
process with pytest-twisted's running reactor cannot do.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import progress
from tests.conformance.skips import ABOUT_THE_HOST, GAPS_OF_TCP, SKIPPED, SKIPPED_ON_UVLOOP

ROOT = Path(__file__).resolve().parent.parent.parent

# One run takes less than a minute; one that hangs is ended with what it has said until then.
TIMEOUT_SECONDS = 150

# How many tests have to pass, and to have had a connection: only those count.
MINIMUM = 400

# How much of a failing run is shown.
SHOWN_CHARACTERS = 40_000


def skips(output: str) -> dict[str, str]:
    """The tests that trial says it skipped, with the reasons."""
    found = {}
    for section in re.split(r"^=+\n", output, flags=re.MULTILINE):
        if section.startswith("[SKIPPED]\n"):
            reason, _, tests = section.removeprefix("[SKIPPED]\n").partition("\n\n")
            for test in re.findall(r"^tests\.conformance\.\S+$", tests, re.MULTILINE):
                found[test] = reason.strip()
    return found


def count(word: str, output: str) -> int:
    """A number from trial's last line, like ``FAILED (failures=2, successes=385)``."""
    last_line = output.strip().rpartition("\n")[2]
    match = re.search(rf"\b{word}=(\d+)", last_line)
    return int(match[1]) if match else 0


def bound_titles() -> list[str]:
    """The classes that the suite binds by name, but for those of which a test is skipped."""
    source = (ROOT / "tests" / "conformance" / "suite.py").read_text(encoding="utf-8")
    table = source.partition("CASES: ")[2].partition("\n}\n")[0]
    skipped = {title.partition(".")[0] for title in (*SKIPPED, *SKIPPED_ON_UVLOOP)}
    return sorted(set(re.findall(r'"(\w+Tests)"', table)) - skipped)


def run(command: list[str], variables: dict[str, str]) -> tuple[int, str]:
    """Run trial and tell which suite it is at; returns its exit code and all that it said."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        # Unbuffered, or what it is at would be known only long afterwards.
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    late = threading.Timer(TIMEOUT_SECONDS, process.kill)
    late.start()
    said = []
    with process:
        for line in process.stdout:
            said.append(line)
            # Trial writes each class on a line of its own, and its tests indented under it.
            if re.fullmatch(r"  \w+\n", line):
                progress.tell(line.strip())
    is_late = not late.is_alive()
    late.cancel()
    output = "".join(said)
    if is_late:
        pytest.fail(f"still running after {TIMEOUT_SECONDS} s:\n{output[-SHOWN_CHARACTERS:]}", pytrace=False)
    return process.returncode, output


@pytest.mark.conformance
@pytest.mark.slow
@pytest.mark.parametrize("reactor", ["select", "poll", "epoll", "asyncio", "uvloop"])
def test_twisted_conformance(reactor: str, tmp_path: Path) -> None:
    """Every test passes, except those that skips.py excuses, and enough of them really had a connection over uTP."""
    trial = ["twisted.trial", f"--reactor={reactor}"]
    if reactor == "uvloop":
        pytest.importorskip("uvloop")
        trial = ["tests.conformance.on_uvloop"]
    connected = tmp_path / "connected"
    command = [
        *(sys.executable, "-m", *trial),
        f"--temp-directory={tmp_path / 'trial'}",
        # Tracebacks at once, too: a run that hangs says nothing at its end.
        "--rterrors",
        "tests.conformance.suite",
    ]

    returncode, output = run(command, {"TXUTP_CONFORMANCE_CONNECTED": str(connected)})
    skipped = skips(output)
    for test, reason in skipped.items():
        print(f"skipped {test}: {reason}")
    if returncode:
        # The tracebacks stand between the list of all tests and the last line.
        tracebacks = output[max(output.find("\n====="), 0) :]
        pytest.fail(f"{' '.join(command)}\n{tracebacks[-SHOWN_CHARACTERS:]}", pytrace=False)
    excused = {*SKIPPED.values(), *GAPS_OF_TCP, *(SKIPPED_ON_UVLOOP.values() if reactor == "uvloop" else ())}
    unexcused = {
        test: reason
        for test, reason in skipped.items()
        if reason not in excused and not reason.startswith(ABOUT_THE_HOST)
    }
    assert unexcused == {}
    assert len(skipped) == count("skips", output)
    names = set(connected.read_text(encoding="utf-8").split())
    assert count("successes", output) >= len(names) >= MINIMUM
    idle = {title for title in bound_titles() if not any(f".suite.{title}." in name for name in names)}
    assert idle == set(), "bound, and none of their tests connects"
