"""The order in which the peers of a crowd send, where the common window has less than two segments for each.

A port may hold back two hundred peers on a link that carries fifty segments in a round trip.  Then most windows are
closed.  As many segments as fit into the window of all peers are *granted*, one to a peer; when a granted segment
arrives, the next peer in the row hears of an open window.  So the bytes in flight never exceed the window, and no clock
is needed.

A grant that is not used is taken back after a while.  A connection repeats the ack that opens a window, because the ack
may have been lost.  The window of a peer that had nothing to send stays open by its one segment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

PATIENCE_US = 100_000  # time beyond two round trips until an unused grant is taken back


class Waiting(Protocol):
    """A connection whose peer takes turns."""

    granted_bytes: float
    granted_us: int
    segment_bytes: int
    is_in_row: bool

    open_window: Callable[[], None]
    """Tells the peer of a grant."""


class Turns:
    """The connections that wait, in their order, and the sum of the grants."""

    __slots__ = ("_outstanding_bytes", "_row")

    def __init__(self, members: Iterable[Waiting]) -> None:
        self._row: deque[Waiting] = deque()
        self._outstanding_bytes = 0.0
        for member in members:
            member.is_in_row = False
            self._outstanding_bytes += member.granted_bytes

    def on_arrival(self, member: Waiting, arrived_bytes: int) -> None:
        """Bytes of a member have arrived: they use up its grant, and it waits for its next turn."""
        used_bytes = min(float(arrived_bytes), member.granted_bytes)
        member.granted_bytes -= used_bytes
        self._outstanding_bytes -= used_bytes
        if not member.is_in_row:
            member.is_in_row = True
            self._row.append(member)

    def grant(self, window_bytes: float, now_us: int) -> None:
        """Grant one segment each to as many connections as the common window has room for."""
        row = self._row
        while row and self._outstanding_bytes + row[0].segment_bytes <= window_bytes:
            member = row.popleft()
            member.is_in_row = False
            member.granted_bytes += member.segment_bytes
            member.granted_us = now_us
            self._outstanding_bytes += member.segment_bytes
            member.open_window()

    def take_back(self, members: Iterable[Waiting], round_trip_us: int, now_us: int) -> None:
        """Take back grants that were not used in time, and sum up the others."""
        outstanding_bytes = 0.0
        for member in members:
            if member.granted_bytes and now_us - member.granted_us > 2 * round_trip_us + PATIENCE_US:
                member.granted_bytes = 0.0
            outstanding_bytes += member.granted_bytes
        self._outstanding_bytes = outstanding_bytes
