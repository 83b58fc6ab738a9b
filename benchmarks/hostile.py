"""What one hostile datagram costs, beside an honest one of its length, and what memory is left of very many."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks.ends import hostile
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.processes import worker

# A million datagrams take longer than what other benchmarks do at a time.
LIMIT_SECONDS = 1_200


def cost(phase: str, kind: str, datagrams: int, code: Path) -> Values:
    """Microseconds for a datagram of one kind and for an honest one, and by how much the process grew."""
    program = [sys.executable, "-m", "benchmarks.ends.hostile", f"{phase}/{kind}", json.dumps({"datagrams": datagrams})]
    with worker(program, code, LIMIT_SECONDS) as process:
        values: Values = process.line()
    return {**values, "ratio": values["hostile_us"] / values["honest_us"]}


def opened(phase: str) -> Callable[[Sizes], AbstractContextManager[list[Row]]]:
    @contextmanager
    def rows(sizes: Sizes) -> Iterator[list[Row]]:
        yield [
            Row(kind, kind, lambda code, kind=kind: cost(phase, kind, sizes.hostile_datagrams, code), ours=True)  # type: ignore[misc]
            for kind in hostile.KINDS[phase]
        ]

    return rows


def part(phase: str, what: str) -> Part:
    return Part(
        f"hostile-{phase}",
        f"One hostile datagram {what}, in the core of a server",
        (
            Column("bytes", "bytes"),
            Column("µs", "hostile_us", drawn=True),
            Column("µs, honest DATA of that length", "honest_us"),
            Column("times honest", "ratio"),
            Column("KiB left of a tenth", "first_kib"),
            Column("KiB left of all", "grown_kib"),
        ),
        opened(phase),
        lambda: "" if sys.platform == "linux" else "it needs Linux",
    )


BEFORE = part("before", "before the handshake, or without any")
AFTER = part("after", "of a peer, or with its id")
