"""Network namespaces as hosts, for benchmarks and tests: joined by cables, with processes in them, gone afterwards.

::

    class Two(Namespaces):
        hosts = ("left", "right")

        def join(self):
            self.cable("left", "eth0", "right", "eth0")

Nothing outside of the namespaces is touched, and their names carry our process id.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from benchmarks.processes import Worker, worker

TUN = "/dev/net/tun"

# A process in a namespace that takes longer than this hangs, and is ended.
LIMIT_SECONDS = 3_600

AnyNamespaces = TypeVar("AnyNamespaces", bound="Namespaces")

_serial = itertools.count()


def why_no_namespaces(*commands: str) -> str:
    """Why there can be no namespaces here, or none in which these commands run; empty if there can."""
    if not sys.platform.startswith("linux") or os.geteuid():
        return "network namespaces need root on Linux"
    for command in ("ip", *commands):
        if shutil.which(command) is None:
            return f"the {command} command is not installed"
    name = f"txutp{os.getpid()}probe"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if made.returncode:
        return f"no namespaces: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return ""


def why_no_tun(*commands: str) -> str:
    """Why there can be no link in user space between namespaces; empty if there can."""
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError as problem:
        return f"{TUN}: {problem.strerror}"
    return why_no_namespaces(*commands)


class Namespaces:
    """Some hosts.  Subclasses name them, and ``join`` them."""

    hosts: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        prefix = f"txutp{os.getpid()}n{next(_serial)}"
        self.names = {host: f"{prefix}{host}" for host in self.hosts}
        self._processes = ExitStack()

    def __enter__(self: AnyNamespaces) -> AnyNamespaces:
        try:
            for name in self.names.values():
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            self.join()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        # an impatient second Ctrl-C shall not leave anything behind
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._processes.close()
            for name in self.names.values():
                subprocess.run(["ip", "netns", "del", name], capture_output=True)
        finally:
            signal.signal(signal.SIGINT, before)

    def join(self) -> None:
        """Lay the cables."""

    def cable(self, left: str, left_device: str, right: str, right_device: str) -> None:
        """Connect two hosts; the ends have no addresses and are down."""
        one, other = self.names[left], self.names[right]
        ip("link", "add", left_device, "netns", one, "type", "veth", "peer", "name", right_device, "netns", other)

    def sysctl(self, host: str, setting: str) -> None:
        """Change a setting of the kernel for one host."""
        call("ip", "netns", "exec", self.names[host], "sysctl", "-qw", setting)

    def start(self, host: str, *words: object) -> Worker:
        """Start a process on a host; it is ended with the namespaces."""
        return self.keep(["ip", "netns", "exec", self.names[host], *map(str, words)])

    def keep(self, command: list[str]) -> Worker:
        """Start a process that is ended with the namespaces."""
        return self._processes.enter_context(worker(command, limit_seconds=LIMIT_SECONDS))


def ip(*words: object) -> None:
    """Run one ip command."""
    call("ip", *words)


def call(*words: object) -> None:
    """Run a command that has to succeed; RuntimeError has what it says against it."""
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
