"""The pages under ``docs/howto`` whose programs and commands have no test of their own elsewhere: they run."""

from __future__ import annotations

import configparser
import hashlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.missing import leave_out
from tests.pages import ROOT, Page
from tests.project.test_examples import Program, running, says
from tests.project.test_readme import environment, free_port

pytestmark = pytest.mark.skipif(os.name == "nt", reason="programs are ended as POSIX systems do it")

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60


def texts(page: Page) -> list[str]:
    """What the ``text`` blocks show."""
    return [block.text for block in page.blocks if block.language == "text"]


@contextmanager
def program(text: str, place: Path, name: str = "program.py") -> Iterator[Program]:
    """Runs a program of a page while the block runs."""
    (place / name).write_text(text, encoding="utf-8")
    with running(f"python {name}", place) as started:
        yield started


def test_a_second_protocol_on_the_port(tmp_path: Path) -> None:
    """The program answers a ping of the DHT, and echoes over uTP, on one port."""
    [text] = Page("howto/bittorrent").programs
    with program(text.replace("6881", "0"), tmp_path) as server:
        port = int(server.until(r"port (\d+)")[1])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
            asker.settimeout(TIMEOUT_SECONDS)
            asker.sendto(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", (HOST, port))
            answer = asker.recv(1_000)
        assert re.fullmatch(rb"d1:rd2:id20:.{20}e1:t2:aa1:y1:re", answer, re.DOTALL)
        client = (ROOT / "examples" / "echo_client.py").read_text(encoding="utf-8")
        with program(client.replace("6881", str(port)), tmp_path, "client.py") as echo:
            assert echo.end() == ["Hello over uTP!"]


def test_tls(tmp_path: Path) -> None:
    """The two programs of the page talk through TLS, with a certificate of the example."""
    pytest.importorskip("cryptography")
    serve, ask = Page("howto/tls").programs
    make = (
        "import sys; sys.path.insert(0, sys.argv[1]); import tls; print(b''.join(tls.made_here('localhost')).decode())"
    )
    pem = subprocess.run(
        [sys.executable, "-c", make, str(ROOT / "examples")], env=environment(), capture_output=True, check=True
    ).stdout
    (tmp_path / "server.pem").write_bytes(pem)
    with program(serve.replace("6881", "0"), tmp_path) as server:
        port = server.port()
        with program(ask.replace("6881", port), tmp_path, "ask.py") as client:
            said = client.end()
    assert said[0] == "b'a secret' came back"
    assert re.fullmatch(r"round trip: \d+\.\d ms", said[1])


@pytest.mark.parametrize("page", [Page("howto/controllers"), Page("howto/caps")], ids=lambda page: page.name)
def test_programs_on_a_network_in_memory(page: Page, tmp_path: Path) -> None:
    """Each prints what its page shows: time is virtual, and the seed is fixed."""
    [text], [shown] = page.programs, texts(page)
    with program(text, tmp_path) as client:
        assert client.end() == shown.splitlines()


def test_the_benchmark_of_caps() -> None:
    """It prints such rows as the page has, and each second is as exact as the page says."""
    page = Page("howto/caps")
    [words] = [command.split() for command in page.commands]
    done = subprocess.run(
        [sys.executable, *words[1:], "--only", "50000", "--seconds", "3"],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=TIMEOUT_SECONDS, check=True,
    )  # fmt: skip
    [published] = [table for table in page.tables if "Jain's index" in table[0]]
    printed = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()]
    assert printed[0] == list(published[0])
    assert [row[:3] for row in printed[2:]] == [list(row.values())[:3] for row in published[:6]]
    for row in [*printed[2:], *(list(row.values()) for row in published)]:
        least, most = (float(part.rstrip("%")) for part in row[3].split(" to "))
        slack = 3.5 if row[0] == "50,000" and row[2] == "down" else 2.0
        assert 100 - slack <= least <= most <= 100 + slack, row


def test_statistics(tmp_path: Path) -> None:
    """The program prints the fields, and those in the table are fields of the statistics."""
    from txutp import ConnectionStats, PortStats

    page = Page("howto/statistics")
    [text] = page.programs
    with program(text.replace("6881", str(free_port())), tmp_path) as client:
        said = client.end()
    assert said[0].startswith("state CONNECTED, 20000000 bytes acknowledged")
    assert re.fullmatch(r"rtt \d+\.\d\d ms, queue -?\d+\.\d\d ms, window \d+ bytes, mss \d+", said[1])
    [rows] = page.tables
    for row in rows:
        for name in re.findall(r"`([\w.()]+)`", row["You see"]):
            kind = PortStats if name.startswith("port.stats().") else ConnectionStats
            assert name.rpartition(".")[2] in kind.__annotations__


class TestBackground:
    """``txutp forward`` between a program and its server."""

    @contextmanager
    def forwarded(self, server_port: int, place: Path) -> Iterator[str]:
        """The two forwarders of the page, in front of a server; the TCP port for clients."""
        there, here, _ = Page("howto/background").commands
        there = there.replace("utp:6881", f"utp:0:interface={HOST}").replace(":873", f":{server_port}")
        with running(there, place) as server:
            server_utp_port = server.until(r"Forwarding \S+:(\d+) to")[1]
            here = here.replace("tcp:8730", "tcp:0").replace("example.org:6881", f"{HOST}:{server_utp_port}")
            with running(here, place) as client:
                yield client.until(r"Forwarding \S+:(\d+) to")[1]

    def test_rsync(self, tmp_path: Path) -> None:
        """A folder arrives at rsync's daemon."""
        if shutil.which("rsync") is None:
            leave_out("rsync is missing")
        content = random.Random(1).randbytes(3_000_000)
        (tmp_path / "pictures").mkdir()
        (tmp_path / "pictures" / "cat.jpg").write_bytes(content)
        (tmp_path / "backup").mkdir()
        configuration = (
            f"use chroot = no\n[backup]\npath = {tmp_path / 'backup'}\nread only = no\nuid = {os.getuid()}\n"
        )
        (tmp_path / "rsyncd.conf").write_text(f"{configuration}gid = {os.getgid()}\n")
        port = free_tcp_port()
        command = f"rsync --daemon --no-detach --address={HOST} --port={port} --config=rsyncd.conf"
        with running(command, tmp_path):
            until_answered(port)
            with self.forwarded(port, tmp_path) as through:
                says(Page("howto/background").command("rsync").replace("8730", through), tmp_path)
        arrived = (tmp_path / "backup" / "cat.jpg").read_bytes()
        assert hashlib.sha256(arrived).digest() == hashlib.sha256(content).digest()

    @pytest.mark.skipif(shutil.which("git") is None, reason="git is not here")
    def test_git(self, tmp_path: Path) -> None:
        """The command in the table clones a repository."""
        commit = "git -c user.name=a -c user.email=a@b.c -C project commit -q --allow-empty -m first"
        for command in ("git init -q project", commit, "git clone -q --bare project project.git"):
            says(command, tmp_path)
        port = free_tcp_port()
        # "git daemon" would start this, and leave it behind when it is killed.
        [programs] = says("git --exec-path", tmp_path)
        daemon = f"{programs}/git-daemon --reuseaddr --export-all --base-path={tmp_path} --listen={HOST} --port={port}"
        [clone] = re.findall(r"`(git clone .*?)`", Page("howto/background").text)
        with running(daemon, tmp_path):
            until_answered(port)
            with self.forwarded(port, tmp_path) as through:
                says(clone.replace("8730", through) + " copy", tmp_path)
        assert says("git -C copy log --format=%s", tmp_path) == ["first"]


def free_tcp_port() -> int:
    """A TCP port that nobody has."""
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])


def until_answered(port: int) -> None:
    """Waits until something listens on a TCP port."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class TestSystemd:
    """Unit files."""

    units = [block.text for block in Page("howto/systemd").blocks if block.language == "ini"]

    @staticmethod
    def named(unit: str) -> tuple[str, str]:
        """The name of a unit, from its first line, and its text."""
        first, text = unit.split("\n", 1)
        return Path(first.removeprefix("# ")).name, text

    def test_systemd_takes_the_units(self, tmp_path: Path) -> None:
        """``systemd-analyze verify`` finds nothing wrong with them, once their programs exist."""
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not here")
        names = []
        for name, text in map(self.named, self.units):
            text = re.sub(r"/opt/txutp/bin/\w+", "/bin/true", text).replace("/etc/systemd/system/", "")
            (tmp_path / name).write_text(text)
            names.append(str(tmp_path / name))
        done = subprocess.run(["systemd-analyze", "verify", *names], capture_output=True, text=True, check=False)
        ours = [line for line in done.stderr.splitlines() if any(Path(name).name in line for name in names)]
        assert ours == []

    def test_the_commands_of_the_units_run(self, tmp_path: Path) -> None:
        """The forwarder starts; a web server and a forwarder serve on a socket that they were given as descriptor 3."""
        commands = {}
        for name, text in map(self.named, self.units):
            parser = configparser.ConfigParser(strict=False, interpolation=None)
            parser.read_string(text)
            if parser.has_section("Service"):
                commands[name] = parser["Service"]["ExecStart"].replace("/opt/txutp/bin/", "")
        forward, web, carry = commands.values()
        with running(forward.replace("utp:6881", f"utp:0:interface={HOST}"), tmp_path) as forwarder:
            forwarder.until("Forwarding")

        (tmp_path / "page.html").write_text("<p>by descriptor</p>")
        (tmp_path / "examples").symlink_to(ROOT / "examples")
        fetch = f"python examples/fetch.py http://{HOST}:%d/page.html"
        with activated(web.replace("/srv/files", "."), tmp_path) as port:
            assert says(fetch % port, tmp_path) == ["<p>by descriptor</p>"]
        with running(f"twist web --listen tcp:0:interface={HOST} --path .", tmp_path) as server:
            behind = server.port()
            with activated(carry.replace(":22", f":{behind}"), tmp_path) as port:
                assert says(fetch % port, tmp_path) == ["<p>by descriptor</p>"]


@contextmanager
def activated(command: str, place: Path) -> Iterator[int]:
    """Runs a command with a bound UDP socket as descriptor 3, where systemd puts it; yields the port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind((HOST, 0))
        with subprocess.Popen(
            ["bash", "-c", f"exec 3<&{bound.fileno()}; exec {command}"],
            cwd=place,
            env=environment(),
            pass_fds=[bound.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                yield bound.getsockname()[1]
            finally:
                server.kill()
