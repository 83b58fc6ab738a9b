"""The mark on the packets of a UDP port, for the routers on their way (DSCP, RFC 2474).

The socket has one mark, that of the server or client that opened it.  A connection with another mark, a client on the
port of a server for instance, sends it with each datagram.  An adopted socket keeps its mark, unless the settings have
one.
"""

from __future__ import annotations

from typing import Any

from txutp.core.connection import Connection
from txutp.core.dscp import LOWER_EFFORT
from txutp.core.settings import Settings
from txutp.udp.options import set_dscp


class Marking:
    """The marks of one UDP port."""

    def __init__(self) -> None:
        # Until ``begin`` the socket is left alone.
        self._usual: Any = None  # of connections whose settings say nothing; None: as the socket has it
        self._of_socket: Any = None  # None: not known
        self.settings: Settings | None = None  # the socket marks what is sent with these

    def begin(self, transport: Any, settings: Settings, is_ours: bool) -> None:
        """A socket was opened; ``is_ours`` unless it was adopted, with options that its owner has set."""
        self._usual = LOWER_EFFORT if is_ours else None
        self._set(transport, settings)

    def again(self, transport: Any, settings: Settings) -> None:
        """Take the settings of a server that listens on the port now."""
        self._set(transport, settings)

    def _set(self, transport: Any, settings: Settings) -> None:
        wanted: Any = self._usual if settings.dscp is None else settings.dscp
        if wanted is not None and hasattr(transport, "getHandle"):
            set_dscp(transport.getHandle(), wanted)
            self._of_socket = wanted
        self.settings = settings

    def of(self, connection: Connection) -> int | None:
        """What the datagrams of a connection have to say; None if the socket says it."""
        wanted: Any = connection.settings.dscp
        if wanted is None:
            wanted = self._usual
        return None if wanted == self._of_socket else wanted
