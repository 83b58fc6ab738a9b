"""The side that gets the files: says what it has already, takes the rest, and tells what became of each.

``Receiver`` is the factory; each connection is a ``Session``.  Several senders may be there at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txutp.cli.files.channel import Channel
from txutp.cli.files.placing import Incoming, NotStored, Place
from txutp.cli.files.progress import Progress
from txutp.cli.files.wire import BEGIN, BLOCK, BUSY, DROP, END, MAXIMUM_OFFERS, Offer, greeting_of
from txutp.cli.messages import Broken, ProtocolError, checked

MAXIMUM_SENDERS = 8
GREETING_SECONDS = 10.0  # for the first message of a sender
# A sender that was silent for so long does not keep a new connection from its host from going on with its files.
SILENT_SECONDS = 3.0


class Receiver(Factory):
    """Takes what senders send.

    ``on_session`` is called with each ``Session`` that begins and returns the ``Progress`` that it is to tell;
    ``on_stored`` with a session, an offer and its hash; ``on_refused`` with a session, an offer, a reason and a
    sentence; ``on_end`` with a session when its connection has ended.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        place: Place,
        on_session: Callable[[Session], Progress],
        on_stored: Callable[[Session, Offer, str], object],
        on_refused: Callable[[Session, Offer, str, str], object],
        on_end: Callable[[Session], object],
    ) -> None:
        self.reactor = reactor
        self.place = place
        self.on_session = on_session
        self.on_stored = on_stored
        self.on_refused = on_refused
        self.on_end = on_end
        self.sessions: list[Session] = []

    def buildProtocol(self, addr: Any) -> Channel:
        session = Session(self)
        session.channel = channel = Channel(session)
        return channel

    def drop(self) -> None:
        """End all connections at once."""
        for session in list(self.sessions):
            session.drop(Broken("The receiver was interrupted."))

    def make_room(self) -> None:
        """Let a further sender in: raises ``ProtocolError`` if there are enough, and none is silent."""
        if len(self.sessions) >= MAXIMUM_SENDERS:
            longest = max(self.sessions, key=lambda session: session.silent_seconds)
            if longest.silent_seconds < SILENT_SECONDS:
                raise ProtocolError(f"{MAXIMUM_SENDERS} senders are here already")
            longest.drop(Broken("The sender was silent, and another one came."))

    def displace(self, newcomer: Session) -> bool:
        """End the connections of the newcomer's host that have been silent; returns whether there were any."""
        silent = [
            session
            for session in self.sessions
            if session is not newcomer and session.host == newcomer.host and session.silent_seconds >= SILENT_SECONDS
        ]
        for session in silent:
            session.drop(Broken("The sender has connected anew."))
        return bool(silent)


class Session:
    """One connection of a sender: the role of its ``Channel``."""

    channel: Channel

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._reactor = receiver.reactor
        self._progress: Progress | None = None
        self._heard_at = self._reactor.seconds()
        self._greeting: Any = None
        self._offers = 0
        self._unanswered: deque[Offer] = deque()
        self._answering: Deferred[Any] | None = None
        self._is_answering = False
        self._incoming: dict[int, Incoming] = {}  # without those that are stored or refused
        self._current: Incoming | None = None
        self._busy = False  # a file was refused that the sender will offer again
        self.host: str | None = None
        self.address: Any = None
        self.problem: Exception | None = None
        self.complete: bool = False
        """Whether the sender has heard what became of each of its files, and need not try again."""
        self.files: int = 0
        self.total_bytes: int = 0

    @property
    def silent_seconds(self) -> float:
        """How long nothing came."""
        silent: float = self._reactor.seconds() - self._heard_at
        return silent

    def drop(self, problem: Exception) -> None:
        """End the connection at once."""
        self.channel.abort()
        self.lost(problem)

    # -- the role of the channel --

    def began(self) -> None:
        """The connection is up."""
        self.address = self.channel.transport.getPeer()
        self.host = getattr(self.address, "host", None)
        self._receiver.make_room()
        self._receiver.sessions.append(self)
        self._greeting = self._reactor.callLater(
            GREETING_SECONDS, self.drop, Broken("The other end has connected, and says nothing.")
        )

    def heard(self, message: dict[str, Any]) -> None:
        """The sender says something."""
        self._heard_at = self._reactor.seconds()
        if self._progress is None:
            self.files, self.total_bytes = greeting_of(message)
            self._greeting.cancel()
            self._progress = self._receiver.on_session(self)
            self._progress.expect(self.total_bytes)
            self.channel.say({"accepted": True})
        elif "block" in message:
            self.channel.expect_block(checked("a block", BLOCK, message)["block"])
            queue_ms = message.get("queue_ms")
            self._progress.queue_ms = queue_ms if isinstance(queue_ms, (int, float)) else None
        elif "offer" in message:
            self._take_offer(Offer.from_message(message))
        elif "begin" in message:
            values = checked("a beginning", BEGIN, message)
            self._begin(values["begin"], values["at"])
        elif "end" in message:
            values = checked("an end", END, message)
            self._finish(values["end"], values["sha256"])
        elif "drop" in message:
            values = checked("a word", DROP, message)
            self._current = None
            incoming = self._incoming.get(values["drop"])
            if incoming is not None:
                self._forget(incoming)
        elif "done" in message:
            self.complete = not self._incoming and not self._unanswered and not self._busy

    def data(self, data: memoryview) -> None:
        """The next bytes of a file; of one that was refused meanwhile nothing is kept."""
        self._heard_at = self._reactor.seconds()
        incoming = self._current
        if incoming is None:
            return
        assert self._progress is not None
        try:
            incoming.write(data)
            self._progress.moved(len(data), self._progress.queue_ms)
        except NotStored as problem:
            self._refuse(incoming.offer, problem)
        except ValueError as problem:
            raise ProtocolError(str(problem)) from problem

    def room(self) -> None:
        """We never write so much that it matters."""

    def lost(self, problem: Exception | None) -> None:
        """The connection has ended."""
        if self not in self._receiver.sessions:
            return
        self._receiver.sessions.remove(self)
        if self._greeting is not None and self._greeting.active():
            self._greeting.cancel()
        self.problem = None if self.complete else problem or Broken("The sender has closed the connection.")
        if self._answering is not None:
            self._answering.cancel()
        for incoming in self._incoming.values():
            incoming.close()
        self._incoming.clear()
        self._unanswered.clear()
        if self._progress is not None:
            self._progress.end()
            self._receiver.on_end(self)

    # -- offers --

    def _take_offer(self, offer: Offer) -> None:
        if offer.number != self._offers:
            raise ProtocolError("offers are numbered from 0 on")
        if len(self._incoming) + len(self._unanswered) >= MAXIMUM_OFFERS:
            raise ProtocolError(f"more than {MAXIMUM_OFFERS} files are offered at once")
        self._offers += 1
        self._unanswered.append(offer)
        if not self._is_answering:
            self._is_answering = True
            self._answering = Deferred.fromCoroutine(self._answer_all())
            self._answering.addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure | None:
        """A coroutine of ours ended: with the connection, or by a fault of ours, which ends the connection."""
        if failure.check(CancelledError):
            return None
        self.drop(Broken(f"The receiver failed: {failure.value}"))
        return failure

    async def _answer_all(self) -> None:
        """Answer one offer after the other: what is there of a file may have to be hashed."""
        try:
            while self._unanswered:
                await self._answer(self._unanswered[0])
                self._unanswered.popleft()
        finally:
            self._is_answering = False

    async def _answer(self, offer: Offer) -> None:
        try:
            if offer.folder:
                os.close(self._receiver.place.folder(offer.path))
                self.channel.say({"stored": offer.number})
                return
            try:
                incoming = await self._prepared(offer)
            except NotStored as problem:
                if problem.reason != BUSY or not self._receiver.displace(self):
                    raise
                incoming = await self._prepared(offer)
        except NotStored as problem:
            self._refuse(offer, problem)
            return
        self._incoming[offer.number] = incoming
        self.channel.say({"answer": offer.number, "have": incoming.have_bytes, "sha256": incoming.have_sha256})

    async def _prepared(self, offer: Offer) -> Incoming:
        incoming = Incoming(self._receiver.place, offer)
        try:
            await incoming.prepare(self._reactor)
        except BaseException:
            incoming.close()
            raise
        return incoming

    # -- files --

    def _begin(self, number: int, at_bytes: int) -> None:
        if number >= self._offers:
            raise ProtocolError("a file begins that was not offered")
        assert self._progress is not None
        self._current = incoming = self._incoming.get(number)
        if incoming is None:
            return  # refused meanwhile
        self._progress.begin(incoming.offer.path, incoming.offer.size_bytes, at_bytes)
        try:
            incoming.begin(at_bytes)
        except NotStored as problem:
            self._refuse(incoming.offer, problem)
        except ValueError as problem:
            raise ProtocolError(str(problem)) from problem

    def _finish(self, number: int, sha256: str) -> None:
        incoming = self._incoming.get(number)
        if incoming is None:
            return
        if incoming is not self._current:
            raise ProtocolError("a file ends that has not begun")
        self._current = None
        Deferred.fromCoroutine(self._store(incoming, sha256)).addErrback(self._failed)

    async def _store(self, incoming: Incoming, sha256: str) -> None:
        offer = incoming.offer
        try:
            await incoming.finish(self._reactor, sha256)
        except NotStored as problem:
            self._refuse(offer, problem)
            return
        if self not in self._receiver.sessions:
            return  # the sender will ask for it again, and find it
        self._forget(incoming)
        self.channel.say({"stored": offer.number})
        self._receiver.on_stored(self, offer, sha256)

    def _refuse(self, offer: Offer, problem: NotStored) -> None:
        incoming = self._incoming.get(offer.number)
        if incoming is not None:
            if incoming is self._current:
                self._current = None
            self._forget(incoming)
        self._busy = self._busy or problem.reason == BUSY
        assert self._progress is not None
        self._progress.settled(offer.path, offer.size_bytes)
        self.channel.say({"refused": offer.number, "reason": problem.reason, "why": str(problem)})
        self._receiver.on_refused(self, offer, problem.reason, str(problem))

    def _forget(self, incoming: Incoming) -> None:
        if self._incoming.pop(incoming.offer.number, None) is not None:
            incoming.close()
            assert self._progress is not None
            self._progress.settled(incoming.offer.path, incoming.offer.size_bytes)
