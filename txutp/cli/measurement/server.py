"""Tests from the side that is asked for them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txutp.cli.measurement.ends import LAST_WORDS_SECONDS, SETUP_SECONDS, Control, Peer, Tell, Test
from txutp.cli.measurement.results import SERVER, Interval, Results
from txutp.cli.measurement.wire import LONGEST_FIRST_LINE_BYTES, TOKEN_BYTES, Parameters, greeting_of, token_of
from txutp.cli.messages import Broken, Lines, ProtocolError, Unanswered, count, decode, encode

MAXIMUM_TESTS = 8  # that a server runs at once


class Server(Factory):
    """Takes part in the tests that clients ask for, several at once if they want.

    ``on_test`` is called with each ``Session`` that begins; its ``ended`` fires when it is over.
    """

    noisy = False

    def __init__(
        self, reactor: Any, on_test: Callable[[Session], Tell], keep: bool = False, offers: dict[str, Any] | None = None
    ) -> None:
        """Argument ``keep`` keeps the intervals of each test; ``offers`` is told to clients, beside the token."""
        self.reactor = reactor
        self.on_test = on_test
        self.keep = keep
        self.offers: dict[str, Any] = offers if offers is not None else {}
        self.sessions: dict[str, Session] = {}

    def buildProtocol(self, addr: Any) -> Peer:
        return Peer(lambda peer: _Arrival(self, peer))

    def interrupt(self) -> Deferred[Any]:
        """End all tests; fires when their clients have been told, or do not answer."""
        sessions = list(self.sessions.values())
        for session in sessions:
            session.fail(Broken("the server was interrupted"))
        return DeferredList([session.ended for session in sessions])

    def begin_session(self, peer: Peer, greeting: dict[str, Any], lines: Lines) -> None:
        """A client wants a test: its connection becomes a control stream."""
        parameters = Parameters.from_message(greeting)
        if len(self.sessions) >= MAXIMUM_TESTS:
            raise ProtocolError(f"this server runs {MAXIMUM_TESTS} tests already")
        token = secrets.token_hex(TOKEN_BYTES)
        self.sessions[token] = session = Session(self, peer, token, parameters, lines)
        peer.role = session.control
        session.control.say({"accepted": token} | self.offers)
        session.control.received(b"")

    def join_session(self, peer: Peer, greeting: dict[str, Any], lines: Lines) -> None:
        """A client opens a data stream: its connection becomes part of a test."""
        session = self.sessions.get(token_of(greeting.get("token")))
        if session is None:
            raise ProtocolError("there is no such test")
        session.add_stream(peer, greeting, lines.rest)


class _Arrival:
    """The role of an accepted connection up to the end of its first line."""

    def __init__(self, server: Server, peer: Peer) -> None:
        self._server = server
        self._peer = peer
        self._lines = Lines(LONGEST_FIRST_LINE_BYTES)
        self._giving_up = server.reactor.callLater(SETUP_SECONDS, peer.transport.abortConnection)

    def received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            line = self._lines.next(data)
            if line is None:
                return
            self.lost()
            greeting = greeting_of(decode(line))
            if "test" in greeting:
                self._server.begin_session(self._peer, greeting, Lines.behind(self._lines))
            else:
                self._server.join_session(self._peer, greeting, self._lines)
        except ProtocolError as problem:
            self.lost()
            self._peer.role = _Refused()
            self._peer.transport.write(encode({"error": f"{problem}"}))
            self._peer.transport.loseConnection()

    def read_ended(self) -> None:
        """There is no whole line."""
        self._peer.transport.loseConnection()

    def write_ended(self) -> None:
        """Nothing was written yet."""

    def lost(self, reason: Failure | None = None) -> None:
        """The time for the first line does not matter any more."""
        if self._giving_up.active():
            self._giving_up.cancel()


class _Refused:
    """The role of a connection that is being closed."""

    def received(self, data: bytes) -> None:
        """Drop the data."""

    read_ended = write_ended = lambda self: None

    def lost(self, reason: Failure) -> None:
        """It is closed."""


class Session:
    """A test from the server's side.

    ``ended`` fires when all its streams have ended, with None or with the reason of a bad end as an exception.
    """

    def __init__(self, server: Server, peer: Peer, token: str, parameters: Parameters, lines: Lines) -> None:
        self._server = server
        self.token = token
        self._peer = peer
        self.peer_address: Any = peer.transport.getPeer()
        self.results: Results = Results(parameters, server.keep)
        self.control: Control = Control(peer, self._heard, self.fail, lines)
        self.ended: Deferred[Exception | None] = Deferred()
        self._tell: Tell | None = None
        self._test = Test(server.reactor, SERVER, self.control, self.results, self._told)
        self._test.finished.addCallbacks(lambda nothing: self._end(None), lambda failure: self._end(failure.value))
        self._waiting = server.reactor.callLater(
            SETUP_SECONDS, self.fail, Unanswered("The client did not open all its streams.")
        )

    def add_stream(self, peer: Peer, greeting: dict[str, Any], data: bytes) -> None:
        """A connection is one of the streams; ``data`` came behind its first line."""
        parameters = self.results.parameters
        number = count(greeting.get("stream"), 0, parameters.streams - 1)
        if number in self._test.streams:
            raise ProtocolError("there is such a stream already")
        peer.role = self._test.add_stream(number, peer.transport)
        if len(self._test.streams) == parameters.streams:
            self._waiting.cancel()
            self._tell = self._server.on_test(self)
            self.control.say({"begin": True})
            self._test.begin()
        if data:
            peer.role.received(data)

    def fail(self, problem: Exception) -> None:
        """End it, for this reason."""
        self._test.fail(problem)

    @property
    def begun(self) -> bool:
        """Whether data flowed."""
        return self._tell is not None

    def _told(self, intervals: list[Interval]) -> None:
        assert self._tell is not None
        self._tell(intervals)

    def _heard(self, message: dict[str, Any]) -> None:
        if not self.begun:
            raise ProtocolError("the test has not begun")
        self._test.heard(message)

    def _end(self, problem: Exception | None) -> None:
        if self._waiting.active():
            self._waiting.cancel()
        self._server.sessions.pop(self.token, None)
        if problem is not None:
            self.control.say({"error": str(problem)})
            self.control.close()
        # The client closes when it has our last word.  Streams end behind it, for their breaking tells less.
        closed = self._peer.ended.addTimeout(LAST_WORDS_SECONDS, self._server.reactor, lambda result, seconds: None)
        closed.addCallback(lambda nothing: self._close(problem))

    def _close(self, problem: Exception | None) -> None:
        self.control.close()
        self._test.drop()
        self.ended.callback(problem)
