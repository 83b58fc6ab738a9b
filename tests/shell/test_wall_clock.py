"""A host whose wall clock is set: timers of Twisted's reactors come early or late, and no stream minds."""

from __future__ import annotations

import pytest

from tests.support import CLIENT, SERVER, Pair
from txutp.testing import Link, Network


@pytest.mark.parametrize(("step", "rings_at"), [(7.0, 3.0), (60.0, 1.0), (-5.0, 15.0)])
def test_a_call_under_way_follows_the_wall_clock(step: float, rings_at: float) -> None:
    network = Network()
    reactor = network.reactor(CLIENT)
    rung: list[float] = []
    call = reactor.callLater(10, lambda: rung.append(network.now_us / 1_000_000))
    network.run(1)
    monotonic_us, seconds = reactor.monotonic_us(), reactor.seconds()

    reactor.set_wall_clock(step)

    assert reactor.seconds() == seconds + step
    assert reactor.monotonic_us() == monotonic_us
    assert call.active()
    network.run(100)
    assert rung == [rings_at]


@pytest.mark.parametrize("step", [3_600.0, 0.2, -0.2, -3.0])
def test_a_stream_goes_on_when_the_wall_clock_is_set(step: float) -> None:
    pair = Pair(Link(delay_us=20_000, loss=0.05, rate_bytes_per_second=250_000))
    data = bytes(range(250)) * 2_000
    pair.client.transport.write(data)
    for host in (CLIENT, SERVER):
        pair.run(0.3)
        pair.network.reactor(host).set_wall_clock(step)

    assert pair.run(60, until=lambda: len(pair.server.received) == len(data)), pair.network
    assert pair.server.received == data
