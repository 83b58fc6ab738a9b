"""Run scenarios, and print tables of what happened.

    python -m benchmarks.scenarios --quick
    python -m benchmarks.scenarios --only 'tcp-*' --controller ledbat --jobs 2 --output results

Results go to standard output as Markdown, progress to standard error.  With --output the directory gets tables.md,
numbers.json, and a picture of each scenario.
"""

from __future__ import annotations

import os
import sys
import time
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.scenarios.catalogue import QUICK, SCENARIOS
from benchmarks.scenarios.controllers import NAMES
from benchmarks.scenarios.definitions import Scenario
from benchmarks.scenarios.jobs import HELD_OUT, Job, chosen, needs_alone, plan, results
from benchmarks.scenarios.report import Alone, Runs, tables, write_json
from benchmarks.scenarios.running import Numbers
from benchmarks.support import HOW_TO_INSTALL, versions

try:
    import click
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError as missing:
    sys.exit(f"This command needs {missing.name}. {HOW_TO_INSTALL}")


@click.command(
    context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__.replace("\n\n    ", "\n\n\b\n    ")
)
@click.option("--only", multiple=True, metavar="PATTERN", help="Names of scenarios, as in a shell; may be given again.")
@click.option("--controller", "controllers", multiple=True, type=click.Choice(NAMES), help="Default: all.")
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(1, HELD_OUT), help="How many each.")
@click.option("--held-out", is_flag=True, help="Use seeds from 11 on, on which nothing is ever tuned.")
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Directory for tables and graphs.")
@click.option("--quick", is_flag=True, help="A handful of small scenarios and one seed.")
@click.option("--list", "listing", is_flag=True, help="Print the names of the scenarios and stop.")
def main(
    only: tuple[str, ...],
    controllers: tuple[str, ...],
    seeds: int,
    held_out: bool,
    jobs: int,
    output: Path | None,
    quick: bool,
    listing: bool,
) -> None:
    patterns = only or (QUICK if quick else ("*",))
    scenarios = [each for name, each in SCENARIOS.items() if any(fnmatch(name, pattern) for pattern in patterns)]
    if not scenarios:
        raise click.UsageError(f"No scenario is called {' or '.join(patterns)}; --list shows them.")
    if listing:
        click.echo("\n".join(scenario.name for scenario in scenarios))
        return
    planned = plan(scenarios, controllers or tuple(NAMES), 1 if quick else seeds, held_out)
    if not planned:
        raise click.UsageError("None of these controllers has a place in these scenarios.")

    # run
    started = time.monotonic()
    done: dict[Job, Numbers] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("running", total=len(planned))
        for job, numbers in results(planned, min(jobs, len(planned))):
            done[job] = numbers
            progress.update(task, advance=1, description=f"{job.scenario.name} {job.controller}")

    # sort into the order of the catalogue
    runs: Runs = {}
    alone: Alone = {}
    for scenario in scenarios:
        for name in chosen(scenario, controllers or tuple(NAMES)):
            runs[scenario.name, name] = [done[job] for job in _seeds(done, scenario, name)]
        if needs_alone(scenario):
            alone[scenario.name] = {job.seed: done[job] for job in _seeds(done, scenario.alone(), "alone")}

    # tell
    text = tables(runs, alone)
    print(text)
    about = f"{versions()}; {len(planned)} runs with {'held-out seeds' if held_out else 'seeds'}"
    print(f"{about} in {time.monotonic() - started:.0f} s.")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "tables.md").write_text(f"{text}\n{about}.\n", encoding="utf-8")
        write_json(
            output / "numbers.json",
            {"about": about},
            [numbers for each in runs.values() for numbers in each],
            [numbers for job, numbers in done.items() if job.controller == "alone"],
        )
        try:
            from benchmarks.scenarios.graphs import draw
        except ModuleNotFoundError as problem:
            click.echo(f"No graphs without {problem.name}. {HOW_TO_INSTALL}", err=True)
        else:
            draw(output, runs, alone)
        print(f"Written to {output}.")


def _seeds(done: dict[Job, Numbers], scenario: Scenario, controller: str) -> list[Job]:
    """Its runs, in the order of the seeds."""
    jobs = [job for job in done if job.scenario == scenario and job.controller == controller]
    return sorted(jobs, key=lambda job: job.seed)


if __name__ == "__main__":
    main()
