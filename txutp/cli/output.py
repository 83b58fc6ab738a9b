"""Exit codes, last words and interrupts of the ``txutp`` commands."""

from __future__ import annotations

import signal
import sys
import textwrap
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from twisted.internet.task import react

from txutp.cli.options import QLOG, RATES
from txutp.openports import open_ports_of
from txutp.qlog import trace_reactor
from txutp.workers import this_worker

# 1 and 2 are Python's and click's, for other problems.
EXIT_DIFFERENT = 3
EXIT_LOST = 4
EXIT_TIMED_OUT = 5
EXIT_UNCONNECTED = 6
EXIT_UNREADABLE = 7
EXIT_NOT_STORED = 8
EXIT_INTERRUPTED = 128 + signal.SIGINT


def say(words: str) -> None:
    """Print a sentence for people on standard error; a terminal gets it in lines that end between words."""
    text = f"txutp: {words}"
    if sys.stderr.isatty():
        width = Console(stderr=True).width
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    click.echo(text, err=True)


def counted(number: int, name: str, plural: str | None = None) -> str:
    """Returns a number with what is counted, like ``1 file`` or ``2 files``."""
    return f"{number:,} {name if number == 1 else plural or name + 's'}"


def cause(problem: BaseException | None) -> str:
    """Returns why a connection ended, without what Twisted says in front of that for all of a kind."""
    return str(problem.args[0] if problem is not None and problem.args else problem).rstrip(".")


def give_up(problem: str, exit_code: int) -> NoReturn:
    """Print the problem on standard error, and end with this exit code."""
    say(problem)
    raise SystemExit(exit_code)


def on_interrupt(reactor: Any, action: Callable[[], object]) -> None:
    """Call ``action`` on SIGINT.  The reactor would stop, but it keeps a handler that was set before it runs."""
    signal.signal(signal.SIGINT, lambda number, frame: reactor.callFromThread(action))


def begin_trace(reactor: Any, path: Path, title: str) -> None:
    """Write all uTP connections of the reactor to a qlog file, to the end of the process."""
    try:
        trace_reactor(reactor, path, title=title)
    except OSError as problem:
        raise click.UsageError(f"--qlog: {path} cannot be written: {problem.strerror}") from problem


def cap_ports(reactor: Any, up: int | None = None, down: int | None = None) -> None:
    """Cap what each UDP port of the reactor sends and receives over uTP, in place of what its endpoint string says."""

    def on_open(utp: Any) -> None:
        rates = utp.multiplexer.rates
        before_up, before_down = (pool.bytes_per_second if pool else None for pool in (rates.up, rates.down))
        utp.limit_rate(up or before_up, down or before_down)

    open_ports_of(reactor).watch(on_open, lambda utp: None)


def run_command(main: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine on the reactor to its end; wrong usage that it finds is told as any other.

    Each of several workers adds its number to the name of its trace, and has its part of the caps on rates.
    """

    context = click.get_current_context()
    trace = context.meta.get(QLOG)
    rates: dict[str, int] = context.meta.get(RATES, {})

    worker = this_worker()
    if worker is not None:
        rates = {name: worker.part_of(rate) for name, rate in rates.items()}
        if trace is not None:
            trace = trace.with_stem(f"{trace.stem}-{worker.number}")

    async def guarded(reactor: Any) -> None:
        try:
            if trace is not None:
                begin_trace(reactor, trace, f"txutp {context.info_name}")
            if rates:
                cap_ports(reactor, **rates)
            await main(reactor)
        except click.UsageError as problem:
            problem.show()
            raise SystemExit(problem.exit_code) from None

    react(guarded)
