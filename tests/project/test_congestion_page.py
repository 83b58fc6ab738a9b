"""What ``docs/explanation/yielding.md`` and the notebook behind it show is true.

The commands of the notebook run, with ``--quick`` and with each pattern of names narrowed to one scenario.  The string
and the table of controllers on the page are right.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString

from benchmarks.real.hosts import why_no_wire
from tests.pages import ROOT, Page
from txutp import LedbatPlusPlus, Settings
from txutp.core.congestion import ledbat, ledbatpp, shallow
from txutp.core.congestion.controllers import CONTROLLERS

PAGE = Page("explanation/yielding")
NOTEBOOK = Page("notebook/congestion")
COMMANDS = NOTEBOOK.commands
SMALL = ("profile-shallow", "tcp-reno-q40-together", "late-q40-1.5s", "grid-queue1-8M-10ms", "router")
TIMEOUT_SECONDS = 120

SCENARIOS = "python -m benchmarks.scenarios"
REAL = "python -m benchmarks.real"


def run(command: str, place: Path, *more: str) -> str:
    """Run a command of the page, made small; gives what it prints."""
    _, *words = shlex.split(command)
    words = [next((name for name in SMALL if fnmatch(name, word)), word) for word in words]
    done = subprocess.run(
        [sys.executable, *words, "--quick", *more],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_run() -> None:
    """No command and no block of another language is added without a test."""
    assert PAGE.blocks == []
    assert [block.language for block in NOTEBOOK.blocks] == ["sh"] * len(COMMANDS)
    assert all(command.startswith((SCENARIOS, REAL)) for command in COMMANDS)
    assert set(re.findall(r"`(python -m [\w.]+)", NOTEBOOK.text)) <= {SCENARIOS, REAL}


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(SCENARIOS)])
def test_simulations(command: str, tmp_path: Path) -> None:
    assert "**shallow**" in run(command, tmp_path)
    if "--output results" in command:
        assert {"tables.md", "numbers.json"} < {file.name for file in (tmp_path / "results").iterdir()}


@pytest.mark.slow
@pytest.mark.skipif(bool(why_no_wire()), reason=why_no_wire() or "nothing")
@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith(REAL)])
def test_real_paths(command: str, tmp_path: Path) -> None:
    output = run(command, tmp_path, "--only", "router", "--rounds", "1", "--no-noise")

    assert "| 10 Mbit/s, router with tbf | shallow |" in output
    assert "rounds: 1" in output


def test_controllers_and_their_targets() -> None:
    rows = re.findall(r"^\| `([\w+]+)`( \(default\))? \| .* \| (\d+) ms \|$", PAGE.text, re.MULTILINE)
    targets = {"shallow": shallow, "ledbat++": ledbatpp, "ledbat": ledbat}

    assert {name: int(target) * 1_000 for name, _, target in rows} == {
        name: module.TARGET_DELAY_US for name, module in targets.items()
    }
    assert set(targets) == set(CONTROLLERS)
    [default] = [name for name, is_default, _ in rows if is_default]
    assert Settings().congestion is CONTROLLERS[default]


def test_the_string_and_the_settings_are_the_same() -> None:
    [string] = re.findall(r"`(utp:\S+)`", PAGE.text)
    [settings] = re.findall(r"`(Settings\([^`]*\))`", PAGE.text)

    assert serverFromString(reactor, string)._settings == eval(
        settings, {"Settings": Settings, "LedbatPlusPlus": LedbatPlusPlus}
    )
