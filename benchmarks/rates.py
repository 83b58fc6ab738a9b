"""One stream through a router with a rate: what is reached, and what it costs when packets come one by one.

Fast machines hide what a packet costs on a real path.  Here each packet wakes both ends, as over the internet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.network import QUEUE_MILLISECONDS, Routed, why_no_namespaces
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import LABELS
from benchmarks.transfers import row

KINDS = ("utp", "utp-native", "tcp")


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    with Routed() as network:
        rows = []
        for megabits in sizes.rates_megabits:
            total_bytes = int(megabits * 1e6 / 8 * sizes.rate_seconds)
            for kind in KINDS:
                label = f"{megabits} Mbit/s, {LABELS[kind]}"
                plain = row(network, kind, kind, total_bytes, label=label, group=str(megabits))
                rows.append(replace(plain, measure=limited(network, megabits, plain)))
        yield rows


def limited(network: Routed, megabits: int, plain: Row) -> Callable[[Path], Values]:
    """The measurement of a row at a rate."""

    def measure(code: Path) -> Values:
        network.limit(megabits)
        values = plain.measure(code)
        rate = values["megabytes_per_second"] * 8
        return values | {"megabits_per_second": rate, "percent_of_rate": 100 * rate / megabits}

    return measure


PART = Part(
    "rates",
    f"One stream through a router with a rate (tbf, {QUEUE_MILLISECONDS} ms of queue; TCP with CUBIC)",
    (
        Column("Mbit/s", "megabits_per_second"),
        Column("% of the rate", "percent_of_rate", drawn=True),
        Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte", drawn=True),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte", drawn=True),
        Column("CPU of both, times utp-native", "cpu_seconds_per_gigabyte", against="utp-native"),
        Column("datagrams per send call", "datagrams_per_send_call"),
        Column("% sent again", "sent_again_percent"),
    ),
    opened,
    why_no_namespaces,
)
