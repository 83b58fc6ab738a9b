"""From the description of a path to links between two hosts.  ``running.py`` calls it."""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.scenarios.definitions import Path, Queue
from benchmarks.scenarios.queues import RED, BurstLoss, CoDel, DropTail, FQCoDel, Policer
from benchmarks.scenarios.tcp import HEADER_BYTES, SEGMENT_BYTES
from txutp.core.units import SECOND_US
from txutp.testing import Discipline, Link, Network

SENDER = "10.0.0.1"
RECEIVER = "10.0.0.2"

PACKET_BYTES = SEGMENT_BYTES + HEADER_BYTES
POLICER_BUCKET_BYTES = 64 * 1024

# The receiver's clock shows something else altogether.
CLOCK_OFFSET_US = 1_234_500_000


def bytes_per_second(megabits: float) -> float:
    return megabits * SECOND_US / 8


def microseconds(milliseconds: float) -> int:
    return round(milliseconds * 1_000)


def _drop_tail(queue: Queue, rate: float, chance: random.Random) -> Discipline:
    return DropTail(queue.packets, None if queue.kilobytes is None else queue.kilobytes * 1024)


def _red(queue: Queue, rate: float, chance: random.Random) -> Discipline:
    return RED(chance, PACKET_BYTES / rate * SECOND_US, limit_packets=queue.packets or 500)


QUEUES: dict[str, Callable[[Queue, float, random.Random], Discipline]] = {
    "drop-tail": _drop_tail,
    "red": _red,
    "codel": lambda queue, rate, chance: CoDel(),
    "fq-codel": lambda queue, rate, chance: FQCoDel(),
    "policer": lambda queue, rate, chance: Policer(bytes_per_second(queue.megabits), POLICER_BUCKET_BYTES),
}


def lay(path: Path, network: Network) -> Link:
    """Put the path into the network, changes included; gives the link that is its bottleneck."""
    rate = bytes_per_second(path.megabits)
    bursts = BurstLoss(_chance(network, "bursts"), path.loss, path.burst_packets) if path.burst_packets else None
    link = Link(
        delay_us=microseconds(path.delay_ms),
        rate_bytes_per_second=rate,
        discipline=QUEUES[path.queue.kind](path.queue, rate, _chance(network, "queue")),
        jitter_us=microseconds(path.jitter_ms),
        keep_order=path.jitter_keeps_order,
        gate_us=microseconds(path.gate_ms),
        loss=0.0 if bursts else path.loss,
        loses=bursts,
        reorder=path.reorder,
        duplicate=path.duplicate,
        # a datagram's own bytes are all that counts, for both protocols
        header_bytes=0,
    )
    back_rate = bytes_per_second(path.back_megabits)
    back = Link(
        delay_us=microseconds(path.delay_ms),
        rate_bytes_per_second=back_rate,
        discipline=QUEUES[path.back_queue.kind](path.back_queue, back_rate, _chance(network, "back"))
        if back_rate
        else None,
        loss=0.0 if bursts else path.loss,
        reorder=path.reorder,
        header_bytes=0,
    )
    network.connect(SENDER, RECEIVER, link, back)
    network.reactor(RECEIVER, CLOCK_OFFSET_US, path.drift_ppm)

    for change in path.changes:

        def apply(megabits: float | None = change.megabits, delay_ms: float | None = change.delay_ms) -> None:
            if megabits is not None:
                link.rate_bytes_per_second = bytes_per_second(megabits)
            if delay_ms is not None:
                link.delay_us = microseconds(delay_ms)

        network.call_at(round(change.at_s * SECOND_US), apply)
    return link


def _chance(network: Network, what: str) -> random.Random:
    """Random numbers for one purpose, so that one more user of chance does not change the others."""
    return random.Random(f"{network.seed}/{what}")
