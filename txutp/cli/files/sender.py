"""The side that has the files: offers them, sends what the receiver does not have, and hears what became of each.

``Sender.run`` is one connection.  After a break it is called again, and goes on with what has no result yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import connectProtocol

from txutp.cli.files.channel import Channel
from txutp.cli.files.progress import Progress
from txutp.cli.files.reading import Changed, Entry, Reading
from txutp.cli.files.wire import ANSWER, BLOCK_BYTES, MAXIMUM_OFFERS, NAME, REFUSAL, VERSION
from txutp.cli.messages import Broken, ProtocolError, Refused, Unanswered, checked, sentence_of

ANSWER_SECONDS = 30.0  # for the first word of a receiver
CLOSE_SECONDS = 5.0  # for the end of the connection behind the last word

LOOK_SECONDS = 0.2  # between two looks at the queue delay

# Results of an entry, beside the reasons in ``wire.py``.
STORED = "stored"
CHANGED = "changed"
UNREADABLE = "unreadable"


class Sender:
    """Sends entries, and notes in each what became of it."""

    def __init__(self, reactor: Any, entries: list[Entry], progress: Progress) -> None:
        self._reactor = reactor
        self._progress = progress
        self.entries = entries
        self.connected: bool = False
        """Whether a receiver has accepted us, in this run or before."""

    async def run(self, endpoint: Any) -> None:
        """Connect, and send what has no result yet; raises what the endpoint raises, and what ends ``_Run``."""
        run = _Run(self._reactor, [entry for entry in self.entries if entry.result is None], self._progress)
        channel = Channel(run)
        run.channel = channel
        try:
            await connectProtocol(endpoint, channel)
        except error.ConnectingCancelledError:
            raise CancelledError from None
        try:
            channel.say({NAME: VERSION, "files": len(run.entries), "bytes": run.total_bytes})
            accepting = Deferred.fromCoroutine(run.until(lambda: run.accepted))
            await accepting.addTimeout(ANSWER_SECONDS, self._reactor, _silent)
            self.connected = True
            await run.send_all()
            channel.say({"done": True})
            channel.close()
            await channel.ended().addTimeout(CLOSE_SECONDS, self._reactor, lambda result, seconds: None)
        finally:
            channel.abort()


def _silent(result: Any, seconds: float) -> None:
    raise Unanswered("The other end accepts connections, and does not answer as txutp receive does.")


class _Offered:
    """An entry that the receiver knows."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.answer: dict[str, Any] | None = None
        """What the receiver has of it; None also if nothing is to be sent."""
        self.complete = False  # the receiver knows the hash


class _Run:
    """One connection: the role of its ``Channel``.

    It fails with ``ProtocolError``, ``Refused`` if the receiver does not want us, or ``Broken``.
    """

    channel: Channel

    def __init__(self, reactor: Any, entries: list[Entry], progress: Progress) -> None:
        self._reactor = reactor
        self._progress = progress
        self._offered: list[_Offered] = []
        self._settled = 0  # offers with a result
        self._problem: Exception | None = None
        self._look_at = 0.0
        self._last_queue_ms: float | None = None
        self._waiting: Deferred[None] | None = None
        self.entries = entries
        self.total_bytes = sum(entry.size_bytes for entry in entries)
        self.accepted = False

    async def send_all(self) -> None:
        """Send one file after the other; more are offered meanwhile, so that no answer has to be awaited."""
        for number in range(len(self.entries)):
            self._offer_more()
            await self._send(number, self._offered[number])
        await self.until(lambda: self._settled == len(self.entries))

    async def until(self, ready: Callable[[], bool]) -> None:
        """Wait for something that the receiver says; raises the problem if the connection has ended."""
        while self._problem is None and not ready():
            self._waiting = Deferred()
            await self._waiting
        if self._problem is not None:
            raise self._problem

    def wake(self) -> None:
        """Something has happened that ``until`` may wait for."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def _offer_more(self) -> None:
        while len(self._offered) < len(self.entries) and len(self._offered) - self._settled < MAXIMUM_OFFERS:
            offered = _Offered(self.entries[len(self._offered)])
            self.channel.say(offered.entry.offer(len(self._offered)).as_message())
            self._offered.append(offered)

    async def _send(self, number: int, offered: _Offered) -> None:
        entry = offered.entry
        await self.until(lambda: offered.answer is not None or entry.result is not None)
        answer = offered.answer
        if answer is None or entry.result is not None:
            return
        try:
            reading = Reading(entry)
            try:
                await self._send_file(number, offered, reading, answer)
            finally:
                reading.close()
        except Changed as problem:
            self._give_up(number, entry, CHANGED, str(problem))
        except OSError as problem:
            self._give_up(number, entry, UNREADABLE, problem.strerror or str(problem))

    async def _send_file(self, number: int, offered: _Offered, reading: Reading, answer: dict[str, Any]) -> None:
        entry, channel = offered.entry, self.channel
        self._progress.path = entry.path
        same = await reading.skip(self._reactor, answer["have"], answer["sha256"])
        at_bytes = answer["have"] if same else 0
        self._progress.begin(entry.path, entry.size_bytes, at_bytes)
        channel.say({"begin": number, "at": at_bytes})
        while reading.left_bytes and entry.result is None:
            await self.until(lambda: not channel.is_full)
            data = reading.read(BLOCK_BYTES)
            queue_ms = self._queue_ms()
            channel.say_block(data, queue_ms=queue_ms)
            self._progress.moved(len(data), queue_ms)
        reading.check()
        if entry.result is None:
            entry.sha256 = reading.hash.hexdigest()
            offered.complete = True
            channel.say({"end": number, "sha256": entry.sha256})

    def _queue_ms(self) -> float | None:
        """How long packets waited in queues lately, where the transport tells."""
        now = self._reactor.seconds()
        stats = getattr(self.channel.transport, "stats", None)
        if stats is not None and now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._last_queue_ms = round(stats().queue_delay, 1)
        return self._last_queue_ms

    def _give_up(self, number: int, entry: Entry, result: str, why: str) -> None:
        self.channel.say({"drop": number, "why": why})
        if entry.result is None:
            self._settle(entry, result, why)

    def _settle(self, entry: Entry, result: str, why: str | None = None) -> None:
        entry.result, entry.why = result, why
        self._settled += 1
        self._progress.settled(entry.path, entry.size_bytes)
        self._offer_more()

    # -- the role of the channel --

    def began(self) -> None:
        """The connection is up."""

    def heard(self, message: dict[str, Any]) -> None:
        """The receiver says something."""
        if "error" in message:
            self.lost(Refused(f"The receiver refuses: {sentence_of(message)}"))
        elif not self.accepted:
            if message.get("accepted") is not True:
                raise ProtocolError("it does not answer as txutp receive does")
            self.accepted = True
        elif "answer" in message:
            values = checked("an answer", ANSWER, message)
            offered = self._offer_of(values["answer"])
            if offered.answer is not None or offered.entry.folder:
                raise ProtocolError("it answers twice")
            offered.answer = values
        elif "refused" in message:
            values = checked("a refusal", REFUSAL, message)
            offered = self._offer_of(values["refused"])
            why = sentence_of({"error": values["why"]})
            if offered.entry.result is None:
                self._settle(offered.entry, values["reason"], why)
        elif "stored" in message:
            offered = self._offer_of(message["stored"])
            if offered.entry.result is not None or not (offered.complete or offered.entry.folder):
                raise ProtocolError("it stores what was not sent")
            self._settle(offered.entry, STORED)
        self.wake()

    def _offer_of(self, number: Any) -> _Offered:
        if not isinstance(number, int) or not 0 <= number < len(self._offered):
            raise ProtocolError("it speaks of a file that was not offered")
        return self._offered[number]

    def data(self, data: memoryview) -> None:
        """A receiver sends no blocks."""

    def lost(self, problem: Exception | None) -> None:
        """The connection has ended: so do all waits."""
        if self._problem is None:
            self._problem = problem or Broken("The receiver has closed the connection.")
            self.wake()

    def room(self) -> None:
        """The transport takes more."""
        self.wake()
