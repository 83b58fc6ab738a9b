"""Offer the file of a torrent to everybody who asks.

    python examples/seeder.py FILE.torrent FILE ENDPOINT

For instance, over uTP, on all interfaces:

    python examples/seeder.py debian.torrent debian.iso utp:6881

It runs until it is interrupted. There is no tracker in it: the others must be told the address,
as leecher.py is by its endpoint string.

All peers that ask are served at the same time, and the congestion controllers of their connections
share the link out. A peer that does not take what it asks for costs a fixed amount of memory: no
more blocks are read for it than its transport wants, and no more of its requests are read than
wait already.
"""

from __future__ import annotations

import struct
import sys
from collections import deque
from typing import Any, BinaryIO

from bittorrent import (
    BITFIELD,
    CANCEL,
    INTERESTED,
    PIECE,
    REQUEST,
    UNCHOKE,
    Block,
    Peer,
    Torrent,
)
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from zope.interface import implementer

# Requests of one peer that wait here; its further ones wait in its connection. Some clients send 500
# at a time.
MAXIMUM_REQUESTS = 1000


@implementer(IPushProducer)
class Answers:
    """The requests of one peer, answered no faster than the connection carries the answers.

    It is the producer of the peer's transport: while the transport says pause, requests wait here
    as a few bytes each, instead of their blocks waiting in the transport. When too many wait, the
    peer is not listened to until half of them are answered. (The peer itself cannot be the producer:
    Int32StringReceiver has methods of the same names, which pause its reading.)
    """

    def __init__(self, peer: Seeder) -> None:
        self.peer = peer
        self.requests: deque[Block] = deque()
        self.paused = False

    def add(self, block: Block) -> None:
        """Answer a request, now or when there is room."""
        self.requests.append(block)
        self.send()
        if len(self.requests) >= MAXIMUM_REQUESTS:
            self.peer.pauseProducing()

    def cancel(self, block: Block) -> None:
        """Forget a request if it is not answered yet."""
        if block in self.requests:
            self.requests.remove(block)

    def send(self) -> None:
        """Send blocks until there are no more requests, or the transport has enough."""
        while self.requests and not self.paused:
            self.peer.send_block(self.requests.popleft())
        if self.peer.paused and len(self.requests) <= MAXIMUM_REQUESTS // 2:
            self.peer.resumeProducing()

    # From here on: what the transport calls.

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False
        self.send()

    def stopProducing(self) -> None:
        self.requests.clear()


class Seeder(Peer):
    """Gives one peer what it asks for."""

    def __init__(self, torrent: Torrent, content: BinaryIO) -> None:
        super().__init__(torrent)
        self.content = content
        self.answers = Answers(self)
        # A choked peer does not ask.
        self.choked = True

    def connectionMade(self) -> None:
        print(f"{self.transport.getPeer()} came", file=sys.stderr)
        super().connectionMade()
        self.transport.registerProducer(self.answers, streaming=True)

    def greeted(self) -> None:
        # One bit for each piece, first piece first. The last byte may have bits to spare.
        pieces = len(self.torrent.piece_hashes)
        spare = -pieces % 8
        bits = ((1 << pieces) - 1) << spare
        self.send(BITFIELD, bits.to_bytes((pieces + spare) // 8, "big"))

    def message_received(self, kind: int, body: bytes) -> None:
        if kind == INTERESTED and self.choked:
            self.choked = False
            self.send(UNCHOKE)
        elif kind in (REQUEST, CANCEL) and len(body) == 12:
            block = Block(*struct.unpack("!III", body))
            if not self.torrent.has_block(block):
                self.give_up(f"The other side asked for {block}.")
            elif kind == REQUEST:
                self.answers.add(block)
            else:
                self.answers.cancel(block)

    def send_block(self, block: Block) -> None:
        """Read one block from the file and send it."""
        self.content.seek(block.piece * self.torrent.piece_length + block.offset)
        data = self.content.read(block.length)
        self.send(PIECE, struct.pack("!II", block.piece, block.offset) + data)
        # It may be silent because it is not listened to; that it takes blocks will do.
        self.resetTimeout()

    def ended(self, why: str) -> None:
        print(f"{self.transport.getPeer()} went. {why}", file=sys.stderr)


class SeederFactory(Factory):
    """Makes a ``Seeder`` for each peer that connects."""

    noisy = False

    def __init__(self, torrent: Torrent, content: BinaryIO) -> None:
        self.torrent = torrent
        self.content = content

    def buildProtocol(self, address: IAddress) -> Seeder:
        return Seeder(self.torrent, self.content)


async def main(reactor: Any, torrent_path: str, content_path: str, endpoint_string: str) -> None:
    """Check the file, listen, tell the address on one line, and serve until interrupted."""
    torrent = Torrent.load(torrent_path)

    with open(content_path, "rb") as content:
        for piece in range(len(torrent.piece_hashes)):
            if not torrent.is_right(piece, content.read(torrent.piece_length)):
                sys.exit(f"{content_path} is not the file of {torrent_path}: piece {piece} differs")

        endpoint = serverFromString(reactor, endpoint_string)
        port = await endpoint.listen(SeederFactory(torrent, content))
        address = port.getHost()
        print(f"{torrent.name} is offered on {address.host} port {address.port}", flush=True)
        await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
