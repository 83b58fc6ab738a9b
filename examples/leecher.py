"""Fetch the file of a torrent from one peer.

    python examples/leecher.py FILE.torrent OUTPUT ENDPOINT

For instance, over uTP:

    python examples/leecher.py debian.torrent debian.iso utp:127.0.0.1:6881

There is no tracker in it: the endpoint string says which peer to ask. ``pip install bencode2`` (or
this package with the extra ``examples``) gives what it needs besides Twisted.
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from typing import Any, BinaryIO

from bittorrent import (
    BITFIELD,
    CHOKE,
    HAVE,
    INTERESTED,
    PIECE,
    REQUEST,
    UNCHOKE,
    Block,
    Peer,
    Torrent,
)
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.task import react

# So many requests are on their way at any time. 128 of 16 KiB are 2 MiB, which keeps a link of
# 160 Mbit/s busy over a round trip of 100 ms.
PIPELINE_REQUESTS = 128


class Incomplete(Exception):
    """The connection ended before the file was complete."""


class Leecher(Peer):
    """Asks for every block of the file, checks every piece, and writes the right ones."""

    def __init__(self, torrent: Torrent, output: BinaryIO) -> None:
        super().__init__(torrent)
        self.output = output
        # Fires when the connection is gone: with a result if the file is complete.
        self.finished: Deferred[None] = Deferred()

        # Each block is in one of these: not asked for, asked for, or here (by piece and offset).
        self.wanted: deque[Block] = deque()
        self.asked: set[Block] = set()
        self.arrived: dict[int, dict[int, bytes]] = {}

        # Pieces that the other side has, and pieces that are in the output.
        self.offered: set[int] = set()
        self.written: set[int] = set()

        # A choked peer must not ask.
        self.choked = True

    def greeted(self) -> None:
        self.send(INTERESTED)

    def message_received(self, kind: int, body: bytes) -> None:
        if kind == BITFIELD:
            for piece in range(len(self.torrent.piece_hashes)):
                if piece // 8 < len(body) and body[piece // 8] & (0x80 >> piece % 8):
                    self.piece_offered(piece)
        elif kind == HAVE and len(body) == 4:
            self.piece_offered(int.from_bytes(body, "big"))
        elif kind == UNCHOKE:
            self.choked = False
        elif kind == CHOKE:
            # What was asked for will not come any more. Ask again when we may.
            self.choked = True
            self.wanted.extendleft(sorted(self.asked, reverse=True))
            self.asked.clear()
        elif kind == PIECE and len(body) >= 8:
            piece, offset = struct.unpack_from("!II", body)
            self.block_arrived(piece, offset, body[8:])
        self.ask()

    def piece_offered(self, piece: int) -> None:
        if piece < len(self.torrent.piece_hashes) and piece not in self.offered:
            self.offered.add(piece)
            self.wanted.extend(self.torrent.blocks_of(piece))

    def ask(self) -> None:
        """Fill the pipeline with requests."""
        while self.wanted and len(self.asked) < PIPELINE_REQUESTS and not self.choked:
            block = self.wanted.popleft()
            self.asked.add(block)
            self.send(REQUEST, struct.pack("!III", *block))

    def block_arrived(self, piece: int, offset: int, data: bytes) -> None:
        block = Block(piece, offset, len(data))
        if block not in self.asked:
            return
        self.asked.remove(block)

        blocks = self.arrived.setdefault(piece, {})
        blocks[offset] = data
        if sum(map(len, blocks.values())) == self.torrent.size_of(piece):
            del self.arrived[piece]
            self.piece_arrived(piece, b"".join(blocks[offset] for offset in sorted(blocks)))

    def piece_arrived(self, piece: int, data: bytes) -> None:
        if not self.torrent.is_right(piece, data):
            return self.give_up(f"The other side sent a wrong piece {piece}.")

        self.output.seek(piece * self.torrent.piece_length)
        self.output.write(data)
        self.written.add(piece)
        progress = f"\r{len(self.written)} of {len(self.torrent.piece_hashes)} pieces"
        print(progress, end="", file=sys.stderr, flush=True)

        if self.is_complete():
            print(file=sys.stderr)
            self.transport.loseConnection()

    def is_complete(self) -> bool:
        """Whether every piece is in the output."""
        return len(self.written) == len(self.torrent.piece_hashes)

    def ended(self, why: str) -> None:
        if self.is_complete():
            self.finished.callback(None)
        else:
            self.finished.errback(Incomplete(why))


async def main(reactor: Any, torrent_path: str, output_path: str, endpoint_string: str) -> None:
    """Fetch one file from one peer, and end the process with status 0 if it is all there."""
    torrent = Torrent.load(torrent_path)
    endpoint = clientFromString(reactor, endpoint_string)

    with open(output_path, "wb") as output:
        try:
            leecher = await connectProtocol(endpoint, Leecher(torrent, output))
            await leecher.finished
        except (ConnectError, Incomplete) as error:
            sys.exit(f"{torrent.name} is not complete. {error}")

    print(f"{torrent.name} is complete: {torrent.length} bytes", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
