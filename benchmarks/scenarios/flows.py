"""From the description of a flow to two protocols: one that has always something to send, and one that counts.

``running.py`` makes a ``UTPTransfer`` or a ``TCPTransfer``, starts it at its time, and reads ``deliveries`` and
``resent_share`` at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from benchmarks.scenarios.definitions import Flow
from benchmarks.scenarios.measure import Deliveries
from benchmarks.scenarios.paths import RECEIVER, RECEIVER_ELSEWHERE, sender
from benchmarks.scenarios.standing import COMPETITORS
from benchmarks.scenarios.tcp import SEGMENT_BYTES, TCPReceiver, TCPSender
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.stats import ConnectionStats
from txutp.testing import Network, SimulatedReactor

FIRST_PORT = 7_000
CHUNK = bytes(64 * 1024)


class Transfer:
    """What both kinds have: two hosts, a port of their own, and what was delivered."""

    def __init__(self, network: Network, flow: Flow, number: int, done: Callable[[], None]) -> None:
        self.flow = flow
        self.port = FIRST_PORT + number
        here, there = sender(flow.host), RECEIVER_ELSEWHERE if flow.elsewhere else RECEIVER
        self.source, self.destination = (there, here) if flow.upwards else (here, there)
        self.network = network
        self.started_us: int | None = None
        self.deliveries = Deliveries(network, flow.transfer_bytes, done)

    @property
    def sender(self) -> SimulatedReactor:
        return self.network.reactor(self.source)

    @property
    def receiver(self) -> SimulatedReactor:
        return self.network.reactor(self.destination)

    def start(self) -> None:
        self.started_us = self.network.now_us

    def stop(self) -> None:
        """Send nothing any more."""

    @property
    def resent_share(self) -> float:
        """How much of what was sent had been sent before."""
        return 0.0


class Sink(Protocol):
    """Counts what comes."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def dataReceived(self, data: bytes) -> None:
        self._deliveries.add(len(data))


@implementer(IPushProducer)
class Source(Protocol):
    """Writes whenever the transport takes it, so that memory stays bounded and the window is never left empty."""

    transport: Any

    def __init__(self, transfer_bytes: int | None) -> None:
        self._left_bytes = transfer_bytes
        self._paused = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        while not self._paused:
            if self._left_bytes is None:
                self.transport.write(CHUNK)
                continue
            data = CHUNK[: self._left_bytes]
            self._left_bytes -= len(data)
            if not data:
                self.transport.unregisterProducer()
                return
            self.transport.write(data)

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._paused = True
        self._left_bytes = 0


class UTPTransfer(Transfer):
    """The real stack, through its endpoints."""

    def __init__(self, network: Network, flow: Flow, number: int, done: Callable[[], None], settings: Settings) -> None:
        super().__init__(network, flow, number, done)
        self._settings = settings
        self._source = Source(flow.transfer_bytes)

    def start(self) -> None:
        super().start()
        factory = Factory.forProtocol(lambda: Sink(self.deliveries))
        factory.noisy = False
        UTPServerEndpoint(self.receiver, self.port, settings=self._settings).listen(factory)
        endpoint = UTPClientEndpoint(self.sender, self.destination, self.port, settings=self._settings)
        connectProtocol(endpoint, self._source)

    def stop(self) -> None:
        if self._source.transport is not None:
            self._source.transport.abortConnection()

    @property
    def stats(self) -> ConnectionStats | None:
        """How the connection is doing; None before there is one."""
        if self._source.transport is None:
            return None
        stats: ConnectionStats = self._source.transport.stats()
        return stats

    @property
    def resent_share(self) -> float:
        stats = self.stats
        return stats.bytes_retrans / stats.bytes_sent if stats is not None and stats.bytes_sent else 0.0


class TCPTransfer(Transfer):
    """A model of TCP; ``kind`` is a name in ``standing.COMPETITORS``."""

    def __init__(self, network: Network, flow: Flow, number: int, done: Callable[[], None], kind: str) -> None:
        super().__init__(network, flow, number, done)
        segments = None if flow.transfer_bytes is None else -(-flow.transfer_bytes // SEGMENT_BYTES)
        self.tcp = TCPSender(self.sender, (self.destination, self.port), COMPETITORS[kind](), segments)

    def start(self) -> None:
        super().start()
        self.receiver.listenUDP(self.port, TCPReceiver(self.receiver, self.deliveries.add))
        self.sender.listenUDP(0, self.tcp)

    def stop(self) -> None:
        self.tcp.stop()

    @property
    def resent_share(self) -> float:
        return self.tcp.resent / self.tcp.sent if self.tcp.sent else 0.0
