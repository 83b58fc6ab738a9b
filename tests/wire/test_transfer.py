"""Reliable ordered bytes: sequence numbers, acks, loss, retransmission, windows."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error

from tests.support import HalfStream, Pair, ScriptedClient, Stream
from txutp import Ledbat, Settings
from txutp.core.connection import Connection
from txutp.core.flow import burst_segments
from txutp.core.liveness import TRIALS
from txutp.core.packet import ST_DATA, ST_FIN, ST_STATE
from txutp.core.sending import RUN_MAXIMUM_BYTES, RUN_MAXIMUM_SEGMENTS, SendBuffer
from txutp.testing import Datagram, Link

SEGMENT = 1382


def pattern(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def transfer(pair: Pair, size: int, seconds: float = 600) -> None:
    """Client to server, ended with loseConnection: everything arrives, and both hear a clean end."""
    data = pattern(size)
    pair.client.transport.write(data)
    pair.client.transport.loseConnection()
    assert pair.run(seconds, until=lambda: bool(pair.server.lost and pair.client.lost)), pair.network
    assert bytes(pair.server.received) == data, pair.network
    assert pair.server.lost_type is error.ConnectionDone
    assert pair.client.lost_type is error.ConnectionDone


# -- in order --


def test_a_long_stream_across_many_wraps() -> None:
    """200,000 packets, three wraps of sequence and ack, from just below a wrap: intact."""
    small = Settings(maximum_datagram_bytes=150)
    pair = Pair(link=Link(delay_us=500), settings=small, seed=2)
    assert pair.client.connection.sending.segment_bytes == 130
    transfer(pair, 200_000 * 130)
    assert pair.server.lost_type is error.ConnectionDone


@pytest.mark.parametrize("start", [65_500, 65_535, 0, 1, 32_767, 32_768])
def test_first_numbers_around_the_wrap(start: int) -> None:
    """The peer's numbers start anywhere; ours acknowledge across the wrap."""
    scene = ScriptedClient(sequence=start)
    for number in range(50):
        scene.peer.data(bytes([number]) * 10)
        scene.run(0.001)
    assert bytes(scene.server.received) == b"".join(bytes([number]) * 10 for number in range(50))
    assert scene.peer.take()[-1].ack_nr == start + 50 & 0xFFFF


def test_small_segments_of_all_sizes_arrive_in_order() -> None:
    scene = ScriptedClient()
    expected = b""
    for size in (1, 1382, 500, 1, 1, 1400, 9):
        data = pattern(size, size)
        scene.peer.data(data)
        expected += data
    scene.run(0.01)
    assert bytes(scene.server.received) == expected


# -- acks --


def test_one_ack_for_a_burst_and_one_delivery() -> None:
    """Ten DATA in one turn of the reactor -> one or two STATEs, and one dataReceived."""
    scene = ScriptedClient()
    for _ in range(10):
        scene.peer.data(b"x" * 100)
    scene.run(0.01)
    states = scene.peer.take()
    assert 1 <= len(states) <= 2
    assert states[-1].ack_nr == 5_010
    assert scene.server.deliveries == 1


def test_a_gap_is_told_at_once() -> None:
    """Out of order -> an immediate STATE with a selective ack; bit i is ack + 2 + i."""
    scene = ScriptedClient()
    scene.peer.data(b"b", seq_nr=5_002)
    scene.peer.data(b"d", seq_nr=5_004)
    scene.run(0.001)
    (state,) = scene.peer.take()
    assert (state.type, state.ack_nr, state.selective_ack) == (ST_STATE, 5_000, 0b101)
    assert len(scene.peer.datagrams) == 0


@pytest.mark.parametrize("start", [65_533, 65_534, 65_535])
def test_selective_ack_bits_across_the_wrap(start: int) -> None:
    scene = ScriptedClient(sequence=start)
    for ahead in (2, 3, 5):
        scene.peer.data(b"x", seq_nr=start + ahead)
    scene.run(0.001)
    (state,) = scene.peer.take()
    assert (state.ack_nr, state.selective_ack) == (start, 0b1011)


def test_duplicate_data_is_acknowledged_again_and_delivered_once() -> None:
    scene = ScriptedClient()
    for _ in range(2):
        scene.peer.data(b"once", seq_nr=5_001)
        scene.run(0.001)
    assert [state.ack_nr for state in scene.peer.take()] == [5_001, 5_001]
    assert bytes(scene.server.received) == b"once"


def test_how_far_ahead_is_kept() -> None:
    """What a selective ack can tell is kept while the buffer allows; what it cannot is dropped."""
    scene = ScriptedClient()
    scene.peer.data(b"far", seq_nr=5_000 + 2_017)
    scene.run(0.001)
    assert scene.peer.take()[-1].selective_ack == 1 << 2_015
    scene.peer.data(b"too far", seq_nr=5_000 + 2_018)
    scene.run(0.001)
    assert scene.peer.take()[-1].selective_ack == 1 << 2_015
    assert scene.server.connection.receiving.early_bytes == 3


def test_empty_data_is_acknowledged_and_delivers_nothing() -> None:
    scene = ScriptedClient()
    scene.peer.data(b"")
    scene.peer.data(b"after")
    scene.run(0.001)
    assert scene.peer.take()[-1].ack_nr == 5_002
    assert bytes(scene.server.received) == b"after"


def test_payload_on_a_state_is_ignored() -> None:
    scene = ScriptedClient()
    scene.peer.state(data=b"not stream data")
    scene.run(0.001)
    assert bytes(scene.server.received) == b""


def test_our_ack_rides_on_our_data() -> None:
    """An answer within the same turn carries the ack: no STATE beside it."""

    class Echo(Stream):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            self.transport.write(data)

    scene = ScriptedClient(protocol=Echo)
    scene.peer.data(b"ping")
    scene.run(0.001)
    (answer,) = scene.peer.take()
    assert (answer.type, answer.ack_nr, answer.data) == (ST_DATA, 5_001, b"ping")


# -- loss --


def lossy_sender(count: int = 10, **fields: object) -> ScriptedClient:
    """Our side has `count` full segments in flight to a scripted peer that has answered once."""
    # a controller that does not pace, so that all of a window is there at once
    scene = ScriptedClient(settings=Settings(**{"congestion": Ledbat, **fields}))  # type: ignore[arg-type]
    # let slow start open the window, with round trips of 20 ms
    arrived = scene.push(pattern(4 * count * SEGMENT))
    while arrived:
        scene.run(0.02)
        scene.peer.ack += len(arrived)
        scene.peer.state()
        scene.run(0.0001)
        arrived = scene.peer.take()
    packets = scene.push(pattern(count * SEGMENT))
    assert len(packets) == count
    return scene


def first_unacked(scene: ScriptedClient) -> int:
    return scene.peer.ack + 1 & 0xFFFF


def test_three_selective_acks_above_bring_the_lost_one_back() -> None:
    """A lost packet with three later ones acknowledged is resent once, without a timeout, and not again."""
    scene = lossy_sender()
    lost = first_unacked(scene)
    scene.peer.state(selective_ack=0b011)
    scene.run(0.0001)
    assert scene.peer.take() == []
    scene.peer.state(selective_ack=0b111)
    scene.run(0.0001)
    (resent,) = scene.peer.take()
    assert (resent.type, resent.seq_nr) == (ST_DATA, lost)

    for mask in (0b1111, 0b11111, 0b111111):
        scene.peer.state(selective_ack=mask)
    scene.run(0.0001)
    assert scene.peer.take() == []
    assert scene.server.connection.sending.total_timeouts == 0


def test_three_plain_duplicate_acks_bring_the_oldest_back() -> None:
    """Three duplicate STATEs without selective ack; the third resends at once."""
    scene = lossy_sender()
    for _ in range(2):
        scene.peer.state()
        scene.run(0.0001)
    assert scene.peer.take() == []
    scene.peer.state()
    scene.run(0.0001)
    assert [packet.seq_nr for packet in scene.peer.take()] == [first_unacked(scene)]


def test_acks_on_data_are_no_duplicates() -> None:
    scene = lossy_sender()
    for _ in range(5):
        scene.peer.data(b"x")
        scene.run(0.0001)
    assert all(packet.type == ST_STATE for packet in scene.peer.take())


def test_a_window_update_is_no_duplicate_ack() -> None:
    """The same ack with another window does not count."""
    scene = lossy_sender()
    for more in range(5):
        scene.peer.state(wnd_size=500_000 + more)
        scene.run(0.0001)
    assert scene.peer.take() == []


def test_an_empty_selective_ack_counts_as_a_duplicate() -> None:
    """libtorrent's mask can be all zero after a burst loss: three of them mean that ack + 1 is lost."""
    scene = lossy_sender()
    for _ in range(3):
        scene.peer.state(selective_ack=0)
        scene.run(0.0001)
    assert [packet.seq_nr for packet in scene.peer.take()] == [first_unacked(scene)]


def test_a_retransmission_keeps_number_and_payload_and_refreshes_the_rest() -> None:
    """Sequence and payload stay; timestamp, difference, ack and window are of now."""
    scene = lossy_sender()
    scene.run(0.03)
    scene.peer.take()
    connection = scene.server.connection
    run = connection.sending.runs[0]
    original = bytes(run.payloads[0])
    scene.peer.data(b"moves our ack", timestamp_us=scene.network.now_us - 7_000)
    scene.run(0.0001)
    scene.peer.take()
    for _ in range(3):
        scene.peer.state(timestamp_us=scene.network.now_us - 8_000)
        scene.run(0.0001)
    (resent,) = scene.peer.take()
    assert resent.data == original
    assert resent.ack_nr == 5_001
    assert resent.timestamp_us == scene.network.now_us - 100 - (scene.network.now_us - 100 - resent.timestamp_us)
    assert 7_900 <= resent.timestamp_diff_us <= 8_200
    assert resent.wnd_size == 1 << 20


def test_a_lost_tail_is_probed_before_the_timeout() -> None:
    """The last packets of a burst are lost and nothing follows that could tell: a probe draws a selective ack."""
    dropped: list[Datagram] = []

    def lose_tail(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet and packet.type == ST_DATA and len(packet.data) == 77 and not dropped:
            dropped.append(datagram)
            datagram.dropped = True

    pair = Pair(link=Link(delay_us=10_000, hook=lose_tail), back=Link(delay_us=10_000))
    pair.client.transport.write(b"x" * 100)
    pair.run(1)
    started = pair.network.now_us
    pair.client.transport.write(b"y" * 77)
    assert pair.run(10, until=lambda: len(pair.server.received) == 177)
    assert dropped
    assert pair.client.connection.sending.total_timeouts == 0
    assert pair.network.now_us - started < 200_000


def test_timeouts_double_and_progress_resets_them() -> None:
    """A tail is lost for good: RTO at max(rtt + 4 var, floor), doubled each time; an ack resets the doubling."""
    scene = ScriptedClient()
    scene.push(b"x")
    connection = scene.server.connection
    sent_at: list[float] = []
    started = scene.network.now_us
    while len(sent_at) < 4 and scene.run(20, until=lambda: bool(scene.peer.datagrams)):
        sent_at.append((scene.network.now_us - started) / 1_000_000)
        scene.peer.take()
    # no round trip is known yet: the initial timeout is one second (RFC 6298 2.1)
    assert sent_at == pytest.approx([1, 3, 7, 15], abs=0.01)
    assert connection.sending.timeouts == 4
    scene.peer.ack += 1
    scene.peer.state()
    scene.run(0.01)
    assert connection.sending.timeouts == connection.sending.backoff == 0


def test_an_ack_of_something_sent_twice_is_no_round_trip() -> None:
    """Karn's rule (RFC 6298 section 3)."""
    scene = ScriptedClient()
    scene.push(b"x")
    scene.run(1.5)
    scene.peer.ack += 1
    scene.peer.state()
    scene.run(0.01)
    assert scene.server.connection.sending.round_trip.smoothed_us == 0


def test_five_timeouts_in_a_row_end_the_connection() -> None:
    scene = ScriptedClient()
    scene.push(b"x")
    scene.run(30.9)
    assert not scene.server.lost
    scene.run(0.3)
    assert scene.server.lost_type is error.ConnectionLost
    assert scene.server_reactor.getDelayedCalls() == []


def test_after_a_timeout_one_packet_leaves_and_nothing_that_arrived() -> None:
    """After an RTO the window is one packet; then slow start, without what was acknowledged selectively."""
    scene = lossy_sender(count=10)
    una = first_unacked(scene)
    # two arrived above the first loss: too few for a fast retransmit
    scene.peer.state(selective_ack=0b000000110)
    scene.run(0.0001)
    scene.run(0.45)
    scene.peer.take()  # the tail probes
    assert scene.run(3, until=lambda: scene.server.connection.sending.total_timeouts == 1)
    scene.run(0.0001)
    resent = scene.peer.take()
    # The second one asks whether the peer takes segments in parts: the path may swallow large packets.
    assert [packet.type for packet in resent] == [ST_DATA, ST_STATE]
    assert resent[0].seq_nr == una
    assert scene.server.connection.sending.controller.window_bytes == SEGMENT

    arrived = {una + 2 & 0xFFFF, una + 3 & 0xFFFF}
    seen = {una}
    for _ in range(12):
        known = seen | arrived
        while scene.peer.ack + 1 & 0xFFFF in known:
            scene.peer.ack += 1
        scene.peer.state()
        scene.run(0.01)
        for packet in scene.peer.take():
            assert packet.seq_nr not in known, "sent again although it was acknowledged"
            seen.add(packet.seq_nr)
    assert len(seen | arrived) == 10


def test_a_refused_send_is_not_a_loss() -> None:
    """A full socket: nothing counts as sent, no window is cut, and all leaves when the socket takes it again."""
    pair = Pair()
    transfer_before = pair.client.connection
    pair.client.transport.write(pattern(200_000))
    pair.run(0.1)
    window = transfer_before.sending.controller.window_bytes
    (port,) = [port for key, port in pair.network.ports.items() if key[0] == "10.0.0.2"]
    port.refusing = True
    pair.run(5)
    assert transfer_before.sending.flight_bytes == 0 or transfer_before.sending.total_timeouts == 0
    assert transfer_before.sending.total_timeouts == 0
    assert transfer_before.sending.segments_resent == 0
    assert transfer_before.sending.controller.window_bytes >= window
    port.refusing = False
    assert pair.run(5, until=lambda: len(pair.server.received) == 200_000)
    assert bytes(pair.server.received) == pattern(200_000)
    assert transfer_before.sending.segments_resent == 0


# -- acks that cannot be --


@pytest.mark.parametrize("off", [1, 2, 1_000, -10, -1_000, 0x8000])
def test_an_ack_out_of_range_changes_nothing(off: int) -> None:
    """Beyond the last sent, or older than una - 1 - 3: window, delay and liveness stay as they were.

    Data may have an older ack, but none that is older than what may be in flight.
    """
    scene = lossy_sender(count=5)
    connection = scene.server.connection
    last_sent = scene.peer.ack + 5
    bad_ack = last_sent + off if off > 0 else scene.peer.ack + off
    before = watch(connection)
    scene.peer.state(ack_nr=bad_ack, wnd_size=1, timestamp_us=12345, timestamp_diff_us=99_000)
    if not -scene.settings.maximum_outstanding_packets < off < 0:
        scene.peer.data(b"not ours", ack_nr=bad_ack)
    scene.run(0.001)
    assert watch(connection) == before
    assert scene.peer.take() == []


def test_where_the_peer_has_shown_an_extension_old_acks_count_no_more() -> None:
    """Such peers repeat packets with a new ack, and forged data is less likely to pass."""
    scene = lossy_sender(count=5)
    scene.peer.state(selective_ack=0)
    scene.run(0.001)
    scene.peer.take()
    scene.peer.data(b"late", ack_nr=scene.peer.ack - 100)
    scene.run(0.001)
    assert not scene.server.received
    assert scene.peer.take() == []


@pytest.mark.parametrize("age", [5, 100, 949])
def test_what_is_repeated_with_the_ack_of_its_first_time_arrives(age: int) -> None:
    """Npm's utp repeats packets unchanged; of such a packet nothing but the data is news."""
    scene = lossy_sender(count=5)
    connection = scene.server.connection
    before = watch(connection)
    scene.peer.data(b"late", ack_nr=scene.peer.ack - age, wnd_size=1, timestamp_us=12345, timestamp_diff_us=99_000)
    scene.peer.fin(ack_nr=scene.peer.ack - age)
    scene.run(0.001)
    assert bytes(scene.server.received) == b"late"
    assert watch(connection)[:4] == before[:4]
    assert [packet.ack_nr for packet in scene.peer.take()][-1] == scene.peer.sequence - 1


def watch(connection: Connection) -> tuple[object, ...]:
    return (
        connection.sending.peer_window_bytes,
        connection.reply_us,
        connection.sending.first_unacked,
        connection.sending.controller.window_bytes,
        connection.receiving.next_sequence,
        connection._last_received_us,
    )


def test_a_reordered_state_still_acknowledges() -> None:
    """A STATE whose seq is not ahead of our ack, with a new ack, is processed."""
    scene = lossy_sender(count=5)
    scene.peer.ack += 3
    scene.peer.state(seq_nr=4_990)
    scene.run(0.001)
    assert scene.server.connection.sending.outstanding == 2


def test_a_keepalive_draws_nothing() -> None:
    """libutp's keepalive is a STATE with ack - 1: accepted, no duplicate ack, no reply."""
    scene = lossy_sender(count=5)
    for _ in range(5):
        scene.peer.state(ack_nr=scene.peer.ack - 1)
        scene.run(0.001)
    assert scene.peer.take() == []
    assert scene.server.connection.sending._duplicate_acks == 0


def test_a_keepalive_carries_no_selective_ack() -> None:
    """Its ack is one less, so the bits would name other packets than those that arrived."""
    scene = ScriptedClient()
    scene.peer.data(b"early", seq_nr=5_003)
    scene.run(0.01)
    assert scene.peer.take()[-1].selective_ack == 0b10
    scene.run(30 * (TRIALS + 1))
    keepalive = scene.peer.take()[-1]
    assert (keepalive.type, keepalive.ack_nr, keepalive.selective_ack) == (ST_STATE, 4_999, None)


def test_a_peer_that_takes_its_selective_acks_back_gets_everything() -> None:
    """It acknowledged everything selectively and still asks for the first: after a timeout all is sent again."""
    scene = lossy_sender(count=5)
    scene.peer.state(ack_nr=scene.peer.ack - 1, selective_ack=0b11111)
    scene.run(0.01)
    assert scene.server.connection.sending.flight_bytes == 0
    first = first_unacked(scene)
    got = set()
    for _ in range(20):
        scene.run(0.2)
        got |= {packet.seq_nr for packet in scene.peer.take() if packet.type == ST_DATA}
        while scene.peer.ack + 1 & 0xFFFF in got:
            scene.peer.ack += 1
        scene.peer.state()
    assert got == {first + step & 0xFFFF for step in range(5)}
    assert scene.server.connection.sending.outstanding == 0


def test_our_keepalive_comes_before_thirty_seconds() -> None:
    """It is a probe until the peer has ignored so many of them; then a STATE that draws nothing."""
    scene = ScriptedClient()
    scene.run(4)
    trials = len(scene.peer.take())
    keepalives = []
    while len(keepalives) < 10:
        scene.run(29.5)
        keepalives += scene.peer.take()
    probes = TRIALS - trials
    assert [(packet.type, packet.ack_nr) for packet in keepalives[:probes]] == [(ST_DATA, 5_000)] * probes
    assert [(packet.type, packet.ack_nr) for packet in keepalives[probes:]] == [(ST_STATE, 4_999)] * (10 - probes)


def test_no_keepalive_when_switched_off() -> None:
    scene = ScriptedClient(settings=Settings(keepalive_us=None))
    scene.run(300)
    assert scene.peer.take() == []


def test_idle_timeout() -> None:
    pair = Pair(settings=Settings(idle_timeout_us=60_000_000, keepalive_us=29_000_000))
    pair.run(600)
    assert not pair.client.lost
    pair.up.loss = pair.down.loss = 1.0
    pair.run(61)
    assert pair.client.lost_type is error.ConnectionLost
    assert pair.server.lost_type is error.ConnectionLost


# -- windows --


def test_a_shrinking_window_stops_and_a_growing_one_resumes() -> None:
    """The peer's window falls below what is in flight: no new data; it grows: on we go."""
    scene = lossy_sender(count=5)
    scene.peer.state(wnd_size=2 * SEGMENT)
    scene.run(0.0001)
    assert scene.push(pattern(10 * SEGMENT)) == []
    scene.peer.ack += 4
    scene.peer.state(wnd_size=2 * SEGMENT)
    scene.run(0.0001)
    assert len(scene.peer.take()) == 1
    scene.peer.state(wnd_size=1 << 20)
    scene.run(0.0001)
    assert len(scene.peer.take()) > 3


def test_a_closed_window_is_probed_for_ever() -> None:
    """Window 0 and the update is lost: probes with back-off; the connection lives while they are answered."""
    scene = ScriptedClient()
    scene.peer.window = 0
    scene.peer.state()
    scene.run(0.001)
    assert scene.push(pattern(5_000)) == []
    times = []
    end = scene.network.now_us + 600_000_000
    while scene.network.now_us < end and scene.run(100, until=lambda: bool(scene.peer.datagrams)):
        times.append(scene.network.now_us / 1_000_000)
        for packet in scene.peer.take():
            assert len(packet.data) == 1 or packet.type == ST_STATE
        # full: dropped, but acknowledged with the window
        scene.peer.state()
    gaps = [b - a for a, b in itertools.pairwise(times)]
    assert len(times) > 8
    assert max(gaps) <= 61
    assert not scene.server.lost

    scene.peer.window = 1 << 20
    scene.peer.state()
    scene.run(0.001)
    received = b""
    for _ in range(10):
        for packet in scene.peer.take():
            if packet.type == ST_DATA and packet.seq_nr == scene.peer.ack + 1 & 0xFFFF:
                scene.peer.ack += 1
                received += packet.data
        scene.peer.state()
        scene.run(0.05)
    assert received == pattern(5_000)


def test_a_paused_reader_closes_the_window_and_opens_it_again() -> None:
    """Our window goes to 0, no more than the buffer is held; after resume the silent peer is told, and told again."""
    pair = Pair(settings=Settings(receive_buffer_bytes=100_000))
    pair.server.transport.pauseProducing()
    data = pattern(400_000)
    pair.client.transport.write(data)
    pair.run(20)
    receiving = pair.server.connection.receiving
    assert pair.server.received == b""
    assert receiving.ready_bytes + receiving.early_bytes <= 100_000
    assert receiving.ready_bytes > 90_000

    # the update is lost twice
    drops = []

    def drop_two(datagram: Datagram) -> None:
        if len(drops) < 2:
            drops.append(datagram)
            datagram.dropped = True

    pair.down.hook = drop_two
    started = pair.network.now_us
    pair.server.transport.resumeProducing()
    assert pair.run(60, until=lambda: len(pair.server.received) == len(data))
    assert bytes(pair.server.received) == data
    assert len(drops) == 2
    assert pair.network.now_us - started < 10_000_000


def test_a_peer_that_ignores_our_window_is_not_acknowledged() -> None:
    """The excess is dropped, not acknowledged, and memory is bounded."""
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=10_000))
    scene.server.transport.pauseProducing()
    for _ in range(30):
        scene.peer.data(b"x" * 1_000)
    scene.run(0.01)
    last = scene.peer.take()[-1]
    assert (last.ack_nr, last.wnd_size) == (5_010, 0)
    assert scene.server.connection.receiving.ready_bytes == 10_000


def test_early_data_is_bounded_by_bytes_and_the_gap_still_closes() -> None:
    scene = ScriptedClient(settings=Settings(receive_buffer_bytes=10_000))
    for ahead in range(2, 40):
        scene.peer.data(b"x" * 1_000, seq_nr=5_000 + ahead)
    scene.run(0.01)
    receiving = scene.server.connection.receiving
    assert receiving.early_bytes == 9_000
    scene.peer.data(b"y" * 1_000, seq_nr=5_001)
    scene.run(0.01)
    assert len(scene.server.received) == 10_000


# -- packing --


def test_many_small_writes_are_packed() -> None:
    """At most one undersized packet is in flight."""
    scene = ScriptedClient()
    first = scene.push(b"a" * 10)
    assert len(first) == 1
    for _ in range(300):
        assert all(len(packet.data) == SEGMENT for packet in scene.push(b"b" * 10))
    scene.peer.ack += len(first)
    scene.peer.state()
    scene.run(0.001)
    # 3000 bytes waited, of which full segments may have left already
    scene.peer.ack += 2
    scene.peer.state()
    scene.run(0.001)
    assert scene.server.connection.sending.unsent_bytes == 0


def test_the_second_small_write_leaves_when_the_first_is_acknowledged() -> None:
    scene = ScriptedClient()
    assert [packet.data for packet in scene.push(b"first")] == [b"first"]
    assert scene.push(b"second") == []
    scene.peer.ack += 1
    scene.peer.state()
    scene.run(0.0001)
    assert [packet.data for packet in scene.peer.take()] == [b"second"]


def test_flush_sends_the_short_packet_that_waits() -> None:
    scene = ScriptedClient()
    assert len(scene.push(b"first")) == 1
    scene.server.transport.write(b"second")
    scene.server.transport.flush()
    scene.run(0.0001)
    assert [packet.data for packet in scene.peer.take()] == [b"second"]
    assert scene.push(b"third") == []


def test_no_delay_bypasses_packing() -> None:
    scene = ScriptedClient()
    scene.server.transport.setTcpNoDelay(True)
    assert [packet.data for packet in scene.push(b"first")] == [b"first"]
    assert [packet.data for packet in scene.push(b"second")] == [b"second"]


def test_closing_flushes() -> None:
    scene = ScriptedClient()
    scene.push(b"first")
    scene.server.transport.write(b"second")
    scene.server.transport.loseConnection()
    scene.run(0.001)
    assert [(packet.type, packet.data) for packet in scene.peer.take()] == [(ST_DATA, b"second"), (ST_FIN, b"")]


# -- whole transfers over bad paths --

PATHS = {
    "clean": Link(delay_us=20_000, rate_bytes_per_second=1_250_000, queue_bytes=60_000),
    "loss": Link(delay_us=20_000, loss=0.02),
    "heavy loss": Link(delay_us=5_000, loss=0.10),
    "reorder": Link(delay_us=10_000, reorder=0.20, reorder_delay_us=15_000),
    "duplicate": Link(delay_us=10_000, duplicate=0.3),
    "jitter": Link(delay_us=10_000, jitter_us=20_000),
    "flaky wifi": Link(delay_us=5_000, jitter_us=30_000, loss=0.03, reorder=0.05, duplicate=0.02),
    "straw": Link(delay_us=10_000, rate_bytes_per_second=50_000, queue_bytes=4_500),
    "instant": Link(),
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_bytes_survive(name: str, seed: int) -> None:
    """Whatever the path does, the stream arrives whole, in order, once."""
    link = Link(**{key: value for key, value in vars(PATHS[name]).items() if key in LINK_SETTINGS})
    pair = Pair(link=link, seed=seed)
    transfer(pair, 300_000)


LINK_SETTINGS = {name for name, field in Link.__dataclass_fields__.items() if field.init}


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 60), max_size=30), st.sets(st.integers(0, 60), max_size=30))
def test_any_pattern_of_lost_packets_is_survived(lost_up: set[int], lost_down: set[int]) -> None:
    """Drop any of the first packets in both directions: no byte is lost, nothing stalls."""

    def dropper(lost: set[int]) -> object:
        count = 0

        def hook(datagram: Datagram) -> None:
            nonlocal count
            datagram.dropped = count in lost and count % 4 != 0
            count += 1

        return hook

    # more timeouts in a row than the drops can cause; the default of five is a limit of its own
    pair = Pair(settings=Settings(maximum_timeouts=30))
    pair.up.hook, pair.down.hook = dropper(lost_up), dropper(lost_down)  # type: ignore[assignment]
    transfer(pair, 60_000)


def test_both_directions_at_once() -> None:
    pair = Pair(link=Link(delay_us=10_000, loss=0.02), protocol=HalfStream, seed=11)
    there, back = pattern(200_000, 1), pattern(200_000, 2)
    pair.client.transport.write(there)
    pair.server.transport.write(back)
    pair.client.transport.loseWriteConnection()
    pair.server.transport.loseWriteConnection()
    assert pair.run(120, until=lambda: pair.client.read_lost and pair.server.read_lost)
    assert bytes(pair.server.received) == there
    assert bytes(pair.client.received) == back


def test_a_send_buffer_takes_refused_segments_back() -> None:
    """What did not leave is unsent again, byte for byte, even across chunks."""
    buffer = SendBuffer(10)
    buffer.write(b"a" * 1_500)
    buffer.write(b"b" * 1_500)
    buffer.take_run(500, 500, 1)
    run = buffer.take_run(2_500, 500, 1)
    assert run.count == 5
    buffer.untake(2)
    assert buffer.unsent_bytes == 1_500
    assert buffer.flight_bytes == 1_500
    assert buffer.next_sequence == 13
    rest = buffer.take_run(1_500, 500, 2)
    assert b"".join(rest.payloads) == b"b" * 1_500


@given(
    st.lists(st.integers(1, 3_000), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(1, 5_000), st.integers(0, 9)), min_size=1, max_size=20),
)
def test_writes_of_any_sizes_become_the_same_bytes(writes: list[int], takes: list[tuple[int, int]]) -> None:
    """However the application cuts its writes, and whatever the socket refuses, the segments are the stream."""
    buffer = SendBuffer(0)
    stream = b""
    for number, size in enumerate(writes):
        data = pattern(size, number)
        buffer.write(data)
        stream += data
    sent = b""
    for size, kept in takes:
        total = min(size, buffer.unsent_bytes)
        if not total:
            break
        run = buffer.take_run(total, 700, 1)
        assert [len(payload) for payload in run.payloads[:-1]] == [700] * (run.count - 1)
        payloads = run.payloads
        if kept < run.count:
            payloads = payloads[:kept]
            buffer.untake(kept)
        sent += b"".join(payloads)
        assert buffer.unsent_bytes == len(stream) - len(sent) == len(stream) - buffer.flight_bytes
    assert stream.startswith(sent)
    if buffer.unsent_bytes:
        sent += b"".join(buffer.take_run(buffer.unsent_bytes, 700, 1).payloads)
    assert sent == stream


@pytest.mark.parametrize("datagram_bytes", [576, 1232, 1402, 1452, 1472, 8972, 32_000, 65_000])
def test_bursts_are_odd_and_fit_one_call(datagram_bytes: int) -> None:
    segments = burst_segments(datagram_bytes)

    # a reader that takes 32 at a time must see the end of a window
    assert segments % 2 == 1
    assert segments * datagram_bytes <= RUN_MAXIMUM_BYTES
    assert (segments + 2) * datagram_bytes > RUN_MAXIMUM_BYTES or segments + 2 > RUN_MAXIMUM_SEGMENTS
