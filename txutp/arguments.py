"""What a caller may pass, checked in one place: what cannot work raises at once, with a sentence that says what does.

``client.py``, ``port.py``, ``endpoints.py`` and ``socket/sockets.py`` call it before they open or schedule anything.
Each function returns the argument as it is to be used.  A wrong type raises TypeError, a wrong value ValueError.
"""

from __future__ import annotations

import math
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address

from txutp.core.settings import LEAST_RATE_BYTES, Settings

HIGHEST_PORT = 65_535


def checked_number(port: object, lowest: int, what: str = "a port") -> int:
    """A port that is a number at least; a bool or a float is none."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{what} is an int from {lowest} to {HIGHEST_PORT}, not {port!r}")
    return port


def checked_port(port: object, lowest: int, what: str = "a port") -> int:
    """The number of a UDP port, from ``lowest`` on."""
    port = checked_number(port, lowest, what)
    if not lowest <= port <= HIGHEST_PORT:
        raise ValueError(f"{what} is from {lowest} to {HIGHEST_PORT}, not {port}")
    return port


def checked_host(host: object) -> str:
    """The host to connect to, or to listen on: a name, or a numeric address."""
    if not isinstance(host, str):
        raise TypeError(f"a host is a name or a numeric address, not {host!r}")
    if is_numeric(host):
        return host
    problem = "it is empty" if not host else "it has a NUL" if "\0" in host else ""
    try:
        host.encode("idna")
    except UnicodeError as unencodable:
        problem = str(unencodable)
    if problem:
        raise ValueError(f"invalid hostname: {host!r} ({problem}); a host is a name or a numeric address")
    return host


def checked_interface(interface: object) -> str:
    """The address of ours to listen on, or a name of one; empty for all of IPv4."""
    if not isinstance(interface, str):
        raise TypeError(f'interface is a numeric address of ours, a name of one, or "" for any, not {interface!r}')
    if not interface.isprintable():
        raise ValueError(f'interface is a numeric address of ours, a name of one, or "" for any, not {interface!r}')
    return interface


def checked_bind_address(address: Any) -> tuple[str, int] | None:
    """The address of ours to connect from, as (host, port); None for any.  A host alone leaves the port open."""
    if address is None:
        return None
    try:
        host, port = (address, 0) if isinstance(address, (str, bytes)) else address
    except (TypeError, ValueError) as problem:
        raise TypeError(f"bindAddress is (host, port), not {address!r}") from problem
    if isinstance(host, bytes):
        host = host.decode("ascii", "backslashreplace")
    if not isinstance(host, str) or isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"bindAddress is (host, port) with a number as port, not {address!r}")
    if not host.isprintable():
        raise ValueError(
            f'the host in bindAddress is a numeric address of ours, a name of one, or "" for any, not {host!r}'
        )
    checked_port(port, 0, "the port in bindAddress")
    return host, port


def checked_backlog(backlog: object) -> int:
    """How many connections may be half-open at least."""
    if isinstance(backlog, bool) or not isinstance(backlog, int):
        raise TypeError(f"backlog is a whole number from 0 on, not {backlog!r}")
    if backlog < 0:
        raise ValueError(f"backlog is a whole number from 0 on, not {backlog}")
    return backlog


def checked_timeout(timeout: Any) -> float | None:
    """How long to try to connect, in seconds; None for ever."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a number of seconds or None, not {timeout!r}")
    if not (0 <= timeout < math.inf):
        raise ValueError(f"timeout is a number of seconds from 0 on, or None for no timeout, not {timeout!r}")
    return timeout


def checked_rate(rate: object, what: str) -> int | None:
    """The most bytes in a second, or None without a cap."""
    if rate is None:
        return None
    if isinstance(rate, bool) or not isinstance(rate, int):
        raise TypeError(f"{what} is a whole number of bytes per second, or None without a cap, not {rate!r}")
    if rate < LEAST_RATE_BYTES:
        raise ValueError(f"{what} is at least {LEAST_RATE_BYTES} bytes per second, or None without a cap, not {rate}")
    return rate


def checked_settings(settings: object) -> Settings | None:
    """What was chosen, if anything; ``Settings`` has checked its own values."""
    if settings is not None and not isinstance(settings, Settings):
        raise TypeError(f"settings is a Settings or None, not {settings!r}")
    return settings


def is_numeric(host: str) -> bool:
    """Whether a host is a numeric address, and not a name."""
    return isIPAddress(host) or isIPv6Address(host)
