"""Fetch the file of a torrent from one peer, or from several at once.

    python examples/leecher.py FILE.torrent OUTPUT ENDPOINT...

For instance, over uTP:

    python examples/leecher.py debian.torrent debian.iso utp:127.0.0.1:6881 utp:127.0.0.1:6882

There is no tracker in it: the endpoint strings say which peers to ask. ``pip install bencode2`` (or
this package with the extra ``examples``) gives what it needs besides Twisted.
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from bittorrent import (
    BITFIELD,
    CANCEL,
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
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.error import ConnectError, DNSLookupError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import react

# Requests to one peer that are on their way at any time. 128 of 16 KiB are 2 MiB, which keeps a link
# of 160 Mbit/s busy over a round trip of 100 ms.
PIPELINE_REQUESTS = 128

# Requests to one peer at the end, when all blocks have been asked for and it helps the others.
ENDGAME_REQUESTS = 8


class Download:
    """The file: which blocks are here, and which are asked of whom."""

    def __init__(self, torrent: Torrent, output: BinaryIO) -> None:
        self.torrent = torrent
        self.output = output
        self.leechers: set[Leecher] = set()
        # Fires when every piece is in the output.
        self.completed: Deferred[None] = Deferred()

        # Each block is in one of these: not asked for, asked for, here, or in the output.
        pieces = range(len(torrent.piece_hashes))
        self.wanted = {piece: deque(torrent.blocks_of(piece)) for piece in pieces}
        self.asked: dict[Block, set[Leecher]] = {}
        self.arrived: dict[int, dict[Block, Arrived]] = {}
        self.written: set[int] = set()

        # A wrong piece that has come from several peers is kept, and fetched again from one of them:
        # that one is on trial. A right piece then shows which peer has sent other bytes before.
        self.doubted: dict[int, dict[Block, Arrived]] = {}
        self.on_trial: dict[int, Leecher] = {}

    def next_block(self, leecher: Leecher) -> Block | None:
        """The block to ask this peer for, if there is one."""
        # Pieces that have begun come first.
        for piece in chain(self.arrived, self.wanted):
            if piece in self.wanted and self.may_ask(leecher, piece):
                block = self.wanted[piece].popleft()
                if not self.wanted[piece]:
                    del self.wanted[piece]
                self.asked[block] = {leecher}
                return block

        # The end of the game: all blocks are asked for. A peer with little to do helps the others,
        # from the end, with what they would send last.
        if len(leecher.asked) >= ENDGAME_REQUESTS:
            return None
        late = [
            block for block in reversed(self.asked) if block not in leecher.asked and self.may_ask(leecher, block.piece)
        ]
        if not late:
            return None
        block = min(late, key=lambda block: len(self.asked[block]))
        self.asked[block].add(leecher)
        return block

    def may_ask(self, leecher: Leecher, piece: int) -> bool:
        """Whether this peer has the piece, and no other one is on trial with it."""
        if piece not in leecher.offered:
            return False
        return piece not in self.doubted or self.on_trial.setdefault(piece, leecher) is leecher

    def want(self, block: Block) -> None:
        """Let a block be asked for again."""
        self.wanted.setdefault(block.piece, deque()).appendleft(block)

    def block_arrived(self, block: Block, data: bytes, sender: Leecher) -> None:
        """Keep a block, and tell the other peers that were asked for it."""
        for other in self.asked.pop(block) - {sender}:
            other.cancel(block)
        blocks = self.arrived.setdefault(block.piece, {})
        blocks[block] = Arrived(data, sender)
        if len(blocks) == len(self.torrent.blocks_of(block.piece)):
            self.piece_arrived(block.piece, self.arrived.pop(block.piece))

    def piece_arrived(self, piece: int, blocks: dict[Block, Arrived]) -> None:
        """Write a right piece. Fetch a wrong one again, and leave the peer that is to blame."""
        self.on_trial.pop(piece, None)
        data = b"".join(blocks[block].data for block in sorted(blocks))
        if self.torrent.is_right(piece, data):
            self.write(piece, data)
            before = self.doubted.pop(piece, {})
            liars = {then.sender for block, then in before.items() if then.data != blocks[block].data}
        else:
            self.wanted[piece] = deque(self.torrent.blocks_of(piece))
            liars = {block.sender for block in blocks.values()}
            if len(liars) > 1:
                self.doubted[piece] = blocks
                liars = set()
        for liar in liars & self.leechers:
            liar.give_up(f"The other side sent a wrong piece {piece}.")
        self.share_out()

    def write(self, piece: int, data: bytes) -> None:
        self.output.seek(piece * self.torrent.piece_length)
        self.output.write(data)
        self.written.add(piece)
        print(f"\r{self}", end="", file=sys.stderr, flush=True)
        if len(self.written) == len(self.torrent.piece_hashes):
            print(file=sys.stderr)
            for leecher in tuple(self.leechers):
                leecher.transport.loseConnection()
            self.completed.callback(None)

    def give_back(self, leecher: Leecher) -> None:
        """This peer will not send what it was asked for: others may."""
        for block in sorted(leecher.asked, reverse=True):
            self.asked[block].remove(leecher)
            if not self.asked[block]:
                del self.asked[block]
                self.want(block)
        leecher.asked.clear()

        # Nor does a piece count any more that it should have sent alone, or anything from a liar.
        for piece, blocks in self.arrived.items():
            if leecher.complaint or self.on_trial.get(piece) is leecher:
                for block in [block for block in blocks if blocks[block].sender is leecher]:
                    del blocks[block]
                    self.want(block)
        self.on_trial = {piece: other for piece, other in self.on_trial.items() if other is not leecher}
        self.share_out()

    def share_out(self) -> None:
        """Let all peers be asked for what has become free."""
        for leecher in self.leechers:
            leecher.ask()

    def __str__(self) -> str:
        return f"{len(self.written)} of {len(self.torrent.piece_hashes)} pieces"


class Arrived(NamedTuple):
    """The bytes of a block, and the peer that they came from."""

    data: bytes
    sender: Leecher


class Leecher(Peer):
    """Asks one peer for blocks of a download."""

    def __init__(self, download: Download) -> None:
        super().__init__(download.torrent)
        self.download = download
        self.offered: set[int] = set()
        self.asked: set[Block] = set()
        # A choked peer must not ask.
        self.choked = True
        # Fires with a sentence when the connection is gone.
        self.gone: Deferred[str] = Deferred()

    def greeted(self) -> None:
        self.download.leechers.add(self)
        self.send(INTERESTED)

    def message_received(self, kind: int, body: bytes) -> None:
        if kind == BITFIELD:
            pieces = range(min(len(self.torrent.piece_hashes), 8 * len(body)))
            self.offered.update(piece for piece in pieces if body[piece // 8] & (0x80 >> piece % 8))
        elif kind == HAVE and len(body) == 4:
            self.offered.add(int.from_bytes(body, "big"))
        elif kind == UNCHOKE:
            self.choked = False
        elif kind == CHOKE:
            # What was asked for will not come any more.
            self.choked = True
            self.download.give_back(self)
        elif kind == PIECE and len(body) >= 8:
            block = Block(*struct.unpack_from("!II", body), len(body) - 8)
            # It may have been cancelled too late.
            if block in self.asked:
                self.asked.remove(block)
                self.download.block_arrived(block, body[8:], self)
        self.ask()

    def ask(self) -> None:
        """Fill the pipeline with requests."""
        while not self.choked and not self.complaint and len(self.asked) < PIPELINE_REQUESTS:
            block = self.download.next_block(self)
            if block is None:
                break
            self.asked.add(block)
            self.send(REQUEST, struct.pack("!III", *block))

    def cancel(self, block: Block) -> None:
        """Another peer has sent this block."""
        self.asked.remove(block)
        self.send(CANCEL, struct.pack("!III", *block))
        self.ask()

    def ended(self, why: str) -> None:
        self.download.leechers.discard(self)
        self.download.give_back(self)
        self.gone.callback(why)


async def fetch(download: Download, endpoint: IStreamClientEndpoint) -> str:
    """Ask one peer as long as it is there; returns a sentence about its end."""
    try:
        leecher = await connectProtocol(endpoint, Leecher(download))
    except (ConnectError, DNSLookupError) as error:
        return str(error)
    return await leecher.gone


async def main(reactor: Any, torrent_path: str, output_path: str, *endpoint_strings: str) -> None:
    """Fetch one file from all these peers, and end the process with status 0 if it is all there."""
    torrent = Torrent.load(torrent_path)
    endpoints = [clientFromString(reactor, string) for string in endpoint_strings]

    with open(output_path, "wb") as output:
        download = Download(torrent, output)
        all_gone = gatherResults([Deferred.fromCoroutine(fetch(download, endpoint)) for endpoint in endpoints])
        await DeferredList([download.completed, all_gone], fireOnOneCallback=True, fireOnOneErrback=True)

    if not download.completed.called:
        ends = zip(endpoint_strings, await all_gone, strict=True)
        sys.exit("\n".join([f"{torrent.name} is not complete: {download}.", *map(": ".join, ends)]))
    print(f"{torrent.name} is complete: {torrent.length} bytes", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
