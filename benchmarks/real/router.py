"""A bottleneck of the kernel's own: sender, router and receiver on virtual cables, ``tbf`` in the router.

The queue has to be in a router.  On the sender's own interface what waits would still count against the socket's
buffer and TCP's small queues: the queue could not grow, and who comes late would find no room.

There is no delay but that of the cables, some hundredths of a millisecond.
"""

from __future__ import annotations

from benchmarks.namespaces import call, ip
from benchmarks.real.hosts import DEVICE, RECEIVER, SENDER, Hosts

NEAR = "10.83.1.2"
FAR = "10.83.2.2"

BURST = "6kb"
LONGEST_PACKET_BYTES = 1_514


class Router(Hosts):
    """A router that sends so much to the receiver, and holds so many packets; rate 0 is without limit."""

    def __init__(self, megabits: float, queue_packets: int) -> None:
        super().__init__()
        self._megabits = megabits
        self._queue_packets = queue_packets

    def lay(self) -> None:
        router = self.names["between"]
        for host, device, address, gateway in (("sender", "in", SENDER, NEAR), ("receiver", "out", RECEIVER, FAR)):
            name = self.names[host]
            self.cable(host, DEVICE, "between", device)
            for each, end, own in ((name, DEVICE, address), (router, device, gateway)):
                ip("-n", each, "addr", "add", f"{own}/24", "dev", end)
                # Off with the offloads, or whole bursts would travel, wait and get lost as one packet.
                ip("-n", each, "link", "set", end, "gso_max_segs", 1, "up")
            ip("-n", name, "route", "add", "default", "via", gateway)
        self.sysctl("between", "net.ipv4.ip_forward=1")
        if self._megabits:
            self._limit(router)

    def _limit(self, router: str) -> None:
        shape = ("tc", "-n", router, "qdisc", "add", "dev", "out")
        rate = f"{round(self._megabits * 1_000)}kbit"
        limit_bytes = self._queue_packets * LONGEST_PACKET_BYTES
        call(*shape, "root", "handle", "1:", "tbf", "rate", rate, "burst", BURST, "limit", limit_bytes)
        # counted in packets, as the scenarios say it
        call(*shape, "parent", "1:1", "handle", "10:", "pfifo", "limit", self._queue_packets)
