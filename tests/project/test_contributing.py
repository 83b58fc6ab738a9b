"""The habits of CONTRIBUTING.md: its commands run, the hooks are those of the test command, fragments are read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_readme import environment

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TEST_COMMAND = (ROOT / "tests" / "run").read_text(encoding="utf-8")

# Each fenced block, and what makes a test of it out of a job of minutes.
SHORTER = {
    ".venv/bin/python -m pytest tests/wire/test_close.py": "--collect-only -q",
    "pre-commit install": "",
    ".venv/bin/python -m sphinx -W -n docs docs/_build": "--version",
    "python -m benchmarks compare HEAD --only streams-loopback": "--quick --rounds 1 --row utp",
    "towncrier build --draft": "",
}

in_a_checkout = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout with its history")


def blocks() -> list[str]:
    """Returns the commands of the page."""
    return [text.strip() for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


def run(command: str, place: Path = ROOT) -> str:
    """Runs a command in a directory, with the commands of this Python; returns what it prints."""
    words = shlex.split(command)
    words[0] = words[0].replace(".venv/bin/python", sys.executable)
    done = subprocess.run(words, cwd=place, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_command_of_the_page_has_a_test() -> None:
    """The table of shorter commands has the blocks of the page, and no others."""
    assert blocks() == list(SHORTER)


@pytest.mark.slow
@in_a_checkout
@pytest.mark.parametrize("command", [command for command in SHORTER if not command.startswith("pre-commit")])
def test_the_commands_of_the_page_run(command: str) -> None:
    """Each command does what it says, some of them on less."""
    assert run(f"{command} {SHORTER[command]}")


@in_a_checkout
def test_the_hooks_can_be_installed(tmp_path: Path) -> None:
    """``pre-commit`` takes the configuration, and installs what git calls."""
    (tmp_path / ".pre-commit-config.yaml").write_bytes((ROOT / ".pre-commit-config.yaml").read_bytes())
    run("git init -q", tmp_path)

    run("pre-commit validate-config", tmp_path)
    run("pre-commit install", tmp_path)

    assert os.access(tmp_path / ".git" / "hooks" / "pre-commit", os.X_OK)


def test_the_hooks_are_those_of_the_test_command() -> None:
    """Each quick check of ``tests/run`` is a hook; the rules of the house are one more."""
    hooks = re.findall(r"entry: \.venv/bin/python -m (.*)", (ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    quick = re.findall(r'^step "[^"]+" "\$python" -m ((?:ruff|mypy).*)$', TEST_COMMAND, re.MULTILINE)

    assert len(quick) == 3
    assert hooks == [*quick, "pytest -q tests/project/test_house.py"]


def test_fragments_have_a_kind_and_say_something() -> None:
    """A fragment with an unknown kind would be missing in the changelog without a word."""
    kinds = re.findall(r'^directory = "(\w+)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    fragments = [path for path in (ROOT / "changes").iterdir() if path.name != "README.md"]

    assert "feature" in kinds
    for path in fragments:
        assert re.fullmatch(rf"\+[a-z0-9-]+\.({'|'.join(kinds)})\.md", path.name), path.name
        assert path.read_text(encoding="utf-8").strip().endswith("."), path.name


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_somewhere(page: str) -> None:
    """What a page links to in the checkout is there."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
