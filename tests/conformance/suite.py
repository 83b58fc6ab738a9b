"""Twisted's tests of stream transports, bound to ``utp:``; the judge of the transport.

Run it as ``python -m twisted.trial --reactor=epoll tests.conformance.suite`` in the root of the
checkout, with any of the reactors select, poll, epoll and asyncio; for asyncio on uvloop there is
``python -m tests.conformance.on_uvloop tests.conformance.suite``. tests/project/test_conformance.py does so
for all five. How the binding works is told in binding.py.

Three kinds of tests are bound:

- those of ``twisted.internet.test``, which make a new reactor for each test;
- those of ``twisted.test.test_tcp`` and ``test_ssl``, which use the installed reactor;
- those of Twisted's own protocols (web, mail, ftp, SSH, Perspective Broker...), as applications that
  were written without a thought of us.

What Twisted does not test, or tests by looking at file descriptors, stands in promises.py.
"""

from __future__ import annotations

import socket
from functools import wraps
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest import skipIf

from twisted.conch.test import test_conch, test_transport
from twisted.internet import defer
from twisted.internet.address import IPv6Address
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.test import test_tcp, test_tls
from twisted.internet.test.connectionmixins import ConnectionTestsMixin
from twisted.mail.test import test_imap, test_pop3, test_pop3client, test_smtp
from twisted.spread.test import test_pb
from twisted.test import (
    test_amp,
    test_ftp,
    test_loopback,
    test_policies,
    test_protocols,
    test_ssl,
    test_tpfile,
)
from twisted.test import test_tcp as global_test_tcp
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test import test_distrib, test_xmlrpc
from twisted.words.test import test_service

from tests.conformance import promises
from tests.conformance.binding import ON_UVLOOP, OVER_UTP, BoundBuilder, BoundCase, Creator, StringCreator
from tests.conformance.skips import APPLICATIONS_NOT_BOUND, NOT_BOUND, SKIPPED, SKIPPED_ON_UVLOOP

# --- twisted.internet.test: a new reactor for each test -------------------------------------------


class Client(BoundBuilder, test_tcp.TCPClientTestsBase):
    """Clients, connectors and the basics of a connection, made from the endpoint classes."""

    family = socket.AF_INET
    addressClass = test_tcp.IPv4Address
    fakeDomainName = "some-fake.domain.example.com"
    endpoints = Creator()

    def assertConnectPortError(self, port: Any, message: Any) -> None:
        """Expect one failure, in our own words: those of TCP come from the kernel's connect()."""
        if not OVER_UTP:
            super().assertConnectPortError(port, message)
            return
        reactor = self.buildReactor()
        failures: list[Any] = []

        def connect() -> None:
            """Connect with the wrong port, and note a failure but not a success."""
            address = self.addressClass("TCP", self.interface, port)
            endpoint = self.endpoints.client(reactor, address)
            connecting = endpoint.connect(Factory.forProtocol(Protocol))
            connecting.addErrback(failures.append)
            connecting.addBoth(lambda ignored: reactor.stop())

        reactor.callWhenRunning(connect)
        self.runReactor(reactor)

        self.assertEqual(len(failures), 1)


@skipIf(test_tcp.ipv6Skip, test_tcp.ipv6SkipReason)
class Client6(Client):
    """The same over IPv6."""

    family = socket.AF_INET6
    addressClass = IPv6Address
    fakeDomainName = "::1"
    endpoints = Creator("::1")


class ClientLinkLocal(Client6):
    """The same with addresses that mean something only together with an interface."""

    def setUp(self) -> None:
        """Skip the test where no interface has such an address."""
        super().setUp()
        self.fakeDomainName = test_tcp.getLinkLocalIPv6Address()
        self.endpoints = Creator(self.fakeDomainName)


class StringClient(BoundBuilder, ConnectionTestsMixin):
    """The basics of a connection, made from endpoint strings."""

    endpoints = StringCreator()


@skipIf(test_tcp.ipv6Skip, test_tcp.ipv6SkipReason)
class StringClient6(StringClient):
    """The same over IPv6, whose colons have to be quoted."""

    endpoints = StringCreator("::1")


class ConnectorTests(BoundBuilder, test_tcp.TCPConnectorTestsBuilder):
    """What ``connectUTP`` returns."""

    interface = "127.0.0.1"
    family = socket.AF_INET
    addressClass = test_tcp.IPv4Address


@skipIf(test_tcp.ipv6Skip, test_tcp.ipv6SkipReason)
class Connector6Tests(ConnectorTests):
    """The same over IPv6."""

    interface = "::1"
    family = socket.AF_INET6
    addressClass = IPv6Address


class PortTests(
    BoundBuilder,
    test_tcp.ListenTCPMixin,
    test_tcp.TCPPortTestsMixin,
    test_tcp.StreamTransportTestsMixin,
):
    """What ``listenUTP`` returns, and the addresses that its connections have."""

    def getExpectedConnectionLostLogMsg(self, port: Any) -> str:
        """The line that is logged when the port has closed."""
        kind = "UTP" if OVER_UTP else "TCP"
        return f"({kind} Port {port.getHost().port} Closed)"


class ConnectionTests(BoundBuilder, test_tcp.TCPConnectionTestsBuilder):
    """Pausing, resuming and half closing."""


class TransportTests(BoundBuilder, test_tcp.TCPTransportTestsBuilder):
    """Addresses and names of server transports, ``writeSequence`` and producers."""


class AbortTests(BoundBuilder, test_tcp.AbortConnectionMixin):
    """``abortConnection`` in every situation, with endpoint classes."""

    endpoints = Creator()


class StringAbortTests(AbortTests):
    """The same with endpoint strings."""

    endpoints = StringCreator()


class TLSClient(BoundBuilder, test_tls.SSLClientTestsMixin):
    """TLS from the first byte."""

    endpoints = test_tls.SSLCreator()


class StartTLSClient(BoundBuilder, test_tls.StartTLSClientTestsMixin):
    """TLS that begins in the middle of a connection."""

    endpoints = test_tls.StartTLSClientCreator()


class TLSPortTests(BoundBuilder, test_tls.TLSPortTestsBuilder):
    """``listenSSL``, which is a TLS factory on an ordinary port."""

    def getExpectedConnectionLostLogMsg(self, port: Any) -> str:
        """The line that is logged when the port has closed; TCP's own says TLS here."""
        kind = "UTP" if OVER_UTP else "TLS"
        return f"({kind} Port {port.getHost().port} Closed)"


class TLSAbortTests(BoundBuilder, test_tls.AbortSSLConnectionTests):
    """``abortConnection`` under TLS."""

    endpoints = test_tls.SSLCreator()


class ReadingPromises(BoundBuilder, promises.ReadingPromises):
    """What is said about pausing, resuming and the order of bytes."""


class ClosingPromises(BoundBuilder, promises.ClosingPromises):
    """What is said about the ends of a connection."""


class ProducerPromises(BoundBuilder, promises.ProducerPromises):
    """What is said about producers."""


class EndpointPromises(BoundBuilder, promises.EndpointPromises):
    """What is said about listening, connecting, giving up and failing."""


class StringEndpointPromises(EndpointPromises):
    """The same, with endpoint strings."""

    endpoints = StringCreator()


class AddressPromises(BoundBuilder, promises.AddressPromises):
    """What is said about interfaces, addresses and names."""


BUILDERS = [
    item
    for item in list(globals().values())
    if isinstance(item, type) and issubclass(item, BoundBuilder) and item is not BoundBuilder
]


# --- twisted.test: the installed reactor ----------------------------------------------------------

CASES: dict[ModuleType, list[str]] = {
    global_test_tcp: [
        "AddressTests",
        "CallBackOrderTests",
        "CannotBindTests",
        "FactoryTests",
        "HalfCloseBuggyApplicationTests",
        "HalfCloseNoNotificationAndShutdownExceptionTests",
        "LargeBufferTests",
        "ListeningTests",
        "LocalRemoteAddressTests",
        "LogTests",
        "LoopbackTests",
        "PauseProducingTests",
        "ProperlyCloseFilesTests",
        "WriteDataTests",
    ],
    test_ssl: [
        "BufferingTests",
        "ConnectionLostTests",
        "SpammyTLSTests",
        "StolenTCPTests",
        "TLSTests",
    ],
    test_conch: ["CmdLineClientTests"],
    test_transport: ["TransportLoopbackTests"],
    test_amp: ["LiveFireTLSTests", "PlainVanillaLiveFireTests", "WithServerTLSVerificationTests"],
    test_distrib: ["DistribTests"],
    test_ftp: [
        "BasicFTPServerTests",
        "FTPClientFailedRETRAndErrbacksUponDisconnectTests",
        "FTPServerEprtDataConnectionTests",
        "FTPServerEpsvDataConnectionTests",
        "FTPServerPasvDataConnectionTests",
        "FTPServerPortDataConnectionTests",
    ],
    test_imap: [
        "AuthenticatorTests",
        "FetchSearchStoreTests",
        "IMAP4ServerTests",
        "NewFetchTests",
        "NewStoreTests",
        "TLSTests",
    ],
    test_loopback: ["LoopbackTCPTests"],
    test_pb: ["NSPTests", "NewStyleCachedTests"],
    test_policies: ["ThrottlingTests"],
    test_pop3: ["POP3Tests"],
    test_pop3client: ["POP3TLSTests", "POP3TimeoutTests"],
    test_protocols: ["PortforwardingTests"],
    test_service: ["PBProtocolTests"],
    test_smtp: ["AuthTests", "SMTPClientTests", "SMTPSenderFactoryRetryTests", "TLSTests"],
    test_tpfile: ["FileSenderTests"],
    test_xmlrpc: [
        "XMLRPCAllowNoneTests",
        "XMLRPCAuthenticatedTests",
        "XMLRPCClientErrorHandlingTests",
        "XMLRPCIntrospectionTests",
        "XMLRPCPublicLookupProcedureTests",
        "XMLRPCTests",
        "XMLRPCUseDateTimeTests",
    ],
}


class HalfCloseTests(BoundCase, global_test_tcp.HalfCloseTests):
    """One test waits for private attributes of TCP's transport; here it waits for news instead."""

    def _tearDown(self, ignored: object) -> Any:
        """Close the server's side, which after a half close only the server can do.

        Twisted's own also wants the server not to have heard yet that the client is gone. That
        holds for TCP, which tells the client its end without waiting for the peer; we wait.
        """
        self.assertEqual(self.client.closed, 1)
        server = self.f.lastProtocol
        lost: defer.Deferred[Any] = defer.Deferred()
        # The protocol calls this itself, too, when it has heard of both halves.
        server.connectionLost = lambda reason: None if lost.called else lost.callback(None)
        server.transport.loseConnection()
        return lost

    def testCloseWriteCloser(self) -> Any:
        """After half closing nothing more is sent, and what was written before arrives."""
        client = self.client
        client.transport.write(b"hello")
        client.transport.loseWriteConnection()

        def half_closed(ignored: object) -> Any:
            """Our side knows it; now wait for theirs."""
            self.assertFalse(client.closed)
            self.assertFalse(client.readHalfClosed)
            return global_test_tcp.loopUntil(lambda: self.f.lastProtocol.readHalfClosed)

        def write(ignored: object) -> None:
            """Write into the void."""
            client.transport.write(b" world")
            client.transport.write(b"lalala fooled you")
            self.assertEqual(self.f.lastProtocol.data, b"hello")
            self.assertFalse(self.f.lastProtocol.closed)

        waiting: defer.Deferred[Any] = global_test_tcp.loopUntil(lambda: client.writeHalfClosed)
        return waiting.addCallback(half_closed).addCallback(write)


def bound_cases() -> dict[str, type]:
    """The classes of ``CASES``, each with rerouted TCP."""
    # They use the installed reactor themselves, and find it rerouted.
    bound: dict[str, type] = {}
    for module, names in CASES.items():
        for name in names:
            # several modules have a class TLSTests
            title = f"{module.__name__.rpartition('.')[2]}_{name}" if name in bound else name
            bound[title] = type(title, (BoundCase, getattr(module, name)), {"__module__": __name__})
    return bound


def excuse(case: type, name: str, reason: str) -> None:
    """Let one test of a class say why it is skipped. (Named ``skip``, it would skip all: trial.)"""
    method = getattr(case, name)

    @wraps(method)
    def skipped(self: Any) -> None:
        """Never runs: trial looks at the attribute first."""

    skipped.skip = reason  # type: ignore[attr-defined]
    setattr(case, name, skipped)


globals().update(bound_cases())
if OVER_UTP:
    for title, because in {**SKIPPED, **(SKIPPED_ON_UVLOOP if ON_UVLOOP else {})}.items():
        class_name, _, test_name = title.partition(".")
        excuse(globals()[class_name], test_name, because)
for builder in BUILDERS:
    globals().update(builder.makeTestCaseClasses())


# --- nothing is forgotten -------------------------------------------------------------------------


class CompletenessTests(SynchronousTestCase):
    """A test that Twisted adds to these modules is bound, or somebody says why not."""

    def test_every_test_is_bound(self) -> None:
        """Each test of the four modules runs in a class of this one, or its class is excused."""
        bound = {
            function
            for case in [*globals().values()]
            if isinstance(case, type) and issubclass(case, (BoundBuilder, BoundCase))
            for base in case.__mro__
            for function in vars(base).values()
            if callable(function)
        }

        forgotten = [
            f"{module.__name__}.{name}.{test}"
            for module in (test_tcp, test_tls, global_test_tcp, test_ssl)
            for name, case in vars(module).items()
            if isinstance(case, type)
            and case.__module__ == module.__name__
            # Those that Twisted generated from a builder have the tests of the builder.
            and case.__name__ not in NOT_BOUND
            and not any(base.__name__ in NOT_BOUND for base in case.__mro__)
            for test, function in vars(case).items()
            if test.startswith("test") and callable(function) and function not in bound
        ]

        self.assertEqual(forgotten, [])

    def test_what_is_excused_exists(self) -> None:
        """The applications' tests that are not bound have not been renamed, or bound meanwhile."""
        bound = {f"{module.__name__}.{name}" for module, names in CASES.items() for name in names}
        missing = []
        for title in APPLICATIONS_NOT_BOUND:
            module, _, name = title.rpartition(".")
            # read, not imported: one of them wants a locale that few machines have
            spec = find_spec(f"twisted.{module}")
            assert spec is not None
            if f"class {name}(" not in (spec.loader.get_source(spec.name) or ""):  # type: ignore[union-attr]
                missing.append(title)

        self.assertEqual(missing, [])
        self.assertEqual([title for title in APPLICATIONS_NOT_BOUND if f"twisted.{title}" in bound], [])
