"""What leaves: some datagrams of equal size for one address.

A connection makes a batch, the shell sends it at once and tells the connection if the socket refused some of it.  So
a batch is never stored, and its buffers may lie in memory that the next batch uses again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Address = tuple[Any, ...]  # what the socket calls it: (host, port), for scoped IPv6 (host, port, flow, scope)
Buffer = bytes | memoryview


class Batch:
    """``count`` datagrams of ``datagram_bytes`` each (the last may be shorter), as ``buffers`` in order.

    A datagram is one buffer, or two (header, payload); all datagrams of a batch alike.
    """

    __slots__ = ("address", "buffers", "count", "datagram_bytes")

    def __init__(self, address: Address, buffers: list[Buffer], count: int, datagram_bytes: int) -> None:
        self.address = address
        self.buffers = buffers
        self.count = count
        self.datagram_bytes = datagram_bytes

    def datagrams(self, start: int = 0) -> Iterator[bytes]:
        """The datagrams from number ``start`` on, each joined into one ``bytes``."""
        buffers = self.buffers
        step = len(buffers) // self.count
        for index in range(start * step, len(buffers), step):
            yield b"".join(buffers[index : index + step])
