"""What all connections of a UDP port hold of received data, within one limit.

``ReceiveMemory`` belongs to the multiplexer; each ``ReceiveBuffer`` charges to it what stays: early segments when they
come, and data in order when its reader has not taken it by the end of the turn.  What a reader takes at once is never
charged, so it costs one comparison.  Readers that are paused when their connection ends go on being charged.

Fairness
    *One connection may hold a quarter of what is still free on the port* (Choudhury and Hahne, "Dynamic Queue Length
    Thresholds", 1998).  As long as much is free that is more than any connection may hold anyway.  When a crowd holds
    all it can, its members and a newcomer have the same limit, and a part of the memory is free for newcomers:
    a crowd of ``n`` leaves ``4 / (n + 4)`` of the limit free.

When memory is short
    Windows shrink to what a connection may hold.  Segments beyond it are refused, which means that they are not
    acknowledged and come again later.  What was acknowledged is kept.  The segment that is next in order is accepted
    whenever its reader has taken everything before it (``receiving.py``), and the window leaves room for it, so each
    connection moves on.  So a port holds no more than the limit, one segment for each connection, and what is read in
    one turn.
"""

from __future__ import annotations

from txutp.core.stats import PortCounters

# Memory for a segment besides its payload: the object that holds it, and its place in a list or a dictionary.
OBJECT_BYTES = 100

# What one connection may hold is the free part of the limit, divided by this.
SHARES = 4

# The smallest window of a connection whose reader has taken everything: one segment on any path.
LEAST_WINDOW_BYTES = 1_500


class ReceiveMemory:
    """The received data that one UDP port holds, in bytes with ``OBJECT_BYTES`` for each segment."""

    __slots__ = ("counters", "held_bytes", "limit_bytes", "share_bytes")

    def __init__(self, limit_bytes: int, counters: PortCounters) -> None:
        self.counters: PortCounters = counters
        self.held_bytes: int = 0
        self.limit_bytes: int = limit_bytes
        self.share_bytes: int = limit_bytes // SHARES  # what one connection may hold now

    def charge(self, change_bytes: int) -> None:
        """A connection holds so much more, or less if it is negative."""
        self.held_bytes += change_bytes
        free_bytes = self.limit_bytes - self.held_bytes
        self.share_bytes = free_bytes // SHARES if free_bytes > 0 else 0

    def limit(self, limit_bytes: int) -> None:
        """From now on the port may hold so much."""
        self.limit_bytes = limit_bytes
        self.charge(0)
