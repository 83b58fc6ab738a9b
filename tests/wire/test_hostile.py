"""No datagram makes us do much more work than an honest one: counted in lines of code, so it is the same everywhere.

``python -m benchmarks --only 'hostile-*'`` measures the same datagrams in microseconds.
"""

from __future__ import annotations

import gc
import re
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from benchmarks.ends.hostile import KINDS, Make, Server, honest
from tests.wire.test_packet import chained
from txutp.core import cookies, tombstones
from txutp.core.packet import parse_untrusted
from txutp.core.sending import SendBuffer
from txutp.core.settings import Settings

ROOT = Path(__file__).resolve().parent.parent.parent

# Datagrams that are counted, and those before them: what is done once, like giving lost packets up, is not counted.
COUNT = 200
WARM_UP = 200

# Datagrams that fill what has limits, and then again as many that must not need more.
FLOOD = 3_000


def lines(server: Server, make: Make, first: int) -> float:
    """How many lines of txutp run for each datagram from the ``first`` on."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += event == "line"
        return trace if "txutp" in frame.f_code.co_filename else None

    datagrams = [make(number) for number in range(first, first + COUNT)]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for datagram, address in datagrams:
            server.receive(datagram, address)
    finally:
        sys.settrace(before)
    return count / COUNT


@pytest.mark.parametrize(("phase", "kind"), [(phase, kind) for phase in KINDS for kind in KINDS[phase]])
def test_a_hostile_datagram_takes_few_times_the_work_of_an_honest_one(phase: str, kind: str) -> None:
    usual = Server()
    honest_lines = lines(usual, honest(usual, 21), 0)
    server = Server()
    make = KINDS[phase][kind](server)
    size = len(make(0)[0])
    for number in range(WARM_UP):
        server.receive(*make(number))
    assert 0 < lines(server, make, WARM_UP) < 5 * honest_lines + size / 30


@pytest.mark.parametrize(("phase", "kind"), [(phase, kind) for phase in KINDS for kind in KINDS[phase]])
def test_hostile_datagrams_without_end_leave_bounded_memory(
    phase: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With small limits, which the first half reaches; the blocks of memory that Python counts are exact."""
    monkeypatch.setattr(tombstones, "MAXIMUM_TOMBSTONES", 100)
    monkeypatch.setattr(cookies, "MAXIMUM_SPENT", 100)
    server = Server(Settings(maximum_connections=150, maximum_half_open=50, receive_memory_bytes=1_200_000))
    make = KINDS[phase][kind](server)
    for number in range(FLOOD):
        server.receive(*make(number))
    gc.collect()
    before = sys.getallocatedblocks()
    for number in range(FLOOD, 2 * FLOOD):
        server.receive(*make(number))
    gc.collect()
    assert sys.getallocatedblocks() - before < FLOOD / 10


def test_a_chain_may_be_as_long_as_its_datagram_allows() -> None:
    """An extension is not cut off because there are others of its kind."""
    packet = parse_untrusted(chained((1, b"\1\0\0\0"), (200, bytes(200)), (1, b"\2\0\0\0")))
    assert packet is not None
    assert packet.selective_ack == 2


def test_a_selective_ack_that_comes_again_says_nothing_new_whatever_its_ack() -> None:
    """Also one that an older ack overtakes, and one that names what was never sent."""
    sending = SendBuffer(1)
    for _ in range(100):
        sending.write(b"data")
        sending.take_run(4, 1_000, 1)
    assert sending.acknowledge(0, 0b1010, 2)[:2] == (True, 8)
    assert sending.acknowledge(0, 0b1010, 2)[:2] == (False, 0)
    assert sending.acknowledge(0, 0b1011 | 1 << 500, 2)[:2] == (True, 4)
    assert sending.acknowledge(1, 0b0101, 2)[:2] == (True, 4)  # the ack itself, the others are the same segments
    assert sending.acknowledge(0, 0b1011, 2)[:2] == (False, 0)
    assert sending.acknowledge(0, 0b11011, 2)[:2] == (True, 4)
    for _ in range(1_000):
        sending.write(b"data")
        sending.take_run(4, 1_000, 1)
    assert sending.acknowledge(1, 1 << 499, 2)[:2] == (True, 4), "what was named too early is named again"
    assert sending.flight_bytes == 4 * (1_100 - 6)


def test_the_benchmark_measures_each_kind() -> None:
    """The command of ``benchmarks/README.md``, with small sizes; here one row of each table."""
    program = [sys.executable, "-m", "benchmarks", "--quick", "--only", "hostile-*", "--row", "*unknown ids"]
    done = subprocess.run(
        [*program, "--row", "old DATA"], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    for label in ("DATA with unknown ids", "RESETs with unknown ids", "old DATA"):
        assert re.search(rf"^\| {label} \| 2[01]( \| [\d.]+){{3}}( \| -?\d+){{2}} \|$", done.stdout, re.M)
