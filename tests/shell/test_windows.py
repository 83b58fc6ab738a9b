"""What Windows lacks, taken away from processes of this system; see ``windows.py`` for what that is and is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.windows import TOTAL_BYTES

ROOT = Path(__file__).parent.parent.parent


def emulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.windows", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_an_echo_and_20_megabytes() -> None:
    done = emulated("transfer")
    assert not done.stderr
    assert json.loads(done.stdout) == {
        "echo": 1_000,
        "received": TOTAL_BYTES + 1_000,
        "fine clock": True,
        "port": "PlainPort",
        "by name": True,
        "nobody": "TimeoutError",
    }


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_needs_no_pywin32(option: str) -> None:
    done = emulated("command", option)
    assert done.returncode == 0, done.stderr
    assert "txutp" in done.stdout


def test_the_demonstration_says_what_it_needs() -> None:
    done = emulated("command", "demo", "--megabytes", "1")
    assert done.returncode == 1
    assert "needs pywin32" in done.stderr
    assert "Traceback" not in done.stderr
