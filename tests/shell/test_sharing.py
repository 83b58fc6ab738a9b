"""Who shares which UDP port: clients among each other and with listeners, other protocols, and adopted sockets."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint, IUDPTransport
from twisted.internet.protocol import ClientFactory, ConnectedDatagramProtocol, DatagramProtocol
from twisted.logger import globalLogPublisher
from zope.interface.verify import verifyObject

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, ScriptedPeer, Stream, pause, until
from tests.wire.test_transfer import pattern
from txutp import (
    AdoptedUTPServerEndpoint,
    Ledbat,
    Settings,
    UTPClientEndpoint,
    UTPProtocol,
    UTPServerEndpoint,
    adoptUTPPort,
    connectUTP,
    listenUTP,
)
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN
from txutp.core.stats import PortCounters
from txutp.sharing import SharedPorts
from txutp.testing import Datagram, Link, Network, Recorder

LOCAL = "127.0.0.1"
OTHER_PORT = 7_000


class Scene:
    """A server on one host, and clients on another."""

    def __init__(self, link: Link | None = None, protocol: type[Stream] = Stream, seed: int = 1) -> None:
        self.network = Network(seed)
        self.network.connect(CLIENT, SERVER, link or Link(delay_us=10_000))
        self.here, self.there = self.network.reactor(CLIENT), self.network.reactor(SERVER)
        self.accepting, self.connecting = Accepting(protocol), Accepting(protocol)
        self.failures: list[Any] = []
        self.server = listenUTP(self.there, PORT, self.accepting)

    def begin(self, **options: Any) -> Deferred[Any]:
        """A client that begins to connect."""
        port = options.pop("port", PORT)
        attempt = UTPClientEndpoint(self.here, SERVER, port, **options).connect(self.connecting)
        return attempt.addErrback(self.failures.append)

    def connect(self, **options: Any) -> Stream:
        """A client that is connected; its server is the last one that was accepted."""
        accepted = len(self.accepting.made)
        made: list[Stream] = []
        self.begin(**options).addCallback(made.append)
        assert self.run(until=lambda: bool(made) and len(self.accepting.made) > accepted), self.failures
        return made[0]

    def run(self, seconds: float = 60, until: Callable[[], bool] | None = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def ports_here(self) -> list[int]:
        """The UDP ports that are open on the host of the clients."""
        return [number for host, number in self.network.ports if host == CLIENT]


def local_port(stream: Stream) -> int:
    assert stream.transport is not None
    return int(stream.transport.getHost().port)


# -- clients among each other --


def test_clients_share_a_udp_port_that_closes_with_the_last_of_them() -> None:
    """In the turn after the last one has heard of its end it is gone, and no timer is left."""
    ports_after_the_end: list[int] = []

    class Watching(Stream):
        def connectionLost(self, reason: Any = None) -> None:
            super().connectionLost(reason)
            if self in scene.connecting.made:
                assert len(scene.ports_here) == 1
                scene.here.callLater(0, scene.here.callLater, 0, look)

    def look() -> None:
        ports_after_the_end.append(len(scene.ports_here))

    scene = Scene(protocol=Watching)
    clients = [scene.connect() for _ in range(3)]
    assert len({local_port(client) for client in clients}) == 1
    assert scene.ports_here == [local_port(clients[0])]
    for client in clients:
        client.transport.write(b"hello")
        client.transport.loseConnection()
        scene.run(1)
        assert client.lost_type is error.ConnectionDone
    assert ports_after_the_end == [1, 1, 0]
    assert scene.here.getDelayedCalls() == []
    assert [bytes(server.received) for server in scene.accepting.made] == [b"hello"] * 3


def test_all_that_end_in_one_turn_leave_nothing() -> None:
    scene = Scene()
    clients = [scene.connect() for _ in range(5)]
    for client in clients:
        client.transport.abortConnection()
    scene.run(0.001)
    assert all(client.lost_type is error.ConnectionAborted for client in clients)
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


@pytest.mark.parametrize("when", ["at once", "in the next turn", "later"])
def test_who_connects_right_after_the_last_finds_its_port_and_who_comes_later_a_new_one(when: str) -> None:
    ports: list[list[int]] = []

    class Reconnecting(ClientFactory):
        noisy = False
        protocol = Stream

        def clientConnectionLost(self, connector: Any, reason: Any) -> None:
            ports.append(scene.ports_here)
            if len(ports) > 1:
                return
            if when == "at once":
                connector.connect()
            else:
                scene.here.callLater(0 if when == "in the next turn" else 0.1, connector.connect)

    scene = Scene()
    connector = connectUTP(scene.here, SERVER, PORT, Reconnecting())
    scene.run(1)
    connector.disconnect()
    scene.run(1)
    assert connector.state == "connected"
    connector.disconnect()
    scene.run(1)
    assert len(ports) == 2
    assert (ports[0] == ports[1]) == (when != "later")
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_ip_versions_and_limits_do_not_share() -> None:
    scene = Scene()
    ours = [
        local_port(scene.connect()),
        local_port(scene.connect(settings=Settings(congestion=Ledbat, receive_buffer_bytes=50_000))),
        local_port(scene.connect(settings=Settings(maximum_connections=9))),
        local_port(scene.connect(bindAddress=CLIENT)),
        local_port(scene.connect(bindAddress=CLIENT)),
    ]
    assert ours[0] == ours[1]
    assert ours[3] == ours[4]
    assert len(set(ours)) == len(scene.ports_here) == 3


def test_each_connection_on_a_shared_port_has_its_own_settings() -> None:
    scene = Scene()
    small = scene.connect(settings=Settings(congestion=Ledbat, receive_buffer_bytes=50_000, maximum_datagram_bytes=600))
    large = scene.connect()
    assert (small.connection.settings.congestion, large.connection.settings) == (Ledbat, Settings())
    assert small.transport.stats().receive_window == 50_000
    assert (small.transport.stats().mss, large.transport.stats().mss) == (580, 1_382)


def test_beyond_the_limit_of_a_shared_port_connecting_fails_with_the_limit() -> None:
    scene = Scene()
    settings = Settings(maximum_connections=2)
    for _ in range(3):
        scene.begin(settings=settings)
    scene.run(1)
    assert len(scene.connecting.made) == 2
    assert scene.failures[0].check(error.ConnectError)
    assert "maximum_connections is 2" in str(scene.failures[0].value)


def test_the_failure_of_one_is_none_of_the_others() -> None:
    """One is refused, one is reset, one is cancelled, one never gets an answer; the fifth does not notice."""
    scene = Scene()
    silent = ScriptedPeer(scene.there, 1)
    refusing = listenUTP(scene.there, 2, Accepting())
    refusing._utp.stop_accepting()  # type: ignore[union-attr]
    steady = scene.connect()
    doomed = scene.connect()
    scene.begin(port=1, timeout=5)
    scene.begin(port=2)
    cancelled = scene.begin(port=1)
    scene.run(0.1)
    cancelled.cancel()
    scene.accepting.made[1].transport.abortConnection()  # type: ignore[union-attr]
    scene.run(10)
    kinds = [failure.type for failure in scene.failures]
    assert kinds == [error.ConnectionRefusedError, error.ConnectingCancelledError, error.TimeoutError]
    assert doomed.lost_type is error.ConnectionLost
    assert not steady.lost
    steady.transport.write(b"still here")
    scene.run(1)
    assert bytes(scene.accepting.made[0].received) == b"still here"
    assert {datagram[:1] for datagram in silent.datagrams} == {b"\x41"}
    assert len(scene.ports_here) == 1


@pytest.mark.parametrize("method", ["clientConnectionLost", "clientConnectionFailed"])
def test_a_factory_that_raises_hurts_only_itself(method: str) -> None:
    """What it raised is logged, and the others go on in the same turn."""
    logged: list[Any] = []

    def note(event: Any) -> None:
        if "log_failure" in event:
            logged.append(event["log_failure"].type)

    def fail(self: Any, connector: Any, reason: Any) -> None:
        raise ZeroDivisionError

    scene = Scene()
    raising = type("Raising", (ClientFactory,), {"noisy": False, "protocol": Stream, method: fail})
    refusing = listenUTP(scene.there, 2, Accepting())
    refusing._utp.stop_accepting()  # type: ignore[union-attr]
    globalLogPublisher.addObserver(note)
    try:
        first = connectUTP(scene.here, SERVER, PORT if method == "clientConnectionLost" else 2, raising())
        second = scene.connect()
        first.disconnect() if first.state == "connected" else None
        second.transport.loseConnection()
        scene.run(2)
    finally:
        globalLogPublisher.removeObserver(note)
    assert logged == [ZeroDivisionError]
    assert second.lost_type is error.ConnectionDone
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_a_cancelled_attempt_takes_an_unused_port_with_it() -> None:
    scene = Scene()
    attempt = scene.begin()
    scene.run(0.005)
    assert len(scene.ports_here) == 1
    attempt.cancel()
    scene.run(0.001)
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_the_peer_of_an_attempt_that_was_given_up_is_told() -> None:
    """Its SYN-ACK meets a RESET where the port is still open, so that it does not wait for the proof."""
    scene = Scene()
    scene.connect()
    attempt = scene.begin()
    scene.run(0.005)
    attempt.cancel()
    scene.run(0.1)
    assert scene.server.stats().half_open == 0
    assert scene.server.stats().connections == 1


def test_a_lost_port_tells_all_who_share_it() -> None:
    scene = Scene()
    clients = [scene.connect() for _ in range(3)]
    scene.begin(port=9)
    scene.run(0.01)
    scene.network.ports[CLIENT, local_port(clients[0])].stopListening()
    assert [client.lost_type for client in clients] == [error.ConnectionLost] * 3
    assert scene.failures[0].check(error.ConnectionLost)
    scene.run(0.001)
    assert scene.here.getDelayedCalls() == []


# -- the last ack --


class FlakyEnd:
    """A link hook that loses the first DATA, and then the client's answer to the server's first FIN."""

    def __init__(self) -> None:
        self.lost: list[int] = []
        self.fins = 0

    def up(self, datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is None or packet.type in self.lost:
            return
        if packet.type == ST_DATA or (packet.type == ST_STATE and self.fins):
            self.lost.append(packet.type)
            datagram.dropped = True

    def down(self, datagram: Datagram) -> None:
        packet = datagram.packet
        self.fins += packet is not None and packet.type == ST_FIN


def leaving_over_a_flaky_path(others: int = 0) -> tuple[Scene, Stream, FlakyEnd]:
    """A client that leaves now, and others on its port that were there before."""
    scene, flaky = Scene(), FlakyEnd()
    for _ in range(others):
        scene.connect()
    leaving = scene.connect()
    scene.network.link(CLIENT, SERVER).hook = flaky.up
    scene.network.link(SERVER, CLIENT).hook = flaky.down
    leaving.transport.write(pattern(30_000))
    leaving.transport.loseConnection()
    assert scene.run(5, until=lambda: ST_STATE in flaky.lost)
    scene.run(0.02)
    return scene, leaving, flaky


def test_a_client_among_others_does_not_wait_to_repeat_its_last_ack() -> None:
    """The port stays open for another one, and answers for it."""
    scene, leaving, flaky = leaving_over_a_flaky_path(others=1)
    server = scene.accepting.made[1]
    assert leaving.lost_type is error.ConnectionDone
    assert not server.lost
    assert scene.run(1.2, until=lambda: bool(server.lost))
    assert flaky.lost == [ST_DATA, ST_STATE]
    assert server.lost_type is error.ConnectionDone


def test_the_last_one_waits_to_repeat_its_last_ack() -> None:
    scene, leaving, flaky = leaving_over_a_flaky_path()
    server = scene.accepting.made[0]
    assert not leaving.lost
    assert not server.lost
    assert scene.run(1.2, until=lambda: bool(server.lost))
    assert flaky.lost == [ST_DATA, ST_STATE]
    assert scene.run(2, until=lambda: bool(leaving.lost))
    assert leaving.lost_type is server.lost_type is error.ConnectionDone
    scene.run(0.001)
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_the_last_one_waits_for_those_who_went_before() -> None:
    """The last ack of another one was lost, and the port that answers for it closes with the last."""
    scene, leaving, _ = leaving_over_a_flaky_path(others=1)
    staying = scene.connecting.made[0]
    staying.transport.loseConnection()
    assert scene.run(0.1, until=lambda: bool(scene.accepting.made[0].lost))
    scene.run(0.1)
    assert leaving.lost
    assert not staying.lost
    assert len(scene.ports_here) == 1
    assert scene.run(5, until=lambda: bool(staying.lost))
    assert staying.lost_type is scene.accepting.made[1].lost_type is error.ConnectionDone
    scene.run(0.001)
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_a_newcomer_ends_the_waiting() -> None:
    """The port stays open for the newcomer, so nobody has to wait any more."""
    scene, leaving, _ = leaving_over_a_flaky_path()
    assert not leaving.lost
    scene.begin()
    scene.run(0.001)
    assert leaving.lost_type is error.ConnectionDone
    scene.run(1)
    assert local_port(scene.connecting.made[1]) == local_port(leaving)


def test_a_port_that_is_lost_meanwhile_tells_those_who_wait() -> None:
    scene, leaving, _ = leaving_over_a_flaky_path()
    scene.network.ports[CLIENT, scene.ports_here[0]].stopListening()
    assert leaving.lost_type is error.ConnectionDone
    scene.run(0.001)
    assert scene.here.getDelayedCalls() == []


# -- clients and listeners --


@pytest.mark.parametrize("ours", [("", PORT), (CLIENT, PORT)])
def test_clients_leave_from_the_port_that_listens(ours: tuple[str, int]) -> None:
    scene = Scene()
    listening = listenUTP(scene.here, PORT, Accepting(), interface=ours[0])
    client = scene.connect(bindAddress=ours)
    assert local_port(client) == PORT
    assert scene.accepting.made[0].transport.getPeer().port == PORT  # type: ignore[union-attr]
    assert scene.ports_here == [PORT]
    # the listener ends, the client goes on; then it ends, and the listener is there again
    listening.stopListening()
    scene.run(1)
    client.transport.write(b"still here")
    scene.run(1)
    assert bytes(scene.accepting.made[0].received) == b"still here"
    listening = listenUTP(scene.here, PORT, Accepting(), interface=ours[0])
    client.transport.loseConnection()
    scene.run(1)
    assert client.lost_type is error.ConnectionDone
    assert scene.ports_here == [PORT]
    listening.stopListening()
    scene.run(1)
    assert scene.ports_here == []
    assert scene.here.getDelayedCalls() == []


def test_a_client_that_names_no_address_finds_the_listener_on_one() -> None:
    scene = Scene()
    listenUTP(scene.here, PORT, Accepting(), interface=CLIENT)
    client = clientFromString(scene.here, f"utp:{SERVER}:{PORT}:localPort={PORT}")
    client.connect(scene.connecting)
    scene.run(1)
    assert local_port(scene.connecting.made[0]) == PORT
    assert scene.ports_here == [PORT]


def test_a_client_that_names_a_port_has_it_alone_until_somebody_listens_there() -> None:
    """As with TCP, another client cannot bind it; but we may listen there, and then it is shared."""
    scene = Scene()
    client = scene.connect(bindAddress=("", OTHER_PORT))
    assert local_port(client) == OTHER_PORT
    scene.begin(bindAddress=("", OTHER_PORT))
    scene.run(0.1)
    assert scene.failures[0].check(error.ConnectBindError)
    arrivals = Accepting()
    listening = listenUTP(scene.here, OTHER_PORT, arrivals)
    UTPClientEndpoint(scene.there, CLIENT, OTHER_PORT).connect(Accepting())
    other = scene.connect(bindAddress=("", OTHER_PORT))
    assert len(arrivals.made) == 1
    for stream in (client, other, arrivals.made[0]):
        stream.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(5)
    assert scene.ports_here == [OTHER_PORT]
    listening.stopListening()
    scene.run(0.1)
    assert scene.ports_here == []


def test_a_client_that_names_its_port_finds_it_closed_when_it_hears_of_the_end() -> None:
    """So it can take it again at once."""
    ports_at_the_end: list[list[int]] = []

    class Watching(Stream):
        def connectionLost(self, reason: Any = None) -> None:
            super().connectionLost(reason)
            if self in scene.connecting.made:
                ports_at_the_end.append(scene.ports_here)
                scene.begin(bindAddress=("", OTHER_PORT))

    scene = Scene(protocol=Watching)
    scene.connect(bindAddress=("", OTHER_PORT)).transport.loseConnection()
    scene.run(1)
    assert ports_at_the_end == [[]]
    assert len(scene.connecting.made) == 2
    assert scene.failures == []


def test_of_several_listeners_the_one_on_the_way_to_the_peer_is_taken() -> None:
    """They have one port number on different addresses of ours."""
    ports, listening = SharedPorts(), []
    for host in ("192.0.2.1", "127.0.0.1", "198.51.100.1"):
        utp: Any = UTPProtocol(reactor, accept=lambda connection: None)
        utp._outbox.port, utp.port_address = utp, IPv4Address("UDP", host, PORT)
        listening.append(utp)
        ports.add(host, utp)
    assert ports.listening(("127.0.0.1", 9), "0.0.0.0", PORT) is listening[1]
    assert ports.listening(("127.0.0.1", 9), "198.51.100.1", PORT) is listening[2]
    assert ports.listening(("127.0.0.1", 9), "203.0.113.1", PORT) is None
    assert ports.listening(("::1", 9), "::", PORT) is None


def test_listening_again_on_a_port_that_is_left_open_takes_the_new_settings() -> None:
    """Connections that are up keep what they have; limits and new connections get the new ones."""
    pair = Pair()
    pair.ports[0].stopListening()
    pair.run(0.1)
    settings = Settings(congestion=Ledbat, receive_buffer_bytes=60_000, maximum_connections=2)
    again = Accepting()
    listening = listenUTP(pair.server_reactor, PORT, again, settings=settings)
    failures: list[Any] = []
    for _ in range(2):
        endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT, timeout=5)
        endpoint.connect(Accepting()).addErrback(failures.append)
    pair.run(10)
    assert len(failures) == 1
    (newcomer,) = again.made
    assert newcomer.connection.settings.congestion is Ledbat
    assert newcomer.transport.stats().receive_window == 60_000  # type: ignore[union-attr]
    assert pair.server.connection.settings == Settings()
    assert listening.stats().connections == 2


def test_two_listeners_do_not_share() -> None:
    scene = Scene()
    with pytest.raises(error.CannotListenError):
        listenUTP(scene.there, PORT, Accepting())


def test_reactors_do_not_share() -> None:
    scene = Scene()
    listenUTP(scene.there, OTHER_PORT, Accepting())
    client = scene.connect(bindAddress=("", OTHER_PORT))
    assert local_port(client) == OTHER_PORT
    assert scene.ports_here == [OTHER_PORT]


@pytest.mark.parametrize(
    ("address", "kind", "says"),
    [
        (("127.0.0.1",), TypeError, r"bindAddress is \(host, port\), not"),
        (7, TypeError, r"bindAddress is \(host, port\), not 7"),
        (("127.0.0.1", "6881"), TypeError, "with a number as port"),
        (("local\0host", 0), ValueError, "numeric address of ours"),
        (("", 70_000), ValueError, "from 0 to 65535"),
    ],
)
def test_a_wrong_bind_address_is_told_at_once(address: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        connectUTP(reactor, LOCAL, 9, ClientFactory(), bindAddress=address)
    with pytest.raises(kind, match=says):
        UTPClientEndpoint(reactor, LOCAL, 9, bindAddress=address)


def test_an_ipv6_bind_address_reaches_no_ipv4_address() -> None:
    scene = Scene()
    scene.begin(bindAddress="fd00::1")
    scene.run(0.01)
    assert scene.failures[0].check(error.ConnectBindError)
    assert "10.0.0.1 has no address that can be reached from fd00::1" in str(scene.failures[0].value)


@pytest_twisted.ensureDeferred
async def test_on_real_sockets_clients_share_a_port_or_use_the_listener() -> None:
    accepting, connecting = Accepting(), Accepting()
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(accepting)
    other = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(Accepting())
    number, ours = port.getHost().port, other.getHost().port
    readers = len(reactor.getReaders())  # type: ignore[attr-defined]
    clients = [await UTPClientEndpoint(reactor, LOCAL, number).connect(connecting) for _ in range(3)]
    assert len(reactor.getReaders()) == readers + 1  # type: ignore[attr-defined]
    clients.append(await clientFromString(reactor, f"utp:{LOCAL}:{number}:localPort={ours}").connect(connecting))
    clients.append(await UTPClientEndpoint(reactor, LOCAL, number, bindAddress=(LOCAL, ours)).connect(connecting))
    assert len(reactor.getReaders()) == readers + 1  # type: ignore[attr-defined]
    assert [local_port(client) == ours for client in clients] == [False] * 3 + [True] * 2
    for client in clients:
        client.transport.write(b"hello")
    await until(lambda: [bytes(server.received) for server in accepting.made] == [b"hello"] * 5)
    for client in clients:
        client.transport.loseConnection()
    await until(lambda: all(stream.lost for stream in [*accepting.made, *clients]))
    assert len(reactor.getReaders()) == readers  # type: ignore[attr-defined]
    await port.stopListening()
    await other.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_icmp_error_ends_only_the_attempt_that_it_is_about() -> None:
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(accepting)
    steady = await UTPClientEndpoint(reactor, LOCAL, port.getHost().port).connect(Accepting())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((LOCAL, 0))
        nowhere = probe.getsockname()[1]
    for _ in range(3):
        with pytest.raises(error.ConnectionRefusedError):
            await UTPClientEndpoint(reactor, LOCAL, nowhere, timeout=5).connect(Accepting())
        steady.transport.write(b"x")
    await until(lambda: bytes(accepting.made[0].received) == b"xxx")
    steady.transport.loseConnection()
    await until(lambda: steady.lost and accepting.made[0].lost)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_client_leaves_over_ipv4_from_a_listener_with_both_versions() -> None:
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(accepting)
    both = await UTPServerEndpoint(reactor, 0, interface="::").listen(Accepting())
    ours = both.getHost().port
    client = await UTPClientEndpoint(reactor, LOCAL, port.getHost().port, bindAddress=("", ours)).connect(Accepting())
    await until(lambda: accepting.made)
    assert accepting.made[0].transport.getPeer().port == ours
    client.transport.write(b"hello")
    await until(lambda: bytes(accepting.made[0].received) == b"hello")
    client.transport.loseConnection()
    await until(lambda: client.lost and accepting.made[0].lost)
    await port.stopListening()
    await both.stopListening()


# -- simultaneous open --


class Filtered(Network):
    """Hosts behind NATs: they let in only what comes from where something went to."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.filters = True
        self.swallowed = 0
        self._opened: set[tuple[Any, Any]] = set()

    def transmit(self, datagram: Datagram) -> None:
        self._opened.add((datagram.source, datagram.destination))
        super().transmit(datagram)

    def _arrive(self, datagram: Datagram) -> None:
        if self.filters and (datagram.destination, datagram.source) not in self._opened:
            self.swallowed += 1
        else:
            super()._arrive(datagram)


class Punching:
    """Two peers behind a NAT each, who connect to each other from the ports on which they listen."""

    def __init__(self, delay_us: int = 50_000, later_seconds: float = 0.0, filters: bool = True) -> None:
        self.network = Filtered(seed=4)
        self.network.filters = filters
        self.network.connect(CLIENT, SERVER, Link(delay_us=delay_us))
        self.recorders: dict[str, Recorder] = {}
        self.accepting: dict[str, Accepting] = {}
        self.connecting: dict[str, Accepting] = {}
        for here, there in ((CLIENT, SERVER), (SERVER, CLIENT)):
            self.recorders[here] = self.network.link(here, there).hook = Recorder()
            self.accepting[here], self.connecting[here] = Accepting(), Accepting()
            listenUTP(self.network.reactor(here), PORT, self.accepting[here])
        self._begin(CLIENT, SERVER)
        self.network.run(later_seconds)
        self._begin(SERVER, CLIENT)

    def syns(self, here: str) -> list[int]:
        """The ids of the SYNs that left a host."""
        return [packet.connection_id for packet in self.recorders[here].packets if packet.type == ST_SYN]

    def _begin(self, here: str, there: str) -> None:
        endpoint = UTPClientEndpoint(self.network.reactor(here), there, PORT, bindAddress=("", PORT))
        endpoint.connect(self.connecting[here])

    @property
    def done(self) -> bool:
        """Both have connected, and both were connected to."""
        return all(factory.made for factory in [*self.accepting.values(), *self.connecting.values()])

    def talk(self) -> None:
        """Everybody says who they are to everybody."""
        for here in (CLIENT, SERVER):
            self.accepting[here].made[0].transport.write(b"from acceptor")  # type: ignore[union-attr]
            self.connecting[here].made[0].transport.write(b"from initiator")  # type: ignore[union-attr]
        self.network.run(1)
        for here in (CLIENT, SERVER):
            assert bytes(self.accepting[here].made[0].received) == b"from initiator"
            assert bytes(self.connecting[here].made[0].received) == b"from acceptor"


@pytest.mark.parametrize("later_seconds", [0.25, 0.4, 1.0, 2.9, 4.0, 12.0])
@pytest.mark.parametrize("delay_us", [5_000, 50_000, 200_000])
def test_two_who_connect_to_each_other_get_through_their_filters(delay_us: int, later_seconds: float) -> None:
    """The first SYN opens our own filter and dies at the other one; the peer's SYN then tells that the way is open."""
    scene = Punching(delay_us, later_seconds)
    started_us = scene.network.now_us
    assert scene.network.run(10, until=lambda: scene.done)
    assert scene.network.now_us - started_us < 1_000_000
    assert scene.network.swallowed
    scene.talk()


@pytest.mark.parametrize("filters", [True, False])
def test_where_syns_cross_nothing_is_repeated(filters: bool) -> None:
    """Each has opened the way of the other one, and the answer to our SYN is under way when the peer's comes."""
    scene = Punching(delay_us=100_000, filters=filters)
    assert scene.network.run(10, until=lambda: scene.done)
    assert [len(scene.syns(here)) for here in (CLIENT, SERVER)] == [1, 1]
    scene.talk()


def test_a_syn_that_is_repeated_early_counts_for_the_fresh_id() -> None:
    """Two SYNs with one id, then another one: also when the second was sent because a SYN of the peer came."""
    network = Network(seed=4)
    peer = ScriptedPeer(network.reactor(SERVER), PORT)
    peer.remote = (CLIENT, PORT)
    listenUTP(network.reactor(CLIENT), PORT, Accepting())
    UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, bindAddress=("", PORT)).connect(Accepting())
    network.run(0.1)
    peer.syn(1_000, 5_000)
    network.run(20)
    first, second, third, *others = [packet.connection_id for packet in peer.packets if packet.type == ST_SYN]
    assert first == second != third
    assert len(others) <= 1


def test_strangers_do_not_hurry_us() -> None:
    """A SYN from another port of the same host is no sign."""
    scene = Scene()
    silent = ScriptedPeer(scene.there, 1)
    stranger = ScriptedPeer(scene.there, 3)
    listenUTP(scene.here, PORT, Accepting())
    scene.begin(port=1, bindAddress=("", PORT))
    scene.run(0.7)
    stranger.remote = (CLIENT, PORT)
    stranger.syn(1_000, 5_000)
    scene.run(1)
    assert len(silent.datagrams) == 1


# -- other protocols on the port --


class Node(DatagramProtocol):
    """Answers the ping of a Mainline DHT (BEP 5), as a node of its own would."""

    noisy = False

    def __init__(self) -> None:
        self.news: list[Any] = []

    def startProtocol(self) -> None:
        self.news.append("start")

    def stopProtocol(self) -> None:
        self.news.append("stop")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        bencode2 = pytest.importorskip("bencode2")
        if datagram == b"raise":
            raise ZeroDivisionError
        query = bencode2.bdecode(datagram)
        self.news.append(query[b"q"])
        answer = {b"t": query[b"t"], b"y": b"r", b"r": {b"id": b"n" * 20}}
        self.transport.write(bencode2.bencode(answer), addr)  # type: ignore[union-attr]


PING = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"
PONG = b"d1:rd2:id20:nnnnnnnnnnnnnnnnnnnne1:t2:aa1:y1:re"


def test_a_dht_node_shares_the_port_of_uTP() -> None:
    pytest.importorskip("bencode2")
    network = Network(seed=2)
    there = network.reactor(SERVER)
    accepting, node = Accepting(), Node()
    port = listenUTP(there, PORT, accepting, datagramProtocol=node)
    transport: Any = node.transport
    verifyObject(IUDPTransport, transport)
    verifyObject(IListeningPort, transport)
    assert transport.getHost() == port.getHost()
    client = Accepting()
    UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT).connect(client)
    asker = ScriptedPeer(network.reactor(CLIENT))
    network.run(0.1)
    client.made[0].transport.write(pattern(300_000))  # type: ignore[union-attr]
    for _ in range(20):
        asker.send_bytes(PING)
        network.run(0.01)
    network.run(5)
    assert asker.datagrams == [PONG] * 20
    assert bytes(accepting.made[0].received) == pattern(300_000)
    assert port.stats().foreign == 20

    # an exception of the node is its own affair
    asker.send_bytes(b"raise")
    asker.send_bytes(PING)
    network.run(0.1)
    assert len(asker.datagrams) == 21

    # it stops with the port, though the UDP port lives on for the connection
    port.stopListening()
    network.run(0.1)
    assert node.news == ["start", *[b"ping"] * 21, "stop"]
    assert node.transport is None
    asker.send_bytes(PING)
    network.run(0.1)
    assert len(asker.datagrams) == 21
    transport.write(PING, (CLIENT, 1))
    with pytest.raises(RuntimeError, match="not open"):
        transport.getHost()
    assert transport.stopListening() is None


def test_the_other_protocol_may_leave_alone_and_from_within_a_datagram() -> None:
    class Leaving(Node):
        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.transport.stopListening().addCallback(lambda result: self.news.append("left"))  # type: ignore[union-attr]

    network = Network(seed=2)
    accepting, node = Accepting(), Leaving()
    port = listenUTP(network.reactor(SERVER), PORT, accepting, datagramProtocol=node)
    asker = ScriptedPeer(network.reactor(CLIENT))
    asker.send_bytes(PING)
    network.run(0.1)
    asker.send_bytes(PING)
    network.run(0.1)
    assert node.news == ["start", "stop", "left"]
    UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT).connect(Accepting())
    network.run(0.1)
    assert len(accepting.made) == 1
    assert port.connected


def test_a_lost_port_stops_the_other_protocol() -> None:
    network = Network(seed=2)
    node = Node()
    listenUTP(network.reactor(SERVER), PORT, Accepting(), datagramProtocol=node)
    network.ports[SERVER, PORT].stopListening()
    assert node.news == ["start", "stop"]


def test_a_protocol_that_cannot_start_leaves_no_port() -> None:
    class Broken(Node):
        def startProtocol(self) -> None:
            raise ZeroDivisionError

    network = Network(seed=2)
    with pytest.raises(ZeroDivisionError):
        listenUTP(network.reactor(SERVER), PORT, Accepting(), datagramProtocol=Broken())
    network.run(0.1)
    assert network.ports == {}


@pytest.mark.parametrize("wrong", [Node, ConnectedDatagramProtocol(), Stream(), "dht"])
def test_what_is_no_datagram_protocol_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(TypeError, match="datagramProtocol is an instance of a DatagramProtocol, not"):
        listenUTP(Network().reactor(SERVER), PORT, Accepting(), datagramProtocol=wrong)
    with pytest.raises(TypeError, match="datagramProtocol is"):
        UTPServerEndpoint(Network().reactor(SERVER), PORT, datagramProtocol=wrong)


def test_wrong_writes_of_the_other_protocol_raise_as_they_do_on_a_port_of_its_own() -> None:
    node = Node()
    listenUTP(Network().reactor(SERVER), PORT, Accepting(), datagramProtocol=node)
    transport: Any = node.transport
    with pytest.raises(error.InvalidAddressError, match="not hostnames"):
        transport.write(b"x", ("localhost", 1))
    with pytest.raises(error.InvalidAddressError, match="this port is for IPv4"):
        transport.write(b"x", ("::1", 1))
    with pytest.raises(error.MessageLengthError):
        transport.write(bytes(70_000), (CLIENT, 1))
    with pytest.raises(ValueError, match="needs an address"):
        transport.write(b"x")
    with pytest.raises(RuntimeError, match="shared with uTP"):
        transport.connect(CLIENT, 1)
    transport.writeSequence([b"x", b"y"], (CLIENT, 1))


@pytest_twisted.ensureDeferred
async def test_on_a_real_socket_a_dht_ping_is_answered_while_uTP_flows() -> None:
    pytest.importorskip("bencode2")

    class Asker(DatagramProtocol):
        noisy = False
        answers: list[bytes] = []

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.answers.append(datagram)

    accepting, node, asker = Accepting(), Node(), Asker()
    endpoint = UTPServerEndpoint(reactor, 0, interface=LOCAL, datagramProtocol=node)
    port = await endpoint.listen(accepting)
    where = (LOCAL, port.getHost().port)
    asking = reactor.listenUDP(0, asker, LOCAL)  # type: ignore[attr-defined]
    client = await UTPClientEndpoint(reactor, *where).connect(Accepting())
    data = pattern(20_000_000)
    client.transport.write(data)
    pings = 0
    while not accepting.made or len(accepting.made[0].received) < len(data):
        asking.write(PING, where)
        pings += 1
        await pause(0.001)
    await until(lambda: len(asker.answers) == pings)
    assert set(asker.answers) == {PONG}
    assert bytes(accepting.made[0].received) == data
    assert port.stats().foreign == pings
    client.transport.loseConnection()
    await until(lambda: client.lost and accepting.made[0].lost)
    await port.stopListening()
    await asking.stopListening()
    assert node.news[-1] == "stop"


# -- sockets that are there already --


def bound(kind: int = socket.SOCK_DGRAM, family: int = socket.AF_INET) -> socket.socket:
    made = socket.socket(family, kind)
    made.bind(("::1" if family == socket.AF_INET6 else LOCAL, 0))
    return made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest_twisted.ensureDeferred
async def test_a_socket_that_was_bound_and_used_before_is_adopted(family: int) -> None:
    """What came before is answered, and the port is as good as one of ours: it sends and takes whole bursts."""
    theirs = bound(family=family)
    host, number = theirs.getsockname()[:2]
    accepting, connecting = Accepting(HalfStream), Accepting()
    attempt = UTPClientEndpoint(reactor, host, number, timeout=9).connect(connecting)
    await pause(0.05)
    assert theirs.recv(100, socket.MSG_PEEK)[:1] == b"\x41"

    port = adoptUTPPort(reactor, theirs.fileno(), accepting)
    theirs.close()
    assert port.getHost().port == number
    client = await attempt
    plain = await UTPServerEndpoint(reactor, 0, interface=host).listen(Accepting())
    ours, normal = port._utp.transport, plain._utp.transport
    assert (ours.offload_send, ours.offload_receive) == (normal.offload_send, normal.offload_receive)
    data = pattern(5_000_000)
    client.transport.write(data)
    client.transport.loseConnection()
    await until(lambda: accepting.made and accepting.made[0].read_lost)
    assert bytes(accepting.made[0].received) == data
    assert port.stats().granted_receive_bytes == plain.stats().granted_receive_bytes

    # clients leave from there as well
    back = await UTPServerEndpoint(reactor, 0, interface=host).listen(Accepting())
    sharing = UTPClientEndpoint(reactor, host, back.getHost().port, bindAddress=(host, number))
    leaving = await sharing.connect(Accepting())
    assert local_port(leaving) == number
    accepting.made[0].transport.loseConnection()
    leaving.transport.loseConnection()
    await until(lambda: client.lost and leaving.lost)
    for listening in (port, plain, back):
        await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_endpoints_adopt_by_object_and_by_string() -> None:
    theirs = bound()
    number = theirs.getsockname()[1]
    endpoint = serverFromString(reactor, f"utp:fd={theirs.detach()}:backlog=7:congestion=ledbat")
    verifyObject(IStreamServerEndpoint, endpoint)
    assert isinstance(endpoint, AdoptedUTPServerEndpoint)
    accepting = Accepting()
    port = await endpoint.listen(accepting)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(endpoint._fileno)
    assert port.getHost().port == number
    with pytest.raises(error.AlreadyListened):
        await endpoint.listen(Accepting())
    client = await UTPClientEndpoint(reactor, LOCAL, number).connect(Accepting())
    await until(lambda: accepting.made)
    assert accepting.made[0].connection.settings.congestion is Ledbat
    client.transport.loseConnection()
    await until(lambda: client.lost and accepting.made[0].lost)
    await port.stopListening()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: bound(socket.SOCK_STREAM), "not for datagrams"),
        (lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM), "not bound to a port"),
        (lambda: socket.socketpair()[0], "of another address family"),
    ],
)
def test_a_socket_that_cannot_be_adopted_is_told_why(make: Any, says: str) -> None:
    wrong = make()
    with wrong, pytest.raises(ValueError, match=f"has to be a bound UDP socket, but it is {says}"):
        adoptUTPPort(reactor, wrong.fileno(), Accepting())


def test_a_connected_socket_is_not_adopted() -> None:
    with bound() as theirs:
        theirs.connect((LOCAL, 9))
        with pytest.raises(ValueError, match="it is connected to"):
            adoptUTPPort(reactor, theirs.fileno(), Accepting())


def test_what_is_no_socket_is_told() -> None:
    with bound() as theirs:
        number = theirs.fileno()
    with pytest.raises(ValueError, match="not an open socket"):
        adoptUTPPort(reactor, number, Accepting())
    with pytest.raises(TypeError, match="a file descriptor is a whole number, not 'x'"):
        adoptUTPPort(reactor, "x", Accepting())  # type: ignore[arg-type]


# -- stats --


def test_a_port_tells_how_it_is_doing() -> None:
    scene = Scene()
    client = scene.connect()
    stranger = ScriptedPeer(scene.here)
    stranger.syn(1_000, 5_000)
    stranger.send_bytes(b"who is there")
    stranger.send(ST_RESET, connection_id=77)
    stranger.send(ST_DATA, connection_id=99, data=b"?")
    scene.run(0.1)
    stats = scene.server.stats()
    assert (stats.connections, stats.half_open) == (2, 1)
    assert (stats.foreign, stats.dropped_unknown, stats.resets_sent, stats.syns_refused) == (1, 1, 1, 0)
    assert stats.granted_receive_bytes is stats.granted_send_bytes is None
    client.transport.write(b"x")
    scene.run(0.1)
    assert stats.connections == 2, "it is a snapshot"
    assert scene.server.stats().datagrams_received > stats.datagrams_received
    with pytest.raises(AttributeError):
        stats.connections = 9  # type: ignore[misc]
    assert set(PortCounters.__slots__) <= set(asdict(stats))


def test_a_port_that_was_never_started_has_nothing_to_tell() -> None:
    scene = Scene()
    scene.server.stopListening()
    scene.run(0.1)
    assert scene.server.stats().connections == 0


@pytest_twisted.ensureDeferred
async def test_a_real_port_tells_what_the_kernel_granted() -> None:
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(Accepting())
    stats = port.stats()
    handle = port._utp.transport.getHandle()
    assert stats.granted_receive_bytes == handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert stats.granted_send_bytes == handle.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert stats.asked_buffer_bytes >= 1 << 20
    await port.stopListening()
