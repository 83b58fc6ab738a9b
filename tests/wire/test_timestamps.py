"""Clocks and what peers say of them: none of it stalls a flow, and none makes it fill the queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import pack_into, unpack_from

import pytest

from tests.support import Pair
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow
from txutp.core.packet import HEADER_BYTES
from txutp.testing import Datagram, Link

RATE = 625_000  # bytes per second: 5 Mbit/s
DIFFERENCE_OFFSET = 8  # of the field in the header
SECOND_US = 1_000_000
WRAP_US = 1 << 32


def answers(change: Callable[[int, int], int]) -> Callable[[Datagram], None]:
    """A hook that changes the timestamp difference in each packet; it gets the number of the packet, too."""
    count = 0

    def hook(datagram: Datagram) -> None:
        nonlocal count
        if len(datagram.data) >= HEADER_BYTES:
            data = bytearray(datagram.data)
            (difference_us,) = unpack_from(">I", data, DIFFERENCE_OFFSET)
            pack_into(">I", data, DIFFERENCE_OFFSET, change(difference_us, count) & 0xFFFFFFFF)
            datagram.data = bytes(data)
            count += 1

    return hook


def steady(pair: Pair) -> tuple[float, int]:
    """Use of the link and median queue delay in the seconds after the start."""
    pair.client.transport.write(bytes(20_000_000))
    pair.run(5)
    before = len(pair.server.received)
    queues = []
    for _ in range(50):
        pair.run(0.1)
        queues.append(pair.up.queue_delay_us)
    return (len(pair.server.received) - before) / RATE / 5, sorted(queues)[25]


def pair_with(controller: type, change: Callable[[int, int], int] | None = None, **options: object) -> Pair:
    link = Link(delay_us=20_000, rate_bytes_per_second=RATE, queue_bytes=400_000)
    settings = Settings(congestion=controller, receive_buffer_bytes=4 << 20, receive_target_delay_us=None)
    pair = Pair(link, Link(delay_us=20_000), settings=settings, **options)  # type: ignore[arg-type]
    if change is not None:
        pair.down.hook = answers(change)
    return pair


@lru_cache
def reference(controller: type) -> tuple[float, int]:
    """What it does with clocks that agree."""
    return steady(pair_with(controller))


PEERS: dict[str, Callable[[int, int], int]] = {
    "says the same always, because clocks differ by more than a minute": lambda difference, number: SECOND_US,
    "never took a sample": lambda difference, number: 0,
    "says so as an old client did": lambda difference, number: 0x7FFFFFFF,
    "answers late and counts the time it held the answer": lambda difference, number: (
        difference + number * 7_919 % 40_000
    ),
    "has a clock of milliseconds": lambda difference, number: difference // 1_000 * 1_000,
    "has a clock of the system that jumps by an hour": lambda difference, number: (
        difference + (3_600 * SECOND_US if number > 3_000 else 0)
    ),
}


@pytest.mark.parametrize("peer", PEERS)
def test_shallow_needs_no_help_from_the_peer(peer: str) -> None:
    """Its second signal, our own round trips, keeps the queue short; and nothing is lost by a bad first one."""
    use, queue_us = steady(pair_with(Shallow, PEERS[peer]))
    assert use > 0.85
    assert queue_us < 25_000


@pytest.mark.parametrize("peer", PEERS)
def test_ledbat_plus_plus_does_not_look_at_what_the_peer_says(peer: str) -> None:
    use, queue_us = steady(pair_with(LedbatPlusPlus, PEERS[peer]))
    assert use > 0.8
    assert 30_000 < queue_us < 80_000


@pytest.mark.parametrize("peer", PEERS)
def test_classic_ledbat_lives_with_poor_samples(peer: str) -> None:
    """It looks at timestamps alone as long as they say something, and at our own round trips if they do not."""
    use, queue_us = steady(pair_with(Ledbat, PEERS[peer]))
    assert use > 0.85
    assert queue_us < 150_000


@pytest.mark.parametrize("controller", [Shallow, LedbatPlusPlus, Ledbat])
@pytest.mark.parametrize(
    "offset_us",
    [-20_000, WRAP_US // 2 - 7 * SECOND_US, WRAP_US - 7 * SECOND_US, 1_000_000_007 * SECOND_US],
)
def test_clocks_may_be_apart_and_may_wrap_on_the_way(controller: type, offset_us: int) -> None:
    """Both timestamps and the difference wrap at 2**32 microseconds, some of them in the middle of this."""
    use, queue_us = steady(pair_with(controller, client_offset_us=offset_us))
    reference_use, reference_us = reference(controller)
    assert use == pytest.approx(reference_use, abs=0.03)
    assert queue_us == pytest.approx(reference_us, abs=4_000)


@pytest.mark.parametrize("drift_ppm", [-200, 200])
def test_drifting_clocks_do_not_move_the_queue(drift_ppm: float) -> None:
    use, queue_us = steady(pair_with(Shallow, client_drift_ppm=drift_ppm))
    assert use > 0.9
    assert queue_us < 12_000
