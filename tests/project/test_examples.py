"""The examples do what ``docs/howto/examples.md`` says of them: each command runs, on free ports."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import os
import queue
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "examples"
HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
REACTORS = ["default", "asyncio"]
ROWS = re.findall(
    r"^\| (`.*?`) \| .* \| (.*) \|$",
    (ROOT / "docs" / "howto" / "examples.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="programs are ended as POSIX systems do it"),
]


def commands(name: str, port: str = "6881") -> list[str]:
    """How to run an example, servers first; who connects finds them on this port."""
    [cell] = [cell for names, cell in ROWS if f"`{name}`" in names]
    found = re.findall("`(.*?)`", cell)
    assert found, name
    # A server may have any port.
    return [command.replace("utp:6881:", "utp:0:").replace("6881", port) for command in found]


class Program:
    """A running command, whose lines can be waited for."""

    def __init__(self, command: str, place: Path, terminal: bool = False, **environment: str) -> None:
        # What Python prints into a pipe would wait there otherwise.
        changes = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ours, its = os.openpty() if terminal else os.pipe()
        self.command = command
        self.process = subprocess.Popen(
            shlex.split(command),
            cwd=place,
            env={**os.environ, "PATH": path, **changes},
            stdin=subprocess.DEVNULL,
            stdout=its,
            stderr=its,
        )
        os.close(its)
        self.said: list[str] = []
        self._deadline = time.monotonic() + TIMEOUT_SECONDS
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, args=[ours], daemon=True).start()

    def _read(self, ours: int) -> None:
        # On Linux a terminal ends with an error.
        with open(ours, errors="replace") as output, contextlib.suppress(OSError):
            for line in output:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self) -> str | None:
        """The next line, None at the end; a program that takes too long fails the test."""
        try:
            line = self._lines.get(timeout=max(0.0, self._deadline - time.monotonic()))
        except queue.Empty:
            pytest.fail(f"{self.command} takes too long. It said {self.said}")
        if line is not None:
            self.said.append(line)
        return line

    def until(self, pattern: str) -> re.Match[str]:
        """The next line that has this."""
        while (line := self.line()) is not None:
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"{self.command} ended without {pattern!r}. It said {self.said}")

    def port(self) -> str:
        """The port that it listens on, told in its next lines."""
        return self.until(r"(?:port|starting on) (\d+)")[1]

    def end(self, status: int = 0) -> list[str]:
        """Everything that it says until it ends by itself."""
        while self.line() is not None:
            pass
        assert self.process.wait(TIMEOUT_SECONDS) == status, self.said
        return self.said


@contextmanager
def running(command: str, place: Path, **options: str | bool) -> Iterator[Program]:
    """A program that is ended afterwards."""
    program = Program(command, place, **options)  # type: ignore[arg-type]
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


def says(command: str, place: Path) -> list[str]:
    """What a program says from its beginning to its good end."""
    with running(command, place) as program:
        return program.end()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that looks like the checkout to commands, and may be written to."""
    for name in ("README.md", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_all_are_listed() -> None:
    """The list has all examples and no other ones, and each command in it has a test here."""
    listed = [name for names, _ in ROWS for name in re.findall("`(.*?)`", names)]
    tests = Path(__file__).read_text(encoding="utf-8")

    # What examples share is none.
    shared = {"bittorrent.py"}
    assert sorted(listed) == sorted({path.name for path in EXAMPLES.iterdir() if path.is_file()} - shared)
    for names, cell in ROWS:
        assert "`" not in cell or f'commands("{names.strip("`")}"' in tests


def on(reactor: str, command: str) -> str:
    """The same command on another reactor."""
    program, rest = command.split(" ", 1)
    return command if reactor == "default" else f"{program} --reactor={reactor} {rest}"


@pytest.mark.parametrize("reactor", REACTORS)
def test_web(place: Path, reactor: str) -> None:
    """Twisted's own web server serves a file over uTP."""
    with running(on(reactor, commands("fetch.py")[0]), place) as server:
        [_, fetch] = commands("fetch.py", server.port())
        with running(fetch, place) as client:
            assert client.end() == (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
        with running(fetch.replace("README", "nothing"), place) as client:
            assert "404" in client.end(status=1)[-1]


@pytest.mark.skipif(importlib.util.find_spec("bcrypt") is None, reason="Conch needs bcrypt: pip install Twisted[conch]")
def test_ssh(place: Path) -> None:
    """A command runs over SSH."""
    with running(commands("ssh.py")[0], place) as server:
        [_, say] = commands("ssh.py", server.port())
        assert says(say, place)[-1] == "you said: some words"


def test_amp(place: Path) -> None:
    """A remote procedure is called."""
    with running(commands("amp.py")[0], place) as server:
        [_, add] = commands("amp.py", server.port())
        assert says(add, place) == ["2 + 40 = 42"]


def test_perspective_broker(place: Path) -> None:
    """A method of a remote object is called."""
    with running(commands("perspective_broker.py")[0], place) as server:
        [_, ask] = commands("perspective_broker.py", server.port())
        assert says(ask, place) == ["Hello, Twisted!"]


@pytest.mark.parametrize("reactor", REACTORS)
def test_service(place: Path, reactor: str) -> None:
    """A service of twistd serves, and ends cleanly when it is told to."""
    [twistd, client] = commands("service.tac")
    with running(on(reactor, twistd), place, PORT="0", INTERFACE=HOST) as service:
        port = service.port()
        # The echo client has its port in its text.
        copy = place / "echo_client.py"
        copy.write_text((EXAMPLES / "echo_client.py").read_text().replace("6881", port))
        assert says(client.replace("examples/", ""), place) == ["Hello over uTP!"]

        service.process.terminate()
        # twistd cleans up, and passes on what ended it
        assert "Server Shut Down." in service.end(status=-signal.SIGTERM)[-1]


def test_reconnect(place: Path) -> None:
    """The server ends and comes back, and so does the client."""
    with running(commands("reconnect.py")[0], place) as first:
        port = first.port()
        [serve, connect, join] = commands("reconnect.py", port)
        with running(connect, place) as client:
            client.until("connected")
            # A server says nothing to those that it does not know yet when it ends.
            first.until("1 here")
            first.process.terminate()
            client.until("lost")
            with running(serve.replace("utp:0:", f"utp:{port}:"), place) as second:
                client.until("connected")
                second.until("1 here")
                with running(join, place):
                    client.until("heard Ann: hello")


def test_tls(place: Path) -> None:
    """What is encrypted comes back, but only from who has the right name and certificate."""
    with running(commands("tls.py")[0], place) as server:
        [_, ask] = commands("tls.py", server.port())
        assert says(ask, place) == ["a secret came back through TLS"]
        with running(ask.replace("localhost", "example.org"), place) as client:
            assert "DNSMismatch" in "".join(client.end(status=1))
        with running(ask.replace("trustRoots=certificates:", ""), place) as client:
            assert "certificate verify failed" in "".join(client.end(status=1))


def test_chat(place: Path) -> None:
    """Who has said everything hears what is said later, and the goodbye."""
    with running(commands("chat.py")[0], place) as server:
        [_, ann, bob] = commands("chat.py", server.port())
        with running(ann, place) as listener:
            server.until("1 here")
            assert says(bob, place) == ["goodbye"]
            assert listener.end() == ["Bob: good morning", "Bob: anybody?", "goodbye"]


@pytest.mark.skipif(importlib.util.find_spec("bencode2") is None, reason="needs bencode2")
def test_ut_holepunch(place: Path) -> None:
    """Two peers that know the relay alone meet."""
    with running(commands("ut_holepunch.py", "0")[0], place) as relay:
        [_, first, second] = commands("ut_holepunch.py", relay.port())
        with running(first.rpartition(" ")[0] + " 0", place) as one:
            one_id = one.until(r"relay as (\S+)")[1]
            relay.until(one_id)
            with running(second.rpartition(" ")[0] + " 0", place) as other:
                other_id = other.until(r"relay as (\S+)")[1]
                one.until(f"met {other_id}")
                other.until(f"met {one_id}")


@pytest.mark.parametrize("terminal", [False, True], ids=["pipe", "terminal"])
def test_copy_file(place: Path, terminal: bool) -> None:
    """A file arrives whole, and a terminal shows how that goes."""
    content = random.Random(1).randbytes(10_000_000)
    (place / "debian.iso").write_bytes(content)

    with running(commands("copy_file.py")[0], place) as receiver:
        [_, send] = commands("copy_file.py", receiver.port())
        with running(send, place, terminal=terminal) as sender:
            sender.end()
        receiver.end()

    assert hashlib.sha256((place / "copy.iso").read_bytes()).digest() == hashlib.sha256(content).digest()
    assert receiver.said[-1] == "copy.iso: 10000000 bytes have come."
    assert sender.said[-1].startswith("debian.iso: 10000000 bytes have arrived")
    bar = re.search(r"100%  rtt \d+\.\d ms, cwnd \d+ KiB, queue \d+\.\d ms", "\n".join(sender.said))
    assert bool(bar) is terminal


def test_punch(place: Path) -> None:
    """The first peer outlives the closed port of the second; then both keep the same one of two connections."""
    ports = []
    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((HOST, 0))
            ports.append(str(probe.getsockname()[1]))
    calls = [
        command.replace("6881", "first").replace("6882", ports[1]).replace("first", ports[0])
        for command in commands("punch.py")
    ]

    with running(calls[0], place) as first:
        time.sleep(1)
        assert first.process.poll() is None
        with running(calls[1], place) as second:
            stays = [program.until(r"stays, by (our|its) call")[1] for program in (first, second)]
            assert sorted(stays) == ["its", "our"]
            second.process.send_signal(signal.SIGINT)
            first.until("has gone")
    assert not any("gone" in line for line in first.said[:-1])


def test_node_style_echo(place: Path) -> None:
    """An echo in the manner of Node.js."""
    [command] = commands("node_style_echo.py")

    assert says(command, place) == ["echo: Hello over uTP!", "server closed"]


# -- started wrongly --

# Those that need words on the command line; the others are complete as they are, or are parts of these.
WITH_WORDS = sorted(path.name for path in EXAMPLES.glob("*.py") if "sys.argv" in path.read_text(encoding="utf-8"))

RUN_ALL = """
import contextlib, io, runpy, sys
sys.path.insert(0, "examples")
for hidden in {hidden!r}:
    sys.modules[hidden] = None
for name in {names!r}:
    sys.argv = [name, *{words!r}]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_path(f"examples/{{name}}", run_name="__main__")
            end = "it ran"
        except SystemExit as exit:
            end = exit.code
        except BaseException as problem:
            end = repr(problem)
    print(name, repr(end), sep="\\t")
"""


def ends_of(names: list[str], hidden: list[str], words: list[str]) -> dict[str, object]:
    """How each example ends with these words, in one process, where some packages are missing."""
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL.format(names=names, hidden=hidden, words=words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    return {name: ast.literal_eval(end) for name, end in lines}


@pytest.mark.parametrize("words", [[], ["serve"], ["nonsense"], ["-h"]])
def test_an_example_with_words_missing_says_how_it_is_run(words: list[str]) -> None:
    pytest.importorskip("bencode2")
    pytest.importorskip("twisted.conch.ssh.keys")
    ends = ends_of([name for name in WITH_WORDS if words == [] or name not in TAKES_ONE_WORD], [], words)
    assert len(ends) > 8
    for name, end in ends.items():
        assert f"python examples/{name} " in str(end), name


# A string that is none is told by Twisted, and a name that is none by the network.
TAKES_ONE_WORD = {"fetch.py", "reconnect.py"}


@pytest.mark.parametrize(
    ("package", "names"),
    [
        ("cryptography", ["ssh.py", "tls.py"]),
        ("bencode2", ["dht_seeder.py", "leecher.py", "seeder.py"]),
    ],
)
def test_an_example_without_its_packages_says_how_to_get_them(package: str, names: list[str]) -> None:
    ends = ends_of(names, [package], [])
    assert sorted(ends) == names
    for end in ends.values():
        assert re.fullmatch(
            rf'This example needs {package}[\w.]*\. Please run: pip install "txutp\[examples\]"', str(end)
        )
