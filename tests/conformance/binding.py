"""What makes Twisted's tests, which were written for TCP, run over another transport.

Two things are swapped. Tests that are given endpoints get those of ``Creator`` or
``StringCreator``. Tests that call ``reactor.listenTCP`` and ``reactor.connectTCP`` keep calling
them, but ``reroute`` has put ``listenUTP`` and ``connectUTP`` in their place, so that not a line of
Twisted's tests is copied.

Twisted's mail and SSH suites run some protocols against each other in memory (``loopbackAsync``); those
are connected with ``loopbackTCP`` instead, and the ``conch`` command that they start in a process of its
own is told to reroute its TCP as well.

Only a test that really had a connection counts: each that had one writes its name into the file that
TXUTP_CONFORMANCE_CONNECTED names.

With TXUTP_CONFORMANCE_TRANSPORT=tcp nothing is swapped and the same classes run over TCP: that
proves the harness, and tells a fault of the transport from a fault of the machine.
"""

from __future__ import annotations

import os
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attr
from twisted.conch.test import test_conch
from twisted.internet import endpoints
from twisted.internet import reactor as installed_reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import clientFromString, quoteStringArgument, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.internet.test import test_tcp
from twisted.internet.test.connectionmixins import EndpointCreator
from twisted.internet.test.reactormixins import ReactorBuilder
from twisted.protocols import ftp, loopback
from twisted.test import test_tcp as global_test_tcp
from twisted.trial.unittest import SynchronousTestCase

TRANSPORT = os.environ.get("TXUTP_CONFORMANCE_TRANSPORT", "utp")
OVER_UTP = TRANSPORT == "utp"

if OVER_UTP:
    from txutp import connectUTP, listenUTP
    from txutp.endpoints import UTPClientEndpoint as ClientEndpoint
    from txutp.endpoints import UTPServerEndpoint as ServerEndpoint
    from txutp.transport import UTPTransport

    # What getHost().type and getPeer().type say.
    ADDRESS_TYPE = "UDP"
    SOCKET_TYPE = socket.SOCK_DGRAM
else:
    ClientEndpoint = endpoints.TCP4ClientEndpoint
    ServerEndpoint = endpoints.TCP4ServerEndpoint
    ADDRESS_TYPE = "TCP"
    SOCKET_TYPE = socket.SOCK_STREAM

# The tests make reactors of their own, of the kind that trial has installed.
REACTORS = {
    "SelectReactor": "twisted.internet.selectreactor.SelectReactor",
    "PollReactor": "twisted.internet.pollreactor.PollReactor",
    "EPollReactor": "twisted.internet.epollreactor.EPollReactor",
    # A factory that gives each of those reactors an event loop of its own.
    "AsyncioSelectorReactor": "twisted.internet.test.reactormixins.AsyncioSelectorReactor",
}
REACTOR = REACTORS[type(installed_reactor).__name__]
ON_UVLOOP = type(getattr(installed_reactor, "_asyncioEventloop", None)).__module__.startswith("uvloop")

# Long enough for a slow machine, short enough that one hanging test does not hide the others.
TIMEOUT_SECONDS = 20


# What a command of Conch does before anything else.
REROUTING = b"""
from functools import partial
from twisted.internet import reactor
from txutp import connectUTP, listenUTP
reactor.connectTCP = partial(connectUTP, reactor)
reactor.listenTCP = partial(listenUTP, reactor)
"""


def listen(reactor: Any, port: int, factory: Any, interface: str = "") -> Any:
    """A listening port of the transport under test, made by its function."""
    if OVER_UTP:
        return listenUTP(reactor, port, factory, interface=interface)
    return reactor.listenTCP(port, factory, interface=interface)


def connect(reactor: Any, host: str, port: int, factory: Any, **options: Any) -> Any:
    """A connector of the transport under test, made by its function."""
    if OVER_UTP:
        return connectUTP(reactor, host, port, factory, **options)
    return reactor.connectTCP(host, port, factory, **options)


def reroute(case: SynchronousTestCase, reactor: Any) -> None:
    """Let the reactor's TCP methods speak the transport under test until the test ends."""
    if OVER_UTP:
        case.patch(reactor, "listenTCP", partial(listenUTP, reactor))
        case.patch(reactor, "connectTCP", partial(connectUTP, reactor))


def note_connections(case: SynchronousTestCase) -> None:
    """Let a test write its name down at its end, if it had a connection by then."""
    file = os.environ.get("TXUTP_CONFORMANCE_CONNECTED")
    if not OVER_UTP or file is None:
        return
    begun: list[Any] = []
    begin = UTPTransport.begin

    def noting(transport: Any, protocol: Any) -> None:
        """A connection is there."""
        begun.append(transport)
        begin(transport, protocol)

    def write_down() -> None:
        """Say so."""
        if begun:
            with Path(file).open("a", encoding="utf-8") as names:
                names.write(f"{case.id()}\n")

    case.patch(UTPTransport, "begin", noting)
    case.addCleanup(write_down)


def loopback_async(server: Any, client: Any, pumpPolicy: object = None) -> Any:
    """Connect two protocols that Twisted would let talk in memory."""
    return loopback.loopbackTCP(server, client, noisy=False)


def conch_arguments(arguments: list[str], mod: str = "conch", original: Any = test_conch._makeArgs) -> list[bytes]:
    """What starts a command of Conch, with rerouted TCP."""
    python, program, *rest = original(arguments, mod)
    return [python, program.replace(b"-c", b"-c" + REROUTING, 1), *rest]


class Creator(EndpointCreator):
    """Endpoints made from the endpoint classes."""

    def __init__(self, interface: str = "127.0.0.1") -> None:
        self.interface = interface

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        """A server endpoint on a port that the system chooses."""
        return ServerEndpoint(reactor, 0, interface=self.interface)

    def client(self, reactor: Any, serverAddress: Any) -> IStreamClientEndpoint:
        """A client endpoint for that server."""
        return ClientEndpoint(reactor, self.interface, serverAddress.port)


class StringCreator(Creator):
    """Endpoints made from strings, found through Twisted's plugins."""

    def server(self, reactor: Any) -> IStreamServerEndpoint:
        """A server endpoint on a port that the system chooses."""
        interface = quoteStringArgument(self.interface)
        return serverFromString(reactor, f"{TRANSPORT}:0:interface={interface}")

    def client(self, reactor: Any, serverAddress: Any) -> IStreamClientEndpoint:
        """A client endpoint for that server."""
        host = quoteStringArgument(self.interface)
        return clientFromString(reactor, f"{TRANSPORT}:host={host}:port={serverAddress.port}")


def translate(value: Any) -> Any:
    """An expectation about addresses, with the type that addresses of this transport have."""
    if isinstance(value, (IPv4Address, IPv6Address)):
        return attr.evolve(value, type=ADDRESS_TYPE)
    if isinstance(value, list):
        return [translate(item) for item in value]
    return ADDRESS_TYPE if value == "TCP" else value


if TYPE_CHECKING:
    Case = SynchronousTestCase
else:
    Case = object


class Translated(Case):
    """Tests that expect addresses of the type TCP, which ours are not.

    That ours are of their own type everywhere, ``promises.AddressPromises`` sees to.
    """

    timeout = TIMEOUT_SECONDS

    def assertEqual(self, first: Any, second: Any, msg: Any = None) -> Any:
        """Compare as always, except for the type of addresses."""
        return super().assertEqual(translate(first), translate(second), msg)


class BoundBuilder(Translated, ReactorBuilder):
    """Tests that build a reactor: it is of the installed kind, and its TCP is rerouted."""

    _reactors = [REACTOR]
    endpoints: Any = Creator()
    reactor: Any = None

    def setUp(self) -> None:
        """Replace what the tests take from their own module instead of from ``self``."""
        super().setUp()
        note_connections(self)
        self.patch(test_tcp, "TCPCreator", Creator)
        if OVER_UTP:
            self.patch(test_tcp, "createTestSocket", StandInSocket)

    def buildReactor(self) -> Any:
        """A new reactor whose TCP methods speak the transport under test."""
        self.reactor = super().buildReactor()
        reroute(self, self.reactor)
        return self.reactor


class BoundCase(Translated):
    """Tests that use the installed reactor, whose TCP is rerouted while each of them runs."""

    def setUp(self) -> Any:
        """Reroute first: some of the tests listen in their own ``setUp``."""
        reroute(self, installed_reactor)
        note_connections(self)
        self.patch(loopback, "loopbackAsync", loopback_async)
        if OVER_UTP:
            self.patch(test_conch, "_makeArgs", conch_arguments)
        self.patch(global_test_tcp, "WriterProtocol", WriterProtocol)
        # The FTP server took hold of listenTCP when it was imported.
        self.patch(ftp.FTP, "listenFactory", partial(listen, installed_reactor))
        return super().setUp()


class StandInSocket:
    """Looks to Twisted's port tests like the plain client socket that they make and connect.

    A socket of the kernel cannot speak uTP, so connecting this one starts an ordinary client on
    the reactor of the test, at a local address chosen beforehand.
    """

    def __init__(self, case: BoundBuilder, family: int, kind: int) -> None:
        self._case = case
        self._family = socket.AddressFamily(family)
        self._local: Any = None
        self._remote: Any = None

    def setblocking(self, blocking: bool) -> None:
        """Nothing here ever blocks."""

    def connect(self, address: Any) -> None:
        """Start connecting; the test runs its reactor afterwards."""
        self._remote = address
        # A scoped address needs the scope of the peer, which is the same host.
        with socket.socket(self._family, SOCKET_TYPE) as probe:
            probe.bind((address[0], 0, *address[2:]))
            self._local = probe.getsockname()
        host = socket.getnameinfo(address, socket.NI_NUMERICHOST | socket.NI_NUMERICSERV)[0]
        connect(
            self._case.reactor,
            host,
            address[1],
            ClientFactory.forProtocol(Protocol),
            bindAddress=(host, self._local[1]),
        )

    def getsockname(self) -> Any:
        """The local address, as the kernel would tell it."""
        return self._local

    def getpeername(self) -> Any:
        """The remote address, as the kernel would tell it."""
        return self._remote

    def close(self) -> None:
        """The reactor of the test closes the client."""


class WriterProtocol(global_test_tcp.WriterProtocol):
    """Twisted's, which wants to see addresses of the type TCP, with the type of ours instead."""

    def connectionMade(self) -> None:
        """Run the original on a transport whose addresses call themselves TCP."""
        transport = self.transport
        self.transport = SaysTCP(transport)
        super().connectionMade()
        self.transport = transport


class SaysTCP:
    """A transport, except that its addresses are of the type TCP."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def getHost(self) -> Any:
        """The local address in the words of TCP."""
        return attr.evolve(self._transport.getHost(), type="TCP")

    def getPeer(self) -> Any:
        """The remote address in the words of TCP."""
        return attr.evolve(self._transport.getPeer(), type="TCP")
