"""Admission: the limits on the connections of a UDP port, and which connections are evicted when a limit is reached.

The multiplexer calls it for every connection that begins and ends.  ``place_for_syn`` decides whether a SYN gets a
half-open connection or a cookie (``cookies.py``).  A SYN with a cookie needs a place only when its source is proven;
``make_room`` finds it then.

Two kinds of connections are evicted: half-open ones, the oldest first, because a flood of forged SYNs may not use up
the places of connections; and those whose peer has been silent for longer than keepalives allow, the longest-silent
first.
"""

from __future__ import annotations

from collections.abc import Callable

from txutp.core.connection import Connection
from txutp.core.settings import Settings
from txutp.core.states import CONNECTED, TIMED_OUT
from txutp.core.tombstones import Key
from txutp.core.units import SECOND_US

# Keepalive intervals of silence after which a connection may be evicted.  A peer that answers probes was given up by
# then, and most others send keepalives of their own.
SILENT_INTERVALS = 3

# Time between two searches for silent connections, each of which examines all connections.
SEARCH_US = SECOND_US


# The verdicts of ``place_for_syn``.
REMEMBER, COOKIE, REFUSE = range(3)


class ConnectionRefused(Exception):
    """No further connection is allowed; the text says which limit was reached."""


class Admission:
    """The places of one UDP port."""

    def __init__(self, connections: dict[Key, Connection], evict: Callable[[Connection], None]) -> None:
        """``connections`` is the port's own dictionary of all connections; ``evict`` removes one from it."""
        self.half_open: dict[Connection, None] = {}  # in order of age
        self._connections = connections
        self._evict = evict
        self._per_host: dict[str, int] = {}
        self._kept = 0  # places of connections that have ended with unread data
        self._half_open_per_host: dict[str, dict[Connection, None]] = {}
        self._silent: list[Connection] = []  # found by the last search, the longest-silent at the end
        self._searched_us = -SEARCH_US

    # -- coming and going --

    def add(self, connection: Connection, is_half_open: bool = False) -> None:
        """A connection takes a place."""
        host = connection.address[0]
        self._count(host, 1)
        if is_half_open:
            self.half_open[connection] = None
            self._half_open_per_host.setdefault(host, {})[connection] = None

    def remove(self, connection: Connection) -> None:
        """A connection gives its place back."""
        self._count(connection.address[0], -1)
        self.confirm(connection)

    def keep(self, connection: Connection) -> None:
        """A connection that was removed keeps its place, because its reader has not taken all data."""
        self._count(connection.address[0], 1)
        self._kept += 1

    def release(self, connection: Connection) -> None:
        """A connection that kept its place gives it back."""
        self._count(connection.address[0], -1)
        self._kept -= 1

    def _count(self, host: str, change: int) -> None:
        count = self._per_host.get(host, 0) + change
        if count:
            self._per_host[host] = count
        else:
            del self._per_host[host]

    def confirm(self, connection: Connection) -> None:
        """A connection is not half-open any more."""
        if connection in self.half_open:
            host = connection.address[0]
            del self.half_open[connection]
            of_host = self._half_open_per_host[host]
            del of_host[connection]
            if not of_host:
                del self._half_open_per_host[host]

    # -- room --

    def place_for_syn(self, host: str, settings: Settings, now_us: int) -> int:
        """Decide about a SYN; returns ``REMEMBER`` (after making room), ``COOKIE`` or ``REFUSE``."""
        reached = self._limit_reached(host, settings)
        giving_way = None if reached is None else self._who_gives_way(reached, host, now_us)
        if reached is not None and giving_way is None:
            return REFUSE
        if (
            len(self.half_open) >= settings.maximum_half_open
            or len(self._half_open_per_host.get(host, ())) >= settings.maximum_half_open_per_address
        ):
            return COOKIE
        if giving_way is not None:
            if giving_way not in self.half_open:
                return COOKIE  # a proven connection is not evicted for a SYN
            try:
                self.make_room(host, settings, now_us)
            except ConnectionRefused:
                return REFUSE  # limits that were lowered: more than one connection would have to go
        return REMEMBER

    def make_room(self, host: str, settings: Settings, now_us: int) -> None:
        """Evict connections until one more is within the limits; raises ``ConnectionRefused`` if that is impossible."""
        while (reached := self._limit_reached(host, settings)) is not None:
            connection = self._who_gives_way(reached, host, now_us)
            if connection is None:
                raise ConnectionRefused(f"{reached} is {getattr(settings, reached)}")
            self._evict(connection)

    def _limit_reached(self, host: str, settings: Settings) -> str | None:
        """Returns the name of a limit that forbids one more connection; None if there is none.

        That of the host comes first: what gives way to it is a place of the port as well, and no connection of another
        host goes in vain.
        """
        if self._per_host.get(host, 0) >= settings.maximum_connections_per_address:
            return "maximum_connections_per_address"
        if len(self._connections) + self._kept >= settings.maximum_connections:
            return "maximum_connections"
        return None

    def _who_gives_way(self, reached: str, host: str, now_us: int) -> Connection | None:
        only_host = None if reached == "maximum_connections" else host
        half_open = self.half_open if only_host is None else self._half_open_per_host.get(host, {})
        for connection in half_open:
            return connection
        found = self._longest_silent(only_host, now_us)
        if found is None and now_us >= self._searched_us + SEARCH_US:
            self._searched_us = now_us
            self._silent = [connection for connection in self._connections.values() if is_silent(connection, now_us)]
            self._silent.sort(key=lambda connection: -connection.heard_us)
            found = self._longest_silent(only_host, now_us)
        return found

    def _longest_silent(self, only_host: str | None, now_us: int) -> Connection | None:
        """Returns the longest-silent connection that the last search found; None if none is silent any more."""
        silent = self._silent
        for place in reversed(range(len(silent))):
            connection = silent[place]
            if not is_silent(connection, now_us):
                del silent[place]
            elif only_host is None or connection.address[0] == only_host:
                return connection
        return None


def is_silent(connection: Connection, now_us: int) -> bool:
    """Whether the peer of a connection has been silent for longer than keepalives allow.

    A connection with unread data does not count: evicted, it would keep its place and its memory.
    """
    keepalive_us = connection.keepalive_us
    return (
        keepalive_us is not None
        and connection.state == CONNECTED
        and not connection.receiving.ready_bytes
        and now_us > connection.heard_us + SILENT_INTERVALS * keepalive_us
    )


def end_silent(connection: Connection) -> None:
    """End an evicted connection; its owner hears that the peer does not answer."""
    connection.abort(TIMED_OUT)
