"""Each example does what its first lines say, as a program of its own."""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
HOST = "127.0.0.1"
TIMEOUT_SECONDS = 30
LISTEN = f"utp:0:interface={HOST}"

pytestmark = pytest.mark.slow


class Program:
    """A running example, whose lines can be waited for."""

    def __init__(self, *command: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **environment},
        )
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, pattern: str) -> re.Match[str]:
        """The next line that has this."""
        while True:
            line = self._lines.get(timeout=TIMEOUT_SECONDS)
            assert line is not None, f"ended without {pattern}: {self.said}"
            self.said.append(line)
            match = re.search(pattern, line)
            if match:
                return match

    def end(self) -> list[str]:
        """Everything that it says until it ends by itself."""
        while (line := self._lines.get(timeout=TIMEOUT_SECONDS)) is not None:
            self.said.append(line)
        assert self.process.wait(TIMEOUT_SECONDS) == 0, self.said
        return self.said


@contextmanager
def running(*command: object, **environment: str) -> Iterator[Program]:
    """An example that is ended afterwards."""
    program = Program(*command, **environment)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@contextmanager
def serving(name: str, *arguments: str) -> Iterator[str]:
    """An example that listens; gives its port."""
    with running(EXAMPLES / name, "serve", LISTEN, *arguments) as server:
        yield server.until(r"port (\d+)")[1]


def says(name: str, *arguments: str) -> list[str]:
    """What an example says from its beginning to its end."""
    with running(EXAMPLES / name, *arguments) as program:
        return program.end()


def test_amp() -> None:
    with serving("amp.py") as port:
        assert says("amp.py", "add", f"utp:{HOST}:{port}", "2", "40") == ["2 + 40 = 42"]


def test_perspective_broker() -> None:
    with serving("perspective_broker.py") as port:
        assert says("perspective_broker.py", "ask", f"utp:{HOST}:{port}", "Twisted") == ["Hello, Twisted!"]


@pytest.mark.skipif(importlib.util.find_spec("bcrypt") is None, reason="Conch needs bcrypt: pip install Twisted[conch]")
def test_ssh() -> None:
    with serving("ssh.py", "geheim") as port:
        said = says("ssh.py", "say", f"{HOST}:{port}", "geheim", "some words")
    assert said[-1] == "you said: some words"


def test_tls(tmp_path: Path) -> None:
    certificate = str(tmp_path / "certificate.pem")
    with serving("tls.py", certificate) as port:
        assert says("tls.py", "ask", f"utp:{HOST}:{port}", certificate) == ["a secret came back through TLS"]


def test_chat_with_half_close() -> None:
    """Who has said everything hears what is said later, and the goodbye."""
    with serving("chat.py") as port, running(EXAMPLES / "chat.py", "join", f"utp:{HOST}:{port}", "Ann") as listener:
        # Ann has nothing to say; Bob may come before or behind her, so only the end is certain
        heard = says("chat.py", "join", f"utp:{HOST}:{port}", "Bob", "good morning", "anybody?")
        assert heard[-1] == "goodbye"
        assert listener.end()[-1] == "goodbye"


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
def test_service(tmp_path: Path, reactor: str) -> None:
    """twistd runs it, the echo client talks to it, and twistd's shutdown is clean."""
    options = [] if reactor == "default" else [f"--reactor={reactor}"]
    twistd = [
        *("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", f"--pidfile={tmp_path / 'pid'}"),
        *(*options, f"--python={EXAMPLES / 'service.tac'}"),
    ]
    with running(*twistd, PORT="0", INTERFACE=HOST) as service:
        port = service.until(r"UTPPort.* on (\d+)|starting on (\d+)|listening on (\d+)").group(0).rpartition(" ")[2]
        client = tmp_path / "client.py"
        client.write_text((EXAMPLES / "echo_client.py").read_text().replace("6881", port))
        with running(client) as said:
            assert said.end() == ["Hello over uTP!"]
        service.process.terminate()
        service.until("Server Shut Down")


SERVER = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver
from txutp import listenUTP

class Speaker(LineOnlyReceiver):
    def connectionMade(self):
        self.sendLine(sys.argv[2].encode())

print("port", listenUTP(reactor, int(sys.argv[1]), Factory.forProtocol(Speaker), interface="127.0.0.1").getHost().port)
reactor.run()
"""


def test_reconnect(tmp_path: Path) -> None:
    """The server ends and comes back; the client hears both."""
    server = tmp_path / "server.py"
    server.write_text(SERVER)
    with running(server, 0, "first") as first:
        port = first.until(r"port (\d+)")[1]
        with running(EXAMPLES / "reconnect.py", f"utp:{HOST}:{port}") as client:
            client.until("heard first")
            first.process.terminate()
            client.until("lost")
            with running(server, port, "second"):
                client.until("heard second")
