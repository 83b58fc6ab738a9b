"""``txutp forward``: whatever connects to one endpoint is carried to another one.

``Forwarding`` is a factory; a service or a program may use it without the command.
"""

from __future__ import annotations

import sys
from typing import Any

import click
from twisted.internet import defer, error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txutp.cli.options import (
    DURATION,
    QLOG,
    RATES,
    client_endpoint,
    named,
    qlog_option,
    rate_options,
    server_endpoint,
)
from txutp.cli.output import EXIT_INTERRUPTED, EXIT_UNCONNECTED, counted, give_up, on_interrupt, run_command, say
from txutp.cli.relay import Relay, Side
from txutp.core.settings import LEAST_RATE_BYTES
from txutp.workers import Workers, WorkersFailed, this_worker, why_no_steering
from txutp.workers.serving import handle, port_of, serve
from txutp.workers.steering import MAXIMUM_WORKERS

# Time for the streams that are open to end when the command is interrupted.
GRACE_SECONDS = 5.0

# Time for workers to end behind that, before they are killed.
WORKER_END_SECONDS = 5.0


@click.command(
    short_help="Carry connections from one endpoint to another.",
    epilog=f"Exit codes: {EXIT_UNCONNECTED} could not listen; {EXIT_INTERRUPTED} interrupted, after the open streams"
    " ended or their time was over.",
)
@click.argument("source", metavar="FROM")
@click.argument("destination", metavar="TO")
@click.option(
    "--max-connections",
    type=click.IntRange(min=1),
    metavar="N",
    help="Carry this many connections at once; further ones wait.  [default: no limit]",
)
@click.option(
    "--grace",
    type=DURATION,
    default=f"{GRACE_SECONDS:g}s",
    show_default=True,
    help="Let open streams go on for this time when interrupted.",
)
@click.option(
    "--workers",
    type=click.IntRange(1, MAXIMUM_WORKERS),
    default=1,
    metavar="N",
    help="Share the port of FROM, a utp: string, among this many processes (Linux).",
)
@rate_options
@qlog_option
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what goes wrong.")
def forward(
    source: str, destination: str, max_connections: int | None, grace: float, workers: int, quiet: bool
) -> None:
    """Carry every connection that FROM accepts to TO, both of them endpoint strings.

    `txutp forward tcp:2222 utp:example.org:2222` here and `txutp forward utp:2222 tcp:localhost:22` there carry SSH,
    rsync, git or restic as background traffic. Half closes, back-pressure and resets are carried through.
    """
    worker = this_worker()
    rates: dict[str, int] = click.get_current_context().meta.get(RATES, {})
    if workers > 1 and worker is None:
        if max_connections is not None and max_connections < workers:
            raise click.UsageError(f"--max-connections {max_connections} is less than one for each of the workers.")
        for name, rate in rates.items():
            if rate < workers * LEAST_RATE_BYTES:
                raise click.UsageError(f"--{name} {rate} is less than {LEAST_RATE_BYTES} for each of the workers.")
        why_one = why_no_steering()
        if not why_one:
            _run_workers(source, workers, grace, quiet)
            return
        say(why_one)
    if worker is not None and max_connections is not None:
        max_connections = worker.part_of(max_connections)

    def tell(words: str) -> None:
        say(words if worker is None else f"Worker {worker.number}: {words}")

    async def run(reactor: Any) -> None:
        forwarding = Forwarding(client_endpoint(reactor, destination), max_connections, tell)
        server = server_endpoint(reactor, source)
        interrupted: Deferred[None] = Deferred()

        def interrupt() -> None:
            if not interrupted.called:
                interrupted.callback(None)

        on_interrupt(reactor, interrupt)
        handle(reactor, interrupt, "SIGTERM")
        try:
            port = await server.listen(forwarding)
        except (error.CannotListenError, OSError) as problem:
            give_up(str(problem), EXIT_UNCONNECTED)
        if worker is None and not quiet:
            tell(f"Forwarding {named(port.getHost())} to {destination}.")
        await interrupted
        on_interrupt(reactor, forwarding.drop)  # a second one does not wait
        await defer.maybeDeferred(port.stopListening)
        if not quiet:
            tell(f"Interrupted; no more connections are taken, {len(forwarding)} are open.")
        await forwarding.finish(reactor, grace)
        tell(f"{counted(forwarding.carried, 'connection')} carried.")
        raise SystemExit(EXIT_INTERRUPTED)

    run_command(run)


def _run_workers(source: str, workers: int, grace_seconds: float, quiet: bool) -> None:
    """Run this very command in several processes, which ``this_worker`` tells what they are, until an interrupt."""
    try:
        port = port_of(source)
    except (ValueError, TypeError) as problem:
        raise click.BadParameter(str(problem), param_hint="FROM") from problem
    # Each worker writes a trace of its own.
    click.get_current_context().meta.pop(QLOG, None)

    async def run(reactor: Any) -> None:
        service = Workers(
            reactor,
            ["-m", "txutp", *sys.argv[1:]],
            workers,
            [port],
            stop_seconds=grace_seconds + WORKER_END_SECONDS,
        )
        try:
            await serve(reactor, service, (lambda words: None) if quiet else say)
        except (error.CannotListenError, WorkersFailed) as problem:
            give_up(str(problem), EXIT_UNCONNECTED)
        give_up("Interrupted; all workers have ended.", EXIT_INTERRUPTED)

    run_command(run)


class Forwarding(Factory):
    """Connects each accepted stream to an endpoint, and joins the two.

    Of more than ``maximum_connections`` connections the later ones wait, without being read, until one has ended.
    ``report`` gets a sentence for people about each connection that could not be carried, or broke.
    """

    noisy = False

    def __init__(self, destination: Any, maximum_connections: int | None = None, report: Any = None) -> None:
        self._destination = destination
        self._maximum_connections = maximum_connections
        self._report = report or (lambda words: None)
        self._open: dict[Relay, Deferred[Any] | None] = {}
        self._waiting: list[Relay] = []
        self._quiet: list[Deferred[None]] = []
        self.carried: int = 0

    def buildProtocol(self, addr: Any) -> Side:
        relay = Relay()
        relay.first_connected = lambda: self._begin(relay)
        relay.ended.addErrback(self._broke, addr).addCallback(lambda result: self._ended(relay))
        return relay.sides[0]

    def _begin(self, relay: Relay) -> None:
        if self._maximum_connections is not None and len(self._open) >= self._maximum_connections:
            self._waiting.append(relay)
            return
        self.carried += 1
        connecting = self._open[relay] = connectProtocol(self._destination, relay.sides[1])
        connecting.addCallbacks(lambda side: None, self._unconnected, errbackArgs=(relay,))

    def _unconnected(self, failure: Failure, relay: Relay) -> None:
        if not failure.check(CancelledError):
            self._report(f"Could not connect to the destination: {failure.value}")
        relay.fail(failure)

    def _broke(self, failure: Failure, addr: Any) -> None:
        if not failure.check(CancelledError, error.ConnectError, error.DNSLookupError):
            self._report(f"The connection from {named(addr)} broke: {failure.value}")

    def _ended(self, relay: Relay) -> None:
        connecting = self._open.pop(relay, None)
        if connecting is not None:
            connecting.cancel()
        if relay in self._waiting:
            self._waiting.remove(relay)
        elif self._waiting:
            self._begin(self._waiting.pop(0))
        if not self._open:
            quiet, self._quiet = self._quiet, []
            for deferred in quiet:
                deferred.callback(None)

    def __len__(self) -> int:
        """Number of connections that are carried now."""
        return len(self._open)

    def drop(self) -> None:
        """End all connections at once."""
        for relay in [*self._waiting, *self._open]:
            relay.fail(Failure(CancelledError()))

    async def finish(self, reactor: Any, grace_seconds: float) -> None:
        """Wait until the open connections have ended; drop those that are left after ``grace_seconds``."""
        for relay in list(self._waiting):
            relay.fail(Failure(CancelledError()))
        if not self._open:
            return
        quiet: Deferred[None] = Deferred()
        self._quiet.append(quiet)
        dropping = reactor.callLater(grace_seconds, self.drop)
        await quiet
        if dropping.active():
            dropping.cancel()
