"""How ``txutp perf`` shows numbers: in lines, in tables and in pictures."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from txutp.cli.measurement import plot
from txutp.cli.measurement.report import Lines, duration, scaled, seconds, summary_lines
from txutp.cli.measurement.results import CLIENT, SERVER, Interval, Summary, Total, direction_from

OUT, BACK = direction_from(CLIENT), direction_from(SERVER)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (999, "999"),
        (999.6, "1.00K"),
        (1_000, "1.00K"),
        (9_996, "10.0K"),
        (99_960, "100K"),
        (999_600, "1.00M"),
        (12_345_678, "12.3M"),
        (2_280_000_000, "2.28G"),
        (5e18, "5000P"),
    ],
)
def test_numbers_for_people(value: float | None, text: str) -> None:
    """Three digits and a unit, in five characters."""
    assert scaled(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"), (0.0, "0us"), (0.0991, "99us"), (0.0996, "0.1ms"), (9.94, "9.9ms"), (9.96, "10ms"),
        (250.0, "250ms"), (999.6, "1.00s"), (12_340.0, "12.3s"), (1_234_000.0, "1234s"),
    ],
)  # fmt: skip
def test_times_for_people(value: float | None, text: str) -> None:
    """As they are typed: ``250ms``."""
    assert duration(value) == text


def test_no_number_is_wider_than_its_column() -> None:
    """From nothing to the largest that can be."""
    values = [digits * 10.0**exponent for digits in (1, 9.94, 9.95, 9.994, 9.995, 9.9949) for exponent in range(-4, 17)]

    assert {len(scaled(value)) for value in values} <= set(range(1, 6))
    assert {len(duration(value)) for value in values if value < 9.9e6} <= set(range(1, 6))
    assert {len(seconds(value)) for value in values if value < 9_999} <= set(range(1, 6))


@pytest.mark.parametrize("both_directions", [False, True])
@pytest.mark.parametrize("width", [40, 71, 72, 80, 200])
def test_lines_are_aligned_and_fit(width: int, both_directions: bool) -> None:
    """Each cell ends where its header ends; nothing is wider than the terminal."""
    lines = Lines(width, both_directions, OUT)
    header = lines.header()
    for values in (
        (0, 0.0, 0, 0, 0.0, 0.0, 0.0),
        (10**12, 9.99e11, 9_990, 10**9, 999.0, 999.0, 999.0),
        (5, 5.0, *[None] * 5),
    ):
        line = lines.line(Interval(OUT, 998.0, 999.0, *values, omitted=False))
        assert len(line) <= width
        ends = {match.end() for match in re.finditer(r"\S+", line)} - (
            {line.index("out") + 3} if both_directions else set()
        )
        assert ends == {match.end() for match in re.finditer(r"\S+", header)}


def test_totals_fit_in_forty_columns() -> None:
    """Also those of many streams, with the largest numbers."""
    total = Total(10**12, 999.9, 9.99e11, 9_990)
    summary = Summary(OUT, total, total, 999.0, 999.0, 999.0, ((total, total),) * 128)

    lines = summary_lines([summary, summary])

    assert max(map(len, lines)) <= 40
    assert lines[1].index("retr") + 4 == len(lines[2])


def document(both_directions: bool = False) -> dict[str, Any]:
    """What ``-J`` prints, as far as a picture needs it."""
    names = [OUT, BACK] if both_directions else [OUT]
    numbers = {"bits_per_second": 5e6, "rtt_ms": 50.0, "queue_delay_ms": None, "reverse_queue_delay_ms": 1.0}
    return {
        "intervals": [
            {"direction": name, "start": float(start), "end": start + 1.0, "omitted": start == 0} | numbers
            for start in range(5)
            for name in names
        ]
    }


@pytest.mark.parametrize("both_directions", [False, True])
def test_a_picture_is_the_same_each_time(tmp_path: Path, both_directions: bool) -> None:
    """It is an SVG whose text is text, with both directions named."""
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        plot.draw(json.loads(json.dumps(document(both_directions))), tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    root = ElementTree.parse(tmp_path / "one.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = {"".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"goodput, Mbit/s", "round trip, ms", "queue delay, ms", "time, s", "client to server"} <= texts
    assert ("server to client" in texts) == both_directions


def test_nothing_to_draw(tmp_path: Path) -> None:
    """Another document is refused with a sentence."""
    pytest.importorskip("matplotlib")
    for other in ({}, [], {"intervals": []}, {"intervals": [{}]}, {"intervals": 3}):
        with pytest.raises(plot.NothingToDraw):
            plot.draw(other, tmp_path / "x.svg")  # type: ignore[arg-type]


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2)."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_inks_are_legible_on_white_and_on_dark_pages() -> None:
    """Each has a contrast of 4 at least to both, and lines of one panel differ in more than colour."""
    inks = [plot.INK, *(colour for _, colour, _ in plot.LINES.values()), plot.WAY_BACK["color"]]
    for ink in inks:
        for page in ("#ffffff", "#0d1117"):
            darker, lighter = sorted([luminance(ink), luminance(page)])
            assert (lighter + 0.05) / (darker + 0.05) >= 4, (ink, page)
    assert len({str(dashes) for _, _, dashes in plot.LINES.values()} | {str(plot.WAY_BACK["linestyle"])}) == 3
