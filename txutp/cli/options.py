"""What several commands take: times, addresses, families of addresses, endpoint strings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from txutp.core.settings import LEAST_RATE_BYTES
from txutp.core.units import SECOND_US
from txutp.endpoints import host_and_port
from txutp.strings import SIZES_BYTES, TIMES_US, amount_of, spoken

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
            self.fail(f"{value!r} is not a time; write it like 250ms, 5s or 2min", param, ctx)


DURATION = Duration()


class Rate(click.ParamType):  # type: ignore[type-arg]
    """Bytes per second, like ``500k`` or ``2M``, with the units of endpoint strings."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            rate, unit = amount_of(str(value), SIZES_BYTES, "B")
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no rate; write bytes per second like 500k or 2M (of 1024)", param, ctx)
        if rate < LEAST_RATE_BYTES:
            least, given = (spoken(number, unit, SIZES_BYTES) for number in (LEAST_RATE_BYTES, rate))
            self.fail(f"a rate is at least {least} per second, not {given}", param, ctx)
        return rate


def _keep_for_trace(context: click.Context, parameter: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.meta[QLOG] = value


def _keep_for_ports(context: click.Context, parameter: click.Parameter, value: int | None) -> None:
    if value is not None:
        context.meta.setdefault(RATES, {})[parameter.name] = value


# Where the values of ``--up`` and ``--down`` are kept until ``run_command`` looks for UDP ports.
RATES = "txutp.rates"


def rate_options(command: Any) -> Any:
    """Options for commands that ``run_command`` runs; they need not know of them."""
    for name, does in (("down", "Receive"), ("up", "Send")):
        option = click.option(
            f"--{name}",
            type=Rate(),
            expose_value=False,
            callback=_keep_for_ports,
            help=f"{does} at most this many bytes per second over uTP, headers included, like 2M.",
        )
        command = option(command)
    return command


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
        raise click.BadParameter(f"{text!r} is not a client endpoint string: {problem}") from problem


def server_endpoint(reactor: Any, text: str) -> Any:
    """Returns the endpoint of a server string; raises a usage error with the parser's words if there is none."""
    try:
        return serverFromString(reactor, text)
    except Exception as problem:
        raise click.BadParameter(f"{text!r} is not a server endpoint string: {problem}") from problem


def utp_string(*parts: str, **options: str | None) -> str:
    """Returns a ``utp:`` string with its parts quoted; options that are None are left out."""
    words = ["utp", *map(quoteStringArgument, parts)]
    words += [f"{name}={quoteStringArgument(value)}" for name, value in options.items() if value is not None]
    return ":".join(words)


def named(address: Any) -> str:
    """Returns an address for people: a host and a port, or what else it is."""
    host = getattr(address, "host", None)
    return str(address) if host is None else host_and_port(host, address.port)


# Families of addresses: -4 and -6


def family_of(ipv4: bool, ipv6: bool) -> Any:
    """Returns the family that ``-4`` or ``-6`` asks for as a class of addresses; None without either."""
    if ipv4 and ipv6:
        raise click.UsageError("-4 and -6 exclude each other.")
    return IPv4Address if ipv4 else IPv6Address if ipv6 else None


def interface_of(family: Any) -> str | None:
    """Returns the interface to listen on for a family; None without one, for the endpoint to choose."""
    return {IPv4Address: "0.0.0.0", IPv6Address: "::"}.get(family)


async def client_string(
    reactor: Any,
    where: tuple[str, ...],
    family: Any = None,
    wait_seconds: float | None = None,
    source: str | None = None,
    source_port: int | None = None,
) -> str:
    """Returns the endpoint string for a host and a port; an endpoint string alone is returned as it is.

    Raises ``DNSLookupError`` if the host has no address of the family.
    """
    if len(where) == 1:
        return where[0]
    host, port = where
    if family is not None:
        host = await resolved(reactor, host, family)
    return utp_string(
        host,
        port,
        timeout=None if wait_seconds is None else str(wait_seconds),
        bindAddress=source,
        localPort=None if source_port is None else str(source_port),
    )


def resolved(reactor: Any, host: str, family: Any) -> Deferred[str]:
    """Fires with the first address of a host in a family; fails with ``DNSLookupError`` if it has none."""
    found: Deferred[str] = Deferred()
    reactor.nameResolver.resolveHostName(_Resolving(host, found), host, addressTypes=[family])
    return found


@implementer(IResolutionReceiver)
class _Resolving:
    """Takes the first address of a family."""

    def __init__(self, host: str, found: Deferred[str]) -> None:
        self._host = host
        self._found = found

    def resolutionBegan(self, resolution: Any) -> None:
        """The addresses come next."""

    def addressResolved(self, address: Any) -> None:
        if not self._found.called:
            self._found.callback(address.host)

    def resolutionComplete(self) -> None:
        if not self._found.called:
            self._found.errback(error.DNSLookupError(f"{self._host} has no address of this family"))
