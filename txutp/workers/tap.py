"""``twist utp-workers``: a service of ``twist`` or ``twistd`` in several processes on one UDP port.

Each worker is ``twist`` again, with the words behind ours.  It logs where this process does.  ``twistd`` moves its log
away when that has grown, so its workers get a file of their own.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.application.service import IService
from twisted.logger import Logger
from twisted.python import usage
from twisted.python.failure import Failure

from txutp.workers.parent import Workers, checked_workers
from txutp.workers.serving import cores, obey, port_of, ports_in, served


class Options(usage.Options):  # type: ignore[misc, unused-ignore]
    """What ``twist utp-workers`` is told."""

    synopsis = "[options] SERVICE [options of the service]"
    longdesc = (
        "Run a service in several processes that share its UDP ports, so that it uses all cores; for example"
        " `twist utp-workers --workers 4 web --listen utp:8080 --path .`. Needs Linux, and is one process elsewhere."
    )
    optParameters = [["workers", "w", None, "processes; by default one for each core"]]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, text: str) -> None:
        """utp:PORT, as the service has it; may be given again. By default all such strings behind SERVICE."""
        self["listen"].append(text)

    def parseArgs(self, *words: str) -> None:
        """Take the service and its words."""
        self["service"] = list(words)

    def postOptions(self) -> None:
        """Look at what was said; raises UsageError."""
        words = self["service"]
        if not words:
            raise usage.UsageError("Which service? Its name and options go behind ours, like: web --listen utp:8080")
        try:
            self["ports"] = [port_of(text) for text in self["listen"]] or ports_in(words)
            self["workers"] = cores() if self["workers"] is None else checked_workers(int(self["workers"]))
        except (ValueError, TypeError) as problem:
            raise usage.UsageError(str(problem)) from problem
        if not self["ports"]:
            raise usage.UsageError("Which port do the workers share? --listen utp:PORT, as the service has it")


def options_of_worker(parent: Any) -> list[str]:
    """Returns the options of ``twist`` for the workers of a ``twist`` or ``twistd`` with these options."""
    if "logFile" not in parent:  # twistd
        name = parent["logfile"] or ("-" if parent["nodaemon"] else "twistd.log")
        return [] if name == "-" else [f"--log-file={os.path.abspath(name)}.workers"]
    file = parent["logFile"]
    where = "-" if file is sys.stdout else "+" if file is sys.stderr else os.path.abspath(file.name)
    return [
        f"--reactor={parent['reactorName']}",
        f"--log-level={parent['logLevel'].name}",
        f"--log-file={where}",
        *([f"--log-format={parent['logFormat']}"] if "logFormat" in parent else []),
    ]


def makeService(options: Any) -> IService:
    """Returns the service that runs the workers."""
    from twisted.internet import reactor

    program = ["-m", "twisted", *options_of_worker(options.parent), *options["service"]]
    return Supervised(reactor, program, options["workers"], options["ports"])


class Supervised(Workers):
    """Workers that obey signals; without any that listens, the reactor stops."""

    _log = Logger()

    def startService(self) -> None:
        super().startService()
        self.when_ready().addCallbacks(self._listens, self._does_not_listen)

    def _listens(self, result: None) -> None:
        obey(self._reactor, self, self._say)
        self._say(served(self))

    def _does_not_listen(self, failure: Failure) -> None:
        if self.running:
            self._log.critical("{problem}", problem=failure.getErrorMessage())
            self._reactor.stop()

    def _say(self, words: str) -> None:
        self._log.info("{words}", words=words)
