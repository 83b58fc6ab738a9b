"""The receiving half of a connection: segments become stream bytes in order, early ones wait within a byte limit.

The connection calls it.  Three steps: ``insert`` takes segments, ``ready`` collects those in order, ``take`` returns
their bytes for the application.  A segment that is not held here is not acknowledged, so the peer keeps it.

Two promises
    *The segment that is next in order is accepted as soon as the application has taken everything before it*, whatever
    waits behind the gap, and however small the buffer has become.  So a lost segment is accepted when it is
    retransmitted, and two sides that are alive always move on.  For this promise the buffer may hold one segment more
    than ``capacity_bytes``.

    *An accepted segment is never dropped.*  Early segments are acknowledged selectively, and libutp forgets such a
    segment at once: it could not retransmit it.

All buffers of a UDP port together have a limit as well, see ``memory.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txutp.core.memory import LEAST_WINDOW_BYTES, OBJECT_BYTES, ReceiveMemory

IN_ORDER, EARLY, DUPLICATE, REFUSED = range(4)

# The shared empty dictionary of all buffers without early segments.
NONE_EARLY: dict[int, bytes] = {}

# The shared empty list of buffers without bytes to deliver: a list of its own takes 56 bytes of each idle connection.
NONE_READY: Any = ()

# Number of pieces above which they are joined, and their mean length in bytes up to which they are.  A piece of one
# byte takes fifty bytes of memory.
MANY_PIECES = 1_024
SHORT_BYTES = 128

# Reach of a selective ack in segments (libutp keeps 1023 packets and sends no further ahead).
EARLY_MAXIMUM_AHEAD = 2_016


class ReceiveBuffer:
    """Bytes on their way to the application, never more than ``capacity_bytes`` and one segment."""

    __slots__ = (
        "_charged_bytes",
        "_early_mask",
        "_gathered",
        "capacity_bytes",
        "early",
        "early_bytes",
        "memory",
        "next_sequence",
        "ready",
        "ready_bytes",
    )

    def __init__(self, capacity_bytes: int, memory: ReceiveMemory) -> None:
        self.capacity_bytes: int = capacity_bytes
        self.memory: ReceiveMemory = memory  # of the whole UDP port
        self._charged_bytes = 0  # of `held_bytes`, the part that is charged to the port
        self.next_sequence: int = 0  # the one that comes next in order, unwrapped
        self.ready: list[bytes] = NONE_READY  # in order, not taken yet
        self.ready_bytes: int = 0
        self._gathered = 0  # pieces at the beginning that were joined, or are long enough
        self.early: dict[int, bytes] = NONE_EARLY  # sequence -> payload, behind a gap
        self.early_bytes: int = 0
        self._early_mask = 0  # the same as bits, see selective_ack_mask

    @property
    def window_bytes(self) -> int:
        """Bytes that the peer may send beyond those that have arrived."""
        capacity_bytes = self.capacity_bytes
        share_bytes = self.memory.share_bytes
        if share_bytes >= capacity_bytes:
            if not self.ready_bytes and not self.early_bytes:
                return capacity_bytes
            return max(capacity_bytes - self.ready_bytes - self.early_bytes, 0)
        free_bytes = min(capacity_bytes - self.ready_bytes - self.early_bytes, share_bytes - self.held_bytes)
        return max(free_bytes, 0 if self.ready_bytes else LEAST_WINDOW_BYTES)

    @property
    def limit_bytes(self) -> int:
        """The largest window that the peer can have now, with an empty buffer."""
        return min(self.capacity_bytes, max(self.memory.share_bytes, LEAST_WINDOW_BYTES))

    @property
    def held_bytes(self) -> int:
        """Bytes of memory in use: the payload, and the objects that hold it."""
        return self.ready_bytes + self.early_bytes + OBJECT_BYTES * (len(self.ready) + len(self.early))

    def charge(self) -> None:
        """Tell the port's memory how much is held now."""
        held_bytes = self.held_bytes
        if held_bytes != self._charged_bytes:
            self.memory.charge(held_bytes - self._charged_bytes)
            self._charged_bytes = held_bytes

    def insert(self, sequence: int, payload: bytes) -> int:
        """Take one segment; returns ``IN_ORDER`` or ``EARLY`` if it is kept, else ``DUPLICATE`` or ``REFUSED``."""
        size = len(payload)
        if sequence < self.next_sequence or sequence in self.early:
            return DUPLICATE
        if self.would_refuse(sequence, size):
            if self.memory.share_bytes < self.capacity_bytes:
                self.memory.counters.segments_refused += 1
            return REFUSED
        if sequence == self.next_sequence:
            self._append(payload, size)
            if self.early:
                self._close_gap()
                self.charge()
            return IN_ORDER
        if not self.early:
            self.early = {}
        self.early[sequence] = payload
        self.early_bytes += size
        self._early_mask |= 1 << sequence - self.next_sequence - 1
        self.charge()
        return EARLY

    def would_refuse(self, sequence: int, size: int) -> bool:
        """Whether ``insert`` has no room for a new segment of this size."""
        held_bytes = self.ready_bytes + self.early_bytes + size
        memory_bytes = self.held_bytes + size + OBJECT_BYTES
        if sequence == self.next_sequence:
            # unread bytes hold the peer up, early segments behind this one do not
            is_full = held_bytes > self.capacity_bytes or memory_bytes > self.memory.share_bytes
            return is_full and self.ready_bytes > 0 and size > 0
        # The missing segment is accepted above the limit if need be; this leaves room for it, so it seldom has to be.
        return (
            sequence - self.next_sequence > EARLY_MAXIMUM_AHEAD
            or held_bytes + size > self.capacity_bytes
            or memory_bytes + size > self.memory.share_bytes
        )

    def insert_run(self, payloads: Sequence[bytes], total_bytes: int) -> bool:
        """Take segments from ``next_sequence`` on, none of them empty; returns whether all were taken.

        Otherwise none was, and the caller inserts them one by one.
        """
        held_bytes = self.ready_bytes + total_bytes
        if self.early or held_bytes > self.capacity_bytes:
            return False
        ready = self.ready
        if held_bytes + OBJECT_BYTES * len(ready) > self.memory.share_bytes:
            return False
        if ready:
            ready += payloads
            if len(ready) - self._gathered > MANY_PIECES:
                self._gather()
        else:
            self.ready = list(payloads)
        self.ready_bytes = held_bytes
        self.next_sequence += len(payloads)
        return True

    def selective_ack_mask(self) -> int:
        """Bit ``i`` stands for the early segment ``next_sequence + 1 + i``, which is ``ack + 2 + i``."""
        return self._early_mask

    def take(self, limit_bytes: int) -> bytes:
        """Returns the next stream bytes, joined: about ``limit_bytes`` at most, but one whole segment at least."""
        ready = self.ready
        if self.ready_bytes <= limit_bytes:
            data = ready[0] if len(ready) == 1 else b"".join(ready)
            self.ready = NONE_READY
            self.ready_bytes = self._gathered = 0
            if self._charged_bytes:
                self.charge()
            return data
        count = size = 0
        for payload in ready:
            size += len(payload)
            count += 1
            if size >= limit_bytes:
                break
        data = b"".join(ready[:count])
        del ready[:count]
        self.ready_bytes -= size
        self._gathered = max(self._gathered - count, 0)
        if self._charged_bytes:
            self.charge()
        return data

    def discard(self) -> None:
        """Forget the bytes that the application has not taken."""
        self.ready = NONE_READY
        self.ready_bytes = self._gathered = 0
        if self._charged_bytes:
            self.charge()

    def end(self) -> None:
        """The connection has ended: forget the early segments, and take the charge back.

        The bytes in order stay.  A caller that keeps them for a reader calls ``charge``.
        """
        self.early = NONE_EARLY
        self.early_bytes = self._early_mask = 0
        self.memory.charge(-self._charged_bytes)
        self._charged_bytes = 0

    def forget_behind(self, eof_sequence: int) -> None:
        """Forget early segments behind the end of the stream: they do not belong to it."""
        for sequence in [sequence for sequence in self.early if sequence > eof_sequence]:
            self.early_bytes -= len(self.early.pop(sequence))
        self._early_mask &= (1 << max(eof_sequence - self.next_sequence, 0)) - 1
        self.charge()

    def _append(self, payload: bytes, size: int) -> None:
        if size:
            if self.ready:
                self.ready.append(payload)
            else:
                self.ready = [payload]
            self.ready_bytes += size
            if len(self.ready) - self._gathered > MANY_PIECES:
                self._gather()
        self.next_sequence += 1

    def _close_gap(self) -> None:
        """Move the early segments that follow the segment that has just come."""
        early = self.early
        mask = self._early_mask
        while mask & 1:
            payload = early.pop(self.next_sequence)
            self.early_bytes -= len(payload)
            self._append(payload, len(payload))
            mask >>= 1
        self._early_mask = mask >> 1
        if not early:
            self.early = NONE_EARLY

    def _gather(self) -> None:
        """Join the newest pieces if they are short; each byte is copied once."""
        pieces = self.ready[self._gathered :]
        if sum(map(len, pieces)) <= len(pieces) * SHORT_BYTES:
            self.ready[self._gathered :] = [b"".join(pieces)]
        self._gathered = len(self.ready)
