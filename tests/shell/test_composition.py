"""What is made for TCP and composes with any stream: wrappers of endpoints, and factories that connect again."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import ReconnectingClientFactory

from tests.support import Accepting, Stream
from txutp import connectUTP, listenUTP
from txutp.testing import Link, Network

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 6881


def two_hosts() -> tuple[Network, Any, Any]:
    """A network, and the reactors of a server and a client."""
    network = Network(seed=1)
    network.connect(CLIENT, SERVER, Link(delay_us=10_000))
    return network, network.reactor(SERVER), network.reactor(CLIENT)


class Returning(ReconnectingClientFactory):
    """Comes back, without the random part of the delay."""

    noisy = False
    initialDelay = 1.0
    jitter = 0.0

    def __init__(self, reactor: Any) -> None:
        self.clock = reactor
        self.made: list[Stream] = []
        self.started: list[tuple[str, Any]] = []
        self.failures: list[type] = []

    def startedConnecting(self, connector: Any) -> None:
        self.started.append((connector.state, connector.getDestination()))

    def buildProtocol(self, addr: Any) -> Stream:
        self.resetDelay()
        stream = Stream()
        self.made.append(stream)
        return stream

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failures.append(reason.type)
        super().clientConnectionFailed(connector, reason)


def test_the_haproxy_wrapper_tells_the_address_that_a_proxy_named() -> None:
    network, there, here = two_hosts()
    accepting = Accepting()
    serverFromString(there, f"haproxy:utp:{PORT}").listen(accepting)
    factory = Returning(here)
    connector = connectUTP(here, SERVER, PORT, factory)
    assert network.run(1, until=lambda: bool(factory.made))

    factory.made[0].transport.write(b"PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\nhello")
    assert network.run(1, until=lambda: bool(accepting.made and accepting.made[0].received))

    assert bytes(accepting.made[0].received) == b"hello"
    assert accepting.made[0].transport.getPeer() == IPv4Address("TCP", "192.0.2.7", 1234)
    factory.stopTrying()
    connector.disconnect()


def test_a_reconnecting_factory_comes_back_when_its_server_does() -> None:
    network, there, here = two_hosts()
    accepting = Accepting()
    port = listenUTP(there, PORT, accepting)
    factory = Returning(here)
    connector = connectUTP(here, SERVER, PORT, factory, timeout=2)
    assert network.run(1, until=lambda: bool(accepting.made))

    port.stopListening()
    accepting.made[0].transport.abortConnection()
    assert network.run(20, until=lambda: len(factory.failures) >= 2)
    listenUTP(there, PORT, accepting)
    assert network.run(60, until=lambda: len(factory.made) == 2)

    assert connector.state == "connected"
    assert set(factory.started) == {("connecting", IPv4Address("UDP", SERVER, PORT))}
    factory.stopTrying()
    connector.disconnect()
    assert network.run(10, until=lambda: connector.state == "disconnected")
    network.run(0.001)
    assert here.getDelayedCalls() == []


def test_a_transport_lets_go_of_its_protocol_at_the_end() -> None:
    network, there, here = two_hosts()
    accepting = Accepting()
    listenUTP(there, PORT, accepting)
    factory = Returning(here)
    connectUTP(here, SERVER, PORT, factory)
    assert network.run(1, until=lambda: bool(accepting.made))
    factory.stopTrying()
    stream = factory.made.pop()
    transport: Any = stream.transport
    gone = weakref.ref(stream)

    transport.loseConnection()
    network.run(5)
    del stream
    gc.collect()

    assert gone() is None
    assert transport.getPeer() == IPv4Address("UDP", SERVER, PORT)
