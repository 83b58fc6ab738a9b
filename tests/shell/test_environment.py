"""Where time comes from."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from txutp import environment
from txutp.environment import OperatingSystem


@pytest.mark.parametrize(
    ("resolution", "clock"), [(0.015625, "perf_counter_ns"), (0.001, "perf_counter_ns"), (1e-9, "monotonic_ns")]
)
def test_the_finest_monotonic_clock_is_used(resolution: float, clock: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows before Python 3.13 that is not ``time.monotonic``."""
    monkeypatch.setattr(environment, "get_clock_info", lambda name: SimpleNamespace(resolution=resolution))
    monkeypatch.setattr(environment, "perf_counter_ns", lambda: 1_000_000)
    monkeypatch.setattr(environment, "monotonic_ns", lambda: 2_000_000)
    assert OperatingSystem().monotonic_us() == {"perf_counter_ns": 1_000, "monotonic_ns": 2_000}[clock]


def test_the_clock_in_use_has_ticks_below_a_tenth_of_a_millisecond() -> None:
    clock = OperatingSystem().monotonic_us
    seen: list[int] = []
    end = time.monotonic() + 10
    while len(seen) < 20 and time.monotonic() < end:
        now_us = clock()
        if not seen or now_us != seen[-1]:
            seen.append(now_us)
    assert seen == sorted(seen)
    assert min(later - sooner for later, sooner in zip(seen[1:], seen[:-1], strict=True)) < 100
