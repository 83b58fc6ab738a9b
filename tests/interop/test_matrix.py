"""Every peer, every scenario, both roles: table.py says which, and what a peer cannot do."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.missing import leave_out

from .matrix import ROLES, Cell
from .page import FAILED, IMPOSSIBLE, OK, PAGE, earlier, rendered, table_of
from .support import ROOT, TRANSPORT
from .table import CELLS, LIMITS, PEERS, ROWS, UTP_NATIVE

COMMAND_SECONDS = 60


def parameter(cell: Cell) -> Any:
    """A cell as a parameter of the test."""
    name = cell.name.replace(", ", ":").replace(" ", "-")
    return pytest.param(cell, id=name, marks=[pytest.mark.clients] if cell.by_hand else [pytest.mark.interop])


@pytest.mark.slow
@pytest.mark.skipif(TRANSPORT != "utp", reason="the matrix is about uTP")
@pytest.mark.parametrize("cell", [parameter(cell) for cell in CELLS if not cell.cannot])
@pytest_twisted.ensureDeferred
async def test_peer(cell: Cell, results: dict[object, str]) -> None:
    """What the row says works with this peer in this role."""
    if missing := cell.peer.missing():
        pytest.skip(missing) if cell.peer.by_hand else leave_out(missing)
    if reason := cell.row.ground.why_not():
        pytest.skip(reason)
    results[cell] = FAILED
    with cell.row.ground.make() as place:
        playing = Deferred.fromCoroutine(cell.play(cell, place))
        said = await playing.addTimeout(cell.limit_seconds, reactor)
    results[cell] = f"{OK} {said}" if said else OK


def test_limits_are_of_cells_that_are_there() -> None:
    """Each limit names a peer, a row and roles of the table, and no cell has two reasons why it cannot be."""
    assert {(peer, row) for peer, row, _ in LIMITS} <= {(peer, row.name) for peer in PEERS for row in ROWS}
    assert all(roles and set(roles) <= set(ROLES) for _, _, roles in LIMITS)
    assert len({(limit.reason, cell) for cell in CELLS for limit in cell.limits}) == sum(
        len(cell.limits) for cell in CELLS
    )


def test_the_page_shows_the_table() -> None:
    """The page has the rows, columns and notes of the table, and every cell that can be played went well."""
    page = PAGE.read_text(encoding="utf-8")

    assert rendered(page, {}, "today") == page
    assert list(table_of(page, "scenario")) == [row.title for row in ROWS]
    for cell, said in earlier(page).items():
        assert said == IMPOSSIBLE if cell.cannot else said.startswith(OK), cell.name
    for peer, row in table_of(page, "peer").items():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", row["last run"]), peer


def command(end: str) -> list[str]:
    """The words of the page's one command that ends so, with this Python."""
    [shown] = re.findall(rf"^(python .*{re.escape(end)})$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [sys.executable, *shlex.split(shown)[1:]]


def test_the_command_for_what_is_left_out() -> None:
    """It selects all cells that tests/run leaves out, and nothing else."""
    words = [*command("-m clients tests/interop"), "--collect-only", "-q"]

    done = subprocess.run(words, cwd=ROOT, check=True, timeout=COMMAND_SECONDS, capture_output=True, text=True)

    selected = re.findall(r"::test_peer\[(.*)\]$", done.stdout, re.MULTILINE)
    assert selected == [parameter(cell).id for cell in CELLS if cell.by_hand and not cell.cannot]
    assert done.stdout.count("::") == len(selected)


@pytest.mark.interop
@pytest.mark.skipif(TRANSPORT != "utp", reason="the matrix is about uTP")
def test_the_command_of_the_page(tmp_path: Path) -> None:
    """The command that makes the tables runs; here on a copy, and with one cell."""
    if missing := UTP_NATIVE.missing():
        leave_out(missing)
    text = PAGE.read_text(encoding="utf-8")
    copy = tmp_path / "peers.md"
    copy.write_text(re.sub(r"\d{4}-\d\d-\d\d", "2001-01-01", text), encoding="utf-8")
    words = command("--peers-page docs/notebook/peers.md")
    words[words.index("docs/notebook/peers.md")] = str(copy)
    words += ["-k", "server-closes and utp-native and we-connect"]

    subprocess.run(words, cwd=ROOT, check=True, timeout=COMMAND_SECONDS, stdout=subprocess.DEVNULL)

    dates = {name: row["last run"] for name, row in table_of(copy.read_text(encoding="utf-8"), "peer").items()}
    assert [name for name, date in dates.items() if date != "2001-01-01"] == ["utp-native"]
