"""The same scenarios in virtual time, by the simulated suite's own functions.  The command calls ``simulate``."""

from __future__ import annotations

from benchmarks.real.running import Measures, rates_and_tcp, utp_number
from benchmarks.scenarios.definitions import Scenario
from benchmarks.scenarios.jobs import Job, results
from benchmarks.scenarios.running import Numbers


def simulate(jobs: list[Job], processes: int) -> dict[Job, Measures]:
    """Do them all."""
    return {job: measures(job.scenario, numbers) for job, numbers in results(jobs, processes)}


def measures(scenario: Scenario, numbers: Numbers) -> Measures:
    """What the suite says, as a real run says it."""
    span = numbers.spans[0]
    rates, tcp = rates_and_tcp(scenario, [flow.bins for flow in numbers.flows])
    return Measures(
        goodput_megabits=numbers.flows[utp_number(scenario)].goodput_megabits,
        use=span.utilisation,
        queue_p50_ms=span.queue_p50_ms,
        queue_p95_ms=span.queue_p95_ms,
        tcp_megabits=tcp,
        tcp_share=tcp / (sum(rates) or 1),
        newcomer_share=rates[-1] / (sum(rates) or 1),
    )
