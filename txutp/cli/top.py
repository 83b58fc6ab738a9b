"""``txutp top``: the connections of a running service, refreshed in place."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from txutp.cli.options import DURATION
from txutp.cli.output import (
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    counted,
    give_up,
)

# A service that is busy for longer is taken for one that hangs.
ANSWER_SECONDS = 10.0

# The least time over which ``--once`` measures rates.
RATE_SECONDS = 0.5

STATES = {"SYN_SENT": "syn", "SYN_RECEIVED": "half", "CONNECTED": "up"}

# By which columns one may sort; descending, but for names.
SORTS: dict[str, Callable[[Any], Any]] = {
    "rate": lambda row: -(row["out_bytes_per_second"] + row["in_bytes_per_second"]),
    "out": lambda row: -row["out_bytes_per_second"],
    "in": lambda row: -row["in_bytes_per_second"],
    "rtt": lambda row: -row["rtt"],
    "queue": lambda row: -max(row["queue_delay"], row["receive_queue_delay"]),
    "cwnd": lambda row: -row["cwnd"],
    "resent": lambda row: -row["segs_retrans"],
    "peer": lambda row: row["peer"],
}


class Unusable(Exception):
    """The socket does not answer as it should."""

    def __init__(self, words: str, exit_code: int) -> None:
        super().__init__(words)
        self.exit_code = exit_code


class Service:
    """The other end of a control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not hasattr(socket, "AF_UNIX"):
            raise Unusable("This system has no UNIX sockets.", EXIT_UNCONNECTED)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._socket.connect(str(path))
        except OSError as problem:
            self._socket.close()
            words = {
                FileNotFoundError: "there is no such socket",
                ConnectionRefusedError: "no program listens there any more",
                PermissionError: "it belongs to another user",
            }.get(type(problem), str(problem))
            raise Unusable(f"{path}: {words}.", EXIT_UNCONNECTED) from problem
        self._file = self._socket.makefile("rb")

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._socket.close()

    def ask(self) -> dict[str, Any]:
        """Returns the figures of now; raises ``Unusable``."""
        try:
            self._socket.sendall(b'{"get": "connections"}\n')
            line = self._file.readline()
        except TimeoutError:
            raise Unusable(f"{self._path}: no answer for {ANSWER_SECONDS:g} s.", EXIT_TIMED_OUT) from None
        except OSError as problem:
            raise Unusable(f"The service has ended: {problem}", EXIT_LOST) from problem
        if not line.endswith(b"\n"):
            raise Unusable("The service has ended.", EXIT_LOST)
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and "error" in answer:
            raise Unusable(f"{self._path}: {answer['error']}.", EXIT_DIFFERENT)
        if not isinstance(answer, dict) or not isinstance(answer.get("connections"), list):
            raise Unusable(f"{self._path} is no control socket of txutp.", EXIT_DIFFERENT)
        return answer


class Services:
    """Several of them, such as the workers of one service, whose figures are put together.

    One that has ended is left out, unless none is left then.
    """

    def __init__(self, paths: tuple[Path, ...]) -> None:
        self._living: list[Service] = []
        problems: list[Unusable] = []
        for path in paths:
            try:
                self._living.append(Service(path))
            except Unusable as problem:
                problems.append(problem)
        if not self._living:
            raise problems[0]

    def close(self) -> None:
        """Hang up."""
        for service in self._living:
            service.close()

    def ask(self) -> dict[str, Any]:
        """Returns the figures of now; raises ``Unusable``."""
        answers: list[dict[str, Any]] = []
        for service in list(self._living):
            try:
                answers.append(service.ask())
            except Unusable as problem:
                if problem.exit_code != EXIT_LOST or len(self._living) == 1:
                    raise
                self._living.remove(service)
                service.close()
        return answers[0] if len(answers) == 1 else added(answers)


def added(answers: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns one answer for several: their connections, and one entry for each port, with sums of its counters."""
    ports: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for port in answer["ports"]:
            total = ports.setdefault(port["port"], {"port": port["port"]})
            for name, value in port.items():
                if name != "port":
                    total[name] = None if value is None else (total.get(name) or 0) + value
    return answers[0] | {
        "pid": [answer["pid"] for answer in answers],
        "ports": list(ports.values()),
        "connections": [row for answer in answers for row in answer["connections"]],
    }


@click.command(
    short_help="Show the connections of a running service.",
    epilog=f"Exit codes: {EXIT_DIFFERENT} the socket is another program's; {EXIT_LOST} the service has ended;"
    f" {EXIT_TIMED_OUT} it does not answer; {EXIT_UNCONNECTED} there is no such socket, or it is not ours;"
    f" {EXIT_INTERRUPTED} interrupted.",
)
@click.argument("paths", metavar="SOCKET...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-i", "--interval", type=DURATION, default="1s", show_default=True, help="Time between two looks.")
@click.option("-s", "--sort", type=click.Choice(list(SORTS)), default="rate", show_default=True, help="Order of rows.")
@click.option(
    "-n", "--lines", type=click.IntRange(min=1), help="Show the first N connections.  [default: all that fit]"
)
@click.option("--once", is_flag=True, help="Print one table and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each look.")
def top(paths: tuple[Path, ...], interval: float, sort: str, lines: int | None, once: bool, as_json: bool) -> None:
    """Show the uTP connections of a program that has opened a control socket with `openControlSocket`.

    Of several sockets, those of workers say, all connections are shown together.

    OUT and IN are the rates of the interval, QUEUE the time that packets wait on the way to the peer and on the way
    back, CWND the congestion window, and RESENT the packets that were sent again.
    """
    try:
        service = Services(paths)
    except Unusable as problem:
        give_up(str(problem), problem.exit_code)
    try:
        _watch(service, interval, sort, lines, once, as_json)
    except Unusable as problem:
        give_up(str(problem), problem.exit_code)
    except KeyboardInterrupt:
        give_up("Interrupted.", EXIT_INTERRUPTED)
    finally:
        service.close()


def _watch(service: Services, interval: float, sort: str, lines: int | None, once: bool, as_json: bool) -> None:
    console = Console(highlight=False)
    wait = max(interval, RATE_SECONDS) if once else interval
    before = _Look(service.ask(), None)
    if as_json or once or not console.is_terminal:
        while True:
            time.sleep(wait)
            look = _Look(service.ask(), before)
            if as_json:
                click.echo(json.dumps(look.document(sort, lines)))
            else:
                console.print(look.screen(sort, lines, console.width))
            if once:
                return
            before = look
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(before.screen(sort, lines or max(console.height - 4, 1), console.width), refresh=True)
            time.sleep(wait)
            before = _Look(service.ask(), before)


class _Look:
    """One answer of the service, with the rates since the one before it."""

    def __init__(self, answer: dict[str, Any], before: _Look | None) -> None:
        self.time = time.monotonic()
        self.answer = answer
        self.rows = answer["connections"]
        self._by_name = {name_of(row): row for row in self.rows}
        for row in self.rows:
            old = None if before is None else before._by_name.get(name_of(row))
            for rate, count in (("out_bytes_per_second", "bytes_acked"), ("in_bytes_per_second", "bytes_received")):
                row[rate] = 0.0
                # Another connection may have taken the name.
                if before is not None and old is not None and old[count] <= row[count]:
                    row[rate] = (row[count] - old[count]) / max(self.time - before.time, 1e-3)

    def _processes(self) -> str:
        pid = self.answer["pid"]
        return counted(len(pid), "process", "processes") if isinstance(pid, list) else str(pid)

    def _sorted(self, sort: str, lines: int | None) -> list[dict[str, Any]]:
        return sorted(self.rows, key=SORTS[sort])[:lines]

    def document(self, sort: str, lines: int | None) -> dict[str, Any]:
        """Returns what ``--json`` prints."""
        return self.answer | {"connections": self._sorted(sort, lines)}

    def screen(self, sort: str, lines: int | None, width: int) -> Group:
        """Returns a headline and a table; on a narrow screen without the columns that matter least."""
        ports = [port["port"] for port in self.answer["ports"]]
        shown = self._sorted(sort, lines)
        out = sum(row["out_bytes_per_second"] for row in self.rows)
        back = sum(row["in_bytes_per_second"] for row in self.rows)
        headline = (
            f"{len(self.rows)} connections, out {rate_text(out)}, in {rate_text(back)} bit/s;"
            f" {self.answer['program']} ({self._processes()}) on {', '.join(ports) or 'no port'}"
        )
        headings = list(COLUMNS)
        for heading in DROPPED_FIRST:
            if sum(COLUMNS[each][0] + 1 for each in headings) + PEER_WIDTH > width:
                headings.remove(heading)
        peer_width = max(width - sum(COLUMNS[each][0] + 1 for each in headings), PEER_WIDTH)
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("PEER", no_wrap=True)
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "STATE" else "right", no_wrap=True)
        for row in shown:
            cells = [COLUMNS[heading][1](row) for heading in headings]
            table.add_row(Text(shortened(row["peer"], peer_width)), *cells)
        parts: list[Any] = [Text(headline, no_wrap=True, overflow="ellipsis"), table]
        if len(shown) < len(self.rows):
            parts.append(Text(f"and {len(self.rows) - len(shown)} more"))
        return Group(*parts)


def name_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """Returns what tells a connection from others."""
    return row["port"], row["peer"], row["id"], row["initiator"]


def shortened(peer: str, width: int) -> str:
    """Returns an address with its port in so many characters; the host loses its end."""
    if len(peer) <= width:
        return peer
    host, _, port = peer.rpartition(":")
    return f"{host[: width - len(port) - 2]}…:{port}"


def size_text(number: float) -> str:
    """Returns a number in at most five characters, like ``1.5M``."""
    for unit in ("", "K", "M", "G", "T"):
        if number < 999.5 or unit == "T":
            break
        number /= 1_000
    return f"{number:.0f}{unit}" if not unit or number >= 99.5 else f"{number:.1f}{unit}"


def rate_text(bytes_per_second: float) -> str:
    """Returns a rate in bits per second, like ``1.5M``; a dash for none."""
    return size_text(bytes_per_second * 8) if bytes_per_second else "-"


def queue_text(row: dict[str, Any]) -> str:
    """Returns the queue delays of both ways; a dash without a congestion controller, which measures them."""
    return f"{delay_text(row['queue_delay'])}/{delay_text(row['receive_queue_delay'])}" if row["target"] else "-"


def delay_text(milliseconds: float | None) -> str:
    """Returns milliseconds in at most four characters; a dash for None."""
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.1f}" if milliseconds < 9.95 else f"{milliseconds:.0f}"


# Behind the peer: the width of each column, and its text.
COLUMNS: dict[str, tuple[int, Callable[[dict[str, Any]], str]]] = {
    "STATE": (5, lambda row: STATES.get(row["state"], row["state"])),
    "OUT": (5, lambda row: rate_text(row["out_bytes_per_second"])),
    "IN": (5, lambda row: rate_text(row["in_bytes_per_second"])),
    "RTT ms": (6, lambda row: delay_text(row["rtt"] or None)),
    "QUEUE ms": (9, queue_text),
    "CWND": (5, lambda row: size_text(row["cwnd"])),
    "FLIGHT": (6, lambda row: size_text(row["in_flight"])),
    "RESENT": (6, lambda row: size_text(row["segs_retrans"])),
}
DROPPED_FIRST = ("FLIGHT", "STATE", "CWND", "RESENT", "QUEUE ms")
PEER_WIDTH = 21  # of an IPv4 address at its longest
