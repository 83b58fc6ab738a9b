"""Where time and randomness come from.

A reactor schedules, but its clock may step (``time.time``), and delays are measured in microseconds.  So txutp asks
the operating system, unless the reactor offers something better: the simulated one of ``txutp.testing`` does.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from zope.interface import Interface, implementer


class IEnvironment(Interface):
    """A source of time and randomness; a reactor may provide it."""

    def monotonic_us() -> int:
        """Microseconds of a clock that never steps."""

    def random_bytes(count: int) -> bytes:
        """``count`` bytes that nobody can guess."""


@implementer(IEnvironment)
class OperatingSystem:
    """The monotonic clock and the random numbers of the operating system."""

    def monotonic_us(self) -> int:
        return monotonic_ns() // 1_000

    def random_bytes(self, count: int) -> bytes:
        return os.urandom(count)


OPERATING_SYSTEM = OperatingSystem()


def environment_of(reactor: object) -> IEnvironment:
    """What this reactor offers, else the operating system."""
    if IEnvironment.providedBy(reactor):
        return reactor
    return OPERATING_SYSTEM
