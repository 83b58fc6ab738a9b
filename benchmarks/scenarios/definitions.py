"""What a scenario says.  ``catalogue.py`` is written in these words; ``paths.py`` and ``flows.py`` make it happen."""

from __future__ import annotations

from dataclasses import dataclass, replace

UTP = "utp"  # as kind of a flow: whatever controller is being looked at


@dataclass(frozen=True)
class Queue:
    """What waits at a link; ``kind`` is a name in ``paths.QUEUES``."""

    kind: str = "drop-tail"
    packets: int | None = None
    kilobytes: int | None = None
    """Of 1024 bytes."""
    megabits: float = 0.0
    """The rate of a policer."""


@dataclass(frozen=True)
class Change:
    """The path is another one from now on."""

    at_s: float
    megabits: float | None = None
    delay_ms: float | None = None
    """One way..."""
    back: bool = False
    """...or both."""


@dataclass(frozen=True)
class Pause:
    """Nothing passes for a while."""

    from_s: float
    to_s: float
    held: bool = False
    """What comes meanwhile arrives when it is over; otherwise it is lost."""
    there: bool = True
    """The way of the data has it."""
    back: bool = True
    """The way of the acks has it."""


@dataclass(frozen=True)
class Shifts:
    """A path whose length changes again and again, as that of a satellite in a low orbit does."""

    every_s: float = 15.0
    spread_ms: float = 20.0
    """Both ways together are up to half of this longer or shorter."""


@dataclass(frozen=True)
class Radio:
    """A made-up cell, see ``txutp.testing.Trace.generate``; ``Path.megabits`` is its mean rate."""

    volatility: float = 0.5
    outages_per_minute: float = 0.0


@dataclass(frozen=True)
class Path:
    """A bottleneck between two hosts.  All but the ``back_`` fields tell of the way of the data."""

    megabits: float = 10.0
    delay_ms: float = 25.0
    """One way; both have it."""
    queue: Queue = Queue(packets=100)
    back_megabits: float = 0.0
    """Rate of the way back; 0 is without limit."""
    back_queue: Queue = Queue(packets=100)
    loss: float = 0.0
    """Per packet, on both ways."""
    burst_packets: float = 0.0
    """Where ``loss`` comes in bursts: their mean length."""
    reorder: float = 0.0
    """Packets that arrive 20 ms late, on both ways."""
    duplicate: float = 0.0
    jitter_ms: float = 0.0
    """Up to so much is added to each delay."""
    jitter_keeps_order: bool = True
    gate_ms: float = 0.0
    """Packets arrive together so often."""
    changes: tuple[Change, ...] = ()
    pauses: tuple[Pause, ...] = ()
    shifts: Shifts | None = None
    radio: Radio | None = None
    harq: float = 0.0
    """The share of the blocks of a millisecond that the radio sends again, 8 ms later."""
    turns_ms: float = 0.0
    """A Wi-Fi that others have for so long between two turns, which carry 64 packets each; ``megabits`` is its use."""
    grants: bool = False
    """A cable's way up, where each packet waits for a grant."""
    acks_every_ms: float = 0.0
    """Acks come back together so often..."""
    acks_thinned: bool = False
    """...and of those that do only the newest of each flow."""
    drift_ppm: float = 0.0
    """How much faster the receiver's clock runs than the sender's."""

    def megabits_at(self, at_s: float) -> float:
        """What it carries at a time, headers included."""
        megabits = self.queue.megabits or self.megabits
        for change in self.changes:
            if change.megabits is not None and at_s >= change.at_s:
                megabits = change.megabits
        return megabits


@dataclass(frozen=True)
class Flow:
    """A transfer that has always something to send."""

    kind: str = UTP
    """``UTP``, or a name in ``standing.COMPETITORS``."""
    start_s: float = 0.0
    stop_s: float | None = None
    transfer_bytes: int | None = None
    """None is without end."""
    upwards: bool = False
    """Against the others: its acks use the bottleneck."""
    target_ms: float | None = None
    slow_start: bool = True
    outstanding_packets: int | None = None
    receiver_yields: bool = False
    """Whether the receiver holds the sender back (``txutp/core/downlink.py``); else all is up to the controller."""
    host: int = 0
    """Of the sender; each has a clock of its own, and all share the path."""
    elsewhere: bool = False
    """It goes to another receiver, on the scenario's other path."""


@dataclass(frozen=True)
class Span:
    """A part of a run that is looked at by itself."""

    from_s: float
    to_s: float
    label: str = ""


@dataclass(frozen=True)
class Scenario:
    """A path, flows, and what to tell of them; ``cells`` are names in ``report.CELLS``."""

    name: str
    group: str
    path: Path
    flows: tuple[Flow, ...]
    seconds: float
    spans: tuple[Span, ...] = ()
    cells: tuple[str, ...] = ()
    controllers: tuple[str, ...] | None = None
    """If it makes sense for some only."""
    elsewhere: Path | None = None
    """Another path, of which nothing but the rates of its flows is told."""

    @property
    def hosts(self) -> int:
        """How many hosts send."""
        return max(flow.host for flow in self.flows) + 1

    @property
    def has_tcp(self) -> bool:
        """Whether TCP is there whatever controller is looked at."""
        return any(flow.kind != UTP and not flow.upwards for flow in self.flows)

    @property
    def ends(self) -> bool:
        """Whether it is over when all flows have sent what they have."""
        return all(flow.transfer_bytes is not None for flow in self.flows)

    def alone(self) -> Scenario:
        """The same with TCP alone, for what that would have had."""
        kept = tuple(flow for flow in self.flows if flow.kind != UTP)
        return replace(self, flows=kept, name="alone", group="", cells=(), controllers=None)
