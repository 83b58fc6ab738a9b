"""The one test command, in a directory where every program that it calls is a pretended one; and what runs say."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests import progress
from tests.conftest import Heartbeat, Report
from tests.missing import leave_out

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is missing")

# What the script takes from the system, whatever else is missing.
USUAL = (
    "bash", "env", "dirname", "mktemp", "rm", "cat", "sort", "cksum", "sleep", "chmod", "mkdir", "cp", "touch", "nice",
)  # fmt: skip
# It makes environments with itself in them.
PYTHON = 'if [[ $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi'
TOOLS = ("tshark", "tcpdump", "rsync", "nft", "ip", "node", "npm")


class Place:
    """A checkout with a pretended Python, and a PATH that has nothing but what the test puts there."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.log = path / "log"
        (path / "tests" / "interop").mkdir(parents=True)
        self.bin.mkdir()
        shutil.copy2(ROOT / "tests" / "run", path / "tests" / "run")
        for name in ("setup.py", "pyproject.toml", "tests/interop/package.json", "tests/interop/package-lock.json"):
            (path / name).write_text("as it was\n")
        for name in USUAL:
            found = shutil.which(name)
            assert found is not None, name
            (self.bin / name).symlink_to(found)
        self.command("python3", PYTHON)
        self.command("npm", "mkdir -p tests/interop/node_modules")

    def command(self, name: str, does: str = "") -> None:
        """Pretend a command: it writes down how it was called, and does that."""
        path = self.bin / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"{self.log}"\n{does}\n')
        path.chmod(0o755)

    def run(self, *arguments: str, **variables: str) -> tuple[int, str, list[str]]:
        """Run the command; returns its exit code, what it said, and what it called."""
        self.log.write_text("")
        environment = {"PATH": str(self.bin), "HOME": str(self.path), **variables}
        done = subprocess.run(
            ["tests/run", *arguments],
            cwd=self.path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, self.log.read_text().splitlines()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def calls(called: list[str], word: str) -> list[str]:
    return [line for line in called if word in line]


def test_what_has_not_changed_is_not_installed_again(place: Place) -> None:
    """So the second time needs no network."""
    for name in TOOLS:
        if name != "npm":
            place.command(name)
    code, said, called = place.run("-k", "handshake")
    assert code == 0, said
    assert len(calls(called, "pip install")) == len(calls(called, "npm install")) == 1
    assert said.endswith("All checks passed.\n")

    code, said, called = place.run("-k", "handshake")
    assert code == 0, said
    assert calls(called, "install") == []
    assert calls(called, "pytest -k handshake")

    (place.path / "setup.py").write_text("another version\n")
    (place.path / "tests" / "interop" / "package-lock.json").write_text("another one\n")
    code, said, called = place.run("-k", "handshake")
    assert len(calls(called, "pip install")) == len(calls(called, "npm install")) == 1


def test_what_could_not_be_installed_is_tried_again(place: Place) -> None:
    place.command("npm", "exit 1")
    code, said, called = place.run("-k", "x")
    assert code == 1
    assert "FAILED: node packages" in said
    assert calls(called, "pytest")
    place.command("npm", "mkdir -p tests/interop/node_modules")
    code, said, called = place.run("-k", "x")
    assert calls(called, "npm install")


def test_without_any_tool_it_ends_well_and_says_what_was_left_out(place: Place) -> None:
    (place.bin / "npm").unlink()
    code, said, _ = place.run("-k", "x", APT="no")
    assert code == 0, said
    assert "sudo apt-get install tshark tcpdump rsync nftables iproute2 nodejs npm" in said
    assert "the tests that need it were left out: tshark tcpdump rsync nftables iproute2 nodejs npm" in said


def test_a_failure_is_said_last(place: Place) -> None:
    place.command("python3", f'{PYTHON}; [[ "$*" != "-m mypy" && "$*" != "-m pytest"* ]]')
    code, said, _ = place.run("-k", "x", APT="no")
    assert code == 1
    assert said.endswith("FAILED: mypy\nFAILED: pytest\n")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root installs anything")
def test_root_says_what_it_installs_and_may_be_asked_not_to(place: Place) -> None:
    place.command("apt-get")
    code, said, called = place.run("-k", "x", APT="no")
    assert calls(called, "apt-get") == []

    code, said, called = place.run("-k", "x")
    assert "Installing tshark tcpdump rsync nftables iproute2 nodejs with apt-get (APT=no tests/run would not)." in said
    assert calls(called, "apt-get install -qq -y --no-install-recommends tshark tcpdump rsync nftables iproute2 nodejs")
    assert code == 0, said  # they are still missing, and that is said
    assert "were left out: tshark" in said


def test_other_pythons_are_named_and_run_where_they_are(place: Place) -> None:
    place.command("python3.14", PYTHON)
    code, said, called = place.run(APT="no")
    assert code == 0, said
    assert "Python 3.13 is not here: untested." in said
    assert "Python 3.14:" in said
    assert calls(called, "python3.14 -m pytest --quiet tests/wire/test_close.py")


def test_simulations_run_beside_the_other_tests(place: Place) -> None:
    """Each test in one of both runs, and what fails in either is said."""
    code, said, called = place.run(APT="no")
    assert code == 0, said
    assert calls(called, "pytest -p no:cacheprovider tests/wire")
    assert calls(called, "pytest --ignore=tests/wire")
    failing = f'{PYTHON}; if [[ "$*" == *" tests/wire" ]]; then echo "one failed"; exit 1; fi'
    place.command("python3", failing)
    shutil.rmtree(place.path / ".venv")
    code, said, _ = place.run(APT="no")
    assert code == 1
    assert "one failed" in said
    assert said.endswith("FAILED: pytest tests/wire\n")


def test_it_does_not_outlive_itself(place: Place) -> None:
    """Whoever reads what it says to the end does not wait for the reminder of a step."""
    began = os.times().elapsed
    place.run("-k", "x", APT="no")
    assert os.times().elapsed - began < 15


# -- what runs say --


def test_a_test_that_takes_long_is_named_with_what_it_is_at() -> None:
    said: list[str] = []
    spoke = threading.Event()

    def write(text: str) -> None:
        said.append(text)
        spoke.set()

    heartbeat = Heartbeat(write, patience_seconds=0.05)
    heartbeat.start()
    before = progress.told()
    try:
        heartbeat.now_runs("tests/test_long.py::test_it")
        progress.tell("the third part")
        assert spoke.wait(10)
    finally:
        heartbeat.stop()
        progress.tell(before)
    assert "tests/test_long.py::test_it has been running for 0 s: the third part" in said[0]


def test_between_tests_nothing_is_said() -> None:
    said: list[str] = []
    heartbeat = Heartbeat(said.append, patience_seconds=0.01)
    heartbeat.start()
    threading.Event().wait(0.1)
    heartbeat.stop()
    assert said == []


SOME_TESTS = """
import pytest
from tests.missing import leave_out

def test_fine(): pass
def test_left_out(): leave_out("a tool is missing")
@pytest.mark.skip(reason="a tool is missing")
def test_left_out_too(): pass
def test_other(): pytest.skip("no network")
"""


def test_a_run_ends_with_what_was_left_out_and_why(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(SOME_TESTS)
    (tmp_path / "test_two.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_configure\n")
    summary = tmp_path / "summary"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TXUTP_TESTS_SUMMARY": str(summary)}
    environment.pop("TXUTP_TESTS_ALL_IS_HERE", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed, 4 skipped" in done.stdout, done.stdout + done.stderr
    lines = summary.read_text().splitlines()
    assert lines[:2] == ["Left out, 4 in all:", "    2  a tool is missing"]
    assert "    1  no network" in lines
    assert [line for line in lines if "no_such_module" in line]
    assert lines[lines.index("The slowest files:") + 1].endswith("test_one.py")


def test_nothing_is_left_out_where_everything_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TXUTP_TESTS_ALL_IS_HERE", "1")
    with pytest.raises(pytest.fail.Exception, match="tshark is missing, although"):
        leave_out("tshark is missing")
    monkeypatch.delenv("TXUTP_TESTS_ALL_IS_HERE")
    with pytest.raises(pytest.skip.Exception, match="tshark is missing"):
        leave_out("tshark is missing")


def test_a_report_counts_by_reason() -> None:
    report = Report(Heartbeat(lambda text: None))

    class Skipped:
        nodeid = "tests/test_a.py::test_b"
        duration = 2.0
        skipped = True
        longrepr: Any = ("tests/test_a.py", 1, "Skipped: no root")

    report.pytest_runtest_logreport(Skipped())  # type: ignore[arg-type]
    report.pytest_runtest_logreport(Skipped())  # type: ignore[arg-type]
    assert report.lines() == [
        "Left out, 2 in all:",
        "    2  no root",
        "The slowest files:",
        "    4 s  tests/test_a.py",
    ]
