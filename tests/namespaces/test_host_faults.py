"""Faults of a host under a stream: interface, address, route, receive buffer, and a process that stands still."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from benchmarks.namespaces import ip, why_no_namespaces
from benchmarks.processes import Worker
from tests.namespaces.support import HOSTS, Cables

pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "nothing")

SERVER = HOSTS[4]["right"]
CLIENT = HOSTS[4]["left"]
ROUTER, OTHER_ROUTER = "10.79.1.2", "10.79.1.22"

# How long a fault lasts; a stop is longer than a hasty peer waits, and shorter than a patient one does.
FAULT_SECONDS = 1
STOP_SECONDS = 2.5

# Of a stream of two seconds.
PIECES = 40

# The smallest buffer that Linux grants is a little over two kilobytes.
SMALLEST_BUFFER_BYTES = 1


def down(cables: Cables) -> None:
    """The interface, which takes the route with it."""
    left = cables.names["left"]
    ip("-n", left, "link", "set", "eth0", "down")
    time.sleep(FAULT_SECONDS)
    ip("-n", left, "link", "set", "eth0", "up")
    ip("-n", left, "route", "add", "default", "via", ROUTER)


def address_removed(cables: Cables) -> None:
    left = cables.names["left"]
    ip("-n", left, "addr", "del", f"{CLIENT}/24", "dev", "eth0")
    time.sleep(FAULT_SECONDS)
    ip("-n", left, "addr", "add", f"{CLIENT}/24", "dev", "eth0")
    ip("-n", left, "route", "add", "default", "via", ROUTER)


def route_changed(cables: Cables) -> None:
    """There is none for a while, then there is another one."""
    left = cables.names["left"]
    ip("-n", cables.names["router"], "addr", "add", f"{OTHER_ROUTER}/24", "dev", "eth1")
    ip("-n", left, "route", "del", "default")
    time.sleep(FAULT_SECONDS)
    ip("-n", left, "route", "add", "default", "via", OTHER_ROUTER)


@pytest.mark.parametrize("fault", [down, address_removed, route_changed])
def test_a_stream_survives_what_happens_to_the_network_of_its_host(fault: Callable[[Cables], None]) -> None:
    """Both ways exact, and each end told once."""
    with Cables() as cables:
        server = cables.program("right", "talking.py", "serve", "patient", 0)
        port = server.line()["port"]
        client = cables.program("left", "talking.py", "ask", SERVER, port, "patient", PIECES)
        assert client.line() == {"begun": True}
        fault(cables)
        assert client.line() == {"exact": True}
        assert client.line() == {"ends": ["ConnectionDone"]}
        assert server.line() == {"ends": ["ConnectionDone"]}


def test_a_stream_passes_the_smallest_receive_buffer() -> None:
    """It holds a packet or two, so most of a burst is lost."""
    with Cables() as cables:
        server = cables.program("right", "talking.py", "serve", "patient", SMALLEST_BUFFER_BYTES)
        said = server.line()
        assert said["buffer"] < 5_000
        client = cables.program("left", "talking.py", "ask", SERVER, said["port"], "patient", 12)
        assert client.line() == {"begun": True}
        assert client.line() == {"exact": True}
        assert client.line() == {"ends": ["ConnectionDone"]}


@pytest.mark.parametrize("stopped", ["client", "server"])
def test_a_process_that_stood_still_does_not_judge_its_peer(stopped: str) -> None:
    """It stood for longer than it waits for a peer, and the peer was there all the time."""
    client_patience, server_patience = ("hasty", "patient") if stopped == "client" else ("patient", "hasty")
    with Cables() as cables:
        server = cables.program("right", "talking.py", "serve", server_patience, 0)
        port = server.line()["port"]
        client = cables.program("left", "talking.py", "ask", SERVER, port, client_patience, PIECES)
        assert client.line() == {"begun": True}
        stand_still(client if stopped == "client" else server)
        assert client.line() == {"exact": True}
        assert client.line() == {"ends": ["ConnectionDone"]}
        assert server.line() == {"ends": ["ConnectionDone"]}


def test_a_process_that_stood_still_for_too_long_hears_that_its_peer_has_gone() -> None:
    """The peer did not wait; each end is told once."""
    with Cables() as cables:
        server = cables.program("right", "talking.py", "serve", "patient", 0)
        port = server.line()["port"]
        client = cables.program("left", "talking.py", "ask", SERVER, port, "hasty", PIECES)
        assert client.line() == {"begun": True}
        stand_still(server)
        assert client.line() == {"exact": False}
        assert client.line() == {"ends": ["ConnectionLost"]}
        assert server.line() == {"ends": ["ConnectionLost"]}


def stand_still(worker: Worker) -> None:
    """Stop a process for a while; ``ip netns exec`` has become the program."""
    worker.signal(signal.SIGSTOP)
    time.sleep(STOP_SECONDS)
    worker.signal(signal.SIGCONT)
