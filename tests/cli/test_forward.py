"""``txutp forward``: connections of one kind carried over another one."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.cli import support
from tests.cli.support import TIMEOUT_SECONDS, Running
from txutp.cli.output import EXIT_INTERRUPTED, EXIT_UNCONNECTED
from txutp.workers import why_no_steering

steered = pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())


@contextmanager
def chain(place: Path, port: int, *options: str) -> Iterator[tuple[int, Running, Running]]:
    """TCP to uTP to TCP, as between two hosts; yields the port to connect to, and both commands."""
    with Running(place, "forward", "utp:0:interface=127.0.0.1", f"tcp:127.0.0.1:{port}", *options) as there:
        destination = f"utp:127.0.0.1:{there.port()}"
        with Running(place, "forward", "tcp:0:interface=127.0.0.1", destination, *options) as here:
            yield int(here.port()), here, there


def connection(port: int) -> socket.socket:
    """Returns a TCP connection with a time-out."""
    return socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS)


def received(stream: socket.socket) -> bytes:
    """Returns everything up to the end."""
    parts = []
    while part := stream.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A TCP port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT_SECONDS)
        yield server


def test_bytes_half_close_and_end_are_carried(listener: socket.socket, tmp_path: Path) -> None:
    """The server reads up to the client's end, then answers with megabytes: each direction has its own end."""
    question, answer = (random.Random(seed).randbytes(6_000_000) for seed in (1, 2))
    heard: list[bytes] = []

    def serve() -> None:
        stream, _ = listener.accept()
        with stream:
            stream.settimeout(TIMEOUT_SECONDS)
            heard.append(received(stream))
            stream.sendall(answer)

    serving = threading.Thread(target=serve)
    serving.start()
    with chain(tmp_path, listener.getsockname()[1]) as (port, _, _), connection(port) as client:
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
        got = received(client)
        serving.join(TIMEOUT_SECONDS)

    assert [hashlib.sha256(part).hexdigest() for part in (got, heard[0])] == [
        hashlib.sha256(part).hexdigest() for part in (answer, question)
    ]


def test_a_reset_is_carried(listener: socket.socket, tmp_path: Path) -> None:
    """A stream that breaks on one side is not an orderly end on the other one."""
    with chain(tmp_path, listener.getsockname()[1]) as (port, here, _), connection(port) as client:
        client.sendall(b"x")
        server, _ = listener.accept()
        assert server.recv(1) == b"x"
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()

        with pytest.raises(ConnectionResetError):
            client.recv(1)
        here.wait_for("The connection from 127.0.0.1:.* broke: ")


def test_a_destination_that_refuses_is_told(tmp_path: Path) -> None:
    """The client's connection is reset, and a sentence says why."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Running(tmp_path, "forward", "tcp:0:interface=127.0.0.1", f"tcp:127.0.0.1:{port}") as forward:
        with connection(int(forward.port())) as client, pytest.raises(ConnectionResetError):
            client.recv(1)
        forward.wait_for("Could not connect to the destination: .*refused")


def test_a_slow_reader_is_not_buffered_for(listener: socket.socket, tmp_path: Path) -> None:
    """A server that does not read stops the client after what kernels and windows hold, not after memory."""
    with chain(tmp_path, listener.getsockname()[1]) as (port, _, _), connection(port) as client:
        client.settimeout(2)
        written = 0
        with suppress(TimeoutError):
            while written < 1 << 30:
                written += client.send(bytes(1 << 16))
        server, _ = listener.accept()
        with server:
            client.shutdown(socket.SHUT_WR)
            server.settimeout(TIMEOUT_SECONDS)
            assert len(received(server)) == written

    assert written < 64 << 20


def test_a_limit_makes_later_connections_wait(listener: socket.socket, tmp_path: Path) -> None:
    """The second one is carried when the first has ended."""
    with Running(
        tmp_path,
        "forward",
        "tcp:0:interface=127.0.0.1",
        f"tcp:127.0.0.1:{listener.getsockname()[1]}",
        "--max-connections",
        "1",
    ) as forward:
        port = int(forward.port())
        with connection(port) as first:
            first.sendall(b"1")
            served, _ = listener.accept()
            assert served.recv(1) == b"1"
            with connection(port) as second:
                second.sendall(b"2")
                listener.settimeout(0.5)
                with pytest.raises(TimeoutError):
                    listener.accept()
                listener.settimeout(TIMEOUT_SECONDS)
                served.close()
                first.close()
                served, _ = listener.accept()
                with served:
                    assert served.recv(1) == b"2"


def test_an_interrupt_lets_open_streams_end(listener: socket.socket, tmp_path: Path) -> None:
    """No new connection is taken, the open one ends by itself, and the command says how many there were."""
    with Running(
        tmp_path,
        "forward",
        "tcp:0:interface=127.0.0.1",
        f"tcp:127.0.0.1:{listener.getsockname()[1]}",
        "--grace",
        "1min",
    ) as forward:
        port = int(forward.port())
        with connection(port) as client:
            client.sendall(b"1")
            served, _ = listener.accept()
            assert served.recv(1) == b"1"
            forward.process.send_signal(signal.SIGINT)
            forward.wait_for("no more connections are taken")
            with pytest.raises(ConnectionRefusedError):
                connection(port)
            with pytest.raises(subprocess.TimeoutExpired):
                forward.process.wait(0.3)
            served.sendall(b"bye")
            served.close()
            assert received(client) == b"bye"
        assert forward.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
    assert "1 connection carried" in forward.said


def test_a_port_that_is_taken_is_told(listener: socket.socket, tmp_path: Path) -> None:
    """A sentence and an exit code."""
    port = listener.getsockname()[1]
    with Running(tmp_path, "forward", f"tcp:{port}:interface=127.0.0.1", "utp:127.0.0.1:9") as forward:
        assert forward.process.wait(TIMEOUT_SECONDS) == EXIT_UNCONNECTED
    assert "Couldn't listen" in forward.said


@steered
def test_workers_share_a_port(listener: socket.socket, tmp_path: Path) -> None:
    """Each carries a part of the connections; all end at an interrupt; each has a trace of its own."""
    destination = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    trace = tmp_path / "trace.qlog"
    options = ("--workers", "2", "--max-connections", "100", "--grace", "0s", "--qlog", str(trace))
    with Running(tmp_path, "forward", "utp:0:interface=127.0.0.1", destination, *options) as there:
        port = there.wait_for(r"2 workers on 127.0.0.1:(\d+)\.")[1]
        with Running(tmp_path, "forward", "tcp:0:interface=127.0.0.1", f"utp:127.0.0.1:{port}") as here:
            clients = [connection(int(here.port())) for _ in range(24)]
            for number, client in enumerate(clients):
                client.sendall(b"%d" % number)
            heard = set()
            for _ in clients:
                served, _ = listener.accept()
                with served:
                    served.settimeout(TIMEOUT_SECONDS)
                    heard.add(int(served.recv(10)))
            assert heard == set(range(24))
            for client in clients:
                client.close()
        there.process.send_signal(signal.SIGINT)
        assert there.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
    carried = [int(there.wait_for(rf"Worker {number}: (\d+) connections? carried")[1]) for number in (0, 1)]
    assert min(carried) > 0
    assert sorted(path.name for path in tmp_path.glob("*.qlog")) == ["trace-0.qlog", "trace-1.qlog"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("tcp:2222", "utp:127.0.0.1:9"), "written utp:PORT, and not 'tcp:2222'"),
        (("utp:0", "tcp:127.0.0.1:9", "--max-connections", "1"), "less than one for each of the workers"),
        (("utp:0", "tcp:127.0.0.1:9", "--up", "199"), "--up 199 is less than 100 for each of the workers"),
    ],
)
@steered
def test_what_workers_cannot_share_is_told(words: tuple[str, ...], sentence: str) -> None:
    """Before anything is started."""
    done = support.run("forward", "--workers", "2", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr


@steered
def test_a_port_that_is_taken_is_told_to_all_workers(tmp_path: Path) -> None:
    """Once, by the process that starts them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        source = f"utp:{taken.getsockname()[1]}:interface=127.0.0.1"
        done = support.run("forward", "--workers", "2", source, "tcp:127.0.0.1:9")
    assert done.returncode == EXIT_UNCONNECTED
    assert done.stderr.count("Couldn't listen") == 1


def test_where_the_kernel_cannot_share_a_port_one_process_does(
    listener: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says so in one sentence, and carries."""
    lacking = (
        "import sys; from txutp.cli import forward, main; module = sys.modules['txutp.cli.forward'];"
        " module.why_no_steering = lambda: 'This system lacks it.'; main()"
    )
    monkeypatch.setattr(support, "command", lambda *words: [sys.executable, "-c", lacking, *words])
    destination = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    with (
        Running(tmp_path, "forward", "tcp:0:interface=127.0.0.1", destination, "--workers", "2") as forward,
        connection(int(forward.port())) as client,
    ):
        client.sendall(b"1")
        served, _ = listener.accept()
        assert served.recv(1) == b"1"
    assert forward.said.startswith("txutp: This system lacks it.\n")


@pytest.mark.skipif(os.name == "nt", reason="the test ends the command as POSIX systems do it")
def test_it_is_terminated_as_it_is_interrupted(listener: socket.socket, tmp_path: Path) -> None:
    """Supervisors send SIGTERM: open streams end by themselves then, too; a second one changes nothing."""
    destination = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    with Running(tmp_path, "forward", "tcp:0:interface=127.0.0.1", destination, "--grace", "1min") as forward:
        with connection(int(forward.port())) as client:
            client.sendall(b"1")
            served, _ = listener.accept()
            assert served.recv(1) == b"1"
            for _ in range(2):
                forward.process.send_signal(signal.SIGTERM)
                forward.wait_for("no more connections are taken, 1 are open")
            served.sendall(b"bye")
            served.close()
            assert received(client) == b"bye"
        assert forward.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
