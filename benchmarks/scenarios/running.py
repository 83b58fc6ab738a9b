"""One run: a scenario, a controller and a seed in, numbers out.  The command calls it, in one process or in several."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from benchmarks.scenarios.controllers import settings
from benchmarks.scenarios.definitions import UTP, Flow, Path, Scenario, Span
from benchmarks.scenarios.flows import TCPTransfer, Transfer, UTPTransfer
from benchmarks.scenarios.measure import (
    BINS_PER_SECOND,
    QueueSamples,
    jain,
    percentile,
    rate_megabits,
    reached_s,
)
from benchmarks.scenarios.paths import PACKET_BYTES, RECEIVER_ELSEWHERE, lay
from benchmarks.scenarios.standing import COMPETITORS
from benchmarks.scenarios.tcp import SEGMENT_BYTES
from txutp.core.units import SECOND_US
from txutp.testing import Link, Network, Trace

# Nothing starts on the microsecond of anything else: each flow begins up to so much later, by the seed.
START_JITTER_SECONDS = 0.1

SAMPLES = 6_000
SHORTEST_SAMPLE_US = 1_000
LONGEST_SAMPLE_US = 10_000


@dataclass
class FlowNumbers:
    """What became of one flow."""

    kind: str
    start_s: float
    finished_s: float | None
    goodput_megabits: float
    """Over its life: from its start to its end, or the end of the run."""
    reached_s: float | None
    """After how long it had 90 % of the path."""
    resent_share: float
    bins: list[int]
    """Bytes delivered in each tenth of a second of the run."""


@dataclass
class SpanNumbers:
    """What happened in one span of time."""

    label: str
    from_s: float
    to_s: float
    rates_megabits: list[float]
    """Of all flows, in their order."""
    utilisation: float
    """Of what the path can deliver; without flows against the others."""
    tcp_share: float | None
    jain: float
    """Of the flows that were there all the time."""
    queue_p50_ms: float
    queue_p95_ms: float
    queue_mean_packets: float


@dataclass
class Numbers:
    """What a run gave."""

    scenario: str
    controller: str
    seed: int
    seconds: float
    flows: list[FlowNumbers]
    spans: list[SpanNumbers]
    sample_us: int
    queue_ms: list[float] = field(repr=False)


def run(scenario: Scenario, controller: str, seed: int) -> Numbers:
    """Let it happen."""
    network = Network(seed)
    link = lay(scenario.path, network, hosts=scenario.hosts)
    if scenario.elsewhere is not None:
        lay(scenario.elsewhere, network, RECEIVER_ELSEWHERE)

    # the flows, each at its time
    unfinished = len(scenario.flows)

    def done() -> None:
        nonlocal unfinished
        unfinished -= 1

    jitter = random.Random(f"{seed}/start")
    transfers = []
    for number, flow in enumerate(scenario.flows):
        transfer = _transfer(network, flow, number, controller, done)
        transfers.append(transfer)
        start_s = flow.start_s + jitter.random() * START_JITTER_SECONDS
        network.call_at(round(start_s * SECOND_US), transfer.start)
        if flow.stop_s is not None:
            network.call_at(round(flow.stop_s * SECOND_US), transfer.stop)

    # the time
    every_us = round(scenario.seconds * SECOND_US / SAMPLES)
    samples = QueueSamples(network, link, min(max(every_us, SHORTEST_SAMPLE_US), LONGEST_SAMPLE_US))
    network.run(scenario.seconds, (lambda: not unfinished) if scenario.ends else None)

    # the numbers
    seconds = network.now_us / SECOND_US
    flows = [_flow_numbers(transfer, scenario.path, controller, seconds) for transfer in transfers]
    spans = scenario.spans or (Span(0.0, seconds),)
    return Numbers(
        scenario.name,
        controller,
        seed,
        seconds,
        flows,
        [_span_numbers(span, scenario, flows, samples, seconds, link) for span in spans],
        samples.every_us,
        [round(value, 3) for value in samples.milliseconds],
    )


def _transfer(network: Network, flow: Flow, number: int, controller: str, done: object) -> Transfer:
    kind = controller if flow.kind == UTP else flow.kind
    if kind in COMPETITORS:
        return TCPTransfer(network, flow, number, done, kind)  # type: ignore[arg-type]
    target_us = None if flow.target_ms is None else round(flow.target_ms * 1_000)
    chosen = settings(kind, target_us, flow.slow_start, flow.outstanding_packets, flow.receiver_yields)
    return UTPTransfer(network, flow, number, done, chosen)  # type: ignore[arg-type]


def payload_megabits(path: Path, at_s: float) -> float:
    """What a path carries at a time, headers not included."""
    return path.megabits_at(at_s) * SEGMENT_BYTES / PACKET_BYTES


def _flow_numbers(transfer: Transfer, path: Path, controller: str, seconds: float) -> FlowNumbers:
    flow, deliveries = transfer.flow, transfer.deliveries
    started_s = (transfer.started_us or 0) / SECOND_US
    finished_s = None if deliveries.finished_us is None else deliveries.finished_us / SECOND_US
    lasted_s = min(finished_s or seconds, flow.stop_s or seconds) - started_s
    return FlowNumbers(
        kind=controller if flow.kind == UTP else flow.kind,
        start_s=started_s,
        finished_s=finished_s,
        goodput_megabits=deliveries.total_bytes * 8 / SECOND_US / lasted_s if lasted_s > 0 else 0.0,
        reached_s=reached_s(deliveries.bins, started_s, payload_megabits(path, started_s)),
        resent_share=transfer.resent_share,
        bins=deliveries.bins,
    )


def _span_numbers(
    span: Span, scenario: Scenario, flows: list[FlowNumbers], samples: QueueSamples, seconds: float, link: Link
) -> SpanNumbers:
    from_s, to_s = span.from_s, min(span.to_s, seconds)
    if scenario.ends:
        # a transfer's own time, not that before it
        from_s = max(from_s, min(flow.start_s for flow in flows))
    rates = [rate_megabits(flow.bins, from_s, to_s) for flow in flows]
    rates_of = list(zip(scenario.flows, rates, strict=True))
    downwards = sum(rate for flow, rate in rates_of if not flow.upwards and not flow.elsewhere)
    tcp = sum(rate for flow, rate in rates_of if flow.kind != UTP and not flow.upwards)
    there = [
        rate
        for flow, rate in rates_of
        if not flow.upwards and flow.start_s <= from_s and (flow.stop_s is None or flow.stop_s >= to_s)
    ]

    # what the path could have delivered, tenth of a second for tenth of a second
    steps = range(round(from_s * BINS_PER_SECOND), round(to_s * BINS_PER_SECOND))
    could = sum(payload_megabits(scenario.path, step / BINS_PER_SECOND) for step in steps) / max(len(steps), 1)
    if isinstance(link.service, Trace):
        carried_bytes = link.service.carried_bytes(round(from_s * SECOND_US), round(to_s * SECOND_US))
        could = carried_bytes * 8 / SECOND_US / (to_s - from_s) * SEGMENT_BYTES / PACKET_BYTES

    waits_ms = samples.between(from_s * SECOND_US, to_s * SECOND_US)
    middle_megabits = scenario.path.megabits_at((from_s + to_s) / 2)
    packet_ms = PACKET_BYTES * 8 / middle_megabits / 1_000
    return SpanNumbers(
        label=span.label,
        from_s=from_s,
        to_s=to_s,
        rates_megabits=rates,
        utilisation=downwards / could if could else 0.0,
        tcp_share=tcp / downwards if scenario.has_tcp and downwards else None,
        jain=jain(there),
        queue_p50_ms=percentile(waits_ms, 50),
        queue_p95_ms=percentile(waits_ms, 95),
        queue_mean_packets=sum(waits_ms) / max(len(waits_ms), 1) / packet_ms,
    )
