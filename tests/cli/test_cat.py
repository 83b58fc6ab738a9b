"""``txutp cat``: netcat over uTP, as a shell uses it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cli.support import ROOT, TIMEOUT_SECONDS, Running, command, environment, run
from txutp.cli.output import EXIT_INTERRUPTED, EXIT_LOST, EXIT_TIMED_OUT, EXIT_UNCONNECTED

MEGABYTE = 1_000_000


def test_both_directions_arrive_whole(tmp_path: Path) -> None:
    """Several megabytes go each way at once; each end of input ends one half of the stream."""
    draw = random.Random(1)
    there, here = draw.randbytes(8 * MEGABYTE), draw.randbytes(5 * MEGABYTE + 1)
    (tmp_path / "here").write_bytes(here)
    with (
        subprocess.Popen(["cat", str(tmp_path / "here")], stdout=subprocess.PIPE) as feeding,
        Running(tmp_path, "cat", "-l", "0", "-s", "127.0.0.1", stdin=feeding.stdout) as server,
        Running(tmp_path, "cat", "127.0.0.1", server.port()) as client,
    ):
        returned: list[tuple[int, bytes]] = []
        ending = threading.Thread(target=lambda: returned.append(client.end(there)))
        ending.start()
        served = server.end(None)
        ending.join(TIMEOUT_SECONDS)

    assert returned == [(0, here)]
    assert (served[0], hashlib.sha256(served[1]).hexdigest()) == (0, hashlib.sha256(there).hexdigest())


def test_regular_files_are_read_and_written(tmp_path: Path) -> None:
    """Redirections are files, which no reactor can wait for; one that is appended to keeps what it has."""
    data = random.Random(2).randbytes(3 * MEGABYTE)
    (tmp_path / "in").write_bytes(data)
    (tmp_path / "out").write_bytes(b"before ")
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("ab") as target,
        Running(tmp_path, "cat", "-l", "0", stdin=subprocess.DEVNULL, stdout=target) as server,
        Running(tmp_path, "cat", "127.0.0.1", server.port(), stdin=source) as client,
    ):
        assert client.process.wait(TIMEOUT_SECONDS) == 0
        assert server.process.wait(TIMEOUT_SECONDS) == 0

    assert (tmp_path / "out").read_bytes() == b"before " + data


def test_the_peer_may_answer_after_our_end(tmp_path: Path) -> None:
    """Half close: what a program makes of the whole input comes back over the other half."""
    with Running(tmp_path, "cat", "-l", "0", "--exec", "sort -r") as server:
        with Running(tmp_path, "cat", "127.0.0.1", server.port()) as client:
            assert client.end(b"a\nc\nb\n") == (0, b"c\nb\na\n")
        assert server.process.wait(TIMEOUT_SECONDS) == 0


def test_keep_open_serves_one_after_the_other(tmp_path: Path) -> None:
    """With ``-k`` the port stays, and each connection has a program of its own, also at the same time."""
    with Running(tmp_path, "cat", "-l", "-k", "0", "--exec", "cat") as server:
        with Running(tmp_path, "cat", "127.0.0.1", server.port()) as first:
            first.process.stdin.write(b"first")
            first.process.stdin.flush()
            assert first.process.stdout.read(5) == b"first"
            with Running(tmp_path, "cat", "127.0.0.1", server.port()) as second:
                assert second.end(b"second") == (0, b"second")
            assert first.end(b" again") == (0, b" again")
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
    assert "Interrupted; " in server.said


def test_a_closed_port_is_told_at_once() -> None:
    """Nothing listens: a sentence, an exit code, and nothing on standard output."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    done = run("cat", "127.0.0.1", port)

    assert (done.returncode, done.stdout) == (EXIT_UNCONNECTED, "")
    assert "refused" in done.stderr.lower()


def test_a_silent_host_times_out() -> None:
    """``-w`` bounds the attempt; the socket there is open and says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))

        done = run("cat", "-w", "300ms", "127.0.0.1", str(silent.getsockname()[1]))

    assert (done.returncode, done.stdout) == (EXIT_TIMED_OUT, "")
    assert done.stderr.startswith("txutp: ")


def test_a_peer_that_is_killed_is_a_lost_connection(tmp_path: Path) -> None:
    """The stream is not complete, and the exit code says so."""
    with Running(tmp_path, "cat", "-l", "0") as server, Running(tmp_path, "cat", "127.0.0.1", server.port()) as client:
        server.process.stdin.write(b"some")
        server.process.stdin.flush()
        assert client.process.stdout.read(4) == b"some"
        server.process.kill()

        assert client.process.wait(TIMEOUT_SECONDS) in (EXIT_LOST, EXIT_TIMED_OUT)
    assert "4 bytes came from it" in client.said


def test_an_interrupt_leaves_a_summary(tmp_path: Path) -> None:
    """Ctrl-C says how much went by; both sides end."""
    with (
        Running(tmp_path, "cat", "-l", "0") as server,
        Running(tmp_path, "cat", "--json", "127.0.0.1", server.port()) as client,
    ):
        client.process.stdin.write(b"hello")
        client.process.stdin.flush()
        assert server.process.stdout.read(5) == b"hello"
        client.process.send_signal(signal.SIGINT)

        assert client.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
        assert server.process.wait(TIMEOUT_SECONDS) == EXIT_LOST
    summary, words = client.said.splitlines()
    assert json.loads(summary).items() >= {"bytes_sent": 5, "bytes_received": 0, "connections": 1}.items()
    assert words.startswith("txutp: Interrupted; 5 bytes were read for the peer")


def test_a_reader_of_our_output_that_goes_away_ends_it(tmp_path: Path) -> None:
    """``txutp cat ... | head`` ends with ``head``."""
    with Running(
        tmp_path, "cat", "-l", "0", "--exec", f"{sys.executable} -c \"while True: print('y' * 1000)\""
    ) as server:
        with Running(tmp_path, "cat", "127.0.0.1", server.port()) as client:
            assert client.process.stdout.read(1000)
            client.process.stdout.close()
            client.process.stdout = None
            assert client.process.wait(TIMEOUT_SECONDS) == EXIT_LOST
        assert server.process.wait(TIMEOUT_SECONDS) in (EXIT_LOST, EXIT_TIMED_OUT)
    assert "the other end of the output is closed" in client.said


def test_ipv6(tmp_path: Path) -> None:
    """``-6`` listens on IPv6, and takes only an IPv6 address to connect to."""
    with Running(tmp_path, "cat", "-6", "-l", "0", stdin=subprocess.DEVNULL) as server:
        with Running(tmp_path, "cat", "-6", "-v", "::1", server.port()) as client:
            assert client.end(b"over IPv6")[0] == 0
        assert server.end(None) == (0, b"over IPv6")
    assert "Connected to [::1]:" in client.said

    done = run("cat", "-6", "127.0.0.1", "9")

    assert (done.returncode, done.stdout) == (EXIT_UNCONNECTED, "")
    assert "127.0.0.1 has no address of this family" in done.stderr


def test_endpoint_strings_take_the_place_of_host_and_port(tmp_path: Path) -> None:
    """Any string will do, another transport's too."""
    with Running(tmp_path, "cat", "-v", "-l", "tcp:0:interface=127.0.0.1", stdin=subprocess.DEVNULL) as server:
        with Running(tmp_path, "cat", f"tcp:127.0.0.1:{server.port()}") as client:
            assert client.end(b"over TCP")[0] == 0
        assert server.end(None) == (0, b"over TCP")


def test_no_terminal_is_left_in_non_blocking_mode(tmp_path: Path) -> None:
    """A pipe that another process goes on using keeps its mode."""
    reading, writing = os.pipe()
    with (
        Running(tmp_path, "cat", "-l", "0", stdout=writing) as server,
        Running(tmp_path, "cat", "127.0.0.1", server.port()) as client,
    ):
        client.process.stdin.write(b"1")
        client.process.stdin.flush()
        assert os.read(reading, 1) == b"1"
        assert os.get_blocking(writing)
    os.close(reading)
    os.close(writing)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["127.0.0.1"], "The port is missing"),
        (["-l", "127.0.0.1", "80"], "an address of ours goes behind -s"),
        (["-k", "127.0.0.1", "80"], "-k goes with -l"),
        (["-4", "-6", "127.0.0.1", "80"], "-4 and -6 exclude each other"),
        (["-w", "soon", "127.0.0.1", "80"], "write it like 250ms, 5s or 2min"),
        (["--exec", "no-such-command", "127.0.0.1", "80"], "There is no command 'no-such-command'"),
        (["carrier-pigeon:80"], "is not a client endpoint string"),
        (["-l", "utp:http:colour=red"], "is not a server endpoint string"),
    ],
)
def test_wrong_usage_is_answered_with_what_is_right(arguments: list[str], words: str) -> None:
    """Exit code 2, as for all wrong usage, and no traceback."""
    done = subprocess.run(
        command("cat", *arguments),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert words in " ".join(done.stderr.replace("│", "").split())
    assert "Traceback" not in done.stderr
