"""The code of two commits, measured in turns: what changed, beside what the machine did meanwhile.

The packages ``txutp`` and ``twisted`` (the plugin) are those of the commits.  The programs that measure (``ends/``) are
those of this checkout for both, unless the package of a commit lacks what they import: then the commit's own programs
measure it.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.parts import Results, Row, Values, cell
from benchmarks.processes import Failed
from benchmarks.support import ROOT, markdown

WORKING_TREE = "the working tree"
BEFORE, AFTER = "before", "after"

PACKAGES = ("benchmarks", "twisted", "txutp")

# Prints what the programs named by the arguments miss in txutp; other packages may be missing, as everywhere.
LOOK = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module("benchmarks.ends." + name)
    except ImportError as problem:
        if (problem.name or "").startswith("txutp"):
            print(problem)
"""


def git(commit: str, *words: str) -> bytes:
    """What git answers; raises ``Failed``."""
    try:
        done = subprocess.run(["git", "-c", "safe.directory=*", *words], cwd=ROOT, capture_output=True)
    except FileNotFoundError as problem:
        raise Failed(f"git, which has the code of {commit}, is missing") from problem
    if done.returncode:
        raise Failed(f"git has no code of {commit}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


@contextmanager
def code_of(commit: str | None) -> Iterator[Path]:
    """A directory with the packages of a commit, and with programs that measure them; None: this checkout."""
    if commit is None:
        yield ROOT
        return
    held = set(git(commit, "ls-tree", "--name-only", commit).decode().splitlines())
    packed = git(commit, "archive", commit, *(package for package in PACKAGES if package in held))
    with tempfile.TemporaryDirectory(prefix="txutp-compare-") as name:
        directory = Path(name)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(directory)
        choose_programs(directory)
        yield directory


def choose_programs(directory: Path) -> None:
    """Put the programs of this checkout in the place of those of the commit, if its package has what they import.

    Programs that the commit lacks do not count: they may be about what its package lacks, too.
    """
    programs, own = directory / "benchmarks", directory / "own"
    if programs.exists():
        programs.rename(own)
    programs.symlink_to(ROOT / "benchmarks")
    theirs = {path.stem for path in (own / "ends").glob("*.py")} - {"__init__"}
    names = sorted(path.stem for path in (ROOT / "benchmarks" / "ends").glob("*.py") if path.stem in theirs)
    looked = subprocess.run([sys.executable, "-c", LOOK, *names], cwd=directory, capture_output=True, text=True)
    if looked.returncode or looked.stdout:
        programs.unlink()
        own.rename(programs)


def remarks(codes: Sequence[Path], commits: Sequence[str | None]) -> list[str]:
    """Which commits are not measured by the programs of this checkout."""
    return [
        f"{commit} is measured by programs of its own, because those of this checkout do not run with it."
        for code, commit in zip(codes, commits, strict=True)
        if not (code / "benchmarks").samefile(ROOT / "benchmarks")
    ]


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
