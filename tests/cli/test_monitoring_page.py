"""``docs/howto/monitoring.md``: its programs and commands run, its screen looks so, its tables are complete."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.threads import deferToThread

from tests.cli.support import ROOT, command, environment, run
from tests.project.test_readme import free_port
from tests.support import until
from txutp.cli import top as top_command
from txutp.monitoring.figures import monitor_of
from txutp.monitoring.metrics import CONNECTION_COUNTERS, CONNECTION_GAUGES, COUNTERS, prometheus_text
from txutp.testing import Network

PAGE = (ROOT / "docs" / "howto" / "monitoring.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
LIVE, JSON = (text.strip() for language, text in BLOCKS if language == "sh")
ECHO, SERVICE, METRICS = (text for language, text in BLOCKS if language == "python")
[SCREEN] = (text for language, text in BLOCKS if language == "text")


@contextmanager
def running(words: list[str], place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program while a block does."""
    process = subprocess.Popen(words, cwd=place, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def output(line: str, place: Path, *more: str) -> str:
    """Run a command of the page to its end."""
    words = command(*shlex.split(line)[1:], *more)
    variables = environment() | {"COLUMNS": "80"}
    return subprocess.run(
        words, cwd=place, env=variables, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest_twisted.ensureDeferred
async def test_the_program_shows_its_connections(tmp_path: Path) -> None:
    """The first program runs beside both commands; the table has the headings that the page shows."""
    number = free_port()
    (tmp_path / "echo.py").write_text(ECHO.replace("6881", str(number)), encoding="utf-8")
    with running([sys.executable, "echo.py"], tmp_path):
        await until((tmp_path / "echo.sock").exists, 60)
        echo = Echoed()
        await connectProtocol(clientFromString(reactor, f"utp:127.0.0.1:{number}"), echo)
        echo.transport.write(b"hello")
        await until(lambda: echo.received == b"hello", 60)
        shown = await deferToThread(output, LIVE, tmp_path, "--once")
        document = json.loads(await deferToThread(output, JSON, tmp_path))
        echo.transport.abortConnection()

    headline, headings, line = shown.splitlines()
    shown_headline, shown_headings, *_ = SCREEN.splitlines()
    assert headings.split() == shown_headings.split()
    assert re.sub(r"\d+|-", "", headline.split(";")[1]) == re.sub(r"\d+|-", "", shown_headline.split(";")[1])
    assert line.split()[1] == "up"
    assert all(len(each) <= 80 for each in SCREEN.splitlines())
    [connection] = document["connections"]
    assert (connection["port"], connection["bytes_received"]) == (f"127.0.0.1:{number}", 5)


class Echoed(Protocol):
    def __init__(self) -> None:
        self.received = b""

    def dataReceived(self, data: bytes) -> None:
        self.received += data


@pytest_twisted.ensureDeferred
async def test_the_service_runs_under_twistd(tmp_path: Path) -> None:
    """It opens the socket, and removes it when it is told to stop."""
    (tmp_path / "echo.tac").write_text(SERVICE, encoding="utf-8")
    words = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-noy", "echo.tac"]
    with running(words, tmp_path) as service:
        await until((tmp_path / "echo.sock").exists, 60)
        assert json.loads(await deferToThread(output, JSON, tmp_path))["connections"] == []
        service.terminate()
        await until(lambda: service.poll() is not None, 60)
    assert not (tmp_path / "echo.sock").exists()


@pytest_twisted.ensureDeferred
async def test_the_metrics_are_served() -> None:
    """By the third program, to an HTTP client."""
    number = free_port()
    ports: list[Any] = []

    class Reactor:
        """Ours, with a memory of what it listens on."""

        def listenTCP(self, *arguments: Any, **options: Any) -> None:
            ports.append(reactor.listenTCP(*arguments, **options))

    exec(METRICS.replace("9100", str(number)), {"reactor": Reactor()})
    address = f"http://127.0.0.1:{number}/metrics"
    text = await deferToThread(lambda: urllib.request.urlopen(address, timeout=60).read().decode())
    await ports[0].stopListening()

    assert "# TYPE txutp_datagrams_received_total counter" in text


def test_the_tables_have_every_metric_and_option() -> None:
    """And none that there is not."""
    described = set(re.findall(r"^\| `(txutp_\w+)` \|", PAGE, re.MULTILINE))
    real = {f"txutp_{name}_total" for name, _ in COUNTERS.values()}
    real |= {f"txutp_connection_{name}" for name, _, _ in CONNECTION_GAUGES.values()}
    real |= {f"txutp_connection_{name}_total" for name, _ in CONNECTION_COUNTERS.values()}
    text = prometheus_text(monitor_of(Network().reactor("10.0.0.1")), {}, True)
    served = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE))

    assert described == served
    assert real < served
    options = {name for parameter in top_command.params for name in parameter.opts if name.startswith("-")}
    table = " ".join(re.findall(r"^\| (`-[^|]*) \|", PAGE, re.MULTILINE))
    assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", table)) == options
    assert run("top", "--help").returncode == 0
