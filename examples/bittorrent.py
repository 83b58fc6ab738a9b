"""BitTorrent in small: what the leecher and the seeder beside this file have in common.

A torrent file names one file and gives the SHA-1 of each piece of it. Two peers greet each other
with a handshake of 68 bytes. After that each message is its length in four bytes, its kind in one
byte, and a body; the file travels as blocks, which are parts of pieces (BEP 3).

Not a line here knows about uTP. Which transport carries the messages is decided by the endpoint
string that the user types: ``utp:...`` and ``tcp:...`` work alike.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure

try:
    from bencode2 import bdecode, bencode
except ModuleNotFoundError as missing:
    sys.exit(f'This example needs {missing.name}. Please run: pip install "txutp[examples]"')

# The kinds of messages, named as in BEP 3.
CHOKE = 0
UNCHOKE = 1
INTERESTED = 2
NOT_INTERESTED = 3
HAVE = 4
BITFIELD = 5
REQUEST = 6
PIECE = 7
CANCEL = 8

PROTOCOL_NAME = b"\x13BitTorrent protocol"
NO_EXTENSIONS = bytes(8)
HANDSHAKE_BYTES = 68

# All clients ask for blocks of this size, and some refuse larger ones.
BLOCK_BYTES = 16 * 1024

# A peer with nothing to say still says so every two minutes.
SILENCE_SECONDS = 150


class Block(NamedTuple):
    """A part of a piece: what one request asks for."""

    piece: int
    offset: int
    length: int


@dataclass(frozen=True)
class Torrent:
    """What a torrent file tells about the one file in it."""

    info_hash: bytes
    name: str
    length: int
    piece_length: int
    piece_hashes: tuple[bytes, ...]

    @classmethod
    def load(cls, path: str) -> Torrent:
        """Read a torrent file; a torrent of several files is refused with a ``ValueError``."""
        info = bdecode(Path(path).read_bytes())[b"info"]
        if b"files" in info:
            raise ValueError(f"{path} has several files in it; this example knows only one")

        hashes = info[b"pieces"]
        return cls(
            # The decoder accepts only the one right spelling of a dictionary, so spelling it
            # again gives the bytes that stand in the file.
            info_hash=hashlib.sha1(bencode(info)).digest(),
            name=info[b"name"].decode(errors="replace"),
            length=info[b"length"],
            piece_length=info[b"piece length"],
            piece_hashes=tuple(hashes[start : start + 20] for start in range(0, len(hashes), 20)),
        )

    def size_of(self, piece: int) -> int:
        """The number of bytes in a piece; only the last one is shorter than the others."""
        return min(self.piece_length, self.length - piece * self.piece_length)

    def blocks_of(self, piece: int) -> list[Block]:
        """The blocks that make a piece, in order."""
        size = self.size_of(piece)
        return [Block(piece, offset, min(BLOCK_BYTES, size - offset)) for offset in range(0, size, BLOCK_BYTES)]

    def has_block(self, block: Block) -> bool:
        """Whether a request names a part of the file, of a size that one may ask for."""
        return (
            block.piece < len(self.piece_hashes)
            and block.length <= BLOCK_BYTES
            and block.offset + block.length <= self.size_of(block.piece)
        )

    def is_right(self, piece: int, data: bytes) -> bool:
        """Whether these bytes are the piece."""
        return hashlib.sha1(data).digest() == self.piece_hashes[piece]


class Peer(Int32StringReceiver, TimeoutMixin):
    """One side of a connection: handshake, messages, and an end of patience.

    A subclass says what to do in ``greeted`` and ``message_received``.
    """

    # A bitfield may be longer than a block, but nothing sensible is longer than this.
    MAX_LENGTH = 1 << 20

    def __init__(self, torrent: Torrent) -> None:
        self.torrent = torrent
        self.handshake = b""
        self.complaint: str | None = None

    def greeted(self) -> None:
        """Called once, when the other side has shown that it means the same torrent."""

    def message_received(self, kind: int, body: bytes) -> None:
        """Called for each message."""

    def send(self, kind: int, body: bytes = b"") -> None:
        """Send one message."""
        self.sendString(bytes([kind]) + body)

    def give_up(self, complaint: str) -> None:
        """End the connection at once; ``ended`` will say why."""
        self.complaint = complaint
        self.transport.abortConnection()

    def ended(self, why: str) -> None:
        """Called once, when the connection is gone; ``why`` is a sentence for people."""

    # From here on: what Twisted calls.

    def connectionMade(self) -> None:
        self.setTimeout(SILENCE_SECONDS)
        peer_id = b"-TX0001-" + os.urandom(12)
        self.transport.write(PROTOCOL_NAME + NO_EXTENSIONS + self.torrent.info_hash + peer_id)

    def dataReceived(self, data: bytes) -> None:
        self.resetTimeout()
        missing = HANDSHAKE_BYTES - len(self.handshake)
        if missing:
            self.handshake += data[:missing]
            data = data[missing:]
            if len(self.handshake) < HANDSHAKE_BYTES:
                return
            if not self.handshake.startswith(PROTOCOL_NAME):
                return self.give_up("The other side does not speak BitTorrent.")
            if self.handshake[28:48] != self.torrent.info_hash:
                return self.give_up("The other side has another torrent.")
            self.greeted()
        super().dataReceived(data)

    def stringReceived(self, message: bytes) -> None:
        # A message without even a kind only says that the peer is still there.
        if message and self.complaint is None:
            self.message_received(message[0], message[1:])

    def lengthLimitExceeded(self, length: int) -> None:
        self.give_up(f"The other side announced a message of {length} bytes.")

    def timeoutConnection(self) -> None:
        self.give_up(f"The other side was silent for {SILENCE_SECONDS} seconds.")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)
        if self.complaint:
            self.ended(self.complaint)
        elif reason.check(ConnectionDone):
            self.ended("The other side closed the connection.")
        else:
            self.ended(reason.getErrorMessage())
