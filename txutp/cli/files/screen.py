"""What people see of transfers: a line for each on standard error, if that is a terminal; results on standard output.

A line that is printed while bars are up would be drawn over.  So lines wait for the next drawing, which takes the bars
away, prints them, and puts the bars below.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from twisted.internet.task import LoopingCall

from txutp.cli.files.progress import Progress
from txutp.cli.files.wire import shown
from txutp.cli.measurement.report import duration, scaled
from txutp.cli.output import say

DRAW_SECONDS = 0.1
WIDE_COLUMNS = 72  # from here on there is room for names and bars
NAME_COLUMNS = 20
MOST_COLUMNS = 110


class Screen:
    """Prints lines, and shows bars below them while there are any."""

    def __init__(self, reactor: Any, bars: bool) -> None:
        self._console = Console(stderr=True)
        self._bars = bars and self._console.is_terminal
        self._live: Live | None = None
        self._lines: list[tuple[bytes, bool]] = []
        self._drawing = LoopingCall(self._draw)
        self._drawing.clock = reactor
        self.transfers: list[Progress] = []

    def begin(self, progress: Progress) -> None:
        """Show a transfer from now on."""
        self.transfers.append(progress)
        if self._bars and not self._drawing.running:
            self._drawing.start(DRAW_SECONDS)

    def end(self, progress: Progress) -> None:
        """Show a transfer no more."""
        if progress in self.transfers:
            self.transfers.remove(progress)
        if not self.transfers:
            self.hide()

    def say(self, words: str) -> None:
        """Print a sentence on standard error."""
        self._print(words.encode("utf-8", "backslashreplace"), True)

    def result(self, line: bytes) -> None:
        """Print a line on standard output."""
        self._print(line, False)

    def hide(self) -> None:
        """Take the bars away, and leave the lines."""
        if self._drawing.running:
            self._drawing.stop()
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._flush()

    def _print(self, line: bytes, for_people: bool) -> None:
        self._lines.append((line, for_people))
        if self._live is None:
            self._flush()

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        for line, for_people in lines:
            if for_people:
                say(line.decode())
            else:
                _echo(line)

    def _draw(self) -> None:
        if self._lines and self._live is not None:
            self._live.stop()
            self._live = None
            self._flush()
        if self._live is None:
            # Drawn by a call of the reactor: a thread would take time from what it shows.
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(drawing(self.transfers, self._console.width), refresh=True)


def _echo(line: bytes) -> None:
    try:
        click.echo(line)
    except BrokenPipeError:  # the reader of our output has gone; what we do goes on
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), sys.stdout.fileno())


def drawing(transfers: list[Progress], width: int) -> Group:
    """Returns a line for each transfer, for a terminal of this width."""
    table = Table.grid(padding=(0, 1))
    for progress in transfers:
        share = f"{min(1.0, progress.done_bytes / progress.total_bytes):.0%}" if progress.total_bytes else "-"
        numbers = [
            Text(f"{share:>4}"),
            Text(f"{scaled(progress.bytes_per_second)}B/s".rjust(8)),
            Text(time_left(progress.left_seconds).rjust(7)),
            Text(f"queue {duration(progress.queue_ms):>5}"),
        ]
        if width >= WIDE_COLUMNS:
            name = Text(shown(progress.path[-1:]))
            name.truncate(NAME_COLUMNS, overflow="ellipsis", pad=True)
            # Two columns stay free for the ^C that a terminal shows; where it wraps, a bar stays behind.
            room = min(width, MOST_COLUMNS) - NAME_COLUMNS - sum(len(number) + 1 for number in numbers) - 3
            bar = ProgressBar(max(1, progress.total_bytes), min(progress.done_bytes, progress.total_bytes), room)
            table.add_row(name, bar, *numbers)
        else:
            table.add_row(*numbers)
    return Group(table)


def time_left(seconds: float | None) -> str:
    """Returns a time like ``0:42`` or ``1:02:03``; ``-`` where it is not known."""
    if seconds is None or seconds >= 100 * 3600:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def checksum_line(path: tuple[str, ...], sha256: str) -> bytes:
    """Returns a line as ``sha256sum`` prints and checks it; names with odd characters are escaped as it does."""
    name = "/".join(path)
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return os.fsencode(f"{'' if escaped == name else chr(92)}{sha256}  {escaped}")
