"""A short run of ``python -m tests.soak``; docs/explanation/security.md tells what a long one came to."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import PERIOD_BYTES, Pattern

ROOT = Path(__file__).resolve().parent.parent.parent


def test_a_pattern_is_the_same_in_any_pieces() -> None:
    whole = Pattern(7).next(3 * PERIOD_BYTES)
    pieces = Pattern(7)
    assert b"".join(pieces.next(size) for size in (1, PERIOD_BYTES - 1, 5, 2 * PERIOD_BYTES - 5)) == whole
    assert Pattern(8).next(100) != whole[:100]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells whom an ICMP error is about.")
def test_a_few_seconds_of_it() -> None:
    """One stop and no kill, or its report would come only when a keepalive has found the dead peer."""
    program = [sys.executable, "-m", "tests.soak", "--minutes", "0.08", "--connections", "20", "--every", "1"]
    done = subprocess.run([*program, "--no-kills"], cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^20 connections, .* [1-9]\d* stops of 3 s; .* 0 faults$", done.stdout, re.MULTILINE)
