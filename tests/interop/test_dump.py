"""``txutp dump`` of other programs' traffic: what it says is what tshark says, and what the programs say."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import ROOT, run
from tests.cli.test_dump import FIELDS, dumped

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PEER = Path(__file__).parent / "peer.js"
LIMIT_SECONDS = 60
LENGTH = 3_000_000


def peer(*arguments: str) -> subprocess.Popen[str]:
    """Start one of the programs in JavaScript."""
    return subprocess.Popen(["node", str(PEER), *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def said(program: subprocess.Popen[str]) -> dict[str, Any]:
    """Returns the next line of JSON that a program prints."""
    assert program.stdout is not None
    return dict(json.loads(program.stdout.readline()))


def captured(path: Path) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Capture an exchange between two peers that run libutp; returns what they say, and the listener's port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dumpcap = subprocess.Popen(
        ["dumpcap", "-q", "-i", "lo", "-f", f"udp port {port}", "-B", "32", "-w", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    programs = [dumpcap]
    try:
        assert dumpcap.stderr is not None
        while "File: " not in (line := dumpcap.stderr.readline()):
            assert line, "dumpcap ended"
        options = ["exchange", "--bytes", str(LENGTH)]
        server = peer("listen", *options, "--port", str(port))
        programs.append(server)
        assert said(server)["port"] == port
        client = peer("connect", str(port), *options)
        programs.append(client)
        ends = said(client), said(server)
        time.sleep(1)  # dumpcap writes a moment later
        dumpcap.terminate()
        dumpcap.wait(LIMIT_SECONDS)
    finally:
        for program in programs:
            program.kill()
            program.communicate()
    return (*ends, port)


def test_traffic_of_libutp(tmp_path: Path) -> None:
    """Each packet's fields agree with tshark's, and the sums with what the programs received."""
    for program in ("tshark", "dumpcap", "node"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here")
    if not (PEER.parent / "node_modules" / "utp-native").exists():
        pytest.skip("needs utp-native: `npm install` in tests/interop")
    path = tmp_path / "capture.pcapng"
    client, server, port = captured(path)

    packets, [connection] = dumped(str(path))

    command = ["tshark", "-r", str(path), "-T", "fields", "-d", f"udp.port=={port},bt-utp"]
    command += ["--disable-protocol", "bittorrent", *(f"-e{field}" for field in FIELDS)]
    lines = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=LIMIT_SECONDS
    ).stdout.splitlines()
    assert len(packets) > LENGTH / 1_500
    assert [[packet[field] for field in FIELDS] for packet in packets] == [
        [int(text or 0) for text in line.split("\t")] for line in lines
    ]
    assert connection["initiator"]["payload_bytes"] == server["received"]["bytes"] == LENGTH
    assert connection["acceptor"]["payload_bytes"] == client["received"]["bytes"] == LENGTH
    assert "round trip" in run("dump", "-s", str(path)).stdout
