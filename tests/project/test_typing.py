"""What type checkers find in programs that use txutp: nothing in a correct one, each mistake in a wrong one."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = ROOT / "tests" / "typing"
PROGRAM, MISTAKES = PROGRAMS / "users_program.py", PROGRAMS / "mistakes.py"

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


def test_pyright_passes_the_program_and_finds_the_mistakes(tmp_path: Path) -> None:
    """Pyright, which most editors run, agrees."""
    pytest.importorskip("pyright", reason="the extra `test` installs pyright")
    if not shutil.which("node"):
        pytest.skip("pyright runs on Node.js, which is not here")

    found, output = check(["pyright", "--pythonpath", sys.executable], tmp_path)

    assert found == marked_lines(), output
