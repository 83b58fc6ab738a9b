"""The tables in docs/notebook/peers.md: what the table of peers says, and how its cells went last."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from .matrix import ROLES, Cell, Peer
from .support import ROOT
from .table import CELLS, PEERS, ROWS

PAGE = ROOT / "docs" / "notebook" / "peers.md"

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
NOT_RUN, FAILED, OK, IMPOSSIBLE = "not run", "**fails**", "ok", "-"

PAGE_WIDTH = 120
RULE = "---"  # between the header of a table and its rows

Results = dict[Cell, str]


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def line_of(cells: Iterable[str]) -> str:
    """The line of a table with these cells."""
    return f"| {' | '.join(cells)} |"


def table_of(text: str, first: str) -> dict[str, dict[str, str]]:
    """The table whose header begins with this: for each row the cells by column."""
    lines = iter(text.splitlines())
    header = next((cells_of(line) for line in lines if line.startswith(f"| {first} |")), None)
    table = {}
    for line in lines if header else ():
        if not line.startswith("|"):
            break
        cells = cells_of(line)
        if cells[0] != RULE:
            table[cells[0]] = dict(zip(header or (), cells, strict=True))
    return table


def without_notes(text: str) -> str:
    """A cell without the numbers of its notes."""
    return re.sub(r" ?\(\d+(, \d+)*\)", "", text)


def earlier(text: str) -> Results:
    """What the page says of each cell."""
    table = table_of(text, "scenario")
    results = {}
    for cell in CELLS:
        said = without_notes(table.get(cell.row.title, {}).get(cell.peer.name, "")).split(" / ")
        results[cell] = said[ROLES.index(cell.role)] if len(said) == len(ROLES) else NOT_RUN
    return results


def rendered(text: str, results: Results, today: str) -> str:
    """The page with the cells that were run, and everything else as it is or as the table of peers has it now."""
    before, rest = text.split(BEGIN)
    tables, after = rest.split(END)
    known = earlier(tables) | results
    notes: list[str] = []

    def shown(cell: Cell) -> str:
        numbers = []
        for limit in cell.limits:
            if limit.note not in notes:
                notes.append(limit.note)
            numbers.append(str(notes.index(limit.note) + 1))
        said = IMPOSSIBLE if cell.cannot else known[cell]
        return f"{said} ({', '.join(numbers)})" if numbers else said

    matrix = [line_of(["scenario", *(peer.name for peer in PEERS)]), line_of([RULE] * (len(PEERS) + 1))]
    for row in ROWS:
        shown_cells = [
            " / ".join(shown(cell) for cell in CELLS if (cell.row, cell.peer) == (row, peer)) for peer in PEERS
        ]
        matrix.append(line_of([row.title, *shown_cells]))
    peers = [line_of(["peer", "version", "last run"]), line_of([RULE] * 3)]
    peers += [line_of(last_run(peer, tables, results, today)) for peer in PEERS]
    numbered = [
        textwrap.fill(f"{number}. {note}", PAGE_WIDTH, subsequent_indent="   ") for number, note in enumerate(notes, 1)
    ]
    parts = ["\n".join(part) for part in (matrix, numbered, peers)]
    return f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}"


def last_run(peer: Peer, tables: str, results: Results, today: str) -> list[str]:
    """The version of a peer, and when a cell of it was run last."""
    if any(cell.peer == peer for cell in results):
        return [peer.name, peer.version(), today]
    known = table_of(tables, "peer").get(peer.name, {})
    return [peer.name, known.get("version", NOT_RUN), known.get("last run", NOT_RUN)]


def update(path: Path, results: Results, today: str) -> None:
    """Write the results of a run into a page."""
    path.write_text(rendered(path.read_text(encoding="utf-8"), results, today), encoding="utf-8")
