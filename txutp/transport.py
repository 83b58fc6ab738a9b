"""What a Protocol sees of a uTP connection: an ``ITransport`` that behaves as Twisted's TCP does.

``protocol.py`` calls ``settle`` when something happened to the connection and, if that made us ``hungry``, ``refill``
when more could be sent; the application calls everything else.

On producers and closing
    A producer that writes into us is paused when more than ``bufferSize`` bytes wait, and resumed when less than one
    burst waits, so that bursts stay full; a pull producer is asked at the same mark.  What is in flight does not
    count, or throughput would be ``bufferSize`` per round trip.  ``loseConnection`` and ``loseWriteConnection`` wait
    for ``unregisterProducer``.

    ``loseConnection`` stops deliveries at once, and ``connectionLost(ConnectionDone)`` comes when the peer has
    everything, so that a program that then stops its reactor loses nothing.  (The wait for the ack of a
    FIN alone is short; the connection goes on without the application.)  A FIN from the peer ends a Protocol that is
    not half-closeable the same way: what it wrote so far still arrives.  (TCP drops it; nobody relies on that.)

    Nothing here calls the application from within a call of the application, but for the producer methods for which
    Twisted's interfaces ask just that.

    A connection may end, for whatever reason, while a paused protocol has not taken everything that arrived.  That
    stays readable, and ``connectionLost`` comes behind it, with the reason that the connection had (``unread.py``).
    ``loseConnection`` and ``abortConnection`` do not wait for it, and what is written meanwhile is dropped.

On what has arrived
    ``acknowledged`` tells when the peer has what was written, which no transport over the kernel's TCP can.  Bytes are
    counted from the beginning of the stream, by the core; nothing is counted or looked at while nobody waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IPushProducer,
    ITCPTransport,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.context import call as callWithContext
from twisted.python.failure import Failure
from twisted.python.log import ILogContext
from zope.interface import implementer

from txutp.arguments import checked_rate
from txutp.core.connection import Connection
from txutp.core.states import CLOSED, DONE
from txutp.core.stats import ConnectionStats
from txutp.errors import exception_for
from txutp.protocol import UTPProtocol
from txutp.udp.ports import local_address_of, twisted_address
from txutp.udp.sources import is_wildcard
from txutp.unread import Unread

# One dataReceived gets about so much; joining more costs more per byte.
DELIVERY_BYTES = 256 * 1024

# More than any stream has.
NEVER_BYTES = 1 << 62

_log = Logger()


def log_prefix_of(who: Any) -> str:
    """How a protocol or a factory wants to be called in the log: its own word, else the name of its class."""
    return str(who.logPrefix()) if ILoggingContext.providedBy(who) else who.__class__.__name__


@implementer(ITCPTransport, IConsumer, IPushProducer, ILoggingContext)
class UTPTransport:
    """A connected uTP stream.  Attributes without underscore are those that Twisted's TCP transports have."""

    TLS = False
    bufferSize = 65_536
    disconnected: bool = False
    disconnecting: bool = False
    connected: int = 0
    producer: Any = None
    streamingProducer: bool = False
    protocol: Any = None

    # What most connections never change stands here, where thousands of idle ones share it.
    hungry: bool = False  # there may be more to send, or to tell, when something has left
    logstr: str = "-"
    _peer: Any = None
    _host: Any = None
    _keep_alive = False
    _paused = False  # we deliver nothing
    _producer_paused = False
    _write_ending = False  # loseWriteConnection was called
    _write_ended_told = False
    _end_told = False  # the peer's FIN was passed on
    _failure: Failure | None = None  # why we end it ourselves, if not for a reason of the connection
    _reason: Failure | None = None  # why it has ended
    _waiting: tuple[tuple[int, Deferred[None]], ...] = ()  # who waits until so many bytes are acknowledged, in order
    _on_lost: Callable[[Failure], None] | None = None  # told after the protocol
    _unread: Unread | None = None  # the connection has ended before its reader took everything

    def __init__(self, utp: UTPProtocol, connection: Connection | None) -> None:
        self.reactor: Any = utp.reactor
        self._utp: UTPProtocol | Unread = utp
        self._connection = connection

    def __repr__(self) -> str:
        state = "connected" if self.connected else "disconnected"
        return f"<{self.__class__.__name__} {self.logstr} {state} to {self.getPeer()}>"

    def logPrefix(self) -> str:
        return self.logstr

    # -- begin, called by port.py --

    def begin(self, protocol: Any) -> None:
        """The connection is up: join it with its protocol."""
        self.protocol = protocol
        self.connected = 1
        try:
            callWithContext(self._log_context(), protocol.makeConnection, self)
        except BaseException:
            self._fail(Failure(), "connectionMade raised")

    # -- called by UTPProtocol --

    def settle(self) -> None:
        """Pass on what happened to the connection since the last time."""
        connection = self._connection
        if not self.connected or connection is None:
            return

        # what the peer has acknowledged
        if self._waiting:
            self._tell_acknowledged(connection)

        # stream bytes, unless nobody wants them (now)
        receiving = connection.receiving
        while receiving.ready_bytes and not self._paused and not self.disconnecting:
            self._call(self.protocol.dataReceived, connection.take(DELIVERY_BYTES))

        # its end, behind the last of them
        if connection.eof_sequence is not None and connection.at_eof:
            untimely = receiving.ready_bytes or self._paused or self.disconnecting or self._end_told
            if not untimely and (connection.state != CLOSED or connection.close_reason != DONE):
                self._end_told = True
                self._peer_ended()
            if self.disconnecting and ITransport.providedBy(self.producer):
                # A proxy has let go of both sides, and nobody will unregister the other one.
                self._close_connection()

        # our own half has ended
        if self._write_ending and not self._write_ended_told and connection.fin_sequence is not None:
            self._write_ended_told = True
            if IHalfCloseableProtocol.providedBy(self.protocol) and not self.disconnecting:
                self._call(self.protocol.writeConnectionLost)

        ended = connection.state == CLOSED or (connection.fin_requested and connection.released)
        if ended and self.connected:
            if not receiving.ready_bytes or self.disconnecting:
                self._lost(self._failure or Failure(exception_for(connection.close_reason)))
            elif self._unread is None:
                self._utp = self._unread = Unread(self, connection)

    def refill(self) -> None:
        """More may leave: let a waiting producer write if little is left."""
        connection = self._connection
        if connection is None or not self.connected:
            return  # what still leaves is only about our FIN, behind the application's back
        if self._write_ending and not self._write_ended_told and connection.fin_sequence is not None:
            # our FIN has just left; the protocol hears of it in the next round
            self._utp.touch(connection)
        if self.producer is None or self._failure is not None:
            return
        waiting = self._producer_paused or not self.streamingProducer
        if waiting and connection.sending.unsent_bytes < min(self.bufferSize, connection.sending.burst_bytes):
            self._producer_paused = False
            try:
                self.producer.resumeProducing()
            except BaseException:
                self._fail(Failure(), "resumeProducing raised")

    def _log_context(self) -> dict[object, object]:
        """Our name is the system of whatever is logged meanwhile."""
        # what log.callWithContext does, without looking up and copying what the UDP port's own context says
        return {ILogContext: {"isError": 0, "system": self.logPrefix()}}

    def _call(self, method: Callable[..., object], *arguments: Any) -> None:
        """Call the application; if it raises, the connection ends with what it raised as the reason."""
        try:
            callWithContext(self._log_context(), method, *arguments)
        except BaseException:
            self._fail(Failure(), f"{getattr(method, '__name__', method)} raised")

    def _fail(self, failure: Failure, what: str) -> None:
        _log.failure("{what}", failure=failure, what=what)
        self._failure = failure
        self.disconnecting = True
        if self._connection is not None:
            self._connection.abort()
            self._utp.touch(self._connection)

    def _peer_ended(self) -> None:
        """The peer will send no more."""
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self._call(self.protocol.readConnectionLost)
        else:
            self.disconnecting = True
            self._close_connection()

    def _tell_acknowledged(self, connection: Connection) -> None:
        """Fire for those whose bytes have arrived."""
        arrived_bytes = connection.sending.acknowledged_bytes
        while self._waiting and self._waiting[0][0] <= arrived_bytes:
            (_, acknowledged), *rest = self._waiting
            self._waiting = tuple(rest)
            acknowledged.callback(None)

    def _lost(self, reason: Failure) -> None:
        """The end, told once."""
        if self._unread is not None:
            self._unread.close()
            self._utp, self._unread = self._unread.utp, None
        self.connected = 0
        self.disconnected = True
        self.disconnecting = False
        self._reason = reason
        producer, self.producer = self.producer, None
        if producer is not None:
            try:
                producer.stopProducing()
            except BaseException:
                _log.failure("stopProducing raised")
        while self._waiting:
            (_, acknowledged), *rest = self._waiting
            self._waiting = tuple(rest)
            acknowledged.errback(reason)
        protocol, self.protocol = self.protocol, None
        on_lost, self._on_lost = self._on_lost, None
        try:
            callWithContext(self._log_context(), protocol.connectionLost, reason)
        except BaseException:
            _log.failure("connectionLost raised")
        if on_lost is not None:
            on_lost(reason)

    # -- ITransport --

    def write(self, data: bytes) -> None:
        """Append bytes to the stream.  They leave after this turn of the reactor, packed into full packets."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or not data:
            return
        connection = self._connection
        assert connection is not None
        connection.write(data)
        if not connection.touched:
            self._utp.touch(connection)
        if (
            self.producer is not None
            and self.streamingProducer
            and not self._producer_paused
            and (connection.sending.unsent_bytes > self.bufferSize or connection.state == CLOSED)
        ):
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Append several pieces; none is written if one of them is not bytes."""
        pieces = list(iovec)
        for piece in pieces:
            if not isinstance(piece, bytes):
                raise TypeError("Data must be bytes")
        UTPTransport.write(self, b"".join(pieces))

    def flush(self) -> None:
        """Send what was written so far without waiting for more to fill the last packet.

        Needed only where each write is a message that must not wait for the acknowledgement of the one before it; see
        also ``setTcpNoDelay``.
        """
        if self.connected and self._connection is not None:
            self._connection.sending.flush()
            self._utp.touch(self._connection)

    def acknowledged(self) -> Deferred[None]:
        """Fires when the peer has acknowledged every byte that was written so far.

        That means that the other computer has them, not that its application has read them.  If the connection ends
        before, it fails with the reason that ``connectionLost`` gets, just before that is called.  If there is nothing
        to wait for, it has fired already; otherwise it never fires from within a call of yours.  What is written later
        makes no difference, nor does ``loseConnection``.  It may be cancelled.

        With TLS the bytes that count are those that TLS has handed down so far: before the TLS handshake is over, and
        while TLS holds a producer back, that may be nothing of what was written.
        """
        connection = self._connection
        if connection is None:
            return defer.succeed(None)
        sending = connection.sending
        ignored = connection.write_ignored
        if not ignored and not sending.unsent_bytes and sending.acknowledged_bytes == sending.bytes_sent:
            return defer.succeed(None)
        if self._reason is not None:
            return defer.fail(self._reason)
        acknowledged: Deferred[None] = Deferred(self._wait_no_more)
        written_bytes = NEVER_BYTES if ignored else sending.bytes_sent + sending.unsent_bytes
        self._waiting += ((written_bytes, acknowledged),)
        return acknowledged

    def _wait_no_more(self, acknowledged: Deferred[None]) -> None:
        self._waiting = tuple(waiting for waiting in self._waiting if waiting[1] is not acknowledged)

    def loseConnection(self) -> None:
        """Close when everything written has arrived at the peer; nothing is delivered any more.

        It waits for a producer.  A transport that closes is none any more, for it delivers nothing: in a proxy, whose
        two transports are each other's producers, nothing would unregister it.
        """
        if not self.connected:
            return
        producer = self.producer
        has_producer = (
            producer is not None
            and getattr(producer, "connected", True)
            and not getattr(producer, "disconnecting", False)
        )
        if self.disconnecting and has_producer:
            return
        was_closing = self.disconnecting and self.producer is None
        self.disconnecting = True
        if not was_closing and (not has_producer or self._unread is not None):
            self._close_connection()

    def abortConnection(self) -> None:
        """Close at once; what was written may be lost, and the peer is told with a RESET."""
        if not self.connected or self._connection is None or self._failure is not None:
            return
        self.disconnecting = True
        self._utp.abort(self._connection)

    def loseWriteConnection(self) -> None:
        """End our half of the stream behind what was written; reading goes on."""
        if not self.connected or self._write_ending:
            return
        self._write_ending = self.hungry = True
        if self.producer is None:
            self._end_writing()

    def _close_connection(self) -> None:
        assert self._connection is not None
        self._connection.close(self._utp.now_us())
        self._utp.touch(self._connection)

    def _end_writing(self) -> None:
        assert self._connection is not None
        self._connection.shutdown()
        self._utp.touch(self._connection)

    def getPeer(self) -> Any:
        """The remote address; it stays known after the end."""
        if self._peer is None and self._connection is not None:
            self._peer = twisted_address(self._connection.address)
        return self._peer

    def getHost(self) -> Any:
        """Our address as the peer sees it, but for NATs.

        Where the UDP port has all addresses and the system does not tell which one was asked, it is what the routing
        table says.
        """
        if self._host is None:
            host = self._utp.port_address
            if is_wildcard(host.host) and self._connection is not None:
                host = local_address_of(self._connection.address, host.port)
            self._host = host
        return self._host

    def stats(self) -> ConnectionStats:
        """How the connection is doing, in the words of ``ss -ti``; after its end, how it was doing then."""
        if self._connection is None:
            raise RuntimeError("There is no connection yet, so there is nothing to tell.")
        return self._connection.stats(self._utp.now_us())

    def setRateLimit(self, up: int | None = None, down: int | None = None) -> None:
        """Cap what this connection sends (``up``) and receives (``down``) from now on, besides the caps of its port.

        Bytes per second, with the headers of IP, UDP and uTP; None is without a cap.  It takes the place of what
        ``Settings`` say for the connection.  TypeError or ValueError for what is no rate; nothing happens after the
        end of the connection.
        """
        up, down = checked_rate(up, "up"), checked_rate(down, "down")
        if self._connection is not None and isinstance(self._utp, UTPProtocol) and self.connected:
            self._utp.limit_connection(self._connection, up, down)

    # -- ITCPTransport --

    def getTcpNoDelay(self) -> bool:
        """Whether small writes leave at once although another small packet is in flight."""
        return self._connection is not None and self._connection.sending.no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Switch the packing of small writes off, or on again."""
        if self._connection is not None:
            self._connection.sending.no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        """What setTcpKeepAlive was given."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Send keepalives even if ``Settings.keepalive_us`` is None; by default they are sent anyway.

        As those of TCP they keep the bindings of NATs open, and end the connection if the peer answers none of them: a
        host that is gone is found within a minute.  That needs a peer that has answered one before, as those of txutp,
        libutp, libtorrent and npm's ``utp`` do within seconds.
        """
        self._keep_alive = bool(enabled)
        if self._connection is not None:
            self._connection.set_keep_alive(self._keep_alive)
            self._utp.touch(self._connection)

    # -- IConsumer --

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let a producer write as fast as the path takes it; RuntimeError if there is one already."""
        if self.producer is not None:
            raise RuntimeError(
                f"Cannot register producer {producer}, because producer {self.producer} was never unregistered."
            )
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.hungry = True
        self.streamingProducer = streaming
        self._producer_paused = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """The producer is done; a close that waited for it happens now."""
        self.producer = None
        self.hungry = self._write_ending
        self._producer_paused = False
        if not self.connected:
            return
        if self.disconnecting:
            self._close_connection()
        elif self._write_ending:
            self._end_writing()

    def stopConsuming(self) -> None:
        """Unregister the producer and close."""
        self.unregisterProducer()
        self.loseConnection()

    # -- IPushProducer: we produce for the protocol --

    def pauseProducing(self) -> None:
        """Deliver nothing, not even the end of the stream, until resumed; the peer soon may send nothing."""
        self._paused = True

    def resumeProducing(self) -> None:
        """Deliver again, from the next turn of the reactor on."""
        if self.connected and not self.disconnecting:
            self._paused = False
            assert self._connection is not None
            self._utp.touch(self._connection)

    def stopProducing(self) -> None:
        """The protocol's other end has gone."""
        self.loseConnection()

    # Public on TCP transports too, and used.
    stopReading = pauseProducing
    startReading = resumeProducing
