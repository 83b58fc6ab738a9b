"""Sockets and servers as Node.js has them: ``net.Socket`` and ``net.Server``, over uTP.

::

    from txutp.socket import createServer, run

    server = createServer(lambda socket: socket.pipe(socket))
    server.listen(6881)
    run()

A ``Socket`` stands between an application, which it calls through events, and a transport, which calls the socket's
``Stream``.  Its two halves are in ``readable.py`` and ``duplex.py``; here is its life, from ``connect`` to ``destroy``.
No event is emitted within a call of the application: ``_do_later`` puts it off to a turn of its own.  Calls of the
transport come in a turn of their own already; they begin with ``_do_now``, so that the order stays right.

``docs/reference/socket.md`` lists everything, and where it differs from Node.js.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionClosed, ConnectionDone, DNSLookupError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.arguments import checked_host, checked_port, checked_settings, is_numeric
from txutp.client import connectUTP
from txutp.core.settings import Settings
from txutp.port import listenUTP
from txutp.socket.duplex import Address, Duplex, address_of
from txutp.socket.events import Listener, ServerEvent, arguments_taken, call_guarded, checked_listener, left_out
from txutp.socket.program import Handle

if TYPE_CHECKING:
    from typing_extensions import Self


class Socket(Duplex):
    """A stream to another program.  Make one and ``connect`` it, or take those of a ``Server``."""

    def __init__(self, reactor: Any = None, *, allowHalfOpen: bool = False, settings: Settings | None = None) -> None:
        """Without ``allowHalfOpen`` our half ends when the peer ends its own; with it, only ``end`` ends it."""
        super().__init__(reactor, allowHalfOpen)
        self._settings = checked_settings(settings)

    def _renew(self) -> None:
        super()._renew()
        self._server: Server | None = None  # that accepted us
        self._connector: Any = None
        self._close_told = False

    # -- begin --

    def connect(self, port: int, host: str | Listener = "localhost", listener: Listener | None = None) -> Self:
        """Connect to a uTP port; ``listener`` is called at the event ``connect``.

        The reactor looks up the name: the event ``lookup`` comes for each of its addresses.  A failure is an event
        ``error``, with an exception of ``twisted.internet.error``, then ``close``.  After the event ``close`` the
        socket may connect again; it keeps its listeners, its encoding and its options.
        """
        host, listener = left_out(host, "localhost", listener)
        port, host = checked_port(port, 1), checked_host(host)
        if self._close_told:
            self._renew()
        if self.destroyed or self._connector is not None or self._transport is not None:
            raise RuntimeError("this socket has a connection already; it may connect again after its event close")
        if listener is not None:
            self.once("connect", listener)
        self.connecting = True
        self._goes_on()
        self._set_active()
        self._connector = connectUTP(self.reactor, host, port, _Attempt(self), settings=self._settings)
        return self

    # -- end --

    def destroy(self, error: BaseException | None = None) -> Self:
        """Stop reading; the last events are ``error``, if there is one, and ``close``.

        Data that were written before are still sent in the background, as the kernel would, but their arrival is not
        reported: callbacks of ``write`` get an error.
        """
        if error is not None and not isinstance(error, BaseException):
            raise TypeError(f"the error of a socket is an exception or None, not {error!r}")
        self._leave(error, tell=True)
        return self

    def resetAndDestroy(self) -> Self:
        """Destroy the socket and send a RESET: written data may be lost, and the peer gets an error."""
        transport = self._transport
        self._leave(None, tell=True)
        if transport is not None:
            transport.abortConnection()
        return self

    # -- for coroutines --

    def connected(self) -> Deferred[Self]:
        """Fires with this socket when it is connected; fails with the reason if that fails."""
        if self._transport is not None:
            return defer.succeed(self)
        if self.destroyed:
            return defer.fail(self._why_destroyed())
        return self.when("connect").addCallback(lambda result: self)

    def closed(self) -> Deferred[None]:
        """Fires after the event ``close``; fails if the reason was an error."""
        if self._close_told:
            return defer.succeed(None) if self._problem is None else defer.fail(self._problem)
        return self.when("close").addCallback(lambda had_error: None)

    # -- what the transport brings --

    def _looked_up(self, host: str, addresses: list[Any]) -> None:
        """The name has these addresses."""
        for address in addresses:
            if self.connecting:
                self.emit("lookup", None, address.host, 6 if ":" in address.host else 4, host)

    def _connected(self, transport: Any, producer: Stream) -> None:
        """The transport is there."""
        self._do_now()
        if self.destroyed:
            transport.loseConnection()
            return
        self._transport = transport
        self.connecting = False
        self._goes_on()
        self._set_active()
        self._set_options()

        # data that were written meanwhile go before those of the listeners
        transport.registerProducer(producer, True)
        early, self._early = self._early, []
        for data, callback in early:
            self._send(data, callback)
        if self._ended:
            self._end_writing()
        elif self._drain_due and not self._full:
            self._do_later(self._has_room)

        if self._server is None:
            self.emit("connect")
            if not self.destroyed:
                self.emit("ready")
        else:
            self._server._do_now()
            self._server.emit("connection", self)

    def _failed(self, host: str, failure: Failure) -> None:
        """The attempt to connect has failed."""
        if self.destroyed:
            return
        if failure.check(DNSLookupError):
            self.emit("lookup", failure.value, None, None, host)
        if not self.destroyed:
            self._shut(failure.value)
            self._tell_end(failure.value, failure.value)

    def _arrived(self, data: bytes) -> None:
        """The next bytes of the peer."""
        self._do_now()
        if not self.destroyed:
            self._set_active()
            self._take(data)

    def _peer_ended(self) -> None:
        """The peer has ended its half."""
        self._do_now()
        if self.destroyed:
            return
        self._take_end()
        if self.destroyed:
            return
        if self._ended:
            self._transport.loseConnection()
        elif not self.allowHalfOpen:
            self.end()

    def _lost(self, transport: Any, reason: Failure) -> None:
        """A connection has ended; it may be one that the socket left before."""
        self._do_now()
        if transport is not self._transport:
            return
        if self._held:
            # data that have arrived are read first
            self._behind_held = lambda: self._lost(transport, reason)
            return
        error = None if reason.check(ConnectionDone) else reason.value
        if error is None and not self._end_told:
            self._take_end()
        if not self.destroyed:
            self._shut(error)
            self._tell_end(reason.value, error)

    # -- the last things --

    def _leave(self, error: BaseException | None, tell: bool) -> None:
        """Leave the connection; the transport does the rest on its own."""
        if self.destroyed:
            return
        transport = self._transport
        connector = self._connector if self.connecting else None
        self._shut(error)
        if transport is not None:
            transport.unregisterProducer()
            transport.loseConnection()
        elif connector is not None:
            connector.disconnect()
        if tell:
            self._do_later(self._tell_end, error or ConnectionClosed("the socket was destroyed"), error)

    def _program_ends(self) -> None:
        self._leave(None, tell=False)

    def _shut(self, problem: BaseException | None) -> None:
        self.destroyed = True
        self.connecting: bool = False
        self._problem = problem
        self._transport = None
        self._drain_due = False
        self._stop_timer()

    def _tell_end(self, reason: BaseException | None, error: BaseException | None) -> None:
        """Emit the last events.  ``reason`` goes to callbacks whose data may be lost."""
        if error is not None:
            self.emit("error", error)
        callbacks = [callback for _, callback in self._early if callback is not None]
        callbacks += [*self._waiting.values(), *self._end_callbacks]
        self._early.clear()
        self._waiting.clear()
        self._end_callbacks.clear()
        for callback in callbacks:
            callback(reason)
        server = self._server
        self._has_ended()
        self._close_told = True
        self.emit("close", error is not None)
        if server is not None:
            server._forget(self)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Stream(Protocol):
    """The protocol and producer of a transport; passes its calls on to a Socket."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def connectionMade(self) -> None:
        self._socket._connected(self.transport, self)

    def dataReceived(self, data: bytes) -> None:
        self._socket._arrived(data)

    def readConnectionLost(self) -> None:
        self._socket._peer_ended()

    def writeConnectionLost(self) -> None:
        """The event `finish` comes with the acknowledgement."""

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self._socket._lost(self.transport, reason)

    def pauseProducing(self) -> None:
        self._socket._full = True

    def resumeProducing(self) -> None:
        self._socket._do_now()
        self._socket._has_room()

    def stopProducing(self) -> None:
        """`connectionLost` comes next."""


class _Attempt(ClientFactory):
    """Connects one Socket."""

    noisy = False

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def buildProtocol(self, addr: Any) -> Stream:
        return Stream(self._socket)

    # a resolver may have the answer ready within the call of `connect`

    def clientNameResolved(self, connector: Any, addresses: list[Any]) -> None:
        self._socket._do_later(self._socket._looked_up, connector.host, addresses)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self._socket._do_later(self._socket._failed, connector.host, reason)


class Server(Handle[ServerEvent]):
    """Accepts connections; its event ``connection`` brings each of them as a ``Socket``."""

    def __init__(
        self,
        listener: Listener | None = None,
        reactor: Any = None,
        *,
        allowHalfOpen: bool = False,
        settings: Settings | None = None,
    ) -> None:
        """``listener`` is called at the event ``connection``; ``allowHalfOpen`` is for the sockets."""
        super().__init__(reactor)
        self.allowHalfOpen = allowHalfOpen
        self.maxConnections: int | None = None
        """Maximum number of open connections; further ones are refused.  None is without limit."""
        self._settings = checked_settings(settings)
        self._port: Any = None  # while listening
        self._looking_up = False  # the name of the host
        self._closing = False  # `close` was called, and its event has not come yet
        self._stopped = False  # the port is closed
        self._sockets: set[Socket] = set()
        self._close_callbacks: list[tuple[Listener, BaseException | None]] = []
        if listener is not None:
            self.on("connection", listener)

    def __repr__(self) -> str:
        here = self.address()
        return f"<{self.__class__.__name__} {'closed' if here is None else f'on {here.address} {here.port}'}>"

    def listen(
        self,
        port: int | Listener = 0,
        host: str | Listener | None = None,
        listener: Listener | None = None,
    ) -> Self:
        """Listen on a UDP port, 0 for a free one; ``listener`` is called at the event ``listening``.

        ``host`` is one of our addresses or its name, ``"::"`` for all of IPv6, and None for all of IPv4.  If it fails,
        the event ``error`` comes, with ``CannotListenError`` if the port is taken; the server may then try again.
        """
        port, listener = left_out(port, 0, listener)
        host, listener = left_out(host, None, listener)
        port, host = checked_port(port, 0), None if host is None else checked_host(host)
        if self._port is not None or self._looking_up or self._closing:
            raise RuntimeError("this server listens already; close it and wait for the event close before")
        if listener is not None:
            self.once("listening", listener)
        self._goes_on()
        if host is None or is_numeric(host):
            self._bind(port, host or "")
        else:
            self._looking_up = True
            self.reactor.resolve(host).addCallback(self._looked_up, port).addErrback(self._failed)
        return self

    def close(self, callback: Listener | None = None) -> Self:
        """Accept no more.  The event ``close`` comes when the last connection has ended, and ``callback(None)``.

        If the server does not listen, the callback gets a RuntimeError.
        """
        listens = self._port is not None or self._looking_up or self._closing
        if callback is not None:
            problem = None if listens else RuntimeError("the server is not running")
            self._close_callbacks.append((checked_listener(callback, "a callback"), problem))
        if not self._closing:
            self._closing = True
            self._stopped = self._looking_up = False
            port, self._port = self._port, None
            if port is None:
                self._do_later(self._has_stopped)
            else:
                defer.maybeDeferred(port.stopListening).addCallback(lambda result: self._do_later(self._has_stopped))
        return self

    def address(self) -> Address | None:
        """Returns the address of a listening server, else None."""
        return None if self._port is None else address_of(self._port.getHost())

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._sockets)

    def getConnections(self, callback: Callable[[Exception | None, int], None]) -> Self:
        """Call ``callback(None, count)`` in a later turn."""
        checked_listener(callback, "a callback")
        self._do_later(lambda: callback(None, self.connections))
        return self

    # -- for coroutines --

    def listening(self) -> Deferred[Self]:
        """Fires with this server when it listens; fails with the reason if it cannot."""
        return self.when("listening").addCallback(lambda result: self) if self._port is None else defer.succeed(self)

    def closed(self) -> Deferred[None]:
        """Fires after the event ``close``; at once if the server does not listen."""
        if self._port is None and not self._looking_up and not self._closing:
            return defer.succeed(None)
        return self.when("close")

    # -- what happens --

    def _looked_up(self, address: str, port: int) -> None:
        if self._looking_up:
            self._looking_up = False
            self._bind(port, address)

    def _bind(self, port: int, interface: str) -> None:
        try:
            self._port = listenUTP(self.reactor, port, _Accepting(self), interface=interface, settings=self._settings)
        except CannotListenError:
            self._failed(Failure())
        else:
            self._do_later(self.emit, "listening")

    def _failed(self, failure: Failure) -> None:
        self._looking_up = False
        self._do_later(self._tell_failure, failure.value)

    def _tell_failure(self, problem: BaseException) -> None:
        self.emit("error", problem)
        if self._port is None and not self._looking_up:
            self._has_ended()

    def _accept(self) -> Stream | None:
        if self.maxConnections is not None and len(self._sockets) >= self.maxConnections:
            return None
        socket = Socket(self.reactor, allowHalfOpen=self.allowHalfOpen)
        socket._server = self
        self._sockets.add(socket)
        return Stream(socket)

    def _forget(self, socket: Socket) -> None:
        self._do_now()
        self._sockets.discard(socket)
        self._look_whether_closed()

    def _has_stopped(self) -> None:
        self._stopped = True
        self._look_whether_closed()
        self._has_ended()

    def _look_whether_closed(self) -> None:
        if self._closing and self._stopped and not self._sockets:
            self._closing = False
            callbacks, self._close_callbacks = self._close_callbacks, []
            for callback, problem in callbacks:
                call_guarded(callback, (problem,)[: arguments_taken(callback)], self)
            self.emit("close")


class _Accepting(Factory):
    """Makes the streams of a Server."""

    noisy = False

    def __init__(self, server: Server) -> None:
        self._server = server

    def buildProtocol(self, addr: Any) -> Stream | None:
        return self._server._accept()


def connect(
    port: int,
    host: str | Listener = "localhost",
    listener: Listener | None = None,
    *,
    reactor: Any = None,
    allowHalfOpen: bool = False,
    settings: Settings | None = None,
) -> Socket:
    """Returns a new Socket that connects; see ``Socket`` and its ``connect``."""
    return Socket(reactor, allowHalfOpen=allowHalfOpen, settings=settings).connect(port, host, listener)


createConnection = connect


def createServer(
    listener: Listener | None = None,
    *,
    reactor: Any = None,
    allowHalfOpen: bool = False,
    settings: Settings | None = None,
) -> Server:
    """Returns a new Server that does not listen yet; see ``Server``."""
    return Server(listener, reactor, allowHalfOpen=allowHalfOpen, settings=settings)
