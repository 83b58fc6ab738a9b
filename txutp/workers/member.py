"""A worker, seen from inside: the process that ``parent.py`` has started, with the sockets that it was given.

``child.py`` calls ``begin`` before the program starts.  When the program listens on a port that the workers share,
``sharing.py`` asks here for it.  What the parent has to say comes in lines of JSON, and so do our answers.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, MutableMapping
from dataclasses import asdict
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.error import ConnectionDone
from twisted.internet.fdesc import setNonBlocking
from twisted.logger import Logger
from twisted.python.failure import Failure

from txutp import sharing
from txutp.core.connection import Connection
from txutp.core.settings import Settings
from txutp.core.stats import PortStats
from txutp.port import stats_of
from txutp.protocol import UTPProtocol
from txutp.workers.lanes import Item, Lane, LaneReader
from txutp.workers.settings import part_of
from txutp.workers.steered import SteeredProtocol, WorkerPort

VARIABLE = "TXUTP_WORKER"

# The descriptors of the control channel.
SAYING, HEARING = 3, 4

READ_BYTES = 65_536

_this: Worker | None = None


class Worker:
    """This process, as one of several that share UDP ports."""

    _log = Logger()

    def __init__(self, described: dict[str, Any]) -> None:
        self.number: int = described["number"]
        self.workers: int = described["workers"]
        self.generation: int = described["generation"]
        self.cookie_key: bytes = bytes.fromhex(described["cookie_key"])
        self._ports: list[dict[str, Any]] = described["ports"]
        self._living: dict[int, int] = {int(number): workers for number, workers in described["generations"].items()}
        self._lane_descriptors: dict[tuple[int, int], int] = {
            (generation, number): descriptor for generation, number, descriptor in described["lanes"]
        }
        self._reading_descriptor: int = described["reading"]
        self._lanes: dict[tuple[int, int], Lane] = {}
        self._written: set[Lane] = set()
        self._open: list[SteeredProtocol] = []
        self._control: Control | None = None
        self._begun = False
        self._retired = False

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.number} of {self.workers}>"

    def part_of(self, limit: int) -> int:
        """Returns this worker's part of a limit that is meant for all of them together.

        Raises ValueError if the limit is below the number of workers, each of which needs one.
        """
        if limit < self.workers:
            raise ValueError(f"{self.workers} workers cannot share a limit of {limit}; each of them needs one at least")
        return part_of(limit, self.number, self.workers)

    @property
    def descriptors(self) -> list[int]:
        """All file descriptors that the parent has given to this process."""
        ports = [port["descriptor"] for port in self._ports]
        return [SAYING, HEARING, self._reading_descriptor, *self._lane_descriptors.values(), *ports]

    # -- called by sharing.py --

    def port(
        self,
        reactor: Any,
        interface: str,
        number: int,
        settings: Settings,
        accept: Callable[[Connection], None],
        prefix: str,
    ) -> UTPProtocol | None:
        """The port that the program wants to listen on, if it is one that the workers share."""
        for place, port in enumerate(self._ports):
            if (port["interface"], port["port"]) == (interface, number) and self._is_free(place):
                return self._opened(reactor, place, settings, accept, prefix)
        return None

    def _is_free(self, place: int) -> bool:
        return not self._retired and all(utp.place != place for utp in self._open)

    def _opened(
        self, reactor: Any, place: int, settings: Settings, accept: Callable[[Connection], None], prefix: str
    ) -> UTPProtocol:
        if self._control is None:
            self._connect(reactor)
        taken = sharing.bound_socket(self._ports[place]["descriptor"])
        utp = SteeredProtocol(reactor, settings, accept, prefix, place, self)
        try:
            WorkerPort(taken, utp, reactor).startListening()
        except BaseException:
            taken.close()
            raise
        self._open.append(utp)
        if self._begun:
            utp.begin()
        elif len(self._open) == len(self._ports):
            self._say({"ready": True})
        return utp

    def _connect(self, reactor: Any) -> None:
        self._control = Control(reactor, self._told)
        reading = socket.socket(fileno=self._reading_descriptor)
        LaneReader(reactor, reading, self._take).startReading()
        for key, descriptor in self._lane_descriptors.items():
            self._lanes[key] = Lane(reactor, socket.socket(fileno=descriptor))

    # -- called by SteeredProtocol --

    def predecessors(self) -> list[tuple[int, int]]:
        """Generations that live on, the newest first, and how many workers each of them has."""
        living = self._living
        if len(living) == 1:
            return []
        return sorted(((each, living[each]) for each in living if each < self.generation), reverse=True)

    def send(self, generation: int, number: int, item: Item, size_bytes: int) -> bool:
        """Hand an item to a worker; returns whether it may arrive there."""
        lane = self._lanes.get((generation, number))
        if lane is None or not lane.is_open:
            return False
        lane.add(item, size_bytes)
        self._written.add(lane)
        return True

    def flush(self) -> None:
        """Let what was handed on leave."""
        if self._written:
            written, self._written = self._written, set()
            for lane in written:
                lane.flush()

    def stopped(self, utp: SteeredProtocol) -> None:
        """A UDP port has closed."""
        if utp in self._open:
            self._open.remove(utp)
        self._tell_if_empty()

    def _tell_if_empty(self) -> None:
        if self._retired and not self._open:
            self._say({"empty": True})

    def _take(self, items: list[Item]) -> None:
        """What other workers have handed on."""
        for item in items:
            for utp in self._open:
                if utp.place == item[1]:
                    try:
                        utp.take_item(item)
                    except Exception:
                        self._log.failure("a datagram from another worker raised")
        self.flush()
        for utp in list(self._open):
            utp.settle()

    # -- the control channel --

    def _say(self, words: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.write(json.dumps(words).encode() + b"\n")

    def _told(self, words: dict[str, Any]) -> None:
        if "begin" in words and not self._retired:
            self._begun = True
            for utp in self._open:
                utp.begin()
        if "retire" in words:
            self._retired = True
            for utp in list(self._open):
                utp.retire()
            self._say({"retired": True})
            self._tell_if_empty()
        if "gone" in words:
            self._living.pop(words["gone"], None)
            for key in [key for key in self._lanes if key[0] == words["gone"]]:
                self._lanes.pop(key).close()
        if "stats" in words:
            self._say({"stats": words["stats"], "ports": self._stats()})

    def _stats(self) -> list[dict[str, Any]]:
        """The statistics of each port, with what only workers count."""
        lost = sum(lane.lost for lane in self._lanes.values())
        found: list[dict[str, Any]] = []
        for utp in self._open:
            stats: PortStats = stats_of(utp)
            found.append({"place": utp.place, "handed_on": utp.handed_on, "lost": lost, **asdict(stats)})
        return found


class Control(FileDescriptor):  # type: ignore[misc, unused-ignore]
    """The two pipes to the parent; without a parent the process ends as SIGTERM lets it."""

    def __init__(self, reactor: Any, told: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(reactor)
        self._told = told
        self._unread = b""
        self.connected = 1
        for descriptor in (SAYING, HEARING):
            setNonBlocking(descriptor)
        self.startReading()

    def fileno(self) -> int:
        return HEARING

    def logPrefix(self) -> str:
        return "txutp worker"

    def write(self, data: bytes) -> None:
        """Say a line; a parent that does not listen any more hears nothing."""
        try:
            os.write(SAYING, data)
        except OSError:
            return

    def doRead(self) -> None:
        try:
            data = os.read(HEARING, READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        if not data:
            self._parent_ended()
            return
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._told(json.loads(line))

    def connectionLost(self, reason: Failure) -> None:
        # some reactors say so instead of letting us read the end; a reactor that stops says ConnectionLost
        if reason.check(ConnectionDone):
            self._parent_ended()

    def _parent_ended(self) -> None:
        self.stopReading()
        os.kill(os.getpid(), signal.SIGTERM)


def begin(environment: MutableMapping[str, str]) -> Worker:
    """Become the worker that the environment describes; its children do not.  KeyError if it describes none."""
    global _this
    _this = Worker(json.loads(environment.pop(VARIABLE)))
    sharing.given.append(_this.port)
    for descriptor in _this.descriptors:
        os.set_inheritable(descriptor, False)
    return _this


def this_worker() -> Worker | None:
    """The worker that this process is; None if it is an ordinary process."""
    return _this
