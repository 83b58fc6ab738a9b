"""Which ports and peers speak uTP: rules that say so, and what they are asked about.

A rule is anything that can be called with a ``Call`` and returns whether it shall speak uTP.  Those below can be
joined: ``connecting & ports("8000-8099") & ~hosts("10.0.0.0/8")``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from ipaddress import ip_address, ip_network

from txutp.arguments import checked_port


@dataclass(frozen=True)
class Call:
    """A call of ``listenTCP``, ``connectTCP``, ``listenSSL`` or ``connectSSL``."""

    listens: bool
    """Whether it opens a listening port; if not, it connects."""
    host: str
    """The interface to listen on, "" for all; or the host to connect to, which may be a name."""
    port: int | str
    """A number, or the name of a service that this system does not know."""
    tls: bool = False
    """Whether it is for TLS, as ``listenSSL`` and ``connectSSL`` are."""


class Rule:
    """A function of a ``Call`` that can be joined with others by ``&``, ``|`` and ``~``."""

    def __init__(self, chooses: Callable[[Call], bool], text: str) -> None:
        self._chooses = chooses
        self._text = text

    def __repr__(self) -> str:
        return self._text

    def __call__(self, call: Call) -> bool:
        return self._chooses(call)

    def __and__(self, other: Callable[[Call], bool]) -> Rule:
        return Rule(lambda call: self(call) and other(call), f"({self!r} & {other!r})")

    def __or__(self, other: Callable[[Call], bool]) -> Rule:
        return Rule(lambda call: self(call) or other(call), f"({self!r} | {other!r})")

    def __invert__(self) -> Rule:
        return Rule(lambda call: not self(call), f"~{self!r}")


everything: Rule = Rule(lambda call: True, "everything")
listening: Rule = Rule(lambda call: call.listens, "listening")
connecting: Rule = Rule(lambda call: not call.listens, "connecting")


def ports(*numbers: int | str) -> Rule:
    """These ports: numbers, or ranges like ``"8000-8099"``."""
    chosen: set[int] = set()
    for number in numbers:
        first, dash, last = str(number).partition("-")
        try:
            span = range(checked_port(int(first), 0), checked_port(int(last if dash else first), 0) + 1)
        except ValueError as problem:
            raise ValueError(
                f"ports are numbers from 0 to 65535, or ranges like 8000-8099, not {number!r}"
            ) from problem
        if not span:
            raise ValueError(f"a range of ports begins with the lower one, unlike {number!r}")
        chosen.update(span)
    return Rule(lambda call: call.port in chosen, f"ports{numbers!r}")


def hosts(*patterns: str) -> Rule:
    """These hosts: addresses, networks like ``"10.0.0.0/8"``, names, or names with ``*`` like ``"*.example.org"``.

    Most of Twisted looks a name up before it calls ``connectTCP`` with an address.  So a name without ``*`` stands for
    its addresses as well, which are looked up here, now, once.  To listen on all interfaces is to listen on the host
    ``0.0.0.0``.
    """
    networks = []
    names = []
    for pattern in patterns:
        try:
            networks.append(ip_network(pattern, strict=False))
        except ValueError:
            if "/" in pattern or not pattern:
                raise ValueError(f"hosts are addresses, networks like 10.0.0.0/8, or names, not {pattern!r}") from None
            names.append(pattern.lower())
            if "*" not in pattern:
                networks += [ip_network(address) for address in addresses_of(pattern)]

    def chooses(call: Call) -> bool:
        host = (call.host or "0.0.0.0").lower()
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return any(fnmatch(host, name) for name in names)
        return any(address in network for network in networks)

    return Rule(chooses, f"hosts{patterns!r}")


def addresses_of(name: str) -> list[str]:
    """The numeric addresses of a name; none if the name is unknown."""
    found: dict[str, None] = {}
    with suppress(OSError, UnicodeError):
        for *_, where in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            found[str(where[0]).partition("%")[0]] = None
    return list(found)
