"""``--qlog``: a trace of a command's own connections, whole after any end."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import TIMEOUT_SECONDS, Running, run
from tests.shell.test_qlog import events_of
from txutp.cli import main
from txutp.qlog.files import read_qlog

SIZE = 2_000_000


def payload_bytes(path: Path, name: str) -> int:
    """Returns how much stream data is in the packets of a trace, each number once."""
    by_number = {
        data["header"]["packet_number"]: data["raw"]["payload_length"]
        for data in events_of(path, name)
        if data["utp"]["type"] == "DATA" and "presence_probe" not in data["utp"]
    }
    return sum(by_number.values())


def test_both_sides_of_a_transfer_over_real_sockets(tmp_path: Path) -> None:
    """With all that the kernel joins and cuts: the bytes of the packets are those of the stream."""
    here, there = tmp_path / "here.qlog", tmp_path / "there.qlog"
    with (
        Running(tmp_path, "cat", "-l", "0", "--qlog", str(there)) as receiver,
        Running(tmp_path, "cat", "127.0.0.1", receiver.port(), "--qlog", str(here)) as sender,
    ):
        received: list[tuple[int, bytes]] = []
        ending = threading.Thread(target=lambda: received.append(receiver.end(b"")))
        ending.start()
        assert sender.end(bytes(SIZE)) == (0, b"")
        ending.join(TIMEOUT_SECONDS)

    assert received == [(0, bytes(SIZE))]
    assert payload_bytes(here, "transport:packet_sent") == SIZE
    # A probe of the receiver's presence has a byte and the number of the SYN.
    assert payload_bytes(there, "transport:packet_received") in (SIZE, SIZE + 1)
    assert read_qlog(here)[0]["title"] == "txutp cat"
    for path in (here, there):
        [closed] = events_of(path, "connectivity:connection_closed")
        assert closed == {"reason": "DONE"}
        times = [event["time"] for event in events_of(path)]
        assert times == sorted(times)
        assert times[-1] < 1_000 * TIMEOUT_SECONDS


def test_a_demonstration(tmp_path: Path) -> None:
    """Our side of it, in both directions."""
    trace = tmp_path / "demo.qlog"
    assert run("demo", "--megabytes", "1", "-q", "--qlog", str(trace)).returncode == 0
    for name in ("transport:packet_sent", "transport:packet_received"):
        assert payload_bytes(trace, name) in (1_000_000, 1_000_001)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_a_trace_is_whole_when_the_command_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    """In the middle of a transfer; a killed one leaves all that was written until then."""
    here = tmp_path / "here.qlog"
    with (
        Running(tmp_path, "cat", "-l", "0", stdout=subprocess.DEVNULL) as receiver,
        Running(tmp_path, "cat", "127.0.0.1", receiver.port(), "--qlog", str(here)) as sender,
    ):
        assert sender.process.stdin is not None
        sender.process.stdin.write(bytes(1_000_000))
        sender.process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not here.exists() or here.stat().st_size < 30_000:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sender.process.send_signal(number)
        sender.process.wait(TIMEOUT_SECONDS)

    events: list[dict[str, Any]] = events_of(here)
    assert payload_bytes(here, "transport:packet_sent") > 50_000
    assert (events[-1]["name"] == "connectivity:connection_closed") == (number == signal.SIGINT)


def test_a_file_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    """Also a full disk: a sentence, before anything is sent."""
    for path in (tmp_path / "missing" / "x.qlog", Path("/dev/full")):
        done = run("cat", "-l", "0", "--qlog", str(path))
        assert done.returncode == 2
        assert "cannot be written" in done.stderr


def test_the_commands_that_make_connections_have_it() -> None:
    """By the same words in each."""
    with_option = {
        name: next(option.help for option in command.params if "--qlog" in option.opts)  # type: ignore[attr-defined]
        for name, command in main.commands.items()
        if any("--qlog" in option.opts for option in command.params)
    }

    assert set(with_option) == {"cat", "demo", "forward", "perf", "receive", "send"}
    assert len(set(with_option.values())) == 1
