"""The parts and options of ``utp:`` strings: their names, their values, and the errors for wrong ones.

Twisted splits a string into parts, and ``endpoints.py`` passes these here.  ``OPTIONS`` lists all options; a new
option is one row there and the same row in ``docs/reference/strings.md``, which a test compares.

A wrong string raises at once, with a sentence that shows the right form.  As with ``tcp:``, a part that is missing,
given twice or unknown raises TypeError, and a value that is not accepted raises ValueError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import quoteStringArgument
from twisted.python.reflect import namedAny

from txutp.arguments import HIGHEST_PORT, checked_backlog, checked_port, checked_timeout, is_numeric
from txutp.core.congestion.controllers import CONTROLLERS
from txutp.core.dscp import dscp_of
from txutp.core.settings import LIMITS, Settings
from txutp.core.units import SECOND_US

SERVER, ADOPTED, CLIENT = "server", "server on a given socket", "client"
SERVERS, ALL = (SERVER, ADOPTED), (SERVER, ADOPTED, CLIENT)

# The form of each kind of string; its parts that may come without a name, in order; the parts that it needs.
FORMS = {SERVER: "utp:PORT", ADOPTED: "utp:fd=NUMBER", CLIENT: "utp:HOST:PORT"}
POSITIONAL: dict[str, tuple[str, ...]] = {
    SERVER: ("port", "interface", "backlog"),
    ADOPTED: (),
    CLIENT: ("host", "port"),
}
REQUIRED: dict[str, tuple[str, ...]] = {SERVER: ("port",), ADOPTED: ("fd",), CLIENT: ("host", "port")}

# Options of servers and clients with the same meaning.
COUNTERPARTS = {"interface": "bindAddress", "bindAddress": "interface"}

TIMES_US = {"us": 1, "ms": 1_000, "s": SECOND_US, "min": 60 * SECOND_US, "h": 3600 * SECOND_US}
SIZES_BYTES = {"B": 1, "k": 1 << 10, "K": 1 << 10, "KiB": 1 << 10}
SIZES_BYTES |= {"M": 1 << 20, "MiB": 1 << 20, "G": 1 << 30, "GiB": 1 << 30}
OFF = ("off", "no")
NUMBER_AND_UNIT = re.compile(r"([0-9]+\.?[0-9]*(?:e[0-9]+)?|\.[0-9]+) ?([a-zA-Z]*)")


@dataclass(frozen=True)
class Option:
    """An option of endpoint strings, or a part that may come without its name."""

    name: str
    kinds: tuple[str, ...]
    example: str
    meaning: str
    """Its description in ``docs/reference/strings.md``."""
    read: Callable[[Option, str], Any]
    """Returns the value that a text means, or raises ValueError."""
    field: str | None = None
    """The field of ``Settings`` that it sets, if it is one of those."""


# -- values --


def an_int(option: Option, text: str, accepted: str) -> int:
    try:
        return int(text)
    except ValueError as problem:
        raise ValueError(f"{option.name} is {accepted}, not {text!r}") from problem


def a_port(lowest: int) -> Callable[[Option, str], int]:
    """Make a reader of port numbers from ``lowest`` on."""

    def read(option: Option, text: str) -> int:
        what = "a port" if option.name == "port" else option.name
        try:
            number = int(text)
        except ValueError as problem:
            raise ValueError(f"{what} is a number from {lowest} to {HIGHEST_PORT}, not {text!r}") from problem
        return checked_port(number, lowest, what)

    return read


def a_backlog(option: Option, text: str) -> int:
    return checked_backlog(an_int(option, text, "a whole number from 0 on"))


def a_descriptor(option: Option, text: str) -> int:
    return an_int(option, text, "the number of a file descriptor")


def a_host(option: Option, text: str) -> str:
    """Refuse brackets; the endpoint checks the rest of a host."""
    if text.startswith("[") and isIPv6Address(text.strip("[]")):
        escaped = quoteStringArgument(text.strip("[]"))
        raise ValueError(f"an IPv6 address is written without brackets, and its colons as \\:, so {escaped}")
    return text


def a_timeout(option: Option, text: str) -> float | None:
    """Seconds to wait for a connection; None without a limit."""
    if text in OFF:
        return None
    try:
        return checked_timeout(amount_of(text, TIMES_US, "s")[0] / SECOND_US)
    except (ValueError, OverflowError) as problem:
        accepted = "a number of seconds from 0 on, or a time like 250ms or 2min, or off"
        raise ValueError(f"{option.name} is {accepted}, not {text!r}") from problem


def a_duration(bare: str = "", off: bool = False) -> Callable[[Option, str], int | None]:
    """Make a reader of microseconds; ``bare`` is the unit of a number without one, ``off`` allows None."""

    def read(option: Option, text: str) -> int | None:
        accepted = f"a time like {option.example}, with a unit of us, ms, s, min or h"
        if bare:
            accepted += ", or a number of seconds"
        return within_limits(option, text, TIMES_US, bare, off, accepted)

    return read


def a_size(option: Option, text: str) -> int | None:
    """Bytes, with or without a unit."""
    accepted = f"a number of bytes, like {option.example}, with or without a unit of k, M or G (of 1024)"
    return within_limits(option, text, SIZES_BYTES, "B", False, accepted)


def a_rate(option: Option, text: str) -> int | None:
    """Bytes per second, with or without a unit; None without a cap."""
    accepted = f"a number of bytes per second, like {option.example}, with or without a unit of k, M or G (of 1024)"
    return within_limits(option, text, SIZES_BYTES, "B", True, accepted)


def yes_or_no(option: Option, text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError(f"{option.name} is yes or no, not {text!r}")
    return text == "yes"


def a_codepoint(option: Option, text: str) -> int:
    return dscp_of(text)


def a_controller(option: Option, text: str) -> Any:
    if text in CONTROLLERS:
        return CONTROLLERS[text]
    try:
        return namedAny(text)
    except Exception as problem:
        known = ", ".join(CONTROLLERS)
        raise ValueError(
            f"{option.name} is one of {known}, or the dotted name of a controller class, not {text!r}"
        ) from problem


def amount_of(text: str, units: Mapping[str, int], bare: str) -> tuple[int, str]:
    """The amount that a number with a unit means, and the unit; raises ValueError or OverflowError."""
    match = NUMBER_AND_UNIT.fullmatch(text)
    unit = match[2] or bare if match else None
    if match is None or unit not in units or unit is None:
        raise ValueError(text)
    return round(float(match[1]) * units[unit]), unit


def within_limits(
    option: Option, text: str, units: Mapping[str, int], bare: str, off: bool, accepted: str
) -> int | None:
    """An amount within the limits of the option's field; errors name the limits in the unit of ``text``."""
    if off:
        if text in OFF:
            return None
        accepted += ", or off"
    try:
        amount, unit = amount_of(text, units, bare)
    except (ValueError, OverflowError) as problem:
        raise ValueError(f"{option.name} is {accepted}, not {text!r}") from problem
    lowest, highest = LIMITS.get(option.field or "", (1, None))
    if amount < lowest or (highest is not None and amount > highest):
        low = spoken(lowest, unit, units)
        limits = f"at least {low}" if highest is None else f"from {low} to {spoken(highest, unit, units)}"
        raise ValueError(f"{option.name} is {limits}{', or off' if off else ''}, not {spoken(amount, unit, units)}")
    return amount


def spoken(amount: int, unit: str, units: Mapping[str, int]) -> str:
    """An amount in a unit, or in a smaller one if that takes fewer digits."""
    texts = [f"{amount / size:.12g}{name}" for name, size in units.items() if size <= units[unit]]
    in_unit = f"{amount / units[unit]:.12g}{unit}"
    return in_unit if len(in_unit) < 10 else min(texts, key=len)


# -- options --

OPTIONS = (
    Option("host", (CLIENT,), "example.org", "the host to connect to, a name or an address", a_host),
    Option("port", (SERVER,), "6881", "the port to listen on; 0 for a free one", a_port(0)),
    Option("port", (CLIENT,), "6881", "the port to connect to", a_port(1)),
    Option(
        "interface",
        (SERVER,),
        "127.0.0.1",
        "the address to listen on, or a name of it; without one all IPv4 addresses",
        a_host,
    ),
    Option("fd", (ADOPTED,), "3", "in place of a port: the descriptor of a bound UDP socket", a_descriptor),
    Option("backlog", SERVERS, "200", "how many handshakes may be under way at least; 50 by default", a_backlog),
    Option(
        "timeout",
        (CLIENT,),
        "10",
        "how long to try to connect, in seconds or with a unit; 30 s by default",
        a_timeout,
    ),
    Option("bindAddress", (CLIENT,), "192.0.2.1", "the address of this host to connect from, or a name of it", a_host),
    Option(
        "localPort",
        (CLIENT,),
        "6881",
        "the port to connect from; it may be one that this program listens on, as NATs need it",
        a_port(0),
    ),
    Option(
        "congestion",
        ALL,
        "ledbat",
        "the [congestion controller](../explanation/yielding.md): `shallow`, `ledbat`, `ledbat++` or a dotted name",
        a_controller,
        "congestion",
    ),
    Option(
        "target",
        ALL,
        "25ms",
        "how long packets may wait in queues; needs a unit",
        a_duration(),
        "target_delay_us",
    ),
    Option(
        "receive",
        ALL,
        "10ms",
        "how long packets may wait in queues on their way to us, before [their senders are held back]"
        "(../explanation/yielding.md); `off` leaves that to the senders; 4 ms by default",
        a_duration(off=True),
        "receive_target_delay_us",
    ),
    Option(
        "idle",
        ALL,
        "5min",
        "a connection ends when it has received nothing for this time; a number without unit is seconds; "
        "`off` by default",
        a_duration("s", off=True),
        "idle_timeout_us",
    ),
    Option(
        "keepalive",
        ALL,
        "29s",
        "how long a connection is idle at most before it asks its peer for a sign of life; a number without unit is "
        "seconds; `off` for never; 29 s by default",
        a_duration("s", off=True),
        "keepalive_us",
    ),
    Option(
        "mtu",
        ALL,
        "1200",
        "the largest datagram to send, in bytes without IP and UDP headers; by default as large as the path takes",
        a_size,
        "maximum_datagram_bytes",
    ),
    Option(
        "buffer",
        ALL,
        "4M",
        "what a connection holds for an application that does not read, in bytes or with `k`, `M`, `G`; 1M by default",
        a_size,
        "receive_buffer_bytes",
    ),
    Option(
        "up",
        ALL,
        "2M",
        "the [most bytes per second that leave](../howto/caps.md), headers included: of all connections of a server, "
        "or of the one of a client; a number without unit is bytes; `off` by default",
        a_rate,
        "up_bytes_per_second",
    ),
    Option(
        "down",
        ALL,
        "10M",
        "the most bytes per second that arrive, in the same way; `off` by default",
        a_rate,
        "down_bytes_per_second",
    ),
    Option(
        "upEach",
        SERVERS,
        "500k",
        "the most bytes per second that leave on each connection of a server; `off` by default",
        a_rate,
        "connection_up_bytes_per_second",
    ),
    Option(
        "downEach",
        SERVERS,
        "500k",
        "the most bytes per second that arrive on each connection of a server; `off` by default",
        a_rate,
        "connection_down_bytes_per_second",
    ),
    Option(
        "dscp",
        ALL,
        "cs1",
        "how routers shall treat the packets: a DSCP, as a name or a number; `le`, lower effort, by default",
        a_codepoint,
        "dscp",
    ),
    Option(
        "believeUnreachable",
        ALL,
        "no",
        "whether ICMP errors end an attempt to connect; `no` for [hole punching](../howto/holepunching.md)",
        yes_or_no,
        "believe_unreachable",
    ),
)


def options_of(kind: str) -> dict[str, Option]:
    """The options of a kind of string, by name."""
    return {option.name: option for option in OPTIONS if kind in option.kinds}


# -- strings --


def read_server(parts: Sequence[str], options: Mapping[str, str]) -> tuple[dict[str, Any], Settings]:
    """The arguments of an endpoint and its settings, from the nameless parts and the options of a server string."""
    return read(ADOPTED if "fd" in options else SERVER, parts, options)


def read_client(parts: Sequence[str], options: Mapping[str, str]) -> tuple[dict[str, Any], Settings]:
    """Returns the arguments and settings of a client string, from its parts without a name and those with one."""
    return read(CLIENT, parts, options)


def read(kind: str, parts: Sequence[str], options: Mapping[str, str]) -> tuple[dict[str, Any], Settings]:
    known = options_of(kind)
    texts = named(kind, parts, options)
    for name in texts:
        if name not in known:
            raise TypeError(sentences(*what_is_unknown(kind, name, known), form(kind)))
    for name in REQUIRED[kind]:
        if name not in texts:
            raise TypeError(sentences(f"This string has no {name}", form(kind)))
    for name in REQUIRED[kind]:
        if not texts[name]:
            raise ValueError(sentences(f"This string has an empty {name}", *advice(kind, parts, options), form(kind)))
    arguments: dict[str, Any] = {}
    chosen: dict[str, Any] = {}
    for name, text in texts.items():
        option = known[name]
        try:
            value = option.read(option, text)
        except ValueError as problem:
            raise ValueError(sentences(str(problem), *advice(kind, parts, options))) from problem
        if option.field is None:
            arguments[name] = value
        else:
            chosen[option.field] = value
    return arguments, Settings(**chosen)


def named(kind: str, parts: Sequence[str], options: Mapping[str, str]) -> dict[str, str]:
    """All parts of a string by name; raises TypeError for too many parts, or one that is given twice."""
    names = list(POSITIONAL[kind])
    if kind == CLIENT:
        # as with tcp:, a host by name leaves the one part without a name to the port, and the other way round
        names = [name for name in names if name not in options]
    texts = dict(zip(names, parts, strict=False))
    twice = [name for name in texts if name in options]
    if len(parts) > len(names):
        allowed = f"only {' and '.join(names)} may be given so" if names else "none may be given so"
        problem = f"This string has too many parts without a name: {', '.join(map(repr, parts))}, where {allowed}"
    elif twice:
        problem = f"This string has {twice[0]} twice, as {texts[twice[0]]!r} and as {options[twice[0]]!r}"
    else:
        return texts | dict(options)
    raise TypeError(sentences(problem, *advice(kind, parts, options), form(kind)))


def sentences(*parts: str) -> str:
    """One text of several sentences; the last one gets no full stop, as is usual in exceptions."""
    return " ".join(part if part.endswith("?") else f"{part}." for part in parts).removesuffix(".")


def form(kind: str) -> str:
    """The sentence that shows the form of a kind of string, and its options."""
    names = [f"{name}=" for name in sorted(options_of(kind), key=str.lower) if name not in REQUIRED[kind]]
    return f"A {kind} is written {FORMS[kind]}, and may have the options {', '.join(names)}"


def what_is_unknown(kind: str, name: str, known: Mapping[str, Option]) -> list[str]:
    """The sentences about an unknown option, and the option that may be meant."""
    elsewhere = [option.kinds[0] for option in OPTIONS if option.name == name]
    meant = COUNTERPARTS.get(name) if elsewhere else nearest_to(name, known)
    problem = f"{name}= is an option of a {elsewhere[0]}" if elsewhere else f"There is no option {name}="
    return [problem, f"Is {meant}= meant?"] if meant in known else [problem]


def nearest_to(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one."""
    plain = {re.sub("[^a-z]", "", other.lower()): other for other in known}
    wanted = re.sub("[^a-z]", "", name.lower())
    begun = [other for other in plain if len(wanted) > 2 and other.startswith(wanted)]
    near = begun or get_close_matches(wanted, plain, 1)
    return plain[near[0]] if near else None


def advice(kind: str, parts: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """The right spelling, where the colons of an IPv6 address have split it, or an address is in place of a port."""
    found = misplaced_address(kind, parts, options)
    if found is None:
        return []
    name, address = found
    escaped = quoteStringArgument(address)
    if kind == CLIENT:
        is_left = parts and parts[-1].isdigit() and not address.endswith(f":{parts[-1]}")
        port = options.get("port") or (parts[-1] if is_left else "PORT")
        meant = f"{name}={escaped}" if name in options else f"utp:{escaped}:{port}"
    else:
        port = options.get("port") or next((part for part in parts if part.isdigit()), "PORT")
        meant = f"utp:{port}:interface={escaped}"
    rule = ["A colon in a value is written \\:, and an address has no brackets"] if ":" in address else []
    return [f"Is {meant} meant?", *rule]


def misplaced_address(kind: str, parts: Sequence[str], options: Mapping[str, str]) -> tuple[str, str] | None:
    """The option that an address belongs to, and the address, which may be split into several parts."""
    parts = list(parts)
    candidates: list[tuple[str, list[str]]] = []
    if kind == CLIENT:
        missing = [name for name in POSITIONAL[CLIENT] if name not in options]
        if "bindAddress" in options:
            candidates.append(("bindAddress", [options["bindAddress"], *parts[len(missing) :]]))
        before_port = parts if "port" in options else parts[:-1]
        for pieces in (before_port, parts):
            candidates.append(("host", [options["host"], *pieces] if "host" in options else pieces))
    else:
        behind_port = parts if "port" in options else parts[1:]
        if "interface" in options:
            candidates.append(("interface", [options["interface"], *behind_port]))
        else:
            candidates += [("interface", behind_port), ("interface", parts[:-1]), ("interface", parts)]
            if parts and is_numeric(parts[0].strip("[]")):
                return "interface", parts[0].strip("[]")
    for name, pieces in candidates:
        address = ":".join(pieces).strip("[]")
        if len(pieces) > 1 and isIPv6Address(address):
            return name, address
    return None
