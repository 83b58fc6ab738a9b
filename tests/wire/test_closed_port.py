"""A process that was killed: its host answers with ICMP errors, which count if they quote what we have sent."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.protocol import ProcessProtocol

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, Stream, pause, until
from txutp import Settings, UTPClientEndpoint, listenUTP
from txutp.core.packet import HEADER, ST_DATA
from txutp.testing import Datagram, Link, Recorder

LOCAL = "127.0.0.1"


class Dead:
    """The process of one side, the server's by default, is gone; its host answers every packet with an error."""

    def __init__(self, pair: Pair, seconds: float = 1, host: str = SERVER) -> None:
        self.pair = pair
        pair.run(seconds)
        links = [pair.up, pair.down]
        if host == CLIENT:
            links.reverse()
        to, back = links
        (self.utp,) = [port.protocol for (where, _), port in pair.network.ports.items() if where != host]
        self.address = next(address for address in pair.network.ports if address[0] == host)
        self.sent: list[Datagram] = []
        self.silent = False
        to.hook = self.swallow
        back.hook = lambda datagram: setattr(datagram, "dropped", True)

    def swallow(self, datagram: Datagram) -> None:
        datagram.dropped = True
        self.sent.append(datagram)
        if not self.silent:
            network = self.pair.network
            network.call_at(network.now_us + 20_000, lambda: self.quote(datagram.data))

    def quote(self, data: bytes, from_peer: bool = True, code: int = errno.ECONNREFUSED) -> None:
        self.utp.unreachable(data, self.address, code, 0, from_peer)


def changed(data: bytes, **fields: int) -> bytes:
    """The same header with other fields."""
    names = ("first", "extension", "connection_id", "timestamp", "difference", "window", "sequence", "ack")
    values = dict(zip(names, HEADER.unpack_from(data), strict=True)) | fields
    return HEADER.pack(*values.values()) + data[HEADER.size :]


# -- in the simulator --


@pytest.mark.parametrize("keepalive_us", [None, 29_000_000])
def test_a_connection_that_writes_hears_within_seconds(keepalive_us: int | None) -> None:
    pair = Pair(settings=Settings(keepalive_us=keepalive_us))
    pair.server.transport.write(b"I have heard you")  # type: ignore[union-attr]
    Dead(pair)
    pair.client.transport.write(b"is anybody there?")  # type: ignore[union-attr]
    pair.run(3)
    assert not pair.client.lost
    pair.run(1)
    assert pair.client.lost_type is error.ConnectionLost
    assert "does not answer" in str(pair.client.lost[0].value)


def test_an_idle_connection_hears_with_its_next_keepalive() -> None:
    pair = Pair()
    Dead(pair, 100)
    pair.run(30)
    assert pair.client.lost_type is error.ConnectionLost


def test_all_connections_to_the_port_end_together() -> None:
    """The errors for some of them are enough: hosts send only few."""
    pair = Pair()
    for _ in range(20):
        UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(pair.connecting)
    pair.run(5)
    dead = Dead(pair)
    dead.silent = True
    writing = pair.connecting.made[3]
    writing.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(0.0001)
    dead.quote(dead.sent[-1].data)
    pair.run(0.0001)
    probe = dead.sent[-1].packet
    assert probe is not None
    assert (probe.type, probe.data) == (ST_DATA, b"\0")
    assert not any(stream.lost for stream in pair.connecting.made)
    dead.quote(dead.sent[-1].data)
    pair.run(3.4)
    dead.quote(dead.sent[-1].data)
    assert not any(stream.lost for stream in pair.connecting.made)
    pair.run(0.2)
    dead.quote(dead.sent[-1].data)
    pair.run(0.0001)
    assert len(pair.connecting.made) == 21
    assert all(stream.lost_type is error.ConnectionLost for stream in pair.connecting.made)


def test_other_ports_of_the_host_are_others() -> None:
    pair = Pair()
    other = Accepting()
    listenUTP(pair.server_reactor, PORT + 1, other)
    elsewhere = Accepting()
    UTPClientEndpoint(pair.client_reactor, SERVER, PORT + 1).connect(elsewhere)
    pair.run(2)
    dead = Dead(pair)
    for _ in range(5):
        pair.client.transport.write(b"?")  # type: ignore[union-attr]
        pair.run(1)
    assert pair.client.lost
    assert not elsewhere.made[0].lost
    assert dead.sent


def test_one_error_is_not_enough_nor_are_more_of_packets_that_left_before_it_came() -> None:
    """A probe leaves at once, and a peer that is there answers it."""
    pair = Pair()
    pair.run(1)
    recorder = Recorder()
    pair.up.hook = recorder
    pair.client.transport.write(bytes(10_000))  # type: ignore[union-attr]
    pair.run(0.001)
    (utp,) = [port.protocol for (host, _), port in pair.network.ports.items() if host == CLIENT]
    for datagram in list(recorder.datagrams):
        utp.unreachable(datagram.data, (SERVER, PORT), errno.ECONNREFUSED, 0)
    pair.run(1)
    assert [packet.data for packet in recorder.packets].count(b"\0") == 1
    assert not pair.client.lost
    assert len(pair.server.received) == 10_000


def test_a_packet_between_two_errors_clears_the_peer() -> None:
    """Somebody quotes every packet that leaves, truly, and the peer answers all of them."""
    pair = Pair()
    pair.run(1)
    (utp,) = [port.protocol for (host, _), port in pair.network.ports.items() if host == CLIENT]

    def also_refused(datagram: Datagram) -> None:
        at_us = pair.network.now_us + 25_000
        pair.network.call_at(at_us, lambda: utp.unreachable(datagram.data, (SERVER, PORT), errno.ECONNREFUSED, 0))

    pair.up.hook = also_refused
    for _ in range(20):
        pair.client.transport.write(bytes(2_000))  # type: ignore[union-attr]
        pair.run(1)
    assert not pair.client.lost
    assert len(pair.server.received) == 40_000


@pytest.mark.parametrize(
    "fields",
    [
        {"timestamp": 1},
        {"sequence": 1},
        {"connection_id": 1},
        {"timestamp": 0},
    ],
)
def test_an_error_that_quotes_what_we_have_not_sent_is_none(fields: dict[str, int]) -> None:
    pair = Pair()
    dead = Dead(pair)
    dead.silent = True
    for _ in range(5):
        pair.client.transport.write(b"?")  # type: ignore[union-attr]
        pair.run(0.1)
        dead.quote(changed(dead.sent[-1].data, **fields))
        dead.quote(dead.sent[-1].data[:19])
    assert not pair.client.lost
    assert not [d for d in dead.sent if d.packet and d.packet.data == b"\0"], "nor does it draw a probe"


def test_an_old_packet_is_quoted_in_vain() -> None:
    """It was acknowledged long ago: whoever has seen it may be anywhere."""
    pair = Pair()
    recorder = Recorder()
    pair.up.hook = recorder
    for _ in range(3):
        pair.client.transport.write(b"?")  # type: ignore[union-attr]
        pair.run(1)
    old = [datagram.data for datagram in recorder.datagrams]
    dead = Dead(pair)
    dead.silent = True
    pair.client.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(0.0001)
    for data in old * 3:
        dead.quote(data)
    pair.run(0.1)
    assert not pair.client.lost


def assert_not_believed(**error: Any) -> None:
    """The peer is silent, and each packet draws this error: that ends nothing."""
    pair = Pair()
    dead = Dead(pair)
    dead.silent = True
    for _ in range(4):
        pair.client.transport.write(b"?")  # type: ignore[union-attr]
        pair.run(0.1)
        dead.quote(dead.sent[-1].data, **error)
    assert not pair.client.lost


@pytest.mark.parametrize("code", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES])
def test_routers_that_know_no_way_are_not_believed(code: int) -> None:
    assert_not_believed(code=code)


def test_an_error_of_another_host_than_the_peers_is_not_believed() -> None:
    """A filter on the way may refuse for a while; only the host knows that nobody has the port."""
    assert_not_believed(from_peer=False)


def test_a_connection_whose_settings_believe_no_error_goes_on() -> None:
    pair = Pair(settings=Settings(believe_unreachable=False))
    Dead(pair)
    pair.client.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(5)
    assert not pair.client.lost


def test_received_data_is_delivered_before_the_end() -> None:
    pair = Pair(protocol=HalfStream)
    pair.run(1)
    pair.client.transport.pauseProducing()  # type: ignore[union-attr]
    pair.server.transport.write(bytes(50_000))  # type: ignore[union-attr]
    pair.run(1)
    dead = Dead(pair)
    pair.client.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(5)
    assert not pair.client.lost
    assert not len(dead.utp.multiplexer)
    pair.client.transport.resumeProducing()  # type: ignore[union-attr]
    pair.run(1)
    assert len(pair.client.received) == 50_000
    assert pair.client.lost_type is error.ConnectionLost


class Rejecting(Dead):
    """The server's host rejects for a while what the client sends, and nothing else; the server lives."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair)
        pair.down.hook = None

    def mend(self) -> None:
        self.pair.up.hook = None


@pytest.mark.parametrize("seconds", [0.5, 1, 3])
@pytest.mark.parametrize("verb", ["writes", "streams", "ticks", "reads"])
def test_a_host_that_rejects_for_a_moment_ends_nothing(verb: str, seconds: float) -> None:
    """Its filter is being changed, in mid-transfer."""
    pair = Pair(Link(delay_us=10_000, rate_bytes_per_second=1_000_000))
    writer, reader = (pair.server, pair.client) if verb == "reads" else (pair.client, pair.server)
    data = bytes(3_000_000) if verb in ("reads", "streams") else b"tick"
    rejecting = Rejecting(pair)
    if verb != "writes":
        rejecting.mend()
    writer.transport.write(data)  # type: ignore[union-attr]
    pair.run(0.5)
    pair.up.hook = rejecting.swallow
    expected = len(data)
    for _ in range(int(seconds * 10) - 5 * (verb == "writes")):
        if verb == "ticks":
            writer.transport.write(data)  # type: ignore[union-attr]
            expected += len(data)
        pair.run(0.1)
    rejecting.mend()
    assert rejecting.sent
    assert pair.run(60, until=lambda: len(reader.received) == expected)
    pair.run(30)
    assert not reader.lost
    assert not writer.lost


def test_hosts_that_send_few_errors_are_asked_again() -> None:
    """Linux sends one in a second: the first probes are not answered with any."""
    pair = Pair()
    dead = Dead(pair)
    pair.client.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(1)
    dead.silent = True
    pair.run(3.2)
    dead.silent = False
    pair.run(1)
    assert pair.client.lost_type is error.ConnectionLost


def test_a_quote_draws_no_more_than_a_probe() -> None:
    """Whoever can quote our packets can make us send, but no more than the error itself takes."""
    pair = Pair()
    dead = Dead(pair)
    dead.silent = True
    pair.client.transport.write(b"?")  # type: ignore[union-attr]
    pair.run(0.0001)
    data = dead.sent[-1].data
    before = len(dead.sent)
    for _ in range(1_000):
        dead.quote(data)
        pair.run(0.0001)
    assert len(dead.sent) - before <= 2


# -- on real sockets --

CHILD = """
import sys
from twisted.internet import protocol, reactor, task
from txutp import UTPClientEndpoint

class Client(protocol.Protocol):
    def connectionMade(self):
        self.transport.write(b"x")
        if sys.argv[3] == "streams":
            self.transport.registerProducer(self, False)
        if sys.argv[3] == "ticks":
            task.LoopingCall(self.transport.write, b"tick").start(0.05)

    def resumeProducing(self):
        self.transport.write(bytes(100_000))

    def stopProducing(self):
        pass

where = UTPClientEndpoint(reactor, sys.argv[1], int(sys.argv[2]), timeout=10, bindAddress=("", int(sys.argv[4])))
where.connect(protocol.Factory.forProtocol(Client))
reactor.run()
"""


class Child(ProcessProtocol):
    """A process with one client, which is ended with SIGKILL."""

    def __init__(self, port: int, verb: str, local_port: int = 0, host: str = LOCAL) -> None:
        self.ended = False
        arguments = [sys.executable, "-c", CHILD, host, str(port), verb, str(local_port)]
        reactor.spawnProcess(  # type: ignore[attr-defined]
            self, sys.executable, arguments, env=dict(os.environ), childFDs={0: "w", 1: 1, 2: 2}
        )

    async def kill(self) -> None:
        if not self.ended:
            self.transport.signalProcess(signal.Signals.SIGKILL.name.removeprefix("SIG"))  # type: ignore[union-attr]
            await until(lambda: self.ended)

    def processEnded(self, reason: Any) -> None:
        self.ended = True


class Writer(Stream):
    """Writes as much as the other side takes."""

    def connectionMade(self) -> None:
        super().connectionMade()
        assert self.transport is not None
        self.transport.registerProducer(self, False)  # type: ignore[arg-type]

    def resumeProducing(self) -> None:
        assert self.transport is not None
        self.transport.write(bytes(100_000))

    def stopProducing(self) -> None:
        """Nothing is left to do."""


@asynccontextmanager
async def a_server(protocol: type[Stream], settings: Settings) -> AsyncIterator[tuple[Any, Accepting]]:
    accepting = Accepting(protocol)
    port = listenUTP(reactor, 0, accepting, interface=LOCAL, settings=settings)
    try:
        yield port, accepting
    finally:
        await port.stopListening()


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells whom an ICMP error is about.")
@pytest.mark.parametrize(
    ("verb", "protocol", "keepalive_us"),
    [
        ("waits", Writer, 29_000_000),
        ("streams", Stream, 29_000_000),
        ("ticks", Stream, 29_000_000),
        ("waits", Stream, 2_000_000),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_killed_process_is_found_within_seconds(verb: str, protocol: type[Stream], keepalive_us: int) -> None:
    """Whether we write, it streams, it says something now and then, or nobody says anything until a keepalive."""
    async with a_server(protocol, Settings(keepalive_us=keepalive_us)) as (port, accepting):
        child = Child(port.getHost().port, verb)
        try:
            await until(lambda: accepting.made and accepting.made[0].received, 20)
            await pause(1.5)
            assert not accepting.made[0].lost
        finally:
            await child.kill()
        await until(lambda: accepting.made[0].lost, 15)
        assert accepting.made[0].lost_type is error.ConnectionLost


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux tells whom an ICMP error is about.")
@pytest_twisted.ensureDeferred
async def test_a_worker_that_is_killed_and_started_again_is_taken_back() -> None:
    """A master that refuses a second connection of the same worker as long as it has the first one."""
    workers: list[Stream] = []
    refused: list[Stream] = []

    class Master(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if self in workers or self in refused:
                return
            alive = [worker for worker in workers if not worker.lost]
            (refused if alive else workers).append(self)
            if alive:
                assert self.transport is not None
                self.transport.loseConnection()

    async with a_server(Master, Settings(keepalive_us=2_000_000)) as (port, _):
        child = Child(port.getHost().port, "waits", 48_731)
        try:
            await until(lambda: workers, 20)
            await child.kill()
            await until(lambda: workers[0].lost, 15)
            child = Child(port.getHost().port, "waits", 48_731)
            await until(lambda: len(workers) == 2, 20)
            assert not workers[1].lost
            assert not refused
        finally:
            await child.kill()
