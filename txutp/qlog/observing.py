"""Watches the datagrams of one UDP port on both sides of its connections, while a trace is on.

A port that is traced has another class of multiplexer and a wrapper around its socket; both go again with the last
trace.  So the code of a port that is not traced has no hook that could cost anything.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.logger import Logger

from txutp.core.batch import Address, Batch
from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import ST_RESET, ST_SYN, is_utp_untrusted
from txutp.core.sequence import MASK16
from txutp.core.tracing import ConnectionTrace, Event
from txutp.endpoints import host_and_port
from txutp.protocol import UTPProtocol
from txutp.qlog.files import QlogFile
from txutp.udp.ports import twisted_address

Result = TypeVar("Result")


class Sink:
    """A file, and the connection that it is about; None for all connections of the ports that write to it."""

    def __init__(self, file: QlogFile, only: Connection | None, begun_us: int) -> None:
        self.file = file
        self.only = only
        self.on_end: Callable[[], None] | None = None  # called when that connection has ended
        self._begun_us = self._last_us = begun_us
        self._groups: dict[Connection, str] = {}

    def write(self, connection: Connection, events: Iterable[Event], now_us: int) -> None:
        """Append events of a connection."""
        group = self._groups.get(connection)
        if group is None:
            where = twisted_address(connection.address)
            peer = host_and_port(where.host, where.port)
            group = self._groups[connection] = f"{self.file.next_group()} {peer}"
        # A packet has the time of its arrival, but its connection may have done something else until it was its turn.
        self._last_us = max(self._last_us, now_us)
        self.file.write((self._last_us - self._begun_us) / 1_000, group, events)

    def forget(self, connection: Connection) -> None:
        """The connection has ended."""
        self._groups.pop(connection, None)
        if connection is self.only and self.on_end is not None:
            self.on_end()


class Traced:
    """One connection, and where its events go."""

    _log = Logger()

    def __init__(self, connection: Connection, sinks: list[Sink]) -> None:
        self.trace: ConnectionTrace = ConnectionTrace(connection)
        self.sinks = sinks
        self._has_failed = False

    def write(self, events: Iterable[Event], now_us: int) -> None:
        """Append events to all files of the connection.

        A congestion controller of the application is asked for its figures, and may raise: that ends the trace of this
        connection, and never the connection.
        """
        if self._has_failed:
            return
        try:
            collected = list(events)
        except Exception:
            self._has_failed = True
            self._log.failure("the trace of {connection} raised", connection=self.trace.connection)
            return
        if collected:
            for sink in self.sinks:
                sink.write(self.trace.connection, collected, now_us)


class ObservedMultiplexer(Multiplexer):
    """The multiplexer of a port that is traced; ``Observer`` makes a ``Multiplexer`` one, and back."""

    observer: Observer

    def receive(self, data: bytes, address: Address, now_us: int) -> bool:
        receive = super().receive
        if self.observer.busy:
            return receive(data, address, now_us)
        return self.observer.on_received([data], address, now_us, lambda: receive(data, address, now_us))

    def receive_joined(self, data: bytes, stride: int, address: Address, now_us: int) -> list[bytes]:
        receive_joined = super().receive_joined
        datagrams = [data[start : start + stride] for start in range(0, len(data), stride)]
        return self.observer.on_received(
            datagrams, address, now_us, lambda: receive_joined(data, stride, address, now_us)
        )

    def handle_timeouts(self, now_us: int) -> None:
        observer = self.observer  # whatever ends meanwhile may be the last that is traced
        super().handle_timeouts(now_us)
        observer.on_timeouts(self.touched, now_us)

    def _remove(self, connection: Connection) -> None:
        observer = self.observer
        super()._remove(connection)
        observer.on_removed(connection)


class ObservedPort:
    """The socket of a port that is traced: an ``IBatchPort`` that shows what it has sent."""

    def __init__(self, port: Any, observer: Observer) -> None:
        self.unobserved = port
        self._observer = observer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unobserved, name)

    def send_batch(self, batch: Batch) -> int:
        """Send, and say how much of it has left."""
        try:
            accepted: int = self.unobserved.send_batch(batch)
        except OSError as problem:
            self._observer.on_failed(batch, problem)
            raise
        self._observer.on_sent(batch, accepted)
        return accepted


class Observer:
    """Turns what one UDP port does into events."""

    def __init__(self, utp: UTPProtocol) -> None:
        self._utp = utp
        self._sinks: list[Sink] = []
        self._traced: dict[Connection, Traced] = {}
        self.busy: bool = False  # a run is being received, of which each datagram may be received again alone

    @classmethod
    def of(cls, utp: UTPProtocol) -> Observer:
        """Returns the one of a port, which is made if need be."""
        multiplexer = utp.multiplexer
        if isinstance(multiplexer, ObservedMultiplexer):
            return multiplexer.observer
        observer = cls(utp)
        multiplexer.__class__ = ObservedMultiplexer
        assert isinstance(multiplexer, ObservedMultiplexer)
        multiplexer.observer = observer
        utp._outbox.port = ObservedPort(utp.port, observer)
        return observer

    def add(self, sink: Sink) -> None:
        """Let events go to one more file."""
        now_us = self._utp.now_us()
        self._sinks.append(sink)
        for connection in [sink.only] if sink.only is not None else self._utp.multiplexer:
            traced = self._traced.get(connection)
            if traced is None:
                self._begin(connection, now_us)
            else:
                traced.sinks.append(sink)
                sink.write(connection, traced.trace.begin(self._source), now_us)

    def remove(self, sink: Sink) -> None:
        """Let no more events go to a file; with the last one everything is as if nothing had been traced."""
        self._sinks.remove(sink)
        for connection, traced in list(self._traced.items()):
            if sink in traced.sinks:
                traced.sinks.remove(sink)
            if not traced.sinks:
                del self._traced[connection]
        if not self._sinks:
            multiplexer = self._utp.multiplexer
            del multiplexer.observer  # type: ignore[attr-defined]
            multiplexer.__class__ = Multiplexer
            if isinstance(self._utp.port, ObservedPort):
                self._utp._outbox.port = self._utp.port.unobserved

    # -- what happens --

    def on_received(
        self, datagrams: list[bytes], address: Address, now_us: int, receive: Callable[[], Result]
    ) -> Result:
        """Datagrams have come from one address; ``receive`` lets the multiplexer have them."""
        # Datagrams that the kernel has joined may be for several connections of one peer.
        before = [self._receiver_of(datagram, address) for datagram in datagrams]
        self.busy = True
        try:
            result = receive()
        finally:
            self.busy = False
        receivers: dict[Traced, None] = {}
        for datagram, known in zip(datagrams, before, strict=True):
            # A SYN makes a connection, and may take the place of another one.
            connection = known if known in self._traced else self._receiver_of(datagram, address)
            traced = None if connection is None else self._traced_of(connection, now_us)
            if traced is not None:
                traced.write(traced.trace.received(datagram), now_us)
                receivers[traced] = None
        for traced in receivers:
            traced.write(traced.trace.changed(now_us), now_us)
        return result

    def on_sent(self, batch: Batch, accepted: int) -> None:
        """The socket has taken the first ``accepted`` datagrams of a batch."""
        now_us = self._utp.now_us()
        senders: dict[Traced, None] = {}
        for number, datagram in enumerate(batch.datagrams()):
            if number >= accepted:
                break
            traced = self._sender_of(datagram, batch.address, now_us)
            if traced is not None:
                traced.write(traced.trace.sent(datagram), now_us)
                senders[traced] = None
        for traced in senders:
            traced.write(traced.trace.changed(now_us), now_us)

    def on_failed(self, batch: Batch, problem: OSError) -> None:
        """The system refused a batch."""
        now_us = self._utp.now_us()
        reason = errno.errorcode.get(problem.errno or 0, str(problem))
        counts: dict[Traced, int] = {}
        for datagram in batch.datagrams():
            traced = self._sender_of(datagram, batch.address, now_us)
            if traced is not None:
                counts[traced] = counts.get(traced, 0) + 1
        for traced, count in counts.items():
            traced.write(traced.trace.not_sent(count, reason), now_us)

    def on_timeouts(self, connections: list[Connection], now_us: int) -> None:
        """Deadlines have passed; these connections may have changed."""
        for connection in connections:
            traced = self._traced.get(connection)
            if traced is not None:
                traced.write(traced.trace.changed(now_us, by_timeout=True), now_us)

    def on_removed(self, connection: Connection) -> None:
        """A connection is no longer the port's."""
        traced = self._traced.pop(connection, None)
        if traced is not None:
            now_us = self._utp.now_us()
            traced.write(traced.trace.end(now_us), now_us)
            for sink in list(traced.sinks):
                sink.forget(connection)

    # -- whose --

    @property
    def _source(self) -> tuple[str, int]:
        address = self._utp.port_address
        return address.host, address.port

    def _begin(self, connection: Connection, now_us: int) -> Traced | None:
        """Trace a connection from now on, if a file is about it."""
        sinks = [sink for sink in self._sinks if sink.only in (None, connection)]
        if not sinks:
            return None
        traced = self._traced[connection] = Traced(connection, sinks)
        traced.write(traced.trace.begin(self._source), now_us)
        return traced

    def _traced_of(self, connection: Connection, now_us: int) -> Traced | None:
        return self._traced.get(connection) or self._begin(connection, now_us)

    def _sender_of(self, datagram: bytes, address: Address, now_us: int) -> Traced | None:
        connection = self._utp.multiplexer.sender_of(datagram, address)
        return None if connection is None else self._traced_of(connection, now_us)

    def _receiver_of(self, datagram: bytes, address: Address) -> Connection | None:
        """The connection for which a datagram has come, if there is one."""
        if not is_utp_untrusted(datagram):
            return None
        multiplexer = self._utp.multiplexer
        kind = datagram[0] >> 4
        if kind == ST_RESET:
            return multiplexer.sender_of(datagram, address)  # it names the connection by either id
        connection_id = datagram[2] << 8 | datagram[3]
        return multiplexer.receiver_of(connection_id + 1 & MASK16 if kind == ST_SYN else connection_id, address)
