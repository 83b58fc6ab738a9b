"""Where two programs meet: on the loopback interface, on one with a small MTU, or at the ends of a bad path."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from benchmarks.namespaces import Namespaces, ip, why_no_namespaces, why_no_tun
from tests.namespaces.link import HOSTS, Link, Quality


@dataclass(frozen=True)
class Place:
    """The server's address, and the namespaces of both sides if they have any."""

    host: str
    namespaces: dict[str, str] = field(default_factory=dict)

    def inside(self, side: str) -> list[str]:
        """What to put in front of a command so that it runs at this side."""
        return ["ip", "netns", "exec", self.namespaces[side]] if self.namespaces else []


@dataclass(frozen=True)
class Ground:
    """A kind of place: how to make one, and why that is not possible here (empty if it is)."""

    make: Callable[[], AbstractContextManager[Place]]
    why_not: Callable[[], str] = lambda: ""


def why_no_ipv6() -> str:
    """Why nothing can listen on ::1; empty if that is possible."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError as error:
        return f"no IPv6: {error}"
    return ""


@contextmanager
def loopback(host: str) -> Iterator[Place]:
    """The machine's own loopback interface."""
    yield Place(host)


class Narrow(Namespaces):
    """A host for both programs."""

    hosts = ("both",)


@contextmanager
def narrow(mtu_bytes: int) -> Iterator[Place]:
    """A loopback interface with this MTU, in a namespace of its own."""
    with Narrow() as made:
        name = made.names["both"]
        ip("-n", name, "link", "set", "lo", "mtu", mtu_bytes)
        yield Place("127.0.0.1", {"client": name, "server": name})


@contextmanager
def linked(quality: Quality) -> Iterator[Place]:
    """The two ends of a path."""
    with Link(quality) as link:
        yield Place(HOSTS["server"], link.names)


LOOPBACK = Ground(lambda: loopback("127.0.0.1"))
IPV6 = Ground(lambda: loopback("::1"), why_no_ipv6)


def mtu(mtu_bytes: int) -> Ground:
    """Loopback interfaces with this MTU."""
    return Ground(lambda: narrow(mtu_bytes), why_no_namespaces)


def path(loss: float, reordering: float = 0.02) -> Ground:
    """Paths that lose and reorder so much; a round trip takes 50 ms."""
    return Ground(lambda: linked(Quality(25_000, loss, reordering)), why_no_tun)
