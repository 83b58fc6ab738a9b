"""From a Protocol's transport to the uTP stream beneath it."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from txutp import UTPClientEndpoint, UTPServerEndpoint, UTPTransport, utp_transport
from txutp.testing import Link, Network


def connected(client: Factory) -> Protocol:
    """Returns the protocol of a client factory that is connected to a server."""
    network = Network(seed=1)
    network.connect("10.0.0.1", "10.0.0.2", Link(delay_us=10_000))
    here, there = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    UTPServerEndpoint(there, 6881).listen(Factory.forProtocol(Protocol))
    connecting: Deferred[Protocol] = UTPClientEndpoint(here, "10.0.0.2", 6881).connect(client)
    made: list[Protocol] = []
    connecting.addCallback(made.append)
    assert network.run(seconds=10, until=lambda: bool(made)), network
    return made[0]


def test_a_transport_of_utp_is_returned_as_it_is() -> None:
    """Without a layer in between the Protocol has the stream itself."""
    protocol = connected(Factory.forProtocol(Protocol))

    assert isinstance(protocol.transport, UTPTransport)
    assert utp_transport(protocol.transport) is protocol.transport


def test_layers_are_looked_through() -> None:
    """Policies may be stacked; the stream is at the bottom."""
    inner = WrappingFactory(Factory.forProtocol(Protocol))
    outer = connected(WrappingFactory(inner))
    assert isinstance(outer, ProtocolWrapper)
    assert isinstance(outer.wrappedProtocol, ProtocolWrapper)
    application = outer.wrappedProtocol.wrappedProtocol

    assert not isinstance(application.transport, UTPTransport)
    assert utp_transport(application.transport) is outer.transport
    assert utp_transport(application.transport).stats().state == "CONNECTED"


def test_tls_is_looked_through() -> None:
    """TLS of ``wrapClientTLS`` is a layer like others."""
    tls = pytest.importorskip("twisted.protocols.tls")
    ssl = pytest.importorskip("twisted.internet.ssl")
    options = ssl.optionsForClientTLS("example.org")
    layer = connected(tls.TLSMemoryBIOFactory(options, True, Factory.forProtocol(Protocol)))

    assert utp_transport(layer.wrappedProtocol.transport) is layer.transport


@pytest.mark.parametrize("stranger", [None, StringTransport(), object()])
def test_other_transports_are_refused(stranger: object) -> None:
    """A sentence says what was passed."""
    with pytest.raises(TypeError, match="not a transport over uTP"):
        utp_transport(stranger)


def test_a_circle_of_layers_ends() -> None:
    """A transport that carries itself is no uTP stream either."""
    circle = StringTransport()
    circle.transport = circle

    with pytest.raises(TypeError, match="not a transport over uTP"):
        utp_transport(circle)
