"""From numbers to tables: what a cell says, and the rows of Markdown.  The command calls ``tables`` and ``write_json``.

Cells name the quantity only where a reader could not know; the line above a table (``catalogue.GROUPS``) says the rest.
A value is a mean over seeds, with smallest and largest behind it where they differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.scenarios.catalogue import GROUPS, SCENARIOS
from benchmarks.scenarios.definitions import UTP, Scenario
from benchmarks.scenarios.measure import back_s, fair_after_s, jain
from benchmarks.scenarios.published import MODEL, PUBLISHED
from benchmarks.scenarios.running import Numbers, payload_megabits
from benchmarks.support import markdown

# Runs by scenario, controller and seed; ``alone`` are those of TCP without uTP, by scenario and seed.
Runs = dict[tuple[str, str], list[Numbers]]
Alone = dict[str, dict[int, Numbers]]

QUEUE_MILLISECONDS_WRITTEN = 100
NEVER = "never"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The mean, and the smallest and largest if they differ as written."""
    mean = sum(values) / len(values)
    least, most = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return f"{mean:.{digits}f}" + ("" if least == most else f" [{least}-{most}]")


class Row:
    """The runs of one scenario with one controller, one for each seed, and what TCP had alone."""

    def __init__(self, scenario: Scenario, runs: list[Numbers], alone: dict[int, Numbers]) -> None:
        self.scenario = scenario
        self.runs = runs
        self.alone = alone
        self.tcp = [number for number, flow in enumerate(scenario.flows) if flow.kind != UTP and not flow.upwards]

    def kept(self) -> list[float]:
        """TCP's rate divided by that which it has alone, for each seed."""
        shares = []
        for run in self.runs:
            with_utp = sum(run.spans[0].rates_megabits[number] for number in self.tcp)
            shares.append(with_utp / (sum(self.alone[run.seed].spans[0].rates_megabits) or 1))
        return shares

    # -- cells --

    def cell(self) -> str:
        """All that the scenario tells."""
        return ", ".join(CELLS[name](self) for name in self.scenario.cells)

    def goodput(self) -> str:
        return spread([run.flows[0].goodput_megabits for run in self.runs])

    def goodputs(self) -> str:
        flows = range(len(self.scenario.flows))
        return " / ".join(spread([run.flows[number].goodput_megabits for run in self.runs]) for number in flows)

    def rates(self) -> str:
        """In each span."""
        spans = range(len(self.runs[0].spans))
        rates = (spread([run.spans[number].rates_megabits[0] for run in self.runs]) for number in spans)
        return f"in these parts {', then '.join(rates)}"

    def total(self) -> str:
        return spread([sum(run.spans[0].rates_megabits) for run in self.runs])

    def queue(self) -> str:
        return f"queue {_queue(self.runs, 0)}"

    def resent(self) -> str:
        return f"resent {spread([100 * run.flows[0].resent_share for run in self.runs], 1)} %"

    def use(self) -> str:
        return f"use {spread([run.spans[0].utilisation for run in self.runs])}"

    def reached(self) -> str:
        text = _seconds([run.flows[0].reached_s for run in self.runs])
        return "90 % never" if text == NEVER else f"90 % after {text}"

    def back(self) -> str:
        """After the beginning of the first span."""
        rate = payload_megabits(self.scenario.path, 0.0)
        times = [back_s(run.flows[0].bins, run.spans[0].from_s, rate) for run in self.runs]
        return f"back after {_seconds(times)}"

    def spans(self) -> str:
        texts = []
        for number, span in enumerate(self.runs[0].spans):
            use = spread([run.spans[number].utilisation for run in self.runs])
            label = span.label or f"{span.from_s:g}-{span.to_s:g} s"
            texts.append(f"{label}: use {use}, queue {_queue(self.runs, number)}")
        return "; ".join(texts)

    def packets(self) -> str:
        return f"{spread([run.spans[0].queue_mean_packets for run in self.runs], 1)} packets"

    def share(self) -> str:
        return spread([run.spans[0].tcp_share or 0.0 for run in self.runs])

    def kept_rate(self) -> str:
        return spread(self.kept())

    def kept_goodput(self) -> str:
        ours = [run.flows[0].goodput_megabits / self.alone[run.seed].flows[0].goodput_megabits for run in self.runs]
        return f"kept {spread(ours)} of {spread([alone.flows[0].goodput_megabits for alone in self.alone.values()])}"

    def first(self) -> str:
        """The first flow's share, in each span."""
        spans = range(len(self.runs[0].spans))
        return ", then ".join(
            spread(
                [
                    run.spans[number].rates_megabits[0] / (sum(run.spans[number].rates_megabits) or 1)
                    for run in self.runs
                ]
            )
            for number in spans
        )

    def jain(self) -> str:
        spans = range(len(self.runs[0].spans))
        return "Jain " + ", then ".join(spread([run.spans[number].jain for run in self.runs]) for number in spans)

    def least(self) -> str:
        rates = [run.spans[-1].rates_megabits for run in self.runs]
        return f"min/max {spread([min(each) / (max(each) or 1) for each in rates])}"

    def swarm(self) -> str:
        """Of each host and path: what its flows have together, Jain's index, least by most, and what was sent again."""
        flows = self.scenario.flows
        groups: dict[tuple[int, bool], list[int]] = {}
        for number, flow in enumerate(flows):
            if flow.kind == UTP:
                groups.setdefault((flow.host, flow.elsewhere), []).append(number)
        texts = []
        for numbers in groups.values():
            rates = [[run.spans[0].rates_megabits[number] for number in numbers] for run in self.runs]
            text = spread([sum(each) for each in rates])
            if len(numbers) > 1:
                text += f" Mbit/s, Jain {spread([jain(each) for each in rates])}"
                text += f", min/max {spread([min(each) / (max(each) or 1) for each in rates])}"
            texts.append(text)
        resent = [
            sum(run.flows[number].resent_share for numbers in groups.values() for number in numbers)
            / sum(map(len, groups.values()))
            for run in self.runs
        ]
        return f"{'; '.join(texts)}; resent {spread([100 * share for share in resent], 1)} %"

    def newcomer(self) -> str:
        shares = [[span.rates_megabits[1] / (sum(span.rates_megabits) or 1) for span in run.spans] for run in self.runs]
        fair = []
        for run in self.runs:
            first, second = run.flows
            fair.append(fair_after_s(first.bins, second.bins, second.start_s, run.seconds))
        early, late = zip(*shares, strict=True)
        return f"{spread(early)}, {spread(late)}, {_seconds(fair, 0)}"

    def late_queue(self) -> str:
        queue = spread([run.spans[-1].queue_p50_ms for run in self.runs], 1)
        return f"{queue}, {spread([run.spans[-1].utilisation for run in self.runs])}"


def _queue(runs: list[Numbers], span: int) -> str:
    """Medians and high values."""
    middle = [run.spans[span].queue_p50_ms for run in runs]
    high = [run.spans[span].queue_p95_ms for run in runs]
    return f"{spread(middle, 1)}/{spread(high, 1)}"


def _seconds(values: Sequence[float | None], digits: int = 1) -> str:
    """Times that may never have come."""
    came = [value for value in values if value is not None]
    if not came:
        return NEVER
    missing = f" ({len(values) - len(came)} of {len(values)} never)" if len(came) < len(values) else ""
    return f"{spread(came, digits)} s{missing}"


CELLS: dict[str, Callable[[Row], str]] = {
    "goodput": Row.goodput,
    "goodputs": Row.goodputs,
    "rates": Row.rates,
    "total": Row.total,
    "queue": Row.queue,
    "resent": Row.resent,
    "use": Row.use,
    "reached": Row.reached,
    "back": Row.back,
    "spans": Row.spans,
    "packets": Row.packets,
    "share": Row.share,
    "kept": Row.kept_rate,
    "kept-goodput": Row.kept_goodput,
    "first": Row.first,
    "jain": Row.jain,
    "least": Row.least,
    "swarm": Row.swarm,
    "newcomer": Row.newcomer,
    "late-queue": Row.late_queue,
}


def rows(runs: Runs, alone: Alone) -> dict[tuple[str, str], Row]:
    """What there is, by scenario and controller."""
    return {
        (name, controller): Row(SCENARIOS[name], numbers, alone.get(name, {}))
        for (name, controller), numbers in runs.items()
    }


def tables(runs: Runs, alone: Alone) -> str:
    """All groups that were run, as Markdown."""
    by_key = rows(runs, alone)
    parts = []
    for group, title in GROUPS.items():
        names = [name for name, scenario in SCENARIOS.items() if scenario.group == group]
        names = [name for name in names if any(key[0] == name for key in by_key)]
        if names:
            parts.append(f"### {title}\n\n{_table(names, by_key)}\n")
    return "\n".join(parts)


def _table(names: list[str], by_key: dict[tuple[str, str], Row]) -> str:
    controllers = list(dict.fromkeys(controller for name, controller in by_key if name in names))
    columns = [("scenario", list(names))]
    published = [PUBLISHED.get(name, "") for name in names]
    if any(published):
        columns.append(("published", published))
    for controller in controllers:
        cells = [by_key[name, controller].cell() if (name, controller) in by_key else "" for name in names]
        columns.append((f"**{controller}**", cells))
        model = [MODEL.get(name, {}).get(controller, "") for name in names]
        if any(model):
            columns.append((f"model of {controller}", model))
    return markdown(
        [header for header, _ in columns], [list(row) for row in zip(*(c for _, c in columns), strict=True)]
    )


def write_json(path: Path, about: dict[str, object], runs: Iterable[Numbers], alone: Iterable[Numbers]) -> None:
    """All numbers of all runs; the queue is thinned out to what a graph can show."""

    def thin(numbers: Numbers) -> dict[str, object]:
        words = asdict(numbers)
        step = max(QUEUE_MILLISECONDS_WRITTEN * 1_000 // numbers.sample_us, 1)
        words["queue_ms"] = numbers.queue_ms[::step]
        words["sample_us"] = numbers.sample_us * step
        return words

    content = {**about, "runs": [thin(numbers) for numbers in runs], "tcp_alone": [thin(numbers) for numbers in alone]}
    path.write_text(json.dumps(content), encoding="utf-8")
