"""What holds for the documentation as a whole."""

from __future__ import annotations

import pytest

from tests.pages import DOCS, ROOT, Page

PAGES = [
    str(path.relative_to(DOCS).with_suffix("")) for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts
]
TESTS = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts
)


@pytest.mark.parametrize(
    ("page", "notebook"),
    [
        ("explanation/yielding", "notebook/congestion"),
        ("explanation/speed", "notebook/performance"),
        ("explanation/comparison", "notebook/performance"),
    ],
)
def test_figures_on_a_page_are_those_of_its_notebook(page: str, notebook: str) -> None:
    """Each row of a table of figures stands in a table of the notebook, maybe with more columns."""
    published = [row for table in Page(notebook).tables for row in table]
    quoted = [row for table in Page(page).tables for row in table if "" in row]

    assert quoted
    for row in quoted:
        assert any(row.items() <= other.items() for other in published), row


@pytest.mark.parametrize("name", [name for name in PAGES if Page(name).blocks])
def test_a_page_with_commands_or_programs_has_a_test(name: str) -> None:
    """The test of a page reads it, and fails itself when a block is added to it that it does not run."""
    folder, _, stem = name.rpartition("/")
    reads = (f'Page("{name}")', f'/ "{folder}" / "{stem}.md"')

    assert any(words in TESTS for words in reads)


@pytest.mark.parametrize("name", PAGES)
def test_blocks_have_a_language_that_tests_know(name: str) -> None:
    """A block without a language, or with another one, would be run by nobody."""
    assert {block.language for block in Page(name).blocks} <= {"sh", "python", "text", "ini"}
