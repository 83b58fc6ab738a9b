"""What libutp answers to the same packets: ``docs/notebook/deviations.md`` has each difference with a reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .deviations import MORE, PAGE, REASONS, SCRIPTS, comparable, described, is_more, play_all, row

pytestmark = [pytest.mark.interop, pytest.mark.slow]

# A busy machine delays one of the servers now and then.
ATTEMPTS = 3


def test_each_difference_has_a_reason_and_each_reason_a_difference() -> None:
    """Rows of the page are what both servers do, nothing is missing, and nothing is there that has gone."""
    if shutil.which("node") is None or not (Path(__file__).parent / "node_modules" / "utp-native").exists():
        pytest.skip("needs Node.js, and `npm install` in tests/interop")
    text = PAGE.read_text(encoding="utf-8")
    problems: list[str] = []
    for _ in range(ATTEMPTS):
        problems = []
        for name, (ours, theirs) in play_all().items():
            differs = comparable(ours) != comparable(theirs)
            seen = f"{name}: libutp {described(theirs)}, ours {described(ours)}"
            if differs != (name in REASONS):
                problems.append(seen)
            elif differs and row(name, ours, theirs) not in text:
                problems.append(f"not on the page as it is: {seen}")
            if is_more(ours, theirs) and name not in MORE:
                problems.append(f"more than libutp: {seen}")
        if not problems:
            break

    assert problems == []
    assert len(SCRIPTS) >= 50
    assert REASONS.keys() >= MORE.keys()
