"""What many tests need: recording protocols, a connected pair, and a peer that is driven packet by packet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.connection import Connection
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet, parse_untrusted
from txutp.core.sending import SendBuffer
from txutp.testing import Link, Network, Recorder, SimulatedReactor

SERVER = "10.0.0.1"
CLIENT = "10.0.0.2"
PORT = 6881
WINDOW = 1 << 20


async def pause(seconds: float = 0.01) -> None:
    await deferLater(reactor, seconds)


async def until(true: Callable[[], object], seconds: float = 10) -> None:
    """Wait for something; fails if it does not come."""
    end = reactor.seconds() + seconds  # type: ignore[attr-defined]
    while not true():
        assert reactor.seconds() < end  # type: ignore[attr-defined]
        await pause()


class Stream(Protocol):
    """Remembers what it heard."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.deliveries = 0
        self.lost: list[Failure] = []
        self.read_lost = 0
        self.write_lost = 0
        self.made = 0

    def connectionMade(self) -> None:
        self.made += 1

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.deliveries += 1

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.lost.append(reason)

    @property
    def connection(self) -> Connection:
        """The core's side of it, to look at."""
        connection = self.transport._connection  # type: ignore[union-attr]
        assert isinstance(connection, Connection)
        return connection

    @property
    def lost_type(self) -> type | None:
        """The exception of the one connectionLost there was; None if there was none yet."""
        assert len(self.lost) <= 1
        return self.lost[0].type if self.lost else None


class Leaving(Stream):
    """Says something as soon as it is there, and goes."""

    def connectionMade(self) -> None:
        super().connectionMade()
        assert self.transport is not None
        self.transport.write(b"x")
        self.transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class HalfStream(Stream):
    """The same, and half-closeable."""

    def readConnectionLost(self) -> None:
        self.read_lost += 1

    def writeConnectionLost(self) -> None:
        self.write_lost += 1


class Accepting(Factory):
    """A factory that keeps its protocols."""

    noisy = False

    def __init__(self, protocol: type[Stream] = Stream) -> None:
        self.protocol = protocol
        self.made: list[Stream] = []

    def buildProtocol(self, addr: Any) -> Stream:
        made = self.protocol()
        made.factory = self
        self.made.append(made)
        return made


def check_counts(sending: SendBuffer) -> None:
    """What the send buffer counts when it changes is what a look at every segment gives."""
    runs = sending.runs
    in_flight = [(run, run.every & ~run.acked & ~run.lost) for run in runs]
    assert sending.flight_bytes == sum(run.bytes_of(mask) for run, mask in in_flight) >= 0
    assert sending.lost_segments == sum(run.lost.bit_count() for run in runs)
    assert not any(run.lost & run.acked or (run.lost | run.acked) & ~run.every for run in runs)
    assert all(run.bytes_of(run.every) == run.total_bytes == sum(map(len, run.payloads)) for run in runs)
    numbers = [number for run in runs for number in range(run.first, run.first + run.count)]
    assert numbers == list(range(runs[0].first, sending.next_sequence)) if runs else True
    assert not runs or runs[0].first <= sending.first_unacked < runs[0].first + runs[0].count


@dataclass
class Pair:
    """A server and a client on two hosts; connected unless ``wait`` is False."""

    link: Link = field(default_factory=lambda: Link(delay_us=10_000))
    back: Link | None = None
    seed: int = 1
    settings: Settings = field(default_factory=Settings)
    server_settings: Settings | None = None
    protocol: type[Stream] = Stream
    client_offset_us: int = 0
    client_drift_ppm: float = 0.0
    interface_mtu_bytes: int | None = None
    wait: bool = True

    def __post_init__(self) -> None:
        self.network = Network(self.seed, self.interface_mtu_bytes)
        # the link goes from the client to the server
        self.network.connect(CLIENT, SERVER, self.link, self.back)
        self.up = self.network.link(CLIENT, SERVER)
        self.down = self.network.link(SERVER, CLIENT)
        self.server_reactor = self.network.reactor(SERVER)
        self.client_reactor = self.network.reactor(CLIENT, self.client_offset_us, self.client_drift_ppm)
        self.accepting = Accepting(self.protocol)
        self.connecting = Accepting(self.protocol)
        self.ports: list[Any] = []
        endpoint = UTPServerEndpoint(self.server_reactor, PORT, settings=self.server_settings or self.settings)
        endpoint.listen(self.accepting).addCallback(self.ports.append)
        self.failures: list[Failure] = []
        self.attempt = UTPClientEndpoint(self.client_reactor, SERVER, PORT, settings=self.settings).connect(
            self.connecting
        )
        self.attempt.addErrback(self.failures.append)
        if self.wait:
            assert self.run(60, until=lambda: bool(self.accepting.made and self.connecting.made)), self.network

    def run(self, seconds: float, until: Any = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def server(self) -> Stream:
        return self.accepting.made[0]

    @property
    def client(self) -> Stream:
        return self.connecting.made[0]

    def record(self) -> tuple[Recorder, Recorder]:
        """Write down what the client and what the server sends from now on."""
        recorders = Recorder(self.up.hook), Recorder(self.down.hook)
        self.up.hook, self.down.hook = recorders
        return recorders


class ScriptedPeer(DatagramProtocol):
    """A peer that says what the test tells it to say, and understands every packet that it gets."""

    noisy = False

    def __init__(self, reactor: SimulatedReactor, port: int = 0) -> None:
        self.reactor = reactor
        self.datagrams: list[bytes] = []
        self.port = reactor.listenUDP(port, self)
        self.remote: tuple[str, int] = (SERVER, PORT)
        # of the scripted connection
        self.send_id = 0
        self.sequence = 0  # of the next DATA, FIN or STATE we send
        self.ack = 0
        self.window = WINDOW

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.datagrams.append(datagram)
        self.remote = addr

    @property
    def packets(self) -> list[Packet]:
        """Everything that came, understood; a datagram that is not uTP fails the test."""
        packets = [parse_untrusted(datagram) for datagram in self.datagrams]
        assert None not in packets
        return packets  # type: ignore[return-value]

    def take(self) -> list[Packet]:
        """What came since the last call."""
        packets = self.packets
        self.datagrams.clear()
        return packets

    def send_bytes(self, datagram: bytes) -> None:
        self.port.write(datagram, self.remote)

    def send(self, kind: int, **fields: Any) -> None:
        """A packet with the fields of the scripted connection where none are given.  DATA and FIN count up."""
        packet = Packet(
            kind,
            fields.get("connection_id", self.send_id),
            fields.get("timestamp_us", self.reactor.network.now_us & 0xFFFFFFFF or 1),
            fields.get("timestamp_diff_us", 1_000),
            fields.get("wnd_size", self.window),
            fields.get("seq_nr", self.sequence) & 0xFFFF,
            fields.get("ack_nr", self.ack) & 0xFFFF,
            fields.get("selective_ack"),
            fields.get("data", b""),
        )
        if kind in (ST_DATA, ST_FIN) and "seq_nr" not in fields:
            self.sequence += 1
        self.send_bytes(packet.encode())

    def data(self, data: bytes, **fields: Any) -> None:
        self.send(ST_DATA, data=data, **fields)

    def state(self, **fields: Any) -> None:
        self.send(ST_STATE, **fields)

    def fin(self, **fields: Any) -> None:
        self.send(ST_FIN, **fields)

    def reset(self, **fields: Any) -> None:
        self.send(ST_RESET, **fields)

    def syn(self, connection_id: int, sequence: int, **fields: Any) -> None:
        self.send(ST_SYN, connection_id=connection_id, seq_nr=sequence, ack_nr=0, **fields)


@dataclass
class ScriptedClient:
    """Our server, and a scripted peer that connects to it."""

    settings: Settings = field(default_factory=Settings)
    protocol: type[Stream] = Stream
    connection_id: int = 1_000
    sequence: int = 5_000
    confirm: bool = True
    backlog: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        self.network = Network(self.seed)
        self.accepting = Accepting(self.protocol)
        self.ports: list[Any] = []
        self.server_reactor = self.network.reactor(SERVER)
        UTPServerEndpoint(self.server_reactor, PORT, self.backlog, settings=self.settings).listen(
            self.accepting
        ).addCallback(self.ports.append)
        self.peer = ScriptedPeer(self.network.reactor(CLIENT))
        if self.confirm:
            self.handshake()

    def handshake(self) -> Packet:
        """SYN, SYN-ACK, and the STATE that proves us."""
        peer = self.peer
        peer.syn(self.connection_id, self.sequence)
        self.run(0.001)
        (answer,) = peer.take()
        peer.send_id = self.connection_id + 1
        peer.sequence = self.sequence + 1
        peer.ack = answer.seq_nr - 1
        peer.state()
        self.run(0.001)
        return answer

    def run(self, seconds: float, until: Any = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def server(self) -> Stream:
        return self.accepting.made[0]

    def push(self, data: bytes) -> list[Packet]:
        """Let our side write; gives what leaves at once."""
        self.server.transport.write(data)  # type: ignore[union-attr]
        self.run(0.0001)
        return self.peer.take()


@dataclass
class ScriptedServer:
    """Our client, and a scripted peer that it connects to."""

    settings: Settings = field(default_factory=Settings)
    protocol: type[Stream] = Stream
    answer: bool = True
    sequence: int = 7_000
    timeout: float = 30
    seed: int = 1

    def __post_init__(self) -> None:
        self.network = Network(self.seed)
        self.peer = ScriptedPeer(self.network.reactor(SERVER), PORT)
        self.connecting = Accepting(self.protocol)
        self.client_reactor = self.network.reactor(CLIENT)
        self.failures: list[Failure] = []
        self.attempt = UTPClientEndpoint(
            self.client_reactor, SERVER, PORT, timeout=self.timeout, settings=self.settings
        ).connect(self.connecting)
        self.attempt.addErrback(self.failures.append)
        self.run(0.001)
        (self.syn,) = self.peer.take()
        self.peer.send_id = self.syn.connection_id
        self.peer.sequence = self.sequence
        self.peer.ack = self.syn.seq_nr
        if self.answer:
            self.peer.state()
            self.run(0.001)

    def run(self, seconds: float, until: Any = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def client(self) -> Stream:
        return self.connecting.made[0]
