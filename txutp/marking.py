"""How what leaves a UDP port is marked for the routers on its way (DSCP, RFC 2474).

The socket has one mark, which is that of whoever opened it or listens there.  A connection that wants another one, as a
client that leaves from the port of a server may, gets it datagram by datagram.  A socket that was adopted keeps the
mark that it has, unless the settings say one.
"""

from __future__ import annotations

from typing import Any

from txutp.core.connection import Connection
from txutp.core.dscp import LOWER_EFFORT
from txutp.core.settings import Settings
from txutp.options import set_dscp


class Marking:
    """The marks of one UDP port."""

    def __init__(self) -> None:
        # Before somebody says what the socket is: it is left alone.
        self._usual: Any = None  # of connections whose settings say nothing; None: as the socket has it
        self._of_socket: Any = None  # None: not known

    def begin(self, transport: Any, settings: Settings, is_ours: bool) -> None:
        """A socket was opened; ``is_ours`` if nobody else has set its options."""
        self._usual = LOWER_EFFORT if is_ours else None
        self._set(transport, settings)

    def again(self, transport: Any, settings: Settings) -> None:
        """Somebody listens there with other settings."""
        self._set(transport, settings)

    def _set(self, transport: Any, settings: Settings) -> None:
        wanted: Any = self._usual if settings.dscp is None else settings.dscp
        if wanted is not None and hasattr(transport, "getHandle"):
            set_dscp(transport.getHandle(), wanted)
            self._of_socket = wanted

    def of(self, connection: Connection) -> int | None:
        """What the datagrams of a connection have to say; None if the socket says it."""
        wanted: Any = connection.settings.dscp
        if wanted is None:
            wanted = self._usual
        return None if wanted == self._of_socket else wanted
