"""What ``txutp perf`` prints of tests: lines for people, or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from txutp import __version__
from txutp.cli.measurement.asked import Options
from txutp.cli.measurement.client import Client
from txutp.cli.measurement.compare import PHASES, Comparison
from txutp.cli.measurement.live import Screen
from txutp.cli.measurement.report import COMPARISON_HEADER, Lines, comparison_line, duration, scaled, summary_lines
from txutp.cli.measurement.results import CLIENT, Interval, Results, direction_from
from txutp.cli.measurement.server import Session
from txutp.cli.measurement.wire import Parameters
from txutp.cli.options import named


class Printer:
    """Standard output: lines for people, or JSON.

    ``on_closed`` is called once if the reader of it goes away, as ``head`` does; from then on nothing is printed.
    """

    def __init__(self, as_json: bool, json_stream: bool) -> None:
        self._as_json = as_json
        self._json_stream = json_stream
        self.console: Console = Console(highlight=False, soft_wrap=True)
        self.on_closed: Callable[[], object] = lambda: None
        self.closed: bool = False

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line for people."""
        if not self._as_json and not self._json_stream:
            self._print(lambda: self.console.print(text, style=style, markup=False))

    def event(self, name: str, data: Any) -> None:
        """Print an event of ``--json-stream``."""
        if self._json_stream:
            self._print(lambda: click.echo(json.dumps({"event": name, "data": data})))

    def document(self, told: dict[str, Any]) -> None:
        """Print the document of ``-J``."""
        if self._as_json:
            self._print(lambda: click.echo(json.dumps(told, indent=2)))

    def _print(self, action: Callable[[], None]) -> None:
        if self.closed:
            return
        try:
            action()
        except (BrokenPipeError, SystemExit):  # rich makes the second of the first
            self.closed = True
            with open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), sys.stdout.fileno())  # what is buffered goes there at the end
            self.on_closed()


class TestView:
    """A test and what is shown of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.printer: Printer = Printer(options.as_json, options.json_stream)
        self._results = Results(options.parameters, keep=options.as_json or options.plot is not None)
        self._client: Client | None = None
        self._screen: Screen | None = None
        console = Console(stderr=True)
        self._lines = Lines(
            (console if options.live else self.printer.console).width,
            options.parameters.bidirectional,
            direction_from(CLIENT),
        )
        if options.live and console.is_terminal:
            self._screen = Screen(console, self._lines, f"txutp perf with {options.destination}")

    async def run(self, reactor: Any) -> None:
        """Run the test."""
        options = self._options
        endpoint = options.client_endpoint(reactor, "utp", options.port)
        self._client = Client(reactor, endpoint, self._results, options.wait_seconds, self._tell)
        self._client.began.addCallback(lambda nothing: self._begin())
        await self._client.run()

    def _begin(self) -> None:
        assert self._client is not None
        self.printer.event("start", self._start())
        if self._screen is None:
            self.printer.line(f"Connected to {named(self._client.peer_address)}.")
            self.printer.line(self._lines.header(), style="bold")

    def _tell(self, intervals: list[Interval]) -> None:
        for interval in intervals:
            self.printer.event("interval", self._results.interval_as_json(interval))
            if self._screen is None:
                self.printer.line(self._lines.line(interval))
        if self._screen is not None:
            self._screen.show(intervals)

    def end(self, problem: str | None) -> None:
        """Show the totals, if data ever flowed."""
        if self._screen is not None:
            self._screen.hide()
        if self._client is not None and self._client.began.called:
            for line in summary_lines(self._results.summaries()):
                self.printer.line(line)
        if problem is not None:
            self.printer.event("error", problem)
        self.printer.event("end", self._results.end_as_json())
        self.printer.document(self.document(problem))

    def _start(self) -> dict[str, Any]:
        address = None if self._client is None else self._client.peer_address
        peer = None if address is None else named(address)
        return {"version": __version__, "peer": peer, "test": self._results.start_as_json()}

    def document(self, problem: str | None) -> dict[str, Any]:
        """Returns all of the test for programs."""
        told = {
            "start": self._start(),
            "intervals": [self._results.interval_as_json(interval) for interval in self._results.intervals],
            "end": self._results.end_as_json(),
        }
        return told if problem is None else told | {"error": problem}


class CompareView:
    """A comparison and what is shown of it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.printer: Printer = Printer(options.as_json, options.json_stream)
        self._comparison: Comparison | None = None

    async def run(self, reactor: Any) -> None:
        """Run all phases."""
        options = self._options

        def endpoint(kind: str, port: int) -> Any:
            return options.client_endpoint(reactor, kind, port)

        self._comparison = Comparison(
            reactor, options.parameters, endpoint, options.port, options.wait_seconds, self._tell, self._over
        )
        await self._comparison.run()

    def _tell(self, phase: str, kind: str, results: Results, intervals: list[Interval]) -> None:
        for interval in intervals:
            told = {"phase": phase, "transport": kind} | results.interval_as_json(interval)
            self.printer.event("interval", told)

    def _over(self, phase: dict[str, Any]) -> None:
        if phase["phase"] == PHASES[0][0]:
            for line in COMPARISON_HEADER:
                self.printer.line(line, style="bold")
        self.printer.line(comparison_line(phase))

    def end(self, problem: str | None) -> None:
        """Print what is for programs; people have seen each line when it was complete, but for that of a bad end."""
        phases = [] if self._comparison is None else self._comparison.phases
        if problem is not None and len(phases) > 1:
            self.printer.line("")
            self.printer.line(comparison_line(phases[-1]))
        if problem is not None:
            self.printer.event("error", problem)
        self.printer.event("end", {"phases": phases})
        self.printer.document(self.document(problem))

    def document(self, problem: str | None) -> dict[str, Any]:
        """Returns the comparison for programs."""
        phases = [] if self._comparison is None else self._comparison.phases
        told: dict[str, Any] = {"start": {"version": __version__}, "phases": phases}
        return told if problem is None else told | {"error": problem}


class SessionView:
    """A test that this server takes part in."""

    def __init__(self, printer: Printer, session: Session) -> None:
        self._printer = printer
        self._session = session
        self.peer: str = named(session.peer_address)
        printer.event("start", self._start())
        printer.line(f"Test with {self.peer}: {told(session.results.parameters)}.")

    def tell(self, intervals: list[Interval]) -> None:
        """Print intervals for programs; several tests at once would mix those for people."""
        for interval in intervals:
            self._printer.event("interval", {"peer": self.peer} | self._session.results.interval_as_json(interval))

    def end(self, problem: str | None) -> None:
        """Print the totals."""
        results = self._session.results
        for line in [*summary_lines(results.summaries()), ""]:
            self._printer.line(line)
        bad = {} if problem is None else {"error": problem}
        self._printer.event("end", {"peer": self.peer} | results.end_as_json() | bad)
        intervals = [results.interval_as_json(interval) for interval in results.intervals]
        self._printer.document({"start": self._start(), "intervals": intervals, "end": results.end_as_json()} | bad)

    def _start(self) -> dict[str, Any]:
        return {"version": __version__, "peer": self.peer, "test": self._session.results.start_as_json()}


def told(parameters: Parameters) -> str:
    """Returns what a test is like in a few words."""
    way = "both directions" if parameters.bidirectional else "to the client" if parameters.reverse else "to the server"
    amount = duration(parameters.seconds * 1_000)
    if parameters.total_bytes is not None:
        amount = f"{scaled(parameters.total_bytes)} bytes"
    streams = "" if parameters.streams == 1 else f", {parameters.streams} streams"
    return f"{amount} {way}{streams}"
