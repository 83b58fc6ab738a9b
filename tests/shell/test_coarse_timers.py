"""A system whose timers ring at ticks of 15.6 ms, as those of Windows, or of 1 ms: rate and queue stay what they were.

The clock is exact: ``txutp.environment`` measures with the finest one of the platform.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest

from tests.support import CLIENT, SERVER, Pair
from txutp.testing import Link, SimulatedReactor

WARM_UP_SECONDS = 2.0
MEASURED_SECONDS = 3.0


def make_timers_coarse(reactor: SimulatedReactor, tick_us: int, phase_us: int) -> None:
    """Calls of this reactor come at the next tick; those without delay in the next turn."""
    exact = reactor.callLater

    def coarse(delay: float, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        now_us = reactor.network.now_us + phase_us
        if delay:
            delay = (-(-(now_us + delay * 1_000_000) // tick_us) * tick_us - now_us) / 1_000_000
        return exact(delay, function, *arguments, **keywords)

    reactor.callLater = coarse  # type: ignore[method-assign]


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
    pair = Pair(link, back=Link(delay_us=10_000, rate_bytes_per_second=rate))
    if tick_us:
        for number, host in enumerate((CLIENT, SERVER)):
            make_timers_coarse(pair.network.reactor(host), tick_us, number * 7_919)
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
    exact_rate, exact_wait = rate_and_queue(megabits, 0)
    assert exact_rate > 0.8

    rate, wait = rate_and_queue(megabits, tick_us)

    assert rate > 0.9 * exact_rate
    assert wait < exact_wait + 10
