"""The benchmarks run and print their tables.  How fast anything is, is not tested here."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 120

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the benchmarks ask the system as POSIX systems are asked")


def run(*options: object) -> str:
    """What the command prints."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", *map(str, options)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=True,
    ).stdout


def cells(output: str) -> list[list[str]]:
    """The rows of the Markdown table in it."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_streams(tmp_path: Path) -> None:
    """Each transport has a row with its rate and its costs, and the ratio to TCP; programs get every value."""
    numbers = tmp_path / "numbers.json"
    output = run("--only", "streams-loopback", "--row", "utp", "--row", "tcp", "--json", numbers)

    header, rule, *rows = cells(output)
    assert header[1] == "MB/s"
    assert rule[0] == "---"
    assert [row[0] for row in rows] == ["txutp", "Twisted TCP"]
    for row in rows:
        assert len(row) == len(header)
        assert float(row[1].split()[0]) > 0
    assert platform.python_version() in output
    assert json.loads(numbers.read_text())


@pytest.mark.parametrize("part", ["handshakes", "pingpong"])
def test_other_parts(part: str) -> None:
    _, _, *rows = cells(run("--only", part, "--row", "*utp*", "--row", "*tcp*"))
    assert any("txutp" in row[0] for row in rows)
    assert any("TCP" in row[0] for row in rows)


def test_the_parts_are_listed() -> None:
    assert {"streams-loopback", "rates", "loss", "crowds", "memory"} <= {
        line.split()[0] for line in run("--list").splitlines()
    }
