"""The benchmarks run and print their tables.  How fast anything is, is not tested here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NODE_PACKAGE = ROOT / "tests" / "interop" / "node_modules" / "utp-native"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the benchmarks ask the system as POSIX systems are asked")


def run(*arguments: str, path: str | None = None) -> str:
    """What a benchmark prints."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if path is not None:
        environment["PATH"] = path
    name, *options = arguments
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), *options],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    ).stdout


def cells(output: str) -> list[list[str]]:
    """The rows of the Markdown table in it."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_throughput() -> None:
    """Every transport that can be here has a row with its rate, its costs and two ratios."""
    output = run("throughput.py", "--mebibytes", "1", "--rounds", "1")

    header, rule, *rows = cells(output)
    assert header[1] == "MB/s"
    assert rule[0] == "---"
    names = [row[0] for row in rows]
    assert names[0] == "txutp"
    assert "Twisted TCP" in names
    assert any(name.startswith("utp-native") for name in names) == bool(shutil.which("node") and NODE_PACKAGE.exists())
    for row in rows:
        assert len(row) == len(header)
        assert float(row[1].split()[0]) > 0
        assert row[5] != "-"
    assert platform.python_version() in output
    assert "Twisted" in output


def test_throughput_without_node(tmp_path: Path) -> None:
    """Without Node.js there is no row for utp-native, and a word about it."""
    output = run("throughput.py", "--mebibytes", "1", "--rounds", "1", "utp", "utp-native", path=str(tmp_path))

    _, _, *rows = cells(output)
    assert [row[0] for row in rows] == ["txutp"]
    assert "no utp-native" in output


def test_throughput_as_json() -> None:
    """Programs get every single value."""
    told = json.loads(run("throughput.py", "--mebibytes", "1", "--rounds", "2", "--json", "utp", "tcp"))

    assert set(told["results"]) == {"utp", "tcp"}
    for measured in told["results"].values():
        assert [len(values) for values in measured.values()] == [2, 2, 2]


def test_idle_memory() -> None:
    """There is a row for Python objects and one for the process."""
    output = run("idle_memory.py", "--connections", "60")

    header, _, objects, process = cells(output)
    assert header[1].startswith("KiB")
    assert 0.1 < float(objects[1]) < 100
    assert process[0].startswith("the whole process")
