"""Where received files go: within one folder, whatever their names are, and under those names when they are complete.

Every component of a path is opened by itself, relative to the one before it and without following symbolic links, so
neither ``..`` nor a link leads out.  What is incomplete stands beside its final place under a name of its own, which
only depends on the final one; so it is found again after a break.  One transfer at a time holds the lock of such a
file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.threads import deferToThreadPool

from txutp.cli.files.hashing import NOTHING_SHA256, hash_of
from txutp.cli.files.wire import BUSY, DIFFERENT, EXISTS, FAILED, FULL, NAMED, Offer, name_problem, shown

PART_SUFFIX = ".txutp-part"
PART_DIGITS = 24

OPENING = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)


class NotStored(Exception):
    """A file is not stored: a reason of ``wire.py``, and a sentence."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


def not_stored(problem: OSError) -> NotStored:
    """Returns what an error of the system means for the sender."""
    reason = FULL if problem.errno in NO_ROOM else NAMED if problem.errno == errno.ENAMETOOLONG else FAILED
    return NotStored(reason, problem.strerror or str(problem))


class Place:
    """The folder that everything goes to."""

    def __init__(self, path: str, overwrite: bool = False) -> None:
        """Raises ``OSError`` if there is no such folder."""
        self.overwrite = overwrite
        # Asked for once: the answer changes it for a moment, for all threads.
        self.umask: int = os.umask(0o077)
        os.umask(self.umask)
        self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._root)

    def folder(self, path: tuple[str, ...]) -> int:
        """Returns a descriptor of a folder, which is made if it is not there; raises ``NotStored``."""
        descriptor = os.dup(self._root)
        try:
            for name in path:
                problem = name_problem(name)
                if problem is not None:
                    raise NotStored(NAMED, problem)
                descriptor, before = _entered(descriptor, name), descriptor
                os.close(before)
        except OSError as problem:
            os.close(descriptor)
            if problem.errno in (errno.ELOOP, errno.ENOTDIR):
                raise NotStored(EXISTS, f"{shown((name,))} exists and is not a folder") from problem
            raise not_stored(problem) from problem
        except NotStored:
            os.close(descriptor)
            raise
        return descriptor


def _entered(descriptor: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | OPENING
    try:
        return os.open(name, flags, dir_fd=descriptor)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another transfer was faster
            os.mkdir(name, dir_fd=descriptor)
        return os.open(name, flags, dir_fd=descriptor)


class Incoming:
    """A file that arrives.  ``prepare`` says what is there already; then ``begin``, ``write`` and ``finish``."""

    def __init__(self, place: Place, offer: Offer) -> None:
        """Raises ``NotStored``."""
        self.offer = offer
        self.have_bytes: int = 0
        self.have_sha256: str = NOTHING_SHA256
        self.whole: bool = False  # what is there already is the final file
        self._overwrite = place.overwrite
        self._umask = place.umask
        self._name = offer.path[-1]
        problem = name_problem(self._name)
        if problem is None and self._name.endswith(PART_SUFFIX):
            problem = f"names that end with {PART_SUFFIX} are those of incomplete files"
        if problem is not None:
            raise NotStored(NAMED, problem)
        digits = hashlib.sha256(os.fsencode(self._name)).hexdigest()[:PART_DIGITS]
        self._part_name = f".{digits}{PART_SUFFIX}"
        self._folder = place.folder(offer.path[:-1])
        self._part: int | None = None
        self._hash: Any = hashlib.sha256()
        self._place_bytes = 0

    async def prepare(self, reactor: Any) -> None:
        """Look what is there: the file itself, or its beginning; raises ``NotStored`` if it cannot be stored."""
        try:
            await self._prepare(reactor)
        except OSError as problem:
            raise not_stored(problem) from problem

    async def _prepare(self, reactor: Any) -> None:
        try:
            there = os.stat(self._name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            there = None
        if there is not None:
            if not stat.S_ISREG(there.st_mode):
                raise NotStored(EXISTS, "a file of this name exists that is not a regular file")
            if there.st_size == self.offer.size_bytes:
                descriptor = os.open(self._name, os.O_RDONLY | OPENING, dir_fd=self._folder)
                try:
                    hashed = await hash_of(reactor, descriptor, there.st_size)
                finally:
                    os.close(descriptor)
                if hashed is not None:
                    self.whole = True
                    self.have_bytes, self.have_sha256 = there.st_size, hashed.hexdigest()
                    return
            if not self._overwrite:
                raise NotStored(EXISTS, "another file of this name is there")
        part = self._open_part()
        have_bytes = os.fstat(part).st_size
        if 0 < have_bytes <= self.offer.size_bytes:
            hashed = await hash_of(reactor, part, have_bytes)
            if hashed is not None:
                self._hash = hashed
                self.have_bytes, self.have_sha256 = have_bytes, hashed.hexdigest()
        file_system = os.fstatvfs(part)
        if file_system.f_bavail * file_system.f_frsize < self.offer.size_bytes - have_bytes:
            raise NotStored(FULL, "there is not enough room for it")

    def _open_part(self) -> int:
        part = os.open(self._part_name, os.O_RDWR | os.O_CREAT | OPENING, 0o600, dir_fd=self._folder)
        try:
            status = os.fstat(part)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise NotStored(EXISTS, f"{self._part_name} exists and is not an incomplete file of txutp")
            try:
                fcntl.flock(part, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise NotStored(BUSY, "another transfer writes this file") from None
            if not os.fstat(part).st_nlink:
                raise NotStored(BUSY, "another transfer has just written this file")
        except BaseException:
            os.close(part)
            raise
        self._part = part
        return part

    def begin(self, at_bytes: int) -> None:
        """Bytes come, from this place on; raises ``NotStored``, and ``ValueError`` for a place that was not named."""
        if at_bytes not in (0, self.have_bytes):
            raise ValueError("this is neither the beginning nor what is there")
        if self.whole:
            if at_bytes == self.have_bytes:
                return  # the sender has the same
            self.whole = False
            if not self._overwrite:
                raise NotStored(EXISTS, "another file of this name is there")
        try:
            part = self._open_part() if self._part is None else self._part
            if not at_bytes:
                self._hash = hashlib.sha256()
            os.ftruncate(part, at_bytes)
            self._place_bytes = os.lseek(part, at_bytes, os.SEEK_SET)
        except OSError as problem:
            raise not_stored(problem) from problem

    def write(self, data: memoryview) -> None:
        """These bytes come next; raises ``NotStored``, and ``ValueError`` for more than was offered."""
        if self.whole or self._part is None or self._place_bytes + len(data) > self.offer.size_bytes:
            raise ValueError("this is more than was offered")
        self._hash.update(data)
        rest = data
        try:
            while rest:
                rest = rest[os.write(self._part, rest) :]
        except OSError as problem:
            raise not_stored(problem) from problem
        self._place_bytes += len(data)

    async def finish(self, reactor: Any, sha256: str) -> None:
        """All has come: give the file its name when the disk has it; raises ``NotStored``."""
        if self.whole:
            if sha256 != self.have_sha256:
                raise NotStored(DIFFERENT, "the file that is there has another hash")
            return
        if self._part is None or self._place_bytes != self.offer.size_bytes or self._hash.hexdigest() != sha256:
            self.discard()
            raise NotStored(DIFFERENT, "what arrived is not what was sent")
        part, self._part = self._part, None  # the thread closes it
        folder = os.dup(self._folder)
        try:
            await deferToThreadPool(reactor, reactor.getThreadPool(), self._place, part, folder)
        except OSError as problem:
            raise not_stored(problem) from problem

    def _place(self, part: int, folder: int) -> None:
        """Give the complete file its times, its permissions and its name; runs in a thread."""
        try:
            os.fchmod(part, self.offer.mode & ~self._umask)
            with suppress(OSError, OverflowError):  # a time that this file system does not have
                os.utime(part, ns=(self.offer.modified_ns, self.offer.modified_ns))
            os.fsync(part)
            if self._overwrite:
                os.replace(self._part_name, self._name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                self._link(folder)
            with suppress(OSError):  # not all file systems let folders be written out
                os.fsync(folder)
        finally:
            os.close(part)
            os.close(folder)

    def _link(self, folder: int) -> None:
        """Name the complete file without replacing another one."""
        try:
            os.link(self._part_name, self._name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            raise NotStored(EXISTS, "another file of this name came first") from None
        except OSError as problem:
            if problem.errno not in NO_LINKS:
                raise
            # A file system without hard links, such as FAT: there remains a moment for another program.
            with suppress(FileNotFoundError):
                os.stat(self._name, dir_fd=folder, follow_symlinks=False)
                raise NotStored(EXISTS, "another file of this name came first") from None
            os.rename(self._part_name, self._name, src_dir_fd=folder, dst_dir_fd=folder)
        else:
            os.unlink(self._part_name, dir_fd=folder)

    def discard(self) -> None:
        """Remove what has come of it."""
        if self._part is not None:
            with suppress(OSError):
                os.unlink(self._part_name, dir_fd=self._folder)

    def close(self) -> None:
        """Let go; what has come stays for the next time, unless that is nothing."""
        if self._part is not None:
            with suppress(OSError):
                if not os.fstat(self._part).st_size:
                    self.discard()
            os.close(self._part)
            self._part = None
        os.close(self._folder)
