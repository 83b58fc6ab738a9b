"""Scenarios of many flows at once: alone, beside TCP, from several hosts, and to several bottlenecks.

``catalogue.py`` adds them to the others.  Each flow has a connection of its own; those of one host leave from one UDP
port, as those of a torrent client do.
"""

from __future__ import annotations

from benchmarks.scenarios.controllers import UTP_CONTROLLERS
from benchmarks.scenarios.definitions import Flow, Path, Queue, Scenario, Span

Q100, Q500 = Queue(packets=100), Queue(packets=500)

# TCP comes when the swarm has settled.
TCP_COMES_S = 15.0
SPANS = (Span(20, 40),)
ALONE = ("use", "queue", "swarm")
BESIDE_TCP = ("kept", "swarm")

# A path that is slower and longer than the usual one.
ELSEWHERE = Path(4, 60, Q100)


def _swarm(
    name: str, queue: Queue, flows: tuple[Flow, ...], cells: tuple[str, ...], elsewhere: Path | None = None
) -> Scenario:
    return Scenario(
        f"swarm-{name}",
        "swarm",
        Path(queue=queue),
        flows,
        40,
        SPANS,
        cells,
        controllers=tuple(UTP_CONTROLLERS),
        elsewhere=elsewhere,
    )


SWARMS = [
    *(_swarm(f"{count}-q100", Q100, (Flow(),) * count, ALONE) for count in (10, 20, 30, 50, 200)),
    _swarm("200-q500", Q500, (Flow(),) * 200, ALONE),
    *(
        _swarm(f"{count}+{tcp}-{name}", queue, (Flow(tcp, TCP_COMES_S), *(Flow(),) * count), BESIDE_TCP)
        for tcp, count, name, queue in (
            ("cubic", 10, "q100", Q100),
            ("cubic", 50, "q100", Q100),
            ("cubic", 50, "q500", Q500),
            ("cubic", 200, "q500", Q500),
            ("reno", 50, "q100", Q100),
        )
    ),
    _swarm("25-then-25", Q100, (Flow(),) * 25 + (Flow(start_s=15),) * 25, ALONE),
    _swarm("two-hosts", Q100, (Flow(),) * 25 + (Flow(host=1),) * 25, ALONE),
    _swarm("40-and-10", Q100, (Flow(),) * 40 + (Flow(host=1),) * 10, ALONE),
    _swarm("beside-singles", Q100, (Flow(),) * 40 + tuple(Flow(host=host) for host in (1, 2, 3)), ALONE),
    _swarm("two-paths", Q100, (Flow(),) * 20 + (Flow(elsewhere=True),) * 20, ALONE, ELSEWHERE),
    _swarm("one-elsewhere", Q100, (Flow(),) * 50 + (Flow(elsewhere=True),), ALONE, ELSEWHERE),
]
