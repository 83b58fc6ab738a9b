"""What a benchmark consists of: parts with rows, measured in rounds, and the tables that come of it.

A part opens whatever its rows share, a network for instance.  Every round measures each row once, so that what else
happens on the machine meets all of them; ratios are taken within a round, and then the median of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Failed
from benchmarks.support import ROOT, markdown, spread

# One measurement: numbers by name.
Values = dict[str, float]
NOTHING = "-"


@dataclass(frozen=True)
class Sizes:
    """How much is measured at a time."""

    stream_bytes: int = 512 << 20  # for what is fast; slower ones get a part of it
    rate_seconds: float = 8.0
    rates_megabits: tuple[int, ...] = (20, 100, 1000)
    loss_bytes: int = 64 << 20
    visits: int = 10_000
    visits_at_once: tuple[int, ...] = (1, 16, 256)
    messages: int = 5_000
    crowds: tuple[int, ...] = (100, 1000)
    crowd_seconds: float = 4.0
    idle_connections: int = 10_000
    idle_crowd: int = 100_000
    idle_seconds: float = 30.0  # a keepalive of each connection
    steered_connections: int = 500_000  # two datagrams each
    hostile_datagrams: int = 1_000_000  # of each kind


FULL = Sizes()
QUICK = Sizes(
    stream_bytes=16 << 20,
    rate_seconds=0.5,
    loss_bytes=1 << 20,
    visits=200,
    visits_at_once=(1, 16),
    messages=200,
    crowds=(10, 50),
    crowd_seconds=0.5,
    idle_connections=500,
    idle_crowd=1_000,
    idle_seconds=2.0,
    steered_connections=1_000,
    hostile_datagrams=5_000,
)


@dataclass(frozen=True)
class Column:
    """A column of a table: one of the values, or how it compares to another row of the same group.

    ``against`` is the name of that row, or tells it from the name of a row; a row without one has no number there.
    """

    header: str
    metric: str
    against: str | Callable[[str], str] = ""
    drawn: bool = False  # gets a bar chart, and is compared between commits


@dataclass(frozen=True)
class Row:
    """One thing that is measured again and again."""

    name: str
    label: str
    measure: Callable[[Path], Values]  # with the code that is in a directory
    group: str = ""
    why_not: str = ""  # why it cannot be measured here
    ours: bool = False  # whether txutp takes part

    @property
    def key(self) -> str:
        """Its name among all rows of a part."""
        return f"{self.group}/{self.name}" if self.group else self.name


@dataclass(frozen=True)
class Part:
    """One table."""

    name: str
    title: str
    columns: tuple[Column, ...]
    opened: Callable[[Sizes], AbstractContextManager[list[Row]]]
    why_not: Callable[[], str] = lambda: ""


@dataclass
class Results:
    """What the rounds of one part gave."""

    part: Part
    rows: list[Row] = field(default_factory=list)
    rounds: dict[str, list[Values | None]] = field(default_factory=dict)  # by key; None: it failed
    remarks: list[str] = field(default_factory=list)

    def add(self, row: Row, values: Values | None) -> None:
        """The next round of a row."""
        if row not in self.rows:
            self.rows.append(row)
        self.rounds.setdefault(row.key, []).append(values)

    def remark(self, words: str) -> None:
        """Something to say below the table, once."""
        if words not in self.remarks:
            self.remarks.append(words)

    def values(self, key: str, metric: str) -> list[float]:
        """Those of all rounds that have it."""
        return [values[metric] for values in self.rounds.get(key, []) if values is not None and metric in values]

    def ratios(self, key: str, other: str, metric: str) -> list[float]:
        """How one row compares to another one in each round that has both."""
        pairs = zip(self.rounds.get(key, []), self.rounds.get(other, []), strict=False)
        return [
            ours[metric] / theirs[metric]
            for ours, theirs in pairs
            if ours is not None and theirs is not None and metric in ours and theirs.get(metric)
        ]

    def of(self, row: Row, column: Column) -> list[float]:
        """The numbers behind one cell."""
        if not column.against:
            return self.values(row.key, column.metric)
        against = column.against if isinstance(column.against, str) else column.against(row.name)
        other = f"{row.group}/{against}" if row.group else against
        return self.ratios(row.key, other, column.metric)

    def table(self) -> str:
        """Markdown; a column that no row has anything for is left out."""
        columns = [column for column in self.part.columns if any(self.of(row, column) for row in self.rows)]
        rows = [[row.label, *(cell(self.of(row, column)) for column in columns)] for row in self.rows]
        lines = [f"### {self.part.title}", "", markdown(["", *(column.header for column in columns)], rows), ""]
        for remark in self.remarks:
            lines += [f"{remark}.", ""]
        return "\n".join(lines)


def cell(values: Sequence[float]) -> str:
    """Median and range, if there is anything."""
    return spread(values) if values else NOTHING


def measure_round(rows: Sequence[Row], results: Results, number: int, code: Path = ROOT) -> Iterator[Row]:
    """Measure each row once, and give each before it is measured; every other round goes backwards."""
    for row in rows if number % 2 == 0 else list(reversed(rows)):
        yield row
        try:
            results.add(row, row.measure(code))
        except Failed as problem:
            results.add(row, None)
            results.remark(f"{row.label} failed: {problem}")
