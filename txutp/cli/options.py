"""What several commands take: times, addresses, endpoint strings."""

from __future__ import annotations

import re
from typing import Any

import click
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time like ``250ms``, ``5s`` or ``2min``; a bare number is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)(us|ms|s|min|m|h|)", str(value))
        if match is None:
            self.fail(f"{value!r} is no time; write it like 250ms, 5s or 2min", param, ctx)
        return float(match[1]) * UNITS[match[2]]


DURATION = Duration()


def is_endpoint_string(text: str) -> bool:
    """Whether an argument is an endpoint string, like ``utp:6881``, and not a host or an IPv6 address."""
    return bool(re.match(r"[a-zA-Z][\w+.-]*:", text)) and not text.startswith("::")


def client_endpoint(reactor: Any, text: str) -> Any:
    """Returns the endpoint of a client string; raises a usage error with the parser's words if there is none."""
    try:
        return clientFromString(reactor, text)
    except Exception as problem:
        raise click.BadParameter(f"{text!r} is no client endpoint string: {problem}") from problem


def server_endpoint(reactor: Any, text: str) -> Any:
    """Returns the endpoint of a server string; raises a usage error with the parser's words if there is none."""
    try:
        return serverFromString(reactor, text)
    except Exception as problem:
        raise click.BadParameter(f"{text!r} is no server endpoint string: {problem}") from problem


def utp_string(*parts: str, **options: str | None) -> str:
    """Returns a ``utp:`` string with its parts quoted; options that are None are left out."""
    words = ["utp", *map(quoteStringArgument, parts)]
    words += [f"{name}={quoteStringArgument(value)}" for name, value in options.items() if value is not None]
    return ":".join(words)


def named(address: Any) -> str:
    """Returns an address for people: a host and a port, or what else it is."""
    host = getattr(address, "host", None)
    if host is None:
        return str(address)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"
