"""One stream on a short path that loses one packet of a hundred: what losses cost beside the congestion window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.network import Routed, why_no_namespaces
from benchmarks.parts import Column, Part, Row, Sizes
from benchmarks.transfers import row

ONE_OF = 100

# Which part of the bytes each gets, so that all take about as long.
SHARES = {"utp": 1.0, "utp-native": 1 / 8, "tcp": 1.0}


def why_not() -> str:
    """Needs namespaces, and a kernel whose ``tc`` can drop by chance."""
    reason = why_no_namespaces()
    if not reason:
        try:
            with Routed() as network:
                network.lose(ONE_OF)
        except RuntimeError as problem:
            reason = f"this kernel cannot lose packets: {problem}"
    return reason


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    with Routed() as network:
        network.lose(ONE_OF)
        yield [row(network, kind, kind, int(share * sizes.loss_bytes)) for kind, share in SHARES.items()]


PART = Part(
    "loss",
    f"One stream through a router that loses one packet of {ONE_OF}, by chance (no delay; TCP with CUBIC)",
    (
        Column("MB/s", "megabytes_per_second", drawn=True),
        Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte"),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte"),
        Column("times utp-native", "megabytes_per_second", against="utp-native"),
        Column("times Twisted TCP", "megabytes_per_second", against="tcp"),
        Column("% sent again", "sent_again_percent"),
        Column("timeouts", "timeouts"),
    ),
    opened,
    why_not,
)
