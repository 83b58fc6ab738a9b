"""``--live``: a screen that is redrawn in place, and leaves nothing behind but what is printed after it."""

from __future__ import annotations

from collections import deque

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from txutp.cli.measurement.report import WAYS, Lines, duration, scaled
from txutp.cli.measurement.results import Interval

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
SHOWN_INTERVALS = 5
LABEL_COLUMNS = 25


class Screen:
    """Shows the newest intervals of each direction, and how goodput, round trip and queue delay went."""

    def __init__(self, console: Console, lines: Lines, title: str) -> None:
        self._console = console
        self._lines = lines
        self._title = title
        self._recent: deque[Interval] = deque(maxlen=2 * SHOWN_INTERVALS)
        self._history: dict[str, deque[Interval]] = {}
        # Drawn when there is something new: a thread would take time from what it shows.
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._running = False

    def show(self, intervals: list[Interval]) -> None:
        """Draw with these as the newest."""
        if not intervals:
            return
        self._recent.extend(intervals)
        for interval in intervals:
            history = self._history.setdefault(interval.direction, deque(maxlen=200))
            history.append(interval)
        if not self._running:
            self._running = True
            self._live.start()
        self._live.update(self.drawing(), refresh=True)

    def hide(self) -> None:
        """Leave no trace."""
        if self._running:
            self._running = False
            self._live.stop()

    def drawing(self) -> Group:
        """Returns the screen."""
        width = self._console.width
        rows = [Text(self._title, style="bold")]
        for direction, history in self._history.items():
            rows.append(Text(f"\n{WAYS[direction]}", style="bold"))
            last = history[-1]
            rows.append(self._row("goodput", scaled(last.bits_per_second), [i.bits_per_second for i in history]))
            rows.append(self._row("rtt", duration(last.rtt_ms), [i.rtt_ms for i in history]))
            rows.append(self._row("queue", duration(last.queue_delay_ms), [i.queue_delay_ms for i in history]))
        shown = list(self._recent)[-SHOWN_INTERVALS * len(self._history) :]
        rows.append(Text("\n" + self._lines.header(), style="bold"))
        rows += [Text(self._lines.line(interval)) for interval in shown]
        for row in rows:
            row.truncate(width)
        rows.append(Text())  # for the ^C of a terminal, which would wrap behind a line that is full
        return Group(*rows)

    def _row(self, name: str, value: str, values: list[float | None]) -> Text:
        known = [0.0 if value is None else value for value in values]
        room = max(1, self._console.width - LABEL_COLUMNS)
        highest = max(known[-room:])
        top = duration(highest) if name != "goodput" else scaled(highest)
        blocks = ASCII_BLOCKS if self._console.options.ascii_only else BLOCKS
        return Text(f"{name:7} {value:>5}, max {top:>5} ") + Text(spark(known[-room:], blocks), style="cyan")


def spark(values: list[float], blocks: str = BLOCKS) -> str:
    """Returns a line of blocks whose heights are as the values to the largest of them."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return blocks[0] * len(values)
    top = len(blocks) - 1
    return "".join(blocks[round(value / highest * top)] for value in values)
