"""Which rate caps there are on a port: its own, which all connections share, and those of single connections.

``Multiplexer`` has one ``Rates``.  A connection without any cap has neither ``sending.cap`` nor ``intake``, and that is
all it costs.  ``caps.py`` has the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from txutp.core.batch import ip_overhead_bytes
from txutp.core.caps import Pool, SendCap
from txutp.core.connection import Connection
from txutp.core.intake import Intake
from txutp.core.settings import Settings


class Rates:
    """The caps of one port; rates are bytes per second, None is without a cap."""

    __slots__ = ("_touch", "down", "up")

    def __init__(self, touch: Callable[[Connection], None]) -> None:
        self._touch = touch
        self.up: Pool | None = None
        self.down: Pool | None = None

    def limit_port(self, up: int | None, down: int | None, connections: Iterable[Connection], now_us: int) -> None:
        """Cap what all connections together send and receive."""
        self.up = changed(self.up, up, now_us)
        self.down = changed(self.down, down, now_us)
        for connection in connections:
            self._apply(connection, *own_pools(connection), now_us)

    def limit(self, connection: Connection, up: int | None, down: int | None, now_us: int) -> None:
        """Cap what one connection sends and receives, besides the caps of the port."""
        own_up, own_down = own_pools(connection)
        self._apply(connection, changed(own_up, up, now_us), changed(own_down, down, now_us), now_us)

    def begin(self, connection: Connection, settings: Settings, is_client: bool, now_us: int) -> None:
        """A new connection: the caps of the settings are its own if they are those of a client, else of the port."""
        up, down = settings.connection_up_bytes_per_second, settings.connection_down_bytes_per_second
        if is_client:
            up = lower(up, settings.up_bytes_per_second)
            down = lower(down, settings.down_bytes_per_second)
        if up is not None or down is not None or self.up is not None or self.down is not None:
            self._apply(connection, changed(None, up, now_us), changed(None, down, now_us), now_us)

    def end(self, connection: Connection) -> None:
        """A connection waits for nothing any more."""
        if connection.sending.cap is not None:
            connection.sending.cap.leave()
        if connection.intake is not None:
            connection.intake.leave()

    def _apply(self, connection: Connection, own_up: Pool | None, own_down: Pool | None, now_us: int) -> None:
        self._apply_up(connection, own_up, self.up)
        self._apply_down(connection, own_down, self.down, now_us)

    def _apply_up(self, connection: Connection, own: Pool | None, shared: Pool | None) -> None:
        sending = connection.sending
        cap = sending.cap
        if own is None and shared is None:
            if cap is None:
                return
            cap.leave()
            sending.cap = None
            sending.set_datagram_bytes(cap.path_datagram_bytes)
        else:
            if cap is None:

                def on_turn(now_us: int) -> None:
                    self._touch(connection)

                overhead_bytes = ip_overhead_bytes(connection.address)
                cap = sending.cap = SendCap(overhead_bytes, on_turn, sending.datagram_bytes)
            cap.draw_on(own, shared)
            sending.set_datagram_bytes(cap.path_datagram_bytes)
        self._touch(connection)

    def _apply_down(self, connection: Connection, own: Pool | None, shared: Pool | None, now_us: int) -> None:
        intake = connection.intake
        if own is None and shared is None:
            if intake is not None:
                intake.leave()
                connection.intake = None
                connection.tell_window(until_heard=True)
            return
        if intake is None:
            intake = connection.intake = Intake(connection, ip_overhead_bytes(connection.address))
            # a peer that knows a larger window has to hear of this one
            connection.tell_window(until_heard=True)
        intake.cap.draw_on(own, shared)
        intake.ask(now_us)


def own_pools(connection: Connection) -> tuple[Pool | None, Pool | None]:
    """The caps that a connection has for itself, on what it sends and on what it receives."""
    cap, intake = connection.sending.cap, connection.intake
    return None if cap is None else cap.own, None if intake is None else intake.cap.own


def changed(pool: Pool | None, bytes_per_second: int | None, now_us: int) -> Pool | None:
    """A pool with another rate; None without a cap."""
    if bytes_per_second is None:
        return None
    if pool is None:
        return Pool(bytes_per_second, now_us)
    pool.change(bytes_per_second, now_us)
    return pool


def lower(first: int | None, second: int | None) -> int | None:
    """The lower of two caps, of which either may be None."""
    return first if second is None else second if first is None else min(first, second)
