"""Many busy streams at once between two processes: what they get together, and how evenly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import LABELS, end
from benchmarks.processes import Worker
from benchmarks.scenarios.measure import jain

KINDS = ("utp", "tcp")

# After so much of the time that is measured, the streams have found their pace.
WARM_UP_SHARE = 0.5


def watch(sender: Worker, receiver: Worker, seconds: float) -> Values:
    """Let streams that are connected send, and look at them for a while."""
    sender.ask()
    time.sleep(seconds * WARM_UP_SHARE)
    sent_before, before = sender.ask(), receiver.ask()
    time.sleep(seconds)
    sent_after, after = sender.ask(), receiver.ask()
    earlier = before["received_bytes"] + [0] * (len(after["received_bytes"]) - len(before["received_bytes"]))
    streams = [late - early for late, early in zip(after["received_bytes"], earlier, strict=True)]
    gigabytes = max(sum(streams), 1) / 1e9
    values = {name: sent_after[name] - sent_before[name] for name in ("timeouts",) if name in sent_after}
    if "packets_sent" in sent_after:
        packets, again = (sent_after[name] - sent_before[name] for name in ("packets_sent", "packets_sent_again"))
        values["sent_again_percent"] = 100 * again / max(packets, 1)
    return values | {
        "megabytes_per_second": sum(streams) / 1e6 / (after["at_seconds"] - before["at_seconds"]),
        "jain": jain(streams),
        "sender_cpu_seconds_per_gigabyte": (sent_after["cpu_seconds"] - sent_before["cpu_seconds"]) / gigabytes,
        "receiver_cpu_seconds_per_gigabyte": (after["cpu_seconds"] - before["cpu_seconds"]) / gigabytes,
    }


def crowd(network: Network, kind: str, streams: int, seconds: float, code: Path) -> Values:
    """Measure so many streams."""
    with end(kind, "crowd", "receive", network.receiver, code, connections=streams) as receiver:
        to = {"host": network.receiver.address, "port": receiver.line()["port"]}
        with end(kind, "crowd", "send", network.sender, code, **to, connections=streams) as sender:
            sender.line()
            return watch(sender, receiver, seconds)


def row(network: Network, kind: str, streams: int, seconds: float) -> Row:
    return Row(
        name=str(streams),
        label=f"{LABELS[kind]}, {streams} stream{'s' if streams > 1 else ''}",
        measure=lambda code: crowd(network, kind, streams, seconds, code),
        group=kind,
        ours=kind == "utp",
    )


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    yield [row(network, kind, streams, sizes.crowd_seconds) for kind in KINDS for streams in (1, *sizes.crowds)]


PART = Part(
    "crowds",
    "Busy streams at once between two processes, over loopback",
    (
        Column("MB/s together", "megabytes_per_second", drawn=True),
        Column("of what one stream gets", "megabytes_per_second", against="1"),
        Column("fairness (Jain)", "jain", drawn=True),
        Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte"),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte"),
        Column("% sent again", "sent_again_percent"),
        Column("timeouts", "timeouts"),
    ),
    opened,
)
