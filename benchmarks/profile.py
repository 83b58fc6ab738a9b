"""Where the time goes: one stream through a cable (veth), and a message there and back over loopback, by place.

    python -m benchmarks.profile

Both ends of the stream, and the one that asks, run under cProfile.  It adds to each call of Python and nothing to what
the kernel does meanwhile, so read the shares of Python against each other; what everything costs without a profiler is
what ``python -m benchmarks`` tells.
"""

from __future__ import annotations

import json
import pstats
import sys
import tempfile
from collections import defaultdict
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import txutp
from benchmarks.ends import stream
from benchmarks.network import Cable, Network, why_no_namespaces
from benchmarks.parts import FULL, Sizes
from benchmarks.peers import end
from benchmarks.processes import Host, Worker, worker
from benchmarks.support import ROOT, machine, markdown, versions

# Microseconds by place.
Places = dict[str, float]
Function = tuple[str, int, str]

SOURCES = Path(txutp.__file__).parent
WAITING = "'poll' of 'select.epoll'"
SOCKET = "of '_socket.socket'"
KERNEL = "the kernel: "
TWISTED = "Twisted"
APPLICATION = "the application"
LEAST_SHARE = 0.01  # of all, for a row of its own


def place_of(function: Function) -> str:
    """Where a function stands, in the words of the table; empty for what is nobody's: the start, the profiler."""
    path, _, name = function
    if SOCKET in name:
        return KERNEL + name.split("'")[1]
    if Path(path).is_relative_to(SOURCES):
        return f"txutp/{Path(path).relative_to(SOURCES)}"
    if "twisted" in Path(path).parts or "zope" in Path(path).parts:
        return TWISTED
    if Path(path).parent == Path(stream.__file__).parent:
        return APPLICATION
    return ""


def places(path: Path, divisor: float) -> Places:
    """A profile as microseconds by place, divided; what Python's own functions take is their caller's."""
    found: Places = defaultdict(float)
    statistics: Any = pstats.Stats(str(path))
    for function, (_, _, own_seconds, _, callers) in statistics.stats.items():
        if WAITING in function[2]:
            continue
        place = place_of(function)
        if place:
            found[place] += own_seconds * 1e6 / divisor
        elif function[0] == "~":
            for caller, (_, _, seconds, _) in callers.items():
                if caller_place := place_of(caller):
                    found[caller_place] += seconds * 1e6 / divisor
    return found


def profiled(on: Host, path: Path, module: str, verb: str, **options: Any) -> AbstractContextManager[Worker]:
    """Run one end of ours under the profiler while a block runs."""
    words = json.dumps({"host": on.address, "transport": "utp", **options})
    command = on.command(sys.executable, "-m", "benchmarks.ends.profiled", module, path, verb, words)
    return worker(command, ROOT)


def profile_stream(network: Network, total_bytes: int, directory: Path) -> tuple[Places, Places]:
    """Sender and receiver, per megabyte."""
    files = directory / "sender", directory / "receiver"
    with profiled(network.receiver, files[1], "stream", "receive", bytes=total_bytes) as receiving:
        to = {"host": network.receiver.address, "port": receiving.line()["port"], "bytes": total_bytes}
        with profiled(network.sender, files[0], "stream", "send", **to) as sending:
            sending.finish()
            receiving.finish()
    sender, receiver = (places(file, total_bytes / 1e6) for file in files)
    return sender, receiver


def profile_messages(network: Network, count: int, directory: Path) -> Places:
    """Who asks, per message."""
    file = directory / "player"
    with end("utp", "echo", "serve", network.receiver) as server:
        to = {"host": network.receiver.address, "port": server.line()["port"], "bytes": 1, "count": count}
        with profiled(network.sender, file, "pingpong", "play", **to) as player:
            player.finish()
    return places(file, count)


def tables(sizes: Sizes = FULL) -> str:
    """Both, as Markdown."""
    with tempfile.TemporaryDirectory() as name:
        with Network() if why_no_namespaces() else Cable() as network:
            sender, receiver = profile_stream(network, sizes.stream_bytes // 2, Path(name))
        messages = profile_messages(Network(), 4 * sizes.messages, Path(name))
    stream_table = table(("us per MB", "sender", "receiver"), (sender, receiver))
    return f"{stream_table}\n\n{table(('us per message', 'who asks'), (messages,))}\n"


def table(header: tuple[str, ...], columns: tuple[Places, ...]) -> str:
    """A row for each place that counts, the dearest first, and their sum."""
    sums = {place: sum(column.get(place, 0.0) for column in columns) for column in columns for place in column}
    total = sum(sums.values())
    told = [place for place in sorted(sums, key=lambda place: -sums[place]) if sums[place] >= LEAST_SHARE * total]
    rows = [[place, *(f"{column.get(place, 0.0):.1f}" for column in columns)] for place in told]
    rest = [sum(value for place, value in column.items() if place not in told) for column in columns]
    rows.append(["the rest", *(f"{value:.1f}" for value in rest)])
    rows.append(["**all**", *(f"**{sum(column.values()):.1f}**" for column in columns)])
    return markdown(header, rows)


def main() -> None:
    print(tables())
    print(f"{machine()}; {versions()}.")


if __name__ == "__main__":
    main()
