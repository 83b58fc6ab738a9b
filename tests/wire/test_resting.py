"""What a connection that rests costs: memory, and turns of the reactor."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import PORT, SERVER, Accepting, Pair
from tests.wire.test_transfer import pattern
from txutp import UTPClientEndpoint
from txutp.core import multiplexer as multiplexer_module
from txutp.core.congestion.crowd import Crowd
from txutp.core.flow import Flow
from txutp.core.rare import Rare
from txutp.core.settings import Settings
from txutp.testing import Link

REST_SECONDS = 20


def numbers_of(connection: Any) -> dict[int, list[str]]:
    """Each integer object that is not one of Python's small ones, and the attributes that have it."""
    found: dict[int, list[str]] = {}
    for part in (connection, connection.sending, connection.receiving, connection.sending.round_trip):
        for kind in type(part).__mro__:
            for name in getattr(kind, "__slots__", ()):
                number = getattr(part, name, None)
                if type(number) is int and not -6 < number < 257:
                    found.setdefault(id(number), []).append(f"{type(part).__name__}.{name}")
    return found


def rested(seconds: float = REST_SECONDS) -> Pair:
    """A byte there and back, and then nothing for a while."""
    scene = Pair()
    scene.client.transport.write(b"x")  # type: ignore[union-attr]
    scene.run(0.2)
    scene.server.transport.write(b"y")  # type: ignore[union-attr]
    scene.run(seconds)
    return scene


def test_equal_numbers_are_one_object() -> None:
    """A number takes 32 bytes; so many are left, some of them of all connections of the port."""
    connection = rested().server.connection
    assert len(numbers_of(connection)) <= 19, numbers_of(connection)
    assert connection.sending.first_unacked is connection.sending.next_sequence
    assert connection.deadline_us is connection.scheduled_us


def test_connections_share_what_is_equal() -> None:
    scene = Pair()
    endpoint = UTPClientEndpoint(scene.client_reactor, SERVER, PORT)
    endpoint.connect(scene.connecting)
    scene.run(1)
    for client in scene.connecting.made:
        client.transport.write(b"x")  # type: ignore[union-attr]
    scene.run(REST_SECONDS)
    first, second = (made.connection for made in scene.accepting.made)
    assert first.sending.peer_window_bytes is second.sending.peer_window_bytes
    assert first.sending.segment_bytes is second.sending.segment_bytes
    assert first.sending.runs is second.sending.runs
    assert first.receiving.ready is second.receiving.ready
    assert first._rare is first.sending._rare is None


@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_it_goes_on_after_a_rest(loss: float) -> None:
    """In both directions, and after each of several rests; nothing is lost or altered."""
    scene = Pair(link=Link(delay_us=10_000, loss=loss), back=Link(delay_us=10_000, loss=loss))
    content = pattern(60_000)
    for _ in range(3):
        scene.client.transport.write(content)  # type: ignore[union-attr]
        scene.server.transport.write(content)  # type: ignore[union-attr]
        scene.run(120)
    assert scene.client.received == scene.server.received == content * 3


def test_a_rare_attribute_takes_a_dictionary_while_it_is_changed() -> None:
    flow = Flow(1, 1_000, Settings(), Crowd())
    assert (flow.losses, flow._rare) == (0, None)
    flow.losses += 1
    flow.bytes_resent = 5
    assert (flow.losses, flow.bytes_resent, flow.segments_resent) == (1, 5, 0)
    assert flow._rare == {"losses": 1, "bytes_resent": 5}
    flow.losses = flow.bytes_resent = 0
    assert (flow.losses, flow._rare) == (0, None)
    assert isinstance(Flow.losses, Rare)


def test_many_keepalives_at_once_are_several_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served between them, and none is left out."""
    monkeypatch.setattr(multiplexer_module, "MAXIMUM_WOKEN", 10)
    scene = Pair()
    endpoint = UTPClientEndpoint(scene.client_reactor, SERVER, PORT)
    idle = Accepting()
    for _ in range(44):
        endpoint.connect(idle)
    assert scene.run(10, until=lambda: len(scene.accepting.made) == 45)
    utp = scene.ports[0]._utp
    woken: list[int] = []
    handle_timeouts = utp.multiplexer.handle_timeouts

    def watched(now_us: int) -> None:
        before = len(utp.multiplexer.touched)
        handle_timeouts(now_us)
        woken.append(len(utp.multiplexer.touched) - before)

    utp.multiplexer.handle_timeouts = watched
    scene.run(100)
    assert max(woken) == 10
    assert sum(woken) >= 45
    for connection in utp.multiplexer:
        assert utp.now_us() - connection.heard_us < 60_000_000


def test_probes_and_small_messages_are_no_download() -> None:
    """What measures a download takes some 800 bytes, which neither an idle connection nor a conversation needs."""
    scene = rested(600)
    assert scene.server.connection.segments_received > 10
    assert scene.client.connection._yielding is scene.server.connection._yielding is None
    for _ in range(20):
        scene.client.transport.write(b"a question")  # type: ignore[union-attr]
        scene.run(0.1)
    assert scene.server.connection._yielding is None
    scene.client.transport.write(bytes(50_000))  # type: ignore[union-attr]
    scene.run(1)
    assert scene.server.connection._yielding is not None
