"""``txutp demo``: options in, tables and exit codes out.  ``exchange.py`` has what it does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import click
from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from txutp import __version__
from txutp.cli.exchange import Direction, Exchange, Lost, Outcome, TimedOut, demonstrate, serve
from txutp.cli.options import qlog_option
from txutp.cli.output import (
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_TIMED_OUT,
    give_up,
    on_interrupt,
    run_command,
)

PROGRESS_SECONDS = 0.1
BAR_COLUMNS = 28  # of 80 this leaves room for the ^C that a terminal shows; where it wraps, a bar stays behind
SHOWN_HASH_DIGITS = 16
# Below this width a screen gets no bars, and a table without lines that has shorter hashes.
NARROW_COLUMNS = 72
NARROW_HASH_DIGITS = 7


@click.command(
    short_help="Exchange random bytes with a process on this machine.",
    epilog=f"Exit codes: 0 everything arrived as it was sent; {EXIT_DIFFERENT} something else arrived;"
    f" {EXIT_LOST} the connection was reset or lost; {EXIT_TIMED_OUT} the other side did not answer;"
    f" {EXIT_INTERRUPTED} interrupted.",
)
@click.option(
    "--megabytes",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How much to send each way, in 1,000,000 bytes.",
)
@qlog_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all numbers instead of a table.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and no table.")
def demo(megabytes: int, as_json: bool, quiet: bool) -> None:
    """Send pseudo-random bytes in both directions at once over one uTP connection.

    The server is a process of its own; both sides are on this machine. At the end the hashes of what was sent and of
    what arrived are compared.
    """
    if sys.platform == "win32" and find_spec("win32api") is None:
        sys.exit(
            'txutp demo starts a process, and Twisted needs pywin32 for that. Please run: pip install "txutp[cli]"'
        )
    total_bytes = megabytes * 1_000_000
    bars = Bars(total_bytes) if sys.stderr.isatty() and not quiet else None

    async def run(reactor: Any) -> None:
        exchanges: list[Exchange] = []

        def begun(exchange: Exchange) -> None:
            exchanges.append(exchange)
            if bars is not None:
                bars.show(exchange)

        running = Deferred.fromCoroutine(demonstrate(reactor, total_bytes, begun))
        on_interrupt(reactor, running.cancel)
        outcome = None
        try:
            outcome = await running
        except Lost as lost:
            problem, exit_code = str(lost), EXIT_LOST
        except TimedOut as silence:
            problem, exit_code = str(silence), EXIT_TIMED_OUT
        except CancelledError:
            received_bytes = exchanges[0].received.bytes if exchanges else 0
            problem = f"Interrupted; {received_bytes:,} bytes had come from the server."
            exit_code = EXIT_INTERRUPTED
        finally:
            # Hiding the bars erases the lines below them, so the message comes after that.
            if bars is not None:
                bars.hide()
        if outcome is None:
            give_up(problem, exit_code)

        if as_json:
            click.echo(json.dumps(as_dictionary(outcome), indent=2))
        elif not quiet:
            console = Console(highlight=False)
            console.print(as_table(outcome, console.width < NARROW_COLUMNS))
        if not outcome.identical:
            give_up("What arrived is not what was sent.", EXIT_DIFFERENT)

    run_command(run)


@click.command("demo-server", hidden=True)
@click.option("--bytes", "total_bytes", type=int, required=True)
def demo_server(total_bytes: int) -> None:
    """The server's part of the demonstration."""

    async def run(reactor: Any) -> None:
        # The terminal interrupts all its processes; the parent, which ends us, is told by it.
        on_interrupt(reactor, lambda: None)
        with suppress(CancelledError):
            await serve(reactor, total_bytes)

    run_command(run)


# What people see


class TransferredColumn(ProgressColumn):
    """How much of how much, each in a unit of its own: the first megabytes of 5 GB are not "0.0"."""

    def render(self, task: Task) -> Text:
        return Text(f"{decimal(int(task.completed))} of {decimal(int(task.total or 0))}", style="progress.download")


class Bars:
    """A progress bar for each direction, on standard error."""

    def __init__(self, total_bytes: int) -> None:
        console = Console(stderr=True)
        narrow = console.width < NARROW_COLUMNS
        self._progress = Progress(
            TextColumn("{task.description}"),
            *([TaskProgressColumn()] if narrow else [BarColumn(BAR_COLUMNS), TransferredColumn()]),
            TransferSpeedColumn(),
            console=console,
            # Drawn by a call of the reactor: a thread would take time from what it shows.
            auto_refresh=False,
            transient=True,
        )
        self._to_server = self._progress.add_task("to the server", total=total_bytes)
        self._to_client = self._progress.add_task("to the client", total=total_bytes)
        self._drawing: LoopingCall | None = None

    def show(self, exchange: Exchange) -> None:
        """Draw both bars from now on."""
        self._progress.start()
        self._drawing = LoopingCall(self._draw, exchange)
        self._drawing.start(PROGRESS_SECONDS)

    def hide(self) -> None:
        """Leave no trace."""
        if self._drawing is not None:
            self._drawing.stop()
            self._progress.stop()

    def _draw(self, exchange: Exchange) -> None:
        self._progress.update(self._to_server, completed=exchange.stats.bytes_acked)
        self._progress.update(self._to_client, completed=exchange.received.bytes)
        self._progress.refresh()


def as_table(outcome: Outcome, narrow: bool = False) -> Table:
    """The outcome for people, on a screen of 40 columns at least."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False) if narrow else Table()
    digits = NARROW_HASH_DIGITS if narrow else SHOWN_HASH_DIGITS
    table.add_column("")
    for side in ("server", "client"):
        table.add_column(f"to {side}" if narrow else f"to the {side}", justify="right")
    both = (outcome.to_server, outcome.to_client)

    def row(name: str, value: Callable[[Direction], str]) -> None:
        table.add_row(name, *(value(direction) for direction in both))

    row("bytes sent", lambda direction: f"{direction.bytes_sent:,}")
    row("bytes received", lambda direction: f"{direction.bytes_received:,}")
    row("sha256 sent", lambda direction: f"{direction.sha256_sent[:digits]}...")
    row("sha256 received", lambda direction: f"{direction.sha256_received[:digits]}...")
    row("compared", lambda direction: "identical" if direction.identical else "[bold red]DIFFERENT")
    row("goodput", lambda direction: f"{direction.goodput_megabits_per_second:,.0f} Mbit/s")
    row("round trip" if narrow else "smoothed round trip", lambda direction: f"{direction.sender['rtt']:.2f} ms")
    row("queue delay", lambda direction: f"{direction.sender['queue_delay']:.2f} ms")
    row("retransmitted", lambda direction: f"{direction.retransmitted_share:.2%}")
    return table


def as_dictionary(outcome: Outcome) -> dict[str, Any]:
    """The outcome for programs."""

    def told(direction: Direction) -> dict[str, Any]:
        return asdict(direction) | {
            "identical": direction.identical,
            "goodput_megabits_per_second": direction.goodput_megabits_per_second,
            "retransmitted_share": direction.retransmitted_share,
        }

    return {
        "version": __version__,
        "identical": outcome.identical,
        "to_server": told(outcome.to_server),
        "to_client": told(outcome.to_client),
    }
