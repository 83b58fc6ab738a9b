"""What holds for the documentation as a whole."""

from __future__ import annotations

import pytest

from tests.pages import Page


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
