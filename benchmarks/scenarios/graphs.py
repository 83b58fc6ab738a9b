"""Pictures of runs: throughput and queue over time for each scenario, what TCP kept, and the sweep of targets.

The command calls ``draw``.  Curves over time show the first seed; a thin line on a mean over seeds is their range.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.scenarios.catalogue import BUFFER_MS, SCENARIOS
from benchmarks.scenarios.definitions import UTP, Scenario
from benchmarks.scenarios.measure import BINS_PER_SECOND
from benchmarks.scenarios.report import Alone, Row, Runs, rows
from benchmarks.scenarios.running import Numbers
from txutp.core.units import SECOND_US

matplotlib.use("Agg")
from matplotlib import pyplot

POINTS = 120  # are enough to see what happens
MOST_IN_LEGEND = 6
INCHES_FOR_BAR = 0.16
RANGE_LINE = {"linewidth": 0.8, "capsize": 2}
ORDERS = {"tcp-first": ":", "utp-first": "--", "together": "-"}


def draw(directory: Path, runs: Runs, alone: Alone) -> list[Path]:
    """A picture for each scenario, one of all that TCP kept, and one of the sweep of targets; gives the files."""
    files = []
    for name in dict.fromkeys(name for name, _ in runs):
        file = directory / f"{name.replace('%', '-percent')}.png"
        _draw_scenario(file, name, {controller: each[0] for (other, controller), each in runs.items() if other == name})
        files.append(file)
    every = rows(runs, alone)
    kept = {key: row for key, row in every.items() if "kept" in row.scenario.cells}
    if kept:
        files.append(directory / "kept.png")
        _draw_kept(files[-1], kept)
    sweep = {key: row for key, row in every.items() if row.scenario.group == "target"}
    if sweep:
        files.append(directory / "targets.png")
        _draw_sweep(files[-1], sweep)
    return files


def _draw_scenario(file: Path, name: str, runs: dict[str, Numbers]) -> None:
    figure, axes = pyplot.subplots(
        2, len(runs), figsize=(1 + 4.5 * len(runs), 5.5), sharex="col", sharey="row", squeeze=False
    )
    scenario = SCENARIOS[name]
    for column, (controller, numbers) in enumerate(runs.items()):
        above, below = axes[0][column], axes[1][column]
        above.set_title(controller)
        _draw_rates(above, scenario, numbers)
        times, high = _peaks([float(wait_ms) for wait_ms in numbers.queue_ms], numbers.sample_us / SECOND_US)
        below.fill_between(times, high, linewidth=0.6, alpha=0.4)
        below.plot(times, high, linewidth=0.8)
        below.set_xlabel("seconds")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
    # not before all are drawn, because all of a row share what is chosen
    for row in axes:
        row[0].set_ylim(bottom=0)
    axes[0][0].set_ylabel("Mbit/s in order")
    axes[1][0].set_ylabel("queue, ms")
    figure.suptitle(name)
    _save(figure, file)


def _draw_rates(axis: Any, scenario: Scenario, numbers: Numbers) -> None:
    """What each flow delivered; a dotted line is what the path carries."""
    width = max(round(numbers.seconds * BINS_PER_SECOND) // POINTS, 1)
    for number, (flow, said) in enumerate(zip(numbers.flows, scenario.flows, strict=True)):
        sums = [sum(flow.bins[start : start + width]) for start in range(0, len(flow.bins) - width + 1, width)]
        rates = [total * 8 / SECOND_US / (width / BINS_PER_SECOND) for total in sums]
        times = [(index + 0.5) * width / BINS_PER_SECOND for index in range(len(rates))]
        label = f"{number + 1}: {flow.kind}" if number < MOST_IN_LEGEND else None
        axis.plot(times, rates, "-" if said.kind == UTP else "--", label=label, linewidth=1)
    edges = [0.0, *(change.at_s for change in scenario.path.changes if change.megabits is not None), numbers.seconds]
    carried = [scenario.path.megabits_at(edge) for edge in edges]
    axis.step(edges, carried, where="post", color="grey", linestyle=":", linewidth=0.8)
    if len(numbers.flows) > 1:
        axis.legend(fontsize="x-small", loc="best", framealpha=0.6)


def _peaks(values: Sequence[float], seconds: float) -> tuple[list[float], list[float]]:
    """Times and the largest value around each, so that no peak is left out."""
    step = max(len(values) // (4 * POINTS), 1)
    starts = range(0, len(values), step)
    return [start * seconds for start in starts], [max(values[start : start + step]) for start in starts]


def _draw_kept(file: Path, kept: dict[tuple[str, str], Row]) -> None:
    names = list(dict.fromkeys(name for name, _ in kept))
    controllers = list(dict.fromkeys(controller for _, controller in kept))
    figure, axis = pyplot.subplots(figsize=(8, 1.5 + INCHES_FOR_BAR * len(names) * (len(controllers) + 1)))
    height = 0.85 / len(controllers)
    for number, controller in enumerate(controllers):
        there = [(index, kept[name, controller]) for index, name in enumerate(names) if (name, controller) in kept]
        means, ranges = _summed_up([row.kept() for _, row in there])
        places = [index + (number + 0.5) * height for index, _ in there]
        axis.barh(places, means, height, xerr=ranges, label=controller, error_kw=RANGE_LINE)
    axis.set_yticks([index + 0.425 for index in range(len(names))], names)
    axis.set_ylim(len(names), -0.15)
    axis.set_xlabel("what TCP keeps of what it has alone")
    axis.axvline(1.0, color="grey", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(controllers))
    _save(figure, file)


def _draw_sweep(file: Path, sweep: dict[tuple[str, str], Row]) -> None:
    controllers = list(dict.fromkeys(controller for _, controller in sweep))
    figure, axes = pyplot.subplots(
        1, len(controllers), figsize=(1 + 3.5 * len(controllers), 3.5), sharey=True, squeeze=False
    )
    for axis, controller in zip(axes[0], controllers, strict=True):
        for order, line in ORDERS.items():
            there = [row for (name, other), row in sweep.items() if other == controller and name.endswith(order)]
            percents = [_percent_of_buffer(row.scenario) for row in there]
            means, ranges = _summed_up([[run.spans[0].tcp_share or 0.0 for run in row.runs] for row in there])
            axis.errorbar(percents, means, ranges, fmt=f"{line}o", markersize=3, label=order, elinewidth=0.8, capsize=2)
        axis.set_title(controller)
        axis.set_xlabel("target, % of the buffer")
        axis.set_ylim(0, 1.05)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("TCP's share")
    axes[0][0].legend(fontsize="small", loc="lower left")
    _save(figure, file)


def _percent_of_buffer(scenario: Scenario) -> float:
    """The target that a scenario sets."""
    [target_ms] = [flow.target_ms for flow in scenario.flows if flow.target_ms is not None]
    return 100 * target_ms / BUFFER_MS


def _summed_up(values: list[list[float]]) -> tuple[list[float], list[list[float]]]:
    """Means over seeds, and how far the smallest and largest values are from them."""
    means = [sum(each) / len(each) for each in values]
    below = [mean - min(each) for mean, each in zip(means, values, strict=True)]
    above = [max(each) - mean for mean, each in zip(means, values, strict=True)]
    # a mean may be off by the last bit
    return means, [[max(distance, 0.0) for distance in distances] for distances in (below, above)]


def _save(figure: Any, file: Path) -> None:
    figure.set_layout_engine("constrained")
    figure.savefig(file, dpi=80)
    pyplot.close(figure)
