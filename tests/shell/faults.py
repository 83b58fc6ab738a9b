"""Sockets of which one kind of call fails, with any error, once or for as long as the test wants."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

MSG_ERRQUEUE = 0x2000

NAMES = (
    "EINTR EAGAIN ENOBUFS ENOMEM EPERM EACCES ENETDOWN ENETUNREACH EHOSTUNREACH EMSGSIZE ECONNREFUSED EINVAL EIO"
    " EADDRNOTAVAIL EMFILE EOPNOTSUPP ENOTCONN EPIPE ETIMEDOUT"
)
CODES = [getattr(errno, name) for name in NAMES.split()]


@dataclass
class Fault:
    """Calls of a socket's method that fail: the first ``skip`` do not, the next ``left`` do."""

    call: str
    code: int
    skip: int = 0
    left: int = 1
    calls: int = 0

    def ask(self, call: str) -> None:
        """Somebody makes this call."""
        if call != self.call:
            return
        self.calls += 1
        if self.skip:
            self.skip -= 1
        elif self.left:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))


class Faulty(socket.socket):
    """A socket that asks whether its calls fail."""

    fault = Fault("", 0)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.fault.ask("socket")
        super().__init__(*arguments, **named)

    def close(self) -> None:
        is_open = self.fileno() != -1
        super().close()
        if is_open:
            self.fault.ask("close")

    def recvmsg(self, *arguments: Any) -> Any:  # type: ignore[override]
        self.fault.ask("recvmsg of errors" if MSG_ERRQUEUE in arguments[2:] else "recvmsg")
        return super().recvmsg(*arguments)


def asking(call: str) -> Any:
    """A method that asks, and then does what a socket does."""

    def method(self: Faulty, *arguments: Any) -> Any:
        self.fault.ask(call)
        return getattr(socket.socket.__mro__[1], call)(self, *arguments)

    return method


for _call in (
    "bind", "connect", "getpeername", "getsockname", "getsockopt", "sendmsg", "sendto", "setblocking", "setsockopt"
):  # fmt: skip
    setattr(Faulty, _call, asking(_call))


def descriptors() -> int:
    """How many are open, where the system tells."""
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


@contextmanager
def faults(fault: Fault) -> Iterator[Fault]:
    """Sockets that are made meanwhile are faulty ones."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Faulty, "fault", fault)
        if socket.socket is not Faulty:
            patched.setattr(socket, "socket", Faulty)
        yield fault
