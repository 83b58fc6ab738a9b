"""The scenarios of the matrix for peers whose program carries plain streams.

Each side is a program: ours.py is one, and the peer's program has the same verbs, options and lines of JSON.  A
scenario returns what the page shall say beyond "ok", or nothing.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .matrix import WE_CONNECT, Cell
from .places import Place
from .support import HERE, PYTHON, Program, running

OURS = (*PYTHON, str(HERE / "ours.py"))
GREETING = "Hello."

# More than any scenario lets through before it ends.
ENDLESS_BYTES = 100_000_000_000

# What a connection may take to notice that the other side was killed: its host says so.
KILLED_SECONDS = 8
REFUSED_SECONDS = 3


@dataclass(frozen=True)
class Does:
    """What one side does: a verb, and options with their values."""

    verb: str
    options: dict[str, object] = field(default_factory=dict)

    def words(self) -> list[str]:
        words = [self.verb]
        for name, value in self.options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        return words

    def expecting(self, length: int) -> Does:
        return Does(self.verb, {**self.options, "expect": length})


def does(verb: str, length: int = 0, **options: object) -> Does:
    """A verb with so many bytes; ``settings`` are those of txutp."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    if "settings" in named:
        named["settings"] = json.dumps(named["settings"])
    return Does(verb, {"bytes": length, **named})


@asynccontextmanager
async def met(cell: Cell, place: Place, ours: Does, theirs: Does) -> AsyncIterator[tuple[Program, Program]]:
    """Both programs while the block runs, ours first; the side that connects greets."""
    sides = [(OURS, ours), (cell.peer.command(), theirs)]
    (client, asks), (server, serves) = sides if cell.role == WE_CONNECT else reversed(sides)
    where = ["--host", place.host]
    async with running(*place.inside("server"), *server, "listen", *serves.words(), *where) as listener:
        port = (await listener.result())["port"]
        call = [*place.inside("client"), *client, "connect", str(port), *asks.words(), *where, "--greeting", GREETING]
        async with running(*call) as caller:
            yield (caller, listener) if cell.role == WE_CONNECT else (listener, caller)


async def outcome(program: Program) -> dict[str, Any]:
    """The next line of a program about a connection that has ended."""
    while True:
        result = await program.result()
        if "error" in result:
            return result


async def up(program: Program) -> None:
    """Wait until a megabyte has come through."""
    assert (await program.result()) == {"up": True}


def greeted(cell: Cell, ours: int, theirs: int) -> tuple[int, int]:
    """So many bytes from us and from them, with the greeting of the side that connects."""
    return (ours + len(GREETING), theirs) if cell.role == WE_CONNECT else (ours, theirs + len(GREETING))


async def both_ended_well(ours: Program, theirs: Program, expected: tuple[int, int], connections: int = 1) -> None:
    """Each side got what the other one sent, all of it, and heard no error."""
    here = [await outcome(ours) for _ in range(connections)]
    there = [await outcome(theirs) for _ in range(connections)]
    assert [result["error"] for result in here + there] == [None] * 2 * connections
    assert all(result["ended"] for result in here + there)
    for sender, receiver, length in ((here, there, expected[0]), (there, here, expected[1])):
        sent = sorted((tally["sent"]["bytes"], tally["sent"]["sha256"]) for tally in sender)
        received = sorted((tally["received"]["bytes"], tally["received"]["sha256"]) for tally in receiver)
        assert received == sent
        assert [count for count, _ in sent] == [length] * connections


def until_heard(cell: Cell, ours: Does, theirs: Does, heard_by_us: int, heard_by_them: int) -> tuple[Does, Does]:
    """The same with peers that know no half close: each side ends only when it has heard everything, too."""
    if cell.peer.half_closes:
        return ours, theirs
    return ours.expecting(heard_by_us), theirs.expecting(heard_by_them)


def stock(cell: Cell) -> dict[str, object]:
    """What the peer is told about the buffers of its socket."""
    return {"stock_buffers": True} if cell.row.stock_buffers else {}


async def echo(cell: Cell, place: Place) -> None:
    """What we send comes back."""
    ours, theirs = greeted(cell, cell.length, cell.length)
    if cell.role == WE_CONNECT:
        theirs += len(GREETING)
    sides = until_heard(cell, does("exchange", cell.length), does("echo"), theirs, ours)
    async with met(cell, place, *sides) as programs:
        await both_ended_well(*programs, (ours, theirs))


async def up_to_them(cell: Cell, place: Place) -> None:
    """We send, they only read; then both end."""
    async with met(cell, place, does("exchange", cell.length), does("answer", **stock(cell))) as programs:
        await both_ended_well(*programs, greeted(cell, cell.length, 0))


async def down_to_us(cell: Cell, place: Place) -> None:
    """They send, we only read."""
    ours, theirs = greeted(cell, 0, cell.length)
    sides = until_heard(cell, does("answer"), does("exchange", cell.length, **stock(cell)), theirs, ours)
    async with met(cell, place, *sides) as programs:
        await both_ended_well(*programs, (ours, theirs))


async def each_way(cell: Cell, place: Place) -> None:
    """Both send at once."""
    ours, theirs = greeted(cell, cell.length, cell.length)
    send = does("exchange", cell.length), does("exchange", cell.length, **stock(cell))
    async with met(cell, place, *until_heard(cell, *send, theirs, ours)) as programs:
        await both_ended_well(*programs, (ours, theirs))


async def half_close_by_us(cell: Cell, place: Place) -> None:
    """They send only after our end, and all of it arrives."""
    async with met(cell, place, does("exchange", cell.length), does("answer", cell.length)) as programs:
        await both_ended_well(*programs, greeted(cell, cell.length, cell.length))


async def half_close_by_them(cell: Cell, place: Place) -> None:
    """We send only after their end, and all of it arrives."""
    async with met(cell, place, does("answer", cell.length), does("exchange", cell.length)) as programs:
        await both_ended_well(*programs, greeted(cell, cell.length, cell.length))


async def client_closes(cell: Cell, place: Place) -> None:
    """The client writes and closes at once, and nothing of it is lost."""
    await _one_closes(cell, place, cell.role == WE_CONNECT)


async def server_closes(cell: Cell, place: Place) -> None:
    """The server writes and closes at once."""
    await _one_closes(cell, place, cell.role != WE_CONNECT)


async def _one_closes(cell: Cell, place: Place, we_close: bool) -> None:
    """One side closes right after its last write; the other one reads, and closes when it has read the end."""
    closes, reads = does("send-close", cell.length), does("answer")
    async with met(cell, place, *((closes, reads) if we_close else (reads, closes))) as (ours, theirs):
        here, there = await outcome(ours), await outcome(theirs)
    assert here["error"] is None
    closer, reader = (here, there) if we_close else (there, here)
    assert reader["received"] == closer["sent"]
    assert reader["ended"]
    if we_close:
        assert reader["error"] is None
    assert greeted(cell, *((cell.length, 0) if we_close else (0, cell.length)))[not we_close] == closer["sent"]["bytes"]


async def crowd(cell: Cell, place: Place) -> None:
    """Many connections at once, each with bytes of its own."""
    many = {"connections": cell.row.connections}
    ours, theirs = greeted(cell, cell.length, cell.length)
    send = does("exchange", cell.length, **many), does("exchange", cell.length, **many)
    async with met(cell, place, *until_heard(cell, *send, theirs, ours)) as programs:
        await both_ended_well(*programs, (ours, theirs), cell.row.connections)


async def idle(cell: Cell, place: Place) -> None:
    """Half of the bytes, a long silence, the other half; all come back."""
    ours, theirs = greeted(cell, cell.length, cell.length)
    if cell.role == WE_CONNECT:
        theirs += len(GREETING)
    settings = {"keepalive_us": cell.row.keepalive_us} if cell.row.keepalive_us else {}
    talk = does("exchange", cell.length, pause_seconds=cell.row.silence_seconds, settings=settings)
    async with met(cell, place, *until_heard(cell, talk, does("echo"), theirs, ours)) as programs:
        await both_ended_well(*programs, (ours, theirs))


def free_port(host: str) -> int:
    """A UDP port that nothing listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


async def closed_port(cell: Cell, place: Place) -> str:
    """The side that listened is gone: the one that connects hears that it is refused."""
    client, server = (OURS, cell.peer.command()) if cell.role == WE_CONNECT else (cell.peer.command(), OURS)
    async with running(*server, "listen", "answer", "--host", place.host) as listener:
        port = (await listener.result())["port"]
        listener.kill()
        await listener.ended
    begun = time.monotonic()
    async with running(*client, "connect", str(port), "answer", "--host", place.host) as caller:
        result = await outcome(caller)
    took = time.monotonic() - begun
    if cell.role == WE_CONNECT:
        assert result["error"] == "ConnectionRefusedError"
        assert took < REFUSED_SECONDS
    else:
        assert result["error"] is not None
    return seconds(took)


def seconds(took: float) -> str:
    """How long something took, for the page."""
    return "within 1 s" if took < 1 else f"after {took:.0f} s"


def heard_in_time(result: dict[str, Any], begun: float) -> str:
    """Check that our end heard of the peer's death soon after ``begun``; returns how long that took, for the page."""
    took = time.monotonic() - begun
    assert result["error"] == "ConnectionLost"
    assert took < KILLED_SECONDS
    return seconds(took)


async def killed_reader(cell: Cell, place: Place) -> str:
    """The peer is killed while we send: we hear that it is gone."""
    async with met(cell, place, does("exchange", ENDLESS_BYTES), does("answer")) as (ours, theirs):
        await up(ours)
        theirs.kill()
        begun = time.monotonic()
        result = await outcome(ours)
    return heard_in_time(result, begun)


async def killed_writer(cell: Cell, place: Place) -> str:
    """The peer is killed while we only read: we hear so, too."""
    async with met(cell, place, does("answer"), does("exchange", ENDLESS_BYTES)) as (ours, theirs):
        await up(ours)
        theirs.kill()
        begun = time.monotonic()
        result = await outcome(ours)
    return heard_in_time(result, begun)


async def restarted(cell: Cell, place: Place) -> str:
    """We are killed and start again on the same port while the peer sends: our RESETs tell it."""
    port = free_port(place.host)
    reads = does("answer", **{"local_port" if cell.role == WE_CONNECT else "port": port})
    async with met(cell, place, reads, does("exchange", ENDLESS_BYTES)) as (ours, theirs):
        await up(ours)
        ours.kill()
        await ours.ended
        begun = time.monotonic()
        again = ["listen", "answer", "--host", place.host, "--port", str(port)]
        async with running(*OURS, *again) as ours_again:
            assert (await ours_again.result())["port"] == port
            await outcome(theirs)
    return seconds(time.monotonic() - begun)
