"""``txutp cat``: netcat over uTP, standard input and output on one side and a stream on the other."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections import deque
from contextlib import suppress
from typing import Any

import click
from twisted.internet import defer, error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, ProcessProtocol

from txutp.cli.options import (
    DURATION,
    client_endpoint,
    client_string,
    family_of,
    interface_of,
    is_endpoint_string,
    named,
    qlog_option,
    rate_options,
    server_endpoint,
    utp_string,
)
from txutp.cli.output import (
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    give_up,
    on_interrupt,
    run_command,
    say,
)
from txutp.cli.relay import Relay, Side

# Time for a program to end by itself when its streams have ended.
PROGRAM_SECONDS = 2.0

TIMED_OUT = (error.TimeoutError, error.TCPTimedOutError)


@click.command(
    short_help="Standard input and output over a uTP connection.",
    epilog="Exit codes: 0 both directions ended in an orderly way;"
    f" {EXIT_LOST} the connection was reset or lost; {EXIT_TIMED_OUT} the peer did not answer (any more);"
    f" {EXIT_UNCONNECTED} could not connect or listen; {EXIT_INTERRUPTED} interrupted.",
)
@click.argument("where", nargs=-1, metavar="[HOST] PORT | ENDPOINT", required=True)
@click.option("-l", "--listen", is_flag=True, help="Accept a connection on PORT instead of making one.")
@click.option("-k", "--keep-open", is_flag=True, help="With -l: accept the next connection when one has ended.")
@click.option("-4", "ipv4", is_flag=True, help="Use IPv4 only.")
@click.option("-6", "ipv6", is_flag=True, help="Use IPv6 only.")
@click.option("-w", "--wait", type=DURATION, help="Give up connecting after this time, like 10s.  [default: 30s]")
@click.option("-s", "--source", metavar="ADDRESS", help="Leave from, or listen on, this address of ours.")
@click.option("-p", "--source-port", type=click.IntRange(1, 65535), help="Leave from this port.")
@click.option("-e", "--exec", "program", metavar="COMMAND", help="Run this command for the connection's two streams.")
@rate_options
@qlog_option
@click.option("-v", "--verbose", is_flag=True, help="Say on standard error what happens.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON on standard error at the end.")
def cat(where: tuple[str, ...], **options: Any) -> None:
    """Send standard input to a uTP peer, and what it sends to standard output.

    `txutp cat HOST PORT` connects, `txutp cat -l PORT` accepts one connection. Instead of a host and a port either
    takes an endpoint string. The end of standard input closes our half of the stream; the command ends when the peer
    has closed its half, too.
    """
    command = Cat(where, **options)

    async def run(reactor: Any) -> None:
        running = Deferred.fromCoroutine(command.run(reactor))
        on_interrupt(reactor, running.cancel)
        try:
            await running
        except CancelledError:
            command.summarize()
            give_up(f"Interrupted; {command.told()}.", EXIT_INTERRUPTED)
        except TIMED_OUT as problem:
            command.summarize()
            give_up(f"{problem} {command.told() if command.relays else ''}".rstrip(), EXIT_TIMED_OUT)
        except (error.ConnectError, error.DNSLookupError, error.CannotListenError, OSError) as problem:
            command.summarize()
            give_up(str(problem), EXIT_UNCONNECTED)
        except error.ConnectionClosed as problem:
            command.summarize()
            give_up(f"{problem} {command.told()}.", EXIT_LOST)
        command.summarize()

    run_command(run)


class Cat:
    """One run of the command."""

    def __init__(
        self,
        where: tuple[str, ...],
        listen: bool,
        keep_open: bool,
        ipv4: bool,
        ipv6: bool,
        wait: float | None,
        source: str | None,
        source_port: int | None,
        program: str | None,
        verbose: bool,
        as_json: bool,
    ) -> None:
        if keep_open and not listen:
            raise click.UsageError("-k goes with -l.")
        if len(where) > 2 or (len(where) == 2 and listen):
            raise click.UsageError(
                "Say `txutp cat -l PORT`; an address of ours goes behind -s."
                if listen
                else "Say `txutp cat HOST PORT` or `txutp cat ENDPOINT`."
            )
        if len(where) == 1 and not listen and not is_endpoint_string(where[0]):
            raise click.UsageError("The port is missing: say `txutp cat HOST PORT`.")
        if program is not None and not shutil.which(shlex.split(program)[0] if program.strip() else ""):
            raise click.UsageError(f"There is no command {program!r} to run.")
        self._where = where
        self._listen = listen
        self._keep_open = keep_open
        self._family = family_of(ipv4, ipv6)
        self._wait_seconds = wait
        self._source = source
        self._source_port = source_port
        self._program = program
        self._verbose = verbose
        self._as_json = as_json
        self._begun = time.monotonic()
        self.relays: list[Relay] = []

    async def run(self, reactor: Any) -> None:
        """Carry one connection, or with ``-k`` one after the other."""
        if self._listen:
            await self._serve(reactor)
            return
        local = _Local(self._program)
        text = await client_string(
            reactor, self._where, self._family, self._wait_seconds, self._source, self._source_port
        )
        relay = self.new_relay()
        await connectProtocol(client_endpoint(reactor, text), relay.sides[0])
        self._remark(f"Connected to {named(relay.sides[0].transport.getPeer())}.")
        await self._carry(reactor, relay, local)

    async def _serve(self, reactor: Any) -> None:
        [text] = self._where
        if not is_endpoint_string(text):
            text = utp_string(text, interface=self._source or interface_of(self._family))
        accepting = _Accepting(self)
        port = await server_endpoint(reactor, text).listen(accepting)
        self._remark(f"Listening on {named(port.getHost())}.", always=text.split(":")[1] == "0")
        local = _Local(self._program)
        try:
            while True:
                relay = await accepting.next()
                if not self._keep_open:
                    port.stopListening()
                self._remark(f"Connection from {named(relay.sides[0].transport.getPeer())}.")
                carrying = Deferred.fromCoroutine(self._carry(reactor, relay, local))
                if not self._keep_open:
                    await carrying
                    return
                # One that ends badly is told, and the next one is served.
                carrying.addErrback(lambda failure: None if failure.check(CancelledError) else say(str(failure.value)))
                if self._program is None:
                    await carrying
        finally:
            await defer.maybeDeferred(port.stopListening)

    async def _carry(self, reactor: Any, relay: Relay, local: _Local) -> None:
        local.attach(relay.sides[1], reactor)
        try:
            await relay.ended
        except CancelledError:
            for side in relay.sides:
                side.drop()
            raise
        finally:
            await local.detach(relay.sides[1], reactor)

    def new_relay(self) -> Relay:
        """Returns a relay that counts in the summary."""
        relay = Relay()
        self.relays.append(relay)
        return relay

    def _remark(self, words: str, always: bool = False) -> None:
        if self._verbose or always:
            say(words)

    @property
    def _bytes(self) -> tuple[int, int]:
        """Bytes to and from peers."""
        return (
            sum(relay.sides[1].received_bytes for relay in self.relays),
            sum(relay.sides[0].received_bytes for relay in self.relays),
        )

    def told(self) -> str:
        """Returns how much went by, for people."""
        sent_bytes, received_bytes = self._bytes
        return f"{sent_bytes:,} bytes were read for the peer, {received_bytes:,} bytes came from it"

    def summarize(self) -> None:
        """Print the summary that ``--json`` and ``-v`` ask for."""
        sent_bytes, received_bytes = self._bytes
        seconds = time.monotonic() - self._begun
        if self._as_json:
            summary = {"bytes_sent": sent_bytes, "bytes_received": received_bytes, "seconds": round(seconds, 3)}
            click.echo(json.dumps(summary | {"connections": len(self.relays)}), err=True)
        elif self._verbose:
            say(f"{self.told()}, in {seconds:.1f} s.")


class _Accepting(Factory):
    """Queues connections; each waits, without being read, until its turn comes."""

    noisy = False

    def __init__(self, command: Cat) -> None:
        self._command = command
        self._queue: deque[Relay] = deque()
        self._waiting: Deferred[Relay] | None = None

    def buildProtocol(self, addr: Any) -> Side:
        relay = self._command.new_relay()
        relay.first_connected = lambda: self._connected(relay)
        return relay.sides[0]

    def _connected(self, relay: Relay) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            self._queue.append(relay)
        else:
            waiting.callback(relay)

    def next(self) -> Deferred[Relay]:
        """Fires with the relay of the next connection."""
        if self._queue:
            return defer.succeed(self._queue.popleft())
        self._waiting = Deferred()
        return self._waiting


class _Local:
    """Our side: standard input and output, or a program for each connection."""

    def __init__(self, program: str | None) -> None:
        try:
            from txutp.cli.streams import Streams, standard_streams
        except ImportError:
            raise click.UsageError("This system has no pipes that can be waited for: txutp cat needs POSIX.") from None
        self._streams = Streams
        self._program = program
        self._own: tuple[int, int] | None = None if program else standard_streams()
        self._running: dict[Side, _Program] = {}

    def attach(self, side: Side, reactor: Any) -> None:
        """Connect a side of a relay."""
        if self._program is not None:
            (reading, its_output), (its_input, writing) = os.pipe(), os.pipe()
            self._running[side] = program = _Program()
            words = shlex.split(self._program)
            reactor.spawnProcess(program, words[0], words, None, childFDs={0: its_input, 1: its_output, 2: 2})
            os.close(its_input)
            os.close(its_output)
        elif self._own is not None:
            (reading, writing), self._own = self._own, None
        else:  # standard input has been read, and output has ended
            reading, writing = os.open(os.devnull, os.O_RDONLY), os.open(os.devnull, os.O_WRONLY)
        self._streams(side, reading, writing, reactor)

    async def detach(self, side: Side, reactor: Any) -> None:
        """Wait for the end of a program; one that does not end when its streams do is told to."""
        program = self._running.pop(side, None)
        if program is not None:
            telling = reactor.callLater(PROGRAM_SECONDS, program.terminate)
            await program.ended
            if telling.active():
                telling.cancel()


class _Program(ProcessProtocol):
    """A program whose standard input and output are pipes of ours."""

    transport: Any

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(None)

    def terminate(self) -> None:
        """Ask it to end."""
        with suppress(error.ProcessExitedAlready):
            self.transport.signalProcess("TERM")
