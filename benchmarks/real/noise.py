"""What Python and the machine add by themselves: how late timers are, and how much delays scatter on an empty path.

    python -m benchmarks.real.noise timers epoll
    python -m benchmarks.real.noise send PORT

The command calls ``timers`` and ``scatter``; the two above are the processes that they start.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall

from benchmarks.processes import listen, say
from benchmarks.real.hosts import RECEIVER, Hosts
from benchmarks.scenarios.measure import percentile
from benchmarks.support import ROOT
from txutp import Settings, UTPClientEndpoint
from txutp.core.congestion.interface import Acknowledgement
from txutp.core.congestion.shallow import Shallow

REACTORS = ("epoll", "asyncio")
# Whole milliseconds flatter reactors that round up to them, so there is one in between.
DELAYS_MS = (1, 1.3, 2, 5)
TIMERS = 400  # of each delay
LIMIT_SECONDS = 60

PORT = 7_100

# A flow that leaves half of a broadband line free: 5 Mbit/s, in pieces that are worth a controller and its pace.
WRITE_BYTES = 25_000
WRITE_SECONDS = 0.04

# A flow has no controller while it has little in flight, as on the shortest paths, and then there are no samples.
ENOUGH = 100

# What the controller uses is the smallest of the samples of some time.
BUCKET_US = 20_000


@dataclass
class Lateness:
    """How much later than asked for the timers of one delay came, in milliseconds."""

    reactor: str
    delay_ms: float
    p50_ms: float
    p99_ms: float
    worst_ms: float


@dataclass
class Scatter:
    """How far delays on an empty path were above the smallest one."""

    path: str
    what: str
    count: int
    p50_ms: float
    p95_ms: float
    p99_ms: float


def timers(reactor: str) -> list[Lateness]:
    """Measure one kind of reactor, in a process of its own."""
    output = subprocess.run(
        [sys.executable, "-m", "benchmarks.real.noise", "timers", reactor],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=LIMIT_SECONDS,
        check=True,
    ).stdout
    late_ms: dict[str, list[float]] = json.loads(output)
    return [
        Lateness(reactor, float(delay), percentile(values, 50), percentile(values, 99), max(values))
        for delay, values in late_ms.items()
    ]


def scatter(name: str, path: Hosts, seconds: float) -> list[Scatter]:
    """Send a small paced flow over a path without a bottleneck."""
    with path as hosts:
        receiver = hosts.start_python("receiver", "workers", "receive-utp", PORT, "shallow")
        sender = hosts.start_python("sender", "noise", "send", PORT)
        probes = [hosts.start_python("receiver", "probe", "receive"), hosts.start_python("sender", "probe", "send")]
        workers = [receiver, sender, *probes]
        for worker in workers:
            worker.line()
        zero = time.monotonic() + 1
        for worker in workers:
            worker.tell(zero=zero, start_s=0, end_s=seconds)
        samples: list[tuple[int, int, int]] = sender.line()["samples"]
        probed: list[float] = probes[0].line()["delays_ms"]

    one_way_ms = [(now_us, delay_us / 1_000) for now_us, delay_us, _ in samples]
    buckets = itertools.groupby(one_way_ms, lambda sample: sample[0] // BUCKET_US)
    results = [_scatter(name, "probes", probed)]
    if len(samples) < ENOUGH:
        return results
    return [
        *results,
        _scatter(name, "one-way samples of the flow", [delay for _, delay in one_way_ms]),
        _scatter(
            name,
            f"the smallest of each {BUCKET_US // 1_000} ms",
            [min(delay for _, delay in bucket) for _, bucket in buckets],
        ),
        _scatter(name, "round trips of the flow", [delay_us / 1_000 for _, _, delay_us in samples]),
    ]


def _scatter(path: str, what: str, delays_ms: list[float]) -> Scatter:
    least_ms = min(delays_ms)
    above_ms = [delay - least_ms for delay in delays_ms]
    high = [percentile(above_ms, percent) for percent in (50, 95, 99)]
    return Scatter(path, what, len(above_ms), *high)


# The processes


def run_timers(kind: str) -> None:
    """Ask for one timer after another, and print by how much each came late."""
    if kind == "asyncio":
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    else:
        from twisted.internet import epollreactor

        epollreactor.install()
    from twisted.internet import reactor

    late_ms: dict[str, list[float]] = {str(delay_ms): [] for delay_ms in DELAYS_MS}
    waiting = [delay_ms for delay_ms in DELAYS_MS for _ in range(TIMERS)]

    def ask() -> None:
        if not waiting:
            reactor.stop()
            return
        delay_ms = waiting.pop()
        due = time.monotonic() + delay_ms / 1_000
        reactor.callLater(delay_ms / 1_000, come, delay_ms, due)

    def come(delay_ms: float, due: float) -> None:
        late_ms[str(delay_ms)].append((time.monotonic() - due) * 1_000)
        ask()

    reactor.callWhenRunning(ask)
    reactor.run()
    print(json.dumps(late_ms))


class Recorder(Shallow):
    """Keeps the delays that it is told."""

    samples: list[tuple[int, int, int]] = []

    def on_ack(self, ack: Acknowledgement) -> None:
        if ack.one_way_delay_us is not None and ack.round_trip_delay_us is not None:
            self.samples.append((ack.now_us, ack.one_way_delay_us, ack.round_trip_delay_us))
        super().on_ack(ack)


class Trickle(Protocol):
    """Writes a little, again and again."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        LoopingCall(self.transport.write, bytes(WRITE_BYTES)).start(WRITE_SECONDS)


def send(port: str) -> None:
    """Send the small flow until the end."""
    from twisted.internet import reactor

    say(ready=True)
    order = listen()

    def finish() -> None:
        say(samples=Recorder.samples)
        os._exit(0)

    endpoint = UTPClientEndpoint(reactor, RECEIVER, int(port), settings=Settings(congestion=Recorder))
    left_seconds = order["zero"] - time.monotonic()
    reactor.callLater(left_seconds, connectProtocol, endpoint, Trickle())
    reactor.callLater(left_seconds + order["end_s"], finish)
    reactor.run()


if __name__ == "__main__":
    {"timers": run_timers, "send": send}[sys.argv[1]](sys.argv[2])
