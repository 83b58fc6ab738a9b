"""A bottleneck in user space: an IP link between two namespaces, with delay, rate, queue and loss.

``Wire`` lays it.  The link itself is a process of its own, which this module is when it is run: two TUN devices, and a
loop that reads from one and writes to the other when it is time.

    python -m benchmarks.real.wire '{"megabits": 10, "delay_ms": 20, ...}' SENDERS-NAMESPACE RECEIVERS-NAMESPACE

TUN has no segmentation offload unless one asks for it, so each packet comes alone.  What waits has left the sender's
kernel, so nothing but the queue limits it.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import random
import select
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.namespaces import TUN, ip
from benchmarks.processes import Worker, say
from benchmarks.real.hosts import DEVICE, RECEIVER, SENDER, Hosts, hurry

# linux/if_tun.h
TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000

PACKET_BYTES = 2_048
READS = 64  # from one side, before the other one has its turn
DEVICE_PACKETS = 2_000  # wait in the device until the loop reads; the queue that counts is the loop's

LATE_S = 0.001


@dataclass(frozen=True)
class Link:
    """What the link does; rate, queue and counting are those of the way to the receiver."""

    megabits: float = 0.0
    """Of IP packets, headers included; 0 is without limit."""
    delay_ms: float = 0.0
    """One way; both have it."""
    queue_packets: int | None = None
    queue_bytes: int | None = None
    loss: float = 0.0
    """Per packet, on both ways."""
    seed: int = 1


class Wire(Hosts):
    """The link between two hosts."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._process: Worker | None = None

    def lay(self) -> None:
        what = json.dumps(asdict(self._link))
        self._process = self.start_python("between", "wire", what, self.names["sender"], self.names["receiver"])
        self._process.line()

    def counters(self) -> dict[str, Any]:
        assert self._process is not None
        return self._process.ask()


class Way:
    """One direction: packets wait for their turn, then travel."""

    def __init__(self, link: Link, limited: bool, out: int, chance: random.Random) -> None:
        self.out = out
        self.travelling: deque[tuple[float, bytes]] = deque()  # when it arrives, and what
        self.carried_packets = 0
        self.carried_bytes = 0
        self.lost = 0
        self.dropped = 0
        self.late = 0
        self.latest_s = 0.0
        self._seconds_per_byte = 8 / (link.megabits * 1e6) if limited and link.megabits else 0.0
        self._delay_s = link.delay_ms / 1_000
        self._queue_packets = link.queue_packets
        self._queue_bytes = link.queue_bytes
        self._loss = link.loss
        self._chance = chance
        self._free_s = 0.0  # when the last one that came will have left
        self._waiting: deque[tuple[float, int]] = deque()  # when its turn comes, and its size
        self._waiting_bytes = 0

    def take(self, packet: bytes, now_s: float) -> None:
        """A packet comes: it finds no room, gets lost, or will arrive."""
        size = len(packet)
        leaves_s = now_s
        if self._seconds_per_byte:
            waiting = self._waiting
            while waiting and waiting[0][0] <= now_s:
                self._waiting_bytes -= waiting.popleft()[1]
            if (self._queue_packets is not None and len(waiting) >= self._queue_packets) or (
                self._queue_bytes is not None and self._waiting_bytes + size > self._queue_bytes
            ):
                self.dropped += 1
                return
            turn_s = self._free_s
            if turn_s > now_s:
                waiting.append((turn_s, size))
                self._waiting_bytes += size
            else:
                turn_s = now_s
            self._free_s = leaves_s = turn_s + size * self._seconds_per_byte
        # behind the queue, as in the simulated network
        if self._loss and self._chance.random() < self._loss:
            self.lost += 1
            return
        self.carried_packets += 1
        self.carried_bytes += size
        self.travelling.append((leaves_s + self._delay_s, packet))

    def deliver(self, now_s: float) -> None:
        """Hand over what has arrived."""
        travelling = self.travelling
        while travelling and travelling[0][0] <= now_s:
            due_s, packet = travelling.popleft()
            try:
                os.write(self.out, packet)
            except OSError:
                self.dropped += 1
            if now_s - due_s > LATE_S:
                self.late += 1
                self.latest_s = max(self.latest_s, now_s - due_s)

    def counters(self) -> dict[str, float]:
        """What became of the packets."""
        return {
            "packets": self.carried_packets,
            "bytes": self.carried_bytes,
            "lost": self.lost,
            "dropped": self.dropped,
            "late_share": self.late / max(self.carried_packets, 1),
            "latest_ms": self.latest_s * 1_000,
        }


def open_device(name: str) -> int:
    """A TUN device in this namespace; it stays ours when it moves into another one."""
    device = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


def move(name: str, namespace: str, address: str) -> None:
    """Make a device the interface of a host."""
    ip("link", "set", name, "netns", namespace)
    ip("-n", namespace, "link", "set", name, "name", DEVICE)
    ip("-n", namespace, "addr", "add", f"{address}/32", "dev", DEVICE)
    ip("-n", namespace, "link", "set", DEVICE, "mtu", 1_500, "txqueuelen", DEVICE_PACKETS, "up")
    ip("-n", namespace, "route", "add", "default", "dev", DEVICE)


def forward(inputs: dict[int, Way]) -> None:
    """Carry packets until standard input has a line, or ends."""
    control = sys.stdin.fileno()
    files = [*inputs, control]
    ways = list(inputs.values())
    now, read = time.monotonic, os.read
    while True:
        # select, because it knows microseconds; epoll rounds to milliseconds
        due_s = min((way.travelling[0][0] for way in ways if way.travelling), default=None)
        timeout_s = None if due_s is None else max(due_s - now(), 0.0)
        readable, _, _ = select.select(files, [], [], timeout_s)
        for file in readable:
            if file == control:
                return
            take = inputs[file].take
            for _ in range(READS):
                try:
                    packet = read(file, PACKET_BYTES)
                except BlockingIOError:
                    break
                take(packet, now())
        now_s = now()
        for way in ways:
            way.deliver(now_s)


def main() -> None:
    """The process that is the link."""
    description, senders, receivers = sys.argv[1:]
    link = Link(**json.loads(description))
    one, other = open_device("one"), open_device("other")
    move("one", senders, SENDER)
    move("other", receivers, RECEIVER)
    there = Way(link, True, other, random.Random(f"{link.seed}/there"))
    back = Way(link, False, one, random.Random(f"{link.seed}/back"))
    hurry()
    gc.disable()
    say(ready=True)
    forward({one: there, other: back})
    say(there=there.counters(), back=back.counters())


if __name__ == "__main__":
    main()
