"""Small things that all benchmarks share: about this machine, and how numbers become text."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import twisted
import txutp

ROOT = Path(__file__).resolve().parent.parent

# Benchmarks are not installed with txutp; they are run, and get what they need, in the checkout.
HOW_TO_INSTALL = 'Please run: pip install ".[benchmarks]"'


def machine() -> str:
    """Processor and kernel in a few words."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                processor = line.partition(":")[2].strip()
                break
    return f"{os.cpu_count()} cores of {processor}, {platform.system()} {platform.release()}"


def versions() -> str:
    """Python, Twisted and txutp."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, Twisted {twisted.__version__}, txutp {txutp.__version__}"


def figure(value: float, digits: int | None = None) -> str:
    """A number with so many digits behind the point; None: with those that are worth reading."""
    if digits is None:
        size = abs(value)
        digits = 0 if value == int(value) or size >= 100 else 1 if size >= 10 else 2
    return f"{value:.{digits}f}"


def spread(values: Sequence[float], digits: int | None = None) -> str:
    """Median, and the smallest and largest value if there are several."""
    median, *range_ = (figure(value, digits) for value in (statistics.median(values), min(values), max(values)))
    return median if len(values) == 1 else f"{median} [{'-'.join(range_)}]"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
