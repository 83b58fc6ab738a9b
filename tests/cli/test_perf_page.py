"""What ``docs/howto/perf.md`` shows is true: its commands run, their output looks so, its tables are complete."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.support import ROOT, Running, run
from txutp.cli import main, output
from txutp.cli.perf import perf

PAGE = (ROOT / "docs" / "howto" / "perf.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
SERVER, *CLIENTS = COMMANDS
OUTPUTS = {
    lines[0]: text.splitlines()
    for (language, text), (_, before) in zip(BLOCKS[1:], BLOCKS, strict=False)
    if language == "text" and (lines := before.splitlines())
}


def shape(lines: list[str]) -> list[str]:
    """Lines without numbers: the words, each once in a row."""
    words = [" ".join(re.findall(r"\b[a-zA-Z]{2,}\b(?!\d)", re.sub(r"\S*\d\S*", "", line))) for line in lines]
    return [word for number, word in enumerate(words) if not number or word != words[number - 1]]


def test_the_page_runs(tmp_path: Path) -> None:
    """Each command does what it says, here in a short time between two processes; output has the form that is shown."""
    pytest.importorskip("matplotlib")
    assert SERVER == "txutp perf -s"
    assert {language for language, _ in BLOCKS} == {"sh", "text"}
    shown = 0
    with Running(tmp_path, *shlex.split(SERVER)[1:], "-p", "0", "-B", "127.0.0.1") as server:
        for line in CLIENTS:
            program, *words = shlex.split(line)
            assert program == "txutp"
            words = [
                {"example.org": "127.0.0.1", "test.svg": str(tmp_path / "test.svg")}.get(word, word) for word in words
            ]

            done = run(*words, "-p", server.port(), "-t", "300ms", "-i", "100ms")

            assert done.returncode == 0, (line, done.stderr)
            if line in OUTPUTS:
                shown += 1
                assert shape(done.stdout.splitlines()) == shape(OUTPUTS[line]), line
    assert shown == sum(language == "text" for language, _ in BLOCKS)
    assert (tmp_path / "test.svg").exists()


def test_options_and_exit_codes_are_those_of_the_command() -> None:
    """No option is made up, none of the command is missing, and the codes are those of the help."""
    real = {name for parameter in perf.params for name in parameter.opts if name.startswith("-")}
    named = set(re.findall(r"(?<![\w-])--?[a-zA-Z146][\w-]*", " ".join(re.findall(r"`([^`]*)`", PAGE))))
    assert named - real <= {"-s", "-c"}
    for parameter in perf.params:
        if parameter.name not in ("endpoint",):
            assert set(parameter.opts) & (named | set(" ".join(COMMANDS).split())), parameter.name

    help_text = " ".join(CliRunner().invoke(main, ["perf", "--help"]).output.split())
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    known = {value for name, value in vars(output).items() if name.startswith("EXIT_")}
    assert codes == {0, 2, *known} - {output.EXIT_NOT_STORED, output.EXIT_UNREADABLE}
    for code in codes - {0, 2}:
        assert f"{code} " in help_text
