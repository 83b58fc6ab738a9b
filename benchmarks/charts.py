"""Bar charts: for each part a file, with a diagram for each column that is worth one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path

import matplotlib

from benchmarks.parts import Results

matplotlib.use("Agg")
from matplotlib import pyplot

INCHES_FOR_BAR = 0.32


def draw(directory: Path, everything: Iterable[Results]) -> list[Path]:
    """Draw what has numbers; gives the files."""
    return [file for results in everything if (file := draw_part(directory, results)) is not None]


def draw_part(directory: Path, results: Results) -> Path | None:
    """Medians as bars, and the range as a line on them."""
    columns = [
        column
        for column in results.part.columns
        if column.drawn and any(results.of(row, column) for row in results.rows)
    ]
    if not columns:
        return None
    labels = [row.label.replace("`", "") for row in results.rows]
    height = 1.2 + INCHES_FOR_BAR * len(labels)
    figure, axes = pyplot.subplots(1, len(columns), figsize=(3.5 + 3.5 * len(columns), height), sharey=True)
    for axis, column in zip([axes] if len(columns) == 1 else axes, columns, strict=True):
        for place, row in enumerate(results.rows):
            values = results.of(row, column)
            if values:
                median = statistics.median(values)
                spread = [[median - min(values)], [max(values) - median]]
                colour = "tab:blue" if row.ours else "tab:grey"
                axis.barh(place, median, 0.7, xerr=spread, color=colour, error_kw={"linewidth": 0.8, "capsize": 2})
        axis.set_yticks(range(len(labels)), labels)
        axis.set_xlabel(column.header)
        axis.spines[["top", "right"]].set_visible(False)
    pyplot.gca().invert_yaxis()
    figure.suptitle(results.part.title)
    figure.tight_layout()
    file = directory / f"{results.part.name}.png"
    figure.savefig(file, dpi=100)
    pyplot.close(figure)
    return file
