"""A message there and back, again and again: how long it takes when nothing else is going on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import LABELS, end, why_not

KINDS = ("utp", "tcp", "utp-native")
MESSAGES_BYTES = (1, 1000)


def play(network: Network, kind: str, message_bytes: int, count: int, code: Path) -> Values:
    """Measure one connection."""
    with end(kind, "echo", "serve", network.receiver, code) as server:
        to = {"host": network.receiver.address, "port": server.line()["port"]}
        with end(kind, "pingpong", "play", network.sender, code, **to, bytes=message_bytes, count=count) as player:
            return player.line()


def row(network: Network, kind: str, message_bytes: int, count: int) -> Row:
    return Row(
        name=kind,
        label=f"{message_bytes} byte{'s' if message_bytes > 1 else ''}, {LABELS[kind]}",
        measure=lambda code: play(network, kind, message_bytes, count, code),
        group=str(message_bytes),
        why_not=why_not(kind),
        ours=kind == "utp",
    )


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    yield [row(network, kind, message_bytes, sizes.messages) for message_bytes in MESSAGES_BYTES for kind in KINDS]


PART = Part(
    "pingpong",
    "A message there and back over loopback, microseconds",
    (
        Column("median", "p50_us", drawn=True),
        Column("99th percentile", "p99_us", drawn=True),
        Column("median, times Twisted TCP", "p50_us", against="tcp"),
        Column("median, times utp-native", "p50_us", against="utp-native"),
    ),
    opened,
)
