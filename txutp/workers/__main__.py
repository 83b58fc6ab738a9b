"""``python -m txutp.workers --workers 4 PROGRAM --listen utp:8080``: several processes on one UDP port.

PROGRAM is run once for each worker, and what it listens on with ``utp:8080`` is shared.  Signals: SIGTERM and SIGINT
end the workers, SIGHUP starts them anew without losing a connection, SIGTTIN and SIGTTOU do so with one more and one
less, SIGUSR1 prints statistics as a line of JSON.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet import task
from twisted.internet.endpoints import _SystemdParser
from twisted.internet.error import CannotListenError

from txutp.endpoints import host_and_port
from txutp.running import Unusable, find, run_program
from txutp.sharing import bound_socket, canonical
from txutp.udp.ports import numeric_address, socket_address
from txutp.workers.parent import Workers, WorkersFailed, checked_workers
from txutp.workers.serving import cores, port_of, ports_in, say, serve
from txutp.workers.steering import why_no_steering

COMMAND = "python -m txutp.workers"

DESCRIPTION = """Run a program in several processes that share its UDP ports, so that a service of uTP uses all cores.
Each process has a part of the connections."""

EPILOGUE = """PROGRAM is the path of a Python file, or the name of a command that is installed beside this Python or on
PATH, like twist.  It has to stay in the foreground.  Signals to this process: SIGTERM and SIGINT end the workers,
SIGHUP starts new ones that take over, SIGTTIN and SIGTTOU do so with one more and one less, SIGUSR1 prints
statistics."""


def parser() -> argparse.ArgumentParser:
    """The command line, up to the program."""
    made = argparse.ArgumentParser(
        COMMAND, "%(prog)s [options] PROGRAM [ARGUMENTS]", DESCRIPTION, EPILOGUE, allow_abbrev=False
    )
    made.add_argument("--workers", type=int, metavar="N", help="processes; by default one for each core")
    made.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="utp:PORT",
        help="a string that the program listens on, as it has it; may be given again. Options beside interface= may be"
        " left out. By default all such strings among ARGUMENTS",
    )
    made.add_argument(
        "--systemd",
        action="store_true",
        help="take the sockets that systemd has bound: as many with ListenDatagram= as workers, with ReusePort=yes",
    )
    made.add_argument("-m", dest="is_module", action="store_true", help="PROGRAM is a module, as for python -m")
    made.add_argument("program", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return made


def main(words: Sequence[str] | None = None) -> None:
    """Run the workers until a signal ends them; SystemExit carries the exit code."""
    made = parser()
    read = made.parse_args(sys.argv[1:] if words is None else words)
    program = read.program[read.program[:1] == ["--"] :]
    if not program:
        made.error("which program? A file, or a command like twist; or -m and a module")
    try:
        ports = [port_of(text) for text in read.listen] or ports_in(program)
        if not ports:
            made.error("which port do the workers share? --listen utp:PORT, as the program has it")
        path = "" if read.is_module else find(program[0], "-m txutp.workers")
        sockets = sockets_of_systemd(ports) if read.systemd else {}
        given = min(map(len, sockets.values())) if sockets else cores()
        wanted = given if read.workers is None else checked_workers(read.workers)
        command = ["-m", *program] if read.is_module else program
        why_one = why_no_steering()
        if why_one and os.name == "nt":
            print(why_one, file=sys.stderr)
            run_program(program[0], program[1:], read.is_module, path)
            return
        task.react(run, (command, wanted, ports, sockets))
    except (ValueError, TypeError, Unusable) as problem:
        made.error(str(problem))


def sockets_of_systemd(ports: Sequence[tuple[str, int]]) -> dict[tuple[str, int], list[socket.socket]]:
    """The sockets that systemd has given to this process, by port; ValueError if a port has none, or one is left."""
    found: dict[tuple[str, int], list[socket.socket]] = {port: [] for port in ports}
    by_address = {numeric_address(canonical(host) or "0.0.0.0", number): (host, number) for host, number in ports}
    # Twisted's parser of `systemd:` strings takes them out of the environment as soon as it is imported.
    for descriptor in _SystemdParser._sddaemon.inheritedDescriptors():
        taken = bound_socket(descriptor)
        os.close(descriptor)
        port = by_address.get(socket_address(taken.getsockname()))
        if port is None:
            raise ValueError(f"systemd has bound {taken.getsockname()[:2]}, which no --listen names")
        found[port].append(taken)
    for host, number in (port for port, its in found.items() if not its):
        raise ValueError(f"systemd has given no socket for {host_and_port(host or '*', number)}")
    return found


async def run(
    reactor: Any,
    program: Sequence[str],
    wanted: int,
    ports: Sequence[tuple[str, int]],
    sockets: Mapping[tuple[str, int], Sequence[socket.socket]],
) -> None:
    """Run the workers until SIGTERM or SIGINT."""
    try:
        await serve(reactor, Workers(reactor, program, wanted, ports, sockets=sockets), say)
    except (CannotListenError, WorkersFailed) as problem:
        sys.exit(f"{COMMAND}: {problem}")


if __name__ == "__main__":
    main()
