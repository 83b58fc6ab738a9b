"""The received data that all connections of a UDP port hold, within one limit.

``ReceiveMemory`` belongs to the multiplexer.  Each ``ReceiveBuffer`` charges early segments to it when they come, and
data in order if its reader has not taken them by the end of the turn.  Data that a reader takes at once are never
charged, so they cost one comparison.  The unread data of a connection that has ended stay charged.

Fairness
    *One connection may hold a quarter of the memory that is free on the port* (Choudhury and Hahne, "Dynamic Queue
    Length Thresholds", 1998).  While most of it is free, a quarter is more than the buffer of a connection.  When many
    connections hold all they may, a new connection has the same limit as they have, and memory stays free for it: ``n``
    connections leave ``4 / (n + 4)`` of the limit free.

When memory is short
    Windows shrink to the share of a connection.  Segments beyond it are refused: they are not acknowledged, so the peer
    retransmits them later.  Acknowledged segments are kept.  The segment that is next in order is accepted whenever its
    reader has taken everything before it (``receiving.py``), and the window leaves room for it, so each connection
    moves on.  So a port holds at most the limit, one segment for each connection, and the bytes read in one turn.
"""

from __future__ import annotations

from txutp.core.stats import PortCounters

# Bytes of memory for a segment besides its payload: the object that holds it, and its place in a list or a dictionary.
OBJECT_BYTES = 100

# Divisor of the free memory that yields the share of one connection.
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
        """A connection holds ``change_bytes`` more than before, or less if that is negative."""
        self.held_bytes += change_bytes
        free_bytes = self.limit_bytes - self.held_bytes
        self.share_bytes = free_bytes // SHARES if free_bytes > 0 else 0

    def limit(self, limit_bytes: int) -> None:
        """Change the limit of the port."""
        self.limit_bytes = limit_bytes
        self.charge(0)
