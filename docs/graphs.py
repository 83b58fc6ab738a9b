"""Draws the graphs of the site: ``python docs/graphs.py`` makes the picture of the README anew.

The data are ``docs/data/crowded-line.json``, which ``record.py`` has written, and the tables of the notebooks.
Pictures have no background, and all inks are of a middling brightness, so they are legible on a white and on a dark
page.  The same data give the same file.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import matplotlib  # noqa: E402

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

from tests.pages import Page  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = HERE / "data" / "crowded-line.json"
# The picture of the README is committed, because no build precedes a look at the README.
PICTURE = HERE / "pictures" / "crowded-line.svg"

INK = "#777b80"
OURS = "#2b7fd4"
OTHER = "#c4641c"
REST = "#8a8f95"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "txutp",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "grid.alpha": 0.25,
}


def digest() -> str:
    """What the picture of the README is made of: its data and this program."""
    return hashlib.sha256(DATA.read_bytes() + Path(__file__).read_bytes()).hexdigest()


@contextmanager
def figure(file: Path, width: float, height: float, rows: int = 1, description: str = "") -> Iterator[Any]:
    """Axes to draw on, saved afterwards."""
    file.parent.mkdir(exist_ok=True)
    with matplotlib.rc_context(STYLE):
        drawing, axes = pyplot.subplots(rows, 1, figsize=(width, height), sharex=True)
        yield axes
        drawing.set_layout_engine("constrained")
        metadata = {"Date": None, "Creator": None, "Description": description or None}
        drawing.savefig(file, transparent=True, metadata=metadata)
        pyplot.close(drawing)


def draw_crowded_line(file: Path) -> None:
    """The queue, and the upload of others, with a background upload over TCP and over txutp."""
    data = json.loads(DATA.read_text(encoding="utf-8"))
    with figure(file, 8, 4.6, rows=2, description=digest()) as (queue, others):
        for name, colour, dashes in (("TCP", OTHER, (0, (4, 1.5))), ("txutp", OURS, "-")):
            run = data["runs"][name]
            times = [(step + 0.5) * data["step_s"] for step in range(len(run["queue_ms"]))]
            style = {"color": colour, "linestyle": dashes, "linewidth": 2}
            queue.plot(times, run["queue_ms"], **style)
            others.plot(*averages(times, run["others_megabits"], 20, 40), **style)
        queue.text(3, 130, "background upload over TCP", color=OTHER, weight="bold")
        queue.text(3, 28, "over txutp", color=OURS, weight="bold")
        others.text(40.5, 9.3, "beside txutp", color=OURS, weight="bold", va="center")
        others.text(40.5, 3.6, "beside TCP", color=OTHER, weight="bold", va="center")
        queue.set(ylabel="wait in the queue, ms", ylim=(0, 320), yticks=[0, 100, 200, 300])
        others.set(ylabel="TCP upload, Mbit/s", ylim=(0, 11), yticks=[0, 5, 10], xlim=(0, 60), xlabel="time, s")
        for axes in (queue, others):
            axes.grid(True)
            axes.axvspan(20, 40, color=INK, alpha=0.12, linewidth=0)
        queue.text(30, 302, "somebody else uploads over TCP", ha="center", va="center", fontsize=9)


def averages(times: list[float], values: list[float], from_s: float, to_s: float) -> tuple[list[float], list[float]]:
    """Means over two seconds: a loss delays bytes that arrive together afterwards."""
    step_s = times[1] - times[0]
    count = round(2 / step_s)
    first, last = round(from_s / step_s), round(to_s / step_s)
    starts = range(first, last, count)
    return [(start + count / 2) * step_s for start in starts], [sum(values[at : at + count]) / count for at in starts]


def number(cell: str) -> float:
    """The first number of a cell of a table."""
    return float(re.findall(r"\d*\.?\d+", cell)[0])


def bars(
    file: Path, rows: list[tuple[str, list[tuple[str, float, str]]]], label: str, highest: float, form: str
) -> None:
    """Groups of horizontal bars: for each group its name, and the name, length and colour of each bar."""
    count = sum(len(group) + 1 for _, group in rows)
    with figure(file, 8, 0.6 + 0.3 * count) as axes:
        place, ticks = 0.0, []
        for name, group in rows:
            for bar, value, colour in group:
                axes.barh(place, value, 0.8, color=colour)
                axes.text(value + highest / 100, place, f"{value:{form}}", va="center", fontsize=10)
                ticks.append((place, f"{name}, {bar}" if name else bar))
                place += 1
            place += 0.6
        axes.set_yticks([where for where, _ in ticks], [text for _, text in ticks])
        axes.invert_yaxis()
        axes.set(xlabel=label, xlim=(0, highest))


def draw_kept(file: Path) -> None:
    """What TCP keeps beside each controller, when both start at once."""
    tables = Page("notebook/congestion").tables
    [table] = [table for table in tables if any(row.get("") == "Reno, RED" for row in table)]
    groups = []
    for name in ("Reno, 100 packets", "CUBIC, 100 packets", "Reno, RED"):
        [row] = [row for row in table if row[""] == name]
        chosen = [("Shallow", OURS), ("LEDBAT++", REST), ("LEDBAT", REST), ("libutp", OTHER)]
        group = [(kind, number(row[kind].split()[2]), colour) for kind, colour in chosen]
        groups.append((name, group))
    bars(file, groups, "what one TCP keeps of its rate, both started at once", 1.1, ".2f")


def draw_speed(file: Path) -> None:
    """One stream through a cable."""
    [table] = [table for table in Page("notebook/performance").tables if "of the limit" in table[0]]
    colours = {"txutp": OURS, "Twisted TCP": OTHER}
    names = ["Twisted TCP", "txutp", "utp-native (libutp, C)", "libtorrent uTP (C++)"]
    rates = {row[""]: number(row["MB/s"]) for row in table}
    bars(
        file, [("", [(name, rates[name], colours.get(name, REST)) for name in names])], "MB/s, one stream", 3_100, ".0f"
    )


def draw(directory: Path) -> None:
    """Draws all graphs of the site."""
    draw_crowded_line(directory / "crowded-line.svg")
    draw_kept(directory / "kept.svg")
    draw_speed(directory / "speed.svg")


if __name__ == "__main__":
    draw_crowded_line(PICTURE)
