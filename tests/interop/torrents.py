"""The scenarios of the matrix for peers that speak BitTorrent only: what is sent is the file of a torrent.

"To the peer" means that we seed, "from the peer" that we fetch.  Each side is a program: ours_torrent.py is one, and
the peer's program has the verbs, options and lines of JSON that libtorrent_peer.py tells.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .matrix import WE_CONNECT, Cell
from .places import Place
from .streams import REFUSED_SECONDS, free_port, heard_in_time, outcome, seconds, up
from .support import HERE, PYTHON, Program, running, seeded_bytes, tally_of

OURS = (*PYTHON, str(HERE / "ours_torrent.py"))
PIECE_BYTES = 256 * 1024
CONTENT = "content.bin"


@dataclass(frozen=True)
class Torrent:
    """A torrent, its content, and a directory for what is fetched."""

    file: Path
    seeds: Path
    fetches: Path

    @property
    def content(self) -> Path:
        return self.seeds / CONTENT

    @property
    def fetched(self) -> Path:
        return self.fetches / CONTENT

    def is_fetched(self) -> bool:
        """Whether both files have the same bytes."""
        return tally_of(self.fetched.read_bytes()) == tally_of(self.content.read_bytes())


@contextmanager
def torrent_of(length: int) -> Iterator[Torrent]:
    """A torrent of so many bytes, gone afterwards."""
    from bencode2 import bencode

    place = Path(tempfile.mkdtemp(prefix="txutp"))
    try:
        made = Torrent(place / "content.torrent", place / "here", place / "there")
        made.seeds.mkdir()
        made.fetches.mkdir()
        # Clients that run as another user read and write here, too.
        for directory in (place, made.seeds, made.fetches):
            directory.chmod(0o777)
        data = seeded_bytes(length)
        made.content.write_bytes(data)
        pieces = [data[start : start + PIECE_BYTES] for start in range(0, length, PIECE_BYTES)]
        info = {
            "length": length,
            "name": CONTENT,
            "piece length": PIECE_BYTES,
            "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
        }
        made.file.write_bytes(bencode({"info": info}))
        yield made
    finally:
        # A client that is being killed may still write there.
        shutil.rmtree(place, ignore_errors=True)


def ours_doing(verb: str, torrent: Torrent, **options: object) -> list[str]:
    """Our command."""
    path = torrent.content if verb == "seed" else torrent.fetched
    words = [*OURS, verb, str(torrent.file), str(path)]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", json.dumps(value) if name == "settings" else str(value)]
    return words


def theirs_doing(cell: Cell, verb: str, torrent: Torrent, **options: bool) -> list[str]:
    """The peer's command."""
    directory = torrent.seeds if verb == "seed" else torrent.fetches
    flags = [f"--{name.replace('_', '-')}" for name, on in options.items() if on]
    return [*cell.peer.command(), verb, str(torrent.file), str(directory), *flags]


@asynccontextmanager
async def met(cell: Cell, place: Place, ours: list[str], theirs: list[str]) -> AsyncIterator[tuple[Program, Program]]:
    """Both programs while the block runs, ours first."""
    client, server = (ours, theirs) if cell.role == WE_CONNECT else (theirs, ours)
    where = ["--host", place.host]
    async with running(*place.inside("server"), *server, *where) as listener:
        port = str((await listener.result())["port"])
        async with running(*place.inside("client"), *client, port, *where) as caller:
            yield (caller, listener) if cell.role == WE_CONNECT else (listener, caller)


async def up_to_them(cell: Cell, place: Place) -> None:
    """We seed."""
    with torrent_of(cell.length) as torrent:
        theirs = theirs_doing(cell, "fetch", torrent, stock_buffers=cell.row.stock_buffers)
        async with met(cell, place, ours_doing("seed", torrent), theirs) as (_, peer):
            # Our side speaks nothing but uTP, so what has come has come over that.
            await peer.result()
            await peer.finished()
        assert torrent.is_fetched()


async def down_to_us(cell: Cell, place: Place) -> None:
    """We fetch."""
    await _fetch(cell, place)


async def idle(cell: Cell, place: Place) -> None:
    """We fetch after a long silence."""
    settings = {"keepalive_us": cell.row.keepalive_us} if cell.row.keepalive_us else {}
    await _fetch(cell, place, settings=settings, pause_seconds=cell.row.silence_seconds)


async def _fetch(cell: Cell, place: Place, **options: object) -> None:
    """Fetch the file."""
    with torrent_of(cell.length) as torrent:
        theirs = theirs_doing(cell, "seed", torrent, stock_buffers=cell.row.stock_buffers)
        async with met(cell, place, ours_doing("fetch", torrent, **options), theirs) as (ours, _):
            assert await outcome(ours) == {"error": None, "complaint": None, "complete": True}
        assert torrent.is_fetched()


async def each_way(cell: Cell, place: Place) -> None:
    """First we seed, then we fetch."""
    await up_to_them(cell, place)
    await down_to_us(cell, place)


async def closed_port(cell: Cell, place: Place) -> str:
    """The side that listened is gone: the one that connects hears that it is refused."""
    with torrent_of(1) as torrent:
        ours, theirs = ours_doing("fetch", torrent), theirs_doing(cell, "seed", torrent, until_lost=True)
        client, server = (ours, theirs) if cell.role == WE_CONNECT else (theirs, ours)
        async with running(*server) as listener:
            port = str((await listener.result())["port"])
            listener.kill()
            await listener.ended
        begun = time.monotonic()
        async with running(*client, port) as caller:
            result = await caller.result()
        took = time.monotonic() - begun
    if cell.role == WE_CONNECT:
        assert result["error"] == "ConnectionRefusedError"
        assert took < REFUSED_SECONDS
    return seconds(took)


async def killed_reader(cell: Cell, place: Place) -> str:
    """The peer is killed while we seed: we hear that it is gone."""
    with torrent_of(cell.length) as torrent:
        ours, theirs = ours_doing("seed", torrent), theirs_doing(cell, "fetch", torrent)
        async with met(cell, place, ours, theirs) as (here, peer):
            await up(here)
            peer.kill()
            begun = time.monotonic()
            result = await outcome(here)
    return heard_in_time(result, begun)


async def killed_writer(cell: Cell, place: Place) -> str:
    """The peer is killed while we fetch: we hear that it is gone."""
    with torrent_of(cell.length) as torrent:
        theirs = theirs_doing(cell, "seed", torrent)
        async with met(cell, place, ours_doing("fetch", torrent), theirs) as (here, peer):
            await up(here)
            peer.kill()
            begun = time.monotonic()
            result = await outcome(here)
    return heard_in_time(result, begun)


async def restarted(cell: Cell, place: Place) -> str:
    """We are killed and start again on the same port while the peer seeds: our RESETs tell it."""
    port = free_port(place.host)
    with torrent_of(cell.length) as torrent:
        ours = ours_doing("fetch", torrent, listen_port=port)
        async with met(cell, place, ours, theirs_doing(cell, "seed", torrent, until_lost=True)) as (here, peer):
            await up(here)
            here.kill()
            await here.ended
            begun = time.monotonic()
            async with running(*ours, "--host", place.host) as again:
                assert (await again.result())["port"] == port
                await peer.result()
    return seconds(time.monotonic() - begun)
