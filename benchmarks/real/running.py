"""One run on real sockets: a scenario and a candidate in, numbers out.  The command calls it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import Worker
from benchmarks.real.catalogue import Candidate, is_routed
from benchmarks.real.hosts import RECEIVER, Hosts
from benchmarks.real.router import Router
from benchmarks.real.wire import Link, Wire
from benchmarks.scenarios.definitions import UTP, Flow, Scenario
from benchmarks.scenarios.measure import BIN_US, BINS_PER_SECOND, percentile, rate_megabits
from txutp.core.units import SECOND_US

PEER = Path(__file__).parent / "utp_native.js"

FIRST_PORT = 7_000
ATTENTION_S = 0.3  # until all have been told when it begins

# Time before the first flow, in which probes see the empty path.
QUIET_S = 1.0

# A link that is late more often than this had no processor when it needed one: the run is not worth much.
DISTURBED = 0.01


@dataclass
class Measures:
    """What a run gave, real or simulated."""

    goodput_megabits: float
    """Of the candidate's first flow, from its start to the end."""
    use: float
    """Of the bottleneck, in the span that the scenario looks at."""
    queue_p50_ms: float
    queue_p95_ms: float
    tcp_megabits: float
    """In the span, as the share of the newcomer."""
    tcp_share: float
    newcomer_share: float
    cpu_sender: float = 0.0
    """Processor time of the candidate's first flow by time."""
    cpu_receiver: float = 0.0
    late_share: float = 0.0
    """Of the packets of the link in user space: how many came a millisecond late."""

    @property
    def is_disturbed(self) -> bool:
        """Whether somebody else needed the processors."""
        return self.late_share > DISTURBED


def bottleneck(scenario: Scenario, seed: int) -> Hosts:
    """The path of a scenario."""
    path = scenario.path
    if is_routed(scenario):
        assert path.queue.packets is not None
        return Router(path.megabits, path.queue.packets)
    kilobytes = path.queue.kilobytes
    return Wire(
        Link(
            path.megabits,
            path.delay_ms,
            path.queue.packets,
            None if kilobytes is None else kilobytes * 1_024,
            path.loss,
            seed,
        )
    )


def ends(hosts: Hosts, flow: Flow, candidate: Candidate | None, port: int) -> tuple[Worker, Worker]:
    """The processes at both ends of a flow, the receiver ready to be connected to."""
    if flow.kind != UTP:
        kind, words = "tcp", [port, flow.kind]
    else:
        assert candidate is not None
        if candidate.is_native:
            receiver = hosts.start("receiver", "node", PEER, "receive", RECEIVER, port)
            return receiver, hosts.start("sender", "node", PEER, "send", RECEIVER, port)
        kind, words = "utp", [port, candidate.controller]
        if flow.target_ms is not None:
            words.append(f"{flow.target_ms:g}ms")
    receiver = hosts.start_python("receiver", "workers", f"receive-{kind}", *words)
    return receiver, hosts.start_python("sender", "workers", f"send-{kind}", *words)


def run(scenario: Scenario, candidate: Candidate | None, seed: int) -> Measures:
    """Let it happen; without a candidate there is TCP only."""
    with bottleneck(scenario, seed) as hosts:
        flows = [ends(hosts, flow, candidate, FIRST_PORT + number) for number, flow in enumerate(scenario.flows)]
        probes = [
            hosts.start_python(host, "probe", role) for host, role in (("receiver", "receive"), ("sender", "send"))
        ]
        workers = [worker for pair in flows for worker in pair]
        for worker in (*workers, *probes):
            worker.line()
        zero = time.monotonic() + ATTENTION_S + QUIET_S
        for probe in probes:
            probe.tell(zero=zero, end_s=scenario.seconds)
        for flow, pair in zip(scenario.flows, flows, strict=True):
            for worker in pair:
                worker.tell(zero=zero, start_s=flow.start_s, end_s=scenario.seconds)
        said = [tuple(worker.line() for worker in pair) for pair in flows]
        probed = probes[0].line()
        counters = hosts.counters()
    return measures(scenario, said, probed, counters)


def measures(
    scenario: Scenario, said: list[tuple[dict[str, Any], ...]], probed: dict[str, Any], counters: dict[str, Any]
) -> Measures:
    """Numbers from what all processes have said."""
    span = scenario.spans[0]
    bins = [receiver["bins"] for receiver, _ in said]
    least_ms = min(probed["delays_ms"])
    times_and_delays = zip(probed["sent_s"], probed["delays_ms"], strict=True)
    waits_ms = [delay - least_ms for sent_s, delay in times_and_delays if span.from_s <= sent_s < span.to_s]

    carried = probed["carried_bytes"]
    first, last = round(span.from_s * BINS_PER_SECOND), min(round(span.to_s * BINS_PER_SECOND), len(carried) - 1)
    carried_megabits = (carried[last] - carried[first]) * 8 / ((last - first) * BIN_US)

    number = utp_number(scenario)
    receiver, sender = said[number]
    rates, tcp = rates_and_tcp(scenario, bins)
    lived_s = scenario.seconds - scenario.flows[number].start_s
    return Measures(
        goodput_megabits=sum(bins[number]) * 8 / SECOND_US / lived_s,
        use=carried_megabits / scenario.path.megabits,
        queue_p50_ms=percentile(waits_ms, 50),
        queue_p95_ms=percentile(waits_ms, 95),
        tcp_megabits=tcp,
        tcp_share=tcp / (sum(rates) or 1),
        newcomer_share=rates[-1] / (sum(rates) or 1),
        cpu_sender=sender["cpu_share"],
        cpu_receiver=receiver["cpu_share"],
        late_share=counters["there"]["late_share"] if counters else 0.0,
    )


def utp_number(scenario: Scenario) -> int:
    """Which flow is the candidate's first one; the first at all if there is none."""
    return next((number for number, flow in enumerate(scenario.flows) if flow.kind == UTP), 0)


def rates_and_tcp(scenario: Scenario, bins: list[list[int]]) -> tuple[list[float], float]:
    """What the flows had in the span of the scenario, in Mbit/s, and how much of it was TCP's."""
    span = scenario.spans[0]
    rates = [rate_megabits(each, span.from_s, span.to_s) for each in bins]
    tcp = sum(rate for flow, rate in zip(scenario.flows, rates, strict=True) if flow.kind != UTP)
    return rates, tcp
