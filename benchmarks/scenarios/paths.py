"""From the description of a path to links between two hosts.  ``running.py`` calls it."""

from __future__ import annotations

import random
from collections.abc import Callable

from benchmarks.scenarios.definitions import Change, Path, Pause, Queue
from benchmarks.scenarios.queues import RED, BurstLoss, CoDel, DropTail, FQCoDel, Policer
from benchmarks.scenarios.tcp import HEADER_BYTES, SEGMENT_BYTES
from txutp.core.units import SECOND_US
from txutp.testing import (
    HARQ,
    Discipline,
    Grants,
    Link,
    Network,
    Outage,
    Service,
    Stage,
    ThinnedAcks,
    Trace,
    Turns,
)

SENDER = "10.0.0.1"
RECEIVER = "10.0.0.2"
RECEIVER_ELSEWHERE = "10.0.1.2"

# The clock of each further sender is ahead by up to so much, so that hosts do not make room at the same moments.
LARGEST_SENDER_OFFSET_US = 10 * SECOND_US

PACKET_BYTES = SEGMENT_BYTES + HEADER_BYTES
POLICER_BUCKET_BYTES = 64 * 1024

# A trace is so long before it begins anew.
TRACE_SECONDS = 120

# The receiver's clock shows something else altogether.
CLOCK_OFFSET_US = 1_234_500_000


# The radio of a Wi-Fi while it sends.
TURN_RATE = 130 * SECOND_US / 8


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


def sender(host: int) -> str:
    """The address of a sending host."""
    return SENDER if not host else f"10.0.2.{host}"


def lay(path: Path, network: Network, receiver: str = RECEIVER, hosts: int = 1) -> Link:
    """Put the path into the network, changes included, for so many senders; returns the link that is its bottleneck."""
    rate = bytes_per_second(path.megabits)
    bursts = BurstLoss(_chance(network, "bursts"), path.loss, path.burst_packets) if path.burst_packets else None
    link = Link(
        delay_us=microseconds(path.delay_ms),
        rate_bytes_per_second=rate,
        discipline=QUEUES[path.queue.kind](path.queue, rate, _chance(network, "queue")),
        service=_service(path, network),
        behind=[*_outages(path.pauses, there=True), *_harq(path, network)],
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
        behind=[*_outages(path.pauses, there=False), *_thinned(path)],
        gate_us=0 if path.acks_thinned else microseconds(path.acks_every_ms),
        header_bytes=0,
    )
    offsets = _chance(network, "hosts")
    for host in range(hosts):
        network.connect(sender(host), receiver, link, back)
        if host:
            network.reactor(sender(host), offsets.randrange(LARGEST_SENDER_OFFSET_US))
    network.reactor(receiver, CLOCK_OFFSET_US, path.drift_ppm)

    for change in path.changes:

        def apply(change: Change = change) -> None:
            if change.megabits is not None:
                link.rate_bytes_per_second = bytes_per_second(change.megabits)
            if change.delay_ms is not None:
                link.delay_us = microseconds(change.delay_ms)
                if change.back:
                    back.delay_us = link.delay_us

        network.call_at(round(change.at_s * SECOND_US), apply)
    if path.shifts is not None:
        _shift(path, network, link, back)
    return link


def _service(path: Path, network: Network) -> Service | None:
    """What sends at the bottleneck instead of a constant rate."""
    if path.radio is not None:
        return Trace.generate(
            _chance(network, "radio"),
            TRACE_SECONDS,
            path.megabits,
            path.radio.volatility,
            path.radio.outages_per_minute,
            packet_bytes=PACKET_BYTES,
        )
    if path.turns_ms:
        return Turns(_chance(network, "turns"), microseconds(path.turns_ms), TURN_RATE)
    return Grants(bytes_per_second(path.megabits)) if path.grants else None


def turns_megabits(turns_ms: float) -> float:
    """What a Wi-Fi with such turns carries."""
    return Turns(random.Random(), microseconds(turns_ms), TURN_RATE).megabits(PACKET_BYTES)


def _outages(pauses: tuple[Pause, ...], there: bool) -> list[Stage]:
    return [
        Outage(round(pause.from_s * SECOND_US), round(pause.to_s * SECOND_US), pause.held)
        for pause in pauses
        if (pause.there if there else pause.back)
    ]


def _harq(path: Path, network: Network) -> list[Stage]:
    return [HARQ(_chance(network, "harq"), path.harq)] if path.harq else []


def _thinned(path: Path) -> list[Stage]:
    return [ThinnedAcks(microseconds(path.acks_every_ms))] if path.acks_thinned else []


def _shift(path: Path, network: Network, link: Link, back: Link) -> None:
    """Move both ways now and again."""
    assert path.shifts is not None
    chance = _chance(network, "shifts")
    half_ms = path.shifts.spread_ms / 2
    every_us = round(path.shifts.every_s * SECOND_US)

    def move() -> None:
        link.delay_us = back.delay_us = microseconds(path.delay_ms + chance.uniform(-half_ms, half_ms) / 2)
        network.call_at(network.now_us + every_us, move)

    network.call_at(every_us, move)


def _chance(network: Network, what: str) -> random.Random:
    """Random numbers for one purpose, so that one more user of chance does not change the others."""
    return random.Random(f"{network.seed}/{what}")
