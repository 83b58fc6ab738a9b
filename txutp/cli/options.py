"""What several commands take: times, addresses, endpoint strings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString

from txutp.core.units import SECOND_US
from txutp.endpoints import host_and_port
from txutp.strings import TIMES_US, amount_of

# Times are written as in endpoint strings, and as iperf3 and sleep have them.
UNITS_US = TIMES_US | {"m": TIMES_US["min"]}


class Duration(click.ParamType):  # type: ignore[type-arg]
    """A time like ``250ms``, ``5s`` or ``2min``; a bare number is in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return amount_of(str(value), UNITS_US, "s")[0] / SECOND_US
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time; write it like 250ms, 5s or 2min", param, ctx)


DURATION = Duration()


def _keep_for_trace(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[QLOG] = value


# Where the value of ``--qlog`` is kept until ``run_command`` begins the trace.
QLOG = "txutp.qlog"

qlog_option = click.option(
    "--qlog",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_keep_for_trace,
    help="Write a trace of all uTP connections, for txutp plot and qvis.",
)
"""An option for commands that ``run_command`` runs; they need not know of it."""


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
    return str(address) if host is None else host_and_port(host, address.port)
