"""``twist utp-forward`` and ``twist utp-workers``: services of Twisted's own command, on real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.python.usage import UsageError

from tests.cli.support import TIMEOUT_SECONDS
from tests.cli.test_forward import connection, received
from tests.project.test_examples import ROOT, Program, running, says
from tests.project.test_readme import free_port
from txutp.cli import tap as forwarder
from txutp.workers import tap as several
from txutp.workers import why_no_steering

HOST = "127.0.0.1"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="services are ended as POSIX systems do it")
steered = pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port."""
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(TIMEOUT_SECONDS)
        yield server


def fetched(port: str, place: Path) -> str:
    """Returns the page that a web server has over uTP."""
    [line] = says(f"{sys.executable} {ROOT / 'examples' / 'fetch.py'} http://{HOST}:{port}/page.html", place)
    return line


def test_a_forwarder_carries_and_lets_open_streams_end(listener: socket.socket, tmp_path: Path) -> None:
    """Between two of them, uTP; when one is told to stop, its open stream still goes on to its end."""
    port, number = str(free_port()), listener.getsockname()[1]
    with running(f"twist utp-forward --grace 1min utp:{port}:interface={HOST} tcp:{HOST}:{number}", tmp_path) as it:
        it.until("Forwarding utp:")
        with (
            running(f"twist utp-forward tcp:0:interface={HOST} utp:{HOST}:{port}", tmp_path) as here,
            connection(int(here.until(r"starting on (\d+)")[1])) as client,
        ):
            client.sendall(b"question")
            served, _ = listener.accept()
            with served:
                assert served.recv(100) == b"question"
                it.process.send_signal(signal.SIGTERM)
                it.until("shutting down")
                served.sendall(b"answer" * 10_000)
                served.shutdown(socket.SHUT_WR)
                assert received(client) == b"answer" * 10_000
                client.close()
                it.process.wait(TIMEOUT_SECONDS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("utp:1", "Two endpoint strings are needed"),
        ("utp:x tcp:localhost:1", "'utp:x' cannot be used here: a port is a number"),
        ("utp:1 nothing:1", "'nothing:1' cannot be used here: Unknown endpoint type"),
        ("--max-connections 0 utp:1 tcp:localhost:1", "a number from 1 on, not '0'"),
        ("--grace soon utp:1 tcp:localhost:1", "'soon' is not a time"),
    ],
)
def test_wrong_words_for_a_forwarder_are_told(words: str, sentence: str) -> None:
    """As ``twist`` and ``twistd`` expect it."""
    with pytest.raises(UsageError, match=re.escape(sentence)):
        forwarder.Options().parseOptions(words.split())


def pids_of(service: Program) -> list[int]:
    """Asks the parent for the processes of its workers."""
    service.process.send_signal(signal.SIGUSR1)
    pids: list[int] = json.loads(service.until(r"(\{\"workers\".*\})$")[1])["workers"]
    return pids


@steered
def test_a_web_server(tmp_path: Path) -> None:
    """The port is named once; a worker that is killed comes again; new workers take over at SIGHUP."""
    port = str(free_port())
    (tmp_path / "page.html").write_text("served by several")
    command = f"twist --log-format=text utp-workers --workers 2 web --listen utp:{port}:interface={HOST} --path ."
    with running(command, tmp_path) as service:
        service.until(f"2 workers on {HOST}:{port}")
        assert fetched(port, tmp_path) == "served by several"
        first = pids_of(service)
        assert len(first) == 2
        os.kill(first[1], signal.SIGKILL)
        service.until("worker 1 has ended")
        service.until("Starting reactor")
        service.process.send_signal(signal.SIGHUP)
        service.until("Restarted: 2 workers")
        assert not set(first) & set(pids_of(service))
        assert fetched(port, tmp_path) == "served by several"
        service.process.send_signal(signal.SIGTERM)
        service.process.wait(TIMEOUT_SECONDS)


@steered
def test_any_service_in_any_of_them(listener: socket.socket, tmp_path: Path) -> None:
    """``utp-forward`` with a limit that is divided: two connections of one worker each, or one waits."""
    port, number = str(free_port()), listener.getsockname()[1]
    command = f"utp-workers -w 2 utp-forward --max-connections 3 utp:{port}:interface={HOST} tcp:{HOST}:{number}"
    with running(f"twist {command}", tmp_path) as service:
        service.until(f"2 workers on {HOST}:{port}")
        with running(f"twist utp-forward tcp:0:interface={HOST} utp:{HOST}:{port}", tmp_path) as here:
            behind = int(here.until(r"starting on (\d+)")[1])
            clients = [connection(behind) for _ in range(24)]
            served = [listener.accept()[0] for _ in range(3)]
            listener.settimeout(0.5)
            with pytest.raises(TimeoutError):
                listener.accept()
            for each in (*clients, *served):
                each.close()


@steered
def test_a_daemon(tmp_path: Path) -> None:
    """``twistd`` becomes a daemon first; its workers log beside it, and end with it."""
    port = str(free_port())
    (tmp_path / "page.html").write_text("served by a daemon")
    says(f"twistd utp-workers --workers 2 web --listen utp:{port}:interface={HOST} --path .", tmp_path)
    log, deadline = tmp_path / "twistd.log", time.monotonic() + TIMEOUT_SECONDS
    while not log.exists() or "2 workers on" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    daemon = int((tmp_path / "twistd.pid").read_text())
    try:
        assert fetched(port, tmp_path) == "served by a daemon"
        assert "GET /page.html" in (tmp_path / "twistd.log.workers").read_text()
    finally:
        os.kill(daemon, signal.SIGTERM)
    while (tmp_path / "twistd.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert len(re.findall("Main loop terminated", (tmp_path / "twistd.log.workers").read_text())) == 2


@steered
def test_without_a_worker_that_listens_it_ends(tmp_path: Path) -> None:
    """The words for the service are wrong: it says so, and what it means for us is said, too."""
    command = f"twist --log-format=text utp-workers -w 2 --listen utp:{free_port()} web --nothing"
    with running(command, tmp_path) as service:
        said = "\n".join(service.end())
    assert "option --nothing not recognized" in said
    assert "ended before it listened" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("", "Which service?"),
        ("web", "Which port do the workers share?"),
        ("web --listen utp:example.org:80", "Which port do the workers share?"),
        ("--listen tcp:1 web", "written utp:PORT, and not 'tcp:1'"),
        ("--workers 0 web --listen utp:1", "the number of workers is from 1 to 256"),
        ("--workers many web --listen=utp:1", "invalid literal"),
    ],
)
def test_wrong_words_for_workers_are_told(words: str, sentence: str) -> None:
    """As ``twist`` and ``twistd`` expect it."""
    with pytest.raises(UsageError, match=re.escape(sentence)):
        several.Options().parseOptions(words.split())
