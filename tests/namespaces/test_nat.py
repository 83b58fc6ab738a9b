"""Simultaneous open on real interfaces: two peers, each behind a filter that lets in only what was asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.namespaces.support import HOSTS, ROOT, Cables, call, ip, line, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing")

PROGRAMS = Path(__file__).parent / "nat.py"


class Filtered(Cables):
    """The router forwards nothing by itself; a program there filters as NATs do."""

    def program(self, side: str, *arguments: str) -> subprocess.Popen[str]:
        """Start one of nat.py; it has said that it is ready when this returns."""
        command = ["ip", "netns", "exec", self.names[side], sys.executable, str(PROGRAMS), *arguments]
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self._workers.append(started)
        assert line(started) == {"ready": True}
        return started

    def route(self, answers: str = "none") -> subprocess.Popen[str]:
        call("ip", "netns", "exec", self.names["router"], "sysctl", "-qw", "net.ipv4.ip_forward=0")
        for side in ("left", "right"):
            # the program carries packets, no larger bursts
            ip("-n", self.names[side], "link", "set", "eth0", "gso_max_segs", 1)
        return self.program("router", "route", self._mac("left"), self._mac("right"), answers)

    def _mac(self, side: str) -> str:
        shown = subprocess.run(
            ["ip", "-n", self.names[side], "-j", "link", "show", "eth0"], capture_output=True, text=True, check=True
        )
        return str(json.loads(shown.stdout)[0]["address"]).replace(":", "")


def go(program: subprocess.Popen[str]) -> None:
    assert program.stdin is not None
    program.stdin.write("go\n")
    program.stdin.flush()


@pytest.mark.parametrize("later_seconds", [0.0, 0.3, 1.5])
def test_both_connections_come_up_through_both_filters(later_seconds: float) -> None:
    """The second peer's SYN goes through at once, and tells the first one to repeat its own: no three seconds."""
    with Filtered() as cables:
        router = cables.route()
        left = cables.program("left", "peer", HOSTS[4]["right"], "yes")
        right = cables.program("right", "peer", HOSTS[4]["left"], "yes")
        go(left)
        time.sleep(later_seconds)
        go(right)
        heard = [line(left), line(right)]
        go(router)
        routed = line(router)
    for said in heard:
        assert said["finished"] == ["acceptor", "initiator"]
    assert heard[1]["seconds"] < 2.5
    if later_seconds:
        assert routed["swallowed"] >= 1


def test_icmp_errors_of_filters_do_not_stop_peers_that_ignore_them() -> None:
    """The first SYN draws "port unreachable", and is repeated when the other peer's SYN has come through."""
    with Filtered() as cables:
        router = cables.route("icmp")
        left = cables.program("left", "peer", HOSTS[4]["right"], "no")
        right = cables.program("right", "peer", HOSTS[4]["left"], "no")
        go(left)
        time.sleep(0.3)
        go(right)
        heard = [line(left), line(right)]
        go(router)
        routed = line(router)
    for said in heard:
        assert said["finished"] == ["acceptor", "initiator"]
    assert heard[1]["seconds"] < 2.5
    assert routed["swallowed"] >= 1


def test_such_an_error_ends_the_attempt_of_a_peer_that_believes_it() -> None:
    with Filtered() as cables:
        cables.route("icmp")
        left = cables.program("left", "peer", HOSTS[4]["right"], "yes")
        go(left)
        assert line(left) == {"failure": "ConnectionRefusedError"}
