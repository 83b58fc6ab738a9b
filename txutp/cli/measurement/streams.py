"""One stream of data: a source that writes one block again and again, a sink that counts, and what both have seen."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.cli.measurement.wire import StreamSample

# How often a paced stream writes, unless a block takes longer.
PACE_SECONDS = 0.005

# How much of the time in which it could not write a paced stream makes up for.
CATCHING_UP_SECONDS = 0.25

# What TCP may hold unsent; else seconds of it would follow the end of a test on a slow path.
TCP_UNSENT_BYTES = 128 * 1024
TCP_NOTSENT_LOWAT = getattr(socket, "TCP_NOTSENT_LOWAT", 25 if hasattr(socket, "TCP_INFO") else None)

# The beginning of Linux's struct tcp_info: eight bytes, 24 words, then pacing rates and bytes_acked.
TCP_INFO = struct.Struct("8x24I2Q2Q")
TCP_SEGMENT, TCP_RTT, TCP_CWND, TCP_RETRANSMITTED, TCP_ACKNOWLEDGED = 2, 15, 18, 23, 26


@cache
def block_of(size_bytes: int) -> bytes:
    """The block that streams of this process write; random, for some paths compress."""
    return os.urandom(size_bytes)


class Pace:
    """How many bytes are due at a rate: of the time since it began, or of the last quarter of a second if the transport
    took less before that.
    """

    def __init__(self, bits_per_second: int, now: float) -> None:
        self._bytes_per_second = bits_per_second / 8
        self._began = now
        self._written_bytes = 0

    def due_bytes(self, now: float) -> int:
        """Bytes that should have been written by now, and were not."""
        due_bytes = int((now - self._began) * self._bytes_per_second) - self._written_bytes
        too_many_bytes = due_bytes - int(CATCHING_UP_SECONDS * self._bytes_per_second) - 1
        if too_many_bytes > 0:
            self._written_bytes += too_many_bytes
            return due_bytes - too_many_bytes
        return due_bytes

    def wrote(self, size_bytes: int) -> None:
        """Count bytes that were written."""
        self._written_bytes += size_bytes


@implementer(IPushProducer)
class DataStream:
    """A role of a ``Peer``: sends until its bytes are over or it is told to end, and counts what comes.

    ``changed`` is called when one of its halves has ended, or it has as a whole; see ``done`` and ``failure``.
    """

    def __init__(
        self,
        reactor: Any,
        now: Callable[[], float],
        transport: Any,
        sends: bool,
        receives: bool,
        block_bytes: int,
        total_bytes: int | None,
        bits_per_second: int | None,
        changed: Callable[[], None],
        greeting_bytes: int = 0,
    ) -> None:
        """``greeting_bytes`` were written before, and do not count."""
        self._reactor = reactor
        self._now = now
        self.transport = transport
        self._block = block_of(block_bytes) if sends else b""
        self._left_bytes = total_bytes
        self._bits_per_second = bits_per_second
        self._changed = changed
        self._greeting_bytes = greeting_bytes
        self._receives = receives
        self._pace: Pace | None = None
        self._pacing: Any = None
        self._paused = False
        self._began = 0.0
        self._sends = sends
        self._tells_acknowledged = hasattr(transport, "acknowledged")
        self._sending_done = not sends
        self._receiving_done = not receives
        self._last = StreamSample()
        self._stopped = False
        self.written_bytes: int = 0
        self.received_bytes: int = 0
        self.received_at: float = 0.0
        self.sent_at: float = 0.0
        self.gone: bool = False
        self.failure: Failure | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more is to come from either side."""
        return (self._sending_done and self._receiving_done) or self.gone

    # -- verbs of the test --

    def begin(self, now: float) -> None:
        """Send, if this end does; ``now`` is the beginning of the test."""
        self._began = now
        if self._sends and not self.gone:
            self._limit_unsent()
            self.transport.registerProducer(self, True)
            if self._bits_per_second is None:
                self.resumeProducing()
            else:
                self._pace = Pace(self._bits_per_second, now)
                self._write_due()

    def end(self) -> None:
        """Send no more than what was written."""
        if not self._sends or self._stopped or self.gone:
            return
        self._stopped = True
        self._stop_pacing()
        self.transport.unregisterProducer()
        if self._tells_acknowledged:
            self.transport.acknowledged().addCallbacks(lambda nothing: self._all_sent(), lambda failure: None)
        self.transport.loseWriteConnection()

    def drop(self) -> None:
        """End at once."""
        self._stop_pacing()
        if not self.gone:
            self.transport.abortConnection()

    def sample(self) -> StreamSample:
        """Returns how it is doing."""
        if not self.gone:
            self._last = self._observe()
        return replace(
            self._last,
            sent_bytes=self.written_bytes if self.sent_at else max(0, self._last.sent_bytes - self._greeting_bytes),
            received_bytes=self.received_bytes,
            sent_seconds=max(0.0, (self.sent_at or self._now()) - self._began) if self._sends else 0.0,
            received_seconds=max(0.0, self.received_at - self._began) if self.received_at else 0.0,
        )

    def _observe(self) -> StreamSample:
        return observe(self.transport, self.written_bytes + self._greeting_bytes, self._last)

    # -- the source --

    def resumeProducing(self) -> None:
        self._paused = False
        if self._pace is not None:
            return  # its timer goes on
        block = self._block
        write = self.transport.write
        if self._left_bytes is None:
            while not self._paused and not self._stopped:
                self.written_bytes += len(block)
                write(block)
        else:
            while not self._paused and self._left_bytes:
                self._write(len(block))
            self._end_if_over()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True

    def _write(self, size_bytes: int) -> int:
        if self._left_bytes is not None:
            size_bytes = min(size_bytes, self._left_bytes)
            self._left_bytes -= size_bytes
        self.written_bytes += size_bytes
        self.transport.write(self._block[:size_bytes])
        return size_bytes

    def _write_due(self) -> None:
        """Write what the rate asks for, and come back when the next bytes are due."""
        self._pacing = None
        pace = self._pace
        assert pace is not None
        assert self._bits_per_second is not None
        while not self._paused and not self._stopped and self._left_bytes != 0:
            size_bytes = min(pace.due_bytes(self._now()), len(self._block))
            if size_bytes <= 0:
                break
            pace.wrote(self._write(size_bytes))
        if not self._end_if_over():
            self._pacing = self._reactor.callLater(max(PACE_SECONDS, 8 / self._bits_per_second), self._write_due)

    def _end_if_over(self) -> bool:
        if self._left_bytes == 0 or self._stopped:
            self.end()
            return True
        return False

    def _stop_pacing(self) -> None:
        if self._pacing is not None:
            self._pacing.cancel()
            self._pacing = None

    def _all_sent(self) -> None:
        if not self._sending_done:
            self.sent_at = self._now()
            self._sending_done = True
            self._changed()

    def _limit_unsent(self) -> None:
        if TCP_NOTSENT_LOWAT is not None and _is_tcp(self.transport):
            with suppress(OSError):
                self.transport.getHandle().setsockopt(socket.IPPROTO_TCP, TCP_NOTSENT_LOWAT, TCP_UNSENT_BYTES)

    # -- the sink, called by its Peer --

    def received(self, data: bytes) -> None:
        """Bytes came."""
        self.received_bytes += len(data)
        self.received_at = self._now()

    def read_ended(self) -> None:
        """The other end sends no more."""
        self._receiving_done = True
        if not self._tells_acknowledged and not self._receives and self._stopped:
            self._all_sent()  # the other end closes when it has everything
        self._changed()
        if self._sending_done and not self.gone:
            self.transport.loseConnection()

    def write_ended(self) -> None:
        """Our half has ended.  What it held may still be under way; only some transports can tell."""
        if not self._tells_acknowledged and self._receives:
            self._all_sent()

    def lost(self, reason: Failure) -> None:
        """The stream is gone."""
        self._stop_pacing()
        self._last = self._observe()
        self.gone = True
        if reason.check(ConnectionDone) and self._stopped and not self._tells_acknowledged:
            self._all_sent()
        if not self._sending_done or not (self._receiving_done or reason.check(ConnectionDone)):
            self.failure = reason
        self._changed()


def use_settings(transport: Any, changes: dict[str, Any]) -> None:
    """Let a uTP connection that has sent next to nothing go by other ``Settings`` than its port's or endpoint's."""
    connection = getattr(transport, "_connection", None)
    if connection is not None:
        connection.use_settings(replace(connection.settings, **changes))


# What transports tell


def observe(transport: Any, written_bytes: int, before: StreamSample) -> StreamSample:
    """Returns what a transport tells of its stream: one of uTP all, TCP on Linux much, other ones nothing.

    ``before`` is what it told before; a transport that has ended may tell no more.
    """
    if hasattr(transport, "stats"):
        stats = transport.stats()
        connection = transport._connection
        steering = connection.sending.steering
        return StreamSample(
            sent_bytes=stats.bytes_acked,
            retransmitted_segments=stats.segs_retrans,
            cwnd_bytes=stats.cwnd,
            rtt_ms=stats.rtt or None,
            queue_delay_ms=stats.queue_delay if steering is not None else None,
            reverse_queue_delay_ms=stats.receive_queue_delay if steering is not None and connection.reply_us else None,
        )
    if _is_tcp(transport) and hasattr(socket, "TCP_INFO"):
        with suppress(OSError, AttributeError, struct.error):
            told = transport.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
            words = TCP_INFO.unpack(told)
            return StreamSample(
                sent_bytes=min(words[TCP_ACKNOWLEDGED], written_bytes),
                retransmitted_segments=words[TCP_RETRANSMITTED],
                cwnd_bytes=words[TCP_CWND] * words[TCP_SEGMENT],
                rtt_ms=words[TCP_RTT] / 1_000,
            )
    return before if before.sent_bytes else StreamSample(sent_bytes=written_bytes)


def _is_tcp(transport: Any) -> bool:
    handle = getattr(transport, "getHandle", None)
    if handle is None:
        return False
    with suppress(Exception):
        where = handle()
        return where.type == socket.SOCK_STREAM and where.family in (socket.AF_INET, socket.AF_INET6)
    return False
