"""``txutp receive``: takes files and folders of ``txutp send``, and puts them into a folder."""

from __future__ import annotations

import json
from typing import Any

import click
from twisted.internet import defer, error
from twisted.internet.defer import CancelledError, Deferred

from txutp.cli.files.progress import Progress
from txutp.cli.files.screen import Screen, checksum_line
from txutp.cli.files.wire import DIFFERENT, Offer, shown
from txutp.cli.measurement.report import duration, scaled
from txutp.cli.options import (
    DURATION,
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
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_NOT_STORED,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    counted,
    give_up,
    on_interrupt,
    run_command,
)


@click.command(
    short_help="Receive files and folders of txutp send.",
    epilog=f"Exit codes: 0 everything is stored; {EXIT_DIFFERENT} what arrived differs from what was sent;"
    f" {EXIT_TIMED_OUT} no sender came in the time of -w; {EXIT_UNCONNECTED} could not listen;"
    f" {EXIT_NOT_STORED} a file could not be stored; {EXIT_INTERRUPTED} interrupted.",
)
@click.option("-l", "--listen", "where", metavar="PORT|ENDPOINT", required=True, help="Where to wait for senders.")
@click.option(
    "-o", "--output", "directory", metavar="DIR", default=".", show_default="the current one",
    type=click.Path(exists=True, file_okay=False), help="Directory to put files into; nothing is written elsewhere.",
)  # fmt: skip
@click.option("-k", "--keep-open", is_flag=True, help="Go on when a transfer is complete.")
@click.option("-4", "ipv4", is_flag=True, help="Use IPv4 only.")
@click.option("-6", "ipv6", is_flag=True, help="Use IPv6 only.")
@click.option("-s", "--source", metavar="ADDRESS", help="Listen on this address of ours.")
@click.option("-w", "--wait", type=DURATION, help="Give up when no sender is connected for this time.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there, once the new ones are complete.")
@rate_options
@qlog_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each transfer instead of checksums.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress, and say only what goes wrong.")
def receive(**options: Any) -> None:
    """Receive the files and folders that `txutp send` sends, and put them into DIR.

    A file gets its name when it is complete and its SHA-256 is right. After a break, the transfer goes on where it
    was. The command ends with the first complete transfer; with -k it stays, and takes several at once.
    """
    command = Receive(**options)
    run_command(command.run)


class Receive:
    """One run of the command."""

    def __init__(
        self,
        where: str,
        directory: str,
        keep_open: bool,
        ipv4: bool,
        ipv6: bool,
        source: str | None,
        wait: float | None,
        overwrite: bool,
        as_json: bool,
        quiet: bool,
    ) -> None:
        try:
            from txutp.cli.files.placing import Place
            from txutp.cli.files.receiver import Receiver
        except ImportError:
            raise click.UsageError("txutp receive needs a POSIX system.") from None
        self._make_receiver = Receiver
        try:
            self._place = Place(directory, overwrite)
        except OSError as problem:
            raise click.UsageError(f"{directory!r} cannot be used: {problem.strerror}") from problem
        interface = source or interface_of(family_of(ipv4, ipv6))
        if is_endpoint_string(where):
            if interface is not None:
                raise click.UsageError("-4, -6 and -s do not go with an endpoint string, which says it all.")
            self._text = where
        else:
            self._text = utp_string(where, interface=interface)
        self._keep_open = keep_open
        self._wait_seconds = wait
        self._as_json = as_json
        self._quiet = quiet
        self._transfers: dict[Any, _Transfer] = {}
        self._waiting: Any = None
        self._results: set[str] = set()
        self._over: Deferred[None] = Deferred()
        self._screen: Screen
        self._receiver: Any = None
        self._reactor: Any = None

    async def run(self, reactor: Any) -> None:
        """Take transfers; end with the exit code that says how that went."""
        self._reactor = reactor
        self._screen = Screen(reactor, not self._quiet)
        self._receiver = self._make_receiver(
            reactor, self._place, self._began, self._stored, self._refused, self._ended
        )
        on_interrupt(reactor, self._over.cancel)
        try:
            port = await server_endpoint(reactor, self._text).listen(self._receiver)
        except (error.CannotListenError, OSError) as problem:
            give_up(str(problem), EXIT_UNCONNECTED)
        self._remark(f"Listening on {named(port.getHost())}.")
        self._wait()
        try:
            await self._over
            problem_words, exit_code = None, self._exit_code()
        except CancelledError:
            problem_words, exit_code = self._interrupted(), EXIT_INTERRUPTED
        except error.TimeoutError:
            problem_words, exit_code = "No sender came.", EXIT_TIMED_OUT
        self._stop_waiting()
        self._receiver.drop()
        self._screen.hide()
        await defer.maybeDeferred(port.stopListening)
        if problem_words is not None:
            give_up(problem_words, exit_code)
        raise SystemExit(exit_code)

    def _interrupted(self) -> str:
        parts = len(self._receiver.sessions)
        words = "Interrupted."
        if parts:
            words += " What has come of the file that is not complete is kept, and the next transfer goes on there."
        return words

    def _exit_code(self) -> int:
        if DIFFERENT in self._results:
            return EXIT_DIFFERENT
        return EXIT_NOT_STORED if self._results else 0

    # -- time without a sender --

    def _wait(self) -> None:
        if self._wait_seconds is not None and self._waiting is None and not self._receiver.sessions:
            self._waiting = self._reactor.callLater(self._wait_seconds, self._give_up)

    def _give_up(self) -> None:
        self._waiting = None
        self._finish(error.TimeoutError())

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _finish(self, problem: Exception | None = None) -> None:
        if not self._over.called:
            if problem is None:
                self._over.callback(None)
            else:
                self._over.errback(problem)

    # -- what the receiver tells --

    def _began(self, session: Any) -> Progress:
        self._stop_waiting()
        transfer = self._transfers[session] = _Transfer(Progress(self._reactor.seconds))
        self._screen.begin(transfer.progress)
        amount = counted(session.files, "file or folder", "files and folders")
        self._remark(f"{named(session.address)} sends {amount}, {scaled(session.total_bytes)}B.")
        return transfer.progress

    def _stored(self, session: Any, offer: Offer, sha256: str) -> None:
        transfer = self._transfers[session]
        transfer.stored += 1
        transfer.files.append(_told(offer, sha256=sha256, result="stored"))
        if not self._as_json:
            self._screen.result(checksum_line(offer.path, sha256))

    def _refused(self, session: Any, offer: Offer, reason: str, why: str) -> None:
        transfer = self._transfers[session]
        transfer.results.add(reason)
        transfer.files.append(_told(offer, result=reason, why=why))
        self._screen.say(f"{shown(offer.path)} from {named(session.address)} is not stored: {why}.")

    def _ended(self, session: Any) -> None:
        transfer = self._transfers.pop(session)
        progress = transfer.progress
        self._screen.end(progress)
        rate = 8 * progress.moved_bytes / progress.seconds
        if self._as_json:
            numbers = {"bytes_moved": progress.moved_bytes, "seconds": progress.seconds, "bits_per_second": rate}
            told = {"peer": named(session.address), "complete": session.complete, "files": transfer.files}
            self._screen.result(json.dumps(told | numbers).encode())
        amount = f"{scaled(progress.moved_bytes)}B in {duration(progress.seconds * 1_000)}, {scaled(rate)}bit/s"
        if session.complete:
            self._results |= transfer.results
            self._remark(f"{counted(transfer.stored, 'file')} of {named(session.address)} stored; {amount}.")
            if not self._keep_open and not self._receiver.sessions:
                self._finish()
                return
        elif not self._over.called:
            self._screen.say(f"{session.problem} {named(session.address)} may go on where it was; {amount}.")
        self._wait()

    def _remark(self, words: str) -> None:
        if not self._quiet:
            self._screen.say(words)


class _Transfer:
    """What came of one connection."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.stored = 0
        self.results: set[str] = set()
        self.files: list[dict[str, Any]] = []  # for --json


def _told(offer: Offer, **more: str) -> dict[str, Any]:
    return {"path": "/".join(offer.path), "bytes": offer.size_bytes} | more
