"""Names with several addresses (RFC 8305), giving up at every stage, scopes, and ports with both IP versions."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ServerEndpoint, clientFromString, connectProtocol
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.internet.protocol import ClientFactory, Protocol
from zope.interface import alsoProvides

from tests.support import CLIENT, PORT, Accepting, ScriptedPeer, Stream, until
from txutp import Settings, UTPClientEndpoint, connectUTP, listenUTP
from txutp.client import Candidates, alternating
from txutp.core.packet import ST_RESET, ST_SYN
from txutp.testing import Link, Network, Recorder

V6 = ["fd00::1", "fd00::2", "fd00::3"]
V4 = ["10.0.0.11", "10.0.0.12", "10.0.0.13"]


class Resolver:
    """Knows one name; answers after a time, or never."""

    def __init__(self, network: Network, addresses: list[str], seconds: float | None) -> None:
        self._network = network
        self._addresses = addresses
        self._seconds = seconds
        self.asked: list[str] = []
        self.answer: Callable[[], None] = lambda: None

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, addressTypes: Any = None, transportSemantics: str = ""
    ) -> None:
        assert transportSemantics == "UDP"
        self.asked.append(hostName)
        receiver.resolutionBegan(object())

        def answer() -> None:
            for host in self._addresses:
                kind = IPv6Address if ":" in host else IPv4Address
                receiver.addressResolved(kind("UDP", host, portNumber))
            receiver.resolutionComplete()

        self.answer = answer
        if self._seconds is not None:
            self._network.call_at(self._network.now_us + round(self._seconds * 1e6), answer)


class Scene:
    """A client that connects to a name whose addresses are those of other hosts."""

    def __init__(
        self,
        addresses: list[str],
        servers: tuple[str, ...] = (),
        refusing: tuple[str, ...] = (),
        resolved: float | None = 0.0,
        delay_us: int = 20_000,
        **options: Any,
    ) -> None:
        self.network = Network(seed=3)
        self.here = self.network.reactor(CLIENT)
        self.resolver = Resolver(self.network, addresses, resolved)
        self.here.nameResolver = self.resolver  # type: ignore[attr-defined]
        alsoProvides(self.here, IReactorPluggableNameResolver)
        self.recorders: dict[str, Recorder] = {}
        self.accepting: dict[str, Accepting] = {}
        self.silent: dict[str, ScriptedPeer] = {}
        for host in dict.fromkeys(addresses):
            self.network.connect(CLIENT, host, Link(delay_us=delay_us))
            self.recorders[host] = self.network.link(CLIENT, host).hook = Recorder()
            there = self.network.reactor(host)
            if host in servers or host in refusing:
                self.accepting[host] = Accepting()
                port = listenUTP(there, PORT, self.accepting[host])
                if host in refusing:
                    port._utp.stop_accepting()  # type: ignore[union-attr]
            else:
                self.silent[host] = ScriptedPeer(there, PORT)
        self.connecting = Accepting()
        self.failures: list[Any] = []
        self.attempt = UTPClientEndpoint(self.here, "name.example", PORT, **options).connect(self.connecting)
        self.attempt.addErrback(self.failures.append)

    def run(self, seconds: float) -> None:
        self.network.run(seconds)

    def syns_ms(self) -> dict[str, list[int]]:
        """When SYNs left, in milliseconds, by where they went."""
        return {
            host: [
                datagram.sent_at_us // 1_000
                for datagram in recorder.datagrams
                if datagram.packet is not None and datagram.packet.type == ST_SYN
            ]
            for host, recorder in self.recorders.items()
        }

    @property
    def left_over(self) -> list[Any]:
        """What this client still has: UDP ports and timers."""
        ports = [port for port in self.network.ports if port[0] == CLIENT]
        return [*ports, *self.here.getDelayedCalls()]


def test_addresses_are_tried_in_turn_a_quarter_of_a_second_apart() -> None:
    """The resolver's first one first, then IPv4 and IPv6 alternate, until one connects."""
    scene = Scene([*V6, V4[0], V4[1]], servers=(V4[1],))
    scene.run(1.9)
    assert {host: times[:1] for host, times in scene.syns_ms().items()} == {
        V6[0]: [0],
        V4[0]: [250],
        V6[1]: [500],
        V4[1]: [750],
        V6[2]: [],
    }
    assert scene.connecting.made[0].transport.getPeer() == IPv4Address("UDP", V4[1], PORT)  # type: ignore[union-attr]
    # those that lost are not tried any more, and the UDP port that only they used is closed
    scene.run(30)
    assert sum(map(len, scene.syns_ms().values())) == 4
    assert len([port for port in scene.network.ports if port[0] == CLIENT]) == 1


def test_alternating() -> None:
    def order(*hosts: str) -> list[str]:
        return [host for host, _ in alternating([(host, 1) for host in hosts])]

    assert order() == []
    assert order("a::", "b::", "1.1.1.1") == ["a::", "1.1.1.1", "b::"]
    assert order("1.1.1.1", "1.1.1.2", "1.1.1.3", "a::") == ["1.1.1.1", "a::", "1.1.1.2", "1.1.1.3"]


def test_an_address_that_answers_in_time_is_the_only_one_tried() -> None:
    scene = Scene([V6[0], V4[0]], servers=(V6[0], V4[0]))
    scene.run(1)
    assert scene.syns_ms() == {V6[0]: [0], V4[0]: []}
    scene.connecting.made[0].transport.loseConnection()  # type: ignore[union-attr]
    scene.run(1)
    assert scene.left_over == []


def test_a_refusal_lets_the_next_one_go_at_once() -> None:
    scene = Scene([V6[0], V4[0]], servers=(V4[0],), refusing=(V6[0],))
    scene.run(1)
    assert scene.syns_ms() == {V6[0]: [0], V4[0]: [40]}
    assert scene.connecting.made


def test_the_slower_one_of_two_that_answer_is_given_up() -> None:
    """Its server hears that nobody will come."""
    scene = Scene([V6[0], V4[0]], servers=(V6[0], V4[0]), delay_us=200_000)
    scene.run(3)
    assert scene.connecting.made[0].transport.getPeer().host == V6[0]  # type: ignore[union-attr]
    assert len(scene.connecting.made) == 1
    assert scene.accepting[V4[0]].made == []
    assert len(scene.accepting[V6[0]].made) == 1


def test_two_that_answer_in_the_same_turn_give_one_connection() -> None:
    """The other one is told with a RESET, though it is up already."""
    scene = Scene([V4[0], V4[1]])
    scene.run(0.3)
    for peer in scene.silent.values():
        (syn,) = peer.take()
        peer.send_id, peer.sequence, peer.ack = syn.connection_id, 7_000, syn.seq_nr
        peer.state()
    scene.run(0.1)
    assert len(scene.connecting.made) == 1
    kinds = [{packet.type for packet in peer.take()} for peer in scene.silent.values()]
    assert sum(ST_RESET in kind for kind in kinds) == 1


@pytest.mark.parametrize("how", ["loseConnection", "abortConnection", "raise"])
def test_a_protocol_may_end_in_the_turn_in_which_it_begins(how: str) -> None:
    class Brief(Stream):
        def connectionMade(self) -> None:
            super().connectionMade()
            if how == "raise":
                raise ZeroDivisionError
            getattr(self.transport, how)()

    scene = Scene([V6[0], V4[0]], servers=(V6[0],))
    scene.connecting.protocol = Brief
    scene.run(5)
    expected = {"loseConnection": error.ConnectionDone, "abortConnection": error.ConnectionAborted}
    assert scene.connecting.made[0].lost_type is expected.get(how, ZeroDivisionError)
    assert not scene.failures
    assert scene.left_over == []


def test_all_that_fail_give_the_last_failure() -> None:
    scene = Scene([V6[0], V4[0]], refusing=(V6[0], V4[0]))
    scene.run(1)
    assert scene.failures[0].check(error.ConnectionRefusedError)
    assert scene.left_over == []


def test_a_name_without_addresses_is_a_failed_lookup() -> None:
    scene = Scene([])
    scene.run(1)
    assert scene.failures[0].check(error.DNSLookupError)
    assert "name.example" in str(scene.failures[0].value)
    assert scene.left_over == []


def test_an_address_that_comes_twice_is_tried_once() -> None:
    scene = Scene([V4[0], V4[0]], timeout=0.9)
    scene.run(1)
    assert scene.syns_ms() == {V4[0]: [0]}


@pytest.mark.parametrize("stage", ["resolving", "resolved", "first attempt", "second attempt"])
def test_giving_up_leaves_nothing_at_any_stage(stage: str) -> None:
    """The error is that of TCP, it comes at once, and what comes later is ignored."""
    scene = Scene([V6[0], V4[0]], resolved=None)
    if stage != "resolving":
        scene.resolver.answer()
    scene.run({"first attempt": 0.1, "second attempt": 0.3}.get(stage, 0.0))
    scene.attempt.cancel()
    assert scene.failures[0].check(error.ConnectingCancelledError)
    assert scene.failures[0].value.address == IPv4Address("UDP", "name.example", PORT)
    if stage == "resolving":
        scene.resolver.answer()
    scene.run(0.001)
    assert scene.left_over == []
    before = scene.syns_ms()
    for peer in scene.silent.values():
        for packet in peer.take():
            peer.state(connection_id=packet.connection_id, ack_nr=packet.seq_nr)
    scene.run(60)
    assert scene.syns_ms() == before
    assert scene.connecting.made == []


def test_giving_up_a_connection_that_is_up_changes_nothing() -> None:
    scene = Scene([V4[0]], servers=(V4[0],))
    scene.run(1)
    scene.attempt.cancel()
    scene.run(1)
    assert not scene.failures
    assert not scene.connecting.made[0].lost


@pytest.mark.parametrize("resolved", [0.0, 0.5, None])
def test_the_timeout_is_for_everything_and_may_be_a_fraction(resolved: float | None) -> None:
    scene = Scene([V6[0], V4[0]], resolved=resolved, timeout=0.7)
    scene.run(0.69)
    assert not scene.failures
    scene.run(0.02)
    assert scene.failures[0].check(error.TimeoutError)
    assert scene.left_over == []


def test_a_connector_may_stop_while_it_resolves_and_connect_again() -> None:
    scene = Scene([V4[0]], servers=(V4[0],), resolved=0.5)
    failures: list[Any] = []

    class Again(ClientFactory):
        noisy = False
        protocol = Protocol

        def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
            failures.append(reason.type)
            connector.connect()

    connector = connectUTP(scene.here, "name.example", PORT, Again())
    scene.run(0.1)
    connector.stopConnecting()
    scene.run(1)
    assert failures == [error.UserError]
    assert connector.state == "connected"


def test_only_addresses_that_can_be_reached_from_ours_are_tried() -> None:
    scene = Scene([V6[0], V4[0]], servers=(V4[0],), bindAddress=CLIENT)
    scene.run(1)
    assert scene.syns_ms() == {V6[0]: [], V4[0]: [0]}
    scene = Scene([V6[0]], bindAddress=CLIENT)
    scene.run(1)
    assert scene.failures[0].check(error.ConnectBindError)


def test_a_limit_that_is_reached_fails_the_attempt() -> None:
    scene = Scene([V4[0], V4[1]], servers=(V4[0],), settings=Settings(maximum_connections=1))
    scene.run(1)
    failures: list[Any] = []
    other = UTPClientEndpoint(scene.here, V4[0], PORT, settings=Settings(maximum_connections=1))
    other.connect(Accepting()).addErrback(failures.append)
    scene.run(1)
    assert failures[0].check(error.ConnectError)
    assert "maximum_connections is 1" in str(failures[0].value)


def test_a_reactor_that_resolves_no_names_says_so() -> None:
    failures: list[Any] = []
    network = Network()
    UTPClientEndpoint(network.reactor(CLIENT), "name.example", PORT).connect(Accepting()).addErrback(failures.append)
    network.run(1)
    assert failures[0].check(error.DNSLookupError)
    assert "resolves no names: name.example" in str(failures[0].value)


def test_a_factory_hears_which_addresses_a_name_has() -> None:
    """If it wants to, and before anything is sent; what it raises is logged, and the attempt goes on."""
    heard: list[Any] = []

    class Curious(Accepting):
        """A factory that wants to know, and does not get it right."""

        def clientNameResolved(self, connector: Any, addresses: list[Any]) -> None:
            heard.append((connector, addresses))
            raise ValueError("too many for me")

        def startedConnecting(self, connector: Any) -> None:
            pass

    scene = Scene([V6[0], V4[0]], servers=(V6[0],))
    scene.attempt.cancel()
    curious = Curious()
    connector = connectUTP(scene.here, "name.example", PORT, curious)
    scene.run(1)
    assert heard == [(connector, [IPv6Address("UDP", V6[0], PORT), IPv4Address("UDP", V4[0], PORT)])]
    assert curious.made
    connectUTP(scene.here, V6[0], PORT, curious)
    scene.run(1)
    assert len(heard) == 1


# -- scopes --


class Found:
    """In the place of a client: keeps what was found."""

    def __init__(self) -> None:
        self.addresses: list[Any] = []

    def looked_up(self, addresses: list[Any]) -> None:
        self.addresses = addresses


def test_the_scope_of_an_address_is_kept() -> None:
    index = socket.if_nametoindex("lo") if hasattr(socket, "if_nametoindex") else 0
    if not index:
        pytest.skip("there is no interface lo")
    found: Any = Found()
    candidates = Candidates(found)
    candidates.addressResolved(IPv6Address("UDP", "fe80::1", 7, 0, index))  # type: ignore[arg-type]
    candidates.addressResolved(IPv6Address("UDP", "fe80::2%lo", 7))
    candidates.addressResolved(IPv6Address("UDP", "fd00::3", 7))
    candidates.addressResolved(IPv4Address("UDP", "10.0.0.1", 7))
    candidates.resolutionComplete()
    assert found.addresses == [
        ("fe80::1", 7, 0, index),
        ("fe80::2", 7, 0, index),
        ("fd00::3", 7),
        ("10.0.0.1", 7),
    ]


@pytest_twisted.ensureDeferred
async def test_a_scope_that_does_not_exist_fails_the_attempt() -> None:
    with pytest.raises(error.ConnectError):
        await UTPClientEndpoint(reactor, "fe80::1%nosuch0", PORT, timeout=5).connect(Accepting())


# -- what is wrong is told at once --


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"host": 7}, TypeError, "host is a name or a numeric address, not 7"),
        ({"host": "a" * 70}, ValueError, "invalid hostname: 'aaa"),
        ({"host": "two..dots"}, ValueError, "invalid hostname: 'two..dots'"),
        ({"timeout": "soon"}, TypeError, "timeout is a number of seconds or None, not 'soon'"),
        ({"timeout": -1}, ValueError, "timeout is a number of seconds from 0 on, or None for no timeout, not -1"),
        ({"timeout": float("nan")}, ValueError, "timeout is a number of seconds"),
    ],
)
def test_a_wrong_argument_is_told_with_what_is_accepted(options: Any, kind: type[Exception], says: str) -> None:
    arguments = {"host": "127.0.0.1", "port": 9, "factory": ClientFactory(), **options}
    with pytest.raises(kind, match=says):
        connectUTP(reactor, **arguments)


# -- on real sockets --


@pytest_twisted.ensureDeferred
async def test_a_name_with_both_versions_finds_the_one_that_listens() -> None:
    """localhost is ::1 and 127.0.0.1 on most hosts; whichever is refused, the other one is found."""
    for interface in ("127.0.0.1", "::1"):
        accepting = Accepting()
        port = listenUTP(reactor, 0, accepting, interface=interface)
        number = port.getHost().port
        known = {entry[4][0] for entry in socket.getaddrinfo("localhost", number, type=socket.SOCK_DGRAM)}
        if interface in known:
            client = await clientFromString(reactor, f"utp:localhost:{number}:timeout=5").connect(Accepting())
            assert client.transport.getPeer().host == interface
            client.transport.loseConnection()
            await until(lambda client=client: client.lost)  # type: ignore[misc]
        await port.stopListening()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest_twisted.ensureDeferred
async def test_a_port_on_all_addresses_names_its_peers_as_tcp_does(host: str) -> None:
    """``interface="::"`` has IPv4 as well where the system has it so, and then its peers have mapped addresses."""
    over_tcp, over_utp = Accepting(), Accepting()
    tcp = await TCP6ServerEndpoint(reactor, 0, interface="::").listen(over_tcp)
    utp = listenUTP(reactor, 0, over_utp, interface="::")
    kind = socket.AF_INET6 if ":" in host else socket.AF_INET
    probe = socket.socket(kind, socket.SOCK_STREAM)
    if probe.connect_ex((host, tcp.getHost().port)):
        pytest.skip("this system keeps the IP versions apart")
    await until(lambda: over_tcp.made)
    client = await UTPClientEndpoint(reactor, host, utp.getHost().port, timeout=5).connect(Accepting())
    await until(lambda: over_utp.made)
    theirs, ours = over_tcp.made[0].transport, over_utp.made[0].transport
    assert type(ours.getPeer()) is type(theirs.getPeer())  # type: ignore[union-attr]
    assert ours.getPeer().host == theirs.getPeer().host  # type: ignore[union-attr]
    assert ours.getHost().host == theirs.getHost().host  # type: ignore[union-attr]
    assert utp.getHost().host == tcp.getHost().host
    ours.write(b"x" * 100_000)  # type: ignore[union-attr]
    await until(lambda: len(client.received) == 100_000)
    client.transport.loseConnection()
    probe.close()
    await until(lambda: client.lost and over_utp.made[0].lost and over_tcp.made[0].lost)
    await utp.stopListening()
    await tcp.stopListening()


@pytest_twisted.ensureDeferred
async def test_giving_up_fails_as_tcp_does() -> None:
    kinds = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        for kind in (TCP4ClientEndpoint, UTPClientEndpoint):
            attempt = connectProtocol(kind(reactor, "127.0.0.1", silent.getsockname()[1]), Stream())
            attempt.cancel()
            with pytest.raises(error.ConnectingCancelledError) as told:
                await attempt
            kinds.append((told.type, told.value.address.host, told.value.address.port))
    assert kinds[0] == kinds[1]
