"""From measures to tables of Markdown.  The command calls them.

A measured value is the median of its rounds, with the smallest and the largest behind it; the simulated one is the
mean of as many seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from benchmarks.real.catalogue import CANDIDATES, SCENARIOS, TITLES
from benchmarks.real.catalogue import alone as without_utp
from benchmarks.real.noise import Lateness, Scatter
from benchmarks.real.probe import INTERVAL_S
from benchmarks.real.running import Measures
from benchmarks.support import markdown, spread
from txutp.core.congestion.shallow import TARGET_DELAY_US

# By scenario and candidate, one for each round.
Rounds = dict[tuple[str, str], list[Measures]]
# By the name of the scenario without uTP.
Alone = dict[str, list[Measures]]

Value = Callable[[Measures], float]

GROUPS = {
    "single": "One flow",
    "tcp": "Against TCP: 10 Mbit/s, 50 ms; through the router there is no delay but the queue's",
    "late": "A second flow: 10 Mbit/s, 40 ms",
}


def _measured(runs: Sequence[Measures], value: Value, digits: int) -> str:
    values = [value(run) for run in runs]
    return spread(values, digits) if len(values) > 1 else f"{values[0]:.{digits}f}"


def _mean(runs: Sequence[Measures], value: Value) -> float:
    return statistics.fmean(value(run) for run in runs)


def _compared(real: Sequence[Measures], simulated: Sequence[Measures], value: Value, digits: int = 2) -> list[str]:
    """Measured, simulated, and the one by the other."""
    expected = _mean(simulated, value)
    ratio = statistics.median(value(run) for run in real) / expected if expected else 0.0
    return [_measured(real, value, digits), f"{expected:.{digits}f}", f"{ratio:.2f}"]


def _queue(real: Sequence[Measures], simulated: Sequence[Measures]) -> list[str]:
    """Median and high value, measured and simulated, and the difference of the medians."""

    def middle(run: Measures) -> float:
        return run.queue_p50_ms

    def high(run: Measures) -> float:
        return run.queue_p95_ms

    difference = statistics.median(map(middle, real)) - _mean(simulated, middle)
    return [
        f"{_measured(real, middle, 1)} / {_measured(real, high, 1)}",
        f"{_mean(simulated, middle):.1f} / {_mean(simulated, high):.1f}",
        f"{difference:+.1f}",
    ]


def _processor(real: Sequence[Measures]) -> list[str]:
    sender = statistics.median(run.cpu_sender for run in real)
    receiver = statistics.median(run.cpu_receiver for run in real)
    return [f"{100 * sender:.0f} / {100 * receiver:.0f}"]


def _name(scenario: str, candidate: str, real: Sequence[Measures]) -> list[str]:
    disturbed = " (disturbed)" if any(run.is_disturbed for run in real) else ""
    return [TITLES[scenario], candidate + disturbed]


NOTES = f"""\
Without a target shallow has its own, {TARGET_DELAY_US / 1_000:g} ms.  Queue: what a small datagram took on its one way,
every {INTERVAL_S * 1_000:g} ms, above the smallest of the run; simulated: the true queue.  Use counts headers, too.
What TCP keeps is of what it had alone in the same run.  Next to utp-native is what
the model of libutp's controller does.
"""

QUEUE_HEADER = ["queue p50 / p95 ms", "simulated", "p50 differs by"]
CPU_HEADER = ["CPU %, sender / receiver"]


def tables(real: Rounds, simulated: Rounds, alone: Alone, simulated_alone: Alone) -> str:
    """All scenarios that were run."""
    parts = []
    for group, title in GROUPS.items():
        names = [name for name, make in SCENARIOS.items() if make(1.0).group == group]
        keys = [key for key in real if key[0] in names]
        if not keys:
            continue
        rows, header = [], []
        for key in keys:
            runs, expected = real[key], simulated[key]
            row = _name(*key, runs)
            if group == "single":
                header = ["Mbit/s", "simulated", "ratio", "use", "simulated", "ratio"]
                row += _compared(runs, expected, lambda run: run.goodput_megabits)
                row += _compared(runs, expected, lambda run: run.use)
            elif group == "tcp":
                header = ["TCP keeps", "simulated", "ratio", "TCP's share", "simulated", "use", "simulated"]
                without = without_utp(SCENARIOS[key[0]](1.0)).name
                kept = statistics.median(run.tcp_megabits for run in runs) / _tcp(alone[without])
                expected_kept = _mean(expected, lambda run: run.tcp_megabits) / _tcp(simulated_alone[without])
                row += [f"{kept:.2f}", f"{expected_kept:.2f}", f"{kept / expected_kept:.2f}"]
                row += _compared(runs, expected, lambda run: run.tcp_share)[:2]
                row += _compared(runs, expected, lambda run: run.use)[:2]
            else:
                header = ["newcomer's share", "simulated", "ratio", "use", "simulated", "ratio"]
                row += _compared(runs, expected, lambda run: run.newcomer_share)
                row += _compared(runs, expected, lambda run: run.use)
            rows.append([*row, *_queue(runs, expected), *_processor(runs)])
        parts.append(f"### {title}\n\n{markdown(['', 'candidate', *header, *QUEUE_HEADER, *CPU_HEADER], rows)}\n")
        if group == "tcp":
            parts.append(_alone(alone, simulated_alone))
    return "\n".join(parts)


def _tcp(runs: Sequence[Measures]) -> float:
    return statistics.median(run.tcp_megabits for run in runs)


def _alone(alone: Alone, simulated_alone: Alone) -> str:
    """What TCP keeps is a part of."""
    rows = [
        [
            name,
            *_compared(runs, simulated_alone[name], lambda run: run.tcp_megabits),
            *_queue(runs, simulated_alone[name]),
        ]
        for name, runs in alone.items()
    ]
    return f"{markdown(['TCP without uTP', 'Mbit/s', 'simulated', 'ratio', *QUEUE_HEADER], rows)}\n"


def noise_tables(late: Sequence[Lateness], scattered: Sequence[Scatter]) -> str:
    """Timers, and delays on empty paths."""
    timers = [
        [
            f"{each.reactor}, `callLater({each.delay_ms / 1_000:g})`",
            f"{each.p50_ms:.2f}",
            f"{each.p99_ms:.2f}",
            f"{each.worst_ms:.2f}",
        ]
        for each in late
    ]
    delays = [
        [
            f"{each.path}: {each.what}",
            str(each.count),
            f"{each.p50_ms:.2f}",
            f"{each.p95_ms:.2f}",
            f"{each.p99_ms:.2f}",
        ]
        for each in scattered
    ]
    return "\n\n".join(
        [
            "### How late timers are, in ms",
            markdown(["", "p50", "p99", "worst"], timers),
            "### Delays above the smallest one on a path without a queue, in ms",
            markdown(["", "samples", "p50", "p95", "p99"], delays) + "\n",
        ]
    )


def order(keys: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """Scenario by scenario, candidate by candidate."""
    return [(name, candidate) for name in SCENARIOS for candidate in CANDIDATES if (name, candidate) in keys]
