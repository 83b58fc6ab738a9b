"""What is written to a Socket, when it has arrived, and when nothing happens."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet import error

from tests.socket.test_socket import HERE, THERE, Scene, collected, logged_failures, types, written_down
from tests.wire.test_transfer import pattern
from txutp.socket import Socket
from txutp.testing import Link, Recorder


def test_the_callback_of_write_runs_when_the_other_side_has_the_data() -> None:
    """Not when it has left; each once, in their order."""
    scene = Scene(link=Link(delay_us=100_000))
    socket, accepted = scene.pair()
    accepted.resume()
    told: list[Any] = []
    begin_us = scene.network.now_us
    for number in range(3):
        socket.write(
            pattern(1_000), lambda problem, number=number: told.append((number, scene.network.now_us - begin_us))
        )
    scene.run(until=lambda: len(told) == 3)
    assert [number for number, _ in told] == [0, 1, 2]
    assert all(200_000 <= after_us < 400_000 for _, after_us in told)
    scene.run()
    assert len(told) == 3


def test_callbacks_get_an_error_if_the_connection_ends_before() -> None:
    """Exactly once, and None if it did not."""
    scene = Scene()
    socket, accepted = scene.pair()
    accepted.resume()
    told: list[Any] = []
    socket.write(b"x", told.append)
    scene.run(1)
    socket.write(b"y", "latin1", told.append)
    socket.end(b"z", told.append)
    accepted.resetAndDestroy()
    events = written_down(socket)
    scene.run()
    assert [type(problem) for problem in told] == [type(None), error.ConnectionLost, error.ConnectionLost]
    assert types(events) == [("error", error.ConnectionLost), ("close", True)]


def test_write_tells_when_there_is_no_room_and_drain_when_there_is() -> None:
    """Who waits for ``drain`` never has much more than the high-water mark in memory."""
    scene = Scene(link=Link(delay_us=10_000, rate_bytes_per_second=1_000_000, queue_bytes=50_000))
    socket, accepted = scene.pair()
    data = collected(accepted)
    left = [pattern(10_000, number) for number in range(100)]
    most = 0

    def feed() -> None:
        nonlocal most
        while left:
            room = socket.write(left.pop(0))
            most = max(most, socket.writableLength)
            if not room:
                return
        socket.end()

    events = written_down(socket, "drain")
    socket.on("drain", feed)
    feed()
    assert 80 < len(left) < 100
    scene.run()
    assert b"".join(data) == b"".join(pattern(10_000, number) for number in range(100))
    assert most <= socket.writableHighWaterMark + 10_000
    assert events.count("drain") > 5


def test_what_is_written_before_the_connection_is_there_arrives() -> None:
    """In its order, before what the listener of ``connect`` writes; with drain if it was much."""
    scene = Scene()
    socket = scene.connect()
    events = written_down(socket, "drain")
    socket.on("connect", lambda: socket.write(b"c"))
    assert socket.write(b"a") is True
    assert socket.write(pattern(socket.writableHighWaterMark)) is False
    socket.write(b"b")
    scene.run(until=lambda: bool(scene.accepted))
    data = collected(scene.accepted[0])
    scene.run(5)
    assert b"".join(data) == b"a" + pattern(socket.writableHighWaterMark) + b"bc"
    assert events == ["drain"]


def test_anything_like_bytes_can_be_written() -> None:
    """What changes afterwards makes no difference."""
    scene = Scene()
    socket, accepted = scene.pair()
    data = collected(accepted)
    changing = bytearray(b"two, ")
    for piece in (b"one, ", changing, memoryview(b"three, "), "four"):
        socket.write(piece)
    changing[:] = b"TWO, "
    scene.run(5)
    assert b"".join(data) == b"one, two, three, four"


def test_no_delay() -> None:
    """A small write leaves although another one is on its way, or waits for its acknowledgement."""
    for no_delay in (False, True):
        scene = Scene()
        socket = scene.connect().setNoDelay(no_delay).setKeepAlive(True)
        scene.run(until=lambda socket=socket: not socket.connecting)
        link = scene.network.link(HERE, THERE)
        link.hook = recorder = Recorder()
        for _ in range(3):
            socket.write(b"x")
            scene.run(0.001)
        assert sum(bool(packet.data) for packet in recorder.packets) == (3 if no_delay else 1)


def test_timeout_tells_of_silence() -> None:
    """Once for each time that nothing happens; what is written or comes begins it anew."""
    scene = Scene()
    socket, accepted = scene.pair()
    accepted.resume()
    at: list[float] = []
    first: list[Any] = []
    begin = scene.here.seconds()
    socket.on("timeout", lambda: at.append(scene.here.seconds() - begin))
    assert socket.setTimeout(1_000, lambda: first.append("once")) is socket
    scene.run(0.6)
    socket.write(b"x")
    scene.run(0.6)
    assert at == []
    scene.run(5)
    accepted.write(b"y")
    socket.resume()
    scene.run(10)
    assert at == pytest.approx([1.6, 7.21], abs=0.03)
    assert first == ["once"]
    socket.setTimeout(0)
    accepted.write(b"z")
    scene.run(10)
    assert len(at) == 2
    assert not socket.destroyed


def test_no_timeout_while_a_long_write_goes_on() -> None:
    """What the other side takes is a sign of life."""
    scene = Scene(link=Link(delay_us=10_000, rate_bytes_per_second=100_000, queue_bytes=20_000))
    socket, accepted = scene.pair()
    accepted.resume()
    events = written_down(socket, "timeout", "finish")
    socket.setTimeout(2_000)
    socket.end(pattern(1_000_000))
    scene.run()
    assert events == ["finish"]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_happens_every_callback_is_called_once(seed: int) -> None:
    """Two programs that do anything at any time, over a bad path: each hears one end of each thing."""
    scene = Scene(link=Link(delay_us=5_000, loss=0.03, jitter_us=3_000), seed=seed)
    chance = scene.network.random
    socket = scene.connect(allowHalfOpen=chance.random() < 0.5)
    logs: list[list[Any]] = []
    told: dict[int, list[Any]] = {}

    def act(actor: Socket) -> None:
        number = len(told)
        kind = chance.choices(["write", "end", "destroy", "reset", "pause", "resume"], [60, 3, 1, 1, 15, 20])[0]
        if kind in ("write", "end"):
            told[number] = []
            getattr(actor, kind)(pattern(chance.randrange(60_000), number), callback=told[number].append)
        elif kind == "reset":
            actor.resetAndDestroy()
        else:
            getattr(actor, kind)()

    actors = [socket]
    logs.append(written_down(socket))
    with logged_failures() as logged:
        for _ in range(200):
            if scene.accepted and len(actors) == 1:
                actors.append(scene.accepted[0])
                logs.append(written_down(scene.accepted[0]))
            act(chance.choice(actors))
            scene.run(chance.random() * 0.02)
        for actor in actors:
            actor.resume().end()
        scene.run(300)

    assert logged == []
    assert all(actor.destroyed for actor in actors)
    assert [number for number, calls in told.items() if len(calls) != 1] == []
    for events in logs:
        names = [event[0] if isinstance(event, tuple) else event for event in events]
        assert names[-1] == "close"
        assert names.count("close") == 1
        assert names.count("error") == (events[-1] == ("close", True))
        assert names.count("end") <= 1
        assert names.count("finish") <= 1
