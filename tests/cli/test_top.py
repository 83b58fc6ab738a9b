"""``txutp top``: the screen that a person sees, in a terminal of 80 columns and others, and what it says at its end."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pyte
import pytest
from click.testing import CliRunner, Result

from tests.cli.support import ROOT, TIMEOUT_SECONDS, command, environment
from txutp.cli import top as top_command
from txutp.cli.output import EXIT_DIFFERENT, EXIT_INTERRUPTED, EXIT_LOST, EXIT_TIMED_OUT, EXIT_UNCONNECTED
from txutp.cli.top import SORTS, Service, delay_text, shortened, size_text
from txutp.core.stats import ConnectionStats

LONG_PEER = "[2001:db8:85a3:1234:5678:8a2e:1370:7334]:65535"


def row(peer: str, number: int, **changes: Any) -> dict[str, Any]:
    """Returns the figures of a connection as a service tells them."""
    figures = dict.fromkeys(ConnectionStats.__slots__, 0)
    figures |= {"port": "0.0.0.0:6881", "peer": peer, "id": number, "initiator": False, "state": "CONNECTED"}
    return figures | changes


class FakeService:
    """Answers each request with the next of some texts, and then hangs up; the last one again if it shall go on."""

    def __init__(self, path: Path, *answers: bytes, forever: bool = False) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answers = answers
        self._forever = forever
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client, client.makefile("rb") as lines:
            for answer in self._answers:
                if not lines.readline():
                    return
                client.sendall(answer)
            while self._forever and lines.readline():
                client.sendall(self._answers[-1])

    def __enter__(self) -> FakeService:
        return self

    def __exit__(self, *ignored: object) -> None:
        self._socket.close()


def answer(*rows: dict[str, Any]) -> bytes:
    ports = [{"port": "0.0.0.0:6881"}, {"port": "clients"}]
    return json.dumps({"program": "service", "pid": 7, "ports": ports, "connections": rows}).encode() + b"\n"


BEFORE = answer(row("10.0.0.1:1", 1), row(LONG_PEER, 2), row("10.0.0.2:2", 3, state="SYN_SENT"))
AFTER = answer(
    row("10.0.0.1:1", 1, bytes_acked=1_000_000, rtt=12.3, queue_delay=5.25, receive_queue_delay=123.4, target=25.0,
        cwnd=123_456, in_flight=99_950, segs_retrans=1_234),
    row(LONG_PEER, 2, bytes_received=2_500_000_000, rtt=1234.5, cwnd=999_400_000, segs_retrans=99_999_999),
    row("10.0.0.2:2", 3, state="SYN_SENT"),
)  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A short name for a socket."""
    before = Path.cwd()
    os.chdir(tmp_path)
    yield Path("s")
    os.chdir(before)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rates are measured over a shorter time here."""
    monkeypatch.setattr(sys.modules[Service.__module__], "RATE_SECONDS", 0.05)


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(top_command, arguments)


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
def test_the_table_fits(columns: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is longer than the screen, no peer loses its port, and the columns that matter most are there."""
    monkeypatch.setenv("COLUMNS", str(columns))
    with FakeService(place, BEFORE, AFTER):
        done = run(str(place), "--once", "-i", "50ms")

    assert done.exit_code == 0
    headline, headings, *rows = done.output.rstrip("\n").split("\n")
    assert all(len(line) <= columns for line in (headline, headings, *rows))
    assert [line.split()[0].rpartition(":")[2] for line in rows] == ["65535", "1", "2"]
    assert headline.startswith("3 connections, out ")
    words = headings.replace(" ms", "").split()
    assert words[0] == "PEER"
    assert {"OUT", "IN", "RTT"} <= set(words)
    if columns >= 80:
        assert words == ["PEER", "STATE", "OUT", "IN", "RTT", "QUEUE", "CWND", "FLIGHT", "RESENT"]
        cells = rows[1].split()
        assert [*cells[:2], *cells[3:]] == ["10.0.0.1:1", "up", "-", "12", "5.2/123", "123K", "100K", "1.2K"]
    if columns == 200:
        assert LONG_PEER in rows[0]


def test_rates_are_those_of_the_interval(place: Path) -> None:
    """From two answers: bits acknowledged and received in the time between them."""
    with FakeService(place, BEFORE, AFTER):
        done = run(str(place), "--once", "--json", "-i", "50ms", "-s", "out")

    document = json.loads(done.stdout)
    first, *others = document["connections"]
    assert (first["peer"], first["in_bytes_per_second"]) == ("10.0.0.1:1", 0)
    # A busy machine may sleep for longer, never for less.
    assert 10_000 < first["out_bytes_per_second"] <= 1_000_000 / 0.05
    assert [each["out_bytes_per_second"] for each in others] == [0, 0]


@pytest.mark.parametrize("sort", SORTS)
def test_every_order(sort: str, place: Path) -> None:
    """The order is that of the figures; ``-n`` keeps the first ones."""
    rows = [
        row(f"10.0.0.{number}:1", number, rtt=number, cwnd=number, segs_retrans=number, queue_delay=number)
        for number in (2, 3, 1)
    ]
    with FakeService(
        place, answer(*rows), answer(*(one | {"bytes_acked": one["id"], "bytes_received": one["id"]} for one in rows))
    ):
        done = run(str(place), "--once", "--json", "-i", "50ms", "-s", sort, "-n", "2")

    ids = [each["id"] for each in json.loads(done.stdout)["connections"]]
    assert ids == ([1, 2] if sort == "peer" else [3, 2])


@pytest.mark.parametrize(
    ("answers", "exit_code", "words"),
    [
        ([b"hello\n"], EXIT_DIFFERENT, "no control socket of txutp"),
        ([b"[1]\n"], EXIT_DIFFERENT, "no control socket of txutp"),
        ([b'{"error": "20 clients are connected already"}\n'], EXIT_DIFFERENT, "20 clients"),
        ([b'{"connections": ['], EXIT_LOST, "has ended"),
        ([BEFORE], EXIT_LOST, "has ended"),
    ],
    ids=["text", "list", "refused", "half", "once"],
)
def test_other_answers_are_told(answers: list[bytes], exit_code: int, words: str, place: Path) -> None:
    """A sentence and an exit code, and no traceback."""
    with FakeService(place, *answers):
        done = run(str(place), "--once", "-i", "50ms")

    assert (done.exit_code, done.stdout) == (exit_code, "")
    assert words in done.output


def test_sockets_that_cannot_be_used(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, one that a program has left behind, a file, and a program that does not answer."""
    assert (run("s").exit_code, "no such socket" in run("s").output) == (EXIT_UNCONNECTED, True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind("s")
    assert (run("s").exit_code, "no program listens there" in run("s").output) == (EXIT_UNCONNECTED, True)
    Path("file").write_text("x")
    assert run("file").exit_code == EXIT_UNCONNECTED
    assert run("x" * 200).exit_code == EXIT_UNCONNECTED
    monkeypatch.setattr(sys.modules[Service.__module__], "ANSWER_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind("silent")
        silent.listen()
        done = run("silent")
    assert (done.exit_code, "no answer" in done.output) == (EXIT_TIMED_OUT, True)


class Terminal:
    """The command on a terminal of 80 columns, and what is on its screen."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 12) -> None:
        self.screen = pyte.HistoryScreen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, theirs = pty.openpty()
        ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        variables = environment() | {"TERM": "xterm"}
        variables.pop("COLUMNS", None)
        self.process = subprocess.Popen(
            command(*arguments), env=variables | {"PYTHONPATH": str(ROOT)}, stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs)

    def read_until(self, words: str) -> list[str]:
        """Returns the lines of the screen as soon as one of them has these words."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not any(words in line for line in self.screen.display):
            assert time.monotonic() < deadline, self.screen.display
            if select.select([self._ours], [], [], 0.1)[0]:
                self._stream.feed(os.read(self._ours, 65_536))
        return [line.rstrip() for line in self.screen.display]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


def test_the_screen_is_redrawn_in_place_and_stays(place: Path) -> None:
    """As many rows as fit; the second answer takes the place of the first; Ctrl-C leaves all with a last word."""
    many = [row(f"10.0.1.{number}:7", number) for number in range(30)]
    moved = [one | {"bytes_acked": 1_000_000 * one["id"]} for one in many]
    with FakeService(place, answer(*many), answer(*moved), forever=True):
        terminal = Terminal("top", str(place.resolve()), "-i", "300ms")
        try:
            terminal.read_until("and 22 more")
            lines = terminal.read_until("10.0.1.29:7")
            assert lines[0].startswith("30 connections, out ")
            assert lines[1].split()[:2] == ["PEER", "STATE"]
            assert sum("10.0.1." in line for line in lines) == 8
            assert sum("PEER" in line for line in lines) == 1
            terminal.process.send_signal(signal.SIGINT)
            lines = terminal.read_until("txutp: Interrupted.")
            assert any("10.0.1." in line for line in lines)
            assert terminal.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
        finally:
            terminal.close()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (999, "999"),
        (999.6, "1.0K"),
        (12_345, "12.3K"),
        (99_960, "100K"),
        (1e9, "1.0G"),
        (5e15, "5000T"),
    ],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert size_text(number) == text
    assert len(text) <= 5


def test_delays_and_addresses_are_short() -> None:
    assert [delay_text(delay) for delay in (None, 0.0, 9.94, 9.96, 1234.5)] == ["-", "0.0", "9.9", "10", "1234"]
    assert shortened(LONG_PEER, 21) == "[2001:db8:85a3…:65535"
    assert shortened("10.0.0.1:1", 21) == "10.0.0.1:1"


def test_several_sockets_are_one_table(place: Path, tmp_path: Path) -> None:
    """Connections and counters of all are put together; a socket that was left behind is left out."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind("stale")
    first, second = (
        json.dumps(
            {"program": "web", "pid": pid, "connections": [row(f"10.0.0.{pid}:1", pid)]}
            | {"ports": [{"port": "0.0.0.0:6881", "foreign": pid, "held_bytes": None}]}
        ).encode()
        + b"\n"
        for pid in (1, 2)
    )
    with FakeService(place, first, forever=True), FakeService(Path("t"), second, forever=True):
        done = run("stale", "s", "t", "--once", "--json")
    told = json.loads(done.output)
    assert told["pid"] == [1, 2]
    assert told["ports"] == [{"port": "0.0.0.0:6881", "foreign": 3, "held_bytes": None}]
    assert sorted(each["peer"] for each in told["connections"]) == ["10.0.0.1:1", "10.0.0.2:1"]


def test_a_service_that_ends_leaves_the_others(place: Path) -> None:
    """One of two answers a single time; the headline says how many processes there are."""
    with FakeService(place, BEFORE), FakeService(Path("t"), BEFORE, AFTER):
        done = run("s", "t", "--once")
    assert done.exit_code == 0
    assert "service (7)" in done.output
    with FakeService(Path("u"), BEFORE, AFTER), FakeService(Path("v"), BEFORE, AFTER):
        done = run("u", "v", "--once")
    assert "6 connections" in done.output
    assert "service (2 processes) on 0.0.0.0:6881" in done.output


def test_without_any_service_the_first_problem_is_told(place: Path) -> None:
    """As with one socket."""
    done = run("s", "t")
    assert done.exit_code == EXIT_UNCONNECTED
    assert "s: there is no such socket" in done.output
