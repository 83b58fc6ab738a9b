"""``--plot``: goodput, round trip and queue delay over time, drawn from the JSON of a test.

The same JSON gives the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from txutp.cli.pictures import BLUE, DASHED, DOTTED, GREEN, INK, ORANGE, SOLID, STYLE

LINES: dict[str, tuple[str, str, Any]] = {
    "client_to_server": ("client to server", BLUE, SOLID),
    "server_to_client": ("server to client", ORANGE, DASHED),
}
WAY_BACK: dict[str, Any] = {"color": GREEN, "linestyle": DOTTED}
SIZE_INCHES = (8, 7)


class NothingToDraw(Exception):
    """The JSON has no intervals."""


def draw(results: dict[str, Any], file: Path) -> None:
    """Draw the document of ``-J`` into an SVG file.

    Raises ``ModuleNotFoundError`` without matplotlib, and ``NothingToDraw``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    intervals = results.get("intervals") if isinstance(results, dict) else None
    if not isinstance(intervals, list) or not intervals or not all(map(_is_interval, intervals)):
        raise NothingToDraw("There are no intervals of a test of txutp perf to draw.")
    with matplotlib.rc_context(STYLE):
        figure, (goodput, rtt, queue) = pyplot.subplots(3, 1, sharex=True, figsize=SIZE_INCHES)
        directions = [name for name in LINES if any(interval["direction"] == name for interval in intervals)]
        for direction in directions:
            label, colour, dashes = LINES[direction]
            mine = [interval for interval in intervals if interval["direction"] == direction]
            times = [(interval["start"] + interval["end"]) / 2 for interval in mine]
            style: dict[str, Any] = {"color": colour, "linestyle": dashes, "linewidth": 1.6}
            dots: dict[str, Any] = {"marker": "o", "markersize": 3} if len(mine) < 30 else {}
            goodput.plot(times, [interval["bits_per_second"] / 1e6 for interval in mine], label=label, **style, **dots)
            rtt.plot(times, _values(mine, "rtt_ms"), label=label, **style, **dots)
            queue.plot(times, _values(mine, "queue_delay_ms"), label=label, **style, **dots)
            if len(directions) == 1:
                style |= WAY_BACK
                queue.plot(times, _values(mine, "reverse_queue_delay_ms"), label="way back", **style, **dots)
        for axes, label in ((goodput, "goodput, Mbit/s"), (rtt, "round trip, ms"), (queue, "queue delay, ms")):
            axes.set_ylabel(label)
            highest = axes.dataLim.y1  # not finite without a value
            axes.set_ylim(0, 1.1 * highest if 0 < highest < float("inf") else 1)
            axes.set_xlim(left=0)
            axes.grid(True)
            axes.spines[["top", "right"]].set_visible(False)
            if len(axes.lines) > 1:
                axes.legend(frameon=False, loc="upper right", ncols=2, bbox_to_anchor=(1, 1.2), borderaxespad=0)
        queue.set_xlabel("time, s")
        for interval in intervals:
            if interval.get("omitted"):
                for axes in (goodput, rtt, queue):
                    axes.axvspan(interval["start"], interval["end"], color=INK, alpha=0.12, linewidth=0)
        figure.align_ylabels()
        figure.tight_layout()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Title": "txutp perf"})
        pyplot.close(figure)


def _is_interval(value: Any) -> bool:
    names = {"direction", "start", "end", "bits_per_second", "rtt_ms", "queue_delay_ms", "reverse_queue_delay_ms"}
    return isinstance(value, dict) and names <= set(value)


def _values(intervals: list[dict[str, Any]], name: str) -> list[float]:
    """The values of intervals; a gap in the line where one is missing."""
    return [float("nan") if interval[name] is None else interval[name] for interval in intervals]
