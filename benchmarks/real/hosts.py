"""The hosts of a run, in network namespaces.  ``router.py`` and ``wire.py`` join them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import namespaces
from benchmarks.processes import Worker

COMMANDS = ("tc", "sysctl")

SENDER = "10.83.1.1"
RECEIVER = "10.83.2.1"

DEVICE = "eth0"  # of every host


def why_not() -> str:
    """Why there can be no hosts here; empty if there can."""
    return namespaces.why_no_namespaces(*COMMANDS)


def why_no_wire() -> str:
    """Why there can be no link in user space; empty if there can."""
    return namespaces.why_no_tun(*COMMANDS)


class Hosts(namespaces.Namespaces):
    """``sender``, ``receiver`` and one between them.  Subclasses say in ``lay`` how they are joined."""

    hosts = ("sender", "receiver", "between")

    def join(self) -> None:
        for host in self.hosts:
            # neither router solicitations nor neighbours of IPv6 shall take a place in the queue
            self.sysctl(host, "net.ipv6.conf.all.disable_ipv6=1")
        self.lay()

    def lay(self) -> None:
        """Make the bottleneck."""
        raise NotImplementedError

    def counters(self) -> dict[str, Any]:
        """What the bottleneck has seen; it may carry nothing after that."""
        return {}

    def start_python(self, host: str, module: str, *words: object) -> Worker:
        """Start a module of this package on a host."""
        return self.start(host, sys.executable, "-m", f"benchmarks.real.{module}", *words)


def hurry() -> None:
    """Let this process have a processor whenever it wants one: it stands for hardware, which does not wait for any."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        # as precise as it gets without: timers are not rounded to 50 microseconds
        Path("/proc/self/timerslack_ns").write_text("1")
