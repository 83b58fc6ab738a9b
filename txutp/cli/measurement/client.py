"""A test from the side that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredQueue
from twisted.internet.endpoints import connectProtocol

from txutp.cli.measurement.ends import LAST_WORDS_SECONDS, Control, Peer, Tell, Test
from txutp.cli.measurement.results import CLIENT, Results
from txutp.cli.measurement.streams import DataStream
from txutp.cli.measurement.wire import NAME, VERSION, token_of
from txutp.cli.messages import ProtocolError, Refused, Unanswered, encode, sentence_of

LONGEST_BACKLOG = 16  # messages of a server that were not taken yet


class Client:
    """A test from the side that asks for it."""

    def __init__(self, reactor: Any, endpoint: Any, results: Results, wait_seconds: float, tell: Tell) -> None:
        """``wait_seconds`` is the time for each connection, and for each answer before the test begins."""
        self._reactor = reactor
        self._endpoint = endpoint
        self._wait_seconds = wait_seconds
        self._tell = tell
        self._messages: DeferredQueue[dict[str, Any] | Exception] = DeferredQueue()
        self._test: Test | None = None
        self._begun = False
        self.results = results
        self.began: Deferred[None] = Deferred()
        """Fires when data begin to flow; the token and the peer's address are known then."""
        self.token: str = ""
        self.peer_address: Any = None
        self.answer: dict[str, Any] = {}

    async def run(self) -> None:
        """Run the test; ``results`` has what is known whatever happens.

        Raises ``Refused``, ``ProtocolError``, ``Unanswered`` or ``Broken``, and what the endpoint raises.
        """
        peer = await self._connected(lambda peer: Control(peer, self._heard, self._failed))
        control = peer.role
        test = self._test = Test(self._reactor, CLIENT, control, self.results, self._tell)
        may_wait = True
        try:
            self.peer_address = peer.transport.getPeer()
            control.say(self.results.parameters.as_message())
            self.answer = await self._next("accepted")
            self.token = token_of(self.answer["accepted"])
            for number in range(self.results.parameters.streams):
                greeting = encode({NAME: VERSION, "token": self.token, "stream": number})
                stream = await self._connected(self._joining(test, number, len(greeting)))
                stream.transport.write(greeting)
            await self._next("begin")
            self._begun = True
            test.begin()
            self.began.callback(None)
            for message in self._messages.pending:  # that came in one piece with the word to begin
                self._catch_up(test, message)
            await test.finished
        except BaseException as problem:
            test.halt()
            control.say({"error": "the client has ended it"})
            may_wait = not isinstance(problem, GeneratorExit)  # a coroutine that is being closed must not await
            raise
        finally:
            control.close()
            try:
                if may_wait:
                    # Streams end behind the control stream, for their breaking tells the server less.
                    await peer.ended.addTimeout(LAST_WORDS_SECONDS, self._reactor, lambda result, seconds: None)
            finally:
                test.drop()

    async def _connected(self, make_role: Callable[[Peer], Any]) -> Peer:
        connecting = connectProtocol(self._endpoint, Peer(make_role))
        silence = unanswered("The server does not answer.")
        try:
            peer: Peer = await connecting.addTimeout(self._wait_seconds, self._reactor, silence)
        except error.ConnectingCancelledError:
            raise CancelledError from None
        return peer

    def _joining(self, test: Test, number: int, greeting_bytes: int) -> Callable[[Peer], DataStream]:
        return lambda peer: test.add_stream(number, peer.transport, greeting_bytes)

    async def _next(self, key: str) -> dict[str, Any]:
        """Returns the next message, which has this key."""
        silence = unanswered("The server accepts connections, and does not answer as one of txutp perf.")
        message = await self._messages.get().addTimeout(self._wait_seconds, self._reactor, silence)
        if isinstance(message, Exception):
            raise message
        if "error" in message:
            raise Refused(f"The server refuses: {sentence_of(message)}")
        if key not in message:
            raise ProtocolError("it says something else than it was asked")
        return message

    def _catch_up(self, test: Test, message: dict[str, Any] | Exception) -> None:
        if isinstance(message, Exception):
            raise message
        test.heard(message)

    def _heard(self, message: dict[str, Any]) -> None:
        if self._begun:
            assert self._test is not None
            self._test.heard(message)
        elif len(self._messages.pending) < LONGEST_BACKLOG:
            self._messages.put(message)
        else:
            raise ProtocolError("it says too much")

    def _failed(self, problem: Exception) -> None:
        if self._begun:
            assert self._test is not None
            self._test.fail(problem)
        else:
            self._messages.put(problem)


def unanswered(sentence: str) -> Callable[[Any, float], Any]:
    """Returns what lets a Deferred fail with ``Unanswered`` when its time is over."""

    def timed_out(result: Any, seconds: float) -> Any:
        raise Unanswered(sentence)

    return timed_out
