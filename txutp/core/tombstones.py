"""What is left of connections that ended well, to answer their late packets.

The multiplexer calls it: ``put`` when a connection goes, ``get`` when a packet comes that is for none.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from typing import NamedTuple

from txutp.core.batch import Address

# What finds a connection: where its packets come from, and the id in them.
Key = tuple[Address, int]

MAXIMUM_TOMBSTONES = 10_000

# Thousands may rest here, so they are small.
PACKED = struct.Struct("=qHHHI")


class Tombstone(NamedTuple):
    """What has to be known to answer."""

    expires_us: int
    ack: int
    """Of all that it received."""
    send_id: int
    next_sequence: int
    """The number behind its FIN."""
    window_bytes: int


class Tombstones:
    """Of one UDP port, the oldest first."""

    def __init__(self) -> None:
        # the first one is deleted again and again, which is slow in a plain dict
        self._packed: OrderedDict[Key, bytes] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._packed

    def get(self, key: Key, now_us: int) -> Tombstone | None:
        """The one of a connection, if it has one still."""
        packed = self._packed.get(key)
        tombstone = None if packed is None else Tombstone._make(PACKED.unpack(packed))
        return None if tombstone is None or now_us >= tombstone.expires_us else tombstone

    def put(self, key: Key, tombstone: Tombstone, now_us: int) -> None:
        """A connection goes; what is too old, or too much, goes with it."""
        packed = self._packed
        while packed:
            oldest = next(iter(packed))
            expires_us = PACKED.unpack(packed[oldest])[0]
            if expires_us > now_us and len(packed) < MAXIMUM_TOMBSTONES:
                break
            del packed[oldest]
        packed[key] = PACKED.pack(*tombstone)

    def update(self, key: Key, tombstone: Tombstone) -> None:
        """It has heard more."""
        self._packed[key] = PACKED.pack(*tombstone)

    def discard(self, key: Key) -> None:
        """Somebody uses the same ids again."""
        self._packed.pop(key, None)
