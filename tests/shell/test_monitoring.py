"""The control socket and the metrics: right figures, escaped labels, counters that only grow, strangers kept out."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.application.service import MultiService
from twisted.internet import defer, reactor
from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Protocol
from twisted.web.error import UnsupportedMethod
from twisted.web.resource import IResource
from twisted.web.test.requesthelper import DummyRequest

from tests.support import CLIENT, SERVER, Accepting, Pair, pause, until
from txutp import ConnectionStats, UTPClientEndpoint, listenUTP
from txutp.monitoring import ControlSocketService, MetricsResource, openControlSocket
from txutp.monitoring.control import MAXIMUM_CLIENTS, MAXIMUM_REQUEST_BYTES, PIECE_CONNECTIONS
from txutp.monitoring.figures import CLIENTS, MAXIMUM_NAMES, OTHERS
from txutp.testing import Link, Network

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no UNIX sockets")

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scraped(resource: MetricsResource) -> Samples:
    """Returns what Prometheus' own parser reads."""
    parser = pytest.importorskip("prometheus_client.parser")
    request = DummyRequest([b"metrics"])
    text = resource.render(request).decode()
    assert request.responseHeaders.getRawHeaders(b"content-type") == [b"text/plain; version=0.0.4; charset=utf-8"]
    found: Samples = {}
    names = []
    for family in parser.text_string_to_metric_families(text):
        assert family.documentation
        names.append(family.name)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    assert len(names) == len(set(names))
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """Returns the one sample with a name that has these labels."""
    [found] = [number for (its, of), number in samples.items() if its == name and labels.items() <= dict(of).items()]
    return found


# Prometheus


def test_the_figures_are_those_of_the_connection() -> None:
    """Bytes, retransmissions, states and ports, of a transfer over a path that loses packets."""
    pair = Pair(Link(delay_us=10_000, loss=0.05))
    resource = MetricsResource(pair.client_reactor)
    pair.client.transport.write(bytes(100_000))
    pair.run(10)
    stats = pair.client.transport.stats()

    samples = scraped(resource)

    assert value(samples, "txutp_stream_acknowledged_bytes_total", port=CLIENTS) == 100_000
    assert value(samples, "txutp_stream_sent_bytes_total") == stats.bytes_sent
    assert value(samples, "txutp_packets_retransmitted_total") == stats.segs_retrans > 0
    assert value(samples, "txutp_packets_received_total") == stats.segs_in
    assert value(samples, "txutp_connections", state="CONNECTED") == 1
    assert value(samples, "txutp_connections", state="SYN_SENT") == 0
    assert value(samples, "txutp_connections_begun_total") == 1
    [(_, utp)] = MetricsResource(pair.client_reactor)._monitor.ports()
    assert value(samples, "txutp_datagrams_sent_total") == utp.multiplexer.counters.datagrams_sent
    assert not any("peer" in dict(labels) for _, labels in samples)
    server = scraped(MetricsResource(pair.server_reactor))
    assert value(server, "txutp_stream_received_bytes_total", port=f"{SERVER}:6881") == 100_000


def test_each_connection_if_one_wants_that() -> None:
    """By peer and id; times in seconds."""
    pair = Pair(Link(delay_us=10_000, rate_bytes_per_second=500_000))
    pair.client.transport.write(bytes(1_000_000))
    pair.run(1)
    stats = pair.client.transport.stats()

    samples = scraped(MetricsResource(pair.client_reactor, each_connection=True))

    labels = {"peer": f"{SERVER}:6881", "port": CLIENTS, "id": str(pair.client.connection.receive_id)}
    assert value(samples, "txutp_connection_rtt_seconds", **labels) == pytest.approx(stats.rtt / 1_000)
    assert value(samples, "txutp_connection_queue_delay_seconds", **labels) == pytest.approx(stats.queue_delay / 1_000)
    assert value(samples, "txutp_connection_congestion_window_bytes", **labels) == stats.cwnd
    assert value(samples, "txutp_connection_acknowledged_bytes_total", **labels) == stats.bytes_acked


@pytest.mark.parametrize(
    "text", ['"', "\\", "\n", '\\"', "\\n", 'a"b\\c\nd', "ünïcödé", "", "}", "{a=", ","], ids=ascii
)
def test_labels_are_escaped(text: str) -> None:
    """Whatever a label's value is, the parser returns it."""
    pair = Pair(Link(delay_us=10_000))

    samples = scraped(MetricsResource(pair.client_reactor, labels={"service": text, "other": "x"}))

    assert {dict(labels)["service"] for _, labels in samples} == {text}
    assert {dict(labels)["other"] for _, labels in samples} == {"x"}


@pytest.mark.parametrize("name", ["port", "state", "peer", "id", "1a", "a-b", "a b", "", "__name__", "ä", "a\n"])
def test_names_of_labels_are_checked(name: str) -> None:
    """What Prometheus would not take, or what is taken, is told where the resource is made."""
    with pytest.raises(ValueError, match="label"):
        MetricsResource(Network().reactor("10.0.0.1"), labels={name: "x"})


def test_counters_only_grow() -> None:
    """While connections begin, send, and end, and ports open and close: at each moment no less than before."""
    network = Network(3)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000, rate_bytes_per_second=2_000_000, loss=0.03))
    server, client = network.reactor(SERVER), network.reactor(CLIENT)
    resources = [MetricsResource(server), MetricsResource(client)]
    before: list[Samples] = [{}, {}]
    grown = looks = 0

    def look() -> None:
        nonlocal grown, looks
        looks += 1
        for place, resource in enumerate(resources):
            samples = {key: number for key, number in scraped(resource).items() if key[0].endswith("_total")}
            for key, number in before[place].items():
                assert samples[key] >= number, key
                grown += samples[key] > number
            before[place] = samples

    for port in (1, 2):
        accepting = Accepting()
        listening = listenUTP(server, port, accepting)
        connecting = Accepting()
        for _ in range(3):
            UTPClientEndpoint(client, SERVER, port).connect(connecting)
        assert network.run(30, until=lambda made=connecting.made: len(made) == 3), "a SYN may be lost"
        for number, stream in enumerate(connecting.made):
            stream.transport.write(bytes(500_000 * number))
            stream.transport.loseConnection() if number else stream.transport.abortConnection()
        for _ in range(40):
            network.run(0.05)
            look()
        network.run(60)
        look()
        listening.stopListening()
        network.run(60)
        look()

    assert looks > 80
    assert grown > 200
    assert value(before[0], "txutp_stream_received_bytes_total", port=f"{SERVER}:1") == 1_500_000
    assert value(before[1], "txutp_stream_acknowledged_bytes_total", port=CLIENTS) == 3_000_000
    assert value(before[1], "txutp_connections_begun_total", port=CLIENTS) == 6
    assert [len(resource._monitor.ports()) for resource in resources] == [0, 0]


def test_a_service_that_changes_its_port_makes_no_end_of_series() -> None:
    """Closed ports beyond a number of names are one."""
    network = Network()
    server = network.reactor(SERVER)
    resource = MetricsResource(server)
    for port in range(1, MAXIMUM_NAMES + 4):
        listenUTP(server, port, Accepting()).stopListening()
        network.run(0.1)

    ports = {dict(labels)["port"] for _, labels in scraped(resource)}

    assert len(ports) == MAXIMUM_NAMES + 1
    assert OTHERS in ports


def test_a_resource_can_be_mounted() -> None:
    """It is what ``twisted.web`` wants; it answers HEAD, and takes no POST."""
    resource = MetricsResource(Network().reactor("10.0.0.1"))

    assert IResource.providedBy(resource)
    assert resource.isLeaf
    request = DummyRequest([b""])
    request.method = b"HEAD"
    assert resource.render(request)
    request.method = b"POST"
    with pytest.raises(UnsupportedMethod):
        resource.render(request)


# The control socket


class Client(Protocol):
    """Asks, and keeps the lines that come."""

    def __init__(self) -> None:
        self.text = b""
        self.lost = False

    def dataReceived(self, data: bytes) -> None:
        self.text += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.text.split(b"\n")[:-1]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A name for a socket, short enough for every system."""
    before = os.getcwd()
    os.chdir(tmp_path)
    yield Path("s")
    os.chdir(before)


async def connected(place: Path) -> Client:
    return await connectProtocol(UNIXClientEndpoint(reactor, str(place)), Client())


async def stop(port: Any) -> None:
    await defer.maybeDeferred(port.stopListening)


@pytest_twisted.ensureDeferred
async def test_a_line_is_answered_by_a_line(place: Path) -> None:
    """With each connection and port of the reactor; a client may ask again, and ask twice at once."""
    accepting, connecting = Accepting(), Accepting()
    listening = listenUTP(reactor, 0, accepting, interface="127.0.0.1")
    number = listening.getHost().port
    for _ in range(PIECE_CONNECTIONS + 3):
        UTPClientEndpoint(reactor, "127.0.0.1", number).connect(connecting)
    await until(lambda: len(accepting.made) == len(connecting.made) == PIECE_CONNECTIONS + 3, 60)
    port = openControlSocket(place)
    client = await connected(place)

    client.transport.write(b'{"get": "connections"}\n' * 2)
    await until(lambda: len(client.lines) == 2, 30)
    client.transport.write(b' {"get":"connections"} \r\n')
    await until(lambda: len(client.lines) == 3, 30)

    for answer in client.lines:
        assert answer["pid"] == os.getpid()
        names = {each["port"]: each["connections"] for each in answer["ports"]}
        assert names[f"127.0.0.1:{number}"] == names[CLIENTS] == PIECE_CONNECTIONS + 3
        ours = [each for each in answer["connections"] if each["port"] == f"127.0.0.1:{number}"]
        assert len(ours) == len({each["id"] for each in ours}) == PIECE_CONNECTIONS + 3
        assert set(ConnectionStats.__slots__) < set(ours[0])
        assert {each["state"] for each in answer["connections"]} == {"CONNECTED"}
        assert {each["initiator"] for each in ours} == {False}
    client.transport.loseConnection()
    await stop(port)
    for stream in connecting.made:
        stream.transport.loseConnection()
    await until(lambda: all(stream.lost for stream in [*accepting.made, *connecting.made]), 60)
    await stop(listening)


@pytest_twisted.ensureDeferred
async def test_requests_wait_for_the_answers_before_them(place: Path) -> None:
    """A client that asks often and does not read gets no more than fits, and all of it when it reads."""
    port = openControlSocket(place)
    client = await connected(place)
    client.transport.pauseProducing()

    requests = 2_000
    client.transport.write(b'{"get": "connections"}\n' * requests)
    await until(lambda: any(each.paused for each in port.factory.clients), 30)
    [answering] = port.factory.clients
    await pause(0.2)
    held_bytes = len(answering.transport.dataBuffer) + sum(map(len, answering.transport._tempDataBuffer))
    client.transport.resumeProducing()
    await until(lambda: len(client.lines) == requests, 60)

    assert held_bytes < len(client.text) / requests + 10
    client.transport.loseConnection()
    await stop(port)


@pytest_twisted.ensureDeferred
async def test_without_connections_the_answer_is_as_well_formed(place: Path) -> None:
    port = openControlSocket(place)
    client = await connected(place)

    client.transport.write(b'{"get": "connections"}\n')
    await until(lambda: client.lines, 30)

    assert client.lines[0]["connections"] == []
    client.transport.loseConnection()
    await stop(port)


@pytest.mark.parametrize(
    "request_bytes",
    [b"\n", b"hello\n", b"[]\n", b'{"get": 1}\n', b'{"put": "connections"}\n', b"\xff\xfe\n", b"[" * 900 + b"\n"],
    ids=lambda data: repr(data)[:20],
)
@pytest_twisted.ensureDeferred
async def test_other_requests_get_a_sentence(place: Path, request_bytes: bytes) -> None:
    """And the end of the connection."""
    port = openControlSocket(place)
    client = await connected(place)

    client.transport.write(request_bytes)
    await until(lambda: client.lost, 30)

    [answer] = client.lines
    assert "the one request that there is" in answer["error"]
    await stop(port)


@pytest_twisted.ensureDeferred
async def test_a_client_without_an_end_of_line_is_cut_off(place: Path) -> None:
    """A program that talks something else is not kept in memory."""
    port = openControlSocket(place)
    client = await connected(place)

    client.transport.write(b"x" * (MAXIMUM_REQUEST_BYTES + 100))
    await until(lambda: client.lost, 30)

    assert f"at most {MAXIMUM_REQUEST_BYTES} bytes" in client.lines[0]["error"]
    await stop(port)


@pytest_twisted.ensureDeferred
async def test_too_many_clients_are_refused(place: Path) -> None:
    """The first ones stay; with the port all of them go."""
    port = openControlSocket(place)
    clients = [await connected(place) for _ in range(MAXIMUM_CLIENTS + 1)]

    await until(lambda: sum(client.lost for client in clients) == 1, 30)
    assert f"{MAXIMUM_CLIENTS} clients" in next(client for client in clients if client.lost).lines[0]["error"]
    await stop(port)
    await until(lambda: all(client.lost for client in clients), 30)


@pytest_twisted.ensureDeferred
async def test_the_socket_is_its_users_alone(place: Path) -> None:
    """Whatever the umask is, and it goes when the port does."""
    before = os.umask(0)
    try:
        port = openControlSocket(place)
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert stat.S_ISSOCK(place.stat().st_mode)
    finally:
        os.umask(before)
    await stop(port)
    assert not place.exists()


@pytest_twisted.ensureDeferred
async def test_a_socket_that_was_left_behind_is_replaced(place: Path) -> None:
    """By a program that was killed: nobody answers there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left:
        left.bind(str(place))
        left.listen()
    assert place.exists()

    port = openControlSocket(place)
    client = await connected(place)
    client.transport.write(b'{"get": "connections"}\n')
    await until(lambda: client.lines, 30)

    client.transport.loseConnection()
    await stop(port)


@pytest_twisted.ensureDeferred
async def test_what_is_not_ours_is_never_replaced(place: Path) -> None:
    """The socket of a program that runs, one that is too busy to answer, a file, a folder, a link to a file."""
    port = openControlSocket(place)
    with pytest.raises(CannotListenError, match="another program listens"):
        openControlSocket(place)
    await stop(port)

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(place))
        busy.listen(0)
        fillers = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(3)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(str(place))
        with pytest.raises(CannotListenError, match="another program listens"):
            openControlSocket(place)
        for filler in fillers:
            filler.close()
    assert place.exists()
    place.unlink()

    place.write_text("precious")
    Path("link").symlink_to(place)
    Path("folder").mkdir()
    for name in (place, Path("link"), Path("folder")):
        with pytest.raises(CannotListenError, match="not a socket"):
            openControlSocket(name)
    assert place.read_text() == "precious"
    with pytest.raises(CannotListenError):
        openControlSocket("missing/s")
    with pytest.raises(NotImplementedError, match="no UNIX sockets"):
        openControlSocket("s", Network().reactor(SERVER))


@pytest_twisted.ensureDeferred
async def test_the_service_opens_and_closes_it(place: Path) -> None:
    """Under a parent, as ``twist`` runs it; it may start again."""
    parent = MultiService()
    ControlSocketService(place).setServiceParent(parent)
    for _ in range(2):
        parent.startService()
        client = await connected(place)
        client.transport.write(b'{"get": "connections"}\n')
        await until(lambda client=client: client.lines, 30)
        await parent.stopService()
        assert not place.exists()
        await until(lambda client=client: client.lost, 30)
