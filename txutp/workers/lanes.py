"""Lanes: how datagrams that the kernel gave to the wrong worker reach the right one.

A lane is a pair of Unix datagram sockets.  One worker reads it; all others, and those that will take its place, write
to it.  ``steered.py`` decides what goes through.  Each message carries what one turn of the reactor has for a worker,
as a list: of the kernel's queue of ten messages (``net.unix.max_dgram_qlen``) a turn takes one.  What the queue does
not take waits here, up to a limit, beyond which it is lost as datagrams may be.
"""

from __future__ import annotations

import marshal
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor

# Bytes of datagrams in a message, above which no further one is added; and bytes that a message has room for.
MESSAGE_BYTES = 65_536
LARGEST_MESSAGE_BYTES = 1 << 18

# Bytes that wait for one worker.
MAXIMUM_WAITING_BYTES = 4 << 20

# Messages that are read in one turn of the reactor.
MESSAGES_EACH_TURN = 32

# A datagram or run and what is to be done with it; marshal writes it.
Item = tuple[Any, ...]


def new_lane() -> tuple[socket.socket, socket.socket]:
    """The end to read from and the end to write to, both non-blocking."""
    reading, writing = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for end in (reading, writing):
        end.setblocking(False)
    return reading, writing


class Lane(FileDescriptor):  # type: ignore[misc, unused-ignore]
    """The end that is written to."""

    def __init__(self, reactor: Any, writing: socket.socket) -> None:
        super().__init__(reactor)
        self._socket = writing
        self._waiting: deque[tuple[Item, int]] = deque()
        self._waiting_bytes = 0
        self.lost: int = 0  # items that found no room
        self.is_open: bool = True

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "txutp lane"

    def add(self, item: Item, size_bytes: int) -> None:
        """Let ``flush`` send an item."""
        if self._waiting_bytes + size_bytes > MAXIMUM_WAITING_BYTES:
            self.lost += 1
            return
        self._waiting.append((item, size_bytes))
        self._waiting_bytes += size_bytes

    def flush(self) -> None:
        """Send what was added; what the kernel does not take waits for it."""
        waiting = self._waiting
        while waiting and self.is_open:
            count = total_bytes = 0
            for _, size_bytes in waiting:
                if count and total_bytes + size_bytes > MESSAGE_BYTES:
                    break
                count += 1
                total_bytes += size_bytes
            items = [item for (item, _), _ in zip(waiting, range(count), strict=False)]
            try:
                self._socket.send(marshal.dumps(items))
            except (BlockingIOError, InterruptedError):
                self.startWriting()
                return
            except OSError:
                self.close()  # nobody reads it any more
                return
            for _ in range(count):
                waiting.popleft()
            self._waiting_bytes -= total_bytes
        self.stopWriting()

    def doWrite(self) -> None:
        self.flush()

    def close(self) -> None:
        """Send no more."""
        self.is_open = False
        self.lost += len(self._waiting)
        self._waiting.clear()
        self._waiting_bytes = 0
        self.stopWriting()
        self._socket.close()

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        if self.is_open:
            self.close()


class LaneReader(FileDescriptor):  # type: ignore[misc, unused-ignore]
    """The end of this worker."""

    def __init__(self, reactor: Any, reading: socket.socket, take: Callable[[list[Item]], None]) -> None:
        super().__init__(reactor)
        self._socket = reading
        self._take = take

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "txutp lane"

    def doRead(self) -> None:
        items: list[Item] = []
        for _ in range(MESSAGES_EACH_TURN):
            try:
                items += marshal.loads(self._socket.recv(LARGEST_MESSAGE_BYTES))
            except (BlockingIOError, InterruptedError):
                break
        self._take(items)

    def connectionLost(self, reason: Any) -> None:
        super().connectionLost(reason)
        self._socket.close()
