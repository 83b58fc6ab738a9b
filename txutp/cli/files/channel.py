"""One end of a transfer's connection: messages, and blocks between them, without holding more than a line of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.cli.messages import LONGEST_LINE_BYTES, Broken, ProtocolError, decode, encode
from txutp.cli.output import cause


@implementer(IHalfCloseableProtocol, IPushProducer)
class Channel(Protocol):
    """Calls its ``role`` with each message that comes, with the bytes of blocks, and once at the end.

    A role has ``began()``, ``heard(message)``, ``data(memoryview)``, ``room()`` and ``lost(problem)``.  The first
    three may raise ``ProtocolError``, which ends the connection; ``room`` says that the transport, which was full,
    takes more; ``lost`` gets None after an orderly end of the stream that comes.
    """

    transport: Any

    def __init__(self, role: Any) -> None:
        self.role = role
        self.gone: bool = False
        self._rest = b""  # the beginning of a line
        self._block_bytes = 0  # left of the block that comes now
        self._told = False
        self._full = False
        self._ended: list[Deferred[None]] = []

    # -- verbs --

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        if not self.gone:
            self.transport.write(encode(message))

    def say_block(self, data: bytes, **more: Any) -> None:
        """Send a block."""
        if not self.gone:
            self.transport.write(encode({"block": len(data)} | more))
            self.transport.write(data)

    def expect_block(self, size_bytes: int) -> None:
        """The bytes behind the message that the role hears now are a block."""
        self._block_bytes = size_bytes

    @property
    def is_full(self) -> bool:
        """Whether the transport holds as much as it wants to."""
        return self._full

    def close(self) -> None:
        """End both directions, behind what was said; nothing more is heard."""
        self._told = True
        if not self.gone:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """End at once; nothing more is heard."""
        self._told = True
        if not self.gone:
            self.transport.abortConnection()

    def ended(self) -> Deferred[None]:
        """Fires when the connection has ended."""
        ended: Deferred[None] = Deferred()
        if self.gone:
            ended.callback(None)
        else:
            self._ended.append(ended)
        return ended

    # -- what Twisted calls --

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self._guarded(self.role.began)

    def dataReceived(self, data: bytes) -> None:
        self._guarded(self._received, data)

    def readConnectionLost(self) -> None:
        self._tell(None)
        self.close()

    def writeConnectionLost(self) -> None:
        """``close`` ends the other half, too."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self._tell(Broken(f"The connection broke: {cause(reason.value)}."))
        ended, self._ended = self._ended, []
        for deferred in ended:
            deferred.callback(None)

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self.role.room()

    def stopProducing(self) -> None:
        self._full = True

    # -- within --

    def _guarded(self, function: Callable[..., object], *arguments: Any) -> None:
        try:
            function(*arguments)
        except ProtocolError as problem:
            self.say({"error": f"{problem}"})
            self._tell(problem)
            self.close()

    def _tell(self, problem: Exception | None) -> None:
        if not self._told:
            self._told = True
            self.role.lost(problem)

    def _received(self, data: bytes) -> None:
        data, self._rest = self._rest + data, b""
        place = 0
        while place < len(data) and not self._told:
            if self._block_bytes:
                piece = memoryview(data)[place : place + self._block_bytes]
                place += len(piece)
                self._block_bytes -= len(piece)
                self.role.data(piece)
                continue
            end = data.find(b"\n", place, place + LONGEST_LINE_BYTES)
            if end < 0:
                self._rest = data[place:]
                if len(self._rest) >= LONGEST_LINE_BYTES:
                    raise ProtocolError("a line is too long")
                return
            line = data[place:end]
            place = end + 1
            self.role.heard(decode(line))
