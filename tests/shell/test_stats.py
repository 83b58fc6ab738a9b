"""``transport.stats()``: what a connection tells of itself, while it lives and afterwards."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone

from tests.support import Pair, Stream
from txutp import Ledbat, Settings
from txutp.core.stats import ConnectionStats, StreamTotals
from txutp.testing import Link

CHUNK = b"x" * 100_000


def stats_of(stream: Stream) -> ConnectionStats:
    """What its transport says."""
    transport: Any = stream.transport
    stats = transport.stats()
    assert isinstance(stats, ConnectionStats)
    return stats


def test_fresh_connection() -> None:
    """A round trip has been measured, nothing was sent, and both windows are open."""
    pair = Pair(Link(delay_us=10_000))

    stats = stats_of(pair.client)

    assert (stats.state, stats.close_reason) == ("CONNECTED", None)
    assert stats.rtt == stats.minrtt == pytest.approx(20, abs=1)
    assert (stats.bytes_sent, stats.bytes_acked, stats.bytes_received, stats.unsent) == (0, 0, 0, 0)
    assert stats.send_window == stats.receive_window == 1 << 20
    assert stats.rto == 500
    assert stats.cwnd >= 2 * stats.mss > 0
    assert stats.target == 0


def test_bytes_add_up() -> None:
    """What was written is unsent, or sent; what was sent is acknowledged, or on its way."""
    pair = Pair(Link(delay_us=10_000))
    pair.client.transport.write(CHUNK)

    before = stats_of(pair.client)
    pair.run(0.015)
    during = stats_of(pair.client)
    pair.run(5)
    after = stats_of(pair.client)

    assert (before.unsent, before.bytes_sent) == (len(CHUNK), 0)
    assert during.unsent + during.bytes_sent == len(CHUNK)
    assert during.bytes_acked == 0 < during.bytes_sent
    assert (after.unsent, after.bytes_sent, after.bytes_acked) == (0, len(CHUNK), len(CHUNK))
    assert stats_of(pair.server).bytes_received == len(CHUNK)
    assert after.segs_out > len(CHUNK) // after.mss
    assert after.segs_in > 0


def test_losses_show() -> None:
    """Retransmissions count as sent bytes too, as with ss."""
    pair = Pair(Link(delay_us=10_000, loss=0.05))
    pair.client.transport.write(CHUNK * 10)

    pair.run(60, until=lambda: len(pair.server.received) == 10 * len(CHUNK))
    pair.run(5)
    stats = stats_of(pair.client)

    assert stats.segs_retrans > 0
    assert stats.bytes_retrans > 0
    assert stats.bytes_sent - stats.bytes_retrans == stats.bytes_acked == 10 * len(CHUNK)


def test_queue_shows() -> None:
    """What our own packets wait for in a slow link is the queue delay; the base is what the empty path takes."""
    pair = Pair(Link(delay_us=10_000, rate_bytes_per_second=250_000))
    pair.client.transport.write(CHUNK * 20)

    pair.run(5)
    stats = stats_of(pair.client)

    assert 2 < stats.queue_delay < 20
    assert stats.rtt > stats.minrtt
    assert stats.base_delay == pytest.approx(10, abs=10)


def test_the_delivery_rate_is_that_of_the_path() -> None:
    """A slow link shows as what it carries, from the first acknowledgements on; a few packets show nothing."""
    pair = Pair(Link(delay_us=10_000, rate_bytes_per_second=250_000))
    pair.client.transport.write(b"hello")
    pair.run(1)
    assert stats_of(pair.client).delivery_rate == 0

    pair.client.transport.write(CHUNK * 20)
    pair.run(3)
    stats = stats_of(pair.client)

    payload_share = stats.mss / stats.pmtu
    assert stats.delivery_rate == pytest.approx(250_000 * payload_share, rel=0.1)
    assert stats_of(pair.server).delivery_rate == 0


def test_silence_does_not_count_as_slowness() -> None:
    """A rate is measured from when something was on its way, not from the end of the rate before it."""
    pair = Pair(Link(delay_us=10_000, rate_bytes_per_second=250_000))
    pair.client.transport.write(CHUNK)
    pair.run(3_600)

    pair.client.transport.write(CHUNK)
    seen: list[float] = []
    before = stats_of(pair.client).delivery_rate

    def measured() -> bool:
        """Whether the first measurement since the silence is there."""
        rate = stats_of(pair.client).delivery_rate
        seen.append(rate)
        return rate != before

    assert pair.run(5, until=measured)
    assert seen[-1] > 50_000


def test_what_is_on_its_way_shows() -> None:
    """Packets that nothing acknowledges are unacked, and lost when the timeout says so."""
    pair = Pair(Link(delay_us=10_000))
    pair.run(1)
    pair.up.loss = 1.0
    pair.client.transport.write(CHUNK)
    pair.run(0.01)
    stats = stats_of(pair.client)
    assert stats.unacked == stats.bytes_sent // stats.mss > 2
    assert stats.lost == 0

    # the oldest are sent again and again; the others have to wait until those arrive
    pair.run(5)
    assert 0 < stats_of(pair.client).lost < stats_of(pair.client).unacked

    pair.up.loss = 0.0
    pair.run(30)
    assert (stats_of(pair.client).unacked, stats_of(pair.client).lost) == (0, 0)


def test_how_long_ago_a_packet_left_and_came() -> None:
    """A silence shows on both sides; keepalives are packets too."""
    pair = Pair(Link(delay_us=10_000))
    pair.run(1)
    pair.client.transport.write(b"x")
    pair.run(1.5)

    client, server = stats_of(pair.client), stats_of(pair.server)

    assert client.lastsnd == pytest.approx(1_500, abs=1)
    assert server.lastrcv == pytest.approx(1_490, abs=1)
    assert client.lastrcv == pytest.approx(1_480, abs=1)
    pair.run(29)
    assert stats_of(pair.client).lastsnd < 10_000


def test_after_the_end() -> None:
    """The last numbers stay, and the reason of the end is told."""
    pair = Pair()
    transport: Any = pair.client.transport
    pair.client.transport.write(CHUNK)
    pair.run(5)

    pair.client.transport.loseConnection()
    pair.run(5)

    stats = transport.stats()
    assert (stats.state, stats.close_reason) == ("CLOSED", "DONE")
    assert stats.bytes_acked == len(CHUNK)
    assert pair.server.lost


def test_a_snapshot_does_not_change() -> None:
    """It is a fact of a moment: later traffic does not alter it, and neither can the reader."""
    pair = Pair()
    stats = stats_of(pair.client)
    pair.client.transport.write(CHUNK)
    pair.run(5)

    assert stats.bytes_sent == 0
    with pytest.raises(FrozenInstanceError):
        stats.rtt = 0.0  # type: ignore[misc]


def test_the_queue_of_the_way_back_shows() -> None:
    """The peer fills its own slow link as far as its target: that is told of its packets, not of ours."""
    slow = Link(delay_us=10_000, rate_bytes_per_second=250_000)
    filling = Settings(congestion=Ledbat, target_delay_us=60_000)
    pair = Pair(Link(delay_us=10_000), slow, settings=Settings(receive_target_delay_us=None), server_settings=filling)
    pair.client.transport.write(CHUNK)
    pair.server.transport.write(CHUNK * 20)

    pair.run(0.05)
    during = stats_of(pair.client)
    pair.run(4)
    after = stats_of(pair.client)

    assert 0 < during.in_flight <= during.cwnd
    assert after.in_flight == 0
    assert after.receive_queue_delay == pytest.approx(60, abs=15)


def test_ended_connections_leave_their_counts() -> None:
    """The sum over all connections of a port stays the same when they end."""
    pair = Pair(Link(delay_us=10_000, loss=0.05))
    pair.client.transport.write(CHUNK)
    pair.run(10)
    multiplexer = pair.client.transport._utp.multiplexer
    before = StreamTotals()
    pair.client.connection.add_to(before)
    assert multiplexer.ended.connections == 0

    pair.client.transport.loseConnection()
    pair.run(10)

    assert pair.client.lost_type is ConnectionDone
    assert multiplexer.ended.connections == before.connections == 1
    assert multiplexer.ended.bytes_acked == before.bytes_acked == len(CHUNK)
    assert multiplexer.ended.segs_retrans == before.segs_retrans > 0
    assert multiplexer.ended.segs_out > before.segs_out
