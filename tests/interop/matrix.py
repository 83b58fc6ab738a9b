"""The words of the matrix of peers: peers, rows and cells.  ``table.py`` has the matrix itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from .places import LOOPBACK, Ground, Place

WE_CONNECT = "we connect"
THEY_CONNECT = "they connect"
ROLES = (WE_CONNECT, THEY_CONNECT)

STREAMS = "streams"
TORRENTS = "torrents"

Play = Callable[["Cell", Place], Awaitable[str | None]]


@dataclass(frozen=True)
class Peer:
    """Another implementation of uTP: how to run it, and what it speaks."""

    name: str
    command: Callable[[], tuple[str, ...]]
    speaks: str
    version: Callable[[], str]
    missing: Callable[[], str]
    """What has to be installed before it runs, as a sentence; empty if all is there."""
    by_hand: bool = False
    """Whether tests/run leaves it out."""
    half_closes: bool = True
    """Whether it can send after the other side's end; if not, either side ends when it has sent and received all."""
    patience_seconds: float = 0
    """How much longer than others it takes to do what a row wants."""


@dataclass(frozen=True)
class Row:
    """A scenario: what it is called, and how to play it with peers of either language."""

    name: str
    title: str
    streams: Play
    torrents: Play | None = None
    ground: Ground = LOOPBACK
    length: int = 0
    limit_seconds: float = 30
    by_hand: bool = False
    connections: int = 1
    silence_seconds: float = 0
    keepalive_us: int | None = None
    stock_buffers: bool = False


@dataclass(frozen=True)
class Cannot:
    """Something that a peer does not do, with anybody."""

    reason: str

    @property
    def note(self) -> str:
        return f"The peer cannot: {self.reason}."


@dataclass(frozen=True)
class Untried(Cannot):
    """Something that the tests do not ask of a peer."""

    @property
    def note(self) -> str:
        return f"Not tried: {self.reason}."


@dataclass(frozen=True)
class Less:
    """A peer gets fewer bytes than the row says."""

    length: int
    reason: str

    @property
    def note(self) -> str:
        return f"With {self.length:,} bytes: {self.reason}."


@dataclass(frozen=True)
class ByHand:
    """A cell that tests/run leaves out."""

    reason: str

    @property
    def note(self) -> str:
        return f"Not part of `tests/run`: {self.reason}."


Limit = Cannot | Less | ByHand


@dataclass(frozen=True)
class Cell:
    """One row with one peer in one role."""

    row: Row
    peer: Peer
    role: str
    limits: tuple[Limit, ...] = field(default=())

    @property
    def name(self) -> str:
        return f"{self.row.name}, {self.peer.name}, {self.role}"

    @property
    def cannot(self) -> str:
        """Why this cannot be played with this peer; empty if it can."""
        return next((limit.reason for limit in self.limits if isinstance(limit, Cannot)), "")

    @property
    def length(self) -> int:
        """How many bytes there are to carry."""
        return next((limit.length for limit in self.limits if isinstance(limit, Less)), self.row.length)

    @property
    def limit_seconds(self) -> float:
        """When it has failed."""
        return self.row.limit_seconds + self.peer.patience_seconds

    @property
    def by_hand(self) -> bool:
        """Whether tests/run leaves it out."""
        return self.peer.by_hand or self.row.by_hand or any(isinstance(limit, ByHand) for limit in self.limits)

    @property
    def play(self) -> Play:
        """The scenario in the language of the peer."""
        play = self.row.streams if self.peer.speaks == STREAMS else self.row.torrents
        assert play is not None, f"{self.name} is neither played nor declared impossible"
        return play
