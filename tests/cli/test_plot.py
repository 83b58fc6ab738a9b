"""``txutp plot``: what it draws, from what, and what it says where there is nothing to draw."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner, Result

from tests.shell.test_qlog import transfer
from txutp.cli import plot as plot_command
from txutp.cli.measurement.plot import INK
from txutp.cli.output import EXIT_UNREADABLE
from txutp.cli.plot import BINS, BLUE, GREEN, ORANGE, RED, Series, draw, series_of, thinned
from txutp.qlog.files import read_qlog

pytest.importorskip("matplotlib")

PAPER, DARK = "#ffffff", "#0d1117"


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("plot")
    transfer(directory)
    return directory / "client.qlog"


def run(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(plot_command, arguments)


def series(trace: Path) -> Series:
    [only] = series_of(read_qlog(trace)[1])
    return only


def test_a_picture_has_a_panel_for_each_figure(trace: Path) -> None:
    """The command writes SVG beside the trace, with text as text; the numbers of losses are those of the trace."""
    done = run(str(trace))

    assert done.exit_code == 0
    picture = trace.with_suffix(".svg")
    assert done.output == f"txutp: Written to {picture}.\n"
    text = " ".join(ElementTree.parse(picture).getroot().itertext())
    for words in ("goodput, Mbit/s", "window, KB", "round trip, ms", "queue delay, ms", "time, s", "target"):
        assert words in text
    found = series(trace)
    assert f"lost: {len(found.lost_seconds)}" in text
    assert f"sent again: {len(found.resent_seconds)}" in text
    assert len(found.lost_seconds) > 3


def test_the_same_trace_gives_the_same_picture(trace: Path, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        draw(series(trace), "title", tmp_path / name)

    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_other_formats(trace: Path, tmp_path: Path) -> None:
    """By the suffix of the file; one that matplotlib does not know is wrong usage."""
    assert run(str(trace), "-o", str(tmp_path / "x.png")).exit_code == 0
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    wrong = run(str(trace), "-o", str(tmp_path / "x.docx"))
    assert wrong.exit_code == 2
    assert "cannot be written" in wrong.output


def luminance(colour: str) -> float:
    """Returns the relative luminance of WCAG 2."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colour", [INK, BLUE, ORANGE, GREEN, RED])
def test_inks_are_legible_on_paper_and_on_a_dark_page(colour: str) -> None:
    """A contrast of 4 or so to both."""
    for ground in (PAPER, DARK):
        bright, dark = sorted((luminance(colour), luminance(ground)), reverse=True)
        assert (bright + 0.05) / (dark + 0.05) > 3.9


def test_the_picture_uses_no_other_ink(trace: Path, tmp_path: Path) -> None:
    """Black would vanish on a dark page, and a white ground hides it."""
    draw(series(trace), "title", tmp_path / "x.svg")

    used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", (tmp_path / "x.svg").read_text(encoding="utf-8")))
    assert used <= {INK, BLUE, ORANGE, GREEN, RED}


def test_goodput_adds_up(trace: Path) -> None:
    """The area below the line is what was acknowledged."""
    found = series(trace)
    rates = found.goodput("bytes_acked")

    width = rates[1][0] - rates[0][0]
    assert sum(rate * width for _, rate in rates) * 1e6 / 8 == pytest.approx(
        found.metrics["bytes_acked"][-1][1], rel=0.01
    )


def test_long_lines_are_thinned_and_keep_their_peaks() -> None:
    points = [(number / 100, float(number % 7)) for number in range(100_000)]
    points[54_321] = (543.21, 99.0)

    kept = thinned(points)

    assert len(kept) <= 3 * (BINS + 1)
    assert (543.21, 99.0) in kept
    assert kept == sorted(kept)
    assert thinned(points[:100]) == points[:100]


def test_one_of_several_connections(trace: Path, tmp_path: Path) -> None:
    """The one that moved most, or the one with a number."""
    other = tmp_path / "two.qlog"
    text = trace.read_bytes()
    header, *records = text.split(b"\x1e")[1:]
    renamed = [record.replace(b'"group_id":"1 ', b'"group_id":"2 ') for record in records[: len(records) // 2]]
    other.write_bytes(b"".join(b"\x1e" + record for record in [header, *renamed, *records]))

    done = run(str(other), "-o", str(tmp_path / "x.svg"))
    assert done.exit_code == 0
    assert "has 2 connections; this is number 2, with 1 10.0.0.1:6881." in done.output
    assert run(str(other), "-c", "1", "-o", str(tmp_path / "y.svg")).exit_code == 0
    assert (tmp_path / "x.svg").read_bytes() != (tmp_path / "y.svg").read_bytes()
    none = run(str(other), "-c", "3")
    assert none.exit_code == 2
    assert "has 2 connections, and none with the number 3" in none.output


def test_what_is_no_trace_is_told(trace: Path, tmp_path: Path) -> None:
    """Another file, one without events, and one that is of QUIC or has gaps: no traceback."""
    header = trace.read_bytes().split(b"\x1e")[1]
    for name, content in (("text", b"This is text."), ("empty", b""), ("header", b"\x1e" + header)):
        (tmp_path / name).write_bytes(content)
        done = run(str(tmp_path / name))
        assert done.exit_code == EXIT_UNREADABLE
    strange = (
        b'\x1e{"time":1,"name":"a:b","data":{}}\n\x1e{"time":"x","name":"a:b","data":{}}\n\x1e{"name":3,"data":{}}\n'
    )
    strange += b'\x1e{"time":2,"name":"recovery:metrics_updated","data":{"congestion_window":null,"min_rtt":"x"}}\n'
    (tmp_path / "strange").write_bytes(b"\x1e" + header + strange)
    done = run(str(tmp_path / "strange"), "-o", str(tmp_path / "x.svg"))
    assert done.exit_code == 0, done.output


def test_without_matplotlib_it_says_what_is_missing(trace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    done = run(str(trace))

    assert done.exit_code == 2
    assert 'pip install "txutp[plot]"' in done.output
