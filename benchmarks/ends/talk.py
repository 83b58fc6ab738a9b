"""How an end talks to who measures it, and its clocks."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.internet.task import react
from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import implementer

Words = dict[str, Any]


def cpu_seconds() -> float:
    """What this process has used so far, in user and kernel mode."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def say(words: Words) -> None:
    """One line to whoever started us."""
    print(json.dumps(words), flush=True)


def told() -> tuple[str, Words]:
    """The verb and the options of the command line."""
    verb, options = sys.argv[1:]
    return verb, json.loads(options)


def run(verbs: dict[str, Callable[..., Any]]) -> None:
    """Do what the command line says, in Twisted's reactor."""
    verb, options = told()
    globalLogPublisher.addObserver(fail)
    react(verbs[verb], [options])


@implementer(ILogObserver)
def fail(event: dict[str, Any]) -> None:
    """An error that Twisted would only log ends this process: otherwise it might wait for ever."""
    if "log_failure" in event:
        print(f"{event['log_failure'].getErrorMessage()}", file=sys.stderr, flush=True)
        os._exit(1)


class Stopwatch:
    """Seconds and CPU seconds from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._cpu_began = cpu_seconds()

    def read(self) -> Words:
        return {"seconds": time.monotonic() - self._began, "cpu_seconds": cpu_seconds() - self._cpu_began}


class Questions(Protocol):
    """Standard input and output: each line that comes is answered by calling a function."""

    transport: Any

    def __init__(self, reactor: Any, answer: Callable[[], None]) -> None:
        self._answer = answer
        StandardIO(self, reactor=reactor)

    def say(self, words: Words) -> None:
        """A line to whoever started us; standard output does not block here, so ``print`` will not do."""
        self.transport.write(json.dumps(words).encode() + b"\n")

    def dataReceived(self, data: bytes) -> None:
        for _ in data.splitlines():
            self._answer()
