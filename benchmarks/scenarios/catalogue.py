"""The scenarios.  ``SCENARIOS`` has them by name, in the order of the tables; ``GROUPS`` says what a table is about.

Queues of "q100" hold a hundred packets.  Where nothing else is said the bottleneck has 10 Mbit/s and round trips take
50 ms.  A new scenario is one more line here; what others measured of it goes to ``published.py``.
"""

from __future__ import annotations

from benchmarks.scenarios.controllers import UTP_CONTROLLERS
from benchmarks.scenarios.definitions import UTP, Change, Flow, Path, Queue, Scenario, Span
from benchmarks.scenarios.grid import CELLS
from benchmarks.scenarios.moving import MOVING
from benchmarks.scenarios.paths import PACKET_BYTES
from benchmarks.scenarios.swarms import SWARMS
from benchmarks.scenarios.tcp import WINDOWS

GROUPS: dict[str, str] = {
    "profile": "One transfer on eight paths: Mbit/s with the handshake, use of the path, queue p50/p95 in ms",
    "single": "One flow: Mbit/s, use of the path once it is settled, queue p50/p95 in ms",
    "drift": "Half an hour at 2 Mbit/s, round trips of 40 ms, clocks that drift: use, and queue p50/p95 in ms",
    "loss": "Random loss, 30 s at 10 Mbit/s: Mbit/s",
    "grid": "One transfer on paths of all kinds: Mbit/s, and how much was sent again, the path's own losses included",
    "tcp": "Against one TCP: what it keeps of what it has alone, and its share",
    "many": "TCP + uTP flows: what TCP keeps of what it has alone, its share, mean queue in packets",
    "late": "Two flows: share of the newcomer after 8-12 s, from 10 s on, time to 45/55; queue p50 in ms, use",
    "newcomers": "A newcomer every 5 s: Jain's index at 25-35 and 35-60 s, least by most; queue p50 in ms, use",
    "download": "One sender whose receiver yields: use once it is settled, queue p50/p95 in ms",
    "swarm": "Many flows; TCP comes at 15 s. Use and queue p50/p95 in ms, or what TCP keeps of what it has alone; each"
    " host's flows on each path",
    "target": "The target as a share of a buffer of 100 packets (113.6 ms): TCP's share",
    "paper": "Cases of papers",
    "outage": "Nothing passes from 10 to 15 s: after how long 80 % of the rate are held again, and use from 15 s on",
    "route": "A route that gets longer at 10 s, by so many ms there and back: use from 30 s on, queue p50/p95 in ms",
    "standing": "TCP whose queue hardly moves, on a path of 40 ms: what it keeps of what it has alone, and its share",
    "moving": "Radio, turns, and what batches: use, queue p50/p95 in ms",
    "late-moving": "Two flows on such paths: as for those on still ones",
}

TARGETS = (2, 10, 18, 30, 50, 65, 80, 90, 100, 110, 120)
BUFFER_MS = 100 * PACKET_BYTES * 8 / 10_000

ALL_OF_ONE = ("goodput", "use", "reached", "queue", "resent")

KB = 1024
MB = 1024 * KB


def _profile(name: str, path: Path, transfer_bytes: int, seconds: float = 60) -> Scenario:
    return Scenario(
        f"profile-{name}",
        "profile",
        path,
        (Flow(transfer_bytes=transfer_bytes),),
        seconds,
        cells=ALL_OF_ONE,
    )


def _single(
    name: str,
    path: Path,
    seconds: float,
    spans: tuple[Span, ...] = (),
    cells: tuple[str, ...] = ALL_OF_ONE,
    **flow: int,
) -> Scenario:
    return Scenario(f"single-{name}", "single", path, (Flow(**flow),), seconds, spans, cells)  # type: ignore[arg-type]


def _kilobytes(megabits: float, delay_ms: float, kilobytes: int, **more: float) -> Path:
    return Path(megabits, delay_ms, Queue(kilobytes=kilobytes), **more)  # type: ignore[arg-type]


PROFILES = [
    _profile("lan", _kilobytes(100, 1, 256), 4 * MB),
    _profile("broadband", _kilobytes(10, 20, 64), 1 * MB),
    _profile("loss-1", _kilobytes(10, 20, 64, loss=0.01), 4 * MB),
    _profile("loss-5", _kilobytes(10, 20, 64, loss=0.05), 2 * MB, 120),
    _profile("high-bdp", _kilobytes(20, 100, 512), 2 * MB),
    _profile("shallow", _kilobytes(10, 20, 16), 512 * KB),
    _profile("long", _kilobytes(10, 20, 64), 8 * MB),
    _profile("reorder", _kilobytes(10, 20, 64, reorder=0.02), 512 * KB),
]

SINGLE = [
    *(_single(f"q{packets}", Path(delay_ms=50, queue=Queue(packets=packets)), 60) for packets in (10, 100, 250, 500)),
    _single("20m-rtt100", Path(20, 50, Queue(packets=200)), 30, spans=(Span(4, 30),)),
    _single("20m-rtt200", _kilobytes(20, 100, 512), 30, spans=(Span(4, 30),)),
    _single("satellite", Path(10, 300, Queue(packets=500)), 60, spans=(Span(5, 60),)),
    _single(
        "1g",
        Path(1_000, 10, Queue(packets=800)),
        4,
        spans=(Span(1, 4),),
        outstanding_packets=8_000,
    ),
    _single(
        "step-down",
        Path(10, 20, Queue(kilobytes=256), changes=(Change(20, megabits=4),)),
        40,
        (Span(10, 20, "10 Mbit/s"), Span(20, 40, "4 Mbit/s")),
        ("goodput", "reached", "resent", "spans"),
    ),
    _single(
        "step-up",
        Path(4, 20, Queue(kilobytes=256), changes=(Change(20, megabits=20),)),
        40,
        (Span(10, 20, "4 Mbit/s"), Span(20, 40, "20 Mbit/s")),
        ("goodput", "reached", "resent", "spans"),
    ),
    _single(
        "route-change",
        Path(10, 20, changes=(Change(20, delay_ms=60),)),
        120,
        (Span(25, 60), Span(60, 120)),
        ("goodput", "rates", "reached", "resent", "spans"),
    ),
    _single("jitter-txop", Path(delay_ms=20, gate_ms=20), 60, spans=(Span(5, 60),)),
    _single("jitter-fifo", Path(delay_ms=20, jitter_ms=20), 60, spans=(Span(5, 60),)),
    _single(
        "jitter-iid",
        Path(delay_ms=20, jitter_ms=20, jitter_keeps_order=False),
        60,
        spans=(Span(5, 60),),
    ),
    _single("duplicates", Path(duplicate=0.02), 30),
    Scenario(
        "single-reverse",
        "single",
        Path(back_megabits=1, back_queue=Queue(packets=100)),
        (Flow(start_s=2), Flow("reno", upwards=True)),
        60,
        (Span(10, 60),),
        ALL_OF_ONE,
    ),
    _single(
        "policer",
        Path(100, queue=Queue("policer", megabits=10)),
        60,
        spans=(Span(5, 60),),
    ),
    _single("bursts", Path(delay_ms=20, loss=0.01, burst_packets=5), 30),
    _single("codel", Path(queue=Queue("codel")), 60),
    _single("fq-codel", Path(queue=Queue("fq-codel")), 60),
    _single("red", Path(queue=Queue("red")), 60),
]

DRIFT = [
    Scenario(
        f"drift-{name}",
        "drift",
        Path(2, 20, Queue(kilobytes=256), drift_ppm=ppm),
        (Flow(),),
        1_800,
        (Span(0, 300, "first"), Span(1_500, 1_800, "last")),
        ("spans",),
        controllers=tuple(UTP_CONTROLLERS),
    )
    for name, ppm in (("0", 0.0), ("plus", 30.0), ("minus", -30.0))
]

LOSS = [
    Scenario(
        f"loss-rtt{round_trip_ms}-{percent}%",
        "loss",
        Path(delay_ms=round_trip_ms / 2, loss=percent / 100),
        (Flow(),),
        30,
        cells=("goodput",),
    )
    for round_trip_ms in (40, 100)
    for percent in (0, 0.1, 1, 3, 5)
]

QUEUES = {
    "q40": Queue(packets=40),
    "q100": Queue(packets=100),
    "q500": Queue(packets=500),
    "red": Queue("red"),
    "codel": Queue("codel"),
    "fq-codel": Queue("fq-codel"),
}
ORDERS = {"tcp-first": (0.0, 5.0), "utp-first": (5.0, 0.0), "together": (0.0, 0.0)}

TCP = [
    Scenario(
        f"tcp-{tcp}-{queue}-{order}",
        "tcp",
        Path(queue=QUEUES[queue]),
        (Flow(tcp, tcp_s), Flow(UTP, utp_s)),
        60,
        (Span(10, 60),),
        ("kept", "share"),
    )
    for tcp in WINDOWS
    for queue in QUEUES
    for order, (tcp_s, utp_s) in ORDERS.items()
]

MANY_FLOWS = [
    Scenario(
        f"many-{tcps}+{utps}-{tcp}-{queue}",
        "many",
        Path(queue=QUEUES[queue]),
        (Flow(tcp),) * tcps + (Flow(),) * utps,
        60,
        (Span(10, 60),),
        ("kept", "share", "packets"),
    )
    for tcps, utps, tcp, queue in (
        (3, 1, "reno", "q100"),
        (2, 2, "reno", "q100"),
        (1, 3, "reno", "q100"),
        (3, 1, "cubic", "q100"),
        (2, 2, "cubic", "q100"),
        (5, 5, "reno", "q100"),
        (5, 5, "reno", "q500"),
        (5, 5, "reno", "red"),
        (5, 5, "reno", "fq-codel"),
        (1, 10, "reno", "q40"),
        (1, 10, "reno", "q100"),
        (1, 10, "cubic", "q100"),
    )
]

LATE = [
    Scenario(
        f"late-{queue}-{second_s:g}s",
        "late",
        Path(queue=QUEUES[queue]),
        (Flow(), Flow(start_s=second_s)),
        second_s + 50,
        (Span(second_s + 8, second_s + 12), Span(second_s + 10, second_s + 50)),
        ("newcomer", "late-queue"),
    )
    for queue in ("q40", "q100", "q500")
    for second_s in (1.5, 10)
]

NEWCOMERS = [
    Scenario(
        f"newcomers-{queue}",
        "newcomers",
        Path(queue=QUEUES[queue]),
        tuple(Flow(start_s=5.0 * number) for number in range(5)),
        60,
        (Span(25, 35), Span(35, 60)),
        ("jain", "least", "late-queue"),
    )
    for queue in ("q100", "q500")
]

DOWNLOAD = [
    Scenario(
        f"download-{name}",
        "download",
        path,
        (Flow(receiver_yields=True),),
        40,
        (Span(15, 40),),
        ("use", "queue", "resent"),
        controllers=tuple(UTP_CONTROLLERS),
    )
    for name, path in (
        ("2m-rtt80", Path(2, 40, Queue(packets=300))),
        ("10m-rtt50", Path(queue=Queue(packets=300))),
        ("50m-rtt20", Path(50, 10, Queue(packets=1_000))),
        ("loss-1%", Path(queue=Queue(packets=300), loss=0.01)),
        ("jitter", Path(queue=Queue(packets=300), jitter_ms=10)),
    )
]

TARGET = [
    Scenario(
        f"target-{percent}%-{order}",
        "target",
        Path(),
        (Flow("reno", tcp_s), Flow(UTP, utp_s, target_ms=percent / 100 * BUFFER_MS)),
        60,
        (Span(10, 60),),
        ("share",),
        controllers=tuple(UTP_CONTROLLERS),
    )
    for percent in TARGETS
    for order, (tcp_s, utp_s) in ORDERS.items()
]


def _paper(
    name: str, queue: Queue, flows: tuple[Flow, ...], seconds: float, *cells: str, spans: tuple[Span, ...] = ()
) -> Scenario:
    return Scenario(f"paper-{name}", "paper", Path(queue=queue), flows, seconds, spans, cells)


_SMALL = Flow(target_ms=25)
_OLD = Flow(target_ms=25, slow_start=False)
_OLD_LATE = Flow(start_s=10, target_ms=25, slow_start=False)

PAPERS = [
    _paper("lcn-1+1", Queue(packets=100), (Flow("reno"), _SMALL), 120, "share"),
    _paper("lcn-two", Queue(packets=100), (_SMALL, _SMALL), 120, "first", "jain"),
    _paper("lcn-1+10", Queue(packets=100), (Flow("reno"), *(_SMALL,) * 10), 120, "share"),
    _paper("icccn-s1", Queue(packets=40), (Flow("reno"), _OLD), 14, "share", "jain"),
    _paper(
        "late-q100-no-slow-start",
        Queue(packets=100),
        (_OLD, _OLD_LATE),
        100,
        "first",
        "jain",
        spans=(Span(50, 100),),
    ),
    _paper(
        "late-q100",
        Queue(packets=100),
        (_SMALL, Flow(start_s=10, target_ms=25)),
        100,
        "first",
        "jain",
        spans=(Span(50, 100),),
    ),
    _paper(
        "late-q40-no-slow-start", Queue(packets=40), (_OLD, _OLD_LATE), 100, "first", "jain", spans=(Span(50, 100),)
    ),
    _paper(
        "comnet-s2b",
        Queue(packets=1_000),
        (Flow(), Flow(start_s=10, stop_s=50)),
        70,
        "first",
        spans=(Span(10, 50), Span(30, 50), Span(55, 70)),
    ),
    _paper("s4-drop-tail", Queue(packets=500), (Flow("reno"),) * 5 + (Flow(),) * 5, 60, "share", "packets", "use"),
    *(
        Scenario(
            f"paper-s4-testbed-{count}+{count}",
            "paper",
            Path(0.5, 15, Queue(packets=1_000)),
            (Flow("reno"),) * count + (Flow(),) * count,
            60,
            cells=("share", "packets"),
        )
        for count in (1, 5)
    ),
    _paper("s4-red", Queue("red"), (Flow("reno"),) * 5 + (Flow(),) * 5, 60, "share", "packets", "use"),
    Scenario(
        "paper-deference",
        "paper",
        _kilobytes(10, 20, 256),
        (Flow("reno", transfer_bytes=4 * MB), Flow(start_s=1.5, transfer_bytes=4 * MB)),
        60,
        cells=("goodputs", "kept-goodput", "queue"),
    ),
]

TWO = [
    Scenario(
        "two-flows-8m",
        "late",
        _kilobytes(8, 20, 64),
        (Flow(), Flow(start_s=1.5)),
        51.5,
        (Span(11.5, 51.5),),
        ("total", "first"),
    )
]

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario
    for scenario in [
        *PROFILES,
        *SINGLE,
        *DRIFT,
        *LOSS,
        *CELLS,
        *TCP,
        *MANY_FLOWS,
        *LATE,
        *TWO,
        *NEWCOMERS,
        *DOWNLOAD,
        *TARGET,
        *PAPERS,
        *MOVING,
        *SWARMS,
    ]
}

# A smoke test: short, and of every kind.
QUICK = (
    "profile-broadband",
    "profile-shallow",
    "profile-reorder",
    "loss-rtt40-1%",
    "paper-icccn-s1",
    "paper-deference",
)
