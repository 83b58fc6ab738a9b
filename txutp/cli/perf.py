"""``txutp perf``: what a path carries over uTP, and what that does to its queue; in the letters of iperf3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from twisted.internet import defer, error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, TCP6ServerEndpoint

from txutp.cli.measurement.asked import DEFAULT_PORT, Options, Quantity
from txutp.cli.measurement.ends import LAST_WORDS_SECONDS, SETUP_SECONDS, Tell
from txutp.cli.measurement.ping import Echo
from txutp.cli.measurement.plot import NothingToDraw, draw
from txutp.cli.measurement.server import Server, Session
from txutp.cli.measurement.views import CompareView, Printer, SessionView, TestView
from txutp.cli.measurement.wire import MAXIMUM_STREAMS
from txutp.cli.messages import Broken, ProtocolError, Refused, Unanswered
from txutp.cli.options import DURATION, interface_of, named, qlog_option, rate_options, server_endpoint
from txutp.cli.output import (
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    give_up,
    on_interrupt,
    run_command,
    say,
)
from txutp.congestion import CONTROLLERS
from txutp.core.settings import Settings
from txutp.endpoints import AdoptedUTPServerEndpoint, UTPServerEndpoint

# How often a server that may choose its port looks for a number that is free over UDP and TCP.
PORT_TRIES = 10

READER_GONE = Broken("The reader of standard output has gone away.")


@click.command(
    short_help="Measure goodput and delay between two hosts.",
    epilog=f"Exit codes: 0 the test was completed; {EXIT_DIFFERENT} the other end does not speak this protocol;"
    f" {EXIT_LOST} a connection was reset or lost; {EXIT_TIMED_OUT} the other end did not answer (any more);"
    f" {EXIT_UNCONNECTED} could not connect or listen, or the server refused; {EXIT_INTERRUPTED} interrupted.",
)
@click.argument("endpoint", required=False, metavar="[ENDPOINT]")
@click.option("-s", "--server", is_flag=True, help="Wait for clients, on PORT or at a server's ENDPOINT.")
@click.option("-c", "--client", "destination", metavar="HOST|ENDPOINT", help="Run a test with this server.")
@click.option("-p", "--port", type=click.IntRange(0, 65535), metavar="PORT", help=f"[default: {DEFAULT_PORT}]")
@click.option("-4", "ipv4", is_flag=True, help="Use IPv4 only.")
@click.option("-6", "ipv6", is_flag=True, help="Use IPv6 only.")
@click.option("-B", "--bind", metavar="ADDRESS", help="Listen on, or leave from, this address of ours.")
@click.option("-1", "--one-off", is_flag=True, help="Server: end after one test.")
@click.option("-t", "--time", "seconds", type=DURATION, help="Send for this time, like 30s.  [default: 10s]")
@click.option("-n", "--bytes", "total_bytes", type=Quantity("size"), help="Send this many bytes instead, like 100M.")
@click.option("-i", "--interval", type=DURATION, default="1s", show_default=True, help="Time between two lines.")
@click.option(
    "-P", "--parallel", type=click.IntRange(1, MAXIMUM_STREAMS), default=1, show_default=True, help="Streams at once."
)
@click.option("-R", "--reverse", is_flag=True, help="The server sends.")
@click.option("--bidir", is_flag=True, help="Both send, over the same streams.")
@click.option("-l", "--length", type=Quantity("size"), default="64K", show_default=True, help="Bytes of each write.")
@click.option("-O", "--omit", type=DURATION, default="0s", help="Leave this time at the beginning out of totals.")
@click.option("-b", "--bitrate", type=Quantity("rate"), help="Bits per second that each stream sends, like 10M.")
@click.option("-C", "--congestion", type=click.Choice(list(CONTROLLERS)), help="Congestion controller of both ends.")
@click.option("--target", type=DURATION, help="How long packets may wait in queues, like 10ms, at both ends.")
@click.option("-w", "--wait", type=DURATION, default=f"{SETUP_SECONDS:.0f}s", help="Give up when nothing answers.")
@click.option("--compare", type=click.Choice(["tcp"]), help="Also send over TCP, alone and beside uTP, with pings.")
@click.option("-J", "--json", "as_json", is_flag=True, help="Print one JSON document at the end.")
@click.option("--json-stream", is_flag=True, help="Print a line of JSON for each interval.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE.svg", help="Draw the test.")
@click.option(
    "--from", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="With --plot: draw what -J has printed, and run no test.",
)  # fmt: skip
@rate_options
@qlog_option
@click.option("--live", is_flag=True, help="Redraw a screen in place while the test runs.")
def perf(**options: Any) -> None:
    """Measure goodput, round trip and queue delay between two hosts over uTP.

    `txutp perf -s` on one host, `txutp perf -c HOST` on the other one. Goodput is what the receiver got.
    """
    checked = Options(**options)
    if checked.source is not None and checked.plot is not None:
        _draw(_read(checked.source), checked.plot)
    elif checked.server:
        run_command(lambda reactor: serve(reactor, checked))
    else:
        run_command(lambda reactor: measure(reactor, checked))


async def measure(reactor: Any, options: Options) -> None:
    """Run a test, or several to compare, and show what came out."""
    if options.plot is not None:
        _need_matplotlib()
    view = CompareView(options) if options.compare else TestView(options)

    async def run() -> None:
        await options.resolve(reactor)
        await view.run(reactor)

    running = Deferred.fromCoroutine(run())
    on_interrupt(reactor, running.cancel)
    view.printer.on_closed = lambda: reactor.callLater(0, running.cancel)
    problem = None
    try:
        await running
    except click.UsageError:
        raise
    except Exception as failure:
        problem, exit_code = verdict(READER_GONE if view.printer.closed else failure)
    view.end(problem)
    if problem is not None:
        give_up(problem, exit_code)
    if options.plot is not None:
        _draw(view.document(None), options.plot)


def verdict(problem: BaseException) -> tuple[str, int]:
    """Returns the sentence and the exit code for how a test went wrong; raises what is our own fault again."""
    if isinstance(problem, CancelledError):
        return "Interrupted.", EXIT_INTERRUPTED
    if isinstance(problem, ProtocolError):
        return f"The other end does not speak the protocol of txutp perf: {problem}.", EXIT_DIFFERENT
    if isinstance(problem, Refused):
        return str(problem), EXIT_UNCONNECTED
    if isinstance(problem, (Unanswered, error.TimeoutError, error.TCPTimedOutError)):
        return str(problem), EXIT_TIMED_OUT
    if isinstance(problem, (Broken, error.ConnectionClosed)):
        return str(problem), EXIT_LOST
    if isinstance(problem, (error.ConnectError, error.DNSLookupError, OSError)):
        return str(problem), EXIT_UNCONNECTED
    raise problem


# The server


async def serve(reactor: Any, options: Options) -> None:
    """Take part in tests until interrupted, or with ``-1`` in one."""
    printer = Printer(options.as_json, options.json_stream)
    over: Deferred[BaseException | None] = Deferred()
    printer.on_closed = lambda: end(READER_GONE)

    def on_test(session: Session) -> Tell:
        view = SessionView(printer, session)
        session.ended.addCallback(lambda problem: ended(session, view, problem))
        return view.tell

    def ended(session: Session, view: SessionView, problem: Exception | None) -> None:
        words = None if problem is None else verdict(problem)[0]
        view.end(words)
        if words is not None:
            say(f"The test with {view.peer} went wrong: {words}")
        if options.one_off:
            end(problem)

    def end(problem: BaseException | None) -> None:
        if not over.called:
            over.callback(problem)

    server = Server(reactor, on_test, options.as_json)
    on_interrupt(reactor, lambda: end(CancelledError()))
    try:
        ports = await _listen(reactor, options, server)
    except (error.CannotListenError, OSError) as refusal:
        give_up(str(refusal), EXIT_UNCONNECTED)
    problem = await over
    await server.interrupt()
    for port in ports:
        await defer.maybeDeferred(port.stopListening).addTimeout(2 * LAST_WORDS_SECONDS, reactor, lambda *ignored: None)
    if problem is not None:
        give_up(*verdict(problem))


async def _listen(reactor: Any, options: Options, server: Server) -> list[Any]:
    """Returns the ports: of uTP, and of TCP under the same number unless an endpoint string says where."""
    echo = Echo(server.sessions)
    if options.endpoint is not None:
        endpoint = server_endpoint(reactor, options.endpoint)
        if isinstance(endpoint, (UTPServerEndpoint, AdoptedUTPServerEndpoint)):
            endpoint.datagramProtocol = echo
        port = await endpoint.listen(server)
        say(f"Listening on {named(port.getHost())}.")
        return [port]
    settings = Settings(**options.parameters.settings_changes)
    interface = options.bind or interface_of(options.family) or ""
    over_tcp = TCP6ServerEndpoint if ":" in interface else TCP4ServerEndpoint
    for tries_left in reversed(range(PORT_TRIES)):
        utp = await UTPServerEndpoint(
            reactor, options.port, interface=interface, settings=settings, datagramProtocol=echo
        ).listen(server)
        host: Any = utp.getHost()
        try:
            tcp = await over_tcp(reactor, host.port, interface=interface).listen(server)
        except error.CannotListenError as problem:
            if options.port == 0 and tries_left:
                await defer.maybeDeferred(utp.stopListening)
                continue
            say(f"There will be no --compare tcp: {problem}")
            say(f"Listening on {named(host)}.")
            return [utp]
        server.offers["tcp"] = True
        say(f"Listening on {named(host)}.")
        return [utp, tcp]
    raise AssertionError("the last try returns")


# Pictures


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401 - looked for before the test, not after it
    except ModuleNotFoundError:
        raise click.UsageError('--plot needs matplotlib. Please run: pip install "txutp[plot]"') from None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise click.UsageError(f"{file} is no JSON document of txutp perf -J: {problem}") from problem


def _draw(document: Any, file: Path) -> None:
    _need_matplotlib()
    try:
        draw(document, file)
    except NothingToDraw as problem:
        raise click.UsageError(str(problem)) from problem
    except OSError as problem:
        raise click.UsageError(f"{file} cannot be written: {problem}") from problem
