"""What ``txutp perf`` is asked for: its options, checked, as far as that needs no reactor."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from txutp.cli.measurement.wire import LONGEST_BLOCK_BYTES, LONGEST_TEST_SECONDS, SHORTEST_INTERVAL_SECONDS, Parameters
from txutp.cli.options import client_endpoint, family_of, is_endpoint_string, resolved, utp_string
from txutp.core.settings import Settings

DEFAULT_PORT = 5201
DEFAULT_SECONDS = 10.0
MULTIPLES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


class Quantity(click.ParamType):  # type: ignore[type-arg]
    """A whole number with a decimal multiple, like ``10M``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        match = re.fullmatch(r"(\d+\.?\d*|\.\d+)([kmgt]?)", str(value).lower())
        number = round(float(match[1]) * MULTIPLES[match[2]]) if match else 0
        if number < 1:
            self.fail(f"{value!r} is not a {self.name}; write it like 500, 64K or 10M", param, ctx)
        return number


class Options:
    """The options of the command, checked as far as that needs no reactor."""

    def __init__(self, **options: Any) -> None:
        self.server: bool = options["server"]
        self.destination: str | None = options["destination"]
        self.endpoint: str | None = options["endpoint"]
        self.source: Path | None = options["source"]
        self.plot: Path | None = options["plot"]
        self.compare: bool = options["compare"] is not None
        self.as_json: bool = options["as_json"]
        self.json_stream: bool = options["json_stream"]
        self.live: bool = options["live"]
        self.one_off: bool = options["one_off"]
        self.bind: str | None = options["bind"]
        self.family = family_of(options["ipv4"], options["ipv6"])
        self._host = self.destination
        self.wait_seconds: float = options["wait"]
        self.port: int = DEFAULT_PORT if options["port"] is None else options["port"]
        self.congestion: str | None = options["congestion"]
        target_seconds: float | None = options["target"]
        self.target_delay_us: int | None = None if target_seconds is None else round(target_seconds * 1e6)
        self._check(options)
        self.parameters: Parameters = Parameters(
            seconds=DEFAULT_SECONDS if options["seconds"] is None else options["seconds"],
            total_bytes=options["total_bytes"],
            streams=options["parallel"],
            reverse=options["reverse"],
            bidirectional=options["bidir"],
            block_bytes=options["length"],
            omit_seconds=options["omit"],
            interval_seconds=options["interval"],
            bits_per_second=options["bitrate"],
            congestion=self.congestion,
            target_delay_us=self.target_delay_us,
        )
        try:
            Settings(**self.parameters.settings_changes)
        except ValueError as problem:
            raise click.UsageError(f"--target: {problem}") from problem

    def _check(self, options: dict[str, Any]) -> None:
        """Raise a usage error for what does not go together."""
        if self.source is not None:
            if self.plot is None or self.server or self.destination:
                raise click.UsageError("--from goes with --plot alone: `txutp perf --plot FILE.svg --from FILE`.")
            return
        if self.server == (self.destination is not None):
            raise click.UsageError("Say either `txutp perf -s` or `txutp perf -c HOST`.")
        if self.endpoint is not None and not self.server:
            raise click.UsageError("The server's endpoint goes behind -c.")
        where = self.endpoint if self.server else self.destination
        if self.server and where is not None and not is_endpoint_string(where):
            raise click.UsageError(f"{where!r} is not an endpoint string; a port goes behind -p, an address behind -B.")
        if where is not None and is_endpoint_string(where):
            for name, letter in (("port", "-p"), ("bind", "-B"), ("ipv4", "-4"), ("ipv6", "-6")):
                if options[name] not in (None, False):
                    raise click.UsageError(f"{letter} does not go with an endpoint string, which says it all.")
            if self.server and (self.congestion or self.target_delay_us):
                raise click.UsageError("With a server's endpoint string -C and --target go into it.")
        elif not self.server and self.port == 0:
            raise click.UsageError("A client needs the port of its server: -p PORT.")
        if self.one_off and not self.server:
            raise click.UsageError("-1 goes with -s.")
        if options["reverse"] and options["bidir"]:
            raise click.UsageError("-R and --bidir exclude each other.")
        if self.as_json and self.json_stream:
            raise click.UsageError("-J and --json-stream exclude each other.")
        if self.live and (self.server or self.as_json or self.json_stream):
            raise click.UsageError("--live is for a client that prints no JSON.")
        if self.server:
            for name in ("seconds", "total_bytes", "bitrate", "plot", "compare"):
                if options[name] is not None:
                    raise click.UsageError("What a test is like is the client's to say; the server takes part.")
            return
        if options["total_bytes"] is not None and (options["seconds"] is not None or options["omit"] > 0):
            raise click.UsageError("-n says when the test ends, and -t and -O go without it.")
        if self.compare and (options["total_bytes"] is not None or self.plot or self.live):
            raise click.UsageError("--compare goes by time: without -n, --plot and --live.")
        if self.compare and self.destination is not None and is_endpoint_string(self.destination):
            raise click.UsageError("--compare needs a host, and the port that both protocols have: -c HOST -p PORT.")
        if not SHORTEST_INTERVAL_SECONDS <= options["interval"] <= LONGEST_TEST_SECONDS:
            raise click.UsageError(f"-i is at least {SHORTEST_INTERVAL_SECONDS * 1000:.0f}ms.")
        if options["length"] > LONGEST_BLOCK_BYTES:
            raise click.UsageError(f"-l is at most {LONGEST_BLOCK_BYTES:,} bytes.")
        if options["bitrate"] is not None and options["bitrate"] < 8:
            raise click.UsageError("-b is at least 8 bits per second.")
        if max(options["seconds"] or 0, options["omit"]) > LONGEST_TEST_SECONDS:
            raise click.UsageError(f"A test takes at most {LONGEST_TEST_SECONDS / 3600:.0f} hours.")

    async def resolve(self, reactor: Any) -> None:
        """Look up the server's address if ``-4`` or ``-6`` asks for a family; raises ``DNSLookupError``."""
        if self.family is not None and self.destination is not None:
            self._host = await resolved(reactor, self.destination, self.family)

    def client_endpoint(self, reactor: Any, kind: str, port: int) -> Any:
        """Returns the server's endpoint over uTP or TCP."""
        assert self.destination is not None
        assert self._host is not None
        if is_endpoint_string(self.destination):
            return client_endpoint(reactor, self.destination)
        text = utp_string(self._host, str(port), timeout=f"{math.ceil(self.wait_seconds)}", bindAddress=self.bind)
        return client_endpoint(reactor, kind + text.removeprefix("utp"))
