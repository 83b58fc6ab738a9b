"""Runs many conversations, in several processes if asked, and adds their outcomes up."""

from __future__ import annotations

import gc
import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conversations.playing import Outcome, Record, play
from tests.conversations.program import SERVER, draw
from txutp.qlog import trace_reactor
from txutp.testing import Network

# One that takes more CPU time spins.
CPU_SECONDS = 60

# Seeds that a process takes at a time.
CHUNK_SEEDS = 20


class TooLong(BaseException):
    """A conversation took too much CPU time."""


@dataclass
class Total:
    """The sum of many outcomes."""

    runs: int = 0
    connections: int = 0
    bytes: int = 0
    virtual_seconds: float = 0.0
    endings: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.runs += 1
        self.connections += outcome.connections
        self.bytes += outcome.bytes
        self.virtual_seconds += outcome.virtual_seconds
        self.endings.update(outcome.endings)
        if outcome.failures:
            self.failed.append(outcome)

    def lines(self) -> Iterator[str]:
        yield (
            f"{self.runs} conversations, {self.connections} connections, {self.bytes / 1e6:.1f} MB,"
            f" {self.virtual_seconds / 3_600:.1f} hours of virtual time, {len(self.failed)} failed"
        )
        for ending, count in sorted(self.endings.items(), key=lambda item: (-item[1], item[0])):
            yield f"{count:8} {ending}"


def run_seed(seed: int) -> Outcome:
    """Play one conversation; an exception is a failure of its seed."""

    def too_long(*arguments: Any) -> None:
        raise TooLong(f"it takes more than {CPU_SECONDS} s of CPU time")

    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        outcome = play(seed)
    except Exception as problem:
        outcome = Outcome(seed, [f"{type(problem).__name__}: {problem}"])
    except TooLong as problem:
        outcome = Outcome(seed, [str(problem)])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return outcome


def freeze() -> None:
    """Look only at objects that come from now on."""
    gc.collect()
    gc.freeze()
    gc.disable()


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """Run many, in this process or in several."""
    if jobs <= 1:
        freeze()
        yield from map(run_seed, seeds)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), freeze) as pool:
        yield from pool.map(run_seed, seeds, chunksize=CHUNK_SEEDS)


def report(outcome: Outcome) -> None:
    """Print the failures of a seed, and the command that plays it again."""
    print(f"seed {outcome.seed} failed; python -m tests.conversations --seed {outcome.seed} -v", flush=True)
    for failure in outcome.failures:
        print(f"    {failure}", flush=True)


def run_many(seeds: range, jobs: int) -> Total:
    """Run them, tell what fails at once, and say on stderr how far it is."""
    total = Total()
    begin = told = time.monotonic()
    for outcome in outcomes(seeds, jobs):
        total.add(outcome)
        if outcome.failures:
            report(outcome)
        now = time.monotonic()
        if now > told + (0.2 if sys.stderr.isatty() else 30):
            told = now
            done = f"{total.runs} of {len(seeds)}, {total.connections} connections, {len(total.failed)} failed"
            print(f"{done}, {total.runs / (now - begin):.1f} a second", end="\r" if sys.stderr.isatty() else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip
    return total


def recorder(pcap: Path | None, qlog: Path | None) -> Record:
    """Return what writes a capture of all packets to a file, and a trace of each host into a directory."""

    def record(network: Network, hosts: list[str]) -> None:
        if pcap is not None:
            network.capture(pcap)
        if qlog is not None:
            qlog.mkdir(parents=True, exist_ok=True)
            for host in hosts:
                vantage_point = "server" if host == SERVER else "client"
                path = qlog / f"{vantage_point}-{host}.qlog"
                trace_reactor(network.reactor(host), path, title=f"{vantage_point} {host}", vantage_point=vantage_point)

    return record


def show(seed: int, verbose: bool, pcap: Path | None = None, qlog: Path | None = None) -> Outcome:
    """Run one; ``verbose`` prints its program and every packet, the other two write files to look at."""
    if verbose:
        print(draw(seed).describe())
    freeze()
    outcome = play(seed, trace=print if verbose else None, record=recorder(pcap, qlog))
    if outcome.failures:
        report(outcome)
    return outcome
