"""The SHA-256 of what a file has already, worked out in a thread while connections go on."""

from __future__ import annotations

import hashlib
import os
from threading import Event
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

CHUNK_BYTES = 1 << 20

NOTHING_SHA256 = hashlib.sha256().hexdigest()


def hash_of(reactor: Any, descriptor: int, size_bytes: int) -> Deferred[Any]:
    """Fires with the hash object of the beginning of a file, to be updated with what follows; None if it is shorter.

    It fails with the ``OSError`` of a file that cannot be read.  Cancelled, it ends at once; the descriptor may be
    closed then.
    """
    stopped = Event()
    its_own = os.dup(descriptor)

    def work() -> Any:
        try:
            hashed = hashlib.sha256()
            place = 0
            while place < size_bytes and not stopped.is_set():
                data = os.pread(its_own, min(CHUNK_BYTES, size_bytes - place), place)
                if not data:
                    return None
                hashed.update(data)
                place += len(data)
            return hashed
        finally:
            os.close(its_own)

    hashing = deferToThreadPool(reactor, reactor.getThreadPool(), work)
    told: Deferred[Any] = Deferred(lambda cancelled: stopped.set())
    hashing.addBoth(lambda result: None if told.called else told.callback(result))
    return told
