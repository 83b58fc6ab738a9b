"""What type checkers find in programs that use txutp: nothing in a correct one, each mistake in a wrong one.

Pyright also counts which of the names that a program can reach have a type that is stated, not guessed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT / "tests" / "typing"
PACKAGE = ROOT / "txutp"
PROGRAM, MISTAKES = PROGRAMS / "users_program.py", PROGRAMS / "mistakes.py"

# The least share of names with a known type.
COMPLETENESS = 0.95

ERROR = re.compile(r"(?P<file>\S+\.py):(?P<line>\d+)(?::\d+)?(?: -|:) error: ")


def check(command: list[str], tmp_path: Path) -> tuple[set[tuple[str, int]], str]:
    """Returns where a type checker finds errors, as names of files and lines, and all that it prints."""
    # A user's directory has none of our settings, and no txutp beside it.
    copies = [shutil.copy(program, tmp_path) for program in (PROGRAM, MISTAKES)]
    done = subprocess.run(
        [sys.executable, "-m", *command, *copies],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    output = done.stdout + done.stderr
    found = {(Path(match["file"]).name, int(match["line"])) for match in ERROR.finditer(output)}
    assert done.returncode == bool(found), output
    return found, output


def marked_lines() -> set[tuple[str, int]]:
    """Returns the lines that are marked as mistakes."""
    lines = MISTAKES.read_text(encoding="utf-8").splitlines()
    return {(MISTAKES.name, number) for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


@pytest.mark.parametrize("plugins", ["", "plugins = mypy_zope:plugin"], ids=["without plugin", "with the zope plugin"])
def test_mypy_passes_the_program_and_finds_the_mistakes(plugins: str, tmp_path: Path) -> None:
    """Strict, with and without the plugin that knows zope.interface; exactly the marked lines are wrong."""
    settings = tmp_path / "settings.ini"
    settings.write_text(f"[mypy]\nstrict = true\nwarn_unreachable = true\n{plugins}\n", encoding="utf-8")

    found, output = check(["mypy", "--config-file", str(settings)], tmp_path)

    assert found == marked_lines(), output


@pytest.fixture
def pyright() -> list[str]:
    """The command that starts pyright, without the name of this Python."""
    pytest.importorskip("pyright", reason="the extra `test` installs pyright")
    if not shutil.which("node"):
        pytest.skip("pyright runs on Node.js, which is not here")
    return ["pyright"]


def test_pyright_passes_the_program_and_finds_the_mistakes(pyright: list[str], tmp_path: Path) -> None:
    """Pyright, which most editors run, agrees."""
    found, output = check([*pyright, "--pythonpath", sys.executable], tmp_path)

    assert found == marked_lines(), output


def completeness(pyright: list[str], environment: Path) -> dict[str, Any]:
    """Returns pyright's count of the types of txutp, installed in an environment that has our other packages too."""
    venv.create(environment, with_pip=False)
    scripts = environment / ("Scripts" if os.name == "nt" else "bin")
    installed = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    shutil.copytree(PACKAGE, installed / "txutp", ignore=shutil.ignore_patterns("__pycache__"))
    (installed / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", *pyright, "--verifytypes", "txutp", "--ignoreexternal", "--outputjson"],
        cwd=environment,
        # With this option pyright asks the first Python of the path for packages, and heeds no other option.
        env=os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    return found


def test_pyright_knows_the_types_of_nearly_all_names(pyright: list[str], tmp_path: Path) -> None:
    """At least 95 of a hundred names that are not private: what a checker infers may differ from what another does."""
    found = completeness(pyright, tmp_path / "environment")

    exported = [symbol for symbol in found["symbols"] if symbol["isExported"]]
    assert len(exported) > 3_000
    unknown = [symbol["name"] for symbol in exported if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    assert found["completenessScore"] >= COMPLETENESS, "\n".join(unknown)
