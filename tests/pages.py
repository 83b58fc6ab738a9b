"""The pages under ``docs/`` as tests read them: fenced blocks, and tables as dictionaries."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```([^\s`]*)[^\n`]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


class Page:
    """A page of the documentation, by its name without the suffix, such as ``howto/tls``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = (DOCS / f"{name}.md").read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """The fenced blocks, but those that Sphinx executes."""
        return [Block(*found) for found in FENCE.findall(self.text) if not found[0].startswith("{")]

    @property
    def commands(self) -> list[str]:
        """The lines of all ``sh`` blocks; a line that ends with a backslash goes on."""
        lines = [block.text.replace("\\\n", "") for block in self.blocks if block.language == "sh"]
        return [line for text in lines for line in text.splitlines() if line]

    @property
    def programs(self) -> list[str]:
        """The ``python`` blocks."""
        return [block.text for block in self.blocks if block.language == "python"]

    def command(self, beginning: str) -> str:
        """The one command that begins so."""
        [found] = [command for command in self.commands if command.startswith(beginning)]
        return found

    @property
    def tables(self) -> list[list[dict[str, str]]]:
        """Each table as a list of rows; a row maps the cells of the header to its own."""
        tables, lines = [], self.text.splitlines()
        for number, line in enumerate(lines):
            if re.fullmatch(r"\|[\s:|-]+\|", line):
                header = _cells(lines[number - 1])
                rows = []
                for row in lines[number + 1 :]:
                    if not row.startswith("|"):
                        break
                    rows.append(dict(zip(header, _cells(row), strict=True)))
                tables.append(rows)
        return tables


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]
