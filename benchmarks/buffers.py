"""What is left of the speed with the socket buffers of a kernel as it comes, and what gets lost then.

txutp asks for 4 MiB; Linux as it comes grants twice 212,992 bytes of its memory, and has 212,992 if nobody asks.  Its
limits cannot be changed without changing the whole machine, so the ends ask for less (``ends/transports.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks.network import Alone, Cable, Namespaces, why_no_namespaces
from benchmarks.parts import Column, Part, Row, Sizes
from benchmarks.peers import LABELS
from benchmarks.transfers import row

# Which part of the bytes each gets: libutp with small buffers waits most of the time.
SHARES = {
    ("utp", "large"): 1 / 2,
    ("utp", "stock"): 1 / 2,
    ("utp", "unasked"): 1 / 4,
    ("utp-native", "large"): 1 / 4,
    ("utp-native", "stock"): 1 / 16,
    ("utp-native", "unasked"): 1 / 32,
}
NAMES = {"large": "4 MiB asked for", "stock": "212,992 bytes asked for", "unasked": "not asked for"}


def opened(make: Callable[[], Namespaces]) -> Callable[[Sizes], AbstractContextManager[list[Row]]]:
    """The rows on a network that is made when they are measured."""

    @contextmanager
    def rows(sizes: Sizes) -> Iterator[list[Row]]:
        with make() as network:
            yield [
                row(
                    network,
                    kind,
                    kind,
                    int(share * sizes.stream_bytes),
                    label=f"{LABELS[kind]}, {NAMES[buffers]}",
                    name=buffers,
                    group=kind,
                    kernel_buffers=buffers,
                )
                for (kind, buffers), share in SHARES.items()
            ]

    return rows


COLUMNS = (
    Column("granted, bytes", "granted_receive_bytes"),
    Column("MB/s", "megabytes_per_second", drawn=True),
    Column("kept of large buffers", "megabytes_per_second", against="large"),
    Column("datagrams lost in the buffer", "dropped_datagrams", drawn=True),
    Column("% sent again", "sent_again_percent"),
    Column("timeouts", "timeouts"),
)
LOOPBACK = Part(
    "buffers-loopback", "Kernel buffers: one stream over loopback", COLUMNS, opened(Alone), why_no_namespaces
)
VETH = Part(
    "buffers-veth", "Kernel buffers: one stream between two namespaces", COLUMNS, opened(Cable), why_no_namespaces
)
