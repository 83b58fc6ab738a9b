"""The parent of workers: holds the sockets of their ports, starts them, and starts them again when they end.

A generation is all workers that were started together: the first ones, and those of each ``restart``.  Each worker has
its number in its generation, the socket with that number of each port, and a lane (``lanes.py``).  Sockets and lanes
stay when a worker ends, so that its siblings notice nothing.

A restart goes like this.  The new generation starts beside the old one, up to the moment when all of its programs
listen.  Then the old workers stop reading the port, the kernel is told how many workers there are now, and the new ones
begin to read; datagrams wait in the sockets meanwhile.  The old workers keep their connections, whose datagrams the new
ones hand on to them, and are ended when the last one is gone.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txutp.arguments import checked_interface, checked_port
from txutp.core.cookies import KEY_BYTES
from txutp.core.stats import PortStats
from txutp.environment import OPERATING_SYSTEM
from txutp.sharing import canonical, numeric
from txutp.timers import Timer, call_later
from txutp.workers.group import SocketGroup
from txutp.workers.lanes import new_lane
from txutp.workers.member import HEARING, SAYING, VARIABLE
from txutp.workers.steering import MAXIMUM_WORKERS, why_no_steering

# Pauses before a worker is started again, if it has lived for less than the longest of them; doubled each time.
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 30.0

# Time for the workers to end by themselves when the service stops, if nothing else is said; then they are killed.
STOP_SECONDS = 15.0


class WorkersFailed(Exception):
    """The workers could not be started; the text says why."""


def checked_workers(workers: int) -> int:
    """Returns a number of workers; raises ValueError if there cannot be so many."""
    if not isinstance(workers, int) or not 1 <= workers <= MAXIMUM_WORKERS:
        raise ValueError(f"the number of workers is from 1 to {MAXIMUM_WORKERS}, not {workers!r}")
    return workers


class Generation:
    """The workers that were started together."""

    def __init__(self, number: int, workers: int) -> None:
        self.number = number
        self.lanes: list[tuple[socket.socket, socket.socket]] = [new_lane() for _ in range(workers)]
        self.members: list[Member | None] = [None] * workers
        self.ready: Deferred[None] = Deferred()
        self.retired: Deferred[None] = Deferred()
        self.begun = False
        self.failed = False
        self.retiring = False

    def __len__(self) -> int:
        return len(self.members)

    @property
    def living(self) -> list[Member]:
        """The workers that have a process."""
        return [member for member in self.members if member is not None]

    def close_lane(self, number: int) -> None:
        """Let go of the lane of a worker that will not come again: its senders hear that nobody reads it."""
        for end in self.lanes[number]:
            end.close()

    def close(self) -> None:
        """Let go of all lanes."""
        for number in range(len(self.lanes)):
            self.close_lane(number)


class Member(ProcessProtocol):
    """One worker, seen from outside."""

    def __init__(self, workers: Workers, generation: Generation, number: int, pause_seconds: float) -> None:
        self._workers = workers
        self.generation = generation
        self.number = number
        self.pause_seconds = pause_seconds  # before the next process with this number, if this one ends soon
        self.started_us: int = OPERATING_SYSTEM.monotonic_us()
        self.is_ready: bool = False
        self.is_retired: bool = False
        self._is_ending = False
        self.transport: Any
        self._unread = b""
        self._asked: dict[int, Deferred[list[dict[str, Any]]]] = {}

    @property
    def pid(self) -> int:
        """Its process id."""
        return int(self.transport.pid)

    def say(self, words: dict[str, Any]) -> None:
        """Tell the process something."""
        with suppress(KeyError):  # its end of the pipe is closed: it is about to end
            self.transport.writeToChild(HEARING, json.dumps(words).encode() + b"\n")

    def signal(self, number: int) -> None:
        """Send it a signal, if it is there still; SIGTERM once, for a reactor that stops complains of another one."""
        if number == signal.SIGTERM and self._is_ending:
            return
        self._is_ending = self._is_ending or number == signal.SIGTERM
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)

    def ask(self) -> Deferred[list[dict[str, Any]]]:
        """Fires with the statistics of its ports; with none if it ends before."""
        question = len(self._asked)
        while question in self._asked:
            question += 1
        answer = self._asked[question] = Deferred()
        self.say({"stats": question})
        return answer

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            words: dict[str, Any] = json.loads(line)
            if "ports" in words:
                self._asked.pop(words["stats"]).callback(words["ports"])
            elif "ready" in words:
                self.is_ready = True
                self._workers.is_ready(self)
            elif "retired" in words:
                self.is_retired = True
                self._workers.is_retired(self)
            elif "empty" in words:
                self.signal(signal.SIGTERM)

    def processEnded(self, reason: Failure) -> None:
        asked, self._asked = self._asked, {}
        for answer in asked.values():
            answer.callback([])
        self._workers.has_ended(self, reason)


class Workers(Service):
    """A service: a number of processes that run one program, and share the UDP ports that it listens on."""

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        program: Sequence[str],
        workers: int,
        ports: Sequence[tuple[str, int]],
        environment: Mapping[str, str] | None = None,
        sockets: Mapping[tuple[str, int], Sequence[socket.socket]] | None = None,
        stop_seconds: float = STOP_SECONDS,
    ) -> None:
        """``program`` is a Python file, a command, or ``-m`` and a module, with its arguments.

        ``ports`` are (interface, port) as the program gives them to ``listenUTP`` or in its ``utp:`` strings; it has to
        listen on all of them.  Port 0 is one that the system chooses once, for all workers.  ``sockets`` are those of
        some of the ports, if others have bound them: one for each worker, with SO_REUSEPORT, in the order of binding.
        The service closes them.  Workers that have not ended ``stop_seconds`` after the service was stopped are killed.
        """
        workers = checked_workers(workers)
        if not program:
            raise ValueError("a program is needed: a file, a command, or -m and a module")
        if not ports:
            raise ValueError("at least one port is needed that the workers share")
        self._reactor = reactor
        self._program = list(program)
        self._environment = dict(os.environ if environment is None else environment)
        self._asked = [(checked_interface(interface), checked_port(port, 0)) for interface, port in ports]
        self.why_one: str = why_no_steering()
        self.workers: int = 1 if self.why_one else workers
        self._given = dict(sockets or {})
        self._stop_seconds = stop_seconds
        self._key = os.urandom(KEY_BYTES)
        self._groups: list[SocketGroup] = []
        self._generations: list[Generation] = []  # that live, the newest last
        self._next_generation = 0
        self._starting: dict[tuple[Generation, int], Timer] = {}
        self._stopped: Deferred[None] | None = None
        self._next: Generation | None = None  # that is being started by a restart
        self._waiting: list[Deferred[None]] = []  # for the first generation
        self._failure: Failure | None = None  # of the first generation

    # -- the life of the service --

    def startService(self) -> None:
        """Bind the ports and start the workers; raises ``CannotListenError``."""
        if self.why_one:
            self._log.warn("{problem}", problem=self.why_one)
        self._groups = []
        try:
            for interface, port in self._asked:
                host = numeric(interface, port, socket.AF_INET)
                given = self._given.pop((interface, port), ())
                self._groups.append(SocketGroup(host, port, self.workers, not self.why_one, given))
        except BaseException:
            self._close_groups()
            raise
        super().startService()
        self._failure = None
        first = self._new_generation(self.workers)
        self._generations = [first]
        first.ready.addCallbacks(self._begin, self._could_not_start, callbackArgs=(first,))
        first.ready.addCallback(self._tell_waiting)

    def _could_not_start(self, failure: Failure) -> None:
        self._failure = failure

    def _tell_waiting(self, result: None) -> None:
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(self._failure)

    def stopService(self) -> Deferred[None]:
        """End the workers as SIGTERM does; fires when all of them have ended."""
        super().stopService()
        self._stopped = Deferred()
        for timer in self._starting.values():
            timer.cancel()
        self._starting.clear()
        self._signal(signal.SIGTERM)
        killing = call_later(self._reactor, self._stop_seconds, self._signal, signal.SIGKILL)
        stopped = self._stopped
        self._check_stopped()

        def ended(result: None) -> None:
            if killing.active():
                killing.cancel()

        return stopped.addCallback(ended)

    def _signal(self, number: int) -> None:
        for generation in self._all:
            for member in generation.living:
                member.signal(number)

    @property
    def _all(self) -> list[Generation]:
        """All generations, with that which is being started."""
        return [*self._generations, *([] if self._next is None else [self._next])]

    def _check_stopped(self) -> None:
        if self._stopped is None or any(generation.living for generation in self._all):
            return
        stopped, self._stopped = self._stopped, None
        generations = self._all
        self._generations, self._next = [], None
        for generation in generations:
            generation.close()
            awaited = generation.retired if generation.retiring else generation.ready
            if not awaited.called:
                awaited.errback(WorkersFailed("the service has stopped"))
        self._close_groups()
        stopped.callback(None)

    def _close_groups(self) -> None:
        for group in self._groups:
            group.close()

    # -- questions --

    @property
    def addresses(self) -> list[tuple[Any, ...]]:
        """What the ports are bound to, in the order of ``ports``."""
        return [group.address for group in self._groups]

    @property
    def pids(self) -> list[int | None]:
        """The process of each worker, by its number; None while it has none."""
        if not self._generations:
            return []
        return [None if member is None else member.pid for member in self._generations[-1].members]

    @property
    def retiring(self) -> int:
        """Processes of former generations that still have connections."""
        return sum(len(generation.living) for generation in self._generations[:-1])

    def when_ready(self) -> Deferred[None]:
        """Fires when the workers that were started first listen; ``WorkersFailed`` if one of them ends before."""
        ready: Deferred[None] = Deferred()
        self._waiting.append(ready)
        if self._failure is not None or any(generation.begun for generation in self._generations):
            self._tell_waiting(None)
        return ready

    def stats(self) -> Deferred[list[PortStats]]:
        """Fires with the statistics of each port, summed over all workers; buffers are those of all sockets.

        What workers have counted that were killed is not in it.
        """
        answers = [member.ask() for generation in self._all for member in generation.living if member.is_ready]
        return DeferredList(answers).addCallback(self._summed)

    def _summed(self, answers: list[tuple[bool, list[dict[str, Any]]]]) -> list[PortStats]:
        sums: list[dict[str, int | None]] = [{field.name: 0 for field in fields(PortStats)} for _ in self._groups]
        for _, ports in answers:
            for port in ports:
                total = sums[port["place"]]
                for name in total:
                    before, more = total[name], port[name]
                    total[name] = None if before is None or more is None else before + more
        return [PortStats(**total) for total in sums]  # type: ignore[arg-type]

    # -- restarts --

    def restart(self, workers: int | None = None) -> Deferred[None]:
        """Start a new generation, of another size if ``workers`` is given; fires when it has taken over.

        Connections stay with the workers that have them, which end with the last of theirs.  If a new worker ends
        before it listens, all goes on as it was: ``WorkersFailed``.
        """
        wanted = self.workers if workers is None or self.why_one else checked_workers(workers)
        if self._next is not None or not self._generations or not self._generations[-1].begun:
            raise RuntimeError("the workers are being started already")
        before = self._generations[-1]
        try:
            new = self._next = self._new_generation(wanted)
        except OSError as problem:
            for group in self._groups:
                group.drop_unused(self.workers)
            raise WorkersFailed(f"there is no socket for another worker: {problem}") from problem

        def retire(result: None) -> Deferred[None]:
            before.retiring = True
            for (generation, number), timer in list(self._starting.items()):
                if generation is before:
                    timer.cancel()
                    del self._starting[generation, number]
            for member in before.living:
                member.say({"retire": True})
            self._check_retired(before)
            return before.retired

        def take_over(result: None) -> None:
            self._next = None
            self._generations.append(new)
            self.workers = wanted
            for group in self._groups:
                group.steer_to(wanted)
                group.drop_unused(wanted)
            self._begin(None, new)
            self._check_gone(before)

        def failed(failure: Failure) -> Failure:
            self._next = None
            for group in self._groups:
                group.drop_unused(self.workers)
            return failure

        return new.ready.addCallback(retire).addCallbacks(take_over, failed)

    def _new_generation(self, workers: int) -> Generation:
        generation = Generation(self._next_generation, workers)
        self._next_generation += 1
        for group in self._groups:
            while len(group.sockets) < workers:
                group.add()
        for number in range(workers):
            self._start(generation, number, FIRST_PAUSE_SECONDS)
        return generation

    def _begin(self, result: None, generation: Generation) -> None:
        generation.begun = True
        for member in generation.living:
            if member.is_ready:
                member.say({"begin": True})

    # -- processes --

    def _start(self, generation: Generation, number: int, pause_seconds: float) -> None:
        """Start the process of one worker."""
        self._starting.pop((generation, number), None)
        living = [*(each for each in self._generations if each.number < generation.number), generation]
        nothing = os.open(os.devnull, os.O_RDONLY)
        descriptors: dict[int, Any] = {0: nothing, 1: 1, 2: 2, SAYING: "r", HEARING: "w"}

        def given(end: socket.socket) -> int:
            descriptors[len(descriptors)] = end.fileno()
            return len(descriptors) - 1

        described = {
            "number": number,
            "workers": len(generation),
            "generation": generation.number,
            "cookie_key": self._key.hex(),
            "generations": {each.number: len(each) for each in living},
            "ports": [
                {
                    "interface": canonical(numeric(interface, port, socket.AF_INET)) or "0.0.0.0",
                    "port": port,
                    "descriptor": given(group.sockets[number]),
                }
                for (interface, port), group in zip(self._asked, self._groups, strict=True)
            ],
            "reading": given(generation.lanes[number][0]),
            "lanes": [
                (each.number, other, given(lane[1]))
                for each in living
                for other, lane in enumerate(each.lanes)
                if (each, other) != (generation, number) and lane[1].fileno() != -1
            ],
        }
        member = generation.members[number] = Member(self, generation, number, pause_seconds)
        self._reactor.spawnProcess(
            member,
            sys.executable,
            [sys.executable, "-m", "txutp.workers.child", *self._program],
            env={**self._environment, VARIABLE: json.dumps(described)},
            childFDs=descriptors,
        )
        os.close(nothing)

    def is_ready(self, member: Member) -> None:
        """The program of a worker listens."""
        generation = member.generation
        if generation.begun:
            if not generation.retiring:
                member.say({"begin": True})
        elif all(each is not None and each.is_ready for each in generation.members) and not generation.ready.called:
            generation.ready.callback(None)

    def is_retired(self, member: Member) -> None:
        """A worker does not read its port any more."""
        self._check_retired(member.generation)

    def _check_retired(self, generation: Generation) -> None:
        waits = generation.retiring and not generation.retired.called
        if waits and all(member.is_retired for member in generation.living if member.is_ready):
            generation.retired.callback(None)

    def has_ended(self, member: Member, reason: Failure) -> None:
        """The process of a worker has ended."""
        generation, number = member.generation, member.number
        generation.members[number] = None
        if not self.running:
            self._check_stopped()
            return
        if generation.failed:
            if not generation.living and generation not in self._generations:
                generation.close()
            return
        if generation.retiring:
            generation.close_lane(number)
            self._check_retired(generation)
            self._check_gone(generation)
            return
        if not generation.ready.called:
            self._give_up(generation, member, reason)
            return
        lived_seconds = (OPERATING_SYSTEM.monotonic_us() - member.started_us) / 1e6
        pause_seconds = FIRST_PAUSE_SECONDS if lived_seconds > LONGEST_PAUSE_SECONDS else member.pause_seconds
        self._log.error(
            "worker {number} has ended ({reason}), and is started again in {pause_seconds} s",
            number=number,
            reason=reason.getErrorMessage(),
            pause_seconds=pause_seconds,
        )
        following_seconds = min(2 * pause_seconds, LONGEST_PAUSE_SECONDS)
        self._starting[generation, number] = call_later(
            self._reactor, pause_seconds, self._start, generation, number, following_seconds
        )

    def _give_up(self, generation: Generation, member: Member, reason: Failure) -> None:
        """A worker has ended before all programs of its generation listened: end the whole generation."""
        for other in generation.living:
            other.signal(signal.SIGTERM)
        words = f"worker {member.number} ended before it listened: {reason.getErrorMessage()}"
        generation.failed = True
        generation.ready.errback(WorkersFailed(words))

    def _check_gone(self, generation: Generation) -> None:
        """Tell the others when the last worker of a former generation has ended."""
        if generation.living or generation is self._generations[-1] or generation not in self._generations:
            return
        self._generations.remove(generation)
        for other in self._generations:
            for member in other.living:
                member.say({"gone": generation.number})
        generation.close()
