"""Connections that do nothing: what they cost a busy stream beside them on the same port, and what memory they take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.crowds import watch
from benchmarks.network import Network
from benchmarks.parts import Column, Part, Row, Sizes, Values
from benchmarks.peers import end

# Connections that are there before the first look at memory, so that what is made once is not counted.
WARM_UP = 100

# To make very many connections takes a while.
CROWD_LIMIT_SECONDS = 600

# The first probes of young connections are over then.
SETTLING_SECONDS = 3.0
LOOK_SECONDS = 0.5


def beside(network: Network, idle: int, seconds: float, code: Path) -> Values:
    """A busy stream, with so many idle connections to the same server."""
    with end("utp", "crowd", "receive", network.receiver, code, connections=idle + 1) as receiver:
        to = {"host": network.receiver.address, "port": receiver.line()["port"]}
        with (
            end("utp", "idle", "visit", network.sender, code, **to, batches=[idle]) as clients,
            end("utp", "crowd", "send", network.sender, code, **to, connections=1) as sender,
        ):
            sender.line()
            if idle:
                clients.ask()
            return watch(sender, receiver, seconds)


def memory(network: Network, idle: int, trace: bool, code: Path) -> float | None:
    """By how many bytes the server grew for each connection."""
    name = "traced_bytes" if trace else "resident_bytes"
    with end("utp", "idle", "serve", network.receiver, code, connections=idle + WARM_UP, trace=trace) as server:
        to = {"host": network.receiver.address, "port": server.line()["port"]}
        with end("utp", "idle", "visit", network.sender, code, **to, batches=[WARM_UP, idle]) as clients:
            clients.ask()
            before = server.ask()[name]
            clients.ask()
            after = server.ask()[name]
    return None if before is None or after is None else (after - before) / idle


def memories(network: Network, idle: int, code: Path) -> Values:
    """Objects and the whole process, each with a server of its own: to trace needs memory itself."""
    values = {"objects_kib": memory(network, idle, True, code), "resident_kib": memory(network, idle, False, code)}
    return {name: value / 1024 for name, value in values.items() if value is not None}


def crowd(network: Network, idle: int, seconds: float, code: Path) -> Values:
    """What very many connections on one port take, and what they do while nobody says anything."""
    limit = {"limit_seconds": CROWD_LIMIT_SECONDS, "connections": idle + WARM_UP}
    with end("utp", "idle", "serve", network.receiver, code, trace=False, collect=False, **limit) as server:
        to = {"host": network.receiver.address, "port": server.line()["port"], "batches": [WARM_UP, idle]}
        with end("utp", "idle", "visit", network.sender, code, limit_seconds=CROWD_LIMIT_SECONDS, **to) as clients:
            clients.ask()
            empty = server.ask()
            clients.ask()
            time.sleep(SETTLING_SECONDS)
            first = before = server.ask()
            sent = []
            began = time.monotonic()
            while time.monotonic() < began + seconds:
                time.sleep(LOOK_SECONDS)
                after = server.ask()
                sent.append(after["datagrams_sent"] - before["datagrams_sent"])
                before = after
            elapsed_seconds = time.monotonic() - began
    values = {
        "cpu_percent": 100 * (before["cpu_seconds"] - first["cpu_seconds"]) / elapsed_seconds,
        "datagrams_per_second": sum(sent) / elapsed_seconds,
        "busiest_share_percent": 100 * max(sent) / max(sum(sent), 1),
        "looks": len(sent),
    }
    if first["resident_bytes"] is not None:
        values["resident_kib"] = (first["resident_bytes"] - empty["resident_bytes"]) / idle / 1024
    return values


@contextmanager
def opened_crowd(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    idle, seconds = sizes.idle_crowd, sizes.idle_seconds
    yield [Row("crowd", f"{idle:,} connections", lambda code: crowd(network, idle, seconds, code), ours=True)]


@contextmanager
def opened_beside(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    seconds, many = sizes.crowd_seconds, sizes.idle_connections
    yield [
        Row("alone", "txutp, one busy stream", lambda code: beside(network, 0, seconds, code), ours=True),
        Row("idle", f"beside {many:,} idle ones", lambda code: beside(network, many, seconds, code), ours=True),
    ]


@contextmanager
def opened_memory(sizes: Sizes) -> Iterator[list[Row]]:
    network = Network()
    idle = sizes.idle_connections
    yield [Row("memory", f"{idle:,} connections", lambda code: memories(network, idle, code), ours=True)]


BESIDE = Part(
    "idle",
    "A busy stream and idle connections on the same port, over loopback",
    (
        Column("MB/s", "megabytes_per_second", drawn=True),
        Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte"),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte", drawn=True),
        Column("MB/s, of alone", "megabytes_per_second", against="alone"),
        Column("CPU of the receiver, times alone", "receiver_cpu_seconds_per_gigabyte", against="alone"),
    ),
    opened_beside,
)
CROWD = Part(
    "idle-crowd",
    "Very many idle connections on one port, with a keepalive of each every 29 s",
    (
        Column("RSS each, KiB", "resident_kib", drawn=True),
        Column("CPU of the server, %", "cpu_percent", drawn=True),
        Column("datagrams sent per second", "datagrams_per_second"),
        Column("% of them in the busiest moment", "busiest_share_percent"),
        Column("moments", "looks"),
    ),
    opened_crowd,
)
MEMORY = Part(
    "memory",
    "Memory of a server for each idle connection, KiB",
    (
        Column("Python objects (tracemalloc)", "objects_kib", drawn=True),
        Column("the whole process (RSS)", "resident_kib", drawn=True),
    ),
    opened_memory,
)
