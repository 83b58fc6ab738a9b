"""File descriptors as a transport: standard input and output, or the pipes of a program.

Twisted's ``StandardIO`` does the work.  Three things are different here: reads are large, or a pipe would be slower
than the network; a pipe or terminal that other processes share stays blocking for them; and the transport ends when
both of its halves have.
"""

from __future__ import annotations

import fcntl
import os
import stat
from contextlib import suppress
from errno import EAGAIN, EINTR
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure

CHUNK_BYTES = 256 * 1024
PIPE_BYTES = 1024 * 1024


# Its type depends on the system.
_StandardIO: Any = StandardIO


class Streams(_StandardIO):  # type: ignore[misc]
    """A transport that reads one descriptor and writes another one; it closes both."""

    def __init__(self, protocol: Any, reading: int, writing: int, reactor: Any) -> None:
        for descriptor in (reading, writing):
            if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
                with suppress(AttributeError, OSError):  # the system has no such call, or the user no such right
                    fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._descriptors = {"read": reading, "write": writing}
        super().__init__(protocol, reading, writing, reactor)
        reader = self._reader
        if reader is not None:
            reader.doRead = lambda: _read(reader)

    def childConnectionLost(self, fd: str, reason: Failure) -> None:
        """One half has ended: close its descriptor."""
        os.close(self._descriptors.pop(fd))
        super().childConnectionLost(fd, reason)

    def loseConnection(self) -> None:
        """End when everything has been written."""
        super().loseConnection()
        if self._writer is None and not self.disconnected:
            self.connectionLost(Failure(ConnectionDone()))

    def abortConnection(self) -> None:
        """End at once."""
        if not self.disconnected:
            self.connectionLost(Failure(ConnectionDone()))


def _read(reader: Any) -> Any:
    """Read as much as there is, up to ``CHUNK_BYTES``; returns what ``doRead`` returns."""
    try:
        data = os.read(reader.fd, CHUNK_BYTES)
    except OSError as problem:
        return None if problem.errno in (EAGAIN, EINTR) else CONNECTION_LOST
    if not data:
        return CONNECTION_DONE
    reader.dataReceived(data)
    return None


def standard_streams() -> tuple[int, int]:
    """Returns descriptors for standard input and output that are this process's own.

    Non-blocking mode belongs to an open file, which other processes may share: a shell's terminal, a pipe.  Those are
    opened anew where the system can; a regular file has an offset to keep and never blocks.  The standard descriptors
    are closed, so that the other end of a pipe hears of our end.
    """
    own = _own(0, os.O_RDONLY), _own(1, os.O_WRONLY)
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1):
        os.dup2(nothing, standard)
    os.close(nothing)
    return own


def _own(descriptor: int, mode: int) -> int:
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", mode | os.O_NOCTTY)
    return os.dup(descriptor)
