"""Two thousand conversations, always the same ones; ``python -m tests.conversations`` runs others, and more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conversations import running
from tests.conversations.playing import play
from tests.conversations.program import draw
from txutp.core.connection import Connection
from txutp.qlog.files import read_qlog

ROOT = Path(__file__).parent.parent.parent
DOCUMENT = (ROOT / "docs" / "notebook" / "conversations.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(python -m tests\.conversations .+)$", DOCUMENT, re.MULTILINE)

# In CI.
CONVERSATIONS = 2_000
JOBS = min(os.cpu_count() or 1, 2)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, with these arguments."""
    command = [sys.executable, "-m", "tests.conversations", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)


@pytest.mark.slow
def test_conversations_end_as_both_ends_are_told() -> None:
    """Every byte, every end told once and truly, and nothing left behind; what fails says how to see it again."""
    done = run("--seeds", f"1-{CONVERSATIONS}", "--jobs", str(JOBS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{CONVERSATIONS} conversations, ")
    assert ", 0 failed" in done.stdout


@pytest.mark.parametrize("seed", range(50, 60))
def test_a_conversation_is_the_same_each_time(seed: int) -> None:
    first: list[str] = []
    again: list[str] = []
    outcome = play(seed, trace=first.append)
    assert play(seed, trace=again.append) == outcome
    assert again == first
    assert len(first) > 5


def test_the_command_shows_a_conversation() -> None:
    done = run("--seed", "4", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(draw(4).describe())
    assert "<SYN id=" in done.stdout


def test_what_fails_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a fault put in: the end of a stream overtakes its data."""
    monkeypatch.setattr(Connection, "at_eof", property(lambda connection: connection.eof_sequence is not None))
    monkeypatch.setattr(running, "freeze", lambda: None)
    total = running.run_many(range(1, 40), jobs=1)
    assert total.runs == 39
    assert total.failed
    seed = total.failed[0].seed
    printed = capsys.readouterr().out
    assert f"seed {seed} failed; python -m tests.conversations --seed {seed} -v" in printed
    assert "is done after" in printed


def test_the_documented_commands_are_understood(tmp_path: Path) -> None:
    """The long ones for another seed, and files in another place."""
    assert len(COMMANDS) >= 3
    for command in COMMANDS:
        command = re.sub(r"--(pcap|qlog) (\S+)", rf"--\1 {tmp_path}/\2", command)
        arguments = re.sub(r"--seeds \d+-\d+", "--seeds 7-8", command).split()[3:]
        assert run(*arguments).returncode == 0, command
    assert (tmp_path / "run.pcap").stat().st_size > 500
    assert {path.name.partition("-")[0] for path in (tmp_path / "traces").iterdir()} == {"client", "server"}


@pytest.mark.parametrize("seed", range(50, 56))
def test_a_conversation_that_is_recorded_is_the_same(seed: int, tmp_path: Path) -> None:
    """Packet by packet; and nothing is left behind, neither by the traces."""
    plain: list[str] = []
    recorded: list[str] = []
    outcome = play(seed, trace=plain.append)
    record = running.recorder(tmp_path / "run.pcap", tmp_path / "traces")
    assert play(seed, trace=recorded.append, record=record) == outcome
    assert recorded == plain
    for path in (tmp_path / "traces").iterdir():
        header, events = read_qlog(path)
        assert header["trace"]["vantage_point"]["type"] == path.name.partition("-")[0]
        assert all(event["time"] >= 0 for event in events)
