"""A path between two namespaces that delays, loses and reorders IP packets, in a program of its own.

::

    with Link(Quality(delay_us=25_000, loss=0.02, reordering=0.02)) as link:
        subprocess.run(["ip", "netns", "exec", link.names["server"], ...])

Each namespace has a TUN interface, and the program carries packets from one to the other.  It needs root on Linux and
/dev/net/tun; queueing disciplines such as netem are not needed.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import itertools
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tests.namespaces.support import ROOT, ip, why_not

HOSTS = {"client": "10.79.3.1", "server": "10.79.3.2"}
DEVICE = "tun0"

# How much later than others a reordered packet arrives; some dozens of packets of a busy stream overtake it.
REORDERING_SECONDS = 0.01

MAXIMUM_PACKET_BYTES = 65_536
PACKETS_PER_TURN = 64
QUEUE_PACKETS = 5_000

# of <linux/if_tun.h> and <sched.h>
TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
CLONE_NEWNET = 0x40000000

_serial = itertools.count()


@dataclass(frozen=True)
class Quality:
    """What happens to a packet, each way; loss and reordering are probabilities."""

    delay_us: int = 0
    loss: float = 0.0
    reordering: float = 0.0
    seed: int = 1


def why_no_link() -> str:
    """Why there cannot be a link here; empty if there can."""
    if reason := why_not():
        return reason
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR))
    except OSError as error:
        return f"no TUN interfaces: {error}"
    return ""


class Link:
    """Two namespaces, ``client`` and ``server``, with a path between them, gone afterwards."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        prefix = f"txutp{os.getpid()}t{next(_serial)}"
        self.names = {side: f"{prefix}{side}" for side in HOSTS}
        self._carrier: subprocess.Popen[str] | None = None

    def __enter__(self) -> Link:
        try:
            for name in self.names.values():
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            command = [sys.executable, str(Path(__file__)), json.dumps(asdict(self.quality)), *self.names.values()]
            self._carrier = subprocess.Popen(
                command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
            )
            assert self._carrier.stdout is not None
            if not self._carrier.stdout.readline():
                raise RuntimeError("the link's program ended; its error is above")
            for side, far in (("client", "server"), ("server", "client")):
                name = self.names[side]
                ip("-n", name, "addr", "add", HOSTS[side], "peer", HOSTS[far], "dev", DEVICE)
                ip("-n", name, "link", "set", DEVICE, "mtu", 1500, "txqueuelen", QUEUE_PACKETS, "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        if self._carrier is not None:
            self._carrier.kill()
            self._carrier.wait()
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def enter(namespace: int) -> None:
    """Make this thread one of a network namespace; os.setns came with Python 3.12."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def open_tun(namespace: str) -> int:
    """Make the interface inside of a namespace; its file descriptor works outside, too."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    inside = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    enter(inside)
    try:
        tun = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), IFF_TUN_WITHOUT_HEADER))
    finally:
        enter(home)
        os.close(inside)
        os.close(home)
    return tun


def carry(ends: list[int], quality: Quality) -> None:
    """Carry packets between two interfaces until the program is killed."""
    chance = random.Random(quality.seed)
    order = itertools.count()
    under_way: list[tuple[float, int, int, bytes]] = []  # when it arrives, a serial number, where, the packet
    far = {ends[0]: ends[1], ends[1]: ends[0]}
    delay_seconds = quality.delay_us / 1e6
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select(ends, [], [], patience)
        for end in readable:
            for _ in range(PACKETS_PER_TURN):
                try:
                    packet = os.read(end, MAXIMUM_PACKET_BYTES)
                except OSError:  # no more packets, or the interface is not up yet
                    break
                if chance.random() < quality.loss:
                    continue
                arrival = time.monotonic() + delay_seconds
                if chance.random() < quality.reordering:
                    arrival += REORDERING_SECONDS
                heapq.heappush(under_way, (arrival, next(order), far[end], packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, end, packet = heapq.heappop(under_way)
            with contextlib.suppress(OSError):  # a full queue loses it, as queues do
                os.write(end, packet)


def main() -> None:
    """``link.py QUALITY NAMESPACE NAMESPACE``: make the interfaces, say so, and carry."""
    quality, *names = sys.argv[1:]
    ends = [open_tun(name) for name in names]
    print("ready", flush=True)
    carry(ends, Quality(**json.loads(quality)))


if __name__ == "__main__":
    main()
