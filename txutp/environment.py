"""The sources of time and randomness.

A reactor schedules calls, but its clock may step (``time.time``), and delays are measured in microseconds.  So txutp
asks the operating system, unless the reactor is a source itself, as the simulated one of ``txutp.testing`` is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from time import get_clock_info, monotonic_ns, perf_counter_ns

from zope.interface import Interface, implementer


class IEnvironment(Interface):
    """A source of time and randomness; a reactor may provide it."""

    def monotonic_us() -> int:
        """Returns the microseconds of a clock that never steps."""

    def random_bytes(count: int) -> bytes:
        """Returns ``count`` unpredictable bytes."""


# Resolution in seconds above which a clock is coarse; `time.monotonic` on Windows before Python 3.13 has 15.6 ms.
COARSE_SECONDS = 0.000_1


def finest_clock_ns() -> Callable[[], int]:
    """Returns the monotonic clock of this platform with the smallest ticks."""
    return perf_counter_ns if get_clock_info("monotonic").resolution > COARSE_SECONDS else monotonic_ns


@implementer(IEnvironment)
class OperatingSystem:
    """The finest monotonic clock and the random numbers of the operating system."""

    def __init__(self) -> None:
        self._clock_ns = finest_clock_ns()

    def monotonic_us(self) -> int:
        return self._clock_ns() // 1_000

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


OPERATING_SYSTEM = OperatingSystem()


def environment_of(reactor: object) -> IEnvironment:
    """Returns the reactor if it is a source itself, else the operating system."""
    if IEnvironment.providedBy(reactor):
        return reactor
    return OPERATING_SYSTEM
