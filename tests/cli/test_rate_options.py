"""``--up`` and ``--down``: caps on all that a command sends and receives over uTP."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from twisted.internet.endpoints import connectProtocol

from tests.cli.support import TIMEOUT_SECONDS, Running
from tests.support import CLIENT, PORT, SERVER, Accepting, Stream
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.cli import main
from txutp.cli.output import cap_ports
from txutp.testing import Link, Network

SIZE = 300_000
RATE = 200 * 1024


@pytest.mark.parametrize(("receiver_caps", "sender_caps"), [([], ["--up", "200k"]), (["--down", "200k"], [])])
def test_a_transfer_over_real_sockets_takes_as_long_as_the_cap_says(
    receiver_caps: list[str], sender_caps: list[str], tmp_path: Path
) -> None:
    with (
        Running(tmp_path, "cat", "-l", "0", *receiver_caps) as receiver,
        Running(tmp_path, "cat", "127.0.0.1", receiver.port(), "--json", *sender_caps) as sender,
    ):
        received: list[tuple[int, bytes]] = []
        ending = threading.Thread(target=lambda: received.append(receiver.end(b"")))
        ending.start()
        assert sender.end(bytes(SIZE)) == (0, b"")
        ending.join(TIMEOUT_SECONDS)
        summary = json.loads(sender.said.splitlines()[-1])

    assert received == [(0, bytes(SIZE))]
    assert summary["seconds"] > 0.95 * SIZE / RATE


@pytest.mark.parametrize("command", ["cat", "send", "receive", "perf", "forward"])
def test_every_command_that_carries_data_has_the_options(command: str) -> None:
    words = " ".join(CliRunner().invoke(main, [command, "--help"]).output.split())
    assert "--up RATE Send at most this many bytes per second over uTP, headers included, like 2M." in words
    assert "--down RATE Receive at most this many bytes per second over uTP" in words


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("2Mbit", "'2Mbit' is no rate; write bytes per second like 500k or 2M (of 1024)"),
        ("-1", "'-1' is no rate"),
        ("0.01k", "a rate is at least 100B per second, not 10B"),
        ("50", "a rate is at least 100B per second, not 50B"),
    ],
)
def test_what_is_no_rate_is_refused(value: str, says: str) -> None:
    outcome = CliRunner().invoke(main, ["cat", "127.0.0.1", "1", f"--up={value}"])
    assert outcome.exit_code == 2
    assert says in " ".join(outcome.output.split())


def test_all_connections_of_a_command_share_its_caps() -> None:
    """Also those on ports that are opened later; a cap in a server's string gives way, a client's stays."""
    network = Network(1)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000), Link(delay_us=5_000))
    here = network.reactor(CLIENT)
    cap_ports(here, up=100_000)
    accepting = Accepting()
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(accepting)
    clients = [Stream() for _ in range(3)]
    for number, client in enumerate(clients):
        settings = Settings(up_bytes_per_second=10_000) if not number else Settings()
        connectProtocol(UTPClientEndpoint(here, SERVER, PORT, settings=settings), client)
    network.run(1)
    for client in clients:
        client.transport.write(bytes(1_000_000))  # type: ignore[union-attr]
    network.run(5)
    arrived = [made.connection.bytes_received for made in accepting.made]
    assert arrived[0] == pytest.approx(5 * 10_000, rel=0.1)
    assert arrived[1] == pytest.approx(arrived[2], rel=0.02)
    assert sum(arrived) == pytest.approx(5 * 100_000 * 0.96, rel=0.03)

    ports: list[Any] = []
    capped = Settings(up_bytes_per_second=5_000, down_bytes_per_second=7_000)
    UTPServerEndpoint(here, PORT, settings=capped).listen(Accepting()).addCallback(ports.append)
    stats = ports[0].stats()
    assert (stats.up_limit, stats.down_limit) == (100_000, 7_000)
