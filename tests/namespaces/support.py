"""Namespaces for one test: two hosts with a router between them, gone afterwards.

::

    with Cables(left_mtu=1500, right_mtu=1400) as cables:
        cables.run("right", "receive", ...)

Nothing outside of the namespaces is touched, and their names carry our process id.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

WORKER = Path(__file__).parent / "worker.py"
ROOT = WORKER.parent.parent.parent
HOSTS = {4: {"left": "10.79.1.1", "right": "10.79.2.1"}, 6: {"left": "fd79:1::1", "right": "fd79:2::1"}}
TIMEOUT_SECONDS = 60

_serial = itertools.count()


def why_not() -> str:
    """Why these tests cannot run here; empty if they can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "namespaces need root on Linux"
    if shutil.which("ip") is None:
        return "the ip command is not installed"
    name = f"txutp{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True)
    if made.returncode:
        return f"no namespaces: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


class Cables:
    """``left`` and ``right``, each with a cable to a router; ``deaf_mtu`` lets the router's left end drop silently."""

    def __init__(self, left_mtu: int = 1500, right_mtu: int = 1500, deaf_mtu: int | None = None) -> None:
        self._mtu = {"left": left_mtu, "right": right_mtu}
        self._deaf_mtu = deaf_mtu
        prefix = f"txutp{os.getpid()}n{next(_serial)}"
        self.names = {name: f"{prefix}{name}" for name in ("left", "router", "right")}
        self._workers: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Cables:
        try:
            for name in self.names.values():
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            for number, side in enumerate(("left", "right"), 1):
                self._connect(side, number)
            for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
                call("ip", "netns", "exec", self.names["router"], "sysctl", "-qw", setting)
        except BaseException:
            self._remove()
            raise
        return self

    def _connect(self, side: str, number: int) -> None:
        """A cable from a host to the router, with addresses at both ends."""
        host, router = self.names[side], self.names["router"]
        mtu = self._mtu[side]
        far_mtu = self._deaf_mtu if side == "left" and self._deaf_mtu is not None else mtu
        ip("link", "add", "eth0", "mtu", mtu, "netns", host, "type", "veth", "peer", f"eth{number}", "netns", router)
        ip("-n", router, "link", "set", f"eth{number}", "mtu", far_mtu)
        for name, device, last in ((host, "eth0", 1), (router, f"eth{number}", 2)):
            ip("-n", name, "addr", "add", f"10.79.{number}.{last}/24", "dev", device)
            ip("-n", name, "addr", "add", f"fd79:{number}::{last}/64", "dev", device, "nodad")
            ip("-n", name, "link", "set", device, "up")
        ip("-n", host, "route", "add", "default", "via", f"10.79.{number}.2")
        ip("-n", host, "-6", "route", "add", "default", "via", f"fd79:{number}::2")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def start(self, side: str, *arguments: object) -> subprocess.Popen[str]:
        """Start worker.py on a host; it says a line of JSON for each thing that it has done."""
        command = ["ip", "netns", "exec", self.names[side], sys.executable, str(WORKER), *map(str, arguments)]
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        self._workers.append(worker)
        return worker

    def transfer(self, total_bytes: int, version: int = 4) -> dict[str, Any]:
        """Send so much from left to right; gives the sender's stats after the receiver has confirmed every byte."""
        receiver = self.start("right", "receive", HOSTS[version]["right"], total_bytes)
        port = line(receiver)["port"]
        sender = self.start("left", "send", HOSTS[version]["right"], port, total_bytes)
        sent = line(sender)
        received = line(receiver)
        assert received["sha256"] == sent["sha256"]
        stats: dict[str, Any] = sent["stats"]
        return stats


def ip(*arguments: object) -> None:
    """One ip command."""
    call("ip", *map(str, arguments))


def call(*command: str) -> None:
    """A command that has to succeed; what it says against it is the error."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def line(worker: subprocess.Popen[str]) -> dict[str, Any]:
    """The next thing that a worker says."""
    assert worker.stdout is not None
    said = worker.stdout.readline()
    if not said:
        raise RuntimeError(f"{worker.args} ended with {worker.wait(TIMEOUT_SECONDS)}")
    result: dict[str, Any] = json.loads(said)
    return result
