"""Datagrams in runs (GSO and GRO) without any protocol: what the kernel and Python's system calls leave room for.

Verbs: receive and send.  Options: host, bytes, datagram_bytes, run_datagrams; for send also port.  The receiver joins
what has come as a transport would for its application.  Every so often it says with one datagram how much it has, and
the sender is never far ahead of that: without it half would be lost in the receiver's buffer, for nothing.
"""

from __future__ import annotations

import select
import socket
import struct
from contextlib import suppress

from benchmarks.ends.talk import Stopwatch, Words, say, told
from txutp.udp.ports import ANCILLARY_BYTES

KERNEL_BUFFER_BYTES = 4 << 20

# linux/udp.h
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
LARGEST_DATAGRAM_BYTES = 65_535

# The sender is at most so far ahead, and the receiver joins and acknowledges so much at a time.
WINDOW_BYTES = 1 << 20
JOINED_BYTES = 256 * 1024

# Something was lost if nothing happens for so long.
PATIENCE_SECONDS = 0.2
END = b"end"


def opened(host: str) -> socket.socket:
    """A UDP socket with large buffers."""
    new = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        new.setsockopt(socket.SOL_SOCKET, option, KERNEL_BUFFER_BYTES)
    new.bind((host, 0))
    return new


def receive(options: Words) -> None:
    """Count until the sender says that it has ended."""
    udp_socket = opened(options["host"])
    udp_socket.setsockopt(SOL_UDP, UDP_GRO, 1)
    say({"port": udp_socket.getsockname()[1]})
    stopwatch = None
    pieces: list[bytes] = []
    received_bytes = told_bytes = 0
    result: Words = {}
    while True:
        data, _, _, address = udp_socket.recvmsg(LARGEST_DATAGRAM_BYTES, ANCILLARY_BYTES)
        if data == END:
            break
        if stopwatch is None:
            stopwatch = Stopwatch()
        pieces.append(data)
        received_bytes += len(data)
        if received_bytes - told_bytes >= JOINED_BYTES or received_bytes >= options["bytes"]:
            b"".join(pieces)
            pieces.clear()
            told_bytes = received_bytes
            udp_socket.sendto(struct.pack("=Q", received_bytes), address)
            result = stopwatch.read() | {"received_bytes": received_bytes}
    say(result)


def send(options: Words) -> None:
    """Send until the other side has all, or what was not lost."""
    udp_socket = opened("")
    udp_socket.connect((options["host"], options["port"]))
    udp_socket.setblocking(False)
    datagram_bytes, run_datagrams = options["datagram_bytes"], options["run_datagrams"]
    run = [bytes(datagram_bytes * run_datagrams)]
    ancillary = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", datagram_bytes))] if run_datagrams > 1 else []
    sent_bytes = arrived_bytes = calls = 0
    stopwatch = Stopwatch()
    while arrived_bytes < options["bytes"]:
        if sent_bytes < options["bytes"] and sent_bytes - arrived_bytes < WINDOW_BYTES:
            try:
                sent_bytes += udp_socket.sendmsg(run, ancillary)
                calls += 1
            except BlockingIOError:
                select.select([], [udp_socket], [])
        wait = sent_bytes >= options["bytes"] or sent_bytes - arrived_bytes >= WINDOW_BYTES
        if wait and not select.select([udp_socket], [], [], PATIENCE_SECONDS)[0]:
            if sent_bytes >= options["bytes"]:
                break
            arrived_bytes = sent_bytes
        with suppress(BlockingIOError):
            (arrived_bytes,) = struct.unpack("=Q", udp_socket.recv(8))
    result = stopwatch.read() | {"datagrams_per_send_call": run_datagrams}
    udp_socket.send(END)
    say(result)


if __name__ == "__main__":
    verb, given = told()
    {"receive": receive, "send": send}[verb](given)
