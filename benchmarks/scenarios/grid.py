"""A grid of paths: rate, round trip and queue of every size, paths that lose packets, policers, small receive buffers.

``catalogue.py`` takes it over.  No cell is about a controller's aim: what is looked at is that none of them fails where
its author was not looking.
"""

from __future__ import annotations

from benchmarks.scenarios.definitions import Flow, Path, Queue, Scenario
from benchmarks.scenarios.paths import PACKET_BYTES

RATES_MEGABITS = (8, 80, 800)
ROUND_TRIPS_MS = (0.1, 1, 10, 100)
QUEUES_MS = (0.1, 1, 10)
LOSSES_PERCENT = (1, 5, 10)
BUFFERS_KILOBYTES = (64, 128, 212, 425)

# A queue holds as much as this, however slow the link is.
LEAST_PACKETS = 3

# A transfer lasts long enough for its start to matter little, and short enough for a simulator.
SECONDS = 4
LARGEST_BYTES = 24_000_000
LARGEST_WINDOW_BYTES = 1_300_000
LONGEST_SECONDS = 120


def transfer_bytes(megabits: float, round_trip_ms: float, loss: float = 0.0) -> int:
    """What is sent over a path: less where losses keep every controller slow."""
    bytes_per_second = min(megabits * 125_000, LARGEST_WINDOW_BYTES / (round_trip_ms + 0.1) * 1_000)
    return int(min(SECONDS * bytes_per_second, LARGEST_BYTES) / (1 + 20 * loss))


def cell(name: str, megabits: float, round_trip_ms: float, queue: Queue, loss: float = 0.0) -> Scenario:
    """One transfer over one path."""
    rate = queue.megabits or megabits
    return Scenario(
        f"grid-{name}-{rate:g}M-{round_trip_ms:g}ms",
        "grid",
        Path(megabits, round_trip_ms / 2, queue, loss=loss),
        (Flow(transfer_bytes=transfer_bytes(rate, round_trip_ms, loss)),),
        LONGEST_SECONDS,
        cells=("goodput", "resent"),
    )


def drop_tail(megabits: float, queue_ms: float) -> Queue:
    """A queue of so many milliseconds."""
    return Queue(packets=max(int(megabits * 125 * queue_ms / PACKET_BYTES), LEAST_PACKETS))


CELLS: list[Scenario] = [
    *(
        cell(f"queue{queue_ms:g}", megabits, round_trip_ms, drop_tail(megabits, queue_ms))
        for queue_ms in QUEUES_MS
        for megabits in RATES_MEGABITS
        for round_trip_ms in ROUND_TRIPS_MS
    ),
    *(
        cell(f"loss{percent}%", megabits, round_trip_ms, drop_tail(megabits, 1), percent / 100)
        for percent in LOSSES_PERCENT
        for megabits in RATES_MEGABITS
        for round_trip_ms in ROUND_TRIPS_MS
    ),
    *(
        cell("policer", 10 * megabits, round_trip_ms, Queue("policer", megabits=megabits))
        for megabits in RATES_MEGABITS
        for round_trip_ms in ROUND_TRIPS_MS
    ),
    *(cell(f"buffer{kilobytes}", 800, 0.2, Queue(kilobytes=kilobytes)) for kilobytes in BUFFERS_KILOBYTES),
]
