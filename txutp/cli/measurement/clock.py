"""The clock of a measurement: it never steps, and is that of the simulation where the reactor is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txutp.environment import environment_of


def clock_of(reactor: Any) -> Callable[[], float]:
    """Returns a function that returns seconds."""
    monotonic_us = environment_of(reactor).monotonic_us
    return lambda: monotonic_us() / 1_000_000
