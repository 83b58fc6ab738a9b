"""The applications of a conversation: each does what its part says, and remembers what happened to it.

A ``Speaker`` knows nothing of Twisted: ``voices.py`` lets it speak as a ``Protocol`` or as a ``Socket``.
"""

from __future__ import annotations

from typing import Any

from tests.conversations.program import (
    ABORT,
    DESTROY,
    HALF_CLOSE,
    LOSE,
    LOSE_READ,
    PLAIN,
    PULL,
    PUSH,
    SOCKET,
    SOCKETS,
    WRITE,
    Part,
)
from txutp.core.connection import Connection
from txutp.core.states import CLOSED

# Of the pieces that are written one after the other, as parts of the usual size.
SIZES_PERCENT = (100, 100, 7, 160, 33)


class Speaker:
    """One end of a talk."""

    def __init__(self, stage: Any, name: str, part: Part, payload: bytes, peer_total_bytes: int, tls: bool) -> None:
        self.stage = stage
        self.name = name
        self.part = part
        self.payload = payload
        self.tls = tls
        self.peer: Speaker = self  # until the stage introduces them
        self.voice: Any = None  # while it can speak
        self.connection: Connection | None = None
        self._peer_total_bytes = peer_total_bytes

        # what it did
        self.written_bytes = 0
        self.accepted_bytes = 0  # of these: written while nothing stood against it
        self.ended = False  # it asked for the end of its own stream, in whatever way
        self.left = False  # it wants to hear nothing more
        self.aborted = False
        self.was_alone = False  # the stage ended it, because its peer was gone and could not say so
        self._pieces = 0
        self._spoken = False
        self._speaking = False
        self._paused = False
        self._producing = False
        self._pauses = sorted(part.pauses)

        # what it heard
        self.made = 0
        self.refused: BaseException | None = None  # why there is no connection
        self.received = bytearray()
        self.ends_of_peer = 0
        self.ends_of_own = 0
        self.reasons: list[BaseException] = []
        self.peer_was_up = False  # when this end heard of its own end
        self.complaints: list[str] = []
        self.asked = 0  # whether something has arrived
        self.told = 0

    def __repr__(self) -> str:
        return self.name

    @property
    def is_over(self) -> bool:
        """Whether it has heard of its end, or that there is no connection."""
        return bool(self.reasons) or self.refused is not None

    @property
    def is_up(self) -> bool:
        """Whether it has a connection and knows of no end."""
        return bool(self.made) and not self.reasons

    def complain(self, complaint: str) -> None:
        self.complaints.append(f"{self.name}: {complaint}")

    # -- what happens to it, called by its voice --

    def begun(self, voice: Any, connection: Connection) -> None:
        """The connection is there."""
        self.made += 1
        self.voice = voice
        self.connection = connection
        self.stage.note(self, "connected")
        if self.part.ending in (ABORT, DESTROY):
            self.stage.later(self.part.delay_us, self._break_off)
        if not self.part.answers_after_bytes:
            self._begin_to_speak()
        self._look_whether_all_is_read()

    def arrived(self, data: bytes) -> None:
        """More of the peer's stream."""
        if self.reasons or self.left or self._paused:
            state = "the end" if self.reasons else "it left" if self.left else "it paused"
            # TLS may have a piece at hand that it deciphers yet
            if not (self.tls and (self.left or self._paused)):
                self.complain(f"bytes come after {state}")
        if self.ends_of_peer:
            self.complain("bytes come after the end of the stream")
        self.received += data
        if len(self.received) >= self.part.answers_after_bytes:
            self._begin_to_speak()
        if self._pauses and len(self.received) > self._pauses[0][0] and self.voice is not None and not self.left:
            _, pause_us = self._pauses.pop(0)
            self._paused = True
            self.stage.note(self, f"pauses for {pause_us} us")
            self.voice.pause()
            self.stage.later(pause_us, self._read_on)
        self._look_whether_all_is_read()

    def peer_ended(self) -> None:
        """The peer has ended its stream."""
        self.ends_of_peer += 1
        self.stage.note(self, "hears the end of the peer's stream")
        if self._paused and self.part.kind not in SOCKETS:
            self.complain("the end of the stream comes while it paused")
        if self.reasons:
            self.complain("the end of the stream comes after the end")
        if self.part.kind == SOCKET:
            self.ended, self._producing = True, False  # by itself, and nothing can be written any more
            return
        self._begin_to_speak()
        if self._spoken:
            self._leave()

    def own_ended(self) -> None:
        """Our own stream has ended."""
        self.ends_of_own += 1

    def lost(self, reason: BaseException) -> None:
        """The end."""
        self.stage.note(self, f"ends: {reason!r}")
        self.reasons.append(reason)
        self.voice = None
        peer = self.peer
        self.peer_was_up = peer.is_up and peer.connection is not None and peer.connection.state != CLOSED
        if self._paused and not self.left and self.part.kind not in SOCKETS and self._misses_something:
            self.complain("the end comes while it paused")

    @property
    def _misses_something(self) -> bool:
        """Whether bytes have arrived that it has not had."""
        assert self.connection is not None
        return not self.tls and self.connection.receiving.ready_bytes > 0

    def told_acknowledged(self, total_bytes: int | None) -> None:
        """The peer has so much of what was written; None: nobody will know."""
        self.told += 1
        connection = self.peer.connection
        if total_bytes is not None and (connection is None or connection.bytes_received < total_bytes):
            self.complain(f"{total_bytes} bytes are called acknowledged, and the peer does not have them")

    # -- what it does --

    def _read_on(self) -> None:
        self._paused = False
        if self.voice is not None and not self.left:
            self.voice.resume()

    def _begin_to_speak(self) -> None:
        if self._speaking or self.voice is None or self.ended or self.left:
            return
        self._speaking = True
        part = self.part
        if part.by == WRITE or not self.payload:
            self.speak()
            return
        self._producing = True
        self.stage.note(self, f"registers a {part.by}")
        self.voice.register(self, part.by == PUSH)
        if part.by == PUSH:
            self.speak()
        is_early = not part.delay_us and part.total_bytes % 2 and part.kind not in SOCKETS
        if is_early and part.ending in (LOSE, HALF_CLOSE) and not self._spoken:
            self._end()  # which waits for the producer

    def speak(self) -> None:
        """Write on: all, or until the next gap; a producer until it is paused."""
        part = self.part
        while self.voice is not None and not self._spoken and (self._producing or not self.ended):
            if self.written_bytes == len(self.payload):
                self._is_spoken()
                return
            if part.by == PUSH and self.voice.full:
                return
            # pieces of several sizes make short segments among long ones
            piece_bytes = max(part.piece_bytes * SIZES_PERCENT[self._pieces % len(SIZES_PERCENT)] // 100, 1)
            self._pieces += 1
            piece = self.payload[self.written_bytes : self.written_bytes + piece_bytes]
            if self._is_open:
                self.accepted_bytes += len(piece)
            self.written_bytes += len(piece)
            self.voice.write(piece)
            if part.by == PULL:
                return
            if part.gap_us:
                self.stage.later(part.gap_us, self.speak)
                return

    @property
    def _is_open(self) -> bool:
        """Whether nothing is known that would keep back what is written now."""
        connection = self.connection
        assert connection is not None
        is_cut_off = self.part.kind == PLAIN and connection.at_eof and not self.left
        return connection.state != CLOSED and not is_cut_off

    def _is_spoken(self) -> None:
        self._spoken = True
        self.stage.note(self, f"has written {self.written_bytes}")
        if self._producing:
            self._producing = False
            self.voice.unregister()
        if self.part.delay_us and self.part.ending not in (ABORT, DESTROY):
            self.stage.later(self.part.delay_us, self._leave)
        else:
            self._leave()

    def _leave(self) -> None:
        """Everything is written: end as the part says."""
        if self.voice is None or self.left:
            return
        ending = self.part.ending
        if ending in (LOSE, HALF_CLOSE):
            self._end()
        if ending == LOSE_READ:
            self._look_whether_all_is_read()
        if self.ends_of_peer and ending not in (ABORT, DESTROY):
            self._lose()

    def _end(self) -> None:
        if self.part.ending == HALF_CLOSE or self.part.kind in SOCKETS:
            if not self.ended:
                self.ended = True
                self.stage.note(self, "ends its stream")
                self.voice.end()
        else:
            self._lose()

    def _look_whether_all_is_read(self) -> None:
        if self.part.ending != LOSE_READ or not self._spoken or self.voice is None:
            return
        if len(self.received) >= self._peer_total_bytes:
            if self.part.kind in SOCKETS:
                self._end()
            else:
                self._lose()

    def _lose(self) -> None:
        if self.left or self.voice is None:
            return
        self.stage.note(self, "leaves")
        if self.part.kind in SOCKETS:
            self._end()
            return
        self.ended = self.left = True
        self.voice.lose()

    def _break_off(self) -> None:
        if self.voice is None or self.left:
            return
        self.ended = self.left = True
        if self.part.ending == ABORT:
            self.abort()
        else:
            self.stage.note(self, "destroys its socket")
            self.voice.destroy()

    def abort(self) -> None:
        """End it at once."""
        if self.voice is not None:
            self.stage.note(self, "aborts")
            self.ended = self.left = self.aborted = True
            self.voice.abort()

    # -- for the voice of a producer --

    def resumeProducing(self) -> None:
        self.speak()

    def stopProducing(self) -> None:
        self._producing = False
        self.stage.note(self, "stops producing")
