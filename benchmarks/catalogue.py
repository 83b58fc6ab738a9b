"""All parts, in the order in which they run."""

from __future__ import annotations

from fnmatch import fnmatch

from benchmarks import (
    buffers,
    commands,
    crowds,
    handshakes,
    hostile,
    idle,
    loss,
    pingpong,
    rates,
    stock,
    streams,
    workers,
)
from benchmarks.parts import Part

PARTS = {
    part.name: part
    for part in (
        streams.LOOPBACK,
        streams.VETH,
        rates.PART,
        loss.PART,
        buffers.LOOPBACK,
        buffers.VETH,
        stock.LOOPBACK,
        stock.VETH,
        handshakes.PART,
        pingpong.PART,
        crowds.PART,
        idle.BESIDE,
        idle.MEMORY,
        idle.CROWD,
        workers.STREAMS,
        workers.HANDSHAKES,
        workers.STEERING,
        commands.PART,
        hostile.BEFORE,
        hostile.AFTER,
    )
}


def chosen(patterns: tuple[str, ...]) -> list[Part]:
    """The parts whose names fit one of the patterns; all if there is none."""
    return [part for name, part in PARTS.items() if not patterns or any(fnmatch(name, each) for each in patterns)]
