"""Batches: datagrams of equal size for one address.

A connection makes a batch; the shell sends it, and tells the connection if the socket refused a part of it.  A single
datagram may wait for others like it until the end of the turn.  A run of several is sent before any connection makes
the next run, because its buffers may lie in memory that the next run uses again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Address = tuple[Any, ...]  # an address of the socket, see address.py
Buffer = bytes | memoryview


UDP_HEADER_BYTES = 8
IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40


def ip_overhead_bytes(address: Address) -> int:
    """Returns the bytes of the IP and UDP headers of a datagram to this address."""
    return UDP_HEADER_BYTES + (IPV6_HEADER_BYTES if ":" in address[0] else IPV4_HEADER_BYTES)


class Batch:
    """``count`` datagrams of ``datagram_bytes`` each (the last may be shorter), as ``buffers`` in order.

    Each datagram is one buffer, or each is two (header, payload).  ``dont_fragment`` asks the network to drop a
    datagram that is too large for the path instead of fragmenting it.  ``alone`` asks for one system call for each
    datagram: virtual interfaces split a run late, and a filter there sees it as one large packet.  ``dscp`` is its
    mark; None is the usual one of the socket.  ``note`` belongs to the maker of the batch, who gets it back if the
    socket refuses the batch.
    """

    __slots__ = ("address", "alone", "buffers", "count", "datagram_bytes", "dont_fragment", "dscp", "note")

    def __init__(
        self, address: Address, buffers: list[Buffer], count: int, datagram_bytes: int, note: Any = None
    ) -> None:
        self.address: Address = address
        self.buffers: list[Buffer] = buffers
        self.count: int = count
        self.datagram_bytes: int = datagram_bytes
        self.dont_fragment: bool = False
        self.alone: bool = False
        self.dscp: int | None = None
        self.note: Any = note

    def last_bytes(self, count: int) -> int:
        """Bytes of the last ``count`` datagrams together."""
        return sum(map(len, self.buffers[-count * len(self.buffers) // self.count :])) if count else 0

    def datagrams(self, start: int = 0) -> Iterator[bytes]:
        """Yields the datagrams from number ``start`` on, each as one ``bytes``."""
        buffers = self.buffers
        step = len(buffers) // self.count
        for index in range(start * step, len(buffers), step):
            yield b"".join(buffers[index : index + step])
