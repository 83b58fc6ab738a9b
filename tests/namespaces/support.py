"""Namespaces for one test: two hosts with a router between them, gone afterwards.

::

    with Cables(left_mtu=1500, right_mtu=1400) as cables:
        cables.transfer(1_000_000)
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from benchmarks.namespaces import Namespaces, ip
from benchmarks.processes import Worker

PROGRAMS = Path(__file__).parent
HOSTS = {4: {"left": "10.79.1.1", "right": "10.79.2.1"}, 6: {"left": "fd79:1::1", "right": "fd79:2::1"}}


class Cables(Namespaces):
    """``left`` and ``right``, each with a cable to a router; ``deaf_mtu`` lets the router's left end drop silently."""

    hosts = ("left", "router", "right")

    def __init__(self, left_mtu: int = 1500, right_mtu: int = 1500, deaf_mtu: int | None = None) -> None:
        super().__init__()
        self._mtu = {"left": left_mtu, "right": right_mtu}
        self._deaf_mtu = deaf_mtu

    def join(self) -> None:
        for number, side in enumerate(("left", "right"), 1):
            self._connect(side, number)
        for setting in ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"):
            self.sysctl("router", setting)

    def _connect(self, side: str, number: int) -> None:
        """A cable from a host to the router, with addresses at both ends."""
        host, router = self.names[side], self.names["router"]
        mtu = self._mtu[side]
        far_mtu = self._deaf_mtu if side == "left" and self._deaf_mtu is not None else mtu
        self.cable(side, "eth0", "router", f"eth{number}")
        for name, device, last, size in ((host, "eth0", 1, mtu), (router, f"eth{number}", 2, far_mtu)):
            ip("-n", name, "link", "set", device, "mtu", size)
            ip("-n", name, "addr", "add", f"10.79.{number}.{last}/24", "dev", device)
            ip("-n", name, "addr", "add", f"fd79:{number}::{last}/64", "dev", device, "nodad")
            ip("-n", name, "link", "set", device, "up")
        ip("-n", host, "route", "add", "default", "via", f"10.79.{number}.2")
        ip("-n", host, "-6", "route", "add", "default", "via", f"fd79:{number}::2")

    def program(self, side: str, program: str, *arguments: object) -> Worker:
        """Start one of the programs beside this file; it says a line of JSON for each thing that it has done."""
        return self.start(side, sys.executable, PROGRAMS / program, *arguments)

    def transfer(self, total_bytes: int, version: int = 4) -> dict[str, Any]:
        """Returns the sender's stats after the receiver on the right has confirmed every byte from the left."""
        receiver = self.program("right", "worker.py", "receive", HOSTS[version]["right"], total_bytes)
        port = receiver.line()["port"]
        sender = self.program("left", "worker.py", "send", HOSTS[version]["right"], port, total_bytes)
        sent = sender.line()
        received = receiver.line()
        assert received["sha256"] == sent["sha256"]
        stats: dict[str, Any] = sent["stats"]
        return stats
