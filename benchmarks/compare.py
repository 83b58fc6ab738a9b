"""The code of two commits, measured in turns: what changed, beside what the machine did meanwhile.

The programs that measure are those of this checkout for both; only the packages ``txutp`` and ``twisted`` (the plugin)
are those of the commits.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.parts import Results, Row, Values, cell
from benchmarks.processes import Failed
from benchmarks.support import ROOT, markdown

WORKING_TREE = "the working tree"
BEFORE, AFTER = "before", "after"


@contextmanager
def code_of(commit: str | None) -> Iterator[Path]:
    """A directory with the packages of a commit, and with the programs of this checkout; None: this checkout."""
    if commit is None:
        yield ROOT
        return
    try:
        packed = subprocess.run(
            ["git", "-c", "safe.directory=*", "archive", commit, "txutp", "twisted"], cwd=ROOT, capture_output=True
        )
    except FileNotFoundError as problem:
        raise Failed(f"git, which has the code of {commit}, is missing") from problem
    if packed.returncode:
        raise Failed(f"git has no code of {commit}: {packed.stderr.decode(errors='replace').strip()}")
    with tempfile.TemporaryDirectory(prefix="txutp-compare-") as name:
        directory = Path(name)
        with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
            archive.extractall(directory)
        (directory / "benchmarks").symlink_to(ROOT / "benchmarks")
        yield directory


def in_turns(rows: list[Row], before: Path, after: Path) -> list[Row]:
    """Each row of ours twice, one after the other."""

    def with_code(row: Row, name: str, code: Path) -> Row:
        def measure(_: Path) -> Values:
            return row.measure(code)

        return replace(row, name=name, group=row.key, measure=measure)

    codes = ((BEFORE, before), (AFTER, after))
    return [with_code(row, name, code) for row in rows if row.ours for name, code in codes]


def table(results: Results, commits: tuple[str, str | None]) -> str:
    """Both medians, and how the second compares to the first in the rounds that have both."""
    names = [commit or WORKING_TREE for commit in commits]
    lines = []
    for row in results.rows:
        if row.name != BEFORE:
            continue
        for column in results.part.columns:
            keys = [f"{row.group}/{name}" for name in (BEFORE, AFTER)]
            if column.drawn and results.values(keys[0], column.metric):
                ratios = results.ratios(keys[1], keys[0], column.metric)
                values = [cell(results.values(key, column.metric)) for key in keys]
                lines.append([f"{row.label}: {column.header}", *values, cell(ratios)])
    text = f"### {results.part.title}\n\n{markdown(['', *names, 'ratio'], lines)}\n"
    return text + "".join(f"\n{remark}.\n" for remark in results.remarks)
