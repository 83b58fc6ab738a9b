"""The list of UDP ports with uTP that a reactor has open."""

from __future__ import annotations

from typing import Any

from tests.support import Accepting
from txutp import UTPClientEndpoint, listenUTP
from txutp.openports import open_ports_of
from txutp.testing import Network


def test_ports_come_and_go() -> None:
    """A watcher hears of ports that are open, of later ones, and of the end of each; until it is removed."""
    network = Network()
    server, client = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    first = listenUTP(server, 1, Accepting())
    ports = open_ports_of(server)
    opened: list[Any] = []
    closed: list[Any] = []

    ports.watch(opened.append, closed.append)
    second = listenUTP(server, 2, Accepting())
    assert opened == list(ports) == [first._utp, second._utp]
    first.stopListening()
    network.run(1)
    assert closed == [first._utp]
    ports.unwatch(opened.append, closed.append)
    second.stopListening()
    listenUTP(server, 3, Accepting())
    network.run(1)

    assert (len(opened), len(closed), len(list(ports))) == (2, 1, 1)
    assert list(open_ports_of(client)) == []


def test_a_client_port_is_one_of_them() -> None:
    """The port that clients share is there as long as one of them has a connection."""
    network = Network()
    server, client = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    accepting = Accepting()
    listenUTP(server, 6881, Accepting())
    UTPClientEndpoint(client, "10.0.0.1", 6881).connect(accepting)
    network.run(1)
    assert len(list(open_ports_of(client))) == 1

    accepting.made[0].transport.loseConnection()
    network.run(30)

    assert list(open_ports_of(client)) == []
