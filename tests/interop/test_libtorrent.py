"""BitTorrent over uTP with libtorrent: the two examples in both directions.

The examples run as a user would run them, as programs of their own. libtorrent has no TCP here, so
what arrives has come over uTP; it says so itself, too.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from tests.missing import leave_out

from .support import (
    HERE,
    HOST,
    ROOT,
    TRANSPORT,
    Program,
    connected,
    is_probed,
    running,
    seeded_bytes,
    tally_of,
    within,
)

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LENGTH = 16_000_000
LEECHERS = 20
PIECE_LENGTH = 256 * 1024

# libtorrent gives up a connection when one packet is lost three times. Then it, or the leecher,
# would have failed; this limit is only for a machine that is very busy.
LIMIT_SECONDS = 60

PEER = [sys.executable, str(HERE / "libtorrent_peer.py")]
LEECHER = [sys.executable, str(ROOT / "examples" / "leecher.py")]
SEEDER = [sys.executable, str(ROOT / "examples" / "seeder.py")]
DHT_SEEDER = [sys.executable, str(ROOT / "examples" / "dht_seeder.py")]


@pytest.fixture(autouse=True)
def _needs() -> None:
    """Libtorrent and the library of the examples, or a sentence that tells how to get them."""
    for module, package in [("libtorrent", "libtorrent"), ("bencode2", "bencode2")]:
        if importlib.util.find_spec(module) is None:
            leave_out(f"{package} is missing: run `pip install {package}`")


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A file to share."""
    path = tmp_path / "here" / "content.bin"
    path.parent.mkdir()
    # The last piece is shorter than the others, and so is its last block.
    path.write_bytes(seeded_bytes(LENGTH + 123))
    return path


@pytest.fixture
def torrent(tmp_path: Path, content: Path) -> Path:
    """The torrent file for it."""
    from bencode2 import bencode

    data = content.read_bytes()
    pieces = [data[start : start + PIECE_LENGTH] for start in range(0, len(data), PIECE_LENGTH)]
    info = {
        "length": len(data),
        "name": content.name,
        "piece length": PIECE_LENGTH,
        "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
    }
    path = tmp_path / "content.torrent"
    path.write_bytes(bencode({"info": info}))
    return path


@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_leecher_fetches_from_libtorrent(tmp_path: Path, content: Path, torrent: Path) -> None:
    """Our leecher connects to a libtorrent seed and gets the file."""
    output = tmp_path / "fetched.bin"

    async with running(*PEER, "seed", str(torrent), str(content.parent)) as seed:
        endpoint = f"{TRANSPORT}:{HOST}:{(await seed.result())['port']}"
        async with running(*LEECHER, str(torrent), str(output), endpoint) as leecher:
            await leecher.finished()
        result = await seed.result()
        await seed.finished()

    assert tally_of(output.read_bytes()) == tally_of(content.read_bytes())
    assert result["over_utp"] == [TRANSPORT == "utp"]
    assert result["connections"] == 1
    assert result["sent_bytes"] >= LENGTH


@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_leecher_fetches_from_several_at_once(tmp_path: Path, content: Path, torrent: Path) -> None:
    """A libtorrent seed and our seeder each send a part of the file, beside a closed port."""
    output = tmp_path / "fetched.bin"

    async with (
        running(*PEER, "seed", str(torrent), str(content.parent)) as seed,
        running(*SEEDER, str(torrent), str(content), f"{TRANSPORT}:0:interface={HOST}") as seeder,
    ):
        ports = [(await seed.result())["port"], port_of(await seeder.line()), 9]
        endpoints = [f"{TRANSPORT}:{HOST}:{port}" for port in ports]
        async with running(*LEECHER, str(torrent), str(output), *endpoints) as leecher:
            await leecher.finished()
        result = await seed.result()
        await seeder.says(b"went. The other side closed the connection.")

    assert tally_of(output.read_bytes()) == tally_of(content.read_bytes())
    assert result["over_utp"] == [TRANSPORT == "utp"]
    assert 0 < result["sent_bytes"] < LENGTH


@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_many_leechers_and_libtorrent_at_once(
    tmp_path: Path, content: Path, torrent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One seeder serves all of them at the same time, and keeps no more than a little for each."""
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    leech = importlib.import_module("leecher").main
    directory = tmp_path / "there"
    directory.mkdir()

    async with running(*SEEDER, str(torrent), str(content), f"{TRANSPORT}:0:interface={HOST}") as seeder:
        port = port_of(await seeder.line())
        before = peak_memory_bytes(seeder)
        async with running(*PEER, "fetch", str(torrent), str(directory), str(port)) as peer:
            outputs = [tmp_path / f"fetched{number}.bin" for number in range(LEECHERS)]
            endpoint = f"{TRANSPORT}:{HOST}:{port}"
            await gatherResults(
                [Deferred.fromCoroutine(leech(reactor, str(torrent), str(output), endpoint)) for output in outputs]
            )
            result = await peer.result()
            await peer.finished()
        memory_bytes = peak_memory_bytes(seeder) - before
        came = seeder.errors.split(b" went.")[0].count(b" came")

    assert {tally_of(path.read_bytes())["sha256"] for path in [*outputs, directory / content.name]} == {
        tally_of(content.read_bytes())["sha256"]
    }
    assert result["over_utp"] == [TRANSPORT == "utp"]
    assert came > LEECHERS // 2
    assert memory_bytes < 2_000_000 * LEECHERS


def port_of(line: str) -> int:
    """What a seeder listens on."""
    match = re.search(r"port (\d+)$", line)
    assert match
    return int(match[1])


def peak_memory_bytes(program: Program) -> int:
    """The most that a process has had in memory so far."""
    status = Path(f"/proc/{program.transport.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_libtorrent_fetches_from_seeder(tmp_path: Path, content: Path, torrent: Path) -> None:
    """libtorrent connects to our seeder and gets the file."""
    directory = tmp_path / "there"
    directory.mkdir()

    endpoint = f"{TRANSPORT}:0:interface={HOST}"
    async with running(*SEEDER, str(torrent), str(content), endpoint) as seeder:
        port = port_of(await seeder.line())
        async with running(*PEER, "fetch", str(torrent), str(directory), str(port)) as leecher:
            result = await leecher.result()
            await leecher.finished()

    fetched = directory / content.name
    assert tally_of(fetched.read_bytes()) == tally_of(content.read_bytes())
    assert result["over_utp"] == [TRANSPORT == "utp"]
    assert result["connections"] == 1


@pytest.mark.skipif(TRANSPORT != "utp", reason="one port for both is what uTP has over TCP")
@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_libtorrent_finds_us_in_the_dht(tmp_path: Path, content: Path, torrent: Path) -> None:
    """Its queries and the content go through one UDP port of ours; it knows only that a node is there."""
    directory = tmp_path / "there"
    directory.mkdir()

    async with running(*DHT_SEEDER, str(torrent), str(content), "0", HOST) as seeder:
        match = re.search(r"port (\d+),", await seeder.line())
        assert match
        async with running(*PEER, "find", str(torrent), str(directory), match[1]) as leecher:
            result = await leecher.result()
            await leecher.finished()

    fetched = directory / content.name
    assert tally_of(fetched.read_bytes()) == tally_of(content.read_bytes())
    assert result["over_utp"] == [True]


@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_leecher_fetches_from_seeder(tmp_path: Path, content: Path, torrent: Path) -> None:
    """The two examples understand each other."""
    output = tmp_path / "fetched.bin"

    endpoint = f"{TRANSPORT}:0:interface={HOST}"
    async with running(*SEEDER, str(torrent), str(content), endpoint) as seeder:
        endpoint = f"{TRANSPORT}:{HOST}:{port_of(await seeder.line())}"
        async with running(*LEECHER, str(torrent), str(output), endpoint) as leecher:
            await leecher.finished()

    assert tally_of(output.read_bytes()) == tally_of(content.read_bytes())


@pytest.mark.skipif(TRANSPORT != "utp", reason="The kernel probes for TCP.")
@pytest_twisted.ensureDeferred
@within(seconds=LIMIT_SECONDS)
async def test_libtorrent_answers_a_probe(content: Path, torrent: Path) -> None:
    """It closes connections that belong to no torrent, so we introduce ourselves first."""
    from bencode2 import bdecode, bencode

    info_hash = hashlib.sha1(bencode(bdecode(torrent.read_bytes())[b"info"])).digest()
    handshake = b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-TX0001-012345678901"
    async with (
        running(*PEER, "seed", str(torrent), str(content.parent)) as seed,
        connected((await seed.result())["port"]) as stream,
    ):
        stream.transport.write(handshake)  # type: ignore[union-attr]
        await stream.has_begun
        assert await is_probed(stream)
        assert not stream.is_lost.has_come
        await stream.close()
