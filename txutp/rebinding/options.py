"""The options of ``python -m txutp.rebinding`` and ``txutp run``: they become a rule, and a report at the end."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from txutp.rebinding import Rebinding, rebound_when_installed
from txutp.rebinding.rules import Rule, connecting, everything, hosts, listening, ports

COMMAND = "python -m txutp.rebinding"

DESCRIPTION = """Run a Twisted program with uTP in the place of TCP: its reactor.listenTCP and connectTCP speak uTP.
Programs that take endpoint strings need none of this: give them utp:PORT and utp:HOST:PORT."""

EPILOGUE = """PROGRAM is the path of a Python file, or the name of a command that is installed beside this Python or on
PATH, like twist or scrapy.  Without options every TCP port and connection becomes one of uTP.  Both sides of a
connection have to speak it: choose what does with --ports, --hosts, --listen or --connect."""


class Option(NamedTuple):
    """An option in front of the program."""

    name: str
    help: str
    metavar: str | None = None
    """The name of its value; an option without one is a flag."""


OPTIONS = (
    Option("--listen", "only where the program listens"),
    Option("--connect", "only where the program connects"),
    Option("--ports", "only these ports", "P,P-P"),
    Option("--hosts", "only these hosts and networks", "H,N/8"),
    Option("--not-ports", "all but these ports", "P,P-P"),
    Option("--not-hosts", "all but these hosts", "H,N/8"),
    Option("--report", "append what went over uTP when the reactor ends", "FILE"),
    Option("--no-children", "child processes go on with TCP"),
    Option("-m", "PROGRAM is a module, as for python -m"),
)


@dataclass
class Options:
    """A rule, and where to report."""

    rule: Rule
    report: str | None
    words: list[str]
    """The options as a child process is given them."""
    program: list[str]
    """The program and its arguments; without options, where only those were read."""
    is_module: bool = False
    children: bool = True
    started: bool = False
    """Whether a reactor was rebound."""

    def begin(self, name: str) -> None:
        """Rebind the reactor of this process as soon as it is there; ``name`` is for the report."""

        def installed(rebinding: Rebinding) -> None:
            self.started = True
            if self.report is not None:
                add_trigger = getattr(rebinding.reactor, "addSystemEventTrigger", None)
                if add_trigger is not None:
                    add_trigger("after", "shutdown", self.tell, name, rebinding.counts)

        rebound_when_installed(self.rule, installed=installed)

    def tell(self, name: str, what: object) -> None:
        """Append a line to the report; several processes may write to one."""
        if self.report is not None:
            with open(self.report, "a", encoding="utf-8") as report:
                report.write(f"{name} (process {os.getpid()}) {what}\n")


def parser(command: str = COMMAND) -> argparse.ArgumentParser:
    """Returns the parser of the command line, up to the program; ``command`` is its beginning, for sentences."""
    made = argparse.ArgumentParser(
        command, "%(prog)s [options] PROGRAM [ARGUMENTS]", DESCRIPTION, EPILOGUE, allow_abbrev=False
    )
    only = made.add_mutually_exclusive_group()
    for option in OPTIONS:
        group = only if option.name in ("--listen", "--connect") else made
        if option.metavar is None:
            group.add_argument(option.name, action="store_true", help=option.help)
        else:
            group.add_argument(option.name, action="append", default=[], metavar=option.metavar, help=option.help)
    made.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def read_options(words: Sequence[str], command: str = COMMAND) -> Options:
    """Understand a command line; one that is wrong ends the process with a sentence."""
    made = parser(command)
    read = made.parse_args(words)
    try:
        rule = rule_of(read)
    except ValueError as problem:
        made.error(str(problem))
    report = os.path.abspath(read.report[-1]) if read.report else None
    return Options(
        rule,
        report,
        words_of(read, report),
        read.program,
        read.m,
        not read.no_children,
    )


def rule_of(read: Any) -> Rule:
    """What the options choose together; ValueError if one of them is wrong."""
    rule = listening if read.listen else connecting if read.connect else everything
    for make, chosen, excluded in ((ports, read.ports, read.not_ports), (hosts, read.hosts, read.not_hosts)):
        if chosen:
            rule &= make(*listed(chosen))
        if excluded:
            rule &= ~make(*listed(excluded))
    return rule


def listed(options: list[str]) -> list[str]:
    """An option that was given several times, or with commas."""
    return [part.strip() for option in options for part in option.split(",")]


def words_of(read: Any, report: str | None) -> list[str]:
    """The options again, with a path that holds in another directory; never empty."""
    words = ["--listen"] if read.listen else ["--connect"] if read.connect else []
    for name in ("ports", "hosts", "not_ports", "not_hosts"):
        words += [f"--{name.replace('_', '-')}={value}" for value in getattr(read, name)]
    if report is not None:
        words.append(f"--report={report}")
    return [*words, "--"]
