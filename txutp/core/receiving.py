"""The receiving half of a connection: segments become stream bytes in order, early ones wait within a byte limit.

The connection calls it.  Three steps: ``insert`` takes segments, ``ready`` collects what is in order, ``take`` gives
it to the application.  What is in neither is not acknowledged, so the peer keeps it.

Two promises
    *The segment that is next in order is accepted as soon as the application has taken everything before it*, whatever
    waits behind the gap, and however small the buffer has become.  So what was lost is accepted when it comes again,
    and two sides that are alive always move on.  For its sake the buffer may hold one segment more than
    ``capacity_bytes``.

    *What was accepted is never dropped.*  Early segments are acknowledged selectively, and libutp forgets such a
    segment at once: nobody could send it again.

What all buffers of a UDP port hold together is limited as well, see ``memory.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from txutp.core.memory import LEAST_WINDOW_BYTES, OBJECT_BYTES, ReceiveMemory

IN_ORDER, EARLY, DUPLICATE, REFUSED = range(4)

# Nothing waits behind a gap: one dictionary for all whose packets come in order.
NONE_EARLY: dict[int, bytes] = {}

# Nothing waits for the application: a list of its own would take 56 bytes of each idle connection.
NONE_READY: Any = ()

# So many pieces that are short on the average become one, or a peer that sends single bytes would let each of them take
# fifty bytes of memory.
MANY_PIECES = 1_024
SHORT_BYTES = 128

# A selective ack cannot say more (libutp keeps 1023 packets and sends no further ahead).
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
        self._charged_bytes = 0  # what the port knows of
        self.next_sequence: int = 0  # the one that comes next in order, unwrapped
        self.ready: list[bytes] = NONE_READY  # in order, not taken yet
        self.ready_bytes: int = 0
        self._gathered = 0  # so many pieces at the beginning stay as they are
        self.early: dict[int, bytes] = NONE_EARLY  # sequence -> payload, behind a gap
        self.early_bytes: int = 0
        self._early_mask = 0  # the same as bits, see selective_ack_mask

    @property
    def window_bytes(self) -> int:
        """How much more the peer may send."""
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
        """The largest window that the peer can have now, when nothing waits."""
        return min(self.capacity_bytes, max(self.memory.share_bytes, LEAST_WINDOW_BYTES))

    @property
    def held_bytes(self) -> int:
        """What is held, with the objects that hold it."""
        return self.ready_bytes + self.early_bytes + OBJECT_BYTES * (len(self.ready) + len(self.early))

    def charge(self) -> None:
        """Let the port know what is held now."""
        held_bytes = self.held_bytes
        if held_bytes != self._charged_bytes:
            self.memory.charge(held_bytes - self._charged_bytes)
            self._charged_bytes = held_bytes

    def insert(self, sequence: int, payload: bytes) -> int:
        """One segment: ``IN_ORDER``, ``EARLY``, ``DUPLICATE`` or ``REFUSED``; only the first two are kept."""
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
            # an application that does not read holds the peer up, what waits behind this segment does not
            is_full = held_bytes > self.capacity_bytes or memory_bytes > self.memory.share_bytes
            return is_full and self.ready_bytes > 0 and size > 0
        # The one that is missing will come above the limit if it has to, but most often it fits like this.
        return (
            sequence - self.next_sequence > EARLY_MAXIMUM_AHEAD
            or held_bytes + size > self.capacity_bytes
            or memory_bytes + size > self.memory.share_bytes
        )

    def insert_run(self, payloads: Sequence[bytes], total_bytes: int) -> bool:
        """Segments from ``next_sequence`` on, none empty: taken at once, or not at all (then insert one by one)."""
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
        """The next stream bytes, joined: about ``limit_bytes`` at most, at least one segment if there is any."""
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
        """Forget what waits for the application."""
        self.ready = NONE_READY
        self.ready_bytes = self._gathered = 0
        if self._charged_bytes:
            self.charge()

    def end(self) -> None:
        """Nothing will come any more: forget what waits behind a gap, and charge for nothing.

        What is in order stays; whoever keeps it for a reader calls ``charge``.
        """
        self.early = NONE_EARLY
        self.early_bytes = self._early_mask = 0
        self.memory.charge(-self._charged_bytes)
        self._charged_bytes = 0

    def forget_behind(self, eof_sequence: int) -> None:
        """The stream ends at this number: what claims to come behind it is not of this stream."""
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
        """What waited behind the segment that just came is in order now."""
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
        """Join the newest pieces if they are short, each byte once."""
        pieces = self.ready[self._gathered :]
        if sum(map(len, pieces)) <= len(pieces) * SHORT_BYTES:
            self.ready[self._gathered :] = [b"".join(pieces)]
        self._gathered = len(self.ready)
