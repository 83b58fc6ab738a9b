"""Several processes on one port: streams and handshakes for different numbers of them, beside TCP with SO_REUSEPORT."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import LABELS, end
from benchmarks.scenarios.measure import jain
from txutp.workers import why_no_steering

KINDS = ("utp", "tcp")

# Numbers of workers.  Clients share the cores with them.
WORKERS = (1, 2, 4, 8, 16)

# Clients in processes of their own, each with a UDP port of its own.
CLIENTS = 4
STREAMS_EACH = 8
VISITS_AT_ONCE_EACH = 16

# Groups of sockets to which is steered.
GROUPS = (2, 7, 64)

WARM_UP_SHARE = 0.5


def streams(network: Network, kind: str, workers: int, seconds: float, code: Path) -> Values:
    """Streams of several clients at once: what they get together."""
    options = {"workers": workers, "what": "sink"}
    with ExitStack() as stack:
        server = stack.enter_context(end(kind, "workers", "serve", network.receiver, code, **options))
        to = {"host": network.receiver.address, "port": server.line()["port"], "connections": STREAMS_EACH}
        senders = [stack.enter_context(end(kind, "crowd", "send", network.sender, code, **to)) for _ in range(CLIENTS)]
        for sender in senders:
            sender.line()
        for sender in senders:
            sender.ask()
        time.sleep(seconds * WARM_UP_SHARE)
        before = server.ask()
        time.sleep(seconds)
        after = server.ask()
    each = [late - early for late, early in zip(after["received_bytes"], before["received_bytes"], strict=True)]
    cpu_seconds = after["cpu_seconds"] - before["cpu_seconds"]
    return {
        "megabytes_per_second": sum(each) / 1e6 / (after["at_seconds"] - before["at_seconds"]),
        "server_cpu_seconds_per_gigabyte": cpu_seconds / max(sum(each), 1) * 1e9,
        "with_cores_megabytes_per_second": workers * sum(each) / 1e6 / max(cpu_seconds, 1e-9),
        "jain": jain(each),
    }


def handshakes(network: Network, kind: str, workers: int, count: int, code: Path) -> Values:
    """Visits of several clients at once: connect, one byte there and back, close."""
    options = {"workers": workers, "what": "echo"}
    with ExitStack() as stack:
        server = stack.enter_context(end(kind, "workers", "serve", network.receiver, code, **options))
        to = {"host": network.receiver.address, "port": server.line()["port"]}
        before = server.ask()
        visit = {**to, "count": count // CLIENTS, "at_once": VISITS_AT_ONCE_EACH, "how": "own ports"}
        clients = [
            stack.enter_context(end(kind, "visits", "visit", network.sender, code, **visit)) for _ in range(CLIENTS)
        ]
        done = [client.line() for client in clients]
        time.sleep(0.1)  # until the workers have counted
        after = server.ask()
    each = [late - early for late, early in zip(after["accepted"], before["accepted"], strict=True)]
    cpu_seconds = after["cpu_seconds"] - before["cpu_seconds"]
    return {
        "per_second": sum(client["visits"] / client["seconds"] for client in done),
        "server_cpu_microseconds": 1e6 * cpu_seconds / max(sum(each), 1),
        "with_cores_per_second": workers * sum(each) / max(cpu_seconds, 1e-9),
        "jain": jain(each),
    }


def steering(network: Network, workers: int, connections: int, code: Path) -> Values:
    """The SYN and a later packet of many connections, each to a group of sockets."""
    with end("utp", "workers", "steer", network.sender, code, workers=workers, connections=connections) as steered:
        done = steered.line()
    return {"datagrams": done["datagrams"], "wrong": done["wrong"], "lost": done["lost"]}


def too_few_cores(workers: int) -> str:
    """Why a number of workers shows nothing here; empty if it does."""
    cores = os.cpu_count() or 1
    return "" if workers <= cores else f"{workers} workers: {cores} cores are too few to tell"


def shared_cores(workers: int) -> str:
    """What a label says where clients take the cores that the workers need."""
    return "" if 2 * workers <= (os.cpu_count() or 1) else ", clients on their cores"


def opened(
    measure: Callable[[Network, str, int, Sizes, Path], Values],
) -> Callable[[Sizes], AbstractContextManager[list[Row]]]:
    """The rows of a part: each transport, with each number of workers."""

    @contextmanager
    def rows(sizes: Sizes) -> Iterator[list[Row]]:
        network = Network()
        yield [
            Row(
                name=str(workers),
                label=f"{LABELS[kind]}, {workers} worker{'s' if workers > 1 else ''}{shared_cores(workers)}",
                measure=lambda code, kind=kind, workers=workers: measure(network, kind, workers, sizes, code),
                group=kind,
                why_not=too_few_cores(workers),
                ours=kind == "utp",
            )
            for kind in KINDS
            for workers in WORKERS
        ]

    return rows


@contextmanager
def opened_steering(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    yield [
        Row(
            name=str(workers),
            label=f"{workers} sockets",
            measure=lambda code, workers=workers: steering(network, workers, sizes.steered_connections, code),
            ours=True,
        )
        for workers in GROUPS
    ]


STREAMS = Part(
    "workers-streams",
    f"Streams of {CLIENTS} clients with {STREAMS_EACH} each to one port of several processes, over loopback",
    (
        Column("MB/s together", "megabytes_per_second", drawn=True),
        Column("times one worker", "megabytes_per_second", against="1"),
        Column("CPU s/GB, workers", "server_cpu_seconds_per_gigabyte"),
        Column("MB/s by that, if each had a core", "with_cores_megabytes_per_second"),
        Column("times one worker", "with_cores_megabytes_per_second", against="1"),
        Column("evenness of workers (Jain)", "jain"),
    ),
    opened(lambda network, kind, workers, sizes, code: streams(network, kind, workers, sizes.crowd_seconds, code)),
    why_no_steering,
)
HANDSHAKES = Part(
    "workers-handshakes",
    f"Connect, one byte there and back, close: {CLIENTS * VISITS_AT_ONCE_EACH} clients, over loopback",
    (
        Column("per second", "per_second", drawn=True),
        Column("times one worker", "per_second", against="1"),
        Column("CPU us, workers", "server_cpu_microseconds"),
        Column("per second by that, if each had a core", "with_cores_per_second"),
        Column("times one worker", "with_cores_per_second", against="1"),
        Column("evenness of workers (Jain)", "jain"),
    ),
    opened(lambda network, kind, workers, sizes, code: handshakes(network, kind, workers, sizes.visits, code)),
    why_no_steering,
)
STEERING = Part(
    "workers-steering",
    "Datagrams that the kernel gives to a wrong one of several sockets",
    (
        Column("datagrams", "datagrams"),
        Column("at a wrong socket", "wrong", drawn=True),
        Column("lost", "lost"),
    ),
    opened_steering,
    why_no_steering,
)
