"""``twist utp-forward FROM TO``: ``txutp forward`` as a service of ``twist`` and ``twistd``."""

from __future__ import annotations

from typing import Any

from twisted.application import strports
from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.logger import Logger
from twisted.python import usage

from txutp.cli.forward import GRACE_SECONDS, Forwarding
from txutp.cli.options import DURATION
from txutp.workers import this_worker


class Options(usage.Options):  # type: ignore[misc, unused-ignore]
    """What ``twist utp-forward`` is told."""

    synopsis = "[options] FROM TO"
    longdesc = (
        "Carry every connection that FROM accepts to TO, both of them endpoint strings; for example"
        " `twist utp-forward utp:2222 tcp:127.0.0.1:22`."
    )
    optParameters = [
        ["max-connections", None, None, "carry this many at once; further ones wait. By default there is no limit"],
        ["grace", None, f"{GRACE_SECONDS:g}s", "let open connections go on for this time when the service stops"],
    ]

    def parseArgs(self, *words: str) -> None:
        """Take the two strings; raises UsageError."""
        if len(words) != 2:
            raise usage.UsageError("Two endpoint strings are needed: where connections come from, and where they go")
        self["source"], self["destination"] = words

    def postOptions(self) -> None:
        """Look at what was said; raises UsageError."""
        from twisted.internet import reactor

        for parse, name in ((serverFromString, "source"), (clientFromString, "destination")):
            try:
                parse(reactor, self[name])
            except Exception as problem:
                raise usage.UsageError(f"{self[name]!r} cannot be used here: {problem}") from problem
        try:
            if self["max-connections"] is not None:
                self["max-connections"] = our_part(self["max-connections"])
            self["grace"] = DURATION.convert(self["grace"], None, None)
        except Exception as problem:
            raise usage.UsageError(str(problem)) from problem


def our_part(text: str) -> int:
    """Returns the limit of connections that this process has; raises ValueError for one that cannot be meant."""
    if not text.isdecimal() or not int(text):
        raise ValueError(f"a limit of connections is a number from 1 on, not {text!r}")
    worker = this_worker()
    return int(text) if worker is None else worker.part_of(int(text))


def makeService(options: Any) -> IService:
    """Returns the service that carries connections."""
    from twisted.internet import reactor

    return Forwarder(reactor, options["source"], options["destination"], options["max-connections"], options["grace"])


class Forwarder(MultiService):  # type: ignore[misc, unused-ignore]
    """Carries connections while it runs; when it stops, those that are open have some time to end."""

    _log = Logger()

    def __init__(
        self, reactor: Any, source: str, destination: str, maximum_connections: int | None, grace_seconds: float
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._grace_seconds = grace_seconds
        self._words = f"Forwarding {source} to {destination}"
        self._forwarding = Forwarding(clientFromString(reactor, destination), maximum_connections, self._report)
        strports.service(source, self._forwarding, reactor=reactor).setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        self._report(self._words)

    def stopService(self) -> Any:
        """Take no more connections; fires when those that are open have ended, or their time is over."""
        return maybeDeferred(super().stopService).addCallback(
            lambda result: Deferred.fromCoroutine(self._forwarding.finish(self._reactor, self._grace_seconds))
        )

    def _report(self, words: str) -> None:
        self._log.info("{words}", words=words)
