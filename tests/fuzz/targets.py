"""What is fuzzed: the parser, a port that strangers and peers send to, and conversations on a path that does anything.

Each target is a function of bytes that raises if something that is promised does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.fuzz.story import Story
from tests.support import check_counts
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow, UTPClientEndpoint, listenUTP
from txutp.core.admission import ConnectionRefused
from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import (
    HEADER_BYTES,
    ST_DATA,
    Packet,
    is_utp_untrusted,
    parse_extensions_untrusted,
    parse_untrusted,
)
from txutp.core.states import CLOSED, CONNECTED
from txutp.testing import Datagram, Link, Network

CONTROLLERS = (Shallow, Ledbat, LedbatPlusPlus)
MAXIMUM_STEPS = 400
MEMORY_BYTES = 200_000
MAXIMUM_MINUTES = 120


def parser(data: bytes) -> None:
    """A datagram is parsed or refused; what is parsed stays inside it, and is the same when it is sent again."""
    packet = parse_untrusted(data)
    if packet is None:
        if is_utp_untrusted(data):
            assert parse_extensions_untrusted(data, data[1])[0] < 0, data
        return
    offset, mask, bits = parse_extensions_untrusted(data, data[1])
    assert HEADER_BYTES <= offset <= len(data)
    assert packet.data == data[offset:]
    assert packet.selective_ack == mask
    assert len(bits) <= 255
    if mask is None or mask.bit_length() <= 2016:
        again = parse_untrusted(packet.encode())
        assert again is not None
        assert again[:7] == packet[:7]
        assert again.data == packet.data
        assert (again.selective_ack or 0) == (mask or 0)


class Port:
    """A multiplexer between strangers, without network and shell; every packet that leaves is looked at."""

    def __init__(self, story: Story) -> None:
        self.now_us = 1_000_000
        self.random = 0
        settings = Settings(
            congestion=CONTROLLERS[story.below(3)],
            maximum_half_open=1 + story.below(4),
            maximum_connections=2 + story.below(6),
            receive_buffer_bytes=4_096 + 250 * story.byte(),
            receive_memory_bytes=MEMORY_BYTES,
        )
        self.multiplexer = Multiplexer(settings, self._random_bytes, lambda address: 1_500)
        self.multiplexer.listening = True
        self.received: dict[Address, int] = {}
        self.sent: dict[Address, int] = {}
        self.proven: set[Address] = set()
        self.last: dict[Address, Packet] = {}  # that we sent there
        self.refuses = False

    def _random_bytes(self, count: int) -> bytes:
        self.random += 1
        return (self.random * 40_503 & 0xFFFFFFFF).to_bytes(4, "big")[:count].ljust(count, b"\0")

    def hear(self, data: bytes, stride: int, address: Address) -> None:
        """A read of the socket: one datagram, or several that the kernel joined."""
        self.received[address] = self.received.get(address, 0) + len(data)
        if stride:
            self.multiplexer.receive_joined(data, stride, address, self.now_us)
        else:
            self.multiplexer.receive(data, address, self.now_us)
        self.settle()

    def settle(self) -> None:
        """Let the connections that something happened to send, as the shell does."""
        multiplexer = self.multiplexer
        for _ in range(50):
            touched, multiplexer.touched = multiplexer.touched, []
            if not touched:
                break
            for connection in touched:
                connection.touched = False
                self._note(connection)
                self._send_all(connection)
                if connection.state == CLOSED:
                    multiplexer.forget(connection, self.now_us)
                elif connection.deadline_us < connection.scheduled_us:
                    multiplexer.schedule(connection)
        else:
            raise AssertionError("connections touch each other for ever")
        while multiplexer.replies:
            self._sent(multiplexer.replies.popleft().address, HEADER_BYTES)
        assert multiplexer.failures == []

    def _note(self, connection: Connection) -> None:
        if connection.state == CONNECTED or connection.initiator:
            self.proven.add(connection.address)

    def _send_all(self, connection: Connection) -> None:
        for _ in range(500):
            batch = connection.next_batch(self.now_us)
            if batch is None:
                return
            if self.refuses:
                connection.refuse(batch, 0)
                return
            data = b"".join(batch.buffers)
            packet = parse_untrusted(data[: batch.datagram_bytes])
            assert packet is not None, "what leaves is no uTP"
            self.last[connection.address] = packet
            self._sent(connection.address, len(data))
        raise AssertionError("a connection sends for ever")

    def _sent(self, address: Address, size: int) -> None:
        self.sent[address] = self.sent.get(address, 0) + size
        if address not in self.proven:
            assert self.sent[address] <= self.received.get(address, 0), "more to an unproven source than it sent"

    def check(self) -> None:
        """What always holds."""
        total_bytes = 0
        for connection in self.multiplexer:
            check_counts(connection.sending)
            total_bytes += connection.receiving.ready_bytes + connection.receiving.early_bytes
        assert total_bytes <= 2 * MEMORY_BYTES


def port(data: bytes) -> None:
    """Strangers and peers send anything: nothing raises, nothing grows, and nobody unproven gets more than it sent."""
    story = Story(data)
    scene = Port(story)
    for _ in range(MAXIMUM_STEPS):
        if story.is_over:
            break
        step = story.below(9)
        address = (f"10.0.0.{story.below(4)}", 6881)
        if step == 0:
            scene.hear(story.piece(1_500), 0, address)
        elif step <= 3:
            scene.hear(_packet(story, scene.last.get(address)).encode(), 0, address)
        elif step == 4:
            packets = [_packet(story, scene.last.get(address)).encode() for _ in range(1 + story.below(8))]
            scene.hear(b"".join(packets), max(len(packets[0]), 1), address)
        elif step == 5:
            scene.now_us += story.number(1 + story.below(4))
            scene.multiplexer.handle_timeouts(scene.now_us)
            scene.settle()
        elif step == 6:
            _use(story, scene)
        elif step == 7:
            scene.refuses = bool(story.below(2))
            for connection in list(scene.multiplexer):
                scene.multiplexer.touch(connection)
            scene.settle()
        else:
            head = _packet(story, scene.last.get(address)).encode()
            scene.hear(head[:1] + bytes([story.below(4)]) + head[2:] + story.piece(300), 0, address)
        scene.check()


def _packet(story: Story, last: Packet | None) -> Packet:
    """Returns a packet that fits the last one that left, more or less."""
    choice = story.byte()
    kind = choice % 5
    near = story.below(8) - 3
    if last is None:
        connection_id, sequence, ack = story.below(4) * 3, 1, near
    else:
        connection_id = last.connection_id + (0, 1, -1, 1)[choice >> 3 & 3]
        sequence, ack = last.ack_nr + 1 + near, last.seq_nr + story.below(4) - 2
    payload = story.piece(600) if kind == ST_DATA or choice & 0x80 else b""
    mask = story.number(4) if choice & 0x40 else None
    window = story.number(3)
    timestamps = story.number(2), story.number(2)
    return Packet(kind, connection_id & 0xFFFF, *timestamps, window, sequence & 0xFFFF, ack & 0xFFFF, mask, payload)


def _use(story: Story, scene: Port) -> None:
    """The application does something with a connection, or makes one."""
    # An application has no half-open connections of strangers.
    connections = [one for one in scene.multiplexer if one.initiator or one.segments_received]
    action = story.below(7)
    if action == 6 or not connections:
        if len(connections) < 4:
            with suppress(ConnectionRefused):  # the port is full
                scene.multiplexer.connect((f"10.0.0.{story.below(4)}", 6881), scene.now_us)
    else:
        connection = connections[story.below(len(connections))]
        if action == 0:
            connection.write(bytes(story.number(2)))
        elif action == 1:
            connection.take(1 + story.number(2))
        elif action == 2:
            connection.shutdown()
        elif action == 3:
            connection.close(scene.now_us)
        elif action == 4:
            connection.abort()
        else:
            connection.set_keep_alive(bool(story.below(2)))
        scene.multiplexer.touch(connection)
    scene.settle()


@implementer(IHalfCloseableProtocol)
class Speaker(Protocol):
    """One end of a conversation: it counts what it says and hears, and how often it is told of the end."""

    transport: Any

    def __init__(self) -> None:
        self.said = bytearray()
        self.heard = bytearray()
        self.ends: list[Failure] = []
        self.read_ends = 0
        self.asked_to_end = False

    def dataReceived(self, data: bytes) -> None:
        assert not self.ends, "data behind the end"
        assert not self.read_ends, "data behind the end of the stream"
        self.heard += data

    def readConnectionLost(self) -> None:
        self.read_ends += 1

    def writeConnectionLost(self) -> None:
        """Our half has arrived."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ends.append(reason)

    def say(self, size: int) -> None:
        """Write bytes that tell where in the stream they belong."""
        if not self.asked_to_end and not self.ends:
            start = len(self.said)
            data = bytes((start + step) * 197 >> 3 & 0xFF for step in range(size))
            self.said += data
            self.transport.write(data)


class Strange(DatagramProtocol):
    """What shares the server's port."""

    heard = 0

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard += 1


def conversation(data: bytes) -> None:
    """Two programs talk over a path that the story drops, doubles, delays and alters packets on.

    Bytes are a prefix of what was said, also where packets were lost, late or doubled; complete after an orderly end;
    ends are told once.  Altered packets may end a connection or change bytes, as an attacker on the path may: then only
    what is told is looked at, and that nothing raises.
    """
    story = Story(data)
    network = Network(seed=story.byte())
    altered = False

    def meddle(datagram: Datagram) -> None:
        nonlocal altered
        choice = story.byte() if not story.is_over else 255
        if choice < 24:
            datagram.dropped = True
        elif choice < 30 and datagram.data:
            place = story.number(2) % len(datagram.data)
            datagram.data = datagram.data[:place] + bytes([story.byte()]) + datagram.data[place + 1 :]
            altered = True

    link = Link(
        delay_us=1_000 * story.byte(),
        rate_bytes_per_second=20_000 * story.byte(),
        queue_bytes=2_000 + 500 * story.byte(),
        reorder=story.below(4) / 8,
        duplicate=story.below(4) / 8,
        hook=meddle,
    )
    network.connect("10.0.0.1", "10.0.0.2", link, Link(delay_us=link.delay_us, hook=meddle, reorder=link.reorder))
    settings = Settings(congestion=CONTROLLERS[story.below(3)], receive_buffer_bytes=4_096 + 250 * story.byte())
    here, there = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    client, servers, strange = Speaker(), [], Strange()

    def accept(address: Any) -> Speaker:
        servers.append(Speaker())
        return servers[-1]

    factory = Factory()
    factory.buildProtocol = accept  # type: ignore[method-assign]
    listening = listenUTP(there, 6881, factory, settings=settings, datagramProtocol=strange)
    connecting: Deferred[Protocol] = UTPClientEndpoint(here, "10.0.0.2", 6881, settings=settings).connect(
        Factory.forProtocol(lambda: client)  # type: ignore[arg-type]
    )
    connecting.addErrback(lambda failure: None)
    network.run(seconds=1)

    aborted = False
    for _ in range(MAXIMUM_STEPS):
        if story.is_over:
            break
        speakers = [speaker for speaker in (client, *servers) if speaker.transport is not None and not speaker.ends]
        step = story.below(8)
        if not speakers or step == 0:
            network.run(seconds=(1 + story.byte()) / 50)
            continue
        speaker = speakers[story.below(len(speakers))]
        if step <= 3:
            speaker.say(story.number(2) % 20_000)
        elif step == 4:
            speaker.transport.pauseProducing()
        elif step == 5:
            speaker.transport.resumeProducing()
        elif step == 6:
            speaker.asked_to_end = True
            speaker.transport.loseWriteConnection()
        elif story.below(4) == 0:
            aborted = True
            speaker.asked_to_end = True
            speaker.transport.abortConnection()

    listening.stopListening()
    for _ in range(MAXIMUM_MINUTES):
        for speaker in (client, *servers):
            if speaker.transport is not None and not speaker.ends:
                speaker.transport.resumeProducing()
                if speaker.asked_to_end and speaker.read_ends:
                    speaker.transport.loseConnection()
                elif not speaker.asked_to_end:
                    speaker.asked_to_end = True
                    speaker.transport.loseWriteConnection()
        network.run(seconds=60)
        if not network.ports:
            break
    for speaker in (client, *servers):
        if speaker.transport is not None and not speaker.ends:
            assert altered or _is_alone(speaker, network), speaker.transport._connection
            speaker.transport.abortConnection()
    network.run(seconds=60)
    _check_ends(client, servers, altered, aborted)
    assert not network.ports or altered, network.ports


def _is_alone(speaker: Speaker, network: Network) -> bool:
    """Whether nothing can tell a connection that its peer has gone.

    The peer's UDP port is closed, no RESET arrived from it, nothing waits for an ack, and the peer never answered a
    probe: silence proves nothing then, and the application has to end the connection.
    """
    connection: Connection = speaker.transport._connection
    sending = connection.sending
    return (
        connection.address not in network.ports
        and not sending.outstanding
        and not sending.unsent_bytes
        and not connection.answers_probes
    )


def _check_ends(client: Speaker, servers: list[Speaker], altered: bool, aborted: bool) -> None:
    for speaker in (client, *servers):
        assert len(speaker.ends) <= 1, "told twice"
        assert speaker.read_ends <= 1
    if altered or not servers:
        return
    server = servers[0]
    for saying, hearing in ((client, server), (server, client)):
        assert bytes(hearing.heard) == bytes(saying.said[: len(hearing.heard)]), "other bytes"
        if hearing.read_ends and not aborted:
            assert len(hearing.heard) == len(saying.said), "not all bytes before the end"


TARGETS: dict[str, Callable[[bytes], None]] = {"parser": parser, "port": port, "conversation": conversation}
