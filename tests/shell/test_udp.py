"""The UDP port, on real sockets of the loopback interface: batches, full sockets, and every feature switched off."""

from __future__ import annotations

import errno
import hashlib
import socket
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from tests.support import Accepting, HalfStream, Stream
from tests.wire.test_transfer import pattern
from txutp import UTPClientEndpoint, UTPProtocol, connectUTP, listenUTP
from txutp import protocol as protocol_module
from txutp import sharing as sharing_module
from txutp.core.batch import Batch
from txutp.core.connection import Connection
from txutp.core.packet import ST_STATE, Packet, parse_untrusted
from txutp.port import UTPServerTransport
from txutp.udp.offload import MAXIMUM_UNCUT_HOSTS
from txutp.udp.options import UDP_GRO, UDP_SEGMENT, has_option
from txutp.udp.ports import (
    LONE_BYTES,
    LOOK_AGAIN,
    READ_CALLS,
    BatchPort,
    PlainPort,
    SocketPort,
    batch_port_of,
    local_address_for,
)

LOCAL = "127.0.0.1"
KINDS = ["batch", "no send offload", "no receive offload", "no offload", "of the reactor", "plain"]


class Collecting:
    """Stands in for UTPProtocol below a port, and keeps what it is told."""

    def __init__(self) -> None:
        self.reads: list[tuple[bytes, int, Any]] = []
        self.connections = 0
        self.turns = 0
        self.writable_calls = 0
        self.overflows = 0
        self.errors: list[tuple[bytes, Any, int]] = []

    noisy = False

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport

    def doStop(self) -> None:
        pass

    def datagrams_received(self, data: bytes, stride: int, address: Any) -> None:
        self.reads.append((data, stride, address))

    def drained(self) -> None:
        self.turns += 1

    def writable(self) -> None:
        self.writable_calls += 1

    def overflowed(self, dropped: int) -> None:
        self.overflows += dropped

    def unreachable(self, datagram: bytes, address: Any, code: int, path_mtu_bytes: int, from_peer: bool) -> None:
        self.errors.append((datagram, address, code))
        assert from_peer

    def farewell(self) -> None:
        pass

    @property
    def datagrams(self) -> list[bytes]:
        """All that came, one by one."""
        return [
            data[start : start + (stride or len(data))]
            for data, stride, _ in self.reads
            for start in range(0, len(data), stride or len(data))
        ]


def batch_port(interface: str = LOCAL, offload: bool = True) -> tuple[BatchPort, Collecting]:
    protocol = Collecting()
    port = BatchPort(0, protocol, interface, reactor, offload)
    port.startListening()
    return port, protocol


def a_batch(port: BatchPort, count: int, size: int, last: int | None = None) -> Batch:
    buffers: list[bytes | memoryview] = []
    for number in range(count):
        payload = size - 20 if number < count - 1 or last is None else last - 20
        buffers += [bytes([number]) * 20, memoryview(bytes([number]) * payload)]
    host = port.getHost()
    return Batch((host.host, host.port), buffers, count, size)


async def pause(seconds: float = 0.05) -> None:
    await deferLater(reactor, seconds)


def test_which_features_this_kernel_has() -> None:
    """Printed with -s; the tests below run with and without each."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        print("UDP_SEGMENT", has_option(probe, UDP_SEGMENT, None), "UDP_GRO", has_option(probe, UDP_GRO, 1))
        assert not has_option(probe, 9_999, None)


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest.mark.parametrize(("count", "size", "last"), [(1, 500, None), (40, 1402, None), (10, 1000, 300), (46, 1402, 21)])
@pytest_twisted.ensureDeferred
async def test_a_batch_arrives_as_its_datagrams(
    offload: bool, interface: str, count: int, size: int, last: int | None
) -> None:
    sender, _ = batch_port(interface, offload)
    receiver, received = batch_port(interface, offload)
    batch = a_batch(receiver, count, size, last)
    expected = list(batch.datagrams())
    assert sender.send_batch(batch) == count
    await pause()
    assert received.datagrams == expected
    assert received.reads[0][2][:2] == (sender.getHost().host, sender.getHost().port)
    sender.close()
    receiver.close()


@pytest.mark.skipif(sys.platform != "linux", reason="Other systems do not tell.")
@pytest_twisted.ensureDeferred
async def test_what_the_kernel_drops_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so with the next datagram that it keeps (SO_RXQ_OVFL), and counts from the beginning."""
    monkeypatch.setattr("txutp.udp.ports.KERNEL_BUFFER_BYTES", 4_096)
    sender, _ = batch_port()
    receiver, received = batch_port()
    receiver.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    for burst in range(2):
        for _ in range(50):
            sender.send_batch(a_batch(receiver, 1, 1_000))
        await pause()
        kept = len(received.datagrams)
        sender.send_batch(a_batch(receiver, 1, 1_000))
        await pause()
        assert 0 < kept < 50 * (burst + 1)
        assert received.overflows == 50 * (burst + 1) - len(received.datagrams) + burst + 1
    sender.close()
    receiver.close()


@pytest.mark.parametrize("flag", [socket.MSG_TRUNC, socket.MSG_CTRUNC])
def test_a_damaged_read_is_dropped(flag: int) -> None:
    """A datagram that was cut off is none, and one whose control data was may be several."""
    port, received = batch_port()
    queued = Queued(port)
    queued.arrived = [bytes(20), bytes(30), bytes(40)]
    queued.flags[bytes(30)] = flag
    port.doRead()
    assert received.datagrams == [bytes(20), bytes(40)]
    port.close()


@pytest_twisted.ensureDeferred
async def test_a_run_too_large_for_the_path_leaves_as_fragments() -> None:
    """EMSGSIZE on a run means a plain send for it, not the end of offload, and no lost byte."""
    sender, _ = batch_port()
    receiver, received = batch_port()
    # more than 65,507 bytes in one run
    batch = a_batch(receiver, 5, 20_000)
    expected = list(batch.datagrams())
    assert sender.send_batch(batch) == 5
    await pause()
    assert received.datagrams == expected
    assert sender.offload_send == has_option(sender.socket, UDP_SEGMENT, None)
    sender.close()
    receiver.close()


class Queued:
    """A socket with datagrams that have arrived already, and a count of how often it was asked for more."""

    def __init__(self, port: BatchPort) -> None:
        self.arrived: list[bytes] = []
        self.flags: dict[bytes, int] = {}  # what is said of some of them
        self.asked = 0
        self._real = port.socket
        port.socket = self  # type: ignore[assignment]

    def recvmsg(self, size: int, ancillary_size: int) -> tuple[bytes, list[Any], int, Any]:
        self.asked += 1
        if not self.arrived:
            raise BlockingIOError
        data = self.arrived.pop(0)
        return data, [], self.flags.get(data, 0), (LOCAL, 9)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_a_turn_reads_enough_for_all_connections() -> None:
    """Otherwise a thousand that send in each turn would wait for acks that nobody reads."""
    port, received = batch_port()
    queued = Queued(port)

    queued.arrived = [bytes(20)] * 1_000
    port.doRead()
    assert len(received.reads) == READ_CALLS

    received.connections = 1_000
    port.doRead()
    assert len(received.reads) == 1_000
    port.close()


@pytest.mark.parametrize("size", [20, 1_000, LONE_BYTES])
def test_in_a_conversation_the_socket_is_seldom_asked_in_vain(size: int) -> None:
    port, received = batch_port()
    queued = Queued(port)

    for _ in range(4 * LOOK_AGAIN):
        queued.arrived.append(bytes(size))
        port.doRead()
    assert len(received.reads) == 4 * LOOK_AGAIN
    assert queued.asked == 5 * LOOK_AGAIN
    assert {stride for _, stride, _ in received.reads} == {0}, "one that is alone is no run"

    # when several come at once it takes a few turns to see it, and then each reads all
    queued.arrived = [bytes(size)] * 10
    turns = 0
    while queued.arrived:
        port.doRead()
        turns += 1
    assert turns <= LOOK_AGAIN
    queued.arrived = [bytes(size)] * 10
    port.doRead()
    assert not queued.arrived
    port.close()


class Refusing:
    """A socket whose sends fail a number of times."""

    def __init__(self, real: socket.socket, code: int, after: int, only_runs: bool = False) -> None:
        self._real = real
        self._code = code
        self._after = after
        self._only_runs = only_runs
        self.refused = 0

    def sendmsg(self, buffers: Any, ancillary: Any, flags: int, address: Any) -> int:
        if self._after <= 0 and (ancillary or not self._only_runs):
            self.refused += 1
            raise OSError(self._code, "simulated")
        self._after -= 1
        return self._real.sendmsg(buffers, ancillary, flags, address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOBUFS])
@pytest_twisted.ensureDeferred
async def test_a_full_socket_says_how_much_left_and_when_to_go_on(code: int) -> None:
    sender, sending = batch_port(offload=False)
    receiver, received = batch_port()
    real = sender.socket
    sender.socket = Refusing(real, code, after=3)  # type: ignore[assignment]
    batch = a_batch(receiver, 10, 600)
    assert sender.send_batch(batch) == 3
    sender.socket = real
    await pause()
    assert sending.writable_calls >= 1
    assert len(received.datagrams) == 3
    sender.close()
    receiver.close()


def a_batch_for(receiver: BatchPort, host: str) -> Batch:
    batch = a_batch(receiver, 10, 600)
    batch.address = (host, receiver.getHost().port)
    return batch


@pytest.mark.parametrize("code", [errno.EIO, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM])
@pytest_twisted.ensureDeferred
async def test_a_card_that_cannot_cut_gets_single_datagrams(code: int) -> None:
    """Those for the hosts behind it; for others runs are cut as before."""
    sender, _ = batch_port()
    receiver, received = batch_port("127.0.0.2")
    other, other_received = batch_port()
    if not sender.offload_send:
        pytest.skip("this kernel has no UDP_SEGMENT, so nothing is ever cut")
    real = sender.socket
    refusing = Refusing(real, code, after=0, only_runs=True)
    sender.socket = refusing  # type: ignore[assignment]
    for _ in range(2):
        assert sender.send_batch(a_batch_for(receiver, "127.0.0.2")) == 10
    await pause()
    assert len(received.datagrams) == 20
    assert refusing.refused == 1, "it is not tried again"

    sender.socket = real
    assert sender.send_batch(a_batch(other, 10, 600)) == 10
    await pause()
    assert len(other_received.datagrams) == 10
    assert {stride for _, stride, _ in other_received.reads} == {600}
    for port in (sender, receiver, other):
        port.close()


@pytest_twisted.ensureDeferred
async def test_where_no_card_can_cut_nothing_is_tried_any_more() -> None:
    sender, _ = batch_port()
    receiver, received = batch_port("0.0.0.0")
    if not sender.offload_send:
        pytest.skip("this kernel has no UDP_SEGMENT, so nothing is ever cut")
    sender.socket = Refusing(sender.socket, errno.EIO, after=0, only_runs=True)  # type: ignore[assignment]
    for number in range(MAXIMUM_UNCUT_HOSTS + 1):
        assert sender.offload_send
        assert sender.send_batch(a_batch_for(receiver, f"127.0.1.{number + 1}")) == 10
    assert not sender.offload_send
    await pause()
    assert len(received.datagrams) == 10 * (MAXIMUM_UNCUT_HOSTS + 1)
    sender.close()
    receiver.close()


def test_a_network_error_does_not_stop_the_cutting() -> None:
    """A run that fails as each of its datagrams does was not refused for being a run."""
    sender, _ = batch_port()
    receiver, _ = batch_port()
    offload = sender.offload_send
    real = sender.socket
    sender.socket = Refusing(real, errno.EINVAL, after=0)  # type: ignore[assignment]
    with pytest.raises(OSError, match="simulated"):
        sender.send_batch(a_batch(receiver, 10, 600))
    sender.socket = real
    assert sender.offload_send == offload
    assert sender.send_batch(a_batch(receiver, 10, 600)) == 10
    sender.close()
    receiver.close()


def test_no_route_is_an_error_for_the_caller() -> None:
    sender, _ = batch_port()
    sender.socket = Refusing(sender.socket, errno.ENETUNREACH, after=0)  # type: ignore[assignment]
    with pytest.raises(OSError, match="simulated"):
        sender.send_batch(Batch((LOCAL, 9), [b"x"], 1, 1))
    sender.socket = sender.socket._real  # type: ignore[attr-defined]
    sender.close()


def test_a_closed_port_is_closed_once() -> None:
    port, _ = batch_port()
    port.close()
    port.connectionLost(None)
    assert port.fileno() == -1


class Scheduler:
    """A reactor that only keeps what shall be called later."""

    def __init__(self) -> None:
        self.later: list[Any] = []

    def callLater(self, seconds: float, function: Any) -> None:
        self.later.append(function)


class RaisingTransport:
    """As twisted.internet.udp.Port: everything that goes wrong is an exception."""

    maxPacketSize = 8192

    def __init__(self, *problems: Exception | None) -> None:
        self.problems = list(problems)
        self.written: list[bytes] = []

    def write(self, datagram: bytes, address: Any) -> None:
        problem = self.problems.pop(0) if self.problems else None
        if problem is not None:
            raise problem
        self.written.append(datagram)


def test_a_plain_ports_exceptions_become_facts() -> None:
    """EWOULDBLOCK and ENOBUFS: refused, go on later; EMSGSIZE: lost on the way; no route: an error."""
    protocol = Collecting()
    scheduler = Scheduler()
    batch = Batch((LOCAL, 9), [bytes([number]) * 30 for number in range(5)], 5, 30)
    for code in (errno.EWOULDBLOCK, errno.ENOBUFS):
        transport = RaisingTransport(None, None, OSError(code, "full"))
        assert PlainPort(transport, protocol, scheduler).send_batch(batch) == 2
        assert transport.maxPacketSize == 65_535
        scheduler.later.pop()()
    assert protocol.writable_calls == 2

    transport = RaisingTransport(None, error.MessageLengthError("too long"))
    assert PlainPort(transport, protocol, scheduler).send_batch(batch) == 5
    assert len(transport.written) == 4

    transport = RaisingTransport(OSError(errno.ENETUNREACH, "no route"))
    with pytest.raises(OSError, match="no route"):
        PlainPort(transport, protocol, scheduler).send_batch(batch)


@pytest.mark.parametrize("offload", [True, False])
def test_a_port_of_the_reactor_sends_runs_through_its_socket(offload: bool) -> None:
    """A run that the socket refuses is tried again, whole or what is left of it."""
    protocol = Collecting()
    scheduler = Scheduler()
    transport = reactor.listenUDP(0, DatagramProtocol(), LOCAL)  # type: ignore[attr-defined]
    receiver, received = batch_port()
    port = batch_port_of(transport, protocol, scheduler)
    assert type(port) is SocketPort
    assert transport.maxPacketSize == 65_535
    port.offload_send = port.offload_send and offload
    sends_at_once = 10 if port.offload_send else 1

    port.socket = Refusing(port.socket, errno.EAGAIN, after=2)
    batch = a_batch(receiver, 10, 600)
    sent = [port.send_batch(batch) for _ in range(3)]
    assert sum(sent) == 2 * sends_at_once
    for retry in scheduler.later:
        retry()
    assert protocol.writable_calls == len(scheduler.later) > 0
    receiver.doRead()
    assert len(received.datagrams) == 2 * sends_at_once
    transport.stopListening()
    receiver.close()


# -- whole streams over each kind of port --


@pytest.fixture
def ports_of_kind(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make listenUTP and connectUTP use ports with some features switched off."""

    def choose(kind: str) -> None:
        def listen(real_reactor: Any, port: int, protocol: Any, interface: str) -> Any:
            if kind in ("of the reactor", "plain"):
                return real_reactor.listenUDP(port, protocol, interface)
            made = BatchPort(port, protocol, interface, real_reactor, offload=kind != "no offload")
            made.offload_send = made.offload_send and kind != "no send offload"
            made.offload_receive = made.offload_receive and kind != "no receive offload"
            made.startListening()
            return made

        monkeypatch.setattr(sharing_module, "listen_udp", listen)
        if kind == "plain":
            monkeypatch.setattr(protocol_module, "batch_port_of", PlainPort)

    return choose


class Ended(HalfStream):
    """Fires when the other side has sent everything."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.ended.callback(None)

    def connectionLost(self, reason: Any = None) -> None:
        super().connectionLost(reason)
        self.gone.callback(None)


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred
async def test_streams_over_every_kind_of_port(kind: str, interface: str, ports_of_kind: Any) -> None:
    """8 MB each way at once; every byte, then a clean end, on IPv4 and IPv6."""
    ports_of_kind(kind)
    accepting, connecting = Accepting(Ended), Accepting(Ended)
    listening = listenUTP(reactor, 0, accepting, interface=interface)
    made: Deferred[Stream] = Deferred()
    connecting.clientConnectionFailed = lambda connector, reason: made.errback(reason)  # type: ignore[attr-defined]
    connecting.startedConnecting = lambda connector: None  # type: ignore[attr-defined]
    connecting.clientConnectionLost = lambda connector, reason: None  # type: ignore[attr-defined]
    connectUTP(reactor, interface, listening.getHost().port, connecting)
    while not (accepting.made and connecting.made):
        await pause(0.01)
    client, server = connecting.made[0], accepting.made[0]
    assert isinstance(client, Ended)
    assert isinstance(server, Ended)
    there, back = pattern(8_000_000, 1), pattern(8_000_000, 2)
    client.transport.write(there)
    server.transport.write(back)
    client.transport.loseWriteConnection()
    server.transport.loseWriteConnection()
    await client.ended.addTimeout(60, reactor)
    await server.ended.addTimeout(60, reactor)
    assert hashlib.sha256(server.received).digest() == hashlib.sha256(there).digest()
    assert hashlib.sha256(client.received).digest() == hashlib.sha256(back).digest()
    assert client.transport.getHost().host == interface
    client.transport.loseConnection()
    server.transport.loseConnection()
    await client.gone.addTimeout(10, reactor)
    await server.gone.addTimeout(10, reactor)
    await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_port_of_the_applications_own() -> None:
    """``reactor.listenUDP(port, UTPProtocol(reactor))`` is enough to speak uTP."""
    accepted: list[Stream] = []

    def accept(connection: Connection) -> None:
        transport = UTPServerTransport(serving, connection, LOCAL, 1, 0)
        connection.owner = transport
        protocol = Stream()
        accepted.append(protocol)
        transport.begin(protocol)

    serving = UTPProtocol(reactor, accept=accept)
    port = reactor.listenUDP(0, serving, LOCAL)  # type: ignore[attr-defined]
    connecting = Accepting()
    for name in ("startedConnecting", "clientConnectionLost", "clientConnectionFailed"):
        setattr(connecting, name, lambda *arguments: None)
    connectUTP(reactor, LOCAL, port.getHost().port, connecting)
    while not connecting.made:
        await pause(0.01)
    connecting.made[0].transport.write(b"hello")
    while not (accepted and accepted[0].received):
        await pause(0.01)
    assert bytes(accepted[0].received) == b"hello"
    connecting.made[0].transport.loseConnection()
    while not connecting.made[0].lost:
        await pause(0.01)
    await port.stopListening()


def test_our_address_towards_somebody() -> None:
    assert local_address_for((LOCAL, 9), 77) == IPv4Address("UDP", LOCAL, 77)
    assert local_address_for(("::1", 9), 77) == IPv6Address("UDP", "::1", 77)


# -- ICMP --


def closed_port(interface: str) -> int:
    """A UDP port on which nobody listens."""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((interface, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest_twisted.ensureDeferred
async def test_an_icmp_error_names_its_datagram_and_reading_goes_on(interface: str) -> None:
    """Poll and epoll drop a reader on an ICMP error; ours comes back, and the next send is not lost either."""
    port, received = batch_port(interface)
    other, other_received = batch_port(interface)
    nowhere = closed_port(interface)
    for _ in range(3):
        assert port.send_batch(Batch((interface, nowhere), [b"to nobody"], 1, 9)) == 1
        assert port.send_batch(a_batch(other, 1, 100)) == 1
        await pause()
    assert (b"to nobody", (interface, nowhere), errno.ECONNREFUSED) in received.errors
    assert len(other_received.datagrams) == 3
    assert other.send_batch(a_batch(port, 1, 100)) == 1
    await pause()
    assert len(received.datagrams) == 1
    port.close()
    other.close()


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
def test_an_icmp_error_that_the_next_send_hears_of_is_read_by_it(interface: str) -> None:
    """What stays in the error queue keeps the socket readable for select, which finds nothing to read there."""
    port, received = batch_port(interface)
    other, _ = batch_port(interface)
    nowhere = closed_port(interface)
    assert port.send_batch(Batch((interface, nowhere), [b"to nobody"], 1, 9)) == 1
    assert port.send_batch(a_batch(other, 1, 100)) == 1
    assert (b"to nobody", (interface, nowhere), errno.ECONNREFUSED) in received.errors
    port.close()
    other.close()


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest_twisted.ensureDeferred
async def test_connecting_to_a_closed_udp_port_is_refused_and_does_not_time_out(interface: str) -> None:
    """The kernel sends few ICMP errors in a second, to all together: one of the SYNs is answered with one."""
    endpoint = UTPClientEndpoint(reactor, interface, closed_port(interface), timeout=60)
    with pytest.raises(error.ConnectionRefusedError):
        await endpoint.connect(Accepting())


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_only_listens_hears_that_the_server_has_gone(interface: str) -> None:
    """The server stopped after its SYN-ACK, and its port is closed: the proof of our source draws an ICMP error."""

    class Stopping(DatagramProtocol):
        """Answers a SYN, and goes."""

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            syn = parse_untrusted(datagram)
            assert syn is not None
            answer = Packet(ST_STATE, syn.connection_id, 1, 1, 1 << 20, 7_000, syn.seq_nr)
            self.transport.write(answer.encode(), addr)
            self.transport.stopListening()

    port = reactor.listenUDP(0, Stopping(), interface=interface)  # type: ignore[attr-defined]
    connecting = Accepting()
    endpoint = UTPClientEndpoint(reactor, interface, port.getHost().port, timeout=20)
    client = await endpoint.connect(connecting)
    started = reactor.seconds()  # type: ignore[attr-defined]
    while not connecting.made[0].lost and reactor.seconds() - started < 10:  # type: ignore[attr-defined]
        await pause()
    assert client is connecting.made[0]
    assert client.lost_type is error.ConnectionLost


@pytest.mark.skipif(sys.platform != "linux", reason="The error queue is Linux's.")
def test_the_socket_is_watched_again_where_a_send_has_met_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libuv has stopped watching by then, and a read that finds data never looks for an error."""
    port, _ = batch_port()
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.bind((LOCAL, 0))
    where = closed.getsockname()
    closed.close()
    calls: list[str] = []
    monkeypatch.setattr(port, "stopReading", lambda: calls.append("stop"))
    monkeypatch.setattr(port, "startReading", lambda: calls.append("start"))

    port.send_batch(Batch(where, [b"x"], 1, 1))
    assert calls == []
    for _ in range(1_000):
        if calls:
            break
        port.send_batch(Batch(where, [b"x"], 1, 1))  # meets the answer to one before it, which a busy kernel delays
    assert calls == ["stop", "start"]

    monkeypatch.undo()
    port.close()
