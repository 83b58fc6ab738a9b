"""A server and a client of an application in memory, with a path between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.core.settings import Settings
from txutp.endpoints import UTPClientEndpoint, UTPServerEndpoint
from txutp.testing.network import Link, Network, Recorder, SimulatedReactor

SERVER_HOST = "10.0.0.1"
CLIENT_HOST = "10.0.0.2"
PORT = 6881
HANDSHAKE_SECONDS = 60.0  # of virtual time


@implementer(IProtocolFactory)
class Collecting:
    """A factory that asks another one, and collects the protocols that it builds."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.protocols: list[Any] = []

    def buildProtocol(self, addr: Any) -> IProtocol | None:
        protocol: IProtocol | None = self.factory.buildProtocol(addr)
        if protocol is not None:
            self.protocols.append(protocol)
        return protocol

    def doStart(self) -> None:
        self.factory.doStart()

    def doStop(self) -> None:
        self.factory.doStop()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.factory, name)


@dataclass
class Pair:
    """A server and a client over uTP on two hosts of a ``Network``, connected once the pair is made.

    ::

        pair = Pair(Factory.forProtocol(Greeter), Factory.forProtocol(Caller), link=Link(delay_us=40_000))
        pair.client.transport.write(b"hello")
        assert pair.run(5, until=lambda: pair.server.greeted)

    ``link`` carries what the client sends, and ``back`` what the server sends; without ``back`` that is another link
    like ``link``.  With ``connect=False`` the pair is not connected yet: ``run`` lets that happen, and ``failures`` has
    the ``Failure`` of an attempt that fails.  Timers of both hosts come at multiples of ``timer_tick_us`` of their own
    clocks.  Raises ``AssertionError`` if the client cannot connect.
    """

    server_factory: Any
    client_factory: Any
    link: Link = field(default_factory=lambda: Link(delay_us=10_000))
    back: Link | None = None
    seed: int = 1
    settings: Settings = field(default_factory=Settings)
    server_settings: Settings | None = None
    client_offset_us: int = 0
    client_drift_ppm: float = 0.0
    interface_mtu_bytes: int | None = None
    connect: bool = True
    timer_tick_us: int = 1

    def __post_init__(self) -> None:
        self.network: Network = Network(self.seed, self.interface_mtu_bytes)
        self.network.connect(CLIENT_HOST, SERVER_HOST, self.link, self.back)
        self.up: Link = self.network.link(CLIENT_HOST, SERVER_HOST)
        self.down: Link = self.network.link(SERVER_HOST, CLIENT_HOST)
        self.server_reactor: SimulatedReactor = self.network.reactor(SERVER_HOST, timer_tick_us=self.timer_tick_us)
        self.client_reactor: SimulatedReactor = self.network.reactor(
            CLIENT_HOST, self.client_offset_us, self.client_drift_ppm, timer_tick_us=self.timer_tick_us
        )
        self._accepting = Collecting(self.server_factory)
        self._connecting = Collecting(self.client_factory)
        self.ports: list[Any] = []
        self.failures: list[Failure] = []
        settings = self.server_settings or self.settings
        listening = UTPServerEndpoint(self.server_reactor, PORT, settings=settings).listen(self._accepting)
        listening.addCallbacks(self.ports.append, self.failures.append)
        client_endpoint = UTPClientEndpoint(self.client_reactor, SERVER_HOST, PORT, settings=self.settings)
        self.attempt: Deferred[IProtocol] = client_endpoint.connect(self._connecting)
        self.attempt.addErrback(self.failures.append)
        if self.connect:
            both = self.run(HANDSHAKE_SECONDS, until=lambda: bool(self.servers and self._connecting.protocols))
            assert both, f"the client is not connected, on {self.network}: {self.failures}"

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let virtual time pass, at most until a condition is true; returns whether it is (see ``Network.run``)."""
        return self.network.run(seconds, until)

    @property
    def servers(self) -> list[Any]:
        """The server's protocols, the first accepted first."""
        return self._accepting.protocols

    @property
    def server(self) -> Any:
        """The protocol of the server's first connection."""
        return self._accepting.protocols[0]

    @property
    def client(self) -> Any:
        """The client's protocol."""
        return self._connecting.protocols[0]

    def record(self) -> tuple[Recorder, Recorder]:
        """Write down what the client sends, and what the server sends, from now on."""
        recorders = Recorder(self.up.hook), Recorder(self.down.hook)
        self.up.hook, self.down.hook = recorders
        return recorders
