"""Pictures of runs: throughput and queue over time for each scenario, and what TCP kept.  The command calls ``draw``.

They show the first seed only.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

from benchmarks.scenarios.catalogue import SCENARIOS
from benchmarks.scenarios.definitions import UTP
from benchmarks.scenarios.measure import BINS_PER_SECOND
from benchmarks.scenarios.report import Alone, Row, Runs, rows
from benchmarks.scenarios.running import Numbers
from txutp.testing import MICROSECONDS

matplotlib.use("Agg")
from matplotlib import pyplot

MOST_POINTS = 600


def draw(directory: Path, runs: Runs, alone: Alone) -> list[Path]:
    """A picture for each scenario and one of all that TCP kept; gives the files."""
    files = []
    names = list(dict.fromkeys(name for name, _ in runs))
    for name in names:
        file = directory / f"{name.replace('%', '-percent')}.png"
        _draw_scenario(file, name, {controller: each[0] for (other, controller), each in runs.items() if other == name})
        files.append(file)
    kept = {key: row for key, row in rows(runs, alone).items() if "kept" in row.scenario.cells}
    if kept:
        _draw_kept(directory / "kept.png", kept)
        files.append(directory / "kept.png")
    return files


def _draw_scenario(file: Path, name: str, runs: dict[str, Numbers]) -> None:
    figure, axes = pyplot.subplots(
        2, len(runs), figsize=(1 + 4.5 * len(runs), 5.5), sharex="col", sharey="row", squeeze=False
    )
    scenario = SCENARIOS[name]
    for column, (controller, numbers) in enumerate(runs.items()):
        above, below = axes[0][column], axes[1][column]
        above.set_title(controller)
        for number, (flow, said) in enumerate(zip(numbers.flows, scenario.flows, strict=True)):
            # about a hundred points are enough to see what happens
            width = max(len(flow.bins) // 100, 1)
            sums = [sum(flow.bins[start : start + width]) for start in range(0, len(flow.bins) - width + 1, width)]
            rates = [total * 8 / MICROSECONDS / (width / BINS_PER_SECOND) for total in sums]
            times = [index * width / BINS_PER_SECOND for index in range(len(rates))]
            above.plot(times, rates, "-" if said.kind == UTP else "--", label=f"{number + 1}: {flow.kind}", linewidth=1)
        step = max(len(numbers.queue_ms) // MOST_POINTS, 1)
        waits = numbers.queue_ms[::step]
        below.plot(
            [index * step * numbers.sample_us / MICROSECONDS for index in range(len(waits))], waits, linewidth=0.6
        )
        below.set_xlabel("seconds")
        if len(numbers.flows) > 1:
            above.legend(fontsize="x-small", loc="upper right")
    axes[0][0].set_ylabel("Mbit/s delivered")
    axes[1][0].set_ylabel("queue, ms")
    figure.suptitle(name)
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def _draw_kept(file: Path, kept: dict[tuple[str, str], Row]) -> None:
    names = list(dict.fromkeys(name for name, _ in kept))
    controllers = list(dict.fromkeys(controller for _, controller in kept))
    figure, axes = pyplot.subplots(figsize=(8, 1.5 + 0.25 * len(names) * len(controllers)))
    height = 0.8 / len(controllers)
    for number, controller in enumerate(controllers):
        there = [(index, kept[name, controller]) for index, name in enumerate(names) if (name, controller) in kept]
        shares = [sum(values) / len(values) for values in (row.kept() for _, row in there)]
        axes.barh([index + number * height for index, _ in there], shares, height, label=controller)
    axes.set_yticks([index + 0.4 - height / 2 for index in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("what TCP keeps of what it has alone")
    axes.axvline(1.0, color="grey", linewidth=0.6)
    axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
