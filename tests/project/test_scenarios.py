"""The list of scenarios in docs/notebook/scenarios.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
DOCS = TESTS.parent / "docs"
SCENARIOS = DOCS / "notebook" / "scenarios.md"
SECURITY = DOCS / "explanation" / "security.md"


def test_every_scenario_names_its_tests() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", SCENARIOS.read_text(encoding="utf-8"), re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) > 70
    for number, _, cell in rows:
        names = re.findall(r"`([\w/.]+)::(\w+)`", cell)
        assert names, number
        for file, name in names:
            assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), name


def test_every_promise_about_security_names_tests_that_exist() -> None:
    names = re.findall(r"`([\w/.]+)::(\w+)`", SECURITY.read_text(encoding="utf-8"))
    assert len(names) > 20
    for file, name in names:
        assert re.search(rf"^(async )?def {name}\(", (TESTS / file).read_text(), re.MULTILINE), name
