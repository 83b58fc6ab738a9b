"""Connections are known by both ends, where the socket tells to which of our addresses a datagram came; core alone."""

from __future__ import annotations

from random import Random

import pytest

from txutp.core.address import remote_of, with_local
from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.multiplexer import MAXIMUM_LOCALS, Multiplexer
from txutp.core.packet import ST_DATA, ST_RESET, ST_STATE, ST_SYN, Packet
from txutp.core.settings import Settings
from txutp.core.states import ABORTED, CLOSED, CONNECTED, SYN_SENT

PEER = ("192.0.2.1", 6881)
SCOPED_PEER = ("fe80::1", 6881, 0, 3)
HERE, THERE = "198.51.100.1", "198.51.100.2"
NOW_US = 1_000_000


def a_multiplexer(**settings: int) -> Multiplexer:
    multiplexer = Multiplexer(Settings(**settings), Random(1).randbytes)  # type: ignore[arg-type]
    multiplexer.listening = True
    return multiplexer


def says(kind: int, connection_id: int, sequence: int, ack: int = 0, data: bytes = b"") -> bytes:
    return Packet(kind, connection_id, 1, 0, 1 << 20, sequence, ack, None, data).encode()


def begun(multiplexer: Multiplexer, remote: Address = PEER) -> Connection:
    """A connection of ours that has sent its SYN, from wherever the routing table chose."""
    connection = multiplexer.connect(remote, NOW_US)
    batch = connection.next_batch(NOW_US)
    assert batch is not None
    assert batch.address == remote
    return connection


def answered(multiplexer: Multiplexer, connection: Connection, address: Address) -> None:
    """The peer accepts, and its packet comes to one of our addresses."""
    ack = connection.sending.next_sequence - 1 & 0xFFFF
    assert multiplexer.receive(says(ST_STATE, connection.receive_id, 70, ack), address, NOW_US)


@pytest.mark.parametrize("remote", [PEER, SCOPED_PEER])
def test_a_connection_of_ours_stays_where_it_was_answered(remote: Address) -> None:
    multiplexer = a_multiplexer()
    connection = begun(multiplexer, remote)
    answered(multiplexer, connection, with_local(remote, HERE))
    assert connection.state == CONNECTED
    assert connection.address == with_local(remote, HERE)
    connection.write(b"x")
    batch = connection.next_batch(NOW_US)
    assert batch is not None
    assert batch.address == with_local(remote, HERE)
    # its timers find it still, and so does what comes
    multiplexer.schedule(connection)
    assert multiplexer.next_deadline_us() == connection.deadline_us
    ack = connection.sending.next_sequence - 1 & 0xFFFF
    data = says(ST_DATA, connection.receive_id, 70, ack, b"hello")
    multiplexer.receive(data, with_local(remote, HERE), NOW_US)
    assert connection.receiving.ready_bytes == 5
    connection.fail(ABORTED)
    multiplexer.forget(connection, NOW_US)
    assert len(multiplexer) == 0


def test_only_the_answer_decides_where_it_stays() -> None:
    """Whoever forges the peer's address, and guesses the id, moves nothing."""
    multiplexer = a_multiplexer()
    connection = begun(multiplexer)
    multiplexer.receive(says(ST_STATE, connection.receive_id, 70, 12_345), with_local(PEER, THERE), NOW_US)
    assert (connection.state, connection.address) == (SYN_SENT, PEER)
    answered(multiplexer, connection, with_local(PEER, HERE))
    assert connection.address == with_local(PEER, HERE)


def test_the_same_ids_at_two_addresses_are_two_connections() -> None:
    multiplexer = a_multiplexer()
    for local in (HERE, THERE):
        multiplexer.receive(says(ST_SYN, 300, 7), with_local(PEER, local), NOW_US)
    assert len(multiplexer) == 2
    assert {connection.address for connection in multiplexer} == {with_local(PEER, HERE), with_local(PEER, THERE)}
    for connection in multiplexer:
        batch = connection.next_batch(NOW_US)
        assert batch is not None
        assert batch.address == connection.address


def test_a_syn_with_the_id_of_one_that_we_begin_is_not_for_it() -> None:
    multiplexer = a_multiplexer()
    connection = begun(multiplexer)
    multiplexer.receive(says(ST_SYN, connection.receive_id - 1, 7), with_local(PEER, HERE), NOW_US)
    assert list(multiplexer) == [connection]
    answered(multiplexer, connection, with_local(PEER, HERE))
    assert connection.state == CONNECTED


def test_a_syn_of_the_peer_opens_a_hole_for_ours_wherever_it_comes_to() -> None:
    multiplexer = a_multiplexer()
    connection = begun(multiplexer)
    assert connection.next_batch(NOW_US) is None
    multiplexer.receive(says(ST_SYN, 5_000, 7), with_local(PEER, HERE), NOW_US + 400_000)
    assert connection in multiplexer.touched
    assert not multiplexer._opening.get(with_local(PEER, HERE))
    assert connection in multiplexer._opening[PEER]


def test_a_reset_ends_an_attempt_that_has_no_local_address_yet() -> None:
    multiplexer = a_multiplexer()
    connection = begun(multiplexer)
    ack = connection.sending.next_sequence - 1 & 0xFFFF
    multiplexer.receive(says(ST_RESET, connection.send_id, 1, ack), with_local(PEER, HERE), NOW_US)
    assert connection.state == CLOSED


def test_errors_find_their_connection_with_and_without_a_local_address() -> None:
    """The kernel does not tell that of errors of its own."""
    multiplexer = a_multiplexer()
    opening = begun(multiplexer)
    up = begun(multiplexer)
    answered(multiplexer, up, with_local(PEER, HERE))
    for connection in (opening, up):
        quoted = says(ST_DATA, connection.send_id, 1)
        assert multiplexer.sender_of(quoted, PEER) is connection
        assert multiplexer.sender_of(quoted, with_local(PEER, HERE)) is connection
    assert multiplexer.sender_of(says(ST_DATA, up.send_id, 1), with_local(PEER, THERE)) is None
    assert multiplexer.sender_of(says(ST_DATA, up.send_id, 1), ("192.0.2.2", 6881)) is None


def test_a_fresh_id_keeps_away_from_those_at_every_address_of_ours() -> None:
    """The next SYN may be answered at any of them, and then both would be one."""
    multiplexer = a_multiplexer()
    ids: set[int] = set()
    for number in range(400):
        connection = begun(multiplexer)
        assert not ids & set(range(connection.receive_id - 1, connection.receive_id + 3))
        ids.add(connection.receive_id)
        answered(multiplexer, connection, with_local(PEER, (HERE, THERE)[number % 2]))
    assert len(multiplexer) == len(ids)
    assert all(remote_of(connection.address) == PEER for connection in multiplexer)


def test_replies_to_strangers_name_where_they_leave_from() -> None:
    multiplexer = a_multiplexer(maximum_half_open=1, maximum_half_open_per_address=1)
    multiplexer.receive(says(ST_DATA, 9, 1), with_local(PEER, HERE), NOW_US)
    multiplexer.receive(says(ST_SYN, 100, 1), with_local(PEER, HERE), NOW_US)
    multiplexer.receive(says(ST_SYN, 200, 1), with_local(PEER, THERE), NOW_US)
    assert [batch.address for batch in multiplexer.replies] == [with_local(PEER, HERE), with_local(PEER, THERE)]
    assert multiplexer.counters.cookies_sent == 1


def test_a_host_with_whole_networks_of_addresses_takes_no_memory_for_them() -> None:
    multiplexer = a_multiplexer()
    for number in range(3 * MAXIMUM_LOCALS):
        multiplexer.receive(says(ST_SYN, 300, 7), with_local(PEER, f"127.0.{number}.1"), NOW_US)
    assert len(multiplexer._locals) == MAXIMUM_LOCALS
    assert len(multiplexer) == 3 * MAXIMUM_LOCALS


def test_a_connections_name_has_its_remote_end() -> None:
    multiplexer = a_multiplexer()
    multiplexer.receive(says(ST_SYN, 300, 7), with_local(PEER, HERE), NOW_US)
    assert [str(PEER) in repr(connection) for connection in multiplexer] == [True]
