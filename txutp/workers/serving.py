"""How workers are run as a service: which ports they share, which signals they obey, what is said of them.

``python -m txutp.workers``, ``twist utp-workers`` and ``txutp forward --workers`` are this service.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import _parse

from txutp.endpoints import host_and_port
from txutp.strings import read_server
from txutp.workers.parent import Workers, WorkersFailed
from txutp.workers.steering import MAXIMUM_WORKERS

# A string of a port, alone or behind the name of an option.
STRING = re.compile(r"(?:--[\w-]+=)?(utp:.*)", re.DOTALL)

DEFAULT_HANDLERS = (signal.SIG_DFL, None)


def port_of(text: str) -> tuple[str, int]:
    """Returns the interface and the port of a ``utp:`` server string; raises ValueError or TypeError if it is none."""
    words, options = _parse(text)
    if words[:1] != ["utp"] or "fd" in options:
        raise ValueError(f"workers share a port of uTP, which is written utp:PORT, and not {text!r}")
    arguments, _ = read_server(words[1:], options)
    return arguments.get("interface", ""), arguments["port"]


def ports_in(words: Sequence[str]) -> list[tuple[str, int]]:
    """Returns the ports that the words of a command listen on: those of its ``utp:PORT`` strings, each once."""
    found: dict[tuple[str, int], None] = {}
    for word in words:
        match = STRING.fullmatch(word)
        if match is not None:
            with suppress(ValueError, TypeError):  # a client's string, or none at all: the command will say so
                found[port_of(match[1])] = None
    return list(found)


def cores() -> int:
    """Returns the number of cores that this process may use, up to the number of workers that there may be."""
    affinity = getattr(os, "sched_getaffinity", None)
    return min(len(affinity(0)) if affinity is not None else os.cpu_count() or 1, MAXIMUM_WORKERS)


async def serve(reactor: Any, workers: Workers, say: Callable[[str], object]) -> None:
    """Run the workers until SIGTERM or SIGINT, and obey the other signals.

    ``say`` gets sentences for people.  Raises ``CannotListenError`` if a port is taken, and ``WorkersFailed`` if the
    program of a worker ends before it listens.
    """
    if workers.why_one:
        say(workers.why_one)
    ended: Deferred[None] = Deferred()

    def end() -> None:
        if not ended.called:
            ended.callback(None)

    handle(reactor, end, "SIGTERM", "SIGINT")
    workers.startService()
    try:
        ready = workers.when_ready()
        ended.addCallback(lambda result: ready.cancel())
        with suppress(CancelledError):
            await ready
        if not ended.called:
            obey(reactor, workers, say)
            say(served(workers))
            await ended
    finally:
        await workers.stopService()


def obey(reactor: Any, workers: Workers, say: Callable[[str], object]) -> None:
    """Let SIGHUP, SIGTTIN, SIGTTOU and SIGUSR1 restart the workers and print statistics.

    A signal that has a handler already keeps it.
    """
    for name, action in {
        "SIGHUP": lambda: again(workers, 0, say),
        "SIGTTIN": lambda: again(workers, 1, say),
        "SIGTTOU": lambda: again(workers, -1, say),
        "SIGUSR1": lambda: tell(workers),
    }.items():
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) in DEFAULT_HANDLERS:
            handle(reactor, action, name)


def handle(reactor: Any, call: Callable[[], None], *names: str) -> None:
    """Call something in the reactor when a signal of one of these names comes."""
    for name in names:
        # The reactor sets handlers of its own when it starts.
        reactor.callWhenRunning(
            signal.signal, getattr(signal, name), lambda number, frame: reactor.callFromThread(call)
        )


def served(workers: Workers) -> str:
    """Returns a sentence about how many workers serve which ports."""
    where = " and ".join(host_and_port(host, port) for host, port, *_ in workers.addresses)
    return f"{workers.workers} worker{'s' * (workers.workers != 1)} on {where}."


def again(workers: Workers, more: int, say: Callable[[str], object]) -> None:
    """Start a new generation that has ``more`` workers more, and say what became of it."""
    try:
        restarted = workers.restart(workers.workers + more if more else None)
    except (RuntimeError, ValueError, WorkersFailed) as problem:
        say(f"Not restarted: {problem}")
        return
    restarted.addCallbacks(
        lambda result: say(f"Restarted: {served(workers)}"),
        lambda failure: say(f"Not restarted: {failure.getErrorMessage()}"),
    )


def tell(workers: Workers) -> None:
    """Print the statistics of all ports as a line of JSON."""

    def told(statistics: list[Any]) -> None:
        numbers = [address[1] for address in workers.addresses]
        ports = [{"port": number, **asdict(each)} for number, each in zip(numbers, statistics, strict=True)]
        print(json.dumps({"workers": workers.pids, "retiring": workers.retiring, "ports": ports}), flush=True)

    workers.stats().addCallback(told)


def say(words: str) -> None:
    """Print a line for people on standard error."""
    print(words, file=sys.stderr, flush=True)
