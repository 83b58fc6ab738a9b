"""A program as a user with a type checker writes it: everything here has to pass, and each name has the type stated."""

from __future__ import annotations

from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from typing_extensions import assert_type

from txutp import (
    ConnectionStats,
    PortStats,
    Settings,
    UTPClientEndpoint,
    UTPPort,
    UTPServerEndpoint,
    UTPTransport,
    listenUTP,
    utp_transport,
)
from txutp.congestion import Acknowledgement, Controller, Ledbat
from txutp.monitoring import ControlSocketService, MetricsResource, openControlSocket
from txutp.qlog import Tracing, trace_connection, trace_port, trace_reactor
from txutp.socket import Server, Socket, createServer


class Watching(Protocol):
    """Reads the statistics of its connection, and waits until the peer has everything."""

    def connectionMade(self) -> None:
        transport = utp_transport(self.transport)
        assert_type(transport, UTPTransport)
        stats = transport.stats()
        assert_type(stats, ConnectionStats)
        assert_type(stats.rtt, float)
        assert_type(stats.bytes_acked, int)
        assert_type(transport.acknowledged(), Deferred[None])
        trace_connection(self.transport, "connection.qlog")
        transport.write(b"hello")
        transport.loseWriteConnection()

    def connectionLost(self, reason: object = None) -> None:
        print("lost", reason)


class Careful(Ledbat):
    """A controller of the user's own."""

    def on_ack(self, ack: Acknowledgement) -> None:
        if ack.one_way_delay_us is not None and ack.one_way_delay_us > self.target_delay_us:
            return
        super().on_ack(ack)


def window_of(controller: Controller) -> int:
    """A controller as others see it."""
    return controller.window_bytes


settings = Settings(congestion=Careful, target_delay_us=10_000)
endpoint = UTPServerEndpoint(reactor, 6881, interface="127.0.0.1", settings=settings)
client = UTPClientEndpoint(reactor, "127.0.0.1", 6881, timeout=5)
port = listenUTP(reactor, 0, Factory.forProtocol(Watching))
assert_type(port, UTPPort)
assert_type(port.stats(), PortStats)

tracing = trace_reactor(reactor, "all.qlog", vantage_point="server")
assert_type(tracing, Tracing)
trace_port(port, Path("port.qlog"), title="mine").stop()
assert_type(openControlSocket("program.sock"), IListeningPort)
ControlSocketService(Path("program.sock")).startService()
MetricsResource(labels={"service": "mine"}, each_connection=True)

server = createServer(lambda socket: socket.pipe(socket))
assert_type(server.on("connection", print), Server)


@server.once("listening")
def listening() -> None:
    """A listener made with a decorator keeps its type."""


listening()
assert_type(Socket().on("data", print).setTimeout(1000), Socket)
