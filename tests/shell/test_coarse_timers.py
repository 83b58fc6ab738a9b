"""A system whose timers ring at ticks of 15.6 ms, as those of Windows, or of 1 ms: rate and queue stay what they were.

The clock is exact: ``txutp.environment`` measures with the finest one of the platform.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from tests.support import Pair
from txutp.testing import Link

WARM_UP_SECONDS = 2.0
MEASURED_SECONDS = 3.0


class Endless:
    """A producer that always has more."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def resumeProducing(self) -> None:
        self._transport.write(bytes(65_536))

    def stopProducing(self) -> None:
        """There is nothing to stop."""


@lru_cache
def rate_and_queue(megabits: int, tick_us: int) -> tuple[float, float]:
    """The share of the rate that one stream takes, and the mean wait of its packets in milliseconds."""
    rate = megabits * 125_000
    link = Link(delay_us=10_000, rate_bytes_per_second=rate, queue_bytes=rate // 5)
    back = Link(delay_us=10_000, rate_bytes_per_second=rate)
    # The ticks of the two hosts do not come together.
    pair = Pair(link, back, timer_tick_us=tick_us, client_offset_us=7_919)
    pair.client.transport.registerProducer(Endless(pair.client.transport), False)
    pair.run(WARM_UP_SECONDS)
    before = len(pair.server.received)
    waits: list[float] = []
    for _ in range(round(MEASURED_SECONDS / 0.02)):
        pair.run(0.02)
        waits.append(link.queue_delay_us / 1_000)
    received = len(pair.server.received) - before
    return received / MEASURED_SECONDS / rate, sum(waits) / len(waits)


@pytest.mark.parametrize("tick_us", [1_000, 15_625])
@pytest.mark.parametrize("megabits", [10, 50, 100])
def test_late_timers_cost_neither_rate_nor_delay(megabits: int, tick_us: int) -> None:
    exact_rate, exact_wait = rate_and_queue(megabits, 1)
    assert exact_rate > 0.8

    rate, wait = rate_and_queue(megabits, tick_us)

    assert rate > 0.9 * exact_rate
    assert wait < exact_wait + 10
