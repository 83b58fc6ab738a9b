"""The middle of the house: socket events, the multiplexer, one timer, and ``settle``.

A turn of the reactor goes like this: the port reads what the kernel has and gives it to ``datagrams_received``; when
the socket is drained, ``settle`` looks at each connection that something happened to.  Its transport delivers to the
application, which may write; then the connection's acks and data leave.  So an application sees one ``dataReceived``
and a peer one ack however many datagrams came.

A write outside of such a turn schedules a settle; a timer that fires leads to one.  The events after
``connectionMade`` wait for the next turn (``newcomers.py``).
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txutp.core.admission import ConnectionRefused
from txutp.core.batch import Address, Batch, ip_overhead_bytes
from txutp.core.connection import Connection
from txutp.core.flow import NEVER_US
from txutp.core.multiplexer import Multiplexer
from txutp.core.parts import SmallPaths
from txutp.core.settings import Settings
from txutp.core.states import (
    ABORTED,
    CLOSED,
    CONNECTED,
    DONE,
    FAILED,
    PORT_CLOSED,
    REFUSED_BY_PEER,
    SYN_SENT,
    UNREACHABLE,
)
from txutp.core.units import SECOND_US
from txutp.environment import environment_of
from txutp.newcomers import Newcomers
from txutp.openports import open_ports_of
from txutp.silence import Silence
from txutp.timers import Timer, timers_of
from txutp.udp.joiner import RunJoiner
from txutp.udp.outbox import Outbox
from txutp.udp.ports import PAYLOAD_SHARE, batch_port_of, socket_address
from txutp.udp.sources import Senders

# The application may answer each delivery with a write, and each sending may let a producer write more.  After so
# many rounds the reactor gets a turn.
ROUNDS = 32

# Reading may rest only after so many turns in which nobody waited for an answer.
BULK_DRAINS = 16

# How long the UDP port of a server that stops waits for those that it has answered and not heard of again.
LAST_PROOFS_US = 200_000

# How long a stopping reactor waits for what was written before loseConnection.
SHUTDOWN_SECONDS = 5.0


class UTPProtocol(DatagramProtocol):
    """uTP on a UDP port.  ``reactor.listenUDP(6881, UTPProtocol(reactor))`` works; ``listenUTP`` makes a faster port.

    ``accept(connection)`` is called with each incoming connection that has proved its source; it sets
    ``connection.owner`` to an object with ``settle()``, and with ``refill()`` that is called while it is ``hungry``.
    ``foreign_datagram_received(data, address)`` gets every datagram that is not uTP.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        settings: Settings | None = None,
        accept: Callable[[Connection], None] | None = None,
        foreign_datagram_received: Callable[[bytes, Address], None] | None = None,
        prefix: str = "",
        lasting: bool = True,
        shared: bool = False,
    ) -> None:
        """Without ``lasting`` the UDP port closes with the last connection; a ``shared`` one in the turn after that."""
        self.reactor = reactor
        self.settings: Settings = Settings() if settings is None else settings
        self.accept = accept
        self.foreign_datagram_received = foreign_datagram_received
        self._prefix = prefix
        environment = environment_of(reactor)
        self.now_us: Callable[[], int] = environment.monotonic_us
        self._call_later: Callable[..., Timer] = timers_of(reactor).call_later
        self.multiplexer: Multiplexer = Multiplexer(self.settings, environment.random_bytes, self._link_mtu)
        self.multiplexer.small_paths = small_paths_of(reactor)
        self.multiplexer.listening = accept is not None
        if accept is not None:
            self.limit_rate(self.settings.up_bytes_per_second, self.settings.down_bytes_per_second)
        self._outbox = Outbox(self.multiplexer, self.now_us)
        self._silence = Silence(self.multiplexer)
        self._senders = Senders()  # of datagrams that are not uTP
        self._newcomers = Newcomers(reactor, self.multiplexer, self.settle)
        self.port_address: Any = None  # what it is bound to; kept when it is gone
        self._joiner = RunJoiner(self.datagrams_received)
        self._settling = False
        self._settle_call: Timer | None = None
        self._timer: Timer | None = None
        self._timer_us = NEVER_US
        self._deadlines_moved = False  # the timer may have to ring sooner, or not at all
        self.on_stopped: Callable[[], None] | None = None  # of a listening port: the UDP port is gone
        self._close_when_empty = not lasting
        self._shared = shared  # clients that begin anew look for this port
        self._closing: Timer | None = None  # looks again whether the port is empty
        self._ended: list[Connection] = []  # nobody was told yet, see _must_stay
        self._busy_with_foreign = False  # whoever closes the port meanwhile has to wait
        self._bulk_drains = 0  # in a row
        self._quiet: list[Deferred[None]] = []
        self._shutdown_trigger: Any = None

    def logPrefix(self) -> str:
        return self._prefix or self.__class__.__name__

    @property
    def port(self) -> Any:
        """The UDP port, as an ``IBatchPort``; None while there is none."""
        return self._outbox.port

    # -- called by the UDP port --

    @property
    def connections(self) -> int:
        return len(self.multiplexer)

    def startProtocol(self) -> None:
        transport: Any = self.transport
        self.port_address = transport.getHost()
        self._outbox.port = batch_port_of(transport, self, self.reactor)
        self._outbox.marking.begin(transport, self.settings, is_ours=False)
        if self.port.granted_receive_bytes:
            self.multiplexer.limit_buffer(int(PAYLOAD_SHARE * self.port.granted_receive_bytes))
        if IReactorCore.providedBy(self.reactor):
            self._shutdown_trigger = self.reactor.addSystemEventTrigger("before", "shutdown", self._before_shutdown)
        open_ports_of(self.reactor).opened(self)

    def stopProtocol(self) -> None:
        """The UDP port is gone: every connection hears it, and no timer is left."""
        self._outbox.port = None
        self._newcomers.release()
        if self._shutdown_trigger is not None:
            self.reactor.removeSystemEventTrigger(self._shutdown_trigger)
            self._shutdown_trigger = None
        for connection in self.multiplexer:
            connection.fail(PORT_CLOSED)
            self.multiplexer.touch(connection)
        self.settle()
        for call in (self._settle_call, self._timer, self._closing):
            if call is not None and call.active():
                call.cancel()
        self._settle_call = self._timer = self._closing = None
        self._check_quiet()
        open_ports_of(self.reactor).closed(self)
        if self.on_stopped is not None:
            self.on_stopped()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """A plain port's datagram.  Such a port does not say when it is drained: the next turn settles."""
        self._joiner.add(datagram, addr)
        self._settle_soon()

    def datagrams_received(self, data: bytes, stride: int, address: Address) -> None:
        """A batch port's datagrams; ``drained`` follows."""
        if not stride:
            if not self.multiplexer.receive(data, address, self.now_us()):
                self._hand_on([data], address)
            return
        foreign = self.multiplexer.receive_joined(data, stride, address, self.now_us())
        if foreign:
            self._hand_on(foreign, address)

    def _hand_on(self, foreign: list[bytes], address: Address) -> None:
        """Datagrams that are not uTP, for the other protocol on the port."""
        remote = self._senders.note(address)
        self._busy_with_foreign = True
        for datagram in foreign:
            # it may be taken away by one of them
            if self.foreign_datagram_received is None:
                break
            try:
                self.foreign_datagram_received(datagram, remote)
            except BaseException:
                self._log.failure("foreign_datagram_received raised")
        self._busy_with_foreign = False

    def drained(self) -> bool:
        """The end of what was to be read; reading may rest if it was nothing but bulk for a while."""
        bulk_drains = 0  # also if nobody is touched: datagrams of another protocol on the port are no bulk
        for connection in self.multiplexer.touched:
            if not connection.is_bulk:
                bulk_drains = 0
                break
            bulk_drains = self._bulk_drains + 1
        self._bulk_drains = bulk_drains
        self.settle()
        return self._bulk_drains > BULK_DRAINS

    def overflowed(self, dropped: int) -> None:
        """Our own kernel dropped datagrams."""
        self.multiplexer.on_overflow(dropped, self.now_us())

    def writable(self) -> None:
        """The socket takes datagrams again: those who were refused go on."""
        self._outbox.writable()
        self.settle()

    def unreachable(
        self, datagram: bytes, address: Address, code: int, path_mtu_bytes: int, from_peer: bool = True
    ) -> None:
        """An ICMP error.  It ends an attempt to connect, unless the settings forbid that.

        A connection that is up believes only what a second error confirms (RFC 5927), see ``core/liveness.py``.
        """
        connection = self.multiplexer.sender_of(datagram, address)
        if connection is None:
            return
        if code == errno.EMSGSIZE:
            connection.path_takes(path_mtu_bytes - ip_overhead_bytes(address))
        elif connection.state != SYN_SENT:
            if code == errno.ECONNREFUSED:
                self.multiplexer.port_is_closed(datagram, address, from_peer, self.now_us())
                if not self._settling:
                    self._settle_soon()
        elif connection.settings.believe_unreachable:
            connection.fail(REFUSED_BY_PEER if code == errno.ECONNREFUSED else UNREACHABLE)
            self.touch(connection)

    def farewell(self) -> None:
        """The socket closes: peers of connections that are still up should not have to find out by themselves."""
        self._outbox.flush()
        self._newcomers.release()
        for connection in self.multiplexer:
            if connection.state == CONNECTED:
                connection.abort(PORT_CLOSED)
                self.multiplexer.touch(connection)
        self.settle()

    # -- called by transports and ports --

    def connect(
        self, address: Address, owner: Any, settings: Settings | None = None, timeout_us: int = NEVER_US
    ) -> Connection:
        """Begin a connection; ``owner.settle()`` is called when it is up, or failed.

        It may have settings of its own.  Raises ``ConnectionRefused`` beyond the limits of the port.
        """
        try:
            connection = self.multiplexer.connect(address, self.now_us(), timeout_us, settings)
        except ConnectionRefused:
            self._check_empty()
            raise
        connection.owner = owner
        self.touch(connection)
        return connection

    def give_up(self, connection: Connection) -> None:
        """Nobody wants this connection any more; its owner hears nothing."""
        connection.owner = None
        if connection.state == CONNECTED:
            connection.abort()
            self.touch(connection)
            return
        connection.fail(ABORTED)
        self.multiplexer.forget(connection, self.now_us())
        self._check_empty()

    def abort(self, connection: Connection) -> None:
        """Close a connection at once.  One that has ended, and stays only to repeat its last ack, goes too."""
        if connection in self._ended:
            self._ended.remove(connection)
            connection.close_reason = ABORTED
        connection.abort()
        self.touch(connection)

    def touch(self, connection: Connection) -> None:
        """Something was asked of a connection: it is settled in this turn if one is under way, else in the next."""
        self.multiplexer.touch(connection)
        if not self._settling:
            self._settle_soon()

    def stop_accepting(self) -> None:
        """No new connections; those that are not confirmed are told so.

        Who was answered already gets no second answer before it has proved its source, for which we wait a moment.
        """
        self.accept = None
        self.multiplexer.listening = False
        for connection in self.multiplexer:
            if connection.accepted or connection.initiator:
                continue
            if connection.segments_sent:
                connection.hurry(self.now_us() + LAST_PROOFS_US)
            else:
                connection.abort(PORT_CLOSED)
            self.touch(connection)

    def accept_again(self, accept: Callable[[Connection], None], settings: Settings) -> None:
        """Somebody listens on a port that connections have kept open; the settings are for new connections."""
        self.accept = accept
        self.settings = settings
        self.multiplexer.change_settings(settings)
        self.limit_rate(settings.up_bytes_per_second, settings.down_bytes_per_second)
        self._outbox.marking.again(self.transport, settings)
        self.multiplexer.listening = True
        self._close_when_empty = self._shared = False
        if self._ended:
            self._settle_soon()

    def limit_rate(self, up: int | None, down: int | None) -> None:
        """Cap the bytes per second that all connections together send and receive; None is without a cap."""
        multiplexer = self.multiplexer
        multiplexer.rates.limit_port(up, down, multiplexer, self.now_us())
        if multiplexer.touched and not self._settling:
            self._settle_soon()

    def limit_connection(self, connection: Connection, up: int | None, down: int | None) -> None:
        """Cap one connection, besides the caps of the port."""
        self.multiplexer.rates.limit(connection, up, down, self.now_us())
        self.touch(connection)

    def mark_as_ours(self) -> None:
        """The UDP port was opened for uTP, so nobody else has chosen how its packets are marked."""
        self._outbox.marking.begin(self.transport, self.settings, is_ours=True)

    def close_when_empty(self) -> None:
        """Close the UDP port with the last connection; at once if there is none."""
        self._close_when_empty = True
        self._check_empty()

    def when_quiet(self, timeout_seconds: float | None = None) -> Deferred[None]:
        """Fires when nothing that was written before a loseConnection is on its way any more.

        Where no more connections are accepted, it waits for those that are not confirmed, too.
        """
        quiet: Deferred[None] = Deferred()
        self._quiet.append(quiet)
        if timeout_seconds is not None:
            timer = self._call_later(timeout_seconds, self._give_up_quiet, quiet)

            def stop_timer(result: None) -> None:
                if timer.active():
                    timer.cancel()

            quiet.addCallback(stop_timer)
        self._check_quiet()
        return quiet

    def send_foreign(self, datagram: bytes, address: Address) -> None:
        """Send a datagram that is not uTP, from where its receiver has sent to last.

        It is lost if the socket is full; a network error raises ``OSError``.
        """
        self._outbox.send(Batch(self._senders.answer(socket_address(address)), [datagram], 1, len(datagram)))

    # -- settle --

    def settle(self) -> None:
        """Let every touched connection deliver and send.

        Whatever raises meanwhile is logged, and ends the connection for which it was called, and no other.  That
        includes SystemExit: the reactor would log it, too, but close the whole UDP port.
        """
        if self._settling:
            return
        self._settling = True
        multiplexer = self.multiplexer
        newcomers = self._newcomers
        try:
            for _ in range(ROUNDS):
                touched = multiplexer.touched
                if not touched:
                    break
                multiplexer.touched = []
                if newcomers.of_this_turn:
                    touched = newcomers.put_off(touched)
                self._outbox.begin_round(len(touched))
                for connection in touched:
                    try:
                        self._settle_connection(connection)
                    except BaseException:
                        self._failed(connection)
                self._outbox.flush()
        finally:
            self._settling = False
        if newcomers.of_this_turn:
            newcomers.end_turn()
        if multiplexer.failures:
            self._log_failures()
        if self._ended and not self._must_stay():
            self._tell_ends()
        if multiplexer.touched:
            self._settle_soon()
        if multiplexer.replies:
            self._send_replies()
        if self._timer is None or self._deadlines_moved:
            self._set_timer()
        if self._quiet:
            self._check_quiet()
        if self._close_when_empty and not len(multiplexer):
            self._check_empty()

    def _settle_connection(self, connection: Connection) -> None:
        # a proven newcomer is handed over, although it may have ended in this very turn; its SYN does not count
        if not connection.accepted and connection.segments_received:
            connection.accepted = True
            if self._newcomers.hand_over(connection, self.accept):
                return
        owner = connection.owner

        # to the application; what it asks for meanwhile is done below, so it needs no other round
        if owner is not None and connection.state != CLOSED:
            owner.settle()
        connection.touched = False
        if connection.state != CLOSED:
            if connection.receiving.ready_bytes:
                connection.receiving.charge()  # its reader is paused
            self._outbox.transmit(connection, owner)
            if connection.deadline_us < connection.scheduled_us:
                self.multiplexer.schedule(connection)
                self._deadlines_moved = True
            return

        # the last words, then the application hears the end
        self._outbox.transmit(connection, None)
        self.multiplexer.forget(connection, self.now_us())
        self._deadlines_moved = True
        if owner is None or connection in self._ended:
            return
        if connection.close_reason == DONE and self._must_stay():
            self._ended.append(connection)
        else:
            self._check_empty()
            connection.owner = None
            owner.settle()

    def _must_stay(self) -> bool:
        """Whether the UDP port has nobody left, and cannot go yet because a last ack may have been lost.

        Nobody may hear of the last end before the port can go, so that nothing is left when a program thinks so.
        """
        return (
            self._close_when_empty
            and self.port is not None
            and not len(self.multiplexer)
            and self.now_us() < self.multiplexer.needed_until_us
        )

    def _tell_ends(self) -> None:
        ended, self._ended = self._ended, []
        self._check_empty()
        for connection in ended:
            owner, connection.owner = connection.owner, None
            self._tell_end(connection, owner)

    def _tell_end(self, connection: Connection, owner: Any) -> None:
        try:
            owner.settle()
        except BaseException:
            self._log.failure("{connection} raised", connection=connection)

    def _failed(self, connection: Connection) -> None:
        """Something raised while a connection was settled: it ends, and its owner hears that."""
        self._log.failure("{connection} raised", connection=connection)
        connection.touched = False
        if connection.state != CLOSED:
            connection.abort(FAILED)
            self.multiplexer.touch(connection)
            return
        # so did its last words, or its owner when it heard the end
        self.multiplexer.forget(connection, self.now_us())
        self._deadlines_moved = True
        owner, connection.owner = connection.owner, None
        if owner is not None and connection not in self._ended:
            self._tell_end(connection, owner)
        self._check_empty()

    def _log_failures(self) -> None:
        """What raised in the core, which does not log."""
        failures, self.multiplexer.failures = self.multiplexer.failures, []
        for problem in failures:
            self._log.failure("a congestion controller raised", failure=Failure(problem))

    def _send_replies(self) -> None:
        """Single packets for strangers; what the socket does not take they will ask for again."""
        replies = self.multiplexer.replies
        while replies:
            batch = replies.popleft()
            with suppress(OSError):
                self._outbox.send(batch)

    def _link_mtu(self, address: Address) -> int | None:
        return None if self.port is None else self.port.link_mtu_bytes(address)

    def _settle_soon(self) -> None:
        if self._settle_call is None and self.port is not None:
            self._settle_call = self._call_later(0, self._settle_now)

    def _settle_now(self) -> None:
        self._settle_call = None
        self._joiner.flush()
        self.settle()

    # -- timer --

    def _set_timer(self) -> None:
        """One reactor timer for the port.  Moving it to a later time is left to the moment when it fires."""
        self._deadlines_moved = False
        deadline_us = self.multiplexer.needed_until_us if self._ended else self.multiplexer.next_deadline_us()
        # without any deadline it may ring once more for nothing: the next connection comes sooner in most cases
        if deadline_us is None or self.port is None:
            return
        timer = self._timer
        if timer is not None:
            if deadline_us >= self._timer_us:
                return
            timer.cancel()
        self._timer_us = deadline_us
        wait_us = max(deadline_us - self.now_us(), 0)
        self._timer = self._call_later(wait_us / SECOND_US, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._joiner.flush()
        if self._silence.must_be_read(self.port, self.now_us(), judges=bool(self._ended)):
            self._timer = self._call_later(0, self._on_timer)
            return
        self.multiplexer.handle_timeouts(self.now_us())
        self.settle()

    # -- the end --

    def _check_empty(self) -> None:
        """Close the port if nobody is left.

        A shared one stays until the next turn: opening another costs as much as two connections, and a client that
        connects again when its last connection has ended finds this one.
        """
        if not self._is_empty:
            return
        if not self._shared:
            self._close()
        elif not self._settling and self._closing is None:
            self._closing = self._call_later(0, self._close_if_empty)

    def _close_if_empty(self) -> None:
        self._closing = None
        if self._is_empty:
            self._close()

    @property
    def _is_empty(self) -> bool:
        """Whether the port shall close with the last connection, and nobody is left, or has to be told anything."""
        return (
            self._close_when_empty
            and self.port is not None
            and not len(self.multiplexer)
            and not self._ended
            and not self._busy_with_foreign
        )

    def _close(self) -> None:
        self._close_when_empty = False
        self._outbox.flush()
        self._send_replies()
        # nobody may begin anything on a port that is on its way out
        port, self._outbox.port = self.port, None
        port.close()

    def _check_quiet(self) -> None:
        if not self._quiet:
            return
        if self.port is not None:
            multiplexer = self.multiplexer
            if self._ended or any(connection.closing for connection in multiplexer):
                return
            if self.accept is None and multiplexer.half_open:
                return
        quiet, self._quiet = self._quiet, []
        for waiting in quiet:
            waiting.callback(None)

    def _before_shutdown(self) -> Deferred[None]:
        self._shutdown_trigger = None  # it fires once, and cannot be removed any more
        return self.when_quiet(SHUTDOWN_SECONDS)

    def _give_up_quiet(self, quiet: Deferred[None]) -> None:
        if quiet in self._quiet:
            self._quiet.remove(quiet)
            quiet.callback(None)


def small_paths_of(reactor: Any) -> SmallPaths:
    """What is known of paths that swallow large packets; of a reactor, because a client's port ends with its client."""
    found = getattr(reactor, "_txutp_small_paths", None)
    if not isinstance(found, SmallPaths):
        found = reactor._txutp_small_paths = SmallPaths()
    return found
