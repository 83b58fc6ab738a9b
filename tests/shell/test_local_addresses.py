"""A reply leaves from the address that was asked: UDP ports on all addresses, on the loopback interface.

Linux answers for the whole of 127.0.0.0/8, so one interface without any setting up has all the addresses that a test
may want.  tests/namespaces/test_addresses.py has several interfaces.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import DatagramProtocol

from tests.support import Accepting, HalfStream, pause, until
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, adoptUTPPort, listenUTP
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet, parse_untrusted
from txutp.udp.sources import is_wildcard

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Other systems have one loopback address.")

FAR = "127.5.5.5"
ADDRESSES = ["127.0.0.1", "127.0.0.2", FAR]


def quoted(host: str) -> str:
    return host.replace(":", "\\:")


@pytest.fixture
def ask() -> Iterator[Any]:
    """Makes UDP sockets that hear nobody but the one address to which they are connected."""
    made: list[socket.socket] = []

    def connected(host: str, port: int) -> Asker:
        new = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        made.append(new)
        new.connect((host, port))
        new.setblocking(False)
        return Asker(new)

    yield connected
    for one in made:
        one.close()


class Asker:
    """A peer with a socket of the kernel: what another address answers never reaches it."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected

    def send(self, kind: int, connection_id: int, sequence: int = 1, ack: int = 0, data: bytes = b"") -> None:
        self._socket.send(Packet(kind, connection_id, 1, 0, 1 << 20, sequence, ack, None, data).encode())

    def send_bytes(self, datagram: bytes) -> None:
        self._socket.send(datagram)

    async def hear(self) -> bytes:
        """The next datagram from the address that was asked."""
        heard: list[bytes] = []

        def has_come() -> bool:
            try:
                heard.append(self._socket.recv(65_535))
            except BlockingIOError:
                return False
            return True

        await until(has_come)
        return heard[0]

    async def packet(self) -> Packet:
        packet = parse_untrusted(await self.hear())
        assert packet is not None
        return packet

    async def connect(self, connection_id: int = 500) -> Packet:
        """SYN, SYN-ACK, and the STATE that proves us."""
        self.send(ST_SYN, connection_id, 7)
        answer = await self.packet()
        assert answer.type == ST_STATE
        self.send(ST_STATE, connection_id + 1, 8, answer.seq_nr - 1)
        return answer


@pytest.mark.parametrize(
    ("listen", "connect", "local"),
    [
        *(("", host, host) for host in ADDRESSES),
        ("", "0.0.0.0", "127.0.0.1"),
        ("0.0.0.0", FAR, FAR),
        ("::", "::1", "::1"),
        ("::", "::", "::1"),
        *(("::", host, f"::ffff:{host}") for host in ADDRESSES),
        ("::", "0.0.0.0", "::ffff:127.0.0.1"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_server_on_all_addresses_answers_at_each_of_them(listen: str, connect: str, local: str) -> None:
    """Streams flow both ways, and both ends name the same two addresses, as with TCP."""
    accepting, connecting = Accepting(HalfStream), Accepting()
    interface = f":interface={quoted(listen)}" if listen else ""
    port = await serverFromString(reactor, f"utp:0{interface}").listen(accepting)
    number = port.getHost().port
    client = await clientFromString(reactor, f"utp:{quoted(connect)}:{number}:timeout=20").connect(connecting)
    await until(lambda: accepting.made)
    server = accepting.made[0]
    data = pattern(1_000_000)
    client.transport.write(data)
    server.transport.write(data)
    await until(lambda: len(client.received) == len(server.received) == len(data))
    assert bytes(client.received) == bytes(server.received) == data

    assert server.transport.getHost().host == local
    assert server.transport.getHost().port == number
    assert client.transport.getPeer().host == local.removeprefix("::ffff:")
    assert client.transport.getHost().port == server.transport.getPeer().port
    assert client.transport.getHost().host == server.transport.getPeer().host.removeprefix("::ffff:")
    client.transport.loseConnection()
    server.transport.loseConnection()
    await until(lambda: client.lost and server.lost)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_connection_to_all_addresses_goes_to_the_one_that_it_leaves_from() -> None:
    """As with TCP, whose connections to 0.0.0.0 go to their own address if they have one."""
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    endpoint = UTPClientEndpoint(reactor, "0.0.0.0", port.getHost().port, bindAddress=FAR, timeout=20)
    client = await endpoint.connect(Accepting())
    await until(lambda: accepting.made)
    assert accepting.made[0].transport.getHost().host == FAR
    assert client.transport.getPeer().host == client.transport.getHost().host == FAR
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


# -- everything that a port says by itself --


@pytest_twisted.ensureDeferred
async def test_all_that_a_connection_says_leaves_from_there(ask: Any) -> None:
    """SYN-ACK, data, acks, keepalives, the FIN, the ack of a connection that is gone, and its RESET."""
    accepting = Accepting()
    settings = Settings(keepalive_us=1_000_000, close_timeout_us=0)
    port = await UTPServerEndpoint(reactor, 0, settings=settings).listen(accepting)
    peer = ask(FAR, port.getHost().port)
    answer = await peer.connect()
    await until(lambda: accepting.made)
    server = accepting.made[0]

    server.transport.write(b"data")
    packet = await peer.packet()
    assert (packet.type, packet.data) == (ST_DATA, b"data")
    peer.send(ST_DATA, 501, 8, packet.seq_nr, b"more")
    assert (await peer.packet()).ack_nr == 8
    # a keepalive, which asks for an answer
    await peer.packet()

    server.transport.loseConnection()
    fin = await peer.packet()
    while fin.type != ST_FIN:
        fin = await peer.packet()
    peer.send(ST_FIN, 501, 9, fin.seq_nr)
    await until(lambda: server.lost)
    last = await peer.packet()
    while last.ack_nr != 9:
        last = await peer.packet()
    # what it acknowledged is repeated to a peer that asks again, and more data is refused
    peer.send(ST_FIN, 501, 9, fin.seq_nr)
    assert (await peer.packet()).type == ST_STATE
    await peer.packet()
    peer.send(ST_DATA, 501, 12, fin.seq_nr, b"?")
    assert (await peer.packet()).type == ST_RESET
    assert answer.connection_id == 500
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_reset_for_a_stranger_leaves_from_there(ask: Any) -> None:
    port = await UTPServerEndpoint(reactor, 0).listen(Accepting())
    for host in ADDRESSES:
        peer = ask(host, port.getHost().port)
        peer.send(ST_DATA, 77, 5, 6, b"who is there?")
        reset = await peer.packet()
        assert (reset.type, reset.connection_id, reset.ack_nr) == (ST_RESET, 77, 5)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_cookies_leave_from_there_and_are_good_there_alone(ask: Any) -> None:
    """What is remembered nowhere is still between two addresses."""
    accepting = Accepting()
    settings = Settings(maximum_half_open=1, maximum_half_open_per_address=1)
    port = await UTPServerEndpoint(reactor, 0, 0, settings=settings).listen(accepting)
    number = port.getHost().port
    first = ask("127.0.0.1", number)
    first.send(ST_SYN, 100, 1)
    await first.packet()
    peer = ask(FAR, number)
    await peer.connect(200)
    await until(lambda: accepting.made)
    assert port.stats().half_open == 1
    assert port._utp.multiplexer.counters.cookies_sent == 1
    server = accepting.made[0]
    assert server.transport.getHost().host == FAR
    server.transport.write(b"hello")
    assert (await peer.packet()).data == b"hello"
    server.transport.abortConnection()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_one_peer_may_have_the_same_ids_at_several_addresses(ask: Any) -> None:
    """A connection is known by both ends: nothing is mixed up, as with TCP."""
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    number = port.getHost().port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        for host in ADDRESSES:
            peer.sendto(Packet(ST_SYN, 300, 1, 0, 1 << 20, 7, 0, None, b"").encode(), (host, number))
        answers: dict[str, Packet] = {}

        def all_have_answered() -> bool:
            try:
                datagram, (host, _) = peer.recvfrom(2_000)
            except BlockingIOError:
                return False
            packet = parse_untrusted(datagram)
            assert packet is not None
            answers[host] = packet
            return len(answers) == len(ADDRESSES)

        await until(all_have_answered)
        for host, answer in answers.items():
            data = Packet(ST_DATA, 301, 1, 0, 1 << 20, 8, answer.seq_nr - 1 & 0xFFFF, None, host.encode())
            peer.sendto(data.encode(), (host, number))
        await until(lambda: len([one for one in accepting.made if one.received]) == len(ADDRESSES))
    for server in accepting.made:
        assert bytes(server.received).decode() == server.transport.getHost().host
        server.transport.abortConnection()
    await port.stopListening()


class Echoing(DatagramProtocol):
    """Another protocol on the port, which answers at once and once more in a while."""

    noisy = False

    def __init__(self) -> None:
        self.senders: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.senders.append(addr)
        self.transport.write(datagram, addr)


@pytest.mark.parametrize(("listen", "hosts"), [("", ADDRESSES), ("::", ["::1"])])
@pytest_twisted.ensureDeferred
async def test_what_another_protocol_answers_leaves_from_there(listen: str, hosts: list[str], ask: Any) -> None:
    echoing = Echoing()
    port = listenUTP(reactor, 0, Accepting(), interface=listen, datagramProtocol=echoing)
    peers = [ask(host, port.getHost().port) for host in hosts]
    for peer in peers:
        peer.send_bytes(b"who is there?")
        assert await peer.hear() == b"who is there?"
    assert {len(addr) for addr in echoing.senders} == {2}, "it knows nothing but the sender"
    # later, too
    for addr in echoing.senders:
        echoing.transport.write(b"are you there?", addr)  # type: ignore[union-attr]
    for peer in peers:
        assert await peer.hear() == b"are you there?"
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_adopted_socket_on_all_addresses_answers_at_each_of_them(ask: Any) -> None:
    """What had come before it was adopted as well."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind(("", 0))
        number = theirs.getsockname()[1]
        early = ask(FAR, number)
        early.send(ST_SYN, 500, 7)
        port = adoptUTPPort(reactor, theirs.fileno(), Accepting())
    assert (await early.packet()).type == ST_STATE
    await ask("127.0.0.2", number).connect()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_port_with_an_address_of_its_own_asks_the_kernel_nothing() -> None:
    port = await UTPServerEndpoint(reactor, 0, interface="127.0.0.2").listen(Accepting())
    assert port._utp.port._sources is None
    assert not port._utp.port.socket.getsockopt(socket.IPPROTO_IP, 8)
    await port.stopListening()


# -- clients --


@pytest_twisted.ensureDeferred
async def test_a_client_stays_where_the_server_has_answered_it(ask: Any) -> None:
    """The routing table chooses for its SYN, as with TCP; from then on nothing else does."""
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0, interface=FAR).listen(accepting)
    client = await UTPClientEndpoint(reactor, FAR, port.getHost().port, timeout=20).connect(Accepting())
    await until(lambda: accepting.made)
    connection = client.transport._connection
    assert connection.address[4] == client.transport.getHost().host == accepting.made[0].transport.getPeer().host
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


# -- kernels that know less --


class Kernel:
    """A socket on which something is refused, or not said."""

    def __init__(self, real: socket.socket) -> None:
        self._real = real
        self.refuses_sources = False  # to send from an address of ours
        self.hides_sources = False
        self.pinned = self.refused = 0

    def sendmsg(self, buffers: Any, ancillary: Any, flags: int, address: Any) -> int:
        if any(level in (socket.IPPROTO_IP, socket.IPPROTO_IPV6) for level, _, _ in ancillary):
            if self.refuses_sources:
                self.refused += 1
                raise OSError(errno.EINVAL, "simulated")
            self.pinned += 1
        return self._real.sendmsg(buffers, ancillary, flags, address)

    def recvmsg(self, size: int, room: int, flags: int = 0) -> Any:
        data, ancillary, said, address = self._real.recvmsg(size, room, flags)
        if self.hides_sources:
            ancillary = [message for message in ancillary if message[0] != socket.IPPROTO_IP]
        return data, ancillary, said, address

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.mark.parametrize("lack", ["refuses_sources", "hides_sources"])
@pytest_twisted.ensureDeferred
async def test_where_the_kernel_does_not_play_along_its_own_choice_has_to_do(lack: str) -> None:
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    kernel = Kernel(port._utp.port.socket)
    setattr(kernel, lack, True)
    port._utp.port.socket = kernel
    client = await UTPClientEndpoint(reactor, "127.0.0.1", port.getHost().port, timeout=20).connect(Accepting())
    await until(lambda: accepting.made)
    data = pattern(500_000)
    accepting.made[0].transport.write(data)
    await until(lambda: len(client.received) == len(data))
    assert bytes(client.received) == data
    assert kernel.pinned == 0
    assert kernel.refused <= 1, "it is asked once"
    assert accepting.made[0].transport.getHost().host == "127.0.0.1"
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_local_address_that_goes_and_comes_back_costs_time_only() -> None:
    """Meanwhile the kernel refuses to send from there: that is a loss on the way, and no reason to send from another
    address, or to cut no more runs."""
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    client = await UTPClientEndpoint(reactor, FAR, port.getHost().port, timeout=20).connect(Accepting())
    await until(lambda: accepting.made)
    server = accepting.made[0]
    kernel = Kernel(port._utp.port.socket)
    offload = port._utp.port.offload_send
    port._utp.port.socket = kernel
    kernel.refuses_sources = True
    data = pattern(500_000)
    server.transport.write(data)
    await until(lambda: kernel.refused)
    await pause(0.2)
    assert kernel.refused < 500, "and nothing is busy"
    assert not server.lost
    assert not client.received
    kernel.refuses_sources = False
    await until(lambda: len(client.received) == len(data))
    assert bytes(client.received) == data
    assert port._utp.port.offload_send == offload
    client.transport.abortConnection()
    await until(lambda: server.lost)
    await port.stopListening()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("", "0.0.0.0", "0", "::", "0::0", "0:0:0:0:0:0:0:0", "::ffff:0.0.0.0", "::%1")),
        *((host, False) for host in ("127.0.0.1", "0.0.0.1", "::1", "fe80::1%eth0", "localhost", "::x", "name:1")),
    ],
)
def test_which_hosts_are_all_addresses(host: str, expected: bool) -> None:
    assert is_wildcard(host) == expected
