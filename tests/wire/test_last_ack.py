"""Who waits at the end: only an end whose last ack the peer may not have heard, and only where packets were lost.

A client's UDP port closes with its last connection, so nobody would be there to repeat that ack.  The end that closes
second has sent it in its own FIN, and the peer has acknowledged that FIN.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error

from tests.support import CLIENT, HalfStream, Pair, ScriptedServer, Stream
from tests.wire.test_transfer import pattern
from txutp.core.packet import ST_FIN, Packet
from txutp.core.settings import Settings
from txutp.testing import Datagram, Link

SOON = 0.001
WAIT_SECONDS = 2  # LAST_ACK_TIMEOUTS times the default of close_timeout_us


def lossy_client(protocol: type[Stream] = Stream, settings: Settings | None = None) -> ScriptedServer:
    """A client whose peer has sent DATA 7000 and 7001, the second of them first: the path may lose packets."""
    scene = ScriptedServer(settings or Settings(), protocol)
    scene.peer.data(b"second", seq_nr=7_001)
    scene.peer.data(b"first ", seq_nr=7_000)
    scene.run(SOON)
    scene.peer.take()
    scene.peer.sequence = 7_002
    return scene


def fin_of(scene: ScriptedServer) -> Packet:
    """The one FIN among what the client has sent since the last look."""
    (fin,) = [packet for packet in scene.peer.take() if packet.type == ST_FIN]
    return fin


def acknowledge(scene: ScriptedServer, fin: Packet) -> None:
    """The peer has the client's FIN."""
    scene.peer.ack = fin.seq_nr
    scene.peer.state()
    scene.run(SOON)


def ended_at_once(scene: ScriptedServer) -> bool:
    """Whether the client's end has come; if not, it comes after the wait."""
    at_once = bool(scene.client.lost)
    assert scene.run(WAIT_SECONDS + 1, until=lambda: bool(scene.client.lost))
    assert scene.client.lost_type is error.ConnectionDone
    return at_once


def test_the_end_that_closes_second_does_not_wait() -> None:
    scene = lossy_client()
    scene.peer.fin()
    scene.run(SOON)
    fin = fin_of(scene)
    assert fin.ack_nr == 7_002
    acknowledge(scene, fin)
    assert ended_at_once(scene)


@pytest.mark.parametrize("repetitions", [1, 2])
def test_a_client_does_not_wait_if_its_fin_was_lost(repetitions: int) -> None:
    """Each transmission carried the ack, so it does not matter which of them arrived."""
    scene = lossy_client()
    scene.peer.fin()
    scene.run(SOON)
    fin = fin_of(scene)
    for _ in range(repetitions):
        assert scene.run(3, until=lambda: bool(scene.peer.datagrams))
        assert fin_of(scene).ack_nr == 7_002
    acknowledge(scene, fin)
    assert ended_at_once(scene)


def test_a_client_does_not_wait_after_a_half_close_of_the_peer() -> None:
    """The peer ends, we go on writing, and close when we have said everything."""
    scene = lossy_client(HalfStream)
    scene.peer.fin()
    scene.run(SOON)
    scene.client.transport.write(b"more")  # type: ignore[union-attr]
    scene.run(SOON)
    scene.peer.ack += 1
    scene.peer.state()
    scene.run(SOON)
    scene.peer.take()
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    acknowledge(scene, fin_of(scene))
    assert ended_at_once(scene)


def test_a_fin_that_the_socket_refused_is_counted_when_it_leaves() -> None:
    """It was made before the peer's FIN came, and left after it."""
    scene = lossy_client()
    (port,) = [port for (host, _), port in scene.network.ports.items() if host == CLIENT]
    write = port.write
    refused: list[bytes] = []

    def refuse(packet: bytes, addr: Any = None) -> None:
        if packet[0] >> 4 == ST_FIN and not refused:
            refused.append(packet)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        write(packet, addr)

    port.write = refuse  # type: ignore[method-assign]
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.peer.fin()
    scene.run(0.01)
    assert len(refused) == 1
    fin, *_ = fins = [packet for packet in scene.peer.take() if packet.type == ST_FIN]
    assert {packet.ack_nr for packet in fins} == {7_002}
    acknowledge(scene, fin)
    assert ended_at_once(scene)


def test_the_end_that_closes_first_waits() -> None:
    """Its last packet is the ack of the peer's FIN, and nothing shows that it arrived."""
    scene = lossy_client()
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    acknowledge(scene, fin_of(scene))
    scene.peer.fin()
    scene.run(SOON)
    assert not ended_at_once(scene)


def test_a_client_that_answers_no_late_packets_does_not_wait() -> None:
    """``docs/howto/programs.md`` offers that to scripts that have to end soon."""
    scene = lossy_client(settings=Settings(tombstone_us=0))
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    acknowledge(scene, fin_of(scene))
    scene.peer.fin()
    scene.run(SOON)
    assert ended_at_once(scene)


def test_an_end_whose_fin_crossed_the_peers_waits() -> None:
    """Both closed at the same time: the FIN that the peer acknowledges carried no ack of its own."""
    scene = lossy_client()
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    fin = fin_of(scene)
    assert fin.ack_nr == 7_001
    scene.peer.fin()  # with an ack from before our FIN
    scene.run(SOON)
    acknowledge(scene, fin)
    assert not ended_at_once(scene)


def test_a_repetition_that_carries_the_ack_proves_nothing() -> None:
    """The FINs crossed and ours was sent again: the peer may have taken the first one."""
    scene = lossy_client()
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    fin = fin_of(scene)
    scene.peer.fin()
    scene.run(SOON)
    scene.peer.take()
    assert scene.run(3, until=lambda: bool(scene.peer.datagrams))
    assert fin_of(scene).ack_nr == 7_002
    acknowledge(scene, fin)
    assert not ended_at_once(scene)


def test_a_fin_that_waits_behind_a_gap_is_not_acknowledged_by_ours() -> None:
    scene = lossy_client()
    scene.peer.fin(seq_nr=7_003)
    scene.run(SOON)
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    fin = fin_of(scene)
    assert fin.ack_nr == 7_001
    scene.peer.data(b"the gap", seq_nr=7_002)
    scene.run(SOON)
    acknowledge(scene, fin)
    assert not ended_at_once(scene)


def test_after_our_own_half_close_the_wait_stays() -> None:
    """Our FIN was acknowledged long before the peer's came."""
    scene = lossy_client(HalfStream)
    scene.client.transport.loseWriteConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    acknowledge(scene, fin_of(scene))
    scene.peer.data(b"answer")
    scene.peer.fin()
    scene.run(SOON)
    scene.client.transport.loseConnection()  # type: ignore[union-attr]
    scene.run(SOON)
    assert not ended_at_once(scene)


class Receiving(Stream):
    """A server that closes when it has got everything."""

    wanted = 1_000_000

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if len(self.received) == self.wanted:
            self.transport.loseConnection()  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(5))
def test_an_upload_over_a_lossy_path_ends_with_the_peers_end(seed: int) -> None:
    """The client ends one round trip after it heard of the server's end, but for FINs that are lost themselves."""
    pair = Pair(Link(delay_us=10_000, loss=0.01), seed=seed, protocol=Receiving)
    arrived_us = []

    def note_fin(datagram: Datagram) -> None:
        if datagram.packet is not None and datagram.packet.type == ST_FIN:
            arrived_us.append(datagram.sent_at_us + 10_000)

    pair.down.hook = note_fin
    pair.client.transport.write(pattern(Receiving.wanted))  # type: ignore[union-attr]
    assert pair.run(60, until=lambda: bool(pair.client.lost))
    assert pair.client.connection.sending.losses
    assert pair.client.lost_type is error.ConnectionDone
    assert pair.network.now_us - arrived_us[-1] < 100_000
