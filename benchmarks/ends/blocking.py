"""One stream into a plain program: a blocking UDP socket, and one acknowledgement for each turn of reading.

Verb: receive.  Options: host, bytes, kernel_buffers.  Many peers are written like this, and few of them ask for a
larger receive buffer.  It speaks as much of BEP 29 as a receiver needs and shares no code with txutp.
"""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from benchmarks.ends.talk import Stopwatch, Words, say, told

# Type and version, extension, connection id, timestamp, difference, window, sequence number, acknowledgement (BEP 29).
HEADER = struct.Struct("!BBHIIIHH")
DATA, FIN, STATE, _, SYN = range(5)
VERSION = 1
SELECTIVE_ACK = 1

# The window that libutp, libtorrent and anacrolix/utp tell.
WINDOW_BYTES = 1 << 20
LARGEST_DATAGRAM_BYTES = 65_535

# Datagrams in a turn of reading, which ends earlier if the socket is empty.
BURST_DATAGRAMS = 64

# Packets farther ahead of the acknowledgement are dropped, as libutp does.
AHEAD_PACKETS = 1023

LARGE_BUFFER_BYTES = 4 << 20

# Seconds until an unanswered FIN is repeated, and the number of times.
FIN_SECONDS = 0.5
FIN_TRIES = 6


class Receiver:
    """The accepting side of one connection, which sends nothing but acknowledgements and its FIN."""

    def __init__(self, udp_socket: socket.socket, total_bytes: int) -> None:
        self.socket = udp_socket
        self.missing_bytes = total_bytes
        self.address: Any = None
        self.connection_id = 0
        self.sequence = 1  # of our FIN; a STATE carries the number of the next packet
        self.acknowledged = 0  # the last packet that came in order
        self.ahead: dict[int, tuple[int, bytes]] = {}  # what came before its turn: type and payload
        self.difference_us = 0
        self.ended = False  # whether the peer's FIN has come in order
        self.fin_acknowledged = False

    def take(self, datagram: bytes, address: Any) -> None:
        """Look at one packet."""
        kind, extension, connection_id, sent_us, _, _, sequence, acknowledged = HEADER.unpack_from(datagram)
        kind >>= 4
        if kind == SYN and self.address is None:
            self.address, self.connection_id, self.acknowledged = address, connection_id, sequence
        elif address != self.address or kind not in (DATA, FIN, STATE):
            return
        self.difference_us = (time.monotonic_ns() // 1000 - sent_us) & 0xFFFFFFFF
        self.fin_acknowledged |= self.ended and acknowledged == self.sequence
        if kind in (DATA, FIN) and 0 < (sequence - self.acknowledged) & 0xFFFF <= AHEAD_PACKETS:
            self.ahead[sequence] = kind, payload_of(datagram, extension)
            self.deliver()

    def deliver(self) -> None:
        """Count the payload that is in order."""
        while not self.ended:
            sequence = (self.acknowledged + 1) & 0xFFFF
            if sequence not in self.ahead:
                return
            kind, payload = self.ahead.pop(sequence)
            self.acknowledged = sequence
            self.missing_bytes -= len(payload)
            self.ended = kind == FIN

    def answer(self) -> None:
        """Acknowledge everything that has come, with the FIN of ours if the peer's was among it."""
        kind = FIN if self.ended and not self.fin_acknowledged else STATE
        sequence = self.sequence + (kind == STATE and self.ended)
        selective = self.selective_ack()
        header = HEADER.pack(
            kind << 4 | VERSION,
            SELECTIVE_ACK if selective else 0,
            self.connection_id,
            time.monotonic_ns() // 1000 & 0xFFFFFFFF,
            self.difference_us,
            WINDOW_BYTES,
            sequence,
            self.acknowledged,
        )
        self.socket.sendto(header + selective, self.address)

    def selective_ack(self) -> bytes:
        """Bit i stands for the packet i + 2 after the acknowledged one; the length is a multiple of four bytes."""
        bits = 0
        for sequence in self.ahead:
            bits |= 1 << ((sequence - self.acknowledged - 2) & 0xFFFF)
        length = 4 * -(-bits.bit_length() // 32)
        return bytes([0, length]) + bits.to_bytes(length, "little") if length else b""


def payload_of(datagram: bytes, extension: int) -> bytes:
    """The bytes behind header and extensions."""
    start = HEADER.size
    while extension:
        extension, length = datagram[start : start + 2]
        start += 2 + length
    return datagram[start:]


def burst(udp_socket: socket.socket) -> Iterator[tuple[bytes, Any]]:
    """Wait for a datagram, and read what else is there."""
    yield udp_socket.recvfrom(LARGEST_DATAGRAM_BYTES)
    with suppress(BlockingIOError):
        for _ in range(BURST_DATAGRAMS - 1):
            yield udp_socket.recvfrom(LARGEST_DATAGRAM_BYTES, socket.MSG_DONTWAIT)


def receive(options: Words) -> None:
    """Take one connection, and leave when the peer has heard that all is here."""
    udp_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if options.get("kernel_buffers") != "unasked":
        udp_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LARGE_BUFFER_BYTES)
    udp_socket.bind((options["host"], 0))
    say({"port": udp_socket.getsockname()[1]})
    receiver = Receiver(udp_socket, options["bytes"])
    stopwatch: Stopwatch | None = None
    result: Words = {}
    tries = FIN_TRIES
    while not receiver.fin_acknowledged and tries:
        if receiver.ended and not select.select([udp_socket], [], [], FIN_SECONDS)[0]:
            tries -= 1
        else:
            for datagram, address in burst(udp_socket):
                receiver.take(datagram, address)
        stopwatch = stopwatch or Stopwatch()
        if not receiver.missing_bytes and not result:
            result = stopwatch.read()
        if receiver.address is not None:
            receiver.answer()
    if not result:
        sys.exit(f"{receiver.missing_bytes} bytes did not come")
    say(result | {"granted_receive_bytes": udp_socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)})


if __name__ == "__main__":
    verb, given = told()
    {"receive": receive}[verb](given)
