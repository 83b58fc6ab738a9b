"""How long a small datagram takes from the sender's host to the receiver's, every 20 ms, and what the receiver's
interface has got.

    python -m benchmarks.real.probe receive
    python -m benchmarks.real.probe send

This is a ping of one way: both ends read the same clock, so nobody has to answer, and what waits on the way back does
not count.  The moment of arrival is the kernel's, so it does not matter when this process wakes up.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.processes import listen, say
from benchmarks.real.hosts import DEVICE, RECEIVER, hurry
from benchmarks.scenarios.measure import BINS_PER_SECOND

PORT = 6_999
INTERVAL_S = 0.02

SO_TIMESTAMPNS = 35  # asm-generic/socket.h
STAMP = struct.Struct("=Q")  # nanoseconds of the wall clock, at sending
TIMESPEC = struct.Struct("@qq")
NANOSECONDS = 1_000_000_000


def received_bytes() -> int:
    """What this host's interface has got so far, headers of IP included."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == DEVICE:
            return int(numbers.split()[0])
    raise RuntimeError(f"there is no {DEVICE}")


def receive() -> None:
    """Take probes until the end, then tell: when each was sent, in seconds from zero, and how long it took."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.bind((RECEIVER, PORT))
    here.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    here.settimeout(INTERVAL_S)
    say(ready=True)
    order = listen()
    hurry()
    zero_ns = time.time_ns() - round((time.monotonic() - order["zero"]) * NANOSECONDS)
    sent_s: list[float] = []
    delays_ms: list[float] = []
    carried_bytes = [received_bytes()]  # at the beginning of each tenth of a second
    while (elapsed_s := time.monotonic() - order["zero"]) < order["end_s"]:
        if elapsed_s * BINS_PER_SECOND >= len(carried_bytes):
            count = received_bytes()
            while len(carried_bytes) <= elapsed_s * BINS_PER_SECOND:
                carried_bytes.append(count)
        try:
            data, ancillary, _, _ = here.recvmsg(64, 64)
        except TimeoutError:
            continue
        (stamp,) = STAMP.unpack(data)
        seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2][: TIMESPEC.size])
        sent_s.append((stamp - zero_ns) / NANOSECONDS)
        delays_ms.append((seconds * NANOSECONDS + nanoseconds - stamp) / 1e6)
    say(sent_s=sent_s, delays_ms=delays_ms, carried_bytes=carried_bytes)


def send() -> None:
    """Send probes until the end."""
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.connect((RECEIVER, PORT))
    say(ready=True)
    order = listen()
    hurry()
    next_s = time.monotonic()
    while next_s < order["zero"] + order["end_s"]:
        time.sleep(max(next_s - time.monotonic(), 0.0))
        # if the interface is full this one is lost, as on the way
        with suppress(OSError):
            here.send(STAMP.pack(time.time_ns()))
        next_s += INTERVAL_S
    say(ended=True)


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]]()
