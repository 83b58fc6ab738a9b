"""Reads the socket before a timer gives up a silent peer.

A reactor runs timers before it reads.  If this process was paused (a signal, a debugger, a virtual machine), or busy
for long, all timers ring at once while many datagrams of the peers wait in the socket.  ``protocol.py`` asks
``Silence`` whether a timer that has rung may do its work, or has to let the reactor take another turn first.
"""

from __future__ import annotations

from typing import Any

from txutp.core.multiplexer import Multiplexer

# Maximum number of turns; usually one is enough.  They read more than the kernel can hold of unread datagrams.
MAXIMUM_TURNS = 32


class Silence:
    """Tells peers of one UDP port that are silent from peers whose datagrams were not read."""

    def __init__(self, multiplexer: Multiplexer) -> None:
        self._multiplexer = multiplexer
        self._turns = 0  # in a row, that the reactor got for reading
        self._read_before = 0  # datagrams read before the last of these turns
        self._empty_before = 0  # how often the socket was found empty before the first of them

    def must_be_read(self, port: Any, now_us: int, judges: bool) -> bool:
        """Whether a timer that has rung has to wait for the next turn of the reactor.

        It waits only if it would judge a peer (``judges`` says that the caller itself does), until the socket was found
        empty.
        """
        read = self._multiplexer.counters.datagrams_received
        empty = 0 if port is None else port.times_empty
        all_is_read = self._turns > 0 and (read == self._read_before or empty != self._empty_before)
        judges = judges or self._multiplexer.judges_silence(now_us)
        if not judges or all_is_read or self._turns == MAXIMUM_TURNS:
            self._turns = 0
            return False
        if not self._turns:
            self._empty_before = empty
        self._turns += 1
        self._read_before = read
        return True
