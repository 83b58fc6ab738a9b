"""The ``txutp`` command as people and programs run it: a process of its own, judged by what it prints and returns."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import types

import pytest

import txutp
from tests.cli.support import ROOT, TIMEOUT_SECONDS, command, environment, run
from txutp.cli.demo import TransferredColumn
from txutp.cli.exchange import CHUNK_BYTES, Report, Source, direction

MEGABYTE = 1_000_000


def test_version() -> None:
    """It says which version it is, and nothing else."""
    done = run("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"txutp, version {txutp.__version__}\n", "")


def test_demo_as_json() -> None:
    """Both directions arrive as they were sent, and all numbers are there to be read by a program."""
    done = run("demo", "--megabytes", "4", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["version"] == txutp.__version__
    assert told["identical"] is True
    for name in ("to_server", "to_client"):
        direction = told[name]
        assert direction["identical"] is True
        assert direction["bytes_sent"] == direction["bytes_received"] == 4 * MEGABYTE
        assert direction["sha256_sent"] == direction["sha256_received"]
        assert len(direction["sha256_sent"]) == 64
        assert direction["seconds"] > 0
        assert direction["goodput_megabits_per_second"] == pytest.approx(32 / direction["seconds"])
        assert 0 <= direction["retransmitted_share"] < 1
        sender = direction["sender"]
        assert sender["bytes_acked"] == sender["bytes_sent"] - sender["bytes_retrans"] == 4 * MEGABYTE
        assert sender["bytes_received"] == 4 * MEGABYTE
        assert sender["rtt"] > 0
        assert (sender["state"], sender["close_reason"]) == ("CLOSED", "DONE")
    assert told["to_server"]["sha256_sent"] != told["to_client"]["sha256_sent"]


def test_demo_as_table() -> None:
    """People get a table that tells the units; no progress, as standard error is no terminal."""
    done = run("demo", "--megabytes", "1")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("1,000,000") == 4
    assert done.stdout.count("identical") == 2
    assert done.stdout.count("Mbit/s") == 2
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_table_of_the_demonstration_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is wider than the screen, and no word or number is broken or cut off."""
    monkeypatch.setenv("COLUMNS", str(columns))
    done = run("demo", "--megabytes", "1")

    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert "…" not in done.stdout
    for name in ("bytes received", "sha256 received", "round trip", "retransmitted"):
        [line] = [line for line in lines if name in line]
        assert re.search(rf"{name}\W+\w.*\w", line)
    assert done.stdout.count("1,000,000") == 4


def test_quiet() -> None:
    """The exit code alone tells how it went."""
    done = run("demo", "--megabytes", "1", "--quiet")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def next_of(terminal: int) -> bytes:
    """What is shown next on a terminal."""
    ready, _, _ = select.select([terminal], [], [], TIMEOUT_SECONDS)
    assert ready, "nothing is shown"
    return os.read(terminal, 4096)


@pytest.mark.skipif(os.name == "nt", reason="there are no such terminals")
def test_interrupt_on_a_terminal() -> None:
    """A terminal shows progress; SIGINT ends both processes with a sentence and the exit code that shells give."""
    terminal, its_other_end = os.openpty()
    process = subprocess.Popen(
        command("demo", "--megabytes", "100000"),
        cwd=ROOT,
        env=environment() | {"TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=its_other_end,
    )
    os.close(its_other_end)
    try:
        said = b""
        while b"to the server" not in said:
            said += next_of(terminal)
        process.send_signal(signal.SIGINT)
        while b"Interrupted" not in said:
            said += next_of(terminal)
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
        with contextlib.suppress(OSError):  # so a terminal ends on Linux
            said += next_of(terminal)
    finally:
        process.kill()
        os.close(terminal)

    assert (process.returncode, output) == (130, b"")
    check_it_stays(said, b"Interrupted")


PRETENDED = """
import sys, types
from twisted.internet.task import deferLater
import sys
import txutp.cli
demo = sys.modules["txutp.cli.demo"]

async def demonstrate(reactor, total_bytes, begun):
    begun(types.SimpleNamespace(stats=types.SimpleNamespace(bytes_acked=0), received=types.SimpleNamespace(bytes=0)))
    await deferLater(reactor, 0.3)
    raise demo.{problem}("so it is.")

demo.demonstrate = demonstrate
txutp.cli.main(["demo"])
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such terminals")
@pytest.mark.parametrize(("problem", "code"), [("Lost", 4), ("TimedOut", 5)])
def test_a_problem_stays_on_a_terminal(problem: str, code: int) -> None:
    """The bars go before it is told, or they would wipe it."""
    terminal, its_other_end = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PRETENDED.format(problem=problem)],
        cwd=ROOT,
        env=environment() | {"TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=its_other_end,
    )
    os.close(its_other_end)
    said = b""
    with contextlib.suppress(OSError):  # so a terminal ends on Linux
        while piece := next_of(terminal):
            said += piece
    os.close(terminal)
    assert process.wait(TIMEOUT_SECONDS) == code
    assert b"to the server" in said
    check_it_stays(said, b"txutp: so it is.")


def check_it_stays(said: bytes, words: bytes) -> None:
    """Nothing that was written to the terminal behind these words moves up or erases."""
    assert words in said
    assert b"\x1b[" not in said.partition(words)[2].replace(b"\x1b[?25h", b"")


def test_bars_speak_of_each_number_in_its_own_unit() -> None:
    task = types.SimpleNamespace(completed=12_300_000, total=5_000_000_000)
    assert TransferredColumn().render(task).plain == "12.3 MB of 5.0 GB"  # type: ignore[arg-type]


def test_the_list_of_commands_is_not_cut() -> None:
    said = run("--help").stdout
    assert "Exchange random bytes with a process on this machine." in said
    assert "..." not in said.partition("Commands:")[2]


def test_other_bytes_are_different() -> None:
    """What arrived is compared with what was sent, by hash and by length."""
    stats = {"bytes_sent": 10, "bytes_retrans": 1}
    ours = Report(10, "aa", 0, "00", 0.0, stats)

    assert direction(ours, Report(0, "00", 10, "aa", 1.0, stats)).identical
    assert not direction(ours, Report(0, "00", 10, "ab", 1.0, stats)).identical
    assert not direction(ours, Report(0, "00", 9, "aa", 1.0, stats)).identical
    assert direction(ours, Report(0, "00", 10, "aa", 1.0, stats)).retransmitted_share == 0.1


class Full:
    """A transport that asks for a pause after each write."""

    def __init__(self) -> None:
        self.source: Source | None = None
        self.said: list[str] = []

    def write(self, data: bytes) -> None:
        self.said.append(f"write {len(data)}")
        if self.source is not None:
            self.source.pauseProducing()

    def unregisterProducer(self) -> None:
        self.said.append("unregister")

    def loseWriteConnection(self) -> None:
        self.said.append("end")


def test_source_waits_for_the_transport() -> None:
    """It writes no more than the transport asks for, and ends its half behind the last byte."""
    transport = Full()
    transport.source = Source(transport, CHUNK_BYTES + 1)

    transport.source.resumeProducing()
    assert transport.said == [f"write {CHUNK_BYTES}"]

    transport.source.resumeProducing()
    assert transport.said[1:] == ["write 1", "unregister", "end"]


def test_without_the_extra() -> None:
    """Without its packages it says how to get them."""
    hidden = "import sys; sys.modules['click'] = None; import txutp.cli"

    done = subprocess.run(
        [sys.executable, "-c", hidden],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 1
    assert done.stderr == 'The txutp command needs click. Please run: pip install "txutp[cli]"\n'
