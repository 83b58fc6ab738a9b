"""``docs/howto/traces.md``: its commands and programs run, and its tables have every event and field that there is."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol

from tests.cli.support import ROOT, TIMEOUT_SECONDS, Running, command, environment
from tests.cli.test_commands_page import words
from tests.shell.test_qlog import transfer
from tests.support import Accepting
from txutp import UTPClientEndpoint, listenUTP
from txutp.core.tracing import UTP_METRICS
from txutp.qlog import trace_reactor
from txutp.qlog.files import read_qlog
from txutp.testing import Link, Network

PAGE = (ROOT / "docs" / "howto" / "traces.md").read_text(encoding="utf-8")
BLOCKS: list[tuple[str, str]] = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
RECEIVE, SEND, PLOT, DUMP, TSHARK, CONVERSATION = (text.strip() for language, text in BLOCKS if language == "sh")
PROGRAM, SIMULATION = (text for language, text in BLOCKS if language == "python")


def test_a_transfer_is_traced_and_drawn(tmp_path: Path) -> None:
    """The first three commands, with their redirections as pipes."""
    pytest.importorskip("matplotlib")
    trace = {"sender.qlog": str(tmp_path / "sender.qlog")}
    with (
        Running(tmp_path, *words(RECEIVE, "0")) as receiver,
        Running(tmp_path, *words(SEND, receiver.port(), **trace)) as sender,
    ):
        received: list[tuple[int, bytes]] = []
        ending = threading.Thread(target=lambda: received.append(receiver.end(b"")))
        ending.start()
        assert sender.end(bytes(300_000)) == (0, b"")
        ending.join(TIMEOUT_SECONDS)
    assert received == [(0, bytes(300_000))]

    with Running(tmp_path, *words(PLOT, "6881", **trace)) as plot:
        assert plot.end(None)[0] == 0
    assert (tmp_path / "sender.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_the_program_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three kinds of traces, of a connection in a simulated network."""
    monkeypatch.chdir(tmp_path)
    network = Network()
    names: dict[str, Any] = {
        "Factory": Factory, "Protocol": Protocol, "listenUTP": listenUTP, "reactor": network.reactor("10.0.0.1"),
    }  # fmt: skip
    exec(PROGRAM, names)
    connecting = Accepting()
    UTPClientEndpoint(network.reactor("10.0.0.2"), "10.0.0.1", 6881).connect(connecting)
    network.run(1)
    connecting.made[0].transport.write(b"hello")
    connecting.made[0].transport.loseConnection()
    network.run(60)
    names["tracing"].stop()

    for name in ("everything", "port", "connection"):
        header, events = read_qlog(tmp_path / f"{name}.qlog")
        assert header["title"] == ("my service" if name == "everything" else "txutp")
        assert [event["name"] for event in events][-1] == "connectivity:connection_closed"


def test_a_simulated_run_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program for simulations, then what dump and tshark say of its capture, and a conversation."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"Link": Link, "Network": Network, "trace_reactor": trace_reactor}
    exec(SIMULATION, names)
    network = names["network"]
    listenUTP(network.reactor("10.0.0.1"), 6881, Accepting())
    connecting = Accepting()
    UTPClientEndpoint(network.reactor("10.0.0.2"), "10.0.0.1", 6881).connect(connecting)
    network.run(5)
    connecting.made[0].transport.write(bytes(20_000))
    connecting.made[0].transport.loseConnection()
    network.run(60)

    for host in ("server", "client"):
        assert len(list(read_qlog(tmp_path / f"{host}.qlog")[1])) > 20
    assert "end: FIN" in output(command(*shlex.split(DUMP)[1:]), tmp_path)
    if shutil.which("tshark") is not None:
        assert "uTorrent" in output(shlex.split(TSHARK), tmp_path) or "BT-uTP" in output(shlex.split(TSHARK), tmp_path)
    conversation = [command()[0], *shlex.split(CONVERSATION)[1:]]
    assert " 0 failed" in output(conversation, tmp_path)
    assert len(list((tmp_path / "traces").iterdir())) >= 2


def output(words: list[str], place: Path) -> str:
    done = subprocess.run(
        words, cwd=place, env=environment(), capture_output=True, text=True, check=True, timeout=TIMEOUT_SECONDS
    )
    return done.stdout


def test_every_event_and_field_is_described(tmp_path: Path) -> None:
    """The page has what traces of a lossy transfer have, and no field that none can have."""
    transfer(tmp_path)
    fields: set[str] = set()
    names: set[str] = set()
    for host in ("client", "server"):
        for event in read_qlog(tmp_path / f"{host}.qlog")[1]:
            names.add(event["name"])
            fields |= set(event["data"].get("utp", ()))
    described = set(re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", PAGE, re.MULTILINE))))

    assert described == names | fields | {metric for metric, _, _ in UTP_METRICS} | {"utp:send_failed"}
