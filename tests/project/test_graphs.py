"""The picture of a crowded line: it shows the data in the repository, and those are what the simulator gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from tests.pages import DOCS, ROOT, Page

DATA = DOCS / "data" / "crowded-line.json"


def python(program: str) -> str:
    """Runs a program that imports what stands beside ``docs/conf.py``; returns what it prints."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=DOCS,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    ).stdout.strip()


def summary(run: dict[str, Any]) -> dict[str, float]:
    """The wait in the queue while the background upload is alone, and the rate of the others."""
    return {
        "queue_ms": median(run["queue_ms"][4:40] + run["queue_ms"][86:]),
        "others_megabits": mean(run["others_megabits"][40:80]),
    }


def test_the_picture_of_the_readme_shows_the_data() -> None:
    """A change of the data, or of how they are drawn, needs ``python docs/graphs.py``."""
    picture = (DOCS / "pictures" / "crowded-line.svg").read_text(encoding="utf-8")

    assert python("import graphs; print(graphs.digest())") in picture


def test_the_figures_on_the_page_are_those_of_the_data() -> None:
    runs = {name: summary(run) for name, run in json.loads(DATA.read_text(encoding="utf-8"))["runs"].items()}
    text = " ".join(Page("explanation/yielding").text.split())

    assert (
        f"wait for {runs['txutp']['queue_ms']:.0f} ms beside txutp, and for"
        f" {round(runs['TCP']['queue_ms'], -1):.0f} ms beside TCP" in text
    )
    assert (
        f"gets {runs['txutp']['others_megabits']:.1f} Mbit/s beside txutp, and"
        f" {runs['TCP']['others_megabits']:.1f} Mbit/s beside TCP" in text
    )


@pytest.mark.slow
def test_the_simulator_still_gives_these_data() -> None:
    """The run over txutp; small changes of its rules leave the picture true."""
    recorded = summary(json.loads(DATA.read_text(encoding="utf-8"))["runs"]["txutp"])

    fresh = summary(json.loads(python("import json, record; print(json.dumps(record.recorded(record.UTP)))")))

    assert fresh == pytest.approx(recorded, rel=0.1)


def test_every_graph_can_be_drawn(tmp_path: Path) -> None:
    """The build draws them, from the data and from tables of the notebooks."""
    python(f"import graphs, pathlib; graphs.draw(pathlib.Path({str(tmp_path)!r}))")

    assert {file.name for file in tmp_path.iterdir()} == {"crowded-line.svg", "kept.svg", "speed.svg"}
