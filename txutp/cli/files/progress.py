"""How far a transfer is, how fast it goes, and how long it will take."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

# The rate is that of the last seconds.
RATE_SECONDS = 5.0
SAMPLE_SECONDS = 0.2


class Progress:
    """What has been done of one transfer.  ``now`` is a clock in seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self._ended: float | None = None
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])
        self._counted: dict[tuple[str, ...], int] = {}
        self.path: tuple[str, ...] = ()
        """The file that is under way, or was the last one."""
        self.total_bytes: int = 0
        self.done_bytes: int = 0
        """Those that need not be sent (any more)."""
        self.moved_bytes: int = 0
        """Those that were sent over the network."""
        self.queue_ms: float | None = None
        """How long the packets with the data waited in queues, as the sender measured it last."""

    def expect(self, total_bytes: int) -> None:
        """So many bytes are to come, beside what is done."""
        self.total_bytes = self.done_bytes + total_bytes

    def begin(self, path: tuple[str, ...], size_bytes: int, at_bytes: int) -> None:
        """A file begins, or goes on at a place."""
        self.path = path
        self.settled(path, 0)
        self._counted[path] = at_bytes
        self.done_bytes += at_bytes

    def moved(self, size_bytes: int, queue_ms: float | None = None) -> None:
        """The next bytes of the file."""
        self.queue_ms = queue_ms
        self.moved_bytes += size_bytes
        self.done_bytes += size_bytes
        self._counted[self.path] = self._counted.get(self.path, 0) + size_bytes
        now = self._now()
        if now - self._samples[-1][0] >= SAMPLE_SECONDS:
            self._samples.append((now, self.moved_bytes))
            while now - self._samples[0][0] > RATE_SECONDS:
                self._samples.popleft()

    def settled(self, path: tuple[str, ...], size_bytes: int) -> None:
        """Nothing more is to be done for a file of this size."""
        self.done_bytes += size_bytes - self._counted.pop(path, 0)

    def broke(self) -> None:
        """The connection is gone; what is to be done is expected again."""
        for path in list(self._counted):
            self.settled(path, 0)

    def end(self) -> None:
        """The transfer has ended: its time stands still."""
        if self._ended is None:
            self._ended = self._now()

    @property
    def seconds(self) -> float:
        """How long it has taken."""
        return max(1e-6, (self._now() if self._ended is None else self._ended) - self._began)

    @property
    def bytes_per_second(self) -> float:
        """How fast bytes were sent in the last seconds."""
        began, moved_bytes = self._samples[0]
        seconds = self._now() - began
        return (self.moved_bytes - moved_bytes) / seconds if seconds > 0 else 0.0

    @property
    def left_seconds(self) -> float | None:
        """How long the rest takes at this rate; None if nothing moves."""
        rate = self.bytes_per_second
        return (self.total_bytes - self.done_bytes) / rate if rate > 0 else None
