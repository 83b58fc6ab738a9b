"""``txutp send``: files and folders to ``txutp receive`` on another host."""

from __future__ import annotations

import json
from typing import Any

import click
from twisted.internet import error, task
from twisted.internet.defer import CancelledError, Deferred

from txutp.cli.files.progress import Progress
from txutp.cli.files.reading import LEFT_OUT, Entry, entries_of, name_of
from txutp.cli.files.screen import Screen, checksum_line
from txutp.cli.files.sender import CHANGED, STORED, UNREADABLE, Sender
from txutp.cli.files.wire import BUSY, DIFFERENT, shown
from txutp.cli.measurement.report import duration, scaled
from txutp.cli.messages import Broken, ProtocolError, Refused, Unanswered
from txutp.cli.options import (
    DURATION,
    client_endpoint,
    client_string,
    family_of,
    is_endpoint_string,
    qlog_option,
    rate_options,
)
from txutp.cli.output import (
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_NOT_STORED,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    EXIT_UNREADABLE,
    counted,
    give_up,
    on_interrupt,
    run_command,
)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0

TIMED_OUT = (Unanswered, error.TimeoutError, error.TCPTimedOutError)
UNCONNECTED = (error.ConnectError, error.DNSLookupError, OSError)
BROKEN = (Broken, Refused, error.ConnectionClosed)


@click.command(
    short_help="Send files and folders to txutp receive.",
    epilog=f"Exit codes: 0 everything is stored there; {EXIT_DIFFERENT} what arrived differs, or the other end does"
    f" not speak this protocol; {EXIT_LOST} the connection was lost; {EXIT_TIMED_OUT} the receiver did not answer;"
    f" {EXIT_UNCONNECTED} could not connect; {EXIT_UNREADABLE} a file could not be read, or changed while it was sent;"
    f" {EXIT_NOT_STORED} the receiver did not store a file; {EXIT_INTERRUPTED} interrupted.",
)
@click.argument("words", nargs=-1, required=True, metavar="FILE... HOST PORT | FILE... ENDPOINT")
@click.option("-4", "ipv4", is_flag=True, help="Use IPv4 only.")
@click.option("-6", "ipv6", is_flag=True, help="Use IPv6 only.")
@click.option("-w", "--wait", type=DURATION, help="Give up connecting after this time.  [default: 30s]")
@click.option("-s", "--source", metavar="ADDRESS", help="Leave from this address of ours.")
@click.option(
    "--retry", type=DURATION, default="2min", show_default=True,
    help="After a break, keep trying to go on for this time.",
)  # fmt: skip
@rate_options
@qlog_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON instead of checksums.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no summary.")
def send(words: tuple[str, ...], **options: Any) -> None:
    """Send files and folders to `txutp receive` on HOST.

    If the connection breaks, or either command is interrupted and started again, the transfer goes on where it was.
    At the end, the SHA-256 of each file is printed as sha256sum prints it.
    """
    command = Send(words, **options)
    run_command(command.run)


class Send:
    """One run of the command."""

    def __init__(
        self,
        words: tuple[str, ...],
        ipv4: bool,
        ipv6: bool,
        wait: float | None,
        source: str | None,
        retry: float,
        as_json: bool,
        quiet: bool,
    ) -> None:
        self._family = family_of(ipv4, ipv6)
        there = 1 if is_endpoint_string(words[-1]) else 2
        self._where, self._places = words[-there:], words[:-there]
        if not self._places:
            raise click.UsageError("Something is missing: say `txutp send FILE... HOST PORT`.")
        for place in self._places:
            if not name_of(place):
                raise click.UsageError(f"{place!r} has no name that it could have there.")
        self._wait_seconds = wait
        self._source = source
        self._retry_seconds = retry
        self._as_json = as_json
        self._quiet = quiet
        self._skipped: list[tuple[str, str]] = []
        self._exit_code = 0

    async def run(self, reactor: Any) -> None:
        """Send everything, and end with the exit code that says how that went."""
        entries = entries_of(self._places, lambda place, why: self._skipped.append((place, why)))
        self._check(entries)
        screen = Screen(reactor, not self._quiet)
        for place, why in self._skipped:
            screen.say(f"{shown((place,))} is not sent: {why}.")
        progress = Progress(reactor.seconds)
        progress.expect(sum(entry.size_bytes for entry in entries))
        running = Deferred.fromCoroutine(self._send(reactor, entries, progress, screen))
        on_interrupt(reactor, running.cancel)
        problem: BaseException | None = None
        try:
            await running
        except click.UsageError:
            raise
        except Exception as failure:
            problem = failure
        progress.end()
        screen.end(progress)
        self._tell(entries, progress, screen)
        self._end(entries, problem)

    def _check(self, entries: list[Entry]) -> None:
        """Raise a usage error for what makes no sense to send."""
        paths: dict[tuple[str, ...], str] = {}
        for entry in entries:
            if entry.path in paths:
                raise click.UsageError(
                    f"{paths[entry.path]!r} and {entry.place!r} would have the same name there; send them one by one."
                )
            paths[entry.path] = entry.place

    async def _send(self, reactor: Any, entries: list[Entry], progress: Progress, screen: Screen) -> None:
        """Connect until all entries have a result, as long as something moves."""
        if not entries:
            return
        sender = Sender(reactor, entries, progress)
        text = await client_string(reactor, self._where, self._family, self._wait_seconds, self._source)
        endpoint = client_endpoint(reactor, text)
        moved_at, done = reactor.seconds(), -1
        pause_seconds = FIRST_PAUSE_SECONDS
        screen.begin(progress)
        while True:
            problem: Exception | None = None
            try:
                await sender.run(endpoint)
            except (*TIMED_OUT, *UNCONNECTED, *BROKEN) as failure:
                problem = failure
            progress.broke()
            if not (busy := [entry for entry in entries if entry.result == BUSY]) and problem is None:
                return
            if problem is not None and not sender.connected:
                raise problem
            now_done = progress.moved_bytes + sum(entry.result is not None for entry in entries) - len(busy)
            if now_done != done:
                moved_at, done, pause_seconds = reactor.seconds(), now_done, FIRST_PAUSE_SECONDS
            if reactor.seconds() - moved_at + pause_seconds > self._retry_seconds:
                if problem is not None:
                    raise problem
                return
            why = sentence(problem) if problem is not None else "Another transfer writes a file of ours."
            screen.say(f"{why} Trying again in {duration(pause_seconds * 1_000)}.")
            for entry in busy:
                entry.result = None
                progress.total_bytes += entry.size_bytes
            await task.deferLater(reactor, pause_seconds)
            pause_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)

    def _tell(self, entries: list[Entry], progress: Progress, screen: Screen) -> None:
        """Print the results."""
        files = [entry for entry in entries if not entry.folder]
        stored = [entry for entry in files if entry.result == STORED]
        for entry in entries:
            if entry.result not in (None, STORED):
                screen.say(f"{shown(entry.path)} was not stored: {entry.why}.")
        rate = 8 * progress.moved_bytes / progress.seconds
        if self._as_json:
            told = [
                {"path": "/".join(entry.path), "bytes": entry.size_bytes, "sha256": entry.sha256}
                | {"result": entry.result or "unfinished", "why": entry.why}
                for entry in files
            ]
            told += [{"path": place, "result": "skipped", "why": why} for place, why in self._skipped]
            numbers = {"bytes_moved": progress.moved_bytes, "seconds": progress.seconds, "bits_per_second": rate}
            screen.result(json.dumps({"files": told, **numbers}).encode())
            return
        for entry in stored:
            assert entry.sha256 is not None
            screen.result(checksum_line(entry.path, entry.sha256))
        if files and not self._quiet:
            amount = f"{scaled(progress.moved_bytes)}B in {duration(progress.seconds * 1_000)}, {scaled(rate)}bit/s"
            screen.say(f"{len(stored):,} of {counted(len(files), 'file')} stored there; {amount}.")

    def _end(self, entries: list[Entry], problem: BaseException | None) -> None:
        """End with the exit code of the worst that happened, if it is not 0."""
        if isinstance(problem, CancelledError):
            give_up("Interrupted; the same command goes on where this one was.", EXIT_INTERRUPTED)
        if problem is not None:
            give_up(sentence(problem), exit_code(problem))
        results = {entry.result for entry in entries}
        if DIFFERENT in results:
            raise SystemExit(EXIT_DIFFERENT)
        if results & {CHANGED, UNREADABLE} or any(
            why not in LEFT_OUT or place in self._places for place, why in self._skipped
        ):
            raise SystemExit(EXIT_UNREADABLE)
        if results - {STORED}:
            raise SystemExit(EXIT_NOT_STORED)


def sentence(problem: BaseException) -> str:
    """Returns what went wrong, as a sentence."""
    if isinstance(problem, ProtocolError):
        return f"The other end does not speak the protocol of txutp send: {problem}."
    return str(problem)


def exit_code(problem: BaseException) -> int:
    """Returns the exit code for what went wrong; raises what is our own fault again."""
    if isinstance(problem, ProtocolError):
        return EXIT_DIFFERENT
    if isinstance(problem, TIMED_OUT):
        return EXIT_TIMED_OUT
    if isinstance(problem, BROKEN):
        return EXIT_LOST
    if isinstance(problem, UNCONNECTED):
        return EXIT_UNCONNECTED
    raise problem
