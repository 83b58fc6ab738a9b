"""Connect, one byte there and back, close: how many a second, with several under way at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import LABELS, end, why_not

# Name -> kind, how to connect, label.
WAYS = {
    "utp": ("utp", "endpoint", "txutp, endpoint string"),
    "utp-connect": ("utp", "connect", "txutp, `connectUTP`"),
    "tcp": ("tcp", "endpoint", "Twisted TCP, endpoint string"),
    "tcp-connect": ("tcp", "connect", "Twisted TCP, `connectTCP`"),
    "utp-native": ("utp-native", "", f"{LABELS['utp-native']}, without the close"),
}

# libutp refuses more than 3000 at a time, and keeps each for half a second after its end.
MOST_NATIVE_VISITS = 1_500


def visits(network: Network, kind: str, how: str, at_once: int, count: int, code: Path) -> Values:
    """Measure so many."""
    options = {"count": count, "at_once": at_once, "how": how}
    with end(kind, "echo", "serve", network.receiver, code) as server:
        to = {"host": network.receiver.address, "port": server.line()["port"]}
        used_seconds = server.ask()["cpu_seconds"]
        with end(kind, "visits", "visit", network.sender, code, **to, **options) as client:
            done = client.line()
        server_cpu_seconds = server.ask()["cpu_seconds"] - used_seconds
    return {
        "per_second": done["visits"] / done["seconds"],
        "client_cpu_microseconds": 1e6 * done["cpu_seconds"] / done["visits"],
        "server_cpu_microseconds": 1e6 * server_cpu_seconds / count,
    }


def row(network: Network, name: str, at_once: int, count: int) -> Row:
    kind, how, label = WAYS[name]
    if kind == "utp-native":
        count = min(count, MOST_NATIVE_VISITS)
    return Row(
        name=name,
        label=f"{at_once} at once, {label}",
        measure=lambda code: visits(network, kind, how, at_once, count, code),
        group=str(at_once),
        why_not=why_not(kind),
        ours=kind == "utp",
    )


@contextmanager
def opened(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    yield [row(network, name, at_once, sizes.visits) for at_once in sizes.visits_at_once for name in WAYS]


PART = Part(
    "handshakes",
    "Connect, one byte there and back, close, over loopback",
    (
        Column("per second", "per_second", drawn=True),
        Column("CPU us, client", "client_cpu_microseconds"),
        Column("CPU us, server", "server_cpu_microseconds"),
        Column("times Twisted TCP, endpoint string", "per_second", against="tcp"),
        Column("times utp-native", "per_second", against="utp-native"),
    ),
    opened,
)
