"""Paths that move: outages, routes that get longer, radio, Wi-Fi turns, receivers and ways back that batch.

``catalogue.py`` takes it over.  Beside them stand competitors whose queue hardly moves: whoever learns a new route must
not take that for the path.
"""

from __future__ import annotations

from benchmarks.scenarios.definitions import UTP, Change, Flow, Path, Pause, Queue, Radio, Scenario, Shifts, Span
from benchmarks.scenarios.paths import turns_megabits

OUTAGE = (10.0, 15.0)

OUTAGES: dict[str, Path] = {
    "lost": Path(pauses=(Pause(*OUTAGE),)),
    "held": Path(pauses=(Pause(*OUTAGE, held=True),)),
    "held-harq": Path(pauses=(Pause(*OUTAGE, held=True),), harq=0.1),
    "there": Path(pauses=(Pause(*OUTAGE, back=False),)),
    "back": Path(pauses=(Pause(*OUTAGE, there=False),)),
    "acks-held": Path(pauses=(Pause(*OUTAGE, there=False, held=True),)),
    "lost-held": Path(pauses=(Pause(*OUTAGE, back=False), Pause(*OUTAGE, there=False, held=True))),
    "twice": Path(pauses=(Pause(10.0, 12.0), Pause(12.5, 15.0))),
    "longer": Path(pauses=(Pause(*OUTAGE),), changes=(Change(OUTAGE[1], delay_ms=45, back=True),)),
}

MORE_MS = (10, 20, 30, 40, 60, 80, 100)
CHANGE_S = 10.0
LEARNED_S = 30.0
KINDS: dict[str, dict[str, float]] = {
    "still": {},
    "jitter": {"jitter_ms": 5},
    "gate": {"gate_ms": 10},
    "harq": {"harq": 0.1},
}


def _path(**more: object) -> Path:
    return Path(delay_ms=20, **more)  # type: ignore[arg-type]


def _one(name: str, path: Path, seconds: float = 60, from_s: float = 5) -> Scenario:
    return Scenario(
        f"moving-{name}", "moving", path, (Flow(),), seconds, (Span(from_s, seconds),), ("use", "queue", "resent")
    )


def _wifi(turns_ms: float) -> Path:
    return Path(turns_megabits(turns_ms), 10, Queue(packets=500), turns_ms=turns_ms)


JITTERY: dict[str, Path] = {
    "jitter5": _path(jitter_ms=5),
    "jitter20": _path(jitter_ms=20),
    "harq": _path(harq=0.1),
    "gate10": _path(gate_ms=10),
    "wifi5": _wifi(5),
    "radio": Path(radio=Radio(0.2)),
}

MOVING: list[Scenario] = [
    *(
        Scenario(
            f"outage-{name}",
            "outage",
            path,
            (Flow(),),
            40,
            (Span(OUTAGE[1], 40),),
            ("back", "use"),
        )
        for name, path in OUTAGES.items()
    ),
    *(
        Scenario(
            f"route-{kind}-{more_ms}",
            "route",
            _path(changes=(Change(CHANGE_S, delay_ms=20 + more_ms / 2, back=True),), **more),
            (Flow(),),
            60,
            (Span(LEARNED_S, 60),),
            ("use", "queue"),
        )
        for kind, more in KINDS.items()
        for more_ms in MORE_MS
    ),
    *(
        Scenario(
            f"standing-{name}-{order}",
            "standing",
            Path(delay_ms=20, queue=Queue(packets=packets)),
            (Flow(kind, theirs_s), Flow(UTP, ours_s)),
            90,
            (Span(20, 90),),
            ("kept", "share"),
        )
        for name, kind, packets in (
            ("bbr", "bbr-like", 200),
            ("limited", "window-limited", 500),
            ("cubic", "cubic", 500),
        )
        for order, (theirs_s, ours_s) in {"first": (0.0, 5.0), "second": (5.0, 0.0)}.items()
    ),
    _one("satellite", Path(20, 25, Queue(packets=100), jitter_ms=4, shifts=Shifts()), 120),
    *(_one(f"wifi-{turns_ms}", _wifi(turns_ms)) for turns_ms in (2, 5, 10, 20)),
    *(_one(f"reads-{every_ms}", _path(gate_ms=every_ms)) for every_ms in (10, 25, 40)),
    *(_one(f"acks-{every_ms}", _path(acks_every_ms=every_ms)) for every_ms in (10, 25, 40)),
    *(_one(f"thinned-{every_ms}", _path(acks_every_ms=every_ms, acks_thinned=True)) for every_ms in (10, 25, 40)),
    *(_one(f"harq-{percent}", _path(harq=percent / 100)) for percent in (10, 30)),
    _one("cable", _path(grants=True)),
    _one("radio", Path(radio=Radio(), queue=Queue(packets=500))),
    _one("radio-outages", Path(radio=Radio(outages_per_minute=6), queue=Queue(packets=500))),
    *(
        Scenario(
            f"late-{name}",
            "late-moving",
            path,
            (Flow(), Flow(start_s=10)),
            60,
            (Span(18, 22), Span(20, 60)),
            ("newcomer", "late-queue"),
        )
        for name, path in JITTERY.items()
    ),
]
