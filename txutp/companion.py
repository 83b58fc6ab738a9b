"""Another protocol on a uTP port: an ordinary ``DatagramProtocol`` gets every datagram that is not uTP.

A DHT node is the reason: BitTorrent wants it on the port where uTP is.  ``listenUTP(..., datagramProtocol=node)`` makes
a ``Companion``, which is the transport of that protocol; what it writes leaves from the same socket.
"""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IUDPTransport
from twisted.internet.protocol import ConnectedDatagramProtocol
from twisted.logger import Logger
from zope.interface import implementer

from txutp.core.batch import Address
from txutp.protocol import UTPProtocol
from txutp.timers import call_later

LARGEST_PAYLOAD_BYTES = 65_507  # of an IPv4 datagram


@implementer(IUDPTransport, IListeningPort)
class Companion:
    """The transport of a DatagramProtocol that shares the UDP port of uTP."""

    _log = Logger()

    def __init__(self, protocol: Any) -> None:
        checked_datagram_protocol(protocol)
        self.protocol = protocol
        self._utp: UTPProtocol | None = None  # while the protocol is on the port

    def __repr__(self) -> str:
        where = "stopped" if self._utp is None else f"on {self._utp.port_address.port}"
        return f"<{self.__class__.__name__} {self.protocol.__class__.__name__} {where}>"

    def join(self, utp: UTPProtocol) -> None:
        """Begin, on a port that is open."""
        self._utp = utp
        utp.foreign_datagram_received = self.protocol.datagramReceived
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            self._forget(utp)
            raise

    def leave(self) -> None:
        """The protocol stops; the UDP port may live on."""
        utp = self._utp
        if utp is None:
            return
        self._forget(utp)
        try:
            self.protocol.doStop()
        except Exception:
            self._log.failure("stopProtocol raised")

    def _forget(self, utp: UTPProtocol) -> None:
        self._utp = None
        utp.foreign_datagram_received = None

    # -- IUDPTransport --

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send a datagram to (host, port); it may get lost, as every datagram may."""
        if addr is None:
            raise ValueError("this UDP port is never connected: write needs an address, which is (host, port)")
        host = addr[0]
        if not isIPAddress(host) and not isIPv6Address(host):
            raise error.InvalidAddressError(host, "write() only accepts IP addresses, not hostnames")
        utp = self._utp
        if utp is None:
            return
        if (":" in host) != (":" in utp.port_address.host):
            ours = "IPv6" if ":" in utp.port_address.host else "IPv4"
            raise error.InvalidAddressError(host, f"this port is for {ours}")
        if len(packet) > LARGEST_PAYLOAD_BYTES:
            raise error.MessageLengthError("message too long")
        utp.send_foreign(bytes(packet), tuple(addr))

    def writeSequence(self, seq: Any, addr: Address) -> None:
        """The same with a datagram in pieces."""
        self.write(b"".join(seq), addr)

    def connect(self, host: str, port: int) -> None:
        raise RuntimeError("this UDP port is shared with uTP, so it cannot be connected to one address")

    def getHost(self) -> Any:
        """The UDP address that is bound."""
        if self._utp is None:
            raise RuntimeError("the port is not open any more")
        return self._utp.port_address

    def getBroadcastAllowed(self) -> bool:
        """Whether broadcasts may be sent from this port."""
        return bool(self._port().getBroadcastAllowed())

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Let broadcasts be sent from this port, or not."""
        self._port().setBroadcastAllowed(enabled)

    def _port(self) -> Any:
        if self._utp is None:
            raise RuntimeError("the port is not open any more")
        return self._utp.transport

    # -- IListeningPort --

    def startListening(self) -> None:
        """It listens from the start."""

    def stopListening(self) -> Deferred[None] | None:
        """Get no more datagrams; uTP stays where it is.  Fires when the protocol has stopped; None if it had before."""
        if self._utp is None:
            return None
        stopped: Deferred[None] = Deferred()

        def stop() -> None:
            self.leave()
            stopped.callback(None)

        call_later(self._utp.reactor, 0, stop)
        return stopped

    def loseConnection(self) -> None:
        """The old name of ``stopListening``."""
        self.stopListening()


def checked_datagram_protocol(protocol: Any) -> None:
    """TypeError with what is accepted, if it is not that."""
    wanted = ("makeConnection", "datagramReceived", "doStop")
    if isinstance(protocol, (type, ConnectedDatagramProtocol)) or not all(
        callable(getattr(protocol, name, None)) for name in wanted
    ):
        raise TypeError(f"datagramProtocol is an instance of a DatagramProtocol, not {protocol!r}")
