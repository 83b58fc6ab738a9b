"""Tombstones: the state of closed connections that answers their late packets.

The multiplexer calls ``put`` when a connection ends well, and ``get`` when a packet belongs to no connection.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import NamedTuple

from txutp.core.batch import Address

# The key of a connection: the address that its packets come from, and the id in them.
Key = tuple[Address, int]

MAXIMUM_TOMBSTONES = 10_000

# A packed tombstone: there may be thousands.
PACKED = struct.Struct("=qHHHI")


class Tombstone(NamedTuple):
    """The numbers that an answer needs."""

    expires_us: int
    ack: int
    """Number of the last packet that the connection received."""
    send_id: int
    next_sequence: int
    """The number behind its FIN."""
    window_bytes: int


class Tombstones:
    """The tombstones of one UDP port, the oldest first."""

    def __init__(self) -> None:
        # the first entry is deleted often, which is slow in a plain dict
        self._packed: OrderedDict[Key, bytes] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._packed

    def get(self, key: Key, now_us: int) -> Tombstone | None:
        """Returns the tombstone of a connection; None if there is none, or it has expired."""
        packed = self._packed.get(key)
        tombstone = None if packed is None else Tombstone._make(PACKED.unpack(packed))
        return None if tombstone is None or now_us >= tombstone.expires_us else tombstone

    def put(self, key: Key, tombstone: Tombstone, now_us: int) -> None:
        """Add a tombstone, and remove those that have expired or are too many."""
        packed = self._packed
        while packed:
            oldest = next(iter(packed))
            expires_us = PACKED.unpack(packed[oldest])[0]
            if expires_us > now_us and len(packed) < MAXIMUM_TOMBSTONES:
                break
            del packed[oldest]
        packed[key] = PACKED.pack(*tombstone)

    def update(self, key: Key, tombstone: Tombstone) -> None:
        """Replace a tombstone, because a late packet has changed it."""
        self._packed[key] = PACKED.pack(*tombstone)

    def discard(self, key: Key) -> None:
        """Remove a tombstone: a new connection has the same ids."""
        self._packed.pop(key, None)
