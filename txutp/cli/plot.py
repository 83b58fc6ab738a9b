"""``txutp plot``: a picture of a qlog trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from txutp.cli.output import EXIT_UNREADABLE, give_up, say
from txutp.cli.pictures import BLUE, DASHED, DOTTED, GREEN, ORANGE, RED, SOLID, STYLE
from txutp.qlog.files import NotAQlogFile, read_qlog

SIZE_INCHES = (8, 9)
DOTS_PER_INCH = 150

# A line has at most so many bins, of which the lowest and the highest value are drawn.
BINS = 1_000

# Goodput is averaged over the longer of these.
GOODPUT_SECONDS = 0.05
GOODPUT_PART = 1 / 100  # of the trace

Points = list[tuple[float, float]]


class Series:
    """What a trace says of one connection, over time in seconds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.metrics: dict[str, Points] = defaultdict(list)
        self.lost_seconds: list[float] = []
        self.resent_seconds: list[float] = []
        self.begun_seconds: float | None = None
        self.ended_seconds: float = 0.0

    def add(self, event: dict[str, Any]) -> None:
        """Take the next event."""
        seconds = event["time"] / 1_000
        if self.begun_seconds is None:
            self.begun_seconds = seconds
        self.ended_seconds = seconds
        name, data = event["name"], event["data"]
        if name in ("recovery:metrics_updated", "utp:metrics_updated"):
            for metric, value in data.items():
                if isinstance(value, (int, float)):
                    self.metrics[metric].append((seconds, value))
        elif name == "recovery:packet_lost":
            self.lost_seconds.append(seconds)
        elif name == "transport:packet_sent" and data.get("utp", {}).get("retransmission"):
            self.resent_seconds.append(seconds)

    @property
    def moved_bytes(self) -> float:
        """How much has arrived, both ways."""
        return sum(self.metrics[name][-1][1] for name in ("bytes_acked", "bytes_received") if self.metrics[name])

    def of(self, metric: str, factor: float = 1.0) -> Points:
        """Returns the values of a metric, in other units, from the first that is not 0 to the end of the trace."""
        points = [(seconds, value * factor) for seconds, value in self.metrics[metric]]
        points = points[next((number for number, point in enumerate(points) if point[1]), len(points)) :]
        return [*points, (self.ended_seconds, points[-1][1])] if points else []

    def goodput(self, metric: str) -> Points:
        """Returns megabits per second from a count of bytes."""
        counts = self.metrics[metric]
        if not counts or self.begun_seconds is None:
            return []
        width = max(GOODPUT_SECONDS, (self.ended_seconds - self.begun_seconds) * GOODPUT_PART)
        rates: Points = []
        index, before = 0, counts[0][1]
        edge = self.begun_seconds
        while edge < self.ended_seconds:
            edge += width
            while index + 1 < len(counts) and counts[index + 1][0] <= edge:
                index += 1
            now = counts[index][1] if counts[index][0] <= edge else before
            rates.append((edge - width / 2, (now - before) * 8 / width / 1e6))
            before = now
        return rates


def series_of(events: Iterable[dict[str, Any]]) -> list[Series]:
    """Returns what each connection of a trace was like, in the order in which they began."""
    found: dict[str, Series] = {}
    for event in events:
        if isinstance(event.get("time"), (int, float)) and isinstance(event.get("name"), str):
            group = str(event.get("group_id", ""))
            if group not in found:
                found[group] = Series(group)
            found[group].add(event)
    return list(found.values())


def thinned(points: Points) -> Points:
    """Returns a line that looks the same, with at most two points for each of ``BINS`` parts of it."""
    if len(points) <= 2 * BINS:
        return points
    begin, end = points[0][0], points[-1][0]
    bins: dict[int, Points] = defaultdict(list)
    for point in points:
        bins[int((point[0] - begin) / max(end - begin, 1e-9) * BINS)].append(point)
    kept: Points = []
    for group in bins.values():
        lowest = min(group, key=lambda point: point[1])
        highest = max(group, key=lambda point: point[1])
        kept += sorted({lowest, highest, group[-1]})
    return kept


@click.command(
    short_help="Draw a qlog trace.",
    epilog=f"Exit codes: {EXIT_UNREADABLE} the file is not a qlog trace, or there is nothing in it to draw.",
)
@click.argument("trace", metavar="FILE.qlog", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
    help="An SVG, PNG or PDF file.  [default: FILE.svg]",
)  # fmt: skip
@click.option("-c", "--connection", type=click.IntRange(min=1), help="Draw this one.  [default: what moved most bytes]")
def plot(trace: Path, output: Path | None, connection: int | None) -> None:
    """Draw goodput, congestion window and flight, round trip, queue delay and losses of a connection.

    The trace is a file of `--qlog`, or of `txutp.qlog` in a program of your own.
    """
    try:
        import matplotlib  # noqa: F401 - looked for before the file is read
    except ModuleNotFoundError:
        raise click.UsageError('txutp plot needs matplotlib. Please run: pip install "txutp[plot]"') from None
    try:
        header, events = read_qlog(trace)
        found = series_of(events)
    except (NotAQlogFile, OSError) as problem:
        give_up(f"{problem}.", EXIT_UNREADABLE)
    if not found:
        give_up(f"{trace} has no connection.", EXIT_UNREADABLE)
    if connection is None:
        chosen = max(found, key=lambda series: series.moved_bytes)
    elif connection <= len(found):
        chosen = found[connection - 1]
    else:
        raise click.UsageError(f"{trace} has {len(found)} connections, and none with the number {connection}.")
    if len(found) > 1:
        say(f"{trace} has {len(found)} connections; this is number {found.index(chosen) + 1}, with {chosen.name}.")
    file = trace.with_suffix(".svg") if output is None else output
    try:
        draw(chosen, str(header.get("title", "txutp")), file)
    except (OSError, ValueError) as problem:  # a format that matplotlib does not know
        raise click.UsageError(f"{file} cannot be written: {problem}") from problem
    say(f"Written to {file}.")


def draw(series: Series, title: str, file: Path) -> None:
    """Draw a connection into a file, in the format of its suffix."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels: list[tuple[str, list[tuple[str, Points, str, Any]]]] = [
        (
            "goodput, Mbit/s",
            [
                ("sent", series.goodput("bytes_acked"), BLUE, SOLID),
                ("received", series.goodput("bytes_received"), ORANGE, DASHED),
            ],
        ),
        (
            "window, KB",
            [
                ("in flight", series.of("bytes_in_flight", 1e-3), ORANGE, SOLID),
                ("congestion window", series.of("congestion_window", 1e-3), BLUE, DASHED),
            ],
        ),
        (
            "round trip, ms",
            [
                ("smoothed", series.of("smoothed_rtt"), BLUE, SOLID),
                ("shortest", series.of("min_rtt"), GREEN, DOTTED),
            ],
        ),
        (
            "queue delay, ms",
            [
                ("to the peer", series.of("queue_delay"), BLUE, SOLID),
                ("way back", series.of("receive_queue_delay"), GREEN, DOTTED),
                ("target", series.of("target_delay"), RED, DASHED),
            ],
        ),
    ]
    with matplotlib.rc_context({**STYLE, "lines.linewidth": 1.3}):
        heights = [3] * len(panels) + [1]
        figure, all_axes = pyplot.subplots(
            len(heights), 1, sharex=True, figsize=SIZE_INCHES, gridspec_kw={"height_ratios": heights}
        )
        for axes, (label, lines) in zip(all_axes, panels, strict=False):
            for name, points, colour, dashes in lines:
                if any(value for _, value in points):
                    # A rate is that of a while, anything else holds until it changes.
                    steps = "default" if label.startswith("goodput") else "steps-post"
                    times, values = zip(*thinned(points), strict=True)
                    axes.plot(times, values, color=colour, linestyle=dashes, drawstyle=steps, label=name)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
            if axes.lines:
                axes.legend(frameon=False, loc="lower right", ncols=3, bbox_to_anchor=(1, 0.97), borderaxespad=0)
        axes = all_axes[-1]
        for height, moments, colour in ((1, series.lost_seconds, RED), (0, series.resent_seconds, ORANGE)):
            axes.eventplot(moments, lineoffsets=height, linelengths=0.7, linewidths=0.9, colors=colour)
        axes.set_yticks([0, 1], [f"sent again: {len(series.resent_seconds)}", f"lost: {len(series.lost_seconds)}"])
        axes.set_ylim(-0.6, 1.6)
        axes.set_xlabel("time, s")
        for axes in all_axes:
            axes.grid(True, axis="both" if axes is not all_axes[-1] else "x")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlim(series.begun_seconds, max(series.ended_seconds, (series.begun_seconds or 0) + 1e-3))
        figure.suptitle(f"{title}: {series.name.partition(' ')[2] or series.name}", x=0.02, ha="left", fontsize=11)
        figure.align_ylabels(all_axes[:-1])
        figure.tight_layout()
        metadata = {"Date": None, "Title": title} if file.suffix == ".svg" else None
        figure.savefig(file, transparent=True, dpi=DOTS_PER_INCH, metadata=metadata)
        pyplot.close(figure)
