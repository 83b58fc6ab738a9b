"""Measure txutp beside Twisted's TCP and other implementations of uTP, and print tables.

    python -m benchmarks --quick
    python -m benchmarks --only 'streams-*' --only rates --output results
    python -m benchmarks compare HEAD~5 --only streams-loopback

Results go to standard output as Markdown, progress to standard error.  With --output the directory gets tables.md,
numbers.json and a picture of each part.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from fnmatch import fnmatch
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks import compare as comparison
from benchmarks.catalogue import PARTS, chosen
from benchmarks.parts import FULL, QUICK, Part, Results, Row, Sizes, measure_round
from benchmarks.peers import versions_of_peers
from benchmarks.processes import Failed
from benchmarks.support import HOW_TO_INSTALL, machine, versions

try:
    import click
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
except ModuleNotFoundError as missing:
    sys.exit(f"This command needs {missing.name}. {HOW_TO_INSTALL}")

QUICK_ROUNDS = 1
USUAL_ROUNDS = 5

only = click.option("--only", multiple=True, metavar="PART", help="Names as in a shell; may be given again.")
rows = click.option("--row", "rows", multiple=True, metavar="ROW", help="The same for rows, like utp or 100/tcp.")
rounds = click.option("--rounds", type=click.IntRange(1), help="Default: 5, with --quick 1.")
quick = click.option("--quick", is_flag=True, help="Small sizes: to see that it works, not how fast it is.")


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help=__doc__.replace("\n\n    ", "\n\n\b\n    "),
)
@only
@rows
@rounds
@quick
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="File for all numbers.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Directory for tables and graphs.")
@click.option("--list", "listing", is_flag=True, help="Print the names of the parts and stop.")
@click.pass_context
def main(
    context: click.Context,
    only: tuple[str, ...],
    rows: tuple[str, ...],
    rounds: int | None,
    quick: bool,
    json_file: Path | None,
    output: Path | None,
    listing: bool,
) -> None:
    # what the ends and their networks are made of is taken down on the way out, whatever ends us
    signal.signal(signal.SIGTERM, leave)
    if context.invoked_subcommand is not None:
        return
    if listing:
        click.echo("\n".join(f"{name:22}{part.title}" for name, part in PARTS.items()))
        return
    times = times_of(rounds, quick)
    started = time.monotonic()
    with progress_bar() as progress:
        everything = [measured(part, times, sizes_of(quick), progress, fitting(rows)) for part in wanted(only)]
    everything = told(everything, rows)
    about = {
        "machine": machine(),
        "versions": ", ".join(filter(None, [versions(), versions_of_peers()])),
        "rounds": times,
        "seconds": round(time.monotonic() - started),
    }
    text = "\n".join(results.table() for results in everything)
    text += f"\n{about['machine']}; {about['versions']}; {times} rounds in {about['seconds']} s.\n"
    click.echo(text)
    numbers = {**about, "parts": {results.part.name: results.rounds for results in everything}}
    if json_file is not None:
        json_file.write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    if output is not None:
        write(output, text, numbers, everything)


@main.command()
@click.argument("before", metavar="COMMIT")
@click.argument("after", metavar="[COMMIT]", required=False)
@only
@rows
@rounds
@quick
def compare(
    before: str, after: str | None, only: tuple[str, ...], rows: tuple[str, ...], rounds: int | None, quick: bool
) -> None:
    """The code of two commits in turns; without the second one, that of the working tree."""
    commits = (before, after)
    with ExitStack() as stack:
        try:
            codes = [stack.enter_context(comparison.code_of(commit)) for commit in commits]
        except Failed as problem:
            raise click.ClickException(str(problem)) from None

        def pick(rows_of_part: list[Row]) -> list[Row]:
            return comparison.in_turns(fitting(rows)(rows_of_part), *codes)

        progress = stack.enter_context(progress_bar())
        everything = [measured(part, times_of(rounds, quick), sizes_of(quick), progress, pick) for part in wanted(only)]
        about = comparison.remarks(codes, commits)
    for results in told(everything, rows):
        click.echo(comparison.table(results, commits))
    for remark in about:
        click.echo(f"{remark}\n")
    click.echo(f"{machine()}; {versions()}.")


def leave(number: int, frame: FrameType | None) -> NoReturn:
    """Somebody wants us to end."""
    sys.exit(128 + number)


def times_of(rounds: int | None, quick: bool) -> int:
    return rounds or (QUICK_ROUNDS if quick else USUAL_ROUNDS)


def sizes_of(quick: bool) -> Sizes:
    return QUICK if quick else FULL


def wanted(only: tuple[str, ...]) -> list[Part]:
    parts = chosen(only)
    if not parts:
        raise click.UsageError(f"No part is called {' or '.join(only)}; --list shows them.")
    return parts


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def fitting(patterns: tuple[str, ...]) -> Callable[[list[Row]], list[Row]]:
    """Takes those rows whose keys fit one of the patterns; all if there is none."""
    return lambda rows: [row for row in rows if not patterns or any(fnmatch(row.key, each) for each in patterns)]


def measured(
    part: Part, times: int, sizes: Sizes, progress: Progress, pick: Callable[[list[Row]], list[Row]]
) -> Results:
    """All rounds of a part, with the rows that are picked."""
    results = Results(part)
    reason = part.why_not()
    if reason:
        results.remark(f"Left out: {reason}")
        return results
    with part.opened(sizes) as all_rows:
        rows = []
        for row in pick(all_rows):
            if row.why_not:
                results.remark(f"Left out: {row.why_not}")
            else:
                rows.append(row)
        task = progress.add_task(part.name, total=times * len(rows))
        for number in range(times):
            for count, row in enumerate(measure_round(rows, results, number)):
                progress.update(task, description=f"{part.name} {row.key}", completed=number * len(rows) + count)
        progress.remove_task(task)
    results.rows.sort(key=rows.index)
    return results


def told(everything: list[Results], patterns: tuple[str, ...]) -> list[Results]:
    """Those that have something to tell."""
    telling = [results for results in everything if results.rows or results.remarks]
    if not telling:
        raise click.UsageError(f"No row is called {' or '.join(patterns)} in these parts.")
    return telling


def write(directory: Path, text: str, numbers: dict[str, Any], everything: list[Results]) -> None:
    """Tables, numbers and pictures."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tables.md").write_text(text, encoding="utf-8")
    (directory / "numbers.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
    try:
        from benchmarks.charts import draw
    except ModuleNotFoundError as problem:
        click.echo(f"No graphs without {problem.name}. {HOW_TO_INSTALL}", err=True)
    else:
        draw(directory, everything)
    click.echo(f"Written to {directory}.", err=True)


if __name__ == "__main__":
    main()
