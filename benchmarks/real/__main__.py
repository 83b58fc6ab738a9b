"""Run scenarios on real sockets and in the simulated suite, and print both side by side.

    python -m benchmarks.real
    python -m benchmarks.real --quick
    python -m benchmarks.real --only 'cubic-*' --candidate shallow --rounds 3

It needs root on Linux, and /dev/net/tun.  Tables go to standard output as Markdown, progress to standard error.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch

from benchmarks.real.catalogue import (
    CANDIDATES,
    DEFAULT_SECONDS,
    QUICK_SECONDS,
    SCENARIOS,
    Candidate,
    alone,
    with_candidate,
)
from benchmarks.real.hosts import why_no_wire
from benchmarks.real.noise import REACTORS, Lateness, Scatter, scatter, timers
from benchmarks.real.report import NOTES, Alone, Rounds, noise_tables, order, tables
from benchmarks.real.router import Router
from benchmarks.real.running import Measures, run
from benchmarks.real.simulated import simulate
from benchmarks.real.wire import Link, Wire
from benchmarks.scenarios.definitions import Scenario
from benchmarks.scenarios.jobs import Job
from benchmarks.support import HOW_TO_INSTALL, ROOT, machine, versions

try:
    import click
except ModuleNotFoundError as missing:
    sys.exit(f"This command needs {missing.name}. {HOW_TO_INSTALL}")

NATIVE = ROOT / "tests" / "interop" / "node_modules" / "utp-native"
ATTEMPTS = 2  # a disturbed run is repeated once

# Everything that is to be run: a scenario, and who takes part besides TCP.
Plan = dict[tuple[str, str], tuple[Scenario, Candidate]]


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__.replace("\n\n    ", "\n\n\b\n    ")
)
@click.option("--only", multiple=True, metavar="PATTERN", help=f"Some of: {', '.join(SCENARIOS)}.")
@click.option("--candidate", "names", multiple=True, type=click.Choice(list(CANDIDATES)), help="Default: all.")
@click.option(
    "--seconds",
    default=DEFAULT_SECONDS,
    show_default=True,
    type=click.FloatRange(3),
    help="How long one flow runs; two run half as long again.",
)
@click.option("--rounds", default=1, show_default=True, type=click.IntRange(1), help="Real runs, and seeds.")
@click.option("--quick", is_flag=True, help=f"Runs of {QUICK_SECONDS:g} seconds, to see that it works.")
@click.option("--noise/--no-noise", default=True, help="Measure timers and empty paths, too.")
def main(only: tuple[str, ...], names: tuple[str, ...], seconds: float, rounds: int, quick: bool, noise: bool) -> None:
    problem = why_no_wire()
    if problem:
        raise click.ClickException(problem)
    for each in (signal.SIGTERM, signal.SIGHUP):
        # as Ctrl-C does it: what was made gets removed
        signal.signal(each, lambda *_: sys.exit(1))
    seconds = QUICK_SECONDS if quick else seconds
    chosen = [name for name in SCENARIOS if any(fnmatch(name, pattern) for pattern in only or ("*",))]
    candidates = [CANDIDATES[name] for name in names or CANDIDATES]
    if not native_versions():
        print("utp-native is not here: npm install in tests/interop.\n")
        candidates = [candidate for candidate in candidates if not candidate.is_native]
    if not chosen or not candidates:
        raise click.UsageError("There is nothing to run.")
    plan: Plan = {
        (name, candidate.name): (with_candidate(SCENARIOS[name](seconds), candidate), candidate)
        for name in chosen
        for candidate in candidates
    }
    lonely = {scenario.name: scenario for scenario in (alone(each) for each, _ in plan.values() if each.has_tcp)}

    began = time.strftime("%Y-%m-%d %H:%M")
    loads = [os.getloadavg()[0]]
    late: list[Lateness] = []
    scattered: list[Scatter] = []
    if noise:
        progress("timers and empty paths")
        late = [each for reactor in REACTORS for each in timers(reactor)]
        scattered = scatter("virtual cables", Router(0, 0), seconds / 2)
        scattered += scatter("link in user space, 20 ms", Wire(Link(delay_ms=20)), seconds / 2)

    # every round meets all of them, so that what else happens here does, too
    real: Rounds = {key: [] for key in order(set(plan))}
    real_alone: Alone = {name: [] for name in lonely}
    for number in range(1, rounds + 1):
        for name, scenario in lonely.items():
            real_alone[name].append(attempt(scenario, None, number))
        for key in real:
            real[key].append(attempt(*plan[key], number))
            loads.append(os.getloadavg()[0])

    # simulated afterwards, because that needs all processors
    progress("simulating")
    jobs = {
        key: [Job(scenario, candidate.controller, number) for number in range(1, rounds + 1)]
        for key, (scenario, candidate) in plan.items()
    }
    jobs_alone = {
        name: [Job(scenario, "alone", number) for number in range(1, rounds + 1)] for name, scenario in lonely.items()
    }
    every = dict.fromkeys(job for some in (*jobs.values(), *jobs_alone.values()) for job in some)
    done = simulate(list(every), os.cpu_count() or 1)
    simulated = {key: [done[job] for job in some] for key, some in jobs.items()}
    simulated_alone = {name: [done[job] for job in some] for name, some in jobs_alone.items()}

    print(tables(real, simulated, real_alone, simulated_alone))
    print(NOTES)
    if noise:
        print(noise_tables(late, scattered))
    about = [machine(), versions(), native_versions(), f"load {min(loads):.1f} to {max(loads):.1f}"]
    print(f"{'; '.join(filter(None, about))}; rounds: {rounds}, of {seconds:g} s, begun {began}.")


def progress(words: str) -> None:
    """Say what happens now."""
    click.echo(f"{time.strftime('%H:%M:%S')} {words}", err=True)


def attempt(scenario: Scenario, candidate: Candidate | None, number: int) -> Measures:
    """A run; if somebody else needed the processors meanwhile, another one, and the less disturbed of both."""
    name = f"{scenario.name} {candidate.name if candidate else ''}"
    measured = []
    for _ in range(ATTEMPTS):
        measured.append(run(scenario, candidate, number))
        progress(f"{name.strip()}: {measured[-1]}")
        if not measured[-1].is_disturbed:
            break
    return min(measured, key=lambda each: each.late_share)


def native_versions() -> str:
    """utp-native and Node.js; empty if one of them is missing."""
    node = shutil.which("node")
    if node is None or not NATIVE.exists():
        return ""
    package = subprocess.check_output([node, "-p", f"require('{NATIVE}/package.json').version"], text=True).strip()
    return f"utp-native {package} on Node.js {subprocess.check_output([node, '--version'], text=True).strip()}"


if __name__ == "__main__":
    main()
