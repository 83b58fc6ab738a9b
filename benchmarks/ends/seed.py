"""The file of ``torrent.py`` from txutp: the seeder of ``examples`` connects to a client that is known to want it.

Verb: send.  Options: host, bytes, port, congestion.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol

from benchmarks.ends.talk import Stopwatch, Words, run, say
from benchmarks.ends.torrent import IN_MEMORY, NAME, PIECE_BYTES, description
from benchmarks.ends.transports import client, counted
from benchmarks.support import ROOT

sys.path.insert(0, str(ROOT / "examples"))

from bittorrent import Block, Torrent
from seeder import Seeder


class Seed(Seeder):
    """Says what was counted when the other side has gone, and how long it took until it had everything."""

    def __init__(self, torrent: Torrent, content: Any) -> None:
        super().__init__(torrent, content)
        self.gone: Deferred[None] = Deferred()
        self._left_bytes = torrent.length
        self._took: Words = {}

    def connectionMade(self) -> None:
        self._stopwatch = Stopwatch()
        super().connectionMade()

    def send_block(self, block: Block) -> None:
        super().send_block(block)
        self._left_bytes -= block.length
        if not self._left_bytes:
            self.transport.acknowledged().addCallbacks(self._arrived, lambda failure: None)

    def _arrived(self, result: None) -> None:
        self._took = self._stopwatch.read()

    def ended(self, why: str) -> None:
        say(counted(self.transport) | (self._took or self._stopwatch.read()))
        self.gone.callback(None)


def torrent_of(total_bytes: int) -> Torrent:
    """What the torrent file of ``description`` would tell."""
    described = description(total_bytes)
    hashes = tuple(described.hash_for_piece(piece) for piece in range(described.num_pieces()))
    info_hash = hashlib.sha1(described.info_section()).digest()
    return Torrent(info_hash, NAME, total_bytes, PIECE_BYTES, hashes)


async def send(reactor: Any, options: Words) -> None:
    """Offer the file over one connection."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.exists() else None) as directory:
        path = Path(directory) / NAME
        with path.open("wb") as file:
            file.truncate(options["bytes"])
        with path.open("rb") as content:
            seed = Seed(torrent_of(options["bytes"]), content)
            await connectProtocol(client(reactor, options), seed)
            await seed.gone


if __name__ == "__main__":
    run({"send": send})
