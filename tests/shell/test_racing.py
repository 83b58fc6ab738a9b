"""uTP and TCP raced: which wins when, what the loser leaves behind, what is remembered, and both kinds of string.

The first half runs on the network in memory, with a TCP that does what the test tells it to do; the second one on
sockets.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.application.internet import ClientService
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.shell.test_unread import certificate
from tests.support import CLIENT, PORT, SERVER, Accepting, Stream, pause
from txutp import UTPAndTCPServerEndpoint, UTPOrTCPClientEndpoint, UTPProtocol, UTPServerEndpoint, speaks_utp
from txutp.racing import RaceMemory, most_telling
from txutp.testing import Link, Network

LOCAL = "127.0.0.1"
SECOND_US = 1_000_000


class TCPAttempt:
    """A call of ``connectTCP``, and the connector that it returned."""

    def __init__(self, network: Network, factory: Any) -> None:
        self.begun_us = network.now_us
        self.factory = factory
        self.stopped = False
        factory.doStart()
        factory.startedConnecting(self)

    def getDestination(self) -> Any:
        return IPv4Address("TCP", SERVER, PORT)

    def stopConnecting(self) -> None:
        self.fail(error.UserError())
        self.stopped = True

    def connected(self) -> Any:
        """Returns the protocol that was built, if one was."""
        protocol = self.factory.buildProtocol(self.getDestination())
        if protocol is not None:
            protocol.makeConnection(StringTransport())
        return protocol

    def fail(self, problem: Exception) -> None:
        self.factory.clientConnectionFailed(self, Failure(problem))
        self.factory.doStop()


class Counting(Accepting):
    """A factory that counts how often it was started and stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.starts = self.stops = 0

    def startFactory(self) -> None:
        self.starts += 1

    def stopFactory(self) -> None:
        self.stops += 1


class Scene:
    """A client that races, on a path of 20 ms there and back.

    The server listens, refuses or is silent; or a local problem keeps the client from asking it.
    """

    def __init__(self, server: str = "listens", **options: Any) -> None:
        self.network = Network(seed=1)
        self.network.connect(CLIENT, SERVER, Link(delay_us=options.pop("delay_us", 10_000)))
        self.accepting = Accepting()
        self.server_reactor: Any = self.network.reactor(SERVER)
        if server == "listens":
            self.listen()
        elif server == "refuses":
            self.server_reactor.listenUDP(PORT, UTPProtocol(self.server_reactor))
        self.reactor: Any = self.network.reactor(CLIENT)
        self.tcp: list[TCPAttempt] = []
        self.reactor.connectTCP = self.connect_tcp
        if server == "local":
            self.reactor.listenUDP = refuse_to_listen
        self.endpoint = UTPOrTCPClientEndpoint(self.reactor, SERVER, PORT, **options)
        self.connect()

    def listen(self) -> None:
        """The server speaks uTP now."""
        UTPServerEndpoint(self.server_reactor, PORT).listen(self.accepting)

    def connect_tcp(self, host: str, port: int, factory: Any, timeout: Any, bindAddress: Any) -> TCPAttempt:
        assert (host, port, timeout) == (SERVER, PORT, None)
        self.tcp.append(TCPAttempt(self.network, factory))
        return self.tcp[-1]

    def connect(self) -> None:
        """Begin another race."""
        self.factory = Counting()
        self.outcomes: list[Any] = []
        self.begun_us = self.network.now_us
        self.attempt = self.endpoint.connect(self.factory)
        self.attempt.addBoth(self.outcomes.append)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def failure(self) -> Exception:
        [failure] = self.outcomes
        assert isinstance(failure, Failure), failure
        assert isinstance(failure.value, Exception)
        return failure.value

    def check_nothing_left(self) -> None:
        """No timer, UDP port or connection of the client is left, and the factory was stopped as often as started."""
        self.run(0.001)
        assert self.reactor.getDelayedCalls() == []
        assert [host for host, _ in self.network.ports if host == CLIENT] == []
        assert (self.factory.starts, self.factory.stops) == (1, 1)


def test_utp_wins_and_tcp_is_never_tried() -> None:
    scene = Scene()
    scene.run(1)
    [protocol] = scene.factory.made
    assert scene.outcomes == [protocol]
    assert speaks_utp(protocol.transport)
    assert scene.tcp == []
    protocol.transport.loseConnection()
    scene.run(5)
    assert protocol.lost_type is error.ConnectionDone
    scene.check_nothing_left()


def test_tcp_begins_after_the_head_start() -> None:
    scene = Scene(delay_us=300_000, headStart=0.2)
    scene.run(0.4)
    [tcp] = scene.tcp
    assert tcp.begun_us - scene.begun_us == 200_000
    assert not scene.factory.made


def test_tcp_wins_and_the_utp_attempt_is_gone() -> None:
    scene = Scene("silent")
    scene.run(0.3)
    scene.tcp[-1].connected()
    [protocol] = scene.factory.made
    assert scene.outcomes == [protocol]
    assert not speaks_utp(protocol.transport)
    assert protocol.made == 1
    scene.tcp[-1].factory.doStop()
    scene.check_nothing_left()


def test_utp_wins_late_and_the_tcp_attempt_is_stopped() -> None:
    scene = Scene(delay_us=300_000)
    assert scene.run(5, until=lambda: bool(scene.outcomes))
    [protocol] = scene.factory.made
    assert speaks_utp(protocol.transport)
    [tcp] = scene.tcp
    assert tcp.stopped


def test_a_refusal_of_utp_ends_the_head_start() -> None:
    scene = Scene("refuses")
    assert scene.run(0.2, until=lambda: bool(scene.tcp))
    assert scene.network.now_us - scene.begun_us < 100_000


def test_if_both_fail_the_error_says_most() -> None:
    scene = Scene("refuses")
    scene.run(0.2)
    scene.tcp[-1].fail(error.TimeoutError())
    problem = scene.failure
    assert isinstance(problem, error.ConnectionRefusedError)
    assert isinstance(problem.__cause__, error.TimeoutError)
    assert not scene.factory.made
    scene.check_nothing_left()


@pytest.mark.parametrize(
    ("kinds", "best"),
    [
        ([error.TimeoutError, error.ConnectionRefusedError], error.ConnectionRefusedError),
        ([error.DNSLookupError, error.NoRouteError], error.NoRouteError),
        ([error.TimeoutError, error.ConnectError], error.ConnectError),
        ([error.TimeoutError, error.TimeoutError], error.TimeoutError),
    ],
)
def test_which_error_says_most(kinds: list[type[Exception]], best: type[Exception]) -> None:
    failures = [Failure(kind()) for kind in kinds]
    assert most_telling(failures).type is best
    assert most_telling(failures[::-1]).type is best


def test_one_timeout_for_the_whole_race() -> None:
    scene = Scene("silent", timeout=3)
    assert scene.run(10, until=lambda: bool(scene.outcomes))
    assert scene.network.now_us - scene.begun_us == 3 * SECOND_US
    assert isinstance(scene.failure, error.TimeoutError)
    assert scene.tcp[-1].stopped
    scene.check_nothing_left()


def test_a_timeout_tells_what_had_failed_before() -> None:
    scene = Scene("refuses", timeout=3)
    assert scene.run(10, until=lambda: bool(scene.outcomes))
    assert isinstance(scene.failure, error.ConnectionRefusedError)


def test_without_a_timeout_it_goes_on() -> None:
    scene = Scene("silent", timeout=None)
    scene.run(100)
    assert not scene.outcomes
    scene.attempt.cancel()
    scene.check_nothing_left()


@pytest.mark.parametrize("seconds", [0.001, 0.3])
def test_cancelling_gives_both_up(seconds: float) -> None:
    """Within the head start, and behind it."""
    scene = Scene("silent")
    scene.run(seconds)
    scene.attempt.cancel()
    assert isinstance(scene.failure, error.ConnectingCancelledError)
    assert all(tcp.stopped for tcp in scene.tcp)
    scene.check_nothing_left()


def test_a_factory_that_builds_nothing() -> None:
    scene = Scene()
    scene.factory.buildProtocol = lambda address: None  # type: ignore[method-assign,assignment,return-value]
    scene.run(1)
    assert isinstance(scene.failure, error.NoProtocol)
    assert scene.tcp == []
    scene.run(5)
    scene.check_nothing_left()


def test_a_factory_that_does_not_start() -> None:
    scene = Scene()

    def raises() -> None:
        raise ZeroDivisionError

    factory = Counting()
    factory.doStart = raises  # type: ignore[method-assign]
    failures: list[Failure] = []
    scene.endpoint.connect(factory).addErrback(failures.append)
    assert failures[0].type is ZeroDivisionError


def test_a_factory_that_raises() -> None:
    scene = Scene()

    def raises(address: Any) -> Any:
        raise ZeroDivisionError

    scene.factory.buildProtocol = raises  # type: ignore[method-assign]
    scene.run(1)
    assert isinstance(scene.failure, ZeroDivisionError)
    assert scene.tcp == []


def test_cancelling_behind_a_connection_made_that_raises() -> None:
    """Twisted's endpoints say nothing then; the factory is stopped once, as its connection ends."""

    class Raising(Stream):
        def connectionMade(self) -> None:
            raise ZeroDivisionError

    scene = Scene()
    scene.factory.protocol = Raising
    stops: list[int] = []
    stop = scene.factory.doStop
    scene.factory.doStop = lambda: (stops.append(1), stop())[1]  # type: ignore[method-assign]
    scene.run(1)
    scene.attempt.cancel()
    scene.run(5)
    assert len(stops) == 1
    assert len(scene.outcomes) == 1


# -- what is remembered --


def silent_scene() -> Scene:
    """A client that has learned that the server answers TCP alone."""
    scene = Scene("silent")
    scene.run(0.3)
    scene.tcp.pop().connected()
    assert len(scene.outcomes) == 1
    scene.run(0.001)
    return scene


def test_a_peer_that_answers_tcp_alone_gets_tcp_first() -> None:
    scene = silent_scene()
    scene.connect()
    assert [tcp.begun_us for tcp in scene.tcp] == [scene.begun_us]
    assert [host for host, _ in scene.network.ports if host == CLIENT] == []
    scene.tcp[0].connected()
    assert len(scene.outcomes) == 1


def test_it_gets_utp_where_tcp_fails() -> None:
    """It has learned uTP meanwhile, and forgotten TCP."""
    scene = silent_scene()
    scene.listen()
    scene.connect()
    scene.tcp[0].fail(error.ConnectionRefusedError())
    assert scene.run(1, until=lambda: bool(scene.outcomes))
    assert speaks_utp(scene.factory.made[0].transport)
    scene.tcp.clear()
    scene.connect()
    scene.run(0.1)
    assert scene.tcp == []
    assert speaks_utp(scene.factory.made[0].transport)


def test_it_is_forgotten_after_a_while() -> None:
    scene = silent_scene()
    scene.run(601)
    scene.connect()
    assert scene.tcp == []


def test_a_peer_that_answers_utp_gets_a_longer_head_start() -> None:
    scene = Scene()
    scene.run(1)
    scene.network.link(CLIENT, SERVER).delay_us = 2 * SECOND_US
    scene.connect()
    assert scene.run(5, until=lambda: bool(scene.tcp))
    assert scene.tcp[0].begun_us - scene.begun_us == SECOND_US


def test_a_local_problem_says_nothing_about_the_peer() -> None:
    """There is no UDP socket to be had."""
    memory = RaceMemory()
    scene = Scene("local", memory=memory)
    assert scene.run(1, until=lambda: len(scene.tcp) > 0)
    scene.tcp[-1].connected()
    assert len(scene.outcomes) == 1
    assert memory.answers((SERVER, PORT), scene.network.now_us) is None


def refuse_to_listen(port: int, *arguments: Any, **options: Any) -> Any:
    raise error.CannotListenError("10.9.9.9", port, OSError(99, "no such address"))


def test_the_memory_is_bounded() -> None:
    memory = RaceMemory(seconds=10, maximum_peers=3)
    for number in range(5):
        memory.note((f"10.0.0.{number}", 1), number % 2 == 0, now_us=number)
    assert len(memory) == 3
    assert memory.answers(("10.0.0.1", 1), 5) is None
    assert memory.answers(("10.0.0.3", 1), 5) is False
    assert memory.answers(("10.0.0.4", 1), 4 + 10 * SECOND_US - 1) is True
    assert memory.answers(("10.0.0.4", 1), 4 + 10 * SECOND_US) is None
    assert memory.answers(("10.0.0.4", 1), 5) is None


# -- strings --


def test_strings() -> None:
    client = clientFromString(reactor, "utp+tcp:example.org:6881:headStart=500ms:timeout=3:bindAddress=127.0.0.2")
    verifyObject(IStreamClientEndpoint, client)
    assert isinstance(client, UTPOrTCPClientEndpoint)
    assert (client._head_start, client._timeout, client._bind_address) == (0.5, 3, ("127.0.0.2", 0))
    assert repr(client) == "<UTPOrTCPClientEndpoint example.org:6881 headStart=0.5>"
    server = serverFromString(reactor, "utp+tcp:6881:interface=127.0.0.1:backlog=7")
    verifyObject(IStreamServerEndpoint, server)
    assert isinstance(server, UTPAndTCPServerEndpoint)
    assert (server._port, server._interface, server._backlog) == (6881, LOCAL, 7)
    assert repr(server) == "<UTPAndTCPServerEndpoint 127.0.0.1:6881>"


@pytest.mark.parametrize("text", ["1", "ms", "1m", "fast", "-1s", "infs"])
def test_a_head_start_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="headStart is a"):
        clientFromString(reactor, f"utp+tcp:example.org:6881:headStart={text}")


@pytest.mark.parametrize("head_start", ["0.25", True, None])
def test_a_head_start_of_another_type(head_start: Any) -> None:
    with pytest.raises(TypeError, match="headStart is a number of seconds"):
        UTPOrTCPClientEndpoint(reactor, LOCAL, 1, headStart=head_start)


def test_no_descriptor_is_two_sockets() -> None:
    with pytest.raises(ValueError, match="utp:fd="):
        serverFromString(reactor, "utp+tcp:fd=3")


# -- on sockets --


class Greeting(Stream):
    """Says what it got, back."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)  # type: ignore[union-attr]


class Answer(Stream):
    """A client that waits for an answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answered: Deferred[bytes] = Deferred()
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if not self.answered.called:
            self.answered.callback(data)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.ended.callback(None)


async def ask(endpoint: Any) -> bool:
    """Exchange some bytes; returns whether that went over uTP."""
    client = await connectProtocol(endpoint, Answer())
    client.transport.write(b"hello")
    assert await client.answered == b"hello"
    spoken = speaks_utp(client.transport)
    client.transport.loseConnection()
    await client.ended
    return spoken


@pytest.fixture
def busy() -> Iterator[Any]:
    """A UDP socket that has a port, and answers nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((LOCAL, 0))
        yield taken


@pytest_twisted.ensureDeferred
async def test_both_are_served_under_one_number() -> None:
    factory = Factory.forProtocol(Greeting)
    port = await serverFromString(reactor, f"utp+tcp:0:interface={LOCAL}").listen(factory)
    number = port.getHost().port
    assert port.utp.getHost().port == number
    for kind in ("utp", "tcp"):
        assert await ask(clientFromString(reactor, f"{kind}:{LOCAL}:{number}")) is (kind == "utp")
    assert await ask(clientFromString(reactor, f"utp+tcp:{LOCAL}:{number}"))
    await port.stopListening()
    assert factory.numPorts == 0
    port.startListening()
    assert port.getHost().port
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_taken_udp_port_leaves_no_tcp_port(busy: Any) -> None:
    number = busy.getsockname()[1]
    factory = Factory.forProtocol(Greeting)
    with pytest.raises(error.CannotListenError):
        await UTPAndTCPServerEndpoint(reactor, number, interface=LOCAL).listen(factory)
    assert factory.numPorts == 0
    with socket.socket() as probe:
        assert probe.connect_ex((LOCAL, number)) != 0


@pytest_twisted.ensureDeferred
async def test_tcp_where_nothing_answers_utp(busy: Any) -> None:
    """On the second time TCP comes first: no datagram leaves."""
    number = busy.getsockname()[1]
    port = reactor.listenTCP(number, Factory.forProtocol(Greeting), interface=LOCAL)  # type: ignore[attr-defined]
    endpoint = UTPOrTCPClientEndpoint(reactor, LOCAL, number, headStart=0.05, memory=RaceMemory())
    try:
        assert not await ask(endpoint)
        assert busy.recv(2_000, socket.MSG_DONTWAIT)
        assert not await ask(endpoint)
        with pytest.raises(BlockingIOError):
            busy.recv(2_000, socket.MSG_DONTWAIT)
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_refused_by_both() -> None:
    with socket.socket() as probe:
        probe.bind((LOCAL, 0))
        number = probe.getsockname()[1]
    with pytest.raises(error.ConnectionRefusedError):
        await connectProtocol(UTPOrTCPClientEndpoint(reactor, LOCAL, number), Answer())


@pytest_twisted.ensureDeferred
async def test_a_name_with_several_addresses() -> None:
    port = await UTPAndTCPServerEndpoint(reactor, 0, interface=LOCAL).listen(Factory.forProtocol(Greeting))
    try:
        assert await ask(UTPOrTCPClientEndpoint(reactor, "localhost", port.getHost().port))
        await port.utp.stopListening()
        assert not await ask(UTPOrTCPClientEndpoint(reactor, "localhost", port.getHost().port, memory=RaceMemory()))
    finally:
        await port.tcp.stopListening()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates
@pytest.mark.parametrize("kind", ["utp", "tcp"])
@pytest_twisted.ensureDeferred
async def test_below_tls(kind: str) -> None:
    """The question has the same answer where TLS is around the stream."""
    ssl = pytest.importorskip("twisted.internet.ssl")
    tls = pytest.importorskip("twisted.protocols.tls")
    inner = Factory.forProtocol(Greeting)
    factory = tls.TLSMemoryBIOFactory(certificate(), False, inner)
    port = await serverFromString(reactor, f"{kind}:0:interface={LOCAL}").listen(factory)
    try:
        raced = UTPOrTCPClientEndpoint(reactor, LOCAL, port.getHost().port)
        trust = ssl.CertificateOptions(verify=False)
        assert await ask(wrapClientTLS(trust, raced)) is (kind == "utp")
    finally:
        await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_service_connects_again() -> None:
    """``ClientService`` over a race: the server goes over from uTP to TCP, and the client follows."""
    port = await UTPAndTCPServerEndpoint(reactor, 0, interface=LOCAL).listen(Factory.forProtocol(Greeting))
    endpoint = UTPOrTCPClientEndpoint(reactor, LOCAL, port.getHost().port, memory=RaceMemory())
    service = ClientService(endpoint, Factory.forProtocol(Answer), retryPolicy=lambda failures: 0.05)
    service.startService()
    try:
        first: Any = await service.whenConnected()
        assert speaks_utp(first.transport)
        stopped = port.utp.stopListening()
        first.transport.loseConnection()
        await first.ended
        await stopped
        await pause(0)
        second: Any = await service.whenConnected()
        assert not speaks_utp(second.transport)
        await pause(0)
    finally:
        await service.stopService()
        await port.tcp.stopListening()
