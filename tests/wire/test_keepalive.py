"""Keepalives and probes: what an idle connection sends, and how it learns that its peer is gone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, ScriptedClient, ScriptedServer
from txutp import Settings, UTPClientEndpoint, listenUTP
from txutp.core.liveness import EARLY_TRIALS, PROBE_US, PROBES, TRIALS
from txutp.core.packet import ST_DATA, ST_STATE, Packet
from txutp.testing import Datagram, Link

SILENT = Settings(keepalive_us=None)
DAY = 86_400

# The documented time: a keepalive interval and the probes, and a little for the side that was called.
FOUND_SECONDS = 60


def keep_alive(scene: ScriptedClient, enabled: bool) -> None:
    connection = scene.server.connection
    connection.set_keep_alive(enabled)
    scene.ports[0]._utp.touch(connection)


def is_probe(packet: Packet, number: int) -> bool:
    return (packet.type, packet.seq_nr, len(packet.data)) == (ST_DATA, number & 0xFFFF, 1)


def drop(datagram: Datagram) -> None:
    datagram.dropped = True


def cut(pair: Pair) -> None:
    """Nothing passes any more."""
    pair.up.hook = pair.down.hook = drop


# -- what leaves --


def test_a_connection_may_ask_for_keepalives_where_the_settings_have_none() -> None:
    """And they stop when it does not want them any more."""
    scene = ScriptedClient(settings=SILENT)
    scene.run(100)
    assert scene.peer.take() == []
    keep_alive(scene, True)
    scene.run(1)
    scene.peer.state()
    scene.peer.take()
    scene.run(24)
    assert scene.peer.take() == []
    scene.run(6)
    assert is_probe(scene.peer.take()[0], scene.peer.ack - 1)
    keep_alive(scene, False)
    scene.run(100)
    assert scene.peer.take() == []
    assert scene.server_reactor.getDelayedCalls() == []


@pytest.mark.parametrize("enabled", [True, False])
def test_where_the_settings_have_keepalives_they_stay_as_they_are(enabled: bool) -> None:
    """Switching them off again is not switching off those that keep the bindings of NATs open."""
    scene = ScriptedClient(settings=Settings(keepalive_us=10_000_000))
    scene.run(5)
    scene.peer.take()
    keep_alive(scene, enabled)
    scene.run(31)
    assert len(scene.peer.take()) == 3


def test_a_peer_that_never_answers_gets_a_few_probes_and_then_keepalives_and_is_not_cut_off() -> None:
    scene = ScriptedClient()
    scene.run(DAY)
    packets = scene.peer.take()
    assert all(is_probe(packet, scene.peer.ack - 1) for packet in packets[:TRIALS])
    assert {(packet.type, packet.ack_nr) for packet in packets[TRIALS:]} == {(ST_STATE, 4_999)}
    assert not scene.server.lost
    scene.peer.data(b"here all the time")
    scene.run(0.001)
    assert bytes(scene.server.received) == b"here all the time"


def test_a_peer_that_talks_and_never_answers_is_not_cut_off_when_it_falls_silent() -> None:
    """Its data, and the acks of ours, are no answers."""
    scene = ScriptedClient()
    for _ in range(30):
        scene.push(b"question")
        scene.peer.ack += 1
        scene.peer.data(b"answer")
        scene.run(0.7)
    scene.peer.state(wnd_size=4_096)
    scene.run(DAY)
    assert not scene.server.lost


@pytest.mark.parametrize("written", [b"", b"x"])
@pytest.mark.parametrize("scripted", [ScriptedClient, ScriptedServer])
def test_the_number_of_a_probe_is_one_that_the_peer_has(scripted: type, written: bytes) -> None:
    """And not the last one, which npm's utp would keep; but that of our SYN if the peer has nothing else."""
    scene = scripted()
    stream = (scene.accepting if scripted is ScriptedClient else scene.connecting).made[0]
    if written:
        stream.transport.write(written)
        scene.run(0.001)
        scene.peer.ack += 1
        scene.peer.state()
    scene.peer.take()
    scene.run(0.7)
    (probe,) = [packet for packet in scene.peer.take() if packet.type == ST_DATA]
    only_syn = scripted is ScriptedServer and not written
    assert is_probe(probe, scene.peer.ack if only_syn else scene.peer.ack - 1)


def test_a_probe_behind_our_fin_has_the_number_before_it() -> None:
    """Some peers read nothing that claims to be DATA with the number of the FIN."""
    scene = ScriptedClient(protocol=HalfStream)
    scene.push(b"x")
    scene.server.transport.loseWriteConnection()  # type: ignore[union-attr]
    scene.run(0.001)
    scene.peer.ack += 2
    scene.peer.state()
    scene.run(0.001)
    scene.peer.take()
    scene.run(0.7)
    assert is_probe(scene.peer.take()[0], scene.peer.ack - 1)


def test_two_ends_of_txutp_send_at_most_a_packet_each_in_an_interval() -> None:
    """One side asks, the other one answers."""
    pair = Pair()
    pair.run(40)
    up, down = pair.record()
    pair.run(DAY)
    intervals = DAY / 29
    assert 0.9 * intervals < len(up.packets) < 1.1 * intervals
    assert 0.9 * intervals < len(down.packets) < 1.1 * intervals
    assert not pair.client.lost
    assert not pair.server.received
    assert not pair.client.received


def test_while_data_is_in_flight_nothing_is_probed() -> None:
    """It is sent again anyway."""
    scene = ScriptedClient(settings=Settings(maximum_timeouts=50, minimum_timeout_us=20_000_000))
    scene.push(b"a question that nobody acknowledges")
    scene.run(18)
    assert scene.peer.take() == []


def test_the_sender_of_a_stream_that_stalls_is_probed_once() -> None:
    """Nothing else would leave that could draw an ICMP error."""
    scene = ScriptedClient()
    scene.run(0.6)
    scene.peer.state()
    for _ in range(3):
        for _ in range(100):
            scene.peer.data(b"stream")
        scene.run(0.1)
        scene.peer.take()
        scene.run(1)
        assert [packet.type for packet in scene.peer.take()] == [ST_DATA]
        scene.peer.state()
        scene.run(1.9)
        assert scene.peer.take() == [], "the next one is that of any silence"
        scene.run(20)
        scene.peer.take()


# -- what we answer --


@pytest.mark.parametrize("confirmed", [True, False])
def test_a_probe_is_acknowledged_once_and_never_delivered(confirmed: bool) -> None:
    """With the number of the SYN it may even be the first that we hear."""
    scene = ScriptedClient(confirm=False, settings=SILENT)
    scene.peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = scene.peer.take()
    scene.peer.send_id, scene.peer.sequence, scene.peer.ack = 1_001, 5_001, answer.seq_nr - 1
    if confirmed:
        scene.peer.state()
        scene.run(0.001)
    for number in (5_000, 4_999, 5_000):
        scene.peer.data(b"\0", seq_nr=number)
        scene.run(0.001)
        assert [(packet.type, packet.ack_nr) for packet in scene.peer.take()] == [(ST_STATE, 5_000)]
    scene.peer.data(b"first")
    scene.run(0.001)
    scene.peer.data(b"\0", seq_nr=5_001)
    scene.peer.data(b"\0", seq_nr=5_000)
    scene.peer.data(b" second")
    scene.run(0.001)
    assert bytes(scene.server.received) == b"first second"


def test_a_probe_behind_the_end_of_the_stream_is_answered_too() -> None:
    scene = ScriptedClient(protocol=HalfStream, settings=SILENT)
    scene.peer.data(b"all")
    scene.peer.fin()
    scene.run(0.001)
    scene.peer.take()
    for number in (5_000, 5_001, 5_002):
        scene.peer.data(b"\0", seq_nr=number)
        scene.run(0.001)
        assert [packet.ack_nr for packet in scene.peer.take()] == [5_002]
    assert bytes(scene.server.received) == b"all"


def test_a_client_answers_a_probe_of_a_server_that_has_said_nothing() -> None:
    scene = ScriptedServer(settings=SILENT)
    scene.peer.data(b"\0", seq_nr=6_999)
    scene.run(0.001)
    answers = scene.peer.take()
    assert {(packet.type, packet.ack_nr) for packet in answers} == {(ST_STATE, 6_999)}
    assert not scene.client.received


# -- who is gone --


def idle(pair: Pair) -> None:
    """Nothing was ever said."""


def after_a_conversation(pair: Pair) -> None:
    pair.client.transport.write(b"question")  # type: ignore[union-attr]
    pair.run(0.1)
    pair.server.transport.write(b"answer")  # type: ignore[union-attr]


def half_closed(pair: Pair) -> None:
    pair.client.transport.loseWriteConnection()  # type: ignore[union-attr]


@pytest.mark.parametrize("quiet_seconds", [1, 28, 1_000])
@pytest.mark.parametrize("before", [idle, after_a_conversation, half_closed])
def test_a_dead_host_is_found_on_an_idle_connection(before: Callable[[Pair], None], quiet_seconds: float) -> None:
    pair = Pair(protocol=HalfStream)
    before(pair)
    pair.run(quiet_seconds)
    cut(pair)
    pair.run(25)
    assert not pair.client.lost
    pair.run(FOUND_SECONDS - 25)
    for stream in (pair.client, pair.server):
        if before is half_closed and stream is pair.server:
            assert stream.lost_type is error.ConnectionDone, "everything has arrived"
            continue
        assert stream.lost_type is error.ConnectionLost
        assert "does not answer" in str(stream.lost[0].value)
    pair.run(1)
    assert not [port for port in pair.network.ports if port[0] == CLIENT]


def test_a_host_that_dies_while_it_sends_is_found() -> None:
    """It has never been quiet before."""
    pair = Pair()
    for _ in range(100):
        pair.server.transport.write(b"tick")  # type: ignore[union-attr]
        pair.run(0.1)
    cut(pair)
    pair.run(FOUND_SECONDS)
    assert pair.client.lost_type is error.ConnectionLost


def test_set_tcp_keep_alive_finds_it_where_the_settings_have_no_keepalives() -> None:
    pair = Pair(settings=SILENT)
    pair.client.transport.setTcpKeepAlive(True)  # type: ignore[union-attr]
    pair.run(40)
    cut(pair)
    pair.run(FOUND_SECONDS)
    assert pair.client.lost_type is error.ConnectionLost
    pair.run(DAY)
    assert not pair.server.lost


def test_a_path_that_is_away_for_less_than_the_probes_last_ends_nothing() -> None:
    pair = Pair()
    pair.run(28)
    cut(pair)
    pair.run(PROBES * PROBE_US / 1e6 - 1)
    pair.up.hook = pair.down.hook = None
    pair.run(600)
    assert not pair.client.lost
    assert not pair.server.lost


@pytest.mark.parametrize("seed", range(30))
def test_a_path_that_loses_thirty_percent_ends_nothing(seed: int) -> None:
    pair = Pair(Link(delay_us=50_000), seed=seed)
    pair.up.loss = pair.down.loss = 0.3
    pair.run(2 * 3_600)
    assert not pair.client.lost
    assert not pair.server.lost
    pair.client.transport.write(b"still here")  # type: ignore[union-attr]
    pair.run(20)
    assert bytes(pair.server.received) == b"still here"


def test_a_nat_that_forgets_the_binding_is_found_by_both_sides() -> None:
    """The client gets another outer port; what the server sends to the old one is lost."""
    pair = Pair()
    pair.run(100)

    def rebound(datagram: Datagram) -> None:
        datagram.source = (CLIENT, 50_000)

    def to_the_old_port(datagram: Datagram) -> None:
        if datagram.destination[1] == 50_000:
            datagram.destination = pair.client.transport.getHost().host, old_port  # type: ignore[union-attr]
        else:
            datagram.dropped = True

    old_port = pair.server.transport.getPeer().port  # type: ignore[union-attr]
    pair.up.hook, pair.down.hook = rebound, to_the_old_port
    pair.run(FOUND_SECONDS)
    assert pair.client.lost_type is error.ConnectionLost
    assert pair.server.lost_type is error.ConnectionLost


def test_a_peer_that_was_started_again_is_found_out() -> None:
    """It answers our probe with a RESET, which acknowledges the number that our next packet will have."""
    pair = Pair()
    pair.run(50)
    pair.down.hook = drop  # no word of its end arrives
    pair.network.ports[SERVER, PORT].stopListening()
    pair.run(0.0001)
    pair.down.hook = None
    listenUTP(pair.server_reactor, PORT, pair.accepting)
    pair.run(30)
    assert pair.client.lost_type is error.ConnectionLost


def test_a_worker_that_was_killed_comes_back_from_the_same_port() -> None:
    """The server has both connections for a while; the probe of the old one draws a RESET of the new process."""
    pair = Pair()
    pair.run(20)
    (port,) = [port for host, port in pair.network.ports if host == CLIENT]
    del pair.network.ports[CLIENT, port]
    pair.run(5)
    again = Accepting()
    endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT, bindAddress=("", port))
    endpoint.connect(again)
    pair.run(1)
    assert len(pair.accepting.made) == 2
    pair.run(FOUND_SECONDS)
    assert pair.server.lost_type is error.ConnectionLost
    assert not pair.accepting.made[1].lost
    assert not again.made[0].lost


def test_early_trials_are_few() -> None:
    """A peer that answers none gets so many in its first seconds."""
    scene = ScriptedClient()
    scene.run(20)
    assert len(scene.peer.take()) == EARLY_TRIALS
