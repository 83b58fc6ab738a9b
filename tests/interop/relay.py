"""A UDP relay on the loopback interface: what one port hears, the other one says."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from .support import HOST


class RelaySide(DatagramProtocol):
    """One of the two ports of a relay: what it hears, the other one sends to the address that it knows."""

    noisy = False

    def __init__(self, knows: tuple[str, int] | None = None) -> None:
        self.knows = knows
        self.other: RelaySide | None = None

    def datagramReceived(self, datagram: bytes, address: tuple[str, int]) -> None:
        self.knows = address
        other = self.other
        if other is not None and other.knows is not None and other.transport is not None:
            other.transport.write(datagram, other.knows)


class Bottleneck(RelaySide):
    """A side that hands on what it hears at a rate, out of a queue without limit, and after a delay."""

    def __init__(self, bytes_per_second: float, delay_seconds: float) -> None:
        super().__init__()
        self._bytes_per_second = bytes_per_second
        self._delay_seconds = delay_seconds
        self._free_at = 0.0
        self.waits_seconds: list[float] = []  # of each datagram

    def datagramReceived(self, datagram: bytes, address: tuple[str, int]) -> None:
        now = reactor.seconds()
        starts = max(self._free_at, now)
        self.waits_seconds.append(starts - now)
        self._free_at = starts + len(datagram) / self._bytes_per_second
        arrives_in = self._free_at - now + self._delay_seconds
        reactor.callLater(arrives_in, super().datagramReceived, datagram, address)


@asynccontextmanager
async def relayed(port: int, front: RelaySide | None = None) -> AsyncIterator[tuple[int, int]]:
    """Pass datagrams on to a port and back; returns the port for clients and the one for the server.

    ``front`` is the side of the clients, if it is a special one.

    What leaves the relay looks as on a network card. Directly on the loopback interface one would
    capture the large blocks that the kernel has not cut into datagrams yet (or never does).
    """
    front, back = front or RelaySide(), RelaySide((HOST, port))
    front.other, back.other = back, front
    ports = [reactor.listenUDP(0, side, interface=HOST, maxPacketSize=65_536) for side in (front, back)]
    for udp_port in ports:
        # with the kernel's default, bursts would be lost here that the path is not meant to lose
        udp_port.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
    try:
        yield ports[0].getHost().port, ports[1].getHost().port
    finally:
        front.other = back.other = None
        for udp_port in ports:
            await maybeDeferred(udp_port.stopListening)
