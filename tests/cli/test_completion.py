"""Shells complete the command: by the lines that ``docs/reference/commands.md`` has for bash, zsh and fish."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import shell_complete

from tests.cli.support import ROOT, TIMEOUT_SECONDS, environment
from tests.cli.test_commands_page import BASH, PAGE
from txutp.cli import main

COMMANDS = {name for name, command in main.commands.items() if not command.hidden}
LINES = {
    "bash": BASH,
    **{
        shell: line.replace("\\|", "|")
        for shell, line in re.findall(r"^\| (\w+) \| .*? \| `(.*)` \|$", PAGE, re.MULTILINE)
    },
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="click completes in shells of POSIX systems")


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose ``txutp`` is this checkout's, run by this Python."""
    place = tmp_path_factory.mktemp("bin")
    script = place / "txutp"
    script.write_text(f"#!{sys.executable}\nfrom txutp.cli import main\nmain()\n")
    script.chmod(0o755)
    return environment() | {"PATH": os.pathsep.join([str(place), os.environ["PATH"]])}


def answers(words: list[str], surroundings: dict[str, str], **changes: str) -> list[str]:
    """Returns the lines that a program prints."""
    done = subprocess.run(
        words, cwd=ROOT, env=surroundings | changes, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=True
    )
    return done.stdout.splitlines()


def test_every_shell_has_a_line() -> None:
    """The three that click knows."""
    assert {shell: f"_TXUTP_COMPLETE={shell}_source txutp" in line for shell, line in LINES.items()} == dict.fromkeys(
        ("bash", "zsh", "fish"), True
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_evaluates_asks_the_command(shell: str, surroundings: dict[str, str]) -> None:
    """It defines a function that calls the command again, and binds it to the name."""
    text = "\n".join(answers(["txutp"], surroundings, _TXUTP_COMPLETE=f"{shell}_source"))
    assert f"_TXUTP_COMPLETE={shell}_complete" in text
    assert re.search(r"^ *(complete|compdef) .*\btxutp\b", text, re.MULTILINE)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_values_are_completed(
    shell: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the form in which each shell asks."""

    def completed(words: str) -> set[str]:
        last = words.rpartition(" ")[2]
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", last if shell == "fish" else str(len(words.split(" ")) - 1))
        assert shell_complete(main, {}, "txutp", "_TXUTP_COMPLETE", f"{shell}_complete") == 0
        return set(re.findall(r"[\w+-]+", capsys.readouterr().out))

    assert completed("txutp ") >= COMMANDS
    assert "forward" in completed("txutp fo")
    assert "--max-connections" in completed("txutp forward --max")
    assert "--not-ports" in completed("txutp run --not")
    assert "ledbat++" in completed("txutp perf -C led")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_itself(surroundings: dict[str, str]) -> None:
    """The line of the page, then what bash does at a tab."""
    script = (
        f'{BASH}\nCOMP_WORDS=(txutp fo)\nCOMP_CWORD=1\n"$(complete -p txutp | sed -E "s/.*-F ([^ ]+).*/\\1/")" txutp\n'
    )
    assert answers(["bash", "-c", script + 'printf "%s\\n" "${COMPREPLY[@]}"'], surroundings) == ["forward"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_take_the_line(shell: str, surroundings: dict[str, str], tmp_path: Path) -> None:
    """Without a complaint."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not here")
    before = "autoload -Uz compinit; compinit -u\n" if shell == "zsh" else ""
    assert answers([shell, "-c", before + LINES[shell]], surroundings, HOME=str(tmp_path)) == []
