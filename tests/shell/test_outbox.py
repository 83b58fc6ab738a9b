"""What leaves a port: in order, each once, gathered where that saves system calls, whatever the socket refuses."""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error, reactor
from twisted.internet.defer import gatherResults

from tests.support import CLIENT, PORT, SERVER, Accepting, Stream, until
from txutp import UTPClientEndpoint, listenUTP
from txutp.core.batch import Batch
from txutp.core.multiplexer import Multiplexer
from txutp.core.settings import Settings
from txutp.core.states import CLOSED, CONNECTED, SYN_SENT
from txutp.testing import Link, Network
from txutp.udp.outbox import BUSY_PART, LONGEST_WAIT_US, MOST_GATHERED, SMALL_BYTES, Outbox

HERE = ("127.0.0.1", 6881)
THERE = ("127.0.0.1", 6882)


class Speaker:
    """Stands in for a Connection that has some datagrams to send: (size, count) each."""

    def __init__(self, name: int, says: list[tuple[int, int]], address: Any = HERE) -> None:
        self.name = name
        self.address = address
        self.receive_id = name
        self.state = CONNECTED
        self.settings = Settings()
        self.touched = False
        self.failures: list[int] = []
        self.says = [[f"{name} {number}".encode().ljust(size)] * count for number, (size, count) in enumerate(says)]
        self.given: list[Batch] = []

    def next_batch(self, now_us: int) -> Any:
        if not self.says:
            return None
        datagrams = self.says.pop(0)
        batch = Batch(self.address, list(datagrams), len(datagrams), len(datagrams[0]))
        self.given.append(batch)
        return batch

    def refuse(self, batch: Batch, accepted: int) -> None:
        assert batch is self.given.pop(), "what was taken last has to be given back first"
        self.says.insert(0, list(batch.buffers[accepted:]))  # type: ignore[arg-type]

    def fail(self, reason: int) -> None:
        self.failures.append(reason)


class Port:
    """Takes as many datagrams of each batch as it is told; all without a limit."""

    offload_send = True

    def __init__(self, *takes: int) -> None:
        self.takes = list(takes)
        self.problem: OSError | None = None
        self.calls: list[list[bytes]] = []
        self.left: list[tuple[Any, bytes]] = []

    def send_batch(self, batch: Batch) -> int:
        if self.problem is not None:
            raise self.problem
        datagrams = list(batch.datagrams())
        assert {len(datagram) for datagram in datagrams} == {batch.datagram_bytes}
        if self.takes:
            del datagrams[self.takes.pop(0) :]
        self.calls.append(datagrams)
        self.left += [(batch.address, datagram) for datagram in datagrams]
        return len(datagrams)


class Crowd(Multiplexer):
    """Stands in for one that has so many connections."""

    def __init__(self, size: int) -> None:
        super().__init__(Settings(), bytes)
        self.size = size

    def __len__(self) -> int:
        return self.size


def an_outbox(port: Port, connections: int = 8, now_us: Callable[[], int] = lambda: 0) -> Outbox:
    outbox = Outbox(Crowd(connections), now_us)
    outbox.port = port
    return outbox


def a_round(outbox: Outbox, speakers: list[Any]) -> None:
    outbox.begin_round(len(speakers))
    for speaker in speakers:
        speaker.touched = False
        outbox.transmit(speaker, None)
    outbox.flush()


def said(port: Port) -> dict[bytes, list[bytes]]:
    """What has left, by who said it."""
    found: dict[bytes, list[bytes]] = {}
    for _, datagram in port.left:
        found.setdefault(datagram.split()[0], []).append(datagram)
    return found


def test_acks_of_several_connections_leave_in_one_call() -> None:
    port = Port()
    a_round(an_outbox(port, connections=16), [Speaker(name, [(20, 1)]) for name in range(12)])
    assert [len(call) for call in port.calls] == [8, 4]


@pytest.mark.parametrize(
    ("connections", "in_the_round", "expected"),
    [
        (4, 4, 2),
        (16, 16, 8),
        (16, 10, 8),
        (1_000, 1_000, MOST_GATHERED),
        # most are idle
        (1_000, 10, 5),
        (1_000, int(1_000 * BUSY_PART), MOST_GATHERED),
    ],
)
def test_the_other_side_has_something_to_do_meanwhile(connections: int, in_the_round: int, expected: int) -> None:
    port = Port()
    outbox = an_outbox(port, connections)
    outbox.begin_round(in_the_round)
    for name in range(expected):
        assert not port.calls
        outbox.transmit(Speaker(name, [(20, 1)]), None)  # type: ignore[arg-type]
    assert [len(call) for call in port.calls] == [expected]


def test_nobody_waits_long_for_an_application_that_is_slow_to_answer_others() -> None:
    port = Port()
    clock = [0]
    outbox = an_outbox(port, connections=100, now_us=lambda: clock[0])
    outbox.begin_round(100)
    for wait_us, expected in ((0, 0), (LONGEST_WAIT_US - 1, 0), (1, 3), (LONGEST_WAIT_US, 3), (1, 3)):
        clock[0] += wait_us
        outbox.transmit(Speaker(1, [(20, 1)]), None)  # type: ignore[arg-type]
        assert len(port.left) == expected


def test_what_is_large_does_not_wait_for_others() -> None:
    port = Port()
    outbox = an_outbox(port)
    outbox.begin_round(6)
    outbox.transmit(Speaker(1, [(20, 1)]), None)  # type: ignore[arg-type]
    assert not port.calls
    outbox.transmit(Speaker(2, [(SMALL_BYTES, 1)]), None)  # type: ignore[arg-type]
    assert [len(call[0]) for call in port.calls] == [20, SMALL_BYTES]


@pytest.mark.parametrize(("connections", "in_the_round"), [(3, 3), (8, 1), (100, 3)])
def test_few_connections_wait_for_nobody(connections: int, in_the_round: int) -> None:
    port = Port()
    outbox = an_outbox(port, connections)
    outbox.begin_round(in_the_round)
    outbox.transmit(Speaker(1, [(20, 1)]), None)  # type: ignore[arg-type]
    assert len(port.calls) == 1


def test_nothing_waits_where_it_would_save_nothing() -> None:
    port = Port()
    port.offload_send = False
    outbox = an_outbox(port)
    outbox.begin_round(100)
    outbox.transmit(Speaker(1, [(20, 1)]), None)  # type: ignore[arg-type]
    assert len(port.calls) == 1


def test_addresses_and_sizes_are_not_mixed() -> None:
    port = Port()
    speakers = [Speaker(name, [(20 + name % 2, 1)], (HERE, THERE)[name // 2 % 2]) for name in range(16)]
    a_round(an_outbox(port, connections=16), speakers)
    assert Counter(address for address, _ in port.left) == {HERE: 8, THERE: 8}
    assert [len(call) for call in port.calls] == [2] * 8


def test_a_message_leaves_before_the_fin_behind_it() -> None:
    """Although FINs of others were gathered before the message was."""
    port = Port()
    speakers = [Speaker(0, [(20, 1)]), *(Speaker(name, [(200, 1), (20, 1)]) for name in range(1, 33))]
    a_round(an_outbox(port, connections=33), speakers)
    for name in range(1, 33):
        assert [len(datagram) for datagram in said(port)[str(name).encode()]] == [200, 20]
    assert len(port.calls) < len(port.left) / 2


def test_what_was_gathered_for_a_port_that_is_gone_is_no_error() -> None:
    outbox = an_outbox(Port(), connections=100)
    speaker: Any = Speaker(1, [(20, 1)])
    outbox.begin_round(100)
    outbox.transmit(speaker, None)
    outbox.port = None
    outbox.flush()  # too late, and no error
    assert not speaker.says


@pytest.mark.parametrize("state", [SYN_SENT, CONNECTED, CLOSED])
def test_without_a_route_every_attempt_hears_it(state: int) -> None:
    port = Port()
    port.problem = OSError(errno.ENETUNREACH, "no route")
    speakers = [Speaker(name, [(20, 1)]) for name in range(4)]
    for speaker in speakers:
        speaker.state = state
    a_round(an_outbox(port), speakers)
    assert [len(speaker.failures) for speaker in speakers] == [state == SYN_SENT] * 4


def test_what_nobody_waits_for_is_lost_when_the_socket_is_full() -> None:
    port = Port(0)
    outbox = an_outbox(port)
    a_round(outbox, [Speaker(1, [(20, 1)])])
    outbox.send(Batch(HERE, [b"stranger"], 1, 8))
    outbox.writable()
    outbox.send(Batch(HERE, [b"another"], 1, 7))
    assert port.left == [(HERE, b"another")]


@given(
    st.lists(
        st.tuples(st.lists(st.tuples(st.sampled_from([20, 21, 300]), st.integers(1, 3)), max_size=4), st.booleans()),
        max_size=10,
    ),
    st.lists(st.integers(0, 4), max_size=30),
)
def test_everything_leaves_once_and_in_order(says: list[Any], takes: list[int]) -> None:
    """Whoever says what, and however often the socket is full in the middle of it."""
    port = Port(*takes)
    outbox = an_outbox(port)
    speakers = [Speaker(name, list(what), THERE if far else HERE) for name, (what, far) in enumerate(says)]
    expected = {
        str(speaker.name).encode(): [datagram for datagrams in speaker.says for datagram in datagrams]
        for speaker in speakers
        if speaker.says
    }
    a_round(outbox, speakers)
    multiplexer = outbox._multiplexer
    for _ in range(len(takes)):
        outbox.writable()
        touched, multiplexer.touched = multiplexer.touched, []
        a_round(outbox, touched)
    assert said(port) == expected


@dataclass
class Clients:
    """So many clients that leave from one listening port, which gathers, and a server on another host."""

    count: int
    seed: int = 1
    protocol: type[Stream] = Stream

    def __post_init__(self) -> None:
        self.network = Network(self.seed)
        self.network.connect(CLIENT, SERVER, Link(delay_us=5_000))
        self.accepting = Accepting()
        listenUTP(self.network.reactor(SERVER), PORT, self.accepting)
        self.connecting = Accepting(self.protocol)
        reactor = self.network.reactor(CLIENT)
        self.port = listenUTP(reactor, PORT, Accepting())
        for _ in range(self.count):
            endpoint = UTPClientEndpoint(reactor, SERVER, PORT, bindAddress=("", PORT))
            endpoint.connect(self.connecting)
        self.utp: Any = self.port._utp
        self.utp.port.offload_send = True  # each still leaves alone here
        self.sent: list[bytes] = []
        self.refusals = 0.0
        self.chance = random.Random(self.seed)
        self.write = self.utp.transport.write
        self.utp.transport.write = self.write_or_refuse

    def write_or_refuse(self, packet: bytes, addr: Any = None) -> None:
        if self.chance.random() < self.refusals:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        self.sent.append(packet)
        self.write(packet, addr)

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        return self.network.run(seconds, until)


@pytest.mark.parametrize("seed", range(5))
def test_streams_of_one_port_arrive_although_the_socket_is_often_full(seed: int) -> None:
    """With real connections: what was gathered and refused comes again, the messages and the FINs behind them."""
    clients = Clients(20, seed)
    clients.refusals = 0.4
    streams = clients.connecting.made
    assert clients.run(5, until=lambda: len(streams) == 20)
    messages = [b"%d " % number * (1 + number * 20) for number in range(20)]
    for stream, message in zip(streams, messages, strict=True):
        stream.transport.write(message)  # type: ignore[union-attr]
        stream.transport.loseConnection()  # type: ignore[union-attr]
    clients.run(30, until=lambda: all(stream.lost for stream in streams))
    assert {stream.lost_type for stream in streams} == {error.ConnectionDone}
    assert sorted(bytes(stream.received) for stream in clients.accepting.made) == sorted(messages)
    assert clients.utp.multiplexer.counters.sends_refused > 20


def test_a_port_that_closes_with_its_last_connection_sends_all_last_acks() -> None:
    """The fifth of them waits for another one when the port goes."""
    clients = Clients(5)
    streams = clients.connecting.made
    assert clients.run(5, until=lambda: len(streams) == 5)
    clients.run(1)
    clients.port.stopListening()
    for stream in streams:
        stream.transport.loseConnection()  # type: ignore[union-attr]
    assert clients.run(1, until=lambda: all(stream.lost for stream in streams))
    assert clients.utp.port is None
    clients.run(0.006)
    assert [stream.lost_type for stream in clients.accepting.made] == [error.ConnectionDone] * 5


def test_a_port_that_is_stopped_in_the_middle_of_a_round_sends_what_was_gathered() -> None:
    """At the fourth delivery two acks have left, and the third waits for the fourth."""
    deliveries = 0
    left_at_once: list[int] = []

    class Closing(Stream):
        """The fourth to get something lets the port go, as a port does that somebody stops."""

        def dataReceived(self, data: bytes) -> None:
            nonlocal deliveries
            deliveries += 1
            if deliveries == 4:
                before = len(clients.sent)
                clients.utp.farewell()
                left_at_once.append(len(clients.sent) - before)

    clients = Clients(5, protocol=Closing)
    assert clients.run(5, until=lambda: len(clients.connecting.made) == len(clients.accepting.made) == 5)
    clients.run(1)
    for stream in clients.accepting.made:
        stream.transport.write(b"x")  # type: ignore[union-attr]
    clients.run(0.006)
    assert left_at_once == [1]


@pytest_twisted.ensureDeferred
async def test_clients_of_one_port_need_few_system_calls() -> None:
    """On real sockets: each connects, says its number and goes."""
    accepting = Accepting()
    server = listenUTP(reactor, 0, accepting, interface="127.0.0.1")
    endpoint = UTPClientEndpoint(reactor, "127.0.0.1", server.getHost().port)
    streams: list[Any] = await gatherResults([endpoint.connect(Accepting()) for _ in range(32)])
    utp = streams[0].transport._utp
    gathers = utp.port.offload_send
    for number, stream in enumerate(streams):
        stream.transport.write(b"%02d" % number)
        stream.transport.loseConnection()
    await until(lambda: all(stream.lost for stream in [*streams, *accepting.made]))
    assert sorted(bytes(stream.received) for stream in accepting.made) == [b"%02d" % number for number in range(32)]
    counters = utp.multiplexer.counters
    if gathers:
        assert counters.send_calls < counters.datagrams_sent / 2
    await server.stopListening()
