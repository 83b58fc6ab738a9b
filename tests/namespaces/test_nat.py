"""Simultaneous open on real interfaces: two peers, each behind a filter that lets in only what was asked for."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from benchmarks.namespaces import ip, why_no_namespaces
from benchmarks.processes import Worker
from tests.namespaces.support import HOSTS, Cables

pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "nothing")


class Filtered(Cables):
    """The router forwards nothing by itself; a program there filters as NATs do."""

    def filtering(self, side: str, *arguments: str) -> Worker:
        """Start nat.py; it has said that it is ready when this returns."""
        started = self.program(side, "nat.py", *arguments)
        assert started.line() == {"ready": True}
        return started

    def route(self, answers: str = "none") -> Worker:
        self.sysctl("router", "net.ipv4.ip_forward=0")
        for side in ("left", "right"):
            # the program carries packets, no larger bursts
            ip("-n", self.names[side], "link", "set", "eth0", "gso_max_segs", 1)
        return self.filtering("router", "route", self._mac("left"), self._mac("right"), answers)

    def _mac(self, side: str) -> str:
        shown = subprocess.run(
            ["ip", "-n", self.names[side], "-j", "link", "show", "eth0"], capture_output=True, text=True, check=True
        )
        return str(json.loads(shown.stdout)[0]["address"]).replace(":", "")


@pytest.mark.parametrize("later_seconds", [0.0, 0.3, 1.5])
def test_both_connections_come_up_through_both_filters(later_seconds: float) -> None:
    """The second peer's SYN goes through at once, and tells the first one to repeat its own: no three seconds."""
    with Filtered() as cables:
        router = cables.route()
        left = cables.filtering("left", "peer", HOSTS[4]["right"], "yes")
        right = cables.filtering("right", "peer", HOSTS[4]["left"], "yes")
        left.tell()
        time.sleep(later_seconds)
        right.tell()
        heard = [left.line(), right.line()]
        routed = router.ask()
    for said in heard:
        assert said["finished"] == ["acceptor", "initiator"]
    assert heard[1]["seconds"] < 2.5
    if later_seconds:
        assert routed["swallowed"] >= 1


def test_icmp_errors_of_filters_do_not_stop_peers_that_ignore_them() -> None:
    """The first SYN draws "port unreachable", and is repeated when the other peer's SYN has come through."""
    with Filtered() as cables:
        router = cables.route("icmp")
        left = cables.filtering("left", "peer", HOSTS[4]["right"], "no")
        right = cables.filtering("right", "peer", HOSTS[4]["left"], "no")
        left.tell()
        time.sleep(0.3)
        right.tell()
        heard = [left.line(), right.line()]
        routed = router.ask()
    for said in heard:
        assert said["finished"] == ["acceptor", "initiator"]
    assert heard[1]["seconds"] < 2.5
    assert routed["swallowed"] >= 1


def test_such_an_error_ends_the_attempt_of_a_peer_that_believes_it() -> None:
    with Filtered() as cables:
        cables.route("icmp")
        left = cables.filtering("left", "peer", HOSTS[4]["right"], "yes")
        left.tell()
        assert left.line() == {"failure": "ConnectionRefusedError"}
