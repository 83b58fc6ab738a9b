"""Both halves of a Socket: the reading one comes from ``readable.py``, the writing one is here.

It also has what the halves share: the timeout for silence, and the addresses of both sides.

Written data take three steps: ``write`` encodes them and keeps the bytes until there is a transport; ``_send`` hands
the bytes to the transport; ``_tell_arrived`` calls back when the peer has acknowledged them.  The transport pauses the
socket above the high-water mark and resumes it when there is room, like any producer.

``sockets.py`` knows when there is a transport, and what ``destroy`` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet import defer
from twisted.internet.defer import Deferred

from txutp.core.units import SECOND_US
from txutp.environment import environment_of
from txutp.socket.encodings import encode
from txutp.socket.events import Listener, arguments_taken, call_guarded, checked_listener, left_out
from txutp.socket.readable import Readable
from txutp.timers import call_later
from txutp.transport import UTPTransport

if TYPE_CHECKING:
    from typing_extensions import Self

# Turns of the reactor in which data that have come can be read and delivered before a socket counts as silent: a
# reactor runs timers before it reads, and this process may have been paused.
LAST_LOOKS = 2

Callback = Callable[[BaseException | None], None]


class WriteAfterEnd(Exception):
    """The program wrote to a socket after ``end``."""


class Address(NamedTuple):
    """One side of a connection, or where a server listens, as the operating system reports it."""

    address: str
    family: str
    """``"IPv4"`` or ``"IPv6"``."""
    port: int


def address_of(address: Any) -> Address:
    return Address(address.host, "IPv6" if ":" in address.host else "IPv4", address.port)


class Duplex(Readable):
    """A stream in both directions."""

    writableHighWaterMark: int = UTPTransport.bufferSize
    """Unsent bytes above which ``write`` returns False."""

    def __init__(self, reactor: Any = None, allowHalfOpen: bool = False) -> None:
        super().__init__(reactor)
        self.allowHalfOpen = allowHalfOpen

        # options that the transport does not know yet
        self._no_delay = False
        self._keep_alive = False

        # silence
        self._timeout_seconds = 0.0
        self._active_us = 0  # when something was written, or arrived
        self._timer: Any = None
        self._last_looks = 0  # turns of the reactor since time was up

    def _renew(self) -> None:
        super()._renew()
        self.connecting = False
        self.bytesWritten: int = 0
        """Bytes that were passed to ``write``, sent or not."""
        self._arrived_bytes = 0  # of those, when the timer fired the last time

        # writing
        self._early: list[tuple[bytes, Callback | None]] = []  # written before we were connected
        self._waiting: dict[Deferred[None], Callback] = {}  # callbacks for the arrival of written data
        self._full = False  # more than the high-water mark waits in the transport
        self._drain_due = False  # `write` has returned False
        self._ended = False  # `end` was called
        self._finished = False  # and everything has arrived
        self._end_callbacks: list[Callback] = []

    def __repr__(self) -> str:
        there = self._peer()
        to = "" if there is None else f" to {there.address} {there.port}"
        return f"<{self.__class__.__name__} {self.readyState}{to}>"

    def destroy(self, error: BaseException | None = None) -> Self:
        raise NotImplementedError

    # -- write --

    def write(self, data: object, encoding: str | Listener = "utf8", callback: Listener | None = None) -> bool:
        """Send a str in this encoding, or bytes.  Before the socket is connected they wait for the connection.

        Returns whether there is room for more.  If it is False, the event ``drain`` will come; a program that writes
        on before it needs memory.  ``callback(None)`` is called when the peer has acknowledged everything up to here,
        ``callback(error)`` if the connection ended before.
        """
        encoding, callback = left_out(encoding, "utf8", callback)
        payload = encode(data, encoding)
        told = None if callback is None else self._guarded(checked_listener(callback, "a callback"))
        if self.destroyed or self._ended:
            self._refuse(told)
            return False
        if self._transport is None and not self.connecting:
            raise RuntimeError("this socket is not connected to anything; call connect before write")
        self.bytesWritten += len(payload)
        self._set_active()
        if self._transport is not None:
            self._send(payload, told)
        else:
            self._early.append((payload, told))
        if self._full or (self.connecting and self.bytesWritten > self.writableHighWaterMark):
            self._drain_due = True
        return not self._drain_due

    def end(
        self,
        data: object = None,
        encoding: str | Listener = "utf8",
        callback: Listener | None = None,
    ) -> Self:
        """Write the last data, if any, and end our half of the stream; the peer can still send.

        When everything has arrived, the event ``finish`` comes, and ``callback(None)`` is called; if the connection
        ends before, ``callback(error)``.
        """
        data, callback = left_out(data, None, callback)
        encoding, callback = left_out(encoding, "utf8", callback)
        told = None if callback is None else self._guarded(checked_listener(callback, "a callback"))
        if data is not None:
            if self.destroyed or self._ended:
                self.write(data, encoding, callback)  # too late
                return self
            self.write(data, encoding)
        if self.destroyed or self._finished:
            if told is not None:
                self._do_later(told, self._why_destroyed() if self.destroyed else None)
            return self
        if told is not None:
            self._end_callbacks.append(told)
        if not self._ended:
            self._ended = True
            if self._transport is not None:
                self._end_writing()
            elif not self.connecting:
                self.destroy()
        return self

    def _refuse(self, callback: Callback | None) -> None:
        """Report that a write came too late."""
        problem: BaseException
        if self.destroyed:
            problem = self._why_destroyed()
        elif self._end_told and not self.allowHalfOpen:
            problem = WriteAfterEnd("this socket has been ended by the other party")
        else:
            problem = WriteAfterEnd("write after end")
        if callback is not None:
            self._do_later(callback, problem)
        if not self.destroyed:  # else the last event was `close`
            self.destroy(problem)

    def _send(self, data: bytes, callback: Callback | None) -> None:
        self._transport.write(data)
        if callback is not None:
            self._tell_when_arrived(callback)

    def _tell_when_arrived(self, callback: Callback) -> None:
        """Call back when the peer has everything that was written so far."""
        if not self._transport.connected:
            # the connection has ended and the program does not know yet: `_tell_end` will call back
            self._waiting[Deferred()] = callback
            return
        acknowledged: Deferred[None] = self._transport.acknowledged()
        self._waiting[acknowledged] = callback
        if acknowledged.called:
            # nothing is in flight, but a callback never runs within a call of the program
            self._do_later(self._tell_arrived, acknowledged)
            return

        def arrived(result: None) -> None:
            self._do_now()
            self._tell_arrived(acknowledged)

        acknowledged.addCallbacks(arrived, lambda failure: None)  # `_lost` comes next

    def _tell_arrived(self, acknowledged: Deferred[None]) -> None:
        callback = self._waiting.pop(acknowledged, None)
        if callback is not None:
            callback(None)

    def _end_writing(self) -> None:
        transport = self._transport
        self._full = self._drain_due = False
        transport.unregisterProducer()
        self._tell_when_arrived(self._finish)
        if self._end_told:
            transport.loseConnection()
        else:
            transport.loseWriteConnection()

    def _finish(self, problem: BaseException | None) -> None:
        """Report that everything has arrived.  If it has not, ``_tell_end`` reports that."""
        if problem is None:
            self._finished = True
            self.emit("finish")
            callbacks, self._end_callbacks = self._end_callbacks, []
            for callback in callbacks:
                callback(None)

    def _has_room(self) -> None:
        """The transport has room."""
        self._full = False
        if self._drain_due:
            self._drain_due = False
            self.emit("drain")

    def _guarded(self, callback: Listener) -> Callback:
        """Returns a callback whose exceptions are logged, and which need not take the error."""
        taken = arguments_taken(callback)

        def call(problem: BaseException | None) -> None:
            call_guarded(callback, (problem,)[:taken], self)

        return call

    @property
    def writableLength(self) -> int:
        """Bytes that were written and have not been sent yet."""
        if self._transport is None:
            return sum(len(data) for data, _ in self._early)
        return int(self._transport.stats().unsent)

    def drained(self) -> Deferred[None]:
        """Fires when there is room for more, at once if there is; fails if the socket is destroyed before."""
        if self.destroyed:
            return defer.fail(self._why_destroyed())
        return self.when("drain") if self._drain_due else defer.succeed(None)

    # -- silence --

    def setTimeout(self, timeout: float, callback: Listener | None = None) -> Self:
        """Emit ``timeout`` after this many milliseconds without a write and without data of the peer; 0 is never.

        The connection stays open; the program may end it.  ``callback`` is called at the first such event.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f"a timeout is a number of milliseconds, not {timeout!r}")
        if not 0 <= timeout < math.inf:
            raise ValueError(f"a timeout is a finite number of milliseconds, 0 or more, not {timeout}")
        if callback is not None:
            if timeout:
                self.once("timeout", callback)
            else:
                self.off("timeout", callback)
        self._timeout_seconds = timeout / 1_000
        self._stop_timer()
        self._set_active()
        return self

    def _set_active(self) -> None:
        """Note activity.  The timer stays where it is, and looks for activity when it fires."""
        self._active_us = environment_of(self.reactor).monotonic_us()
        if self._timeout_seconds and self._timer is None and not self.destroyed:
            self._timer = call_later(self.reactor, self._timeout_seconds, self._look_for_silence)

    def _look_for_silence(self) -> None:
        self._timer = None
        if self._transport is not None:
            stats = self._transport.stats()
            before, self._arrived_bytes = self._arrived_bytes, stats.bytes_acked
            under_way_bytes = stats.unsent + stats.bytes_sent - stats.bytes_retrans - stats.bytes_acked
            if under_way_bytes and stats.bytes_acked != before:
                # the peer still acknowledges what was written before
                self._set_active()
                return
        silent_us = environment_of(self.reactor).monotonic_us() - self._active_us
        missing_seconds = self._timeout_seconds - silent_us / SECOND_US
        if missing_seconds > 0 or self._last_looks < LAST_LOOKS:
            self._last_looks = 0 if missing_seconds > 0 else self._last_looks + 1
            self._timer = call_later(self.reactor, max(missing_seconds, 0), self._look_for_silence)
            return
        self._last_looks = 0
        self._do_now()
        self.emit("timeout")

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    # -- options --

    def setNoDelay(self, noDelay: bool = True) -> Self:
        """Send small writes at once, also while a small packet is in flight; by default they are coalesced."""
        self._no_delay = bool(noDelay)
        self._set_options()
        return self

    def setKeepAlive(self, enable: bool = False, initialDelay: float = 0) -> Self:
        """Send keepalives, and end if nothing answers them.  They are sent by default: see ``Settings.keepalive_us``.

        ``initialDelay`` is ignored.
        """
        self._keep_alive = bool(enable)
        self._set_options()
        return self

    def _set_options(self) -> None:
        if self._transport is not None:
            self._transport.setTcpNoDelay(self._no_delay)
            self._transport.setTcpKeepAlive(self._keep_alive)

    # -- questions --

    def address(self) -> Address | None:
        """Our address; None without a connection, as are the properties made of it."""
        return None if self._transport is None else address_of(self._transport.getHost())

    def _peer(self) -> Address | None:
        return None if self._transport is None else address_of(self._transport.getPeer())

    @property
    def localAddress(self) -> str | None:
        """Our IP address."""
        here = self.address()
        return None if here is None else here.address

    @property
    def localPort(self) -> int | None:
        """Our port."""
        here = self.address()
        return None if here is None else here.port

    @property
    def localFamily(self) -> str | None:
        """``"IPv4"`` or ``"IPv6"``."""
        here = self.address()
        return None if here is None else here.family

    @property
    def remoteAddress(self) -> str | None:
        """The peer's IP address."""
        there = self._peer()
        return None if there is None else there.address

    @property
    def remotePort(self) -> int | None:
        """The peer's port."""
        there = self._peer()
        return None if there is None else there.port

    @property
    def remoteFamily(self) -> str | None:
        """``"IPv4"`` or ``"IPv6"``."""
        there = self._peer()
        return None if there is None else there.family

    @property
    def readyState(self) -> str:
        """``"opening"``, ``"open"``, ``"readOnly"`` after ``end``, ``"writeOnly"`` after the peer, or ``"closed"``."""
        if self.connecting:
            return "opening"
        if self._transport is None or (self._ended and self._end_told):
            return "closed"
        if self._ended:
            return "readOnly"
        return "writeOnly" if self._end_told else "open"
