"""When an idle connection probes its peer, and how soon it notices that the peer's process was killed."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, ScriptedClient
from tests.wire.test_closed_port import Dead
from txutp import Settings, UTPClientEndpoint
from txutp.core.liveness import CONFIRM_US, SHARE_US, SHORT_PATIENCE, SILENCE_PART, SOONEST_US, SPREAD
from txutp.core.packet import ST_DATA
from txutp.testing import Datagram, Link, Recorder

HOUR = 3_600

# The round trip of the longest path here, and the interval at which a suspect is probed again.
A_LITTLE = 0.8

# The longest silence after which a killed process is noticed within six seconds.
SHORT_SILENCE = 8

# The shortest interval of a connection beside that of its settings.
SHORTEST = 1 - 1 / SPREAD


def probe_times(recorder: Recorder) -> list[float]:
    """When probes left, in seconds."""
    return [
        datagram.sent_at_us / 1e6
        for datagram in recorder.datagrams
        if datagram.packet is not None and datagram.packet.type == ST_DATA and datagram.packet.data == b"\0"
    ]


def say(pair: Pair) -> float:
    """Something is said, and acknowledged; returns the time."""
    pair.client.transport.write(b"something")  # type: ignore[union-attr]
    said = pair.network.now_us / 1e6
    pair.run(0.3)
    return said


@pytest.mark.parametrize("delay_us", [100, 10_000, 100_000])
def test_probes_come_soon_and_then_ever_more_rarely(delay_us: int) -> None:
    """Every quarter of the silence so far, and in the end as rarely as keepalives; one side asks."""
    pair = Pair(Link(delay_us=delay_us))
    pair.run(HOUR)
    said = say(pair)
    up, down = pair.record()
    pair.run(HOUR)
    times = [moment - said for moment in probe_times(up)]
    assert times[0] < SOONEST_US / 1e6 + A_LITTLE
    for before, after in pairwise(times):
        expected = min(29, max(SOONEST_US / 1e6, before / SILENCE_PART))
        assert expected * SHORTEST - A_LITTLE < after - before < expected + A_LITTLE
    assert len([moment for moment in times if moment < 150]) <= 20
    assert len(times) < HOUR / (29 * SHORTEST) + 20
    assert probe_times(down) == []
    assert len(down.packets) == len(up.packets)


@pytest.mark.parametrize("quiet_seconds", [0.7, 1.9, 5, SHORT_SILENCE, 20, 100, HOUR])
@pytest.mark.parametrize("killed", [SERVER, CLIENT])
@pytest.mark.parametrize("half_closed", [False, True])
def test_a_killed_process_is_noticed_soon(killed: str, quiet_seconds: float, half_closed: bool) -> None:
    """Within six seconds where the connection was used lately, else within a quarter of the silence or a keepalive."""
    pair = Pair(protocol=HalfStream)
    survivor = pair.client if killed == SERVER else pair.server
    pair.run(60)
    say(pair)
    if half_closed:
        survivor.transport.loseWriteConnection()  # type: ignore[union-attr]
    Dead(pair, quiet_seconds, killed)
    wait_us = min(29_500_000, max(SOONEST_US, quiet_seconds * 1e6 / SILENCE_PART) * (1 + 1 / SHORT_PATIENCE))
    bound = (wait_us + CONFIRM_US) / 1e6 + A_LITTLE
    if quiet_seconds <= SHORT_SILENCE:
        bound = min(bound, 6)
    pair.run(CONFIRM_US / 1e6 - 0.1)
    assert not survivor.lost, "a filter may reject for as long"
    pair.run(bound - CONFIRM_US / 1e6 + 0.1)
    assert survivor.lost_type is error.ConnectionLost


@pytest.mark.parametrize("quiet_seconds", [1, 60, HOUR])
@pytest.mark.parametrize("killed", [SERVER, CLIENT])
def test_a_keepalive_of_two_seconds_notices_within_six_after_any_silence(killed: str, quiet_seconds: float) -> None:
    pair = Pair(settings=Settings(keepalive_us=2_000_000))
    Dead(pair, quiet_seconds, killed)
    pair.run(6)
    assert (pair.client if killed == SERVER else pair.server).lost_type is error.ConnectionLost


@pytest.mark.parametrize("seconds", [1, 3])
def test_a_host_that_rejects_probes_for_a_moment_ends_nothing(seconds: float) -> None:
    """Whenever that moment comes."""
    pair = Pair()
    for quiet in (0.2, 1, 1.9, 2.1, 4, 9, 15):
        say(pair)
        pair.run(quiet)
        down = pair.down.hook
        Dead(pair, 0)
        pair.down.hook = down
        pair.run(seconds)
        pair.up.hook = None
        pair.run(70)
        assert not pair.client.lost
        assert not pair.server.lost


@pytest.mark.parametrize("quiet_seconds", [0.3, 3, 20, 500])
def test_an_outage_of_the_path_is_borne_as_long_after_a_short_silence_as_after_a_long_one(quiet_seconds: float) -> None:
    """Probes begin sooner, the verdict does not come sooner."""
    pair = Pair()
    pair.run(60)
    say(pair)
    pair.run(quiet_seconds)

    def swallow(datagram: Datagram) -> None:
        datagram.dropped = True

    pair.up.hook = pair.down.hook = swallow
    pair.run(27)
    if quiet_seconds < 29:
        pair.run(28 - quiet_seconds)
    pair.up.hook = pair.down.hook = None
    pair.run(HOUR)
    assert not pair.client.lost
    assert not pair.server.lost


def test_many_idle_connections_share_what_is_sent() -> None:
    """Those of one port together send about a hundred probes a second, however many fall silent at once."""
    pair = Pair()
    crowd = 600
    others = [Accepting() for _ in range(crowd)]
    for accepting in others:
        UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(accepting)
    pair.run(30)
    for accepting in others:
        accepting.made[0].transport.write(b"all at once")  # type: ignore[union-attr]
    pair.run(0.3)
    up, down = pair.record()
    pair.run(60)
    interval = SHARE_US * crowd / 1e6
    assert interval > SOONEST_US / 1e6
    assert 0.7 * 60 * crowd / 15 < len(probe_times(up)) < 60 * crowd / (interval * SHORTEST)
    assert probe_times(down) == []


def test_what_is_sent_of_those_that_fall_silent_together_spreads() -> None:
    """After some minutes no second has more than a small part of it; still one end of a connection asks."""
    pair = Pair()
    crowd = 300
    others = [Accepting() for _ in range(crowd)]
    for accepting in others:
        UTPClientEndpoint(pair.client_reactor, SERVER, PORT).connect(accepting)
    pair.run(30)
    for accepting in others:
        accepting.made[0].transport.write(b"all at once")  # type: ignore[union-attr]
    pair.run(900)
    up, down = pair.record()
    pair.run(58)
    times = probe_times(up)
    assert len(times) >= 2 * crowd
    assert max(Counter(map(int, times)).values()) < crowd / 4
    assert probe_times(down) == []


def test_probes_and_their_answers_are_not_taken_for_talk() -> None:
    """The peer probes by a rhythm of its own, and answers; ours grow more rare all the same."""
    scene = ScriptedClient()
    scene.run(0.6)
    scene.peer.state()
    count = 0
    for _ in range(200):
        scene.peer.data(b"\0", seq_nr=4_999)
        scene.run(3)
        probes = [packet for packet in scene.peer.take() if packet.type == ST_DATA]
        count += len(probes)
        if probes:
            scene.peer.state()
    assert 2 < count < 12
    assert not scene.server.lost


def test_a_connection_without_keepalives_sends_nothing() -> None:
    pair = Pair(settings=Settings(keepalive_us=None))
    say(pair)
    up, down = pair.record()
    pair.run(HOUR)
    assert up.packets == down.packets == []
