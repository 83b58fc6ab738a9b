"""The tables of a multiplexer, in any order of packets, calls and moments: they agree, and nothing is left."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support import check_counts
from txutp.core import cookies, multiplexer, tombstones
from txutp.core.address import remote_of, with_local
from txutp.core.admission import ConnectionRefused
from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.flow import NEVER_US
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet, parse_untrusted
from txutp.core.sequence import MASK16
from txutp.core.settings import Settings
from txutp.core.states import CLOSED, CONNECTED, SYN_RECEIVED, SYN_SENT
from txutp.core.units import SECOND_US

SETTINGS = settings(max_examples=150, stateful_step_count=60, deadline=None, derandomize=True)
PORT = Settings(
    maximum_connections=5,
    maximum_connections_per_address=3,
    maximum_half_open=3,
    maximum_half_open_per_address=2,
    receive_buffer_bytes=4_096,
    receive_memory_bytes=65_536,
    resets_per_second=5,
)

# So little may be kept beyond what is alive, or a short run would reach no limit.
SPARE_DEADLINES = 3
MAXIMUM_TOMBSTONES = 4
MAXIMUM_SPENT = 50

HOSTS = 3
LOCALS = ("", "192.0.2.1", "192.0.2.2")
WAITS_US = (1_000, SECOND_US // 2, 4 * SECOND_US, 15 * SECOND_US, 100 * SECOND_US)

# Packets of one connection in a row, and turns in one wait, beyond which it would go on for ever.
MAXIMUM_BATCHES = 500
MAXIMUM_TURNS = 2_000

pick = st.integers(0, 50)


class Tables(RuleBasedStateMachine):
    """Peers that are what they seem, forgers, an application and time; the model is what all tables have in common."""

    def __init__(self) -> None:
        super().__init__()
        self.now_us = 100 * SECOND_US
        self.multiplexer = Multiplexer(PORT, Random(1).randbytes, lambda address: 1_500)
        self.multiplexer.listening = True
        self.made: dict[Connection, None] = {}  # all that there ever were
        self.kept: list[Connection] = []  # ended, with a reader that is behind
        self.syns: list[tuple[Address, Packet]] = []
        self.proofs: list[tuple[Address, Packet]] = []  # what proves a source, of peers that were answered
        self.spent: list[tuple[Address, Packet]] = []  # those of which a connection was made
        self.past: list[tuple[Address, Packet]] = []  # what peers have sent, to come again
        self.left: list[tuple[Address, bytes]] = []  # what we sent last
        self.refuses = False

    # -- the shell --

    def hear(self, address: Address, packet: Packet) -> None:
        self.past.append((address, packet))
        self.multiplexer.receive(packet.encode(), address, self.now_us)
        self.settle()

    def settle(self) -> None:
        """Let the connections that something happened to send, and forget those that have ended, as the shell does."""
        multiplexer = self.multiplexer
        self.made.update(dict.fromkeys(multiplexer))
        while multiplexer.touched:
            touched, multiplexer.touched = multiplexer.touched, []
            for connection in touched:
                connection.touched = False
                self.send_all(connection)
                if connection.state == CLOSED:
                    multiplexer.forget(connection, self.now_us)
                    if connection.receiving.ready and connection not in self.kept:
                        multiplexer.keep_unread(connection)
                        self.kept.append(connection)
                else:
                    multiplexer.schedule(connection)
        while multiplexer.replies:
            reply = multiplexer.replies.popleft()
            self.sent(reply.address, b"".join(reply.buffers))
        assert multiplexer.failures == []

    def send_all(self, connection: Connection) -> None:
        for _ in range(MAXIMUM_BATCHES):
            batch = connection.next_batch(self.now_us)
            if batch is None:
                return
            if self.refuses:
                connection.refuse(batch, 0)
                return
            self.sent(connection.address, b"".join(batch.buffers)[: batch.datagram_bytes])
        raise AssertionError("a connection sends for ever")

    def sent(self, address: Address, data: bytes) -> None:
        """Something left; a peer that hears its SYN answered can prove itself."""
        self.left = [*self.left[-20:], (address, data)]
        packet = parse_untrusted(data)
        assert packet is not None
        for asked, syn in self.syns:
            if (asked, syn.connection_id, syn.seq_nr) == (address, packet.connection_id, packet.ack_nr):
                proof = Packet(
                    ST_STATE, syn.connection_id + 1 & MASK16, 1, 1, 1 << 20, syn.seq_nr + 1 & MASK16,
                    packet.seq_nr - 1 & MASK16, None, b"",
                )  # fmt: skip
                if packet.type == ST_STATE and (address, proof) not in self.proofs:
                    self.proofs.append((address, proof))

    # -- peers and forgers --

    @rule(host=st.integers(1, HOSTS), first=st.integers(0, 4), count=st.integers(1, 3), sequence=st.integers(0, 3),
          local=st.sampled_from(LOCALS))  # fmt: skip
    def syn(self, host: int, first: int, count: int, sequence: int, local: str) -> None:
        """SYNs end nothing that is proven."""
        address: Address = (f"10.0.0.{host}", 6881)
        if local:
            address = with_local(address, local)
        proven = [one for one in self.multiplexer if one.state == CONNECTED]
        for number in range(first, first + count):
            packet = Packet(ST_SYN, (2 * number + 0xFFFE) & MASK16, 1, 0, 1 << 20, sequence, 0, None, b"")
            if (address, packet) not in self.syns:
                self.syns.append((address, packet))
            self.hear(address, packet)
        assert all(one.state == CONNECTED for one in proven)

    @precondition(lambda self: self.proofs)
    @rule(place=pick)
    def prove(self, place: int) -> None:
        """A proof makes one connection at most."""
        address, packet = self.proofs[-1 - place % len(self.proofs)]
        before = len(self.made)
        self.hear(address, packet)
        if len(self.made) > before:
            assert (address, packet) not in self.spent
            self.spent.append((address, packet))

    @precondition(lambda self: self.past)
    @rule(place=pick)
    def come_again(self, place: int) -> None:
        """The network doubles an old packet, or an attacker has kept it."""
        self.hear(*self.past[-1 - place % len(self.past)])

    @precondition(lambda self: len(self.multiplexer))
    @rule(place=pick, kind=st.sampled_from([ST_DATA, ST_DATA, ST_FIN, ST_STATE, ST_RESET]), off=st.integers(-1, 1))
    def say(self, place: int, kind: int, off: int) -> None:
        """The peer of a connection says something that fits, or a forger something that nearly does."""
        connection = self.one(place)
        sending, receiving = connection.sending, connection.receiving
        number = receiving.next_sequence + off
        packet = Packet(
            kind, connection.receive_id, 1, 1, 1 << 20, number & MASK16,
            sending.next_sequence - 1 & MASK16, None, b"some data" if kind == ST_DATA else b"",
        )  # fmt: skip
        self.hear(connection.address, packet)

    @rule(
        host=st.integers(1, HOSTS),
        kind=st.sampled_from([ST_DATA, ST_FIN, ST_STATE, ST_RESET]),
        number=st.integers(0, 9),
    )
    def strange(self, host: int, kind: int, number: int) -> None:
        """A packet with an id that may be somebody's."""
        self.hear((f"10.0.0.{host}", 6881), Packet(kind, number, 1, 1, 1 << 20, number, number, None, b"x"))

    @rule(host=st.integers(1, HOSTS), local=st.sampled_from(LOCALS))
    def answer(self, host: int, local: str) -> None:
        """A server answers a SYN of ours, to an address of ours that may have been unknown."""
        for connection in self.multiplexer:
            if connection.state == SYN_SENT and connection.address[0] == f"10.0.0.{host}":
                address = connection.address
                if local and remote_of(address) is address:
                    address = with_local(address, local)
                ack = connection.sending.first_unacked - 1 & MASK16
                self.hear(address, Packet(ST_STATE, connection.receive_id, 1, 1, 1 << 20, 500, ack, None, b""))
                return

    @precondition(lambda self: self.left)
    @rule(place=pick, is_honest=st.booleans())
    def unreachable(self, place: int, is_honest: bool) -> None:
        """An ICMP error quotes what left."""
        address, data = self.left[-1 - place % len(self.left)]
        self.multiplexer.port_is_closed(
            data if is_honest else data[:4] + b"1234" + data[8:], address, True, self.now_us
        )
        self.settle()

    # -- the application, the socket and time --

    def one(self, place: int) -> Connection:
        connections = list(self.multiplexer)
        return connections[place % len(connections)]

    @rule(host=st.integers(1, HOSTS))
    def connect(self, host: int) -> None:
        before = len(self.multiplexer)
        with suppress(ConnectionRefused):
            self.multiplexer.connect((f"10.0.0.{host}", 6881), self.now_us)
            assert len(self.multiplexer) <= before + 1
        self.settle()

    @precondition(lambda self: len(self.multiplexer))
    @rule(place=pick, what=st.sampled_from(["write", "take", "shutdown", "close", "abort"]))
    def use(self, place: int, what: str) -> None:
        connection = self.one(place)
        if connection.state == SYN_RECEIVED:
            return  # the application does not know of it
        if what == "write":
            connection.write(bytes(3_000))
        elif what == "take":
            connection.take(20)
        elif what == "shutdown":
            connection.shutdown()
        elif what == "close":
            connection.close(self.now_us)
        else:
            connection.abort()
        self.multiplexer.touch(connection)
        self.settle()

    @precondition(lambda self: self.kept)
    @rule()
    def read_the_rest(self) -> None:
        self.multiplexer.release_unread(self.kept.pop())

    @rule(listens=st.booleans())
    def listen(self, listens: bool) -> None:
        self.multiplexer.listening = listens

    @rule(refuses=st.booleans())
    def fill(self, refuses: bool) -> None:
        """The socket takes nothing, or takes what has waited."""
        self.refuses = refuses
        for connection in self.multiplexer:
            self.multiplexer.touch(connection)
        self.settle()

    @rule(wait_us=st.sampled_from(WAITS_US))
    def wait(self, wait_us: int) -> None:
        multiplexer = self.multiplexer
        end_us = self.now_us + wait_us
        for _ in range(MAXIMUM_TURNS):
            deadline_us = multiplexer.next_deadline_us()
            if deadline_us is None or deadline_us > end_us:
                self.now_us = end_us
                return
            self.now_us = max(self.now_us, deadline_us)
            multiplexer.handle_timeouts(self.now_us)
            self.settle()
        raise AssertionError("timers ring for ever")

    # -- what always holds --

    @invariant()
    def each_connection_is_found_under_its_ids_and_once(self) -> None:
        multiplexer = self.multiplexer
        connections = list(multiplexer)
        assert len(set(connections)) == len(connections) == len(multiplexer)
        for connection in connections:
            address, receive_id, send_id = connection.address, connection.receive_id, connection.send_id
            assert multiplexer._connections[address, receive_id] is connection
            assert multiplexer.receiver_of(receive_id, address) is connection
            assert connection.state != CLOSED
            assert not connection.touched
            sender = multiplexer.sender_of(Packet(ST_STATE, send_id, 1, 1, 1, 1, 1, None, b"").encode(), address)
            assert sender is not None
            assert send_id in (sender.receive_id, sender.send_id)
            assert (address, receive_id) not in multiplexer._tombstones
            check_counts(connection.sending)
        opening = {one: remote_of(one.address) for one in connections if one.state == SYN_SENT}
        assert opening == {one: remote for remote, ours in multiplexer._opening.items() for one in ours}
        assert all(multiplexer._opening.values())

    @invariant()
    def quotas_hold_and_places_are_counted(self) -> None:
        admission = self.multiplexer._admission
        connections = list(self.multiplexer)
        half_open = [one for one in connections if one.state == SYN_RECEIVED]
        assert list(admission.half_open) == sorted(half_open, key=list(self.made).index), "the oldest is the first"
        of_hosts = {host: list(ones) for host, ones in admission._half_open_per_host.items()}
        hosts = dict.fromkeys(one.address[0] for one in half_open)
        assert of_hosts == {host: [one for one in admission.half_open if one.address[0] == host] for host in hosts}
        places = Counter(one.address[0] for one in (*connections, *self.kept))
        assert admission._per_host == places
        assert admission._kept == len(self.kept)
        assert len(connections) + len(self.kept) <= PORT.maximum_connections
        assert max(places.values(), default=0) <= PORT.maximum_connections_per_address
        assert len(half_open) <= PORT.maximum_half_open
        assert max(map(len, of_hosts.values()), default=0) <= PORT.maximum_half_open_per_address

    @invariant()
    def counters_are_what_the_tables_hold(self) -> None:
        multiplexer = self.multiplexer
        assert multiplexer.half_open == sum(one.state == SYN_RECEIVED for one in multiplexer)
        assert multiplexer.ended.connections == len(self.made) - len(multiplexer)
        memory = multiplexer.memory
        assert memory.held_bytes == sum(one.receiving._charged_bytes for one in (*multiplexer, *self.kept))
        assert 0 <= memory.held_bytes <= memory.limit_bytes
        assert len(multiplexer._tombstones._packed) <= MAXIMUM_TOMBSTONES
        assert len(multiplexer._cookies._spent) <= MAXIMUM_SPENT

    @invariant()
    def deadlines_are_noted_and_few(self) -> None:
        multiplexer = self.multiplexer
        heap = multiplexer._deadlines
        assert len(heap) <= SPARE_DEADLINES + 2 * PORT.maximum_connections
        entries = set(heap)
        for connection in multiplexer:
            assert connection.scheduled_us <= connection.deadline_us
            if connection.scheduled_us != NEVER_US:
                # a predecessor with the same ids may have left an equal one
                assert (connection.scheduled_us, connection.address, connection.receive_id) in entries
        alive = [one.scheduled_us for one in multiplexer if one.deadline_us != NEVER_US]
        assert multiplexer.next_deadline_us() == min(alive, default=None)
        assert all(heap[(place - 1) // 2] <= heap[place] for place in range(1, len(heap)))

    def teardown(self) -> None:
        """Everything ends: nothing is left but what expires, and that does."""
        multiplexer = self.multiplexer
        self.fill(False)
        multiplexer.listening = False
        for connection in multiplexer:
            connection.abort()
            multiplexer.touch(connection)
        self.settle()
        while self.kept:
            self.read_the_rest()
        assert len(multiplexer) == multiplexer.half_open == multiplexer.memory.held_bytes == 0
        assert multiplexer.next_deadline_us() is None
        assert multiplexer._deadlines == []
        assert multiplexer._admission._kept == 0
        admission = multiplexer._admission
        for table in (multiplexer._opening, admission._per_host, admission._half_open_per_host, admission.half_open):
            assert not table
        self.wait(600 * SECOND_US)
        for address, receive_id in multiplexer._tombstones._packed:
            assert not multiplexer.knows(
                Packet(ST_STATE, receive_id, 1, 1, 1, 1, 1, None, b"").encode(), address, self.now_us
            )


def test_the_tables_of_a_multiplexer_in_any_order_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexer, "SPARE_DEADLINES", SPARE_DEADLINES)
    monkeypatch.setattr(tombstones, "MAXIMUM_TOMBSTONES", MAXIMUM_TOMBSTONES)
    monkeypatch.setattr(cookies, "MAXIMUM_SPENT", MAXIMUM_SPENT)
    run_state_machine_as_test(Tables, settings=SETTINGS)
