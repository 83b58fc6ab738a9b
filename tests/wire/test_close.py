"""How connections end: FIN, RESET, half close, and what is said to those who come late."""

from __future__ import annotations

import errno

import pytest
from twisted.internet import error
from twisted.internet.defer import Deferred

from tests.support import PORT, SERVER, Accepting, HalfStream, Pair, ScriptedClient, ScriptedServer, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, Packet
from txutp.testing import Datagram, Link


def test_close_with_queued_data() -> None:
    """Data, then FIN, all acknowledged, then connectionLost."""
    pair = Pair()
    up, _ = pair.record()
    data = pattern(300_000)
    pair.client.transport.write(data)
    pair.client.transport.loseConnection()
    assert pair.client.transport.disconnecting
    assert pair.run(10, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert bytes(pair.server.received) == data
    fins = [packet for packet in up.packets if packet.type == ST_FIN]
    last_data = [packet for packet in up.packets if packet.type == ST_DATA][-1]
    assert fins[0].seq_nr == last_data.seq_nr + 1 & 0xFFFF
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_a_lost_fin_is_sent_again() -> None:
    lost: list[Datagram] = []

    def lose_fins(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet and packet.type == ST_FIN and len(lost) < 2:
            lost.append(datagram)
            datagram.dropped = True

    pair = Pair()
    pair.up.hook = lose_fins
    pair.client.transport.write(b"last words")
    pair.client.transport.loseConnection()
    assert pair.run(10, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert len(lost) == 2
    assert bytes(pair.server.received) == b"last words"
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_a_fin_out_of_order_waits_for_the_gap() -> None:
    """EOF only after the gap is filled; DATA behind the FIN is ignored."""
    scene = ScriptedClient(protocol=HalfStream)
    peer = scene.peer
    peer.fin(seq_nr=5_003)
    peer.data(b"behind the end", seq_nr=5_004)
    peer.data(b"second", seq_nr=5_002)
    scene.run(0.01)
    assert scene.server.read_lost == 0
    assert peer.take()[-1].ack_nr == 5_000
    peer.data(b"first ", seq_nr=5_001)
    scene.run(0.01)
    assert bytes(scene.server.received) == b"first second"
    assert scene.server.read_lost == 1
    assert peer.take()[-1].ack_nr == 5_003


def test_a_fin_may_carry_payload() -> None:
    scene = ScriptedClient(protocol=HalfStream)
    scene.peer.fin(data=b"last")
    scene.run(0.01)
    assert bytes(scene.server.received) == b"last"
    assert scene.server.read_lost == 1
    assert scene.peer.take()[-1].ack_nr == 5_001


def test_half_close_keeps_the_other_direction() -> None:
    """We FIN, the peer goes on with 1 MB: all of it arrives."""
    pair = Pair(protocol=HalfStream)
    pair.client.transport.write(b"request")
    pair.client.transport.loseWriteConnection()
    assert pair.run(5, until=lambda: bool(pair.server.read_lost))
    assert pair.client.write_lost == 1
    answer = pattern(1_000_000)
    pair.server.transport.write(answer)
    pair.server.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.client.read_lost))
    assert bytes(pair.client.received) == answer
    assert bytes(pair.server.received) == b"request"
    # half-closeable protocols end when they say so (IHalfCloseableProtocol)
    assert not pair.client.lost
    pair.client.transport.loseConnection()
    assert pair.run(5, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_a_peer_that_repeats_after_our_fin_gets_a_state_of_each_number() -> None:
    """libtorrent ignores STATEs numbered behind our FIN, libutp those numbered like it."""
    scene = ScriptedClient(protocol=HalfStream)
    scene.server.transport.loseWriteConnection()
    scene.run(0.001)
    (fin,) = scene.peer.take()
    assert fin.type == ST_FIN
    behind = fin.seq_nr + 1 & 0xFFFF
    for expected in ([behind], [behind, fin.seq_nr], [behind, fin.seq_nr]):
        scene.peer.data(b"again and again", seq_nr=5_001)
        scene.run(0.0001)
        assert [packet.seq_nr for packet in scene.peer.take() if packet.type == ST_STATE] == expected
    assert bytes(scene.server.received) == b"again and again"


def test_acks_numbered_like_the_peers_fin_are_understood() -> None:
    """libtorrent's STATEs after its FIN carry the FIN's own number."""
    scene = ScriptedClient(protocol=HalfStream)
    scene.peer.fin()
    scene.run(0.01)
    (data, *_) = [packet for packet in scene.push(b"still writing") if packet.type == ST_DATA]
    scene.peer.state(seq_nr=5_001, ack_nr=data.seq_nr)
    scene.run(0.01)
    assert scene.server.connection.sending.outstanding == 0


def test_a_peers_end_flushes_what_was_written_before_connection_lost() -> None:
    """Not half-closeable: the peer's FIN ends us, but our bytes still arrive."""

    class Answering(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.write(pattern(200_000))

    pair = Pair(protocol=HalfStream)
    pair.accepting.protocol = Answering
    pair = Pair(protocol=HalfStream, wait=False)
    pair.accepting.protocol = Answering
    assert pair.run(5, until=lambda: bool(pair.connecting.made))
    pair.client.transport.write(b"all I say")
    pair.client.transport.loseWriteConnection()
    assert pair.run(10, until=lambda: bool(pair.client.read_lost))
    assert bytes(pair.client.received) == pattern(200_000)
    assert pair.run(10, until=lambda: bool(pair.server.lost))
    assert pair.server.lost_type is error.ConnectionDone


# -- RESET --


@pytest.mark.parametrize("by", ["our send id", "our receive id"])
def test_a_reset_by_either_id_counts(by: str) -> None:
    """libutp echoes the id that it received, others use the one we listen on."""
    scene = ScriptedClient()
    scene.push(b"x")
    scene.peer.reset(connection_id=1_000 if by == "our send id" else 1_001)
    scene.run(0.01)
    assert scene.server.lost_type is error.ConnectionLost
    assert scene.peer.take() == []


@pytest.mark.parametrize("off", [3, 100, -5, 0x8000])
def test_a_reset_with_an_impossible_ack_is_ignored(off: int) -> None:
    scene = ScriptedClient()
    scene.push(b"x")
    scene.peer.reset(ack_nr=scene.peer.ack + off)
    scene.run(0.01)
    assert not scene.server.lost
    assert scene.server.connection.bytes_received == 0


def test_a_reset_after_a_clean_exchange_is_a_clean_close() -> None:
    """libutp forgets a connection when its FIN is acknowledged, and answers our FIN with a RESET."""
    scene = ScriptedClient()
    scene.peer.fin()
    scene.run(0.001)
    fin = next(packet for packet in scene.peer.take() if packet.type == ST_FIN)
    scene.peer.reset(connection_id=1_000, ack_nr=fin.seq_nr)
    scene.run(0.01)
    assert scene.server.lost_type is error.ConnectionDone


def test_a_reset_while_we_wait_for_more_is_not_a_clean_close() -> None:
    """Our half is closed and acknowledged; the peer aborts in the middle of its answer: that was not all of it."""
    scene = ScriptedClient(protocol=HalfStream)
    scene.server.transport.loseWriteConnection()
    scene.run(0.001)
    (fin,) = scene.peer.take()
    scene.peer.data(b"half of the ans", ack_nr=fin.seq_nr)
    scene.run(0.001)
    scene.peer.reset(ack_nr=fin.seq_nr)
    scene.run(0.01)
    assert bytes(scene.server.received) == b"half of the ans"
    assert scene.server.lost_type is error.ConnectionLost


def test_a_reset_that_loses_data_is_not_a_clean_close() -> None:
    scene = ScriptedClient(protocol=HalfStream)
    scene.peer.fin()
    scene.run(0.001)
    scene.push(b"nobody reads this")
    scene.peer.reset(ack_nr=scene.peer.ack + 1)
    scene.run(0.01)
    assert scene.server.lost_type is error.ConnectionLost


def test_abort_sends_a_reset_and_both_forget() -> None:
    """Abort -> RESET with our send id and ack = last received; both sides drop their state."""
    pair = Pair()
    up, _ = pair.record()
    pair.client.transport.write(b"never to arrive in full" * 100_000)
    pair.client.transport.abortConnection()
    assert not pair.client.lost, "never re-entrant"
    pair.run(1)
    assert pair.client.lost_type is error.ConnectionAborted
    assert pair.server.lost_type is error.ConnectionLost
    (reset,) = [packet for packet in up.packets if packet.type == ST_RESET]
    assert reset.ack_nr == up.packets[0].ack_nr
    assert len(pair.ports[0]._utp.multiplexer) == 0
    assert pair.client_reactor.getDelayedCalls() == []


# -- the late ones --


def test_late_packets_meet_a_tombstone() -> None:
    """Late FIN or DATA to a closed connection: an ack, no RESET, no new stream; after expiry a RESET."""
    scene = ScriptedClient(settings=Settings(tombstone_us=5_000_000))
    scene.peer.fin()
    scene.run(0.001)
    fin = next(packet for packet in scene.peer.take() if packet.type == ST_FIN)
    scene.peer.state(ack_nr=fin.seq_nr, seq_nr=5_002)
    scene.run(0.001)
    assert scene.server.lost_type is error.ConnectionDone
    scene.peer.take()

    scene.peer.fin(seq_nr=5_001)
    scene.run(0.001)
    answers = scene.peer.take()
    assert {(answer.type, answer.ack_nr, answer.connection_id) for answer in answers} == {(ST_STATE, 5_001, 1_000)}
    assert [answer.seq_nr for answer in answers] == [fin.seq_nr + 1 & 0xFFFF, fin.seq_nr]
    scene.peer.state()
    scene.run(0.001)
    assert scene.peer.take() == []

    scene.run(6)
    scene.peer.fin(seq_nr=5_001)
    scene.run(0.001)
    assert [packet.type for packet in scene.peer.take()] == [ST_RESET]
    assert len(scene.accepting.made) == 1


def left_behind() -> tuple[ScriptedClient, Packet]:
    """Returns a client that has not ended its stream, after the server's application has gone; and the server's FIN."""
    scene = ScriptedClient()
    scene.server.transport.loseConnection()
    scene.run(0.001)
    (fin,) = scene.peer.take()
    scene.peer.state(ack_nr=fin.seq_nr)
    scene.run(5)
    assert scene.server.lost_type is error.ConnectionDone
    scene.peer.take()
    return scene, fin


def test_a_late_fin_with_payload_is_not_acknowledged() -> None:
    """Nobody is left who could read the payload, and an ack would say that it was received."""
    scene, fin = left_behind()
    scene.peer.fin(data=b"the end", ack_nr=fin.seq_nr)
    scene.run(0.001)
    assert [packet.type for packet in scene.peer.take()] == [ST_RESET]
    scene.peer.fin(seq_nr=5_001, ack_nr=fin.seq_nr)
    scene.run(0.001)
    assert [packet.ack_nr for packet in scene.peer.take()] == [5_001, 5_001]


def test_a_late_fin_is_not_acknowledged_where_data_before_it_is_missing() -> None:
    """An ack of the FIN would say that the data arrived, and nobody is left who could take it when it comes again."""
    scene, fin = left_behind()

    scene.peer.sequence += 1  # of DATA that was lost
    scene.peer.fin(ack_nr=fin.seq_nr)
    scene.run(0.001)
    assert [packet.type for packet in scene.peer.take()] == [ST_RESET]


def test_a_fin_that_comes_after_we_stopped_waiting_is_acknowledged() -> None:
    scene = ScriptedClient(settings=Settings(close_timeout_us=500_000, keepalive_us=None))
    scene.server.transport.loseConnection()
    scene.run(0.001)
    (fin,) = scene.peer.take()
    scene.peer.ack = fin.seq_nr
    scene.peer.state()
    scene.run(3.1)
    assert scene.server.lost_type is error.ConnectionDone
    scene.peer.fin()
    scene.run(0.001)
    assert {(answer.type, answer.ack_nr) for answer in scene.peer.take()} == {(ST_STATE, 5_001)}


def test_data_after_close_is_acknowledged_and_discarded() -> None:
    """The peer's stream does not stall because we are leaving."""
    scene = ScriptedClient()
    scene.server.transport.loseConnection()
    scene.run(0.001)
    scene.peer.take()
    scene.peer.data(b"unwanted")
    scene.run(0.001)
    assert scene.peer.take()[-1].ack_nr == 5_001
    assert bytes(scene.server.received) == b""


def test_an_empty_stream_ends_cleanly_on_both_sides() -> None:
    pair = Pair()
    pair.client.transport.loseConnection()
    assert pair.run(5, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_a_peer_that_ignores_our_fin_does_not_hold_us_for_ever() -> None:
    """Everything arrived but nobody answers the FIN: a clean end after a few tries, as nothing was lost."""
    scene = ScriptedClient()
    scene.server.transport.loseConnection()
    assert scene.run(10, until=lambda: bool(scene.server.lost))
    assert scene.server.lost_type is error.ConnectionDone


def test_a_peer_that_vanished_behind_its_fin_is_not_waited_for_long() -> None:
    """Both ended and all data is acknowledged: an unanswered FIN holds connectionLost up for three timeouts at most."""
    scene = ScriptedClient()
    scene.peer.fin()
    assert scene.run(3.1, until=lambda: bool(scene.server.lost))
    assert scene.server.lost_type is error.ConnectionDone


class Outage:
    """Nothing passes a link for a while that begins with the first FIN there."""

    def __init__(self, pair: Pair, link: Link, seconds: float) -> None:
        began_us: list[int] = []

        def lose(datagram: Datagram) -> None:
            packet = datagram.packet
            now_us = pair.network.now_us
            if packet is not None and packet.type == ST_FIN:
                began_us.append(now_us)
            if began_us and now_us < began_us[0] + seconds * 1_000_000:
                datagram.dropped = True

        link.hook = lose


@pytest.mark.parametrize("seconds", [3, 7])
@pytest.mark.parametrize("first", ["client", "server"])
def test_a_fin_outlasts_an_outage_as_data_does(seconds: float, first: str) -> None:
    """The other side has ended before, or will: it hears the end of the stream, and waits for nothing for ever."""
    pair = Pair(protocol=HalfStream)
    closing, waiting = (pair.client, pair.server) if first == "client" else (pair.server, pair.client)
    waiting.transport.loseWriteConnection()
    pair.run(1)
    Outage(pair, pair.up if first == "client" else pair.down, seconds)
    closing.transport.loseConnection()
    pair.run(20)
    assert waiting.read_lost == 1
    assert closing.lost_type is error.ConnectionDone
    waiting.transport.loseConnection()
    pair.run(20)
    assert waiting.lost_type is error.ConnectionDone
    assert len(pair.ports[0]._utp.multiplexer) == 0
    assert [place for place in pair.network.ports if place[0] != SERVER] == []


@pytest.mark.parametrize("half_closed", [True, False])
def test_a_fin_is_tried_as_often_as_data(half_closed: bool) -> None:
    """Tail probes and five timeouts in a row; the application hears long before that everything arrived."""
    counts = []
    for data in (b"", b"x"):
        pair = Pair(protocol=HalfStream)
        if half_closed:
            pair.server.transport.loseWriteConnection()
            pair.run(1)
        pair.up.hook = lambda datagram: setattr(datagram, "dropped", True)
        up, _ = pair.record()
        began_us = pair.network.now_us
        if data:
            pair.client.transport.write(data)
        else:
            pair.client.transport.loseConnection()
        assert pair.run(60, until=lambda pair=pair: bool(pair.client.lost))
        assert pair.client.lost_type is (error.ConnectionLost if data else error.ConnectionDone)
        if not data:
            assert pair.network.now_us <= began_us + 5_000_000
        pair.run(60)
        counts.append([packet.type for packet in up.packets].count(ST_DATA if data else ST_FIN))
        assert [place for place in pair.network.ports if place[0] != SERVER] == []
    assert counts[0] == counts[1] > 5


def test_a_fin_that_goes_on_alone_holds_nobody_up() -> None:
    """Whoever waits until the port is quiet, or stops the reactor, waits for applications and for no mere FIN."""
    scene = ScriptedClient()
    scene.peer.fin()
    assert scene.run(3.1, until=lambda: bool(scene.server.lost))
    utp = scene.ports[0]._utp
    assert len(utp.multiplexer) == 1
    quiet: list[None] = []
    utp.when_quiet().addCallback(quiet.append)
    assert quiet == [None]
    scene.run(30)
    assert len(utp.multiplexer) == 0


@pytest.mark.parametrize("ended_first", [True, False])
def test_a_fin_does_not_go_on_alone_where_nobody_has_the_port(ended_first: bool) -> None:
    """An ICMP error says so.  It is believed because both streams have arrived, and nothing but a FIN is at stake."""
    scene = ScriptedClient()
    utp = scene.ports[0]._utp
    if ended_first:
        scene.peer.fin()
    else:
        scene.server.transport.loseConnection()
    scene.run(0.1)
    fin = next(packet for packet in scene.peer.take() if packet.type == ST_FIN).encode()
    utp.unreachable(fin, scene.peer.port._address, errno.ECONNREFUSED, 0)
    scene.run(0.1)
    assert not scene.server.lost, "it may be forged, so it is no faster than silence"
    assert scene.run(10, until=lambda: bool(scene.server.lost))
    assert scene.server.lost_type is error.ConnectionDone
    assert len(utp.multiplexer) == 0


def test_an_icmp_error_ends_a_fin_that_goes_on_alone() -> None:
    scene = ScriptedClient()
    utp = scene.ports[0]._utp
    scene.peer.fin()
    assert scene.run(3.1, until=lambda: bool(scene.server.lost))
    fin = next(packet for packet in scene.peer.take() if packet.type == ST_FIN).encode()
    utp.unreachable(fin, scene.peer.port._address, errno.ECONNREFUSED, 0)
    scene.run(0.001)
    assert len(utp.multiplexer) == 0


def test_an_ack_that_comes_late_ends_a_fin_that_goes_on_alone() -> None:
    scene = ScriptedClient()
    scene.peer.fin()
    assert scene.run(3.1, until=lambda: bool(scene.server.lost))
    fin = next(packet for packet in scene.peer.take() if packet.type == ST_FIN)
    scene.peer.state(ack_nr=fin.seq_nr)
    scene.run(0.001)
    assert len(scene.ports[0]._utp.multiplexer) == 0
    assert len(scene.server.lost) == 1
    scene.peer.take()
    scene.peer.fin(seq_nr=5_001)
    scene.run(0.001)
    assert {packet.type for packet in scene.peer.take()} == {ST_STATE}


def test_data_that_nobody_acknowledges_is_reported_once() -> None:
    """loseConnection with data for a dead peer: the application hears that it was lost."""
    scene = ScriptedClient()
    scene.server.transport.write(b"lost")
    scene.server.transport.loseConnection()
    assert scene.run(60, until=lambda: bool(scene.server.lost))
    assert scene.server.lost_type is error.ConnectionLost


# -- ports --


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_stop_listening_right_after_lose_connection_loses_nothing(loss: float) -> None:
    """The port is closed in the same turn: what was written arrives all the same, and the Deferred waits for it."""
    pair = Pair(link=Link(delay_us=10_000, loss=loss), seed=4)
    data = pattern(100_000)
    pair.server.transport.write(data)
    pair.server.transport.loseConnection()
    stopped: list[None] = []
    waiting = pair.ports[0].stopListening()
    assert isinstance(waiting, Deferred)
    waiting.addCallback(stopped.append)
    assert not stopped
    assert pair.run(60, until=lambda: bool(stopped))
    assert bytes(pair.client.received) == data
    assert pair.server.lost_type is error.ConnectionDone
    assert pair.run(60, until=lambda: bool(pair.client.lost))
    assert pair.client.lost_type is error.ConnectionDone
    pair.run(0.001)
    assert pair.network.ports == {}


def test_stop_listening_leaves_live_connections_alone() -> None:
    pair = Pair()
    stopped: list[None] = []
    pair.ports[0].stopListening().addCallback(stopped.append)
    pair.run(0.1)
    assert stopped == [None]
    pair.client.transport.write(b"still here")
    pair.run(0.1)
    assert bytes(pair.server.received) == b"still here"

    failures: list[object] = []
    UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(Accepting()).addErrback(failures.append)
    pair.run(0.1)
    assert failures[0].check(error.ConnectionRefusedError)  # type: ignore[attr-defined]

    pair.client.transport.loseConnection()
    pair.run(5)
    assert pair.network.ports == {}
    assert pair.server_reactor.getDelayedCalls() == []


def test_a_lost_port_tells_every_protocol_and_leaves_no_timer() -> None:
    """Reactor shutdown closes the socket under us."""
    pair = Pair()
    pair.server.transport.write(b"x" * 1_000_000)
    pair.run(0.05)
    port = pair.network.ports[SERVER, PORT]
    port.stopListening()
    assert pair.server.lost_type is error.ConnectionLost
    pair.run(0.01)
    assert pair.server_reactor.getDelayedCalls() == []


def test_a_scripted_server_that_closes_first() -> None:
    scene = ScriptedServer()
    scene.peer.data(b"hello")
    scene.peer.fin()
    scene.run(0.01)
    fin = scene.peer.take()[-1]
    assert fin.type in (ST_FIN, ST_STATE)
    scene.peer.state(ack_nr=scene.peer.ack + 1)
    scene.run(0.01)
    assert scene.client.lost_type is error.ConnectionDone
    assert bytes(scene.client.received) == b"hello"


def test_a_lost_last_ack_is_repeated_although_the_port_closes_with_the_connection() -> None:
    """The client acknowledges the last FIN, which is lost; on a path that loses packets it stays to say it again."""
    seen: list[int] = []

    def lose(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is None:
            return
        if packet.type == ST_DATA and ST_DATA not in seen:
            seen.append(ST_DATA)
            datagram.dropped = True
        fins = [kind for kind in seen if kind == ST_FIN]
        if packet.type == ST_STATE and fins and seen.count(ST_STATE) < 1:
            seen.append(ST_STATE)
            datagram.dropped = True

    def watch_fins(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is not None and packet.type == ST_FIN:
            seen.append(ST_FIN)

    pair = Pair(link=Link(delay_us=10_000, hook=lose), back=Link(delay_us=10_000, hook=watch_fins))
    pair.client.transport.write(b"x")
    pair.client.transport.loseConnection()
    assert pair.run(10, until=lambda: bool(pair.server.lost and pair.client.lost))
    assert seen.count(ST_STATE) == 1
    assert pair.server.lost_type is pair.client.lost_type is error.ConnectionDone
    assert pair.network.now_us < 5_000_000
    pair.run(1)
    assert pair.client_reactor.getDelayedCalls() == []


def ended_by_both(arrivals: list[int]) -> ScriptedServer:
    """A client whose peer sent DATA with these numbers and took its close; the client acknowledged the peer's FIN."""
    scene = ScriptedServer()
    for sequence in arrivals:
        scene.peer.data(b"x", seq_nr=sequence)
        scene.run(0.001)
    scene.client.transport.loseConnection()
    scene.run(0.001)
    (fin,) = [packet for packet in scene.peer.take() if packet.type == ST_FIN]
    scene.peer.ack = fin.seq_nr
    scene.peer.fin(seq_nr=max(arrivals) + 1)
    scene.run(0.001)
    return scene


def test_a_repeated_packet_does_not_delay_the_end() -> None:
    """A busy peer probes its tail although nothing was lost; the client's end waits only where something was."""
    assert ended_by_both([7_000, 7_000, 7_001]).client.lost_type is error.ConnectionDone


def test_after_losses_a_client_stays_to_repeat_its_last_ack() -> None:
    """Its UDP port closes with it, so nobody else could answer a peer that did not hear that ack."""
    scene = ended_by_both([7_001, 7_000])
    scene.peer.take()
    assert not scene.client.lost
    scene.peer.fin(seq_nr=7_002)
    scene.run(0.001)
    assert [packet.ack_nr for packet in scene.peer.take()] == [7_002, 7_002]
    scene.run(3)
    assert scene.client.lost_type is error.ConnectionDone


def test_an_abort_ends_the_wait_for_a_lost_last_ack() -> None:
    """Who aborts wants no more of it: the application hears so at once, and the UDP port closes."""
    scene = ended_by_both([7_001, 7_000])
    assert not scene.client.lost
    scene.client.transport.abortConnection()
    assert not scene.client.lost
    scene.run(0.001)
    assert scene.client.lost_type is error.ConnectionAborted
    assert list(scene.network.ports) == [(SERVER, PORT)]
    assert scene.client_reactor.getDelayedCalls() == []
