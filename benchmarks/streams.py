"""One stream, one way, as fast as it goes: over loopback, and over a cable between two namespaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from benchmarks import limit
from benchmarks.network import Cable, Network, why_no_namespaces
from benchmarks.parts import Column, Part, Row, Sizes
from benchmarks.transfers import row

# Sender, receiver, and which part of the bytes of the fastest they get, so that all take about as long.
PAIRS = (
    ("utp", "utp", 1),
    ("utp-no-offload", "utp-no-offload", 1 / 4),
    ("utp-listen-udp", "utp-listen-udp", 1 / 4),
    ("tcp", "tcp", 1),
    ("utp-native", "utp-native", 1 / 4),
    ("utp", "utp-native", 1 / 4),
    ("utp-native", "utp", 1 / 4),
    ("libtorrent", "libtorrent", 1 / 4),
    ("aioquic", "aioquic", 1 / 16),
)

COLUMNS = (
    Column("MB/s", "megabytes_per_second", drawn=True),
    Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte", drawn=True),
    Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte", drawn=True),
    Column("datagrams per send call", "datagrams_per_send_call"),
    Column("bytes in each", "payload_bytes_of_packet"),
    Column("times utp-native", "megabytes_per_second", against="utp-native"),
    Column("times Twisted TCP", "megabytes_per_second", against="tcp"),
    Column("of the limit", "megabytes_per_second", against=limit.SMALL),
)


def opened(make: Callable[[], Network]) -> Callable[[Sizes], AbstractContextManager[list[Row]]]:
    """The rows on a network that is made when they are measured."""

    @contextmanager
    def rows(sizes: Sizes) -> Iterator[list[Row]]:
        with make() as network:
            pairs = [
                row(network, sender, receiver, int(share * sizes.stream_bytes)) for sender, receiver, share in PAIRS
            ]
            yield pairs + limit.rows(network, sizes)

    return rows


LOOPBACK = Part(
    "streams-loopback",
    "One stream over loopback",
    COLUMNS,
    opened(Network),
)
VETH = Part(
    "streams-veth",
    "One stream between two network namespaces (veth, MTU 1500)",
    COLUMNS,
    opened(Cable),
    why_no_namespaces,
)
