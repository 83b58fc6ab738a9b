"""Which files a sender has, and how it reads one: as it was offered, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from txutp.cli.files.hashing import hash_of
from txutp.cli.files.wire import DEEPEST_PATH, PERMISSIONS, Offer, shown

# Opening a FIFO would wait for a writer.
READING = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)

# Why something is left out that could not be a file there.
IS_LINK = "it is a symbolic link"
IS_SPECIAL = "it is not a regular file"
LEFT_OUT = (IS_LINK, IS_SPECIAL)


class Changed(Exception):
    """A file is no longer as it was offered."""


@dataclass
class Entry:
    """A file or a folder to send, and what became of it."""

    place: str
    """Where it is here."""
    path: tuple[str, ...]
    """What it is called there."""
    folder: bool
    size_bytes: int = 0
    result: str | None = None
    """None as long as it is neither stored nor given up."""
    why: str | None = None
    sha256: str | None = None
    stat: os.stat_result | None = field(default=None, repr=False)

    def offer(self, number: int) -> Offer:
        """Returns what is said of it."""
        assert self.stat is not None
        mode = stat.S_IMODE(self.stat.st_mode) & PERMISSIONS
        return Offer(number, self.path, self.folder, self.size_bytes, mode, self.stat.st_mtime_ns)


def name_of(place: str) -> str:
    """Returns what a file or a folder at a place is called there; empty for the root, which has no name."""
    return os.path.basename(os.path.abspath(place))


def entries_of(places: tuple[str, ...], skipped: Callable[[str, str], object]) -> list[Entry]:
    """Returns the files and folders at these places, and all that is in those folders.

    ``skipped`` is called with a place and the reason for what cannot be sent.  Symbolic links are followed where they
    are named, and skipped within folders, as are devices, sockets and FIFOs.
    """
    entries: list[Entry] = []
    for place in places:
        entries += _found(place, (name_of(place),), skipped, os.stat)
    return entries


def _found(
    place: str, path: tuple[str, ...], skipped: Callable[[str, str], object], look: Callable[[str], os.stat_result]
) -> Iterator[Entry]:
    if len(path) > DEEPEST_PATH:
        skipped(place, f"it is more than {DEEPEST_PATH} folders deep")
        return
    try:
        status = look(place)
        names = sorted(os.listdir(place)) if stat.S_ISDIR(status.st_mode) else []
    except OSError as problem:
        skipped(place, problem.strerror or str(problem))
        return
    if stat.S_ISDIR(status.st_mode):
        yield Entry(place, path, True, stat=status)
        for name in names:
            yield from _found(os.path.join(place, name), (*path, name), skipped, os.lstat)
    elif stat.S_ISREG(status.st_mode):
        yield Entry(place, path, False, status.st_size, stat=status)
    else:
        skipped(place, IS_LINK if stat.S_ISLNK(status.st_mode) else IS_SPECIAL)


class Reading:
    """A file that is being sent."""

    def __init__(self, entry: Entry) -> None:
        """Raises ``OSError``, or ``Changed`` if it is not what was offered."""
        self._entry = entry
        self._descriptor = os.open(entry.place, READING)
        self.hash = hashlib.sha256()
        self.left_bytes: int = entry.size_bytes
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    def check(self) -> None:
        """Raise ``Changed`` if the file is not what was offered."""
        now, offered = os.fstat(self._descriptor), self._entry.stat
        assert offered is not None
        same = [
            (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, stat.S_IFMT(status.st_mode))
            for status in (now, offered)
        ]
        if same[0] != same[1]:
            raise Changed(f"{shown(self._entry.path)} changed while it was sent")

    async def skip(self, reactor: Any, size_bytes: int, sha256: str) -> bool:
        """Go on behind the beginning that the receiver has, if ours is the same; returns whether it is."""
        if not 0 < size_bytes <= self._entry.size_bytes:
            return False
        hashed = await hash_of(reactor, self._descriptor, size_bytes)
        if hashed is None or hashed.hexdigest() != sha256:
            return False
        self.hash = hashed
        self.left_bytes -= os.lseek(self._descriptor, size_bytes, os.SEEK_SET)
        return True

    def read(self, size_bytes: int) -> bytes:
        """Returns the next bytes; raises ``OSError``, or ``Changed`` where the file ends too early."""
        data = os.read(self._descriptor, min(size_bytes, self.left_bytes))
        if not data:
            raise Changed(f"{shown(self._entry.path)} became shorter while it was sent")
        self.hash.update(data)
        self.left_bytes -= len(data)
        return data

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._descriptor)
