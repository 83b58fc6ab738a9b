"""How connections begin: ids, sequence numbers, repeated SYNs, and the proof of the source."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet import error
from twisted.python.failure import Failure

from tests.support import (
    CLIENT,
    PORT,
    SERVER,
    Accepting,
    HalfStream,
    Pair,
    ScriptedClient,
    ScriptedPeer,
    ScriptedServer,
    Stream,
)
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.admission import ConnectionRefused
from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN
from txutp.core.states import DONE
from txutp.core.units import SECOND_US
from txutp.protocol import LAST_PROOFS_US
from txutp.testing import Datagram, Link, Network


def test_the_initiators_numbers() -> None:
    """connect(): SYN id I, ack 0; SYN-ACK (id I, seq S, ack syn) -> ack S-1; first DATA id I+1, seq syn+1."""
    scene = ScriptedServer()
    assert scene.syn.type == ST_SYN
    assert scene.syn.ack_nr == 0
    (state,) = scene.peer.take()
    assert (state.type, state.connection_id) == (ST_STATE, scene.syn.connection_id + 1 & 0xFFFF)
    assert state.ack_nr == scene.sequence - 1
    assert state.seq_nr == scene.syn.seq_nr + 1 & 0xFFFF

    scene.client.transport.write(b"hello")
    scene.run(0.001)

    (data,) = scene.peer.take()
    assert (data.type, data.connection_id) == (ST_DATA, scene.syn.connection_id + 1 & 0xFFFF)
    assert (data.seq_nr, data.ack_nr) == (scene.syn.seq_nr + 1 & 0xFFFF, scene.sequence - 1)
    assert data.data == b"hello"


def test_the_acceptors_numbers() -> None:
    """accept: SYN(I, q) -> STATE(id I, seq S, ack q); the first DATA sent by us has seq S."""
    scene = ScriptedClient(confirm=False)
    answer = scene.handshake()
    assert (answer.type, answer.connection_id, answer.ack_nr) == (ST_STATE, 1_000, 5_000)
    assert answer.selective_ack is None
    (data,) = scene.push(b"server speaks first")
    assert (data.type, data.connection_id, data.seq_nr, data.ack_nr) == (ST_DATA, 1_000, answer.seq_nr, 5_000)


def test_a_duplicate_syn_draws_the_same_syn_ack() -> None:
    """Before and after we sent DATA, a duplicate SYN gets the same seq; the application hears of one connection."""
    scene = ScriptedClient(confirm=False)
    peer = scene.peer
    peer.syn(1_000, 5_000)
    peer.syn(1_000, 5_000)
    scene.run(0.01)
    answers = peer.take()
    assert {(p.type, p.seq_nr, p.ack_nr, p.connection_id) for p in answers} == {
        (ST_STATE, answers[0].seq_nr, 5_000, 1_000)
    }

    again = scene.handshake()
    scene.push(b"data moves our next number on")
    peer.syn(1_000, 5_000)
    scene.run(0.01)

    last = peer.take()[-1]
    assert again.seq_nr == answers[0].seq_nr == last.seq_nr
    assert len(scene.accepting.made) == 1


def test_a_lost_syn_ack_is_asked_for_again_with_the_same_id() -> None:
    """The SYN-ACK is lost once: the initiator repeats id and seq after three seconds, and connects."""
    scene = ScriptedServer(answer=False)
    scene.run(2.9)
    assert scene.peer.take() == []
    scene.run(0.2)
    (second,) = scene.peer.take()
    assert (second.connection_id, second.seq_nr) == (scene.syn.connection_id, scene.syn.seq_nr)
    scene.peer.state()
    scene.run(0.1)
    assert scene.client.made


def test_the_third_syn_takes_a_fresh_id() -> None:
    """After two SYNs in vain a fresh id: a peer may hold a socket for the old one that rejects our acks."""
    scene = ScriptedServer(answer=False)
    scene.run(9.1)
    second, third = scene.peer.take()
    assert second.connection_id == scene.syn.connection_id
    assert third.connection_id != scene.syn.connection_id
    scene.peer.send_id, scene.peer.ack = third.connection_id, third.seq_nr
    scene.peer.state()
    scene.run(0.1)
    assert scene.client.made
    scene.client.transport.write(b"x")
    scene.run(0.1)
    data = scene.peer.take()[-1]
    assert data.connection_id == third.connection_id + 1 & 0xFFFF
    assert data.seq_nr == third.seq_nr + 1 & 0xFFFF


@pytest.mark.parametrize("lost_syns", [0, 1, 2, 3])
def test_connects_although_syns_and_syn_acks_are_lost(lost_syns: int) -> None:
    seen = []

    def lose(datagram: Datagram) -> None:
        seen.append(datagram)
        datagram.dropped = len(seen) <= lost_syns

    pair = Pair(link=Link(delay_us=10_000, hook=lose), back=Link(delay_us=10_000))
    assert pair.client.made == pair.server.made == 1


def test_connecting_gives_up_after_the_timeout() -> None:
    scene = ScriptedServer(answer=False, timeout=5)
    scene.run(4.9)
    assert not scene.failures
    scene.run(0.2)
    assert scene.failures[0].check(error.TimeoutError)
    assert scene.client_reactor.getDelayedCalls() == []
    assert not [port for port in scene.network.ports if port[0] == CLIENT]


def test_connecting_gives_up_although_our_own_socket_takes_nothing() -> None:
    network = Network(1)
    failures: list[Failure] = []
    UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, timeout=5).connect(Accepting()).addErrback(failures.append)
    (port,) = network.ports.values()

    def refuse(packet: bytes, addr: Any = None) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    port.write = refuse  # type: ignore[method-assign]
    network.run(4.9)
    assert not failures
    network.run(0.2)
    assert failures[0].check(error.TimeoutError)


def test_a_syn_whose_id_is_a_live_receive_id_is_another_connection() -> None:
    """A SYN is looked up at id + 1, so one whose id equals a live receive id is accepted."""
    scene = ScriptedClient()
    peer = scene.peer
    # the live connection listens on 1001
    peer.syn(1_001, 9_000)
    scene.run(0.001)
    (answer,) = peer.take()
    assert (answer.type, answer.connection_id, answer.ack_nr) == (ST_STATE, 1_001, 9_000)
    peer.state(connection_id=1_002, seq_nr=9_001, ack_nr=answer.seq_nr - 1)
    scene.run(0.001)
    assert len(scene.accepting.made) == 2


def test_fresh_ids_keep_away_from_live_ones_and_from_either_end() -> None:
    """Never next to a live id of the same address; libutp does not mask the id that is one higher."""
    numbers = iter([0xFFFF, 0x0000, 0xFFFE, 0x2000, 77, 0x2001, 0x2000, 0x1FFF, 0x1FFE, 0x2002, 77])

    def random_bytes(count: int) -> bytes:
        return next(numbers).to_bytes(count, "big")

    multiplexer = Multiplexer(Settings(), random_bytes)
    address = ("10.0.0.9", 1)
    assert multiplexer.connect(address, 0).receive_id == 0x2000
    assert multiplexer.connect(address, 0).receive_id == 0x2002


def test_an_id_rests_after_its_connection_has_ended() -> None:
    """The peer may not know yet: a SYN with that id would be one of a connection that it has, and be ignored."""
    numbers = iter([0x1000, 77, 0x1000, 0x2000, 77])
    multiplexer = Multiplexer(Settings(), lambda count: next(numbers).to_bytes(count, "big"))
    address = ("10.0.0.9", 1)
    first = multiplexer.connect(address, 0)
    first.fail(DONE)
    multiplexer.forget(first, 0)

    assert multiplexer.connect(address, 0).receive_id == 0x2000


def test_many_ids_to_one_address_never_collide() -> None:
    network = Network(seed=7)
    multiplexer = Multiplexer(Settings(), network.random.randbytes)
    address = ("10.0.0.9", 1)
    ids = [multiplexer.connect(address, 0).receive_id for _ in range(5_000)]
    taken: set[int] = set()
    for receive_id in ids:
        assert 0 < receive_id < 0xFFFE
        assert not taken & {receive_id - 1 & 0xFFFF, receive_id, receive_id + 1 & 0xFFFF}
        taken |= {receive_id}


def test_a_state_alone_proves_the_source_and_the_server_may_speak() -> None:
    scene = ScriptedClient()
    assert scene.server.made == 1
    (data,) = scene.push(b"welcome")
    assert data.data == b"welcome"


def test_an_unproven_source_gets_no_more_than_it_sent() -> None:
    """Nothing proves the source: the half-open connection goes at its deadline, and 20 bytes drew 20."""
    scene = ScriptedClient(confirm=False, settings=Settings(half_open_timeout_us=10_000_000))
    scene.peer.syn(1_000, 5_000)
    scene.run(9)
    assert sum(map(len, scene.peer.datagrams)) == 20
    multiplexer = scene.ports[0]._utp.multiplexer
    assert multiplexer.half_open == 1
    scene.run(2)
    assert multiplexer.half_open == len(multiplexer) == 0
    assert sum(map(len, scene.peer.datagrams)) == 20
    assert scene.accepting.made == []


@pytest.mark.parametrize("off", [-3, -2, -1, 1, 2, 0x8000])
def test_a_wrong_ack_proves_nothing(off: int) -> None:
    """The first packet to the acceptor has a wrong ack: ignored, still unproven."""
    scene = ScriptedClient(confirm=False)
    peer = scene.peer
    peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = peer.take()
    peer.send(ST_DATA, connection_id=1_001, seq_nr=5_001, ack_nr=answer.seq_nr - 1 + off, data=b"spoofed")
    scene.run(1)
    assert scene.accepting.made == []
    assert peer.take() == []


@pytest.mark.parametrize("kind", [ST_DATA, ST_FIN])
def test_data_before_the_syn_ack_is_not_lost(kind: int) -> None:
    """In SYN_SENT, DATA is ignored unacknowledged; we connect on the STATE and get the DATA again."""
    scene = ScriptedServer(answer=False)
    peer = scene.peer
    peer.send(kind, seq_nr=7_000, data=b"early")
    scene.run(0.01)
    assert peer.take() == []
    assert scene.connecting.made == []

    peer.state(seq_nr=7_000)
    scene.run(0.01)
    peer.data(b"early", seq_nr=7_000)
    scene.run(0.01)

    assert bytes(scene.client.received) == b"early"
    assert peer.take()[-1].ack_nr == 7_000


def test_a_syn_window_of_zero_does_not_block() -> None:
    """libtorrent's SYN says window 0; its first other packet says the truth."""
    scene = ScriptedClient(confirm=False)
    peer = scene.peer
    peer.syn(1_000, 5_000, wnd_size=0)
    scene.run(0.001)
    (answer,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    peer.data(b"hello")
    scene.run(0.001)
    assert scene.push(b"answer")[-1].data == b"answer"


def test_a_reset_refuses_only_with_the_right_ack() -> None:
    """In SYN_SENT, RST with ack == syn seq means refused; with another ack it is ignored."""
    scene = ScriptedServer(answer=False)
    peer = scene.peer
    peer.reset(ack_nr=scene.syn.seq_nr + 1)
    scene.run(0.01)
    assert not scene.failures
    peer.reset(ack_nr=scene.syn.seq_nr)
    scene.run(0.01)
    assert scene.failures[0].check(error.ConnectionRefusedError)


def test_a_syn_to_a_port_without_a_listener_is_refused() -> None:
    """A uTP port without a listener answers a SYN with a RESET: connection refused, at once."""
    network = Network(seed=3)
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(Accepting()).addCallback(
        lambda port: port._utp.stop_accepting()
    )
    failures: list[object] = []
    UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT).connect(Accepting()).addErrback(failures.append)
    network.run(0.1)
    assert failures[0].check(error.ConnectionRefusedError)  # type: ignore[attr-defined]


def test_a_syn_flood_is_bounded_and_hurts_nobody() -> None:
    """SYNs beyond the limit are answered and forgotten, and a stream that is up does not notice."""
    scene = ScriptedClient(settings=Settings(maximum_half_open=40, maximum_half_open_per_address=1000), backlog=30)
    flood = ScriptedPeer(scene.network.reactor("10.0.0.66"))
    for number in range(3_000):
        flood.syn(number * 4, number)
    scene.run(0.1)
    multiplexer = scene.ports[0]._utp.multiplexer
    assert multiplexer.half_open == 40
    assert len(multiplexer) == 41
    assert multiplexer.counters.cookies_sent == 3_000 - 40
    assert len(multiplexer._admission._half_open_per_host) == 1
    scene.peer.data(b"still here")
    scene.run(0.1)
    assert bytes(scene.server.received) == b"still here"


def test_half_open_connections_of_one_address_are_bounded() -> None:
    scene = ScriptedClient(confirm=False, settings=Settings(maximum_half_open_per_address=5))
    for number in range(20):
        scene.peer.syn(number * 4, number)
    scene.run(0.1)
    assert scene.ports[0]._utp.multiplexer.half_open == 5
    assert len(scene.peer.take()) == 20


@pytest.mark.parametrize(
    "settings",
    [
        Settings(maximum_half_open_per_address=20),
        Settings(maximum_half_open=20),
        Settings(maximum_connections=20),
        Settings(maximum_connections_per_address=20),
    ],
)
def test_forged_syns_use_up_nothing_that_others_need(settings: Settings) -> None:
    """Whatever limit they reach: a client of the address that was forged connects, and a stream that is up goes on."""
    scene = ScriptedClient(settings=settings)
    multiplexer = scene.ports[0]._utp.multiplexer
    flood = ScriptedPeer(scene.network.reactor(CLIENT))
    syns = iter(range(0, 65_536, 4))

    def forge() -> None:
        flood.syn(next(syns), 1)
        if multiplexer.counters.datagrams_received < 3_000:
            scene.network.call_at(scene.network.now_us + 1_000, forge)

    forge()
    scene.run(0.5)
    assert multiplexer.half_open >= 19
    connecting = Accepting()
    scene.network.connect(CLIENT, SERVER, Link(delay_us=5_000))
    for _ in range(5):
        UTPClientEndpoint(scene.network.reactor(CLIENT), SERVER, PORT, timeout=1).connect(connecting)
        scene.run(0.1)
    assert len(connecting.made) == 5
    assert len(scene.accepting.made) == 6
    assert len(multiplexer) <= 56  # the port has a backlog of 50
    assert multiplexer.counters.cookies_sent + multiplexer.counters.half_open_evicted > 100
    assert multiplexer.counters.syns_refused == 0
    scene.peer.data(b"still here")
    scene.run(0.1)
    assert bytes(scene.server.received) == b"still here"


def test_connections_that_are_proven_never_make_room() -> None:
    settings = Settings(maximum_connections=3)
    scene = ScriptedClient(settings=settings)
    connecting = Accepting()
    for _ in range(5):
        UTPClientEndpoint(scene.network.reactor(CLIENT), SERVER, PORT, timeout=1).connect(connecting).addErrback(bool)
        scene.run(0.1)
    scene.run(2)
    assert len(connecting.made) == 2
    multiplexer = scene.ports[0]._utp.multiplexer
    assert (len(multiplexer), multiplexer.half_open) == (3, 0)
    assert multiplexer.counters.syns_refused > 0


def test_half_open_connections_make_room_for_outgoing_ones() -> None:
    scene = ScriptedClient(confirm=False, settings=Settings(maximum_connections=3))
    for number in range(3):
        scene.peer.syn(number * 4, number)
    scene.run(0.001)
    multiplexer = scene.ports[0]._utp.multiplexer
    for _ in range(3):
        multiplexer.connect(("10.0.0.9", 1), scene.network.now_us)
    assert (len(multiplexer), multiplexer.half_open) == (3, 0)
    with pytest.raises(ConnectionRefused, match="maximum_connections is 3"):
        multiplexer.connect(("10.0.0.9", 1), scene.network.now_us)


def test_connections_of_one_address_are_bounded() -> None:
    settings = Settings(maximum_connections_per_address=3)
    scene = ScriptedClient(settings=settings)
    for number in range(20):
        scene.peer.syn(2_000 + number * 4, number)
    scene.run(0.1)
    assert len(scene.ports[0]._utp.multiplexer) == 3

    multiplexer = Multiplexer(settings, scene.network.random.randbytes)
    for _ in range(3):
        multiplexer.connect(("10.0.0.9", 1), 0)
    with pytest.raises(ConnectionRefused, match="maximum_connections_per_address is 3"):
        multiplexer.connect(("10.0.0.9", 1), 0)


def test_a_restarted_peer_takes_the_place_of_its_unproven_past() -> None:
    """The same id with another seq: the half-open connection is replaced."""
    scene = ScriptedClient(confirm=False)
    scene.peer.syn(1_000, 1)
    scene.run(0.01)
    scene.peer.take()
    answer = scene.handshake()
    assert answer.ack_nr == 5_000
    assert scene.server.made == 1


def test_crossing_connects_give_two_streams() -> None:
    """Two ports connect to each other at the same time: two independent streams, never mixed."""
    network = Network(seed=5)
    network.connect(CLIENT, SERVER, Link(delay_us=10_000))
    sides = []
    for here, there in ((CLIENT, SERVER), (SERVER, CLIENT)):
        reactor = network.reactor(here)
        accepting, connecting = Accepting(), Accepting()
        UTPServerEndpoint(reactor, PORT).listen(accepting)
        UTPClientEndpoint(reactor, there, PORT).connect(connecting)
        sides.append((accepting, connecting))
    network.run(1)
    for accepting, connecting in sides:
        (accepted,), (connected,) = accepting.made, connecting.made
        accepted.transport.write(b"from acceptor")
        connected.transport.write(b"from initiator")
    network.run(1)
    for accepting, connecting in sides:
        assert bytes(accepting.made[0].received) == b"from initiator"
        assert bytes(connecting.made[0].received) == b"from acceptor"


def test_an_old_extension_on_a_syn_is_tolerated() -> None:
    """Old clients send eight bytes of extension bits with their SYN."""
    scene = ScriptedClient(confirm=False)
    peer = scene.peer
    peer.send_bytes(bytes.fromhex("410203e8000000010000000000100000138800000008") + bytes(8))
    scene.run(0.01)
    (answer,) = peer.take()
    assert (answer.type, answer.connection_id, answer.ack_nr) == (ST_STATE, 1_000, 5_000)


def test_a_reset_for_a_stranger_is_not_answered_and_others_are_rarely() -> None:
    scene = ScriptedClient(settings=Settings(resets_per_second=10))
    peer = scene.peer
    for number in range(100):
        peer.send(ST_RESET, connection_id=30_000 + number)
    scene.run(0.01)
    assert peer.take() == []
    for number in range(100):
        peer.send(ST_DATA, connection_id=40_000 + number, seq_nr=number, data=b"who?")
    scene.run(0.01)
    answers = peer.take()
    assert len(answers) == 10
    assert all(answer.type == ST_RESET for answer in answers)
    assert (answers[0].connection_id, answers[0].ack_nr, answers[0].wnd_size) == (40_000, 0, 0)


def test_not_utp_is_handed_on_and_draws_no_answer() -> None:
    scene = ScriptedClient(confirm=False)
    foreign: list[bytes] = []
    scene.ports[0]._utp.foreign_datagram_received = lambda data, address: foreign.append(data)
    query = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe"
    scene.peer.send_bytes(query)
    scene.run(0.1)
    assert foreign == [query]
    assert scene.peer.take() == []


def test_a_half_open_connection_can_be_reset() -> None:
    scene = ScriptedClient(confirm=False, protocol=HalfStream)
    scene.peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = scene.peer.take()
    scene.peer.reset(connection_id=1_001, ack_nr=answer.seq_nr - 1)
    scene.run(0.01)
    assert len(scene.ports[0]._utp.multiplexer) == 0


def test_a_connection_that_was_never_opened_is_closed() -> None:
    multiplexer = Multiplexer(Settings(), bytes)
    connection = multiplexer._new(("10.0.0.1", 1), 1, 2, 0)
    assert isinstance(connection, Connection)
    assert connection.close_reason == DONE


def test_the_proof_of_the_source_is_repeated_until_something_answers() -> None:
    """Our STATE behind the SYN-ACK is lost: a server that speaks first must not wait for ever."""
    states = []

    def lose(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is not None and packet.type == ST_STATE:
            states.append(packet)
            datagram.dropped = len(states) <= 2

    pair = Pair(link=Link(delay_us=10_000, hook=lose), back=Link(delay_us=10_000))
    assert pair.network.now_us < 2_000_000
    pair.server.transport.write(b"welcome")
    pair.run(1)
    assert bytes(pair.client.received) == b"welcome"
    count = len(states)
    pair.run(20)
    assert len(states) == count


def test_a_silent_server_is_not_asked_for_ever() -> None:
    scene = ScriptedServer(settings=Settings(keepalive_us=None))
    scene.run(600)
    assert len(scene.peer.take()) == 6


def test_a_peer_that_proves_its_source_and_aborts_is_accepted_first() -> None:
    """The server's turn brings both: its application hears of the connection, of the data, and of the end."""
    scene = ScriptedClient(confirm=False)
    peer = scene.peer
    peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = peer.take()
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    peer.data(b"hello")
    peer.reset()
    scene.run(0.001)
    assert scene.server.made == 1
    assert bytes(scene.server.received) == b"hello"
    assert scene.server.lost_type is error.ConnectionLost


# -- a server that stops in the middle of a handshake --


def test_a_server_that_stops_before_its_answer_refuses() -> None:
    """The SYN is as long as a RESET, so that may leave in the place of the SYN-ACK."""
    scene = ScriptedClient(settings=Settings(keepalive_us=None))
    scene.peer.syn(2_000, 5_000)
    multiplexer = scene.ports[0]._utp.multiplexer
    assert scene.run(1, until=lambda: multiplexer.half_open == 1)
    scene.ports[0].stopListening()
    scene.run(1)
    (answer,) = scene.peer.take()
    assert (answer.type, answer.connection_id, answer.ack_nr) == (ST_RESET, 2_000, 5_000)


def half_open_at_the_end(pair: Pair) -> Stream:
    """Another client, whose proof is on its way when the server stops listening."""
    late = Accepting()
    UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(late)
    assert pair.run(1, until=lambda: bool(late.made))
    pair.ports[0].stopListening()
    return late.made[0]


def test_a_server_that_stops_says_no_more_to_an_unproven_source_than_it_heard() -> None:
    """The SYN-ACK was as long as the SYN: nothing follows it, and nobody is waited for who does not answer."""
    scene = ScriptedClient(confirm=False)
    scene.peer.syn(1_000, 5_000)
    scene.run(0.001)
    stopped = scene.ports[0].stopListening()
    assert stopped is not None
    scene.run(LAST_PROOFS_US / SECOND_US / 2)
    assert not stopped.called
    scene.run(LAST_PROOFS_US / SECOND_US)
    assert stopped.called
    assert [packet.type for packet in scene.peer.packets] == [ST_STATE]
    assert (SERVER, PORT) not in scene.network.ports
    assert scene.server_reactor.getDelayedCalls() == []


def test_the_proof_that_comes_after_the_end_of_the_server_draws_a_reset() -> None:
    pair = Pair(back=Link(delay_us=10_000))
    late = half_open_at_the_end(pair)
    pair.run(0.05)
    assert late.lost_type is error.ConnectionLost
    assert len(pair.accepting.made) == 1
    pair.client.transport.write(b"still here")
    pair.run(0.1)
    assert bytes(pair.server.received) == b"still here"


def test_a_closed_port_is_believed_only_before_the_peer_has_shown_that_it_knows_us() -> None:
    """An ICMP error is all that the host of a server says that stopped after its SYN-ACK; later it may be forged."""
    pair = Pair()
    pair.server.transport.write(b"welcome")
    pair.run(0.1)
    recorder, _ = pair.record()
    early = half_open_at_the_end(pair)
    pair.client.transport.write(b"x")
    pair.run(0.001)
    utp = pair.client_reactor.network.ports[CLIENT, pair.client.transport.getHost().port].protocol
    for datagram in recorder.datagrams:
        utp.unreachable(datagram.data, (SERVER, PORT), errno.ECONNREFUSED, 0)
    pair.run(0.001)
    assert early.lost_type is error.ConnectionLost
    pair.run(1)
    assert not pair.client.lost
    assert bytes(pair.server.received) == b"x"


def test_a_host_that_cannot_be_reached_for_a_moment_ends_nothing_that_is_up() -> None:
    """Routes come back; that nobody has a port is another matter."""
    pair = Pair()
    recorder, _ = pair.record()
    early = half_open_at_the_end(pair)
    utp = pair.client_reactor.network.ports[CLIENT, pair.client.transport.getHost().port].protocol
    assert recorder.datagrams
    for datagram in recorder.datagrams:
        utp.unreachable(datagram.data, (SERVER, PORT), errno.EHOSTUNREACH, 0)
    pair.run(0.001)
    assert not early.lost
