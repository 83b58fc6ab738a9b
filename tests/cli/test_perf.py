"""``txutp perf``: two processes that measure what is between them, and what a person sees of it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyte
import pytest
import pytest_twisted
from click.testing import CliRunner
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString

from tests.cli.support import ROOT, TIMEOUT_SECONDS, Running, command, environment, run
from txutp.cli import main
from txutp.cli.measurement.client import Client
from txutp.cli.measurement.results import Results
from txutp.cli.measurement.wire import LONGEST_FIRST_LINE_BYTES, Parameters, Sample, StreamSample
from txutp.cli.messages import LONGEST_LINE_BYTES
from txutp.cli.messages import encode as line_of
from txutp.cli.output import EXIT_DIFFERENT, EXIT_INTERRUPTED, EXIT_LOST, EXIT_TIMED_OUT, EXIT_UNCONNECTED
from txutp.cli.perf import verdict

HOST = "127.0.0.1"
TOKEN = "ab" * 16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that lives through all tests of this file, good and bad."""
    with Running(tmp_path_factory.mktemp("server"), "perf", "-s", "-B", HOST, "-p", "0") as running:
        running.port()
        yield running
        assert running.process.poll() is None, running.said


def measured(server: Running, *options: str) -> dict[str, Any]:
    """Run a client with ``-J``; returns its document."""
    done = run("perf", "-c", HOST, "-p", server.port(), "-J", *options)
    assert (done.returncode, done.stderr) == (0, "")
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_sizes_and_directions_as_json(server: Running) -> None:
    """``-n``, ``-P`` and ``--bidir``: every byte is counted at both ends, for each stream."""
    told = measured(server, "-n", "3000001", "-P", "3", "--bidir", "-l", "10000")

    assert told["start"]["test"]["streams"] == 3
    for direction in ("client_to_server", "server_to_client"):
        end = told["end"]["directions"][direction]
        assert end["sender"]["bytes"] == end["receiver"]["bytes"] == 3_000_001
        assert [stream["receiver"]["bytes"] for stream in end["streams"]] == [1_000_001, 1_000_000, 1_000_000]
    assert told["end"]["sum_received"] == told["end"]["directions"]["client_to_server"]["receiver"]


def test_the_server_sends(server: Running) -> None:
    """``-R``: the sender's numbers are the server's, and came over the control stream."""
    told = measured(server, "-R", "-n", "20M", "-C", "ledbat", "--target", "20ms")

    [direction] = told["end"]["directions"]
    assert direction == "server_to_client"
    assert told["end"]["sum_sent"]["bytes"] == told["end"]["sum_received"]["bytes"] == 20_000_000
    assert told["end"]["sum_sent"]["retransmits"] >= 0
    assert told["end"]["directions"][direction]["mean_rtt_ms"] > 0


def test_events_of_a_stream(server: Running) -> None:
    """``--json-stream``: one event a line, with all that is measured; what is omitted is marked."""
    done = run(
        "perf", "-c", f"utp:{HOST}:{server.port()}", "-t", "900ms", "-O", "300ms", "-i", "300ms", "--json-stream"
    )

    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in events[:2]] == ["start", "interval"]
    assert events[-1]["event"] == "end"
    intervals = [event["data"] for event in events if event["event"] == "interval"]
    assert [interval["omitted"] for interval in intervals[:2]] == [True, False]
    full = intervals[1]
    for name in ("bytes", "bits_per_second", "cwnd_bytes", "rtt_ms"):
        assert full[name] > 0, name
    for name in ("retransmits", "queue_delay_ms", "reverse_queue_delay_ms"):
        assert full[name] >= 0, name


def test_another_transport(server: Running) -> None:
    """Over TCP the same test tells what the system tells of TCP."""
    done = run("perf", "-c", f"tcp:{HOST}:{server.port()}", "-n", "10M", "-J")

    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["end"]["sum_sent"]["bytes"] == told["end"]["sum_received"]["bytes"] == 10_000_000


def test_compare_with_tcp(server: Running) -> None:
    """All cells have numbers: rates alone and side by side, and pings in all phases."""
    told = measured(server, "-t", "500ms", "--compare", "tcp")

    cells = {phase["phase"]: phase for phase in told["phases"]}
    assert list(cells) == ["nothing", "uTP alone", "TCP alone", "both"]
    for name, phase in cells.items():
        assert 0 < phase["ping_p50_ms"] <= phase["ping_p95_ms"], phase
        assert (phase["utp_bits_per_second"] or 0) > 0 or name in ("nothing", "TCP alone")
        assert (phase["tcp_bits_per_second"] or 0) > 0 or name in ("nothing", "uTP alone")


@pytest.mark.parametrize(("flag", "host"), [("-4", "localhost"), ("-6", "::1")])
def test_a_family_of_addresses(flag: str, host: str, tmp_path: Path) -> None:
    """The server listens on all addresses of the family; the client looks for one of them, over TCP too."""
    with Running(tmp_path, "perf", "-s", flag, "-p", "0") as server:
        words = ["perf", "-c", host, flag, "-p", server.port(), "-t", "200ms", "-i", "100ms", "-J"]
        for more in ([], ["--compare", "tcp"]):
            done = run(*words, *more)
            assert done.returncode == 0, done.stderr
        other = run("perf", "-c", "::1" if flag == "-4" else "127.0.0.1", flag, "-t", "1s")
        assert (other.returncode, "has no address of this family" in other.stderr) == (EXIT_UNCONNECTED, True)


def test_one_off_and_a_server_without_tcp(tmp_path: Path) -> None:
    """``-1`` ends with the test; a server at an endpoint string has no TCP to compare with, and says so."""
    with Running(tmp_path, "perf", "-s", "-1", f"utp:0:interface={HOST}") as server:
        done = run("perf", "-c", HOST, "-p", server.port(), "--compare", "tcp", "-t", "500ms")

        assert done.returncode == EXIT_UNCONNECTED
        assert "does not listen on TCP" in done.stderr
        assert server.process.wait(TIMEOUT_SECONDS) == 0
        assert b"client to server" in server.process.stdout.read()


def test_the_servers_end_as_json(tmp_path: Path) -> None:
    """``-s -J``: a document for the test, with the intervals."""
    with Running(tmp_path, "perf", "-s", "-1", "-J", "-B", HOST, "-p", "0") as server:
        run("perf", "-c", HOST, "-p", server.port(), "-n", "1M")
        assert server.process.wait(TIMEOUT_SECONDS) == 0
        told = json.loads(server.process.stdout.read())

    assert told["end"]["sum_received"]["bytes"] == 1_000_000
    assert told["intervals"]


# Ends before the end


def test_an_interrupt_leaves_the_totals(server: Running, tmp_path: Path) -> None:
    """Ctrl-C at the client: both ends print what they know, and the server goes on."""
    with Running(tmp_path, "perf", "-c", HOST, "-p", server.port(), "-t", "1min", "-i", "200ms", "-b", "8M") as client:
        shown = b""
        while shown.count(b"\n") < 4:
            shown += os.read(client.process.stdout.fileno(), 4_096)
        client.process.send_signal(signal.SIGINT)
        rest, _ = client.process.communicate(timeout=TIMEOUT_SECONDS)

    assert client.process.returncode == EXIT_INTERRUPTED
    assert client.said == "txutp: Interrupted.\n"
    assert re.search(rb"receiver +\d\.\ds +\d\S+ +\d", rest)
    server.wait_for("the client has ended it")


def test_an_interrupted_or_killed_server_ends_its_client(tmp_path: Path) -> None:
    """The client says what happened, and prints its totals."""
    for number, codes in ((signal.SIGINT, {EXIT_LOST}), (signal.SIGKILL, {EXIT_LOST, EXIT_TIMED_OUT})):
        with (
            Running(tmp_path, "perf", "-s", "-B", HOST, "-p", "0") as server,
            Running(tmp_path, "perf", "-c", HOST, "-p", server.port(), "-i", "200ms") as client,
        ):
            shown = b""
            while shown.count(b"\n") < 4:
                shown += os.read(client.process.stdout.fileno(), 4_096)
            server.process.send_signal(number)
            rest, _ = client.process.communicate(timeout=TIMEOUT_SECONDS)
            assert client.process.returncode in codes, client.said
            assert b"receiver" in rest
            if number == signal.SIGINT:
                assert "the server was interrupted" in client.said
                assert server.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED


def test_a_reader_of_the_output_that_goes_away_ends_it(server: Running, tmp_path: Path) -> None:
    """``txutp perf -c ... | head`` ends with ``head``, and without a traceback."""
    with Running(tmp_path, "perf", "-c", HOST, "-p", server.port(), "-t", "1min", "-i", "100ms", "-b", "8M") as client:
        assert client.process.stdout.readline().startswith(b"Connected")
        client.process.stdout.close()
        assert client.process.wait(TIMEOUT_SECONDS) == EXIT_LOST
        client.process.stdout = None
    assert client.said == "txutp: The reader of standard output has gone away.\n"


def test_a_client_without_a_server_says_so() -> None:
    """A sentence and an exit code; with ``-J`` a document as well, that says the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port = str(probe.getsockname()[1])

    done = run("perf", "-c", HOST, "-p", port, "-J")

    assert done.returncode == EXIT_UNCONNECTED
    assert "refused" in done.stderr.lower()
    assert json.loads(done.stdout)["error"] in done.stderr


# Clients that are none


DEEP = b'{"txutp-perf":1,"test":' + b"[" * 4_000
GREETINGS = {
    "nothing": b"",
    "half a line": b'{"txutp-perf": 1',
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "zeros": bytes(100) + b"\n",
    "a line without end": b"x" * (2 * LONGEST_FIRST_LINE_BYTES),
    "a deep line": DEEP + b"\n",
    "another version": b'{"txutp-perf": 99, "test": {}}\n',
    "no test": b'{"txutp-perf": 1}\n',
    "a test that is none": b'{"txutp-perf": 1, "test": 3}\n',
    "a token of no test": line_of({"txutp-perf": 1, "token": TOKEN, "stream": 0}),
    "a token that is none": line_of({"txutp-perf": 1, "token": 5, "stream": 0}),
    "too many streams": line_of(Parameters(1.0, streams=1_000_000).as_message()),
}


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=GREETINGS)
def test_nonsense_gets_a_sentence_or_the_end(server: Running, greeting: bytes) -> None:
    """The server closes, behind one line that says why if there was a line to answer."""
    with socket.create_connection((HOST, int(server.port())), TIMEOUT_SECONDS) as stream:
        stream.sendall(greeting)
        stream.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionResetError):
            while part := stream.recv(4_096):
                answer += part

    assert answer.count(b"\n") <= 1
    if greeting.endswith(b"\n"):
        assert len(json.loads(answer)["error"]) > 10


def test_nonsense_in_a_test_ends_that_one(server: Running) -> None:
    """A sample that is none, or a stream twice: the client hears a sentence; another one is served as ever."""
    for nonsense in (b'{"sample": {"number": -1}}\n', b"?\n", b"x" * (LONGEST_LINE_BYTES + 10)):
        address = HOST, int(server.port())
        with (
            socket.create_connection(address, TIMEOUT_SECONDS) as control,
            socket.create_connection(address, TIMEOUT_SECONDS) as data,
            socket.create_connection(address, TIMEOUT_SECONDS) as twice,
        ):
            lines = control.makefile("rb")
            control.sendall(line_of(Parameters(1.0).as_message()))
            greeting = line_of({"txutp-perf": 1, "token": json.loads(lines.readline())["accepted"], "stream": 0})
            data.sendall(greeting)
            assert json.loads(lines.readline()) == {"begin": True}
            twice.sendall(greeting)
            assert "already" in json.loads(twice.makefile("rb").readline())["error"]
            control.sendall(nonsense)
            answer = [json.loads(line) for line in lines]
            assert "error" in answer[-1], answer

    assert measured(server, "-n", "100K")["end"]["sum_received"]["bytes"] == 100_000


# Servers that are none


@contextmanager
def answering(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """A TCP server that answers each connection in a way of its own; yields its endpoint string."""
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    stream, _ = listener.accept()
                    threading.Thread(target=speak, args=(stream,), daemon=True).start()

        def speak(stream: socket.socket) -> None:
            with stream, suppress(OSError):
                stream.settimeout(TIMEOUT_SECONDS)
                answer(stream)
                while stream.recv(1 << 16):
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield f"tcp:{HOST}:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def saying(*lines: bytes) -> Callable[[socket.socket], object]:
    """Answers a first line with these."""

    def answer(stream: socket.socket) -> None:
        stream.recv(1 << 16)
        stream.sendall(b"".join(lines))

    return answer


def echoing(stream: socket.socket) -> None:
    """Answers with what it is asked."""
    stream.sendall(stream.recv(1 << 16))


ACCEPTED, BEGIN = line_of({"accepted": TOKEN}), line_of({"begin": True})
SERVERS: dict[str, tuple[Callable[[socket.socket], object], int, str]] = {
    "another protocol": (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), EXIT_DIFFERENT, "no JSON"),
    "a line without end": (saying(b"x" * (LONGEST_LINE_BYTES + 1)), EXIT_DIFFERENT, "too long"),
    "an echo": (echoing, EXIT_DIFFERENT, "something else"),
    "a token that is none": (saying(line_of({"accepted": [1]})), EXIT_DIFFERENT, "token"),
    "too much": (saying(ACCEPTED * 100), EXIT_DIFFERENT, "something else than it was asked"),
    "a refusal": (saying(line_of({"error": "no \x1b[31mroom\r\n" + "!" * 500})), EXIT_UNCONNECTED, "no [31mroom!!"),
    "silence": (lambda stream: None, EXIT_TIMED_OUT, "does not answer as one of txutp perf"),
    "the end": (lambda stream: stream.shutdown(socket.SHUT_RDWR), EXIT_LOST, "closed the connection"),
    "a sample that is none": (
        saying(ACCEPTED, BEGIN, b'{"sample": {"number": 1, "seconds": 1e999, "ended": true, "streams": []}}\n'),
        EXIT_DIFFERENT,
        "a sample: seconds",
    ),
    "a sample of another test": (
        saying(ACCEPTED, BEGIN, line_of(Sample(1, 1.0, (StreamSample(),) * 2).as_message())),
        EXIT_DIFFERENT,
        "a sample is not of this test",
    ),
}


@pytest.mark.parametrize("name", SERVERS)
@pytest_twisted.ensureDeferred
async def test_a_server_that_is_none(name: str) -> None:
    """A client has a sentence for it, and an exit code, and ends."""
    answer, exit_code, words = SERVERS[name]
    with answering(answer) as endpoint:
        results = Results(Parameters(1.0, bits_per_second=8_000_000))
        client = Client(reactor, clientFromString(reactor, endpoint), results, 0.5, lambda intervals: None)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the verdict says which
            await client.run()

    said, code = verdict(caught.value)
    assert code == exit_code, said
    assert words in said
    assert said.isprintable()
    assert len(said) < 400


def test_what_a_server_says_does_nothing_to_a_terminal() -> None:
    """A refusal is one line without control characters."""
    answer, exit_code, words = SERVERS["a refusal"]
    with answering(answer) as endpoint:
        done = run("perf", "-c", endpoint)

    assert (done.returncode, done.stdout) == (exit_code, "")
    assert words in done.stderr
    assert done.stderr.rstrip("\n").isprintable()


# Pictures and screens


def test_a_plot_of_a_test_and_of_its_json(server: Running, tmp_path: Path) -> None:
    """``--plot`` writes the same SVG as ``--from`` makes of what ``-J`` printed."""
    pytest.importorskip("matplotlib")
    drawn, again, told = tmp_path / "drawn.svg", tmp_path / "again.svg", tmp_path / "told.json"
    done = run("perf", "-c", HOST, "-p", server.port(), "-t", "400ms", "-i", "100ms", "-J", "--plot", str(drawn))
    assert (done.returncode, done.stderr) == (0, "")
    told.write_text(done.stdout, encoding="utf-8")

    assert CliRunner().invoke(main, ["perf", "--plot", str(again), "--from", str(told)]).exit_code == 0

    assert drawn.read_bytes() == again.read_bytes()
    assert ElementTree.parse(drawn).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_a_plot_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sentence says how to get it; so it does for a file that is no document."""
    document = tmp_path / "told.json"
    document.write_text("no JSON")
    words = ["perf", "--plot", str(tmp_path / "x.svg"), "--from", str(document)]
    assert "is no JSON document" in CliRunner().invoke(main, words).output
    document.write_text("{}")
    assert "no intervals" in CliRunner().invoke(main, words).output

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = CliRunner().invoke(main, words)

    assert (done.exit_code, 'pip install "txutp[plot]"' in done.output) == (2, True)


class Terminal:
    """A command on a terminal in memory."""

    def __init__(self, columns: int, *arguments: str) -> None:
        self.screen = pyte.Screen(columns, 50)
        self._stream = pyte.ByteStream(self.screen)
        self._ours, its = pty.openpty()
        its_environment = environment() | {"TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": "50"}
        self.process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env=its_environment, stdin=its, stdout=its, stderr=its
        )
        os.close(its)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without what is empty."""
        return [line.rstrip() for line in self.screen.display if line.strip()]

    def watch(self, until: Callable[[], bool]) -> None:
        """Look at it until something is to be seen, or the command has ended."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not until():
            assert time.monotonic() < deadline, self.lines
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self._stream.feed(os.read(self._ours, 65_536))
                except OSError:  # all of it has been read
                    return
            elif self.process.poll() is not None:
                return

    def interrupt(self) -> None:
        """Press Ctrl-C: the terminal shows that, and the command gets the signal."""
        os.write(self._ours, b"\x03")
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Look at it to the end; returns the exit code."""
        self.watch(lambda: False)
        return self.process.wait(TIMEOUT_SECONDS)


def ends_of(line: str) -> list[int]:
    """The columns in which words end."""
    return [match.end() for match in re.finditer(r"\S+", line)]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_screen(server: Running, columns: int) -> None:
    """Numbers stand below their headers, and nothing is cut or wrapped."""
    with Terminal(columns, "perf", "-c", HOST, "-p", server.port(), "-t", "600ms", "-i", "200ms") as terminal:
        assert terminal.end() == 0
        first, header, *rest = terminal.lines

    assert first == f"Connected to {HOST}:{server.port()}."
    totals = rest.index(next(line for line in rest if line.startswith("client to server")))
    assert totals >= 2
    for line in rest[:totals]:
        assert ends_of(line) == ends_of(header)
        assert line.split()[-1].endswith("s")
    sender, receiver, means = rest[totals + 1 :]
    assert ends_of(sender)[1:] == ends_of(rest[totals])[3:]
    assert ends_of(receiver)[1:] == ends_of(rest[totals])[3:-1]
    assert re.fullmatch(r"mean: rtt \S+s queue \S+s back \S+s", means)


@pytest.mark.parametrize("columns", [40, 80])
def test_a_live_screen(server: Running, columns: int) -> None:
    """It is redrawn in place; Ctrl-C leaves the totals and the last words, and nothing else."""
    with Terminal(
        columns, "perf", "-c", HOST, "-p", server.port(), "-t", "1min", "-i", "200ms", "-b", "8M", "--live"
    ) as terminal:
        terminal.watch(lambda: sum("goodput" in line for line in terminal.lines) == 1 and len(terminal.lines) > 8)
        live = terminal.lines
        terminal.interrupt()
        assert terminal.end() == EXIT_INTERRUPTED
        left = terminal.lines

    assert sum("queue" in line for line in live) == 2
    assert [line.split()[0] for line in left if "^C" not in line] == ["client", "sender", "receiver", "mean:", "txutp:"]
    assert left[-1] == "txutp: Interrupted."


# Wrong usage


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Say either `txutp perf -s` or `txutp perf -c HOST`"),
        (["-s", "-c", HOST], "Say either"),
        (["-s", "5201"], "a port goes behind -p"),
        (["-c", HOST, "utp:5201"], "The server's endpoint goes behind -c"),
        (["-c", HOST, "-4", "-6"], "-4 and -6 exclude each other"),
        (["-s", "utp:0", "-6"], "-6 does not go with an endpoint string"),
        (["-c", f"utp:{HOST}:1", "-p", "1"], "-p does not go with an endpoint string"),
        (["-s", "utp:0", "-C", "ledbat"], "With a server's endpoint string"),
        (["-c", HOST, "-1"], "-1 goes with -s"),
        (["-c", HOST, "-p", "0"], "A client needs the port"),
        (["-c", HOST, "-R", "--bidir"], "exclude each other"),
        (["-c", HOST, "-J", "--json-stream"], "exclude each other"),
        (["-c", HOST, "-J", "--live"], "--live is for a client that prints no JSON"),
        (["-s", "-t", "5s"], "the server takes part"),
        (["-c", HOST, "-n", "1M", "-t", "5s"], "-n says when the test ends"),
        (["-c", HOST, "-n", "1M", "--compare", "tcp"], "--compare goes by time"),
        (["-c", f"utp:{HOST}:1", "--compare", "tcp"], "--compare needs a host"),
        (["-c", HOST, "-i", "1ms"], "-i is at least 100ms"),
        (["-c", HOST, "-l", "1G"], "-l is at most"),
        (["-c", HOST, "-b", "much"], "write it like 500, 64K or 10M"),
        (["-c", HOST, "-t", "soon"], "write it like 250ms, 5s or 2min"),
        (["-c", HOST, "-P", "1000"], "is not in the range"),
        (["-c", HOST, "-C", "cubic"], "is not one of"),
        (["-c", HOST, "--target", "2s"], "--target: "),
        (["-c", HOST, "-t", "1000h"], "at most 168 hours"),
        (["--from", __file__], "--from goes with --plot"),
    ],
)
def test_wrong_usage_is_answered_with_what_is_right(arguments: list[str], words: str) -> None:
    """Exit code 2, and a sentence, before anything is opened."""
    done = CliRunner().invoke(main, ["perf", *arguments])

    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.replace("│", " ").split())
