"""``--peers-page FILE`` writes how the cells of the matrix went into docs/notebook/peers.md, or a copy."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

# These compare what both sides have told, so what is unequal shall be seen.
pytest.register_assert_rewrite("tests.interop.streams", "tests.interop.torrents")

RESULTS: pytest.StashKey[dict[object, str]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peers-page", metavar="FILE", type=Path, help="write the results of the matrix into this page")


@pytest.fixture
def results(request: pytest.FixtureRequest) -> dict[object, str]:
    """What the page shall say of each cell that was run."""
    return request.config.stash.setdefault(RESULTS, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    page = session.config.getoption("peers_page", None)
    results = session.config.stash.get(RESULTS, None)
    if page and results:
        from .page import update

        update(page, results, datetime.date.today().isoformat())
