"""The scenarios, in the words of the simulated suite so that it can run the same ones, and the candidates.

``running.py`` runs them for real, ``simulated.py`` in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from benchmarks.scenarios.definitions import UTP, Flow, Path, Queue, Scenario, Span

DEFAULT_SECONDS = 20.0
QUICK_SECONDS = 5.0

# Two flows need more time than one, to find each other.
TWO_FLOWS = 1.5

# Parts of a run: what a flow needs to find its rate; when the second flow comes; when both have settled.
SETTLED = 0.2
SECOND_STARTS = {"tcp": 1 / 6, "late": 1 / 3}
BOTH_SETTLED = {"tcp": 1 / 3, "late": 2 / 3}

# The delay of the cables of the router, for the simulation.
CABLES_MS = 0.03


@dataclass(frozen=True)
class Candidate:
    """Who is compared."""

    name: str
    controller: str
    """A name in ``UTP_CONTROLLERS``; where the candidate is another program, for its simulation only."""
    target_ms: float | None = None
    is_native: bool = False


CANDIDATES = {
    candidate.name: candidate
    for candidate in (
        Candidate("shallow", "shallow"),
        Candidate("shallow 3.5 ms", "shallow", 3.5),
        Candidate("shallow 10 ms", "shallow", 10),
        Candidate("ledbat", "ledbat"),
        Candidate("ledbat++", "ledbat++"),
        Candidate("utp-native", "libutp", is_native=True),
    )
}

QUEUE = Queue(packets=100)
BROADBAND = Path(10, 20, QUEUE)
CONTESTED = Path(10, 25, QUEUE)
CABLES = Path(10, CABLES_MS, QUEUE)


def _single(name: str, path: Path) -> Callable[[float], Scenario]:
    def make(seconds: float) -> Scenario:
        return Scenario(name, "single", path, (Flow(),), seconds, (Span(SETTLED * seconds, seconds),))

    return make


def _two(name: str, group: str, kinds: tuple[str, str], path: Path) -> Callable[[float], Scenario]:
    """``kinds`` in the order in which they start."""

    def make(seconds: float) -> Scenario:
        seconds *= TWO_FLOWS
        flows = (Flow(kinds[0]), Flow(kinds[1], SECOND_STARTS[group] * seconds))
        return Scenario(name, group, path, flows, seconds, (Span(BOTH_SETTLED[group] * seconds, seconds),))

    return make


SCENARIOS: dict[str, Callable[[float], Scenario]] = {
    "one": _single("one", BROADBAND),
    "fast": _single("fast", Path(20, 50, QUEUE)),
    "loss": _single("loss", replace(BROADBAND, loss=0.01)),
    "router": _single("router", CABLES),
    "cubic-first": _two("cubic-first", "tcp", ("cubic", UTP), CONTESTED),
    "cubic-second": _two("cubic-second", "tcp", (UTP, "cubic"), CONTESTED),
    "reno-first": _two("reno-first", "tcp", ("reno", UTP), CONTESTED),
    "reno-second": _two("reno-second", "tcp", (UTP, "reno"), CONTESTED),
    "router-cubic-first": _two("router-cubic-first", "tcp", ("cubic", UTP), CABLES),
    "router-reno-first": _two("router-reno-first", "tcp", ("reno", UTP), CABLES),
    "late": _two("late", "late", (UTP, UTP), BROADBAND),
}

# What the table calls them.
TITLES = {
    "one": "10 Mbit/s, 40 ms",
    "fast": "20 Mbit/s, 100 ms",
    "loss": "10 Mbit/s, 40 ms, 1 % loss",
    "router": "10 Mbit/s, router with tbf",
    "cubic-first": "CUBIC first",
    "cubic-second": "CUBIC second",
    "reno-first": "Reno first",
    "reno-second": "Reno second",
    "router-cubic-first": "CUBIC first, router with tbf",
    "router-reno-first": "Reno first, router with tbf",
    "late": "late-comer",
}

# Those of which the bottleneck is the kernel's: their names begin so, also that of TCP alone there.
ROUTED = "router"


def with_candidate(scenario: Scenario, candidate: Candidate) -> Scenario:
    """The scenario with the candidate's target."""
    flows = (replace(flow, target_ms=candidate.target_ms) if flow.kind == UTP else flow for flow in scenario.flows)
    return replace(scenario, flows=tuple(flows))


def is_routed(scenario: Scenario) -> bool:
    """Whether it goes through the router, and not over the link in user space."""
    return scenario.name.startswith(ROUTED)


def alone(scenario: Scenario) -> Scenario:
    """TCP without anybody, from its own start on: the same on a path whoever it is to meet and when."""
    tcp = next(flow for flow in scenario.flows if flow.kind != UTP)
    name = f"{ROUTED}: {tcp.kind}" if is_routed(scenario) else tcp.kind
    return replace(scenario.alone(), name=f"{name} alone", flows=(replace(tcp, start_s=0.0),))
