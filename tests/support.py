"""What many tests need: protocols that record, and scenes of ``txutp.testing`` made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

import txutp.testing
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.connection import Connection
from txutp.core.packet import Packet
from txutp.core.sending import SendBuffer
from txutp.testing import Link, Network, ScriptedPeer
from txutp.testing.pair import CLIENT_HOST as CLIENT
from txutp.testing.pair import PORT
from txutp.testing.pair import SERVER_HOST as SERVER


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


class Pair(txutp.testing.Pair):
    """A server and a client that remember what they heard; connected unless ``wait`` is False."""

    server: Stream
    client: Stream

    def __init__(
        self,
        link: Link | None = None,
        back: Link | None = None,
        *,
        protocol: type[Stream] = Stream,
        wait: bool = True,
        **fields: Any,
    ):
        self.accepting = Accepting(protocol)
        self.connecting = Accepting(protocol)
        link = Link(delay_us=10_000) if link is None else link
        super().__init__(self.accepting, self.connecting, link, back, connect=wait, **fields)


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
        return self.peer.connect(self.connection_id, self.sequence)

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
        self.syn = self.peer.accept(self.sequence, self.answer)

    def run(self, seconds: float, until: Any = None) -> bool:
        return self.network.run(seconds, until)

    @property
    def client(self) -> Stream:
        return self.connecting.made[0]
