"""Numbers for people: intervals as lines under a header, totals as a table, in 40 columns or more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from txutp.cli.measurement.results import Interval, Summary, Total

NOTHING = "-"
UNITS = ("K", "M", "G", "T", "P")

# From this width on there is room for spaces and for more columns.
WIDE_COLUMNS = 72


def scaled(value: float | None, columns: int = 5) -> str:
    """Returns a number in five characters, or four, at most: like ``999``, ``1.00K`` or ``12.3M``."""
    if value is None:
        return NOTHING
    if value < 999.5:
        return f"{value:.0f}"
    for unit in UNITS[:-1]:
        value /= 1_000
        text = _three_digits(value) if columns > 4 else _two_digits(value)
        if text is not None:
            return text + unit
    return f"{value / 1_000:.0f}{UNITS[-1]}"


def duration(milliseconds: float | None) -> str:
    """Returns a time in at most five characters, like ``85us``, ``1.2ms``, ``250ms`` or ``1.50s``."""
    if milliseconds is None:
        return NOTHING
    if milliseconds < 0.0995:
        return f"{milliseconds * 1_000:.0f}us"
    if milliseconds < 9.95:
        return f"{milliseconds:.1f}ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f}ms"
    return f"{_three_digits(milliseconds / 1_000) or f'{milliseconds / 1_000:.0f}'}s"


def _three_digits(value: float) -> str | None:
    """Returns a number below 1000 in at most four characters; None for a larger one."""
    if value < 9.995:
        return f"{value:.2f}"
    if value < 99.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 999.5 else None


def _two_digits(value: float) -> str | None:
    """Returns a number below 1000 in at most three characters; None for a larger one."""
    if value < 9.95:
        return f"{value:.1f}"
    return f"{value:.0f}" if value < 999.5 else None


def seconds(value: float, columns: int = 5) -> str:
    """Returns a moment of a test, like ``1.0s``; ``1.00s`` if six columns are there, and less exactly if it is late."""
    texts = (f"{value:.{digits}f}s" for digits in (2 if columns > 5 else 1, 1))
    return next((text for text in texts if len(text) <= columns), f"{value:.0f}s")


@dataclass(frozen=True)
class Column:
    """A column of the lines of intervals."""

    header: str
    width: int
    value: Callable[[Interval], str]


class Lines:
    """Intervals as lines that are aligned with a header, for a terminal of some width.

    Without ``both_directions`` there is a column for the queue delay on the way back; with it the other direction has
    a line of its own.
    """

    def __init__(self, width: int, both_directions: bool, outgoing: str) -> None:
        """``outgoing`` is the name of the direction that is called ``out``."""
        wide = width >= WIDE_COLUMNS
        columns = [Column("time", 5, lambda interval: seconds(interval.end_seconds))]
        if wide:
            columns = [
                Column("from", 6, lambda interval: seconds(interval.start_seconds, 6)),
                Column("to", 6, lambda interval: seconds(interval.end_seconds, 6)),
            ]
        if both_directions:
            columns.append(Column("", 3, lambda interval: "out" if interval.direction == outgoing else "in"))
        if wide:
            columns.append(Column("bytes", 6, lambda interval: scaled(interval.bytes)))
        columns += [
            Column("bit/s" if wide else "rate", 5, lambda interval: scaled(interval.bits_per_second)),
            Column("retr", 5 if wide else 4, lambda interval: scaled(interval.retransmits, 5 if wide else 4)),
            Column("cwnd", 5, lambda interval: scaled(interval.cwnd_bytes)),
            Column("rtt", 5, lambda interval: duration(interval.rtt_ms)),
            Column("queue", 5, lambda interval: duration(interval.queue_delay_ms)),
        ]
        if not both_directions:
            columns.append(Column("back", 5, lambda interval: duration(interval.reverse_queue_delay_ms)))
        self._columns = columns
        self._gap = "  " if wide else " "
        self._note = "  (omitted)" if wide else ""

    def header(self) -> str:
        """Returns the line above."""
        return self._joined([column.header for column in self._columns])

    def line(self, interval: Interval) -> str:
        """Returns the line of an interval."""
        cells = self._joined([column.value(interval) for column in self._columns])
        return cells + (self._note if interval.omitted else "")

    def _joined(self, cells: list[str]) -> str:
        return self._gap.join(
            cell.rjust(column.width) for cell, column in zip(cells, self._columns, strict=True)
        ).rstrip()


WAYS = {"client_to_server": "client to server", "server_to_client": "server to client"}


def summary_lines(summaries: list[Summary]) -> list[str]:
    """Returns the totals as lines of at most 40 characters: what each end says of each direction and stream."""
    lines = []
    for summary in summaries:
        lines += ["", f"{WAYS[summary.direction]}  time bytes bit/s retr"]
        if len(summary.streams) > 1:
            for number, (sender, receiver) in enumerate(summary.streams, 1):
                lines += [_total_line(f"#{number} sender", sender), _total_line("receiver", receiver)]
        lines += [_total_line("sender", summary.sender), _total_line("receiver", summary.receiver)]
        means = [
            f"{name} {duration(value)}"
            for name, value in (
                ("rtt", summary.mean_rtt_ms),
                ("queue", summary.mean_queue_delay_ms),
                ("back", summary.mean_reverse_queue_delay_ms),
            )
            if value is not None
        ]
        if means:
            lines.append(f"mean: {' '.join(means)}")
    return lines


def _total_line(name: str, total: Total) -> str:
    cells = [NOTHING] * 3  # that end has said nothing yet
    if total.seconds:
        cells = [seconds(total.seconds), scaled(total.bytes), scaled(total.bits_per_second)]
    retransmits = "" if total.retransmits is None else scaled(total.retransmits, 4)
    return f"{name:>16} {' '.join(cell.rjust(5) for cell in cells)} {retransmits:>4}".rstrip()


COMPARISON_HEADER = ["               uTP   TCP      ping", "             bit/s bit/s   p50   p95"]


def comparison_line(phase: dict[str, Any]) -> str:
    """Returns the line of a phase of ``--compare``, in at most 40 characters."""
    rates = [scaled(phase[f"{name}_bits_per_second"]) for name in ("utp", "tcp")]
    pings = [duration(phase[f"ping_{name}_ms"]) for name in ("p50", "p95")]
    return f"{phase['phase']:12} {' '.join(cell.rjust(5) for cell in rates + pings)}"
