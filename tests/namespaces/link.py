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
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.namespaces import TUN, Namespaces, ip

HOSTS = {"client": "10.79.3.1", "server": "10.79.3.2"}
DEVICE = "tun0"

# How much later than others a reordered packet arrives; some dozens of packets of a busy stream overtake it.
REORDERING_SECONDS = 0.01

MAXIMUM_PACKET_BYTES = 65_536
PACKETS_PER_TURN = 64
QUEUE_PACKETS = 5_000

# of <linux/if_tun.h> and <sched.h>
TUNSETIFF = 0x400454CA
IFF_TUN_WITHOUT_HEADER = 0x1001
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Quality:
    """What happens to a packet, each way; loss and reordering are probabilities."""

    delay_us: int = 0
    loss: float = 0.0
    reordering: float = 0.0
    seed: int = 1


class Link(Namespaces):
    """Two namespaces, ``client`` and ``server``, with a path between them, gone afterwards."""

    hosts = ("client", "server")

    def __init__(self, quality: Quality) -> None:
        super().__init__()
        self.quality = quality

    def join(self) -> None:
        what = json.dumps(asdict(self.quality))
        self.keep([sys.executable, str(Path(__file__)), what, *self.names.values()]).line()
        for side, far in (("client", "server"), ("server", "client")):
            name = self.names[side]
            ip("-n", name, "addr", "add", HOSTS[side], "peer", HOSTS[far], "dev", DEVICE)
            ip("-n", name, "link", "set", DEVICE, "mtu", 1500, "txqueuelen", QUEUE_PACKETS, "up")


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
        tun = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
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
    print(json.dumps({"ready": True}), flush=True)
    carry(ends, Quality(**json.loads(quality)))


if __name__ == "__main__":
    main()
