"""uTP ports and transports that call their addresses TCP, as programs for TCP expect.

Such programs compare ``getHost()`` with an ``IPv4Address("TCP", ...)``, or print its type.  What the addresses hide is
no secret: ``txutp.speaks_utp(transport)`` is true of these transports, too.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from txutp.client import UTPClientTransport, UTPConnector
from txutp.core.connection import Connection
from txutp.port import UTPPort, UTPServerTransport
from txutp.rebinding.counts import Counts
from txutp.udp.ports import twisted_address


def as_tcp(address: Any) -> Any:
    """Returns an address with the type "TCP" instead of "UDP"; None stays None."""
    if isinstance(address, IPv6Address):
        return IPv6Address("TCP", address.host, address.port, address.flowInfo, address.scopeID)
    return address if address is None else IPv4Address("TCP", address.host, address.port)


class PosingServerTransport(UTPServerTransport):
    """The transport of an accepted connection."""

    def getPeer(self) -> Any:
        """The remote address, as one of TCP."""
        return as_tcp(super().getPeer())

    def getHost(self) -> Any:
        """Our address, as one of TCP."""
        return as_tcp(super().getHost())


class PosingClientTransport(UTPClientTransport):
    """The transport of an outgoing connection."""

    def getPeer(self) -> Any:
        """The remote address, as one of TCP."""
        return as_tcp(super().getPeer())

    def getHost(self) -> Any:
        """Our address, as one of TCP."""
        return as_tcp(super().getHost())


class PosingPort(UTPPort):
    """A listening port."""

    counts: Counts

    def getHost(self) -> Any:
        """The bound address, as one of TCP."""
        return as_tcp(super().getHost())

    @property
    def _transport_class(self) -> type[UTPServerTransport]:
        return PosingServerTransport

    def _peer_of(self, connection: Connection) -> Any:
        self.counts.accepted += 1
        return as_tcp(twisted_address(connection.address))


class PosingConnector(UTPConnector):
    """An outgoing connection's connector."""

    counts: Counts

    def _makeTransport(self) -> PosingClientTransport:  # type: ignore[override]
        return PosingClientTransport(self, self._settings)

    def buildProtocol(self, addr: Any) -> Any:
        """A protocol for a connection that is up."""
        self.counts.connected += 1
        return super().buildProtocol(addr)

    def getDestination(self) -> Any:
        """Where to, as an address of TCP."""
        return as_tcp(super().getDestination())
