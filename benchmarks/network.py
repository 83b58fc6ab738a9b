"""The paths on which is measured: loopback, a cable between two namespaces, or a router with a rate or losses.

::

    with Routed() as network:
        network.limit(100)

Nothing outside of the namespaces is touched, their names carry our process id, and they are gone afterwards.
"""

from __future__ import annotations

import subprocess
from types import TracebackType
from typing import TypeVar

from benchmarks import namespaces
from benchmarks.namespaces import call, ip
from benchmarks.processes import Host

# A router's queue holds so much.
QUEUE_MILLISECONDS = 200

# tbf lets so much pass at once: two packets at least, and what a timer may be late.
SMALLEST_BURST_BYTES = 6_000
BURST_SECONDS = 0.000_25

# Classic BPF: load a random number, modulo, and if nothing remains, drop the packet (2), else go on (-1).
RANDOM_DROP = "5,32 0 0 4294963256,148 0 0 {one_of},21 0 1 0,6 0 0 2,6 0 0 4294967295"

AnyNetwork = TypeVar("AnyNetwork", bound="Network")


def why_no_namespaces() -> str:
    """Why these networks cannot be made here; empty if they can."""
    return namespaces.why_no_namespaces("tc", "sysctl")


class Network:
    """A sender and a receiver on this machine's loopback interface."""

    def __init__(self) -> None:
        self.sender = self.receiver = Host("127.0.0.1")

    def __enter__(self: AnyNetwork) -> AnyNetwork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing was made."""

    def dropped_datagrams(self) -> int | None:
        """How many were lost so far because a UDP socket was full; None if others can be among them."""
        return None


class Namespaces(namespaces.Namespaces, Network):
    """What is made of namespaces; ``join`` sets ``sender`` and ``receiver``."""

    def connect(self, left: str, left_device: str, right: str, right_device: str, net: int) -> None:
        """A cable from one host to another, with addresses 10.79.net.1 and .2."""
        self.cable(left, left_device, right, right_device)
        for host, device, last in ((left, left_device, 1), (right, right_device, 2)):
            ip("-n", self.names[host], "addr", "add", f"10.79.{net}.{last}/24", "dev", device)
            ip("-n", self.names[host], "link", "set", device, "up")

    def dropped_datagrams(self) -> int | None:
        text = subprocess.run(
            self.receiver.command("cat", "/proc/net/snmp"), capture_output=True, text=True, check=True
        ).stdout
        names, numbers = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
        return int(numbers[names.index("RcvbufErrors")])


class Alone(Namespaces):
    """The loopback interface of a namespace that nobody else uses."""

    hosts = ("alone",)

    def join(self) -> None:
        self.sender = self.receiver = Host("127.0.0.1", self.names["alone"])


class Cable(Namespaces):
    """Two hosts with a cable (veth) between them; the kernel hands bursts over uncut."""

    hosts = ("left", "right")

    def join(self) -> None:
        self.connect("left", "eth0", "right", "eth0", 1)
        self.sender = Host("10.79.1.1", self.names["left"])
        self.receiver = Host("10.79.1.2", self.names["right"])


class Routed(Namespaces):
    """Two hosts and a router that sends each datagram on alone, as a network card would.

    The queue has to be in a router: what waits in the sender's own interface counts against its socket's buffer.
    """

    hosts = ("left", "router", "right")

    def join(self) -> None:
        self.connect("left", "eth0", "router", "eth1", 1)
        self.connect("router", "eth2", "right", "eth0", 2)
        left, router, right = self.names.values()
        ip("-n", left, "route", "add", "default", "via", "10.79.1.2")
        ip("-n", right, "route", "add", "default", "via", "10.79.2.1")
        ip("-n", router, "link", "set", "eth2", "gso_max_segs", 1)
        self.sysctl("router", "net.ipv4.ip_forward=1")
        self.sender = Host("10.79.1.1", left)
        self.receiver = Host("10.79.2.2", right)

    def limit(self, megabits: float) -> None:
        """How much passes in a second on the way to the receiver."""
        burst = max(SMALLEST_BURST_BYTES, int(megabits * 1e6 / 8 * BURST_SECONDS))
        rate = ("rate", f"{megabits}mbit", "burst", str(burst), "latency", f"{QUEUE_MILLISECONDS}ms")
        call("tc", "-n", self.names["router"], "qdisc", "replace", "dev", "eth2", "root", "tbf", *rate)

    def lose(self, one_of: int) -> None:
        """Lose one datagram of so many on the way to the receiver; ``RuntimeError`` if the kernel cannot."""
        right = self.names["right"]
        call("tc", "-n", right, "qdisc", "replace", "dev", "eth0", "clsact")
        program = ("bpf", "direct-action", "bytecode", RANDOM_DROP.format(one_of=one_of))
        call("tc", "-n", right, "filter", "add", "dev", "eth0", "ingress", "protocol", "ip", "prio", "1", *program)
