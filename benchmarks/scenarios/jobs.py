"""Which runs there are to do, and doing them, in one process or in several.  The command calls it.

This is no part of the command's own module, because processes that are started anew cannot import that.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.scenarios.controllers import UTP_CONTROLLERS
from benchmarks.scenarios.definitions import Scenario
from benchmarks.scenarios.running import Numbers, run

# Nothing is ever tuned on these.
HELD_OUT = 10


@dataclass(frozen=True)
class Job:
    """One run to do."""

    scenario: Scenario
    controller: str
    seed: int

    @property
    def expected_megabits(self) -> float:
        """How much it will simulate, so that long ones start first."""
        return self.scenario.seconds * self.scenario.path.megabits


def do(job: Job) -> tuple[Job, Numbers]:
    """A run, in whatever process."""
    try:
        return job, run(job.scenario, job.controller, job.seed)
    except Exception as problem:
        raise RuntimeError(f"{job.scenario.name} with {job.controller} and seed {job.seed} failed") from problem


def chosen(scenario: Scenario, controllers: tuple[str, ...]) -> list[str]:
    """Those that make sense there: TCP in the place of uTP only where there is no TCP anyway."""
    allowed = scenario.controllers or (tuple(UTP_CONTROLLERS) if scenario.has_tcp else controllers)
    return [name for name in controllers if name in allowed]


def plan(scenarios: list[Scenario], controllers: tuple[str, ...], seeds: int, held_out: bool) -> list[Job]:
    """All runs; what TCP has alone is run once however many scenarios and controllers need it."""
    jobs: dict[Job, None] = {}
    for scenario in scenarios:
        names = chosen(scenario, controllers)
        for number in range(seeds):
            seed = number + 1 + (HELD_OUT if held_out else 0)
            for name in names:
                jobs[Job(scenario, name, seed)] = None
            if names and needs_alone(scenario):
                jobs[Job(scenario.alone(), "alone", seed)] = None
    return sorted(jobs, key=lambda job: -job.expected_megabits)


def needs_alone(scenario: Scenario) -> bool:
    """Whether a cell compares with TCP alone."""
    return bool({"kept", "kept-goodput"} & set(scenario.cells))


def results(jobs: list[Job], processes: int) -> Iterator[tuple[Job, Numbers]]:
    """Do them, as they are ready."""
    if processes == 1:
        yield from map(do, jobs)
        return
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from pool.imap_unordered(do, jobs)
