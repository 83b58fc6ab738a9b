"""What both ends of a test are made of: connections and their roles, the control stream, and the test itself.

``Client`` and ``Server`` use the same ``Test``: it begins, says a sample after each interval, ends, and waits for the
last word of the other end.  Each wait has a time-out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.cli.measurement.clock import clock_of
from txutp.cli.measurement.results import CLIENT, OTHER, Interval, Results
from txutp.cli.measurement.streams import DataStream, use_settings
from txutp.cli.measurement.wire import Sample
from txutp.cli.messages import Broken, Lines, ProtocolError, Unanswered, decode, encode, sentence_of

SETUP_SECONDS = 10.0  # for each answer before the test begins, and for each connection to be made
DRAIN_SECONDS = 10.0  # for what is under way when a test of a given time has ended
STALL_SECONDS = 30.0  # without a byte, in a test of a given size
LAST_WORD_SECONDS = 15.0  # for the other end to say that it has ended, too
LAST_WORDS_SECONDS = 1.0  # for the control stream to end

Tell = Callable[[list[Interval]], object]


@implementer(IHalfCloseableProtocol)
class Peer(Protocol):
    """A connection.  Its role, which may change, hears what happens: bytes, the two half closes, and the end."""

    transport: Any
    role: Any

    def __init__(self, make_role: Callable[[Peer], Any]) -> None:
        """``make_role`` is called when the connection is made."""
        self._make_role = make_role
        self.gone: bool = False
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.role = self._make_role(self)

    def dataReceived(self, data: bytes) -> None:
        self.role.received(data)

    def readConnectionLost(self) -> None:
        self.role.read_ended()

    def writeConnectionLost(self) -> None:
        self.role.write_ended()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self.role.lost(reason)
        self.ended.callback(None)


@implementer(IPushProducer)
class Control:
    """A role of a ``Peer``: messages go both ways.

    ``handle`` gets each one that comes; it may raise ``ProtocolError``.  ``failed`` is called once, when the stream
    ends or something comes that is no message.
    """

    def __init__(
        self,
        peer: Peer,
        handle: Callable[[dict[str, Any]], object],
        failed: Callable[[Exception], object],
        lines: Lines | None = None,
    ) -> None:
        self._peer = peer
        self._lines = lines or Lines()
        self._ended = False
        self._full = False
        self.handle = handle
        self.failed = failed
        peer.transport.registerProducer(self, True)

    def say(self, message: dict[str, Any]) -> None:
        """Send a message."""
        if not self._peer.gone:
            self._peer.transport.write(encode(message))

    def say_sample(self, sample: Sample) -> None:
        """Send a sample, unless the other end does not read: the next one says all that this one does."""
        if sample.ended or not self._full:
            self.say(sample.as_message())

    def close(self) -> None:
        """End the stream behind what was said; nothing more is heard."""
        self._ended = True
        if not self._peer.gone:
            self._peer.transport.unregisterProducer()
            self._peer.transport.loseConnection()

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False

    def stopProducing(self) -> None:
        self._full = True

    def received(self, data: bytes) -> None:
        """Bytes came."""
        try:
            line = self._lines.next(data)
            while line is not None and not self._ended:
                self.handle(decode(line))
                line = self._lines.next()
        except (ProtocolError, Broken) as problem:
            self._fail(problem)

    def read_ended(self) -> None:
        """The other end says no more."""
        if not self._peer.gone:
            self._peer.transport.unregisterProducer()
            self._peer.transport.loseConnection()
        self._fail(Broken("The other end has closed the connection."))

    def write_ended(self) -> None:
        """We say no more."""

    def lost(self, reason: Failure) -> None:
        """The connection is gone."""
        self._fail(Broken(f"The control stream broke: {reason.value}"))

    def _fail(self, problem: Exception) -> None:
        if not self._ended:
            self._ended = True
            self.failed(problem)


class Test:
    """One end of a test, from the beginning of data on.

    ``finished`` fires when both ends have said their last word; it fails if a stream breaks, the other end says what
    it should not, or a time is over.  ``tell`` gets the intervals that are complete.
    """

    def __init__(self, reactor: Any, end: str, control: Control, results: Results, tell: Tell) -> None:
        self._reactor = reactor
        self._clock = clock_of(reactor)
        self._end = end
        self._control = control
        self._tell = tell
        self.results = results
        self._parameters = results.parameters
        self.streams: dict[int, DataStream] = {}
        self._began: float | None = None
        self._ticks = 0
        self._calls: list[Any] = []
        self._halted = False
        self._said_last = False
        self._progress = -1
        self.finished: Deferred[None] = Deferred()

    def add_stream(self, number: int, transport: Any, greeting_bytes: int = 0) -> DataStream:
        """Returns the role of a connection that is a stream of this test."""
        parameters = self._parameters
        sends = parameters.client_sends if self._end == CLIENT else parameters.server_sends
        receives = parameters.server_sends if self._end == CLIENT else parameters.client_sends
        use_settings(transport, parameters.settings_changes)
        stream = self.streams[number] = DataStream(
            self._reactor,
            self._clock,
            transport,
            sends,
            receives,
            parameters.block_bytes,
            parameters.bytes_of_stream(number),
            parameters.bits_per_second,
            self._changed,
            greeting_bytes,
        )
        return stream

    def begin(self) -> None:
        """Let data flow."""
        parameters = self._parameters
        self._began = now = self._clock()
        self._call_at(parameters.interval_seconds, self._tick)
        if parameters.total_bytes is None:
            seconds = parameters.omit_seconds + parameters.seconds
            self._call_at(seconds, self._end_streams)
            self._call_at(seconds + DRAIN_SECONDS, self._say_last)  # what is still under way counts no more
        else:
            self._call_at(STALL_SECONDS, self._look_for_progress)
        for stream in list(self.streams.values()):
            stream.begin(now)
        self._changed()

    def heard(self, message: dict[str, Any]) -> None:
        """The other end said something about the test."""
        if "error" in message:
            raise Broken(f"The other end says of the test: {sentence_of(message)}")
        if "sample" in message and not self._halted:
            sample = Sample.from_message(message, self._parameters.streams)
            self._tell(self.results.add(OTHER[self._end], sample))
            self._look_for_end()

    def fail(self, problem: Exception) -> None:
        """End the test, for this reason.  Streams stay until they are dropped: the other end shall hear why first."""
        self.halt()
        if not self.finished.called:
            self.finished.errback(problem)

    def drop(self) -> None:
        """End all streams and timers at once."""
        self._cancel_calls()
        for stream in self.streams.values():
            stream.drop()

    def halt(self) -> None:
        """Send no more and hear no more; the results get this moment as their last one."""
        if self._began is not None and not self._said_last:
            self.results.add(self._end, self._sample(False))
        self._halted = self._said_last = True
        self._cancel_calls()
        self._end_streams()

    # -- time --

    def _call_at(self, seconds: float, action: Callable[[], None]) -> None:
        assert self._began is not None
        self._calls = [call for call in self._calls if call.active()]
        self._calls.append(self._reactor.callLater(max(0.0, self._began + seconds - self._clock()), action))

    def _cancel_calls(self) -> None:
        for call in self._calls:
            if call.active():
                call.cancel()

    @property
    def _elapsed(self) -> float:
        assert self._began is not None
        return self._clock() - self._began

    def _tick(self) -> None:
        interval = self._parameters.interval_seconds
        self._say(self._sample(False))
        self._call_at((math.floor(self._elapsed / interval + 0.01) + 1) * interval, self._tick)

    def _sample(self, ended: bool) -> Sample:
        elapsed = self._elapsed
        self._ticks = max(self._ticks + 1, math.floor(elapsed / self._parameters.interval_seconds + 0.01))
        streams = tuple(self.streams[number].sample() for number in range(self._parameters.streams))
        return Sample(self._ticks, elapsed, streams, ended)

    def _say(self, sample: Sample) -> None:
        self._control.say_sample(sample)
        self._tell(self.results.add(self._end, sample))

    def _end_streams(self) -> None:
        for stream in self.streams.values():
            stream.end()

    def _look_for_progress(self) -> None:
        progress = sum(stream.written_bytes + stream.received_bytes for stream in self.streams.values())
        if progress == self._progress and not self._said_last:
            self.fail(Unanswered("Nothing moves any more."))
            return
        self._progress = progress
        self._call_at(self._elapsed + STALL_SECONDS, self._look_for_progress)

    # -- the end --

    def _changed(self) -> None:
        """A stream has ended, or half of it."""
        if self._began is None or self._said_last or self.finished.called:
            return
        for stream in self.streams.values():
            if stream.failure is not None:
                self.fail(Broken(f"A stream broke: {stream.failure.value}"))
                return
        if all(stream.done for stream in self.streams.values()):
            self._say_last()

    def _say_last(self) -> None:
        """This end is done.  Its streams stay until the other end is, too: it would take a reset for a fault."""
        self._said_last = True
        self._cancel_calls()
        self._say(self._sample(True))
        self._call_at(self._elapsed + LAST_WORD_SECONDS, self._silent)
        self._look_for_end()

    def _silent(self) -> None:
        self.fail(Unanswered("The other end does not say what it received."))

    def _look_for_end(self) -> None:
        if self._said_last and self.results.ended(OTHER[self._end]) and not self.finished.called:
            self._cancel_calls()
            self.finished.callback(None)
