"""A socket that takes nothing: whatever is due waits for it, and no timer rings twice without a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import DatagramProtocol

from tests.support import CLIENT, PORT, SERVER, HalfStream, Pair, ScriptedClient, ScriptedServer
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.connection import STATE_REPEATS
from txutp.core.packet import ST_DATA, ST_FIN, ST_STATE
from txutp.protocol import UTPProtocol
from txutp.testing import Link, Network

BLOCKED_SECONDS = 400

# The other side does not take our silence for our end.
PATIENT = Settings(keepalive_us=None, maximum_timeouts=50)

# Back-off makes of every timer a few rings in all that time, and a keepalive rings once.  A timer that judges a peer's
# silence rings twice, for what the peer has said is read in between.
MOST_RINGS = 60


class Blocked:
    """The only port of a host takes nothing, and nothing tells when it does, until ``end``."""

    def __init__(self, network: Network, host: str) -> None:
        self.network = network
        self.rings = 0
        (self.port,) = [port for (its_host, _), port in network.ports.items() if its_host == host]
        self.port.refusing = True
        self.utp: Any = self.port.protocol
        self.utp.port._try_again = lambda: None
        on_timer = self.utp._on_timer

        def counted() -> None:
            self.rings += self.port.refusing
            assert self.rings <= MOST_RINGS, f"at {network.now_us} us"
            on_timer()

        self.utp._on_timer = counted
        if self.utp._timer is not None:
            self.utp._timer.function = counted

    def end(self) -> None:
        self.port.refusing = False
        self.utp.writable()


def block(pair: Pair, host: str) -> Blocked:
    """Something has to be refused first."""
    blocked = Blocked(pair.network, host)
    blocked.utp._outbox._blocked = True
    return blocked


def idle(pair: Pair) -> None:
    """Only a keepalive falls due."""


def data_in_flight(pair: Pair) -> None:
    pair.client.transport.write(pattern(100_000))
    pair.run(0.03)


def a_close(pair: Pair) -> None:
    pair.client.transport.loseConnection()


def a_closed_window(pair: Pair) -> None:
    """The peer does not read, and its window has to be probed."""
    pair.server.transport.pauseProducing()
    pair.client.transport.write(pattern(3_000_000))
    pair.run(20)


def a_window_that_opens(pair: Pair) -> None:
    """We have read, and the peer has to hear of it."""
    pair.client.transport.pauseProducing()
    pair.server.transport.write(pattern(1_100_000))
    pair.run(20)


@pytest.mark.parametrize("prepare", [idle, data_in_flight, a_close, a_closed_window, a_window_that_opens])
def test_no_timer_rings_again_and_again_while_the_socket_is_full(prepare: Callable[[Pair], None]) -> None:
    """And when the socket takes datagrams again, what was due leaves."""
    settings = Settings(keepalive_us=10_000_000, maximum_timeouts=50)
    pair = Pair(protocol=HalfStream, settings=settings, server_settings=PATIENT)
    prepare(pair)
    blocked = block(pair, CLIENT)
    if prepare is a_window_that_opens:
        pair.client.transport.resumeProducing()
    pair.run(BLOCKED_SECONDS)
    up, _ = pair.record()
    blocked.end()
    pair.server.transport.resumeProducing()
    pair.run(0.001)
    assert up.packets
    expected = {
        idle: ST_DATA,
        data_in_flight: ST_DATA,
        a_close: ST_FIN,
        a_closed_window: ST_DATA,
        a_window_that_opens: ST_STATE,
    }
    assert expected[prepare] in [packet.type for packet in up.packets]


def test_a_syn_waits_for_the_socket_too() -> None:
    """Without a timeout it is repeated with back-off."""
    scene = ScriptedServer(answer=False, timeout=None)  # type: ignore[arg-type]
    blocked = Blocked(scene.network, CLIENT)
    scene.run(BLOCKED_SECONDS)
    scene.peer.take()
    blocked.end()
    scene.run(100_000, until=lambda: bool(scene.peer.datagrams))
    assert scene.peer.take()


def test_a_half_open_connection_ends_in_time() -> None:
    scene = ScriptedClient(confirm=False)
    blocked = Blocked(scene.network, SERVER)
    scene.peer.syn(1_000, 5_000)
    scene.run(BLOCKED_SECONDS)
    assert blocked.utp.multiplexer.half_open == 0


def test_a_socket_that_another_protocol_has_filled_is_waited_for_as_well() -> None:
    """Nothing of uTP was refused then, so nobody has taken anything back."""
    pair = Pair(settings=Settings(keepalive_us=10_000_000))
    blocked = Blocked(pair.network, CLIENT)
    blocked.utp.send_foreign(b"d1:q4:pinge", (SERVER, PORT))
    assert blocked.utp._outbox._blocked
    pair.run(BLOCKED_SECONDS)
    assert blocked.rings <= 1 + STATE_REPEATS


def test_the_simulator_tells_of_timers_that_ring_for_nothing() -> None:
    network = Network(seed=1)
    reactor = network.reactor(CLIENT)

    def again() -> None:
        reactor.callLater(0, again)

    again()
    with pytest.raises(RuntimeError, match="spins: timers ring and nothing happens"):
        network.run(1)


def test_the_simulator_lets_a_conversation_at_one_moment_be() -> None:
    """Between hosts without a distance a lot may happen in no time."""

    class Echo(DatagramProtocol):
        count = 0

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.count += 1
            if self.count < 20_000:
                network.reactor(CLIENT).callLater(0, self.transport.write, datagram, addr)  # type: ignore[union-attr]

    network = Network(seed=1)
    one, other = Echo(), Echo()
    network.reactor(CLIENT).listenUDP(1, one)
    network.reactor(SERVER).listenUDP(1, other)
    one.transport.write(b"x", (SERVER, 1))  # type: ignore[union-attr]
    network.run(1)
    assert one.count + other.count == 39_999


@pytest.mark.parametrize("connections", [1, 5])
def test_every_connection_of_a_full_socket_goes_on_afterwards(connections: int) -> None:
    pair = Pair(protocol=HalfStream, settings=Settings(keepalive_us=10_000_000), server_settings=PATIENT)
    for _ in range(connections - 1):
        endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT, settings=pair.settings)
        endpoint.connect(pair.connecting)
    pair.run(5)
    blocked = block(pair, CLIENT)
    assert len(pair.connecting.made) == connections
    for stream in pair.connecting.made:
        stream.transport.write(pattern(5_000))
    pair.run(100)
    blocked.end()
    pair.run(60)
    assert [bytes(stream.received) for stream in pair.accepting.made] == [pattern(5_000)] * connections


@pytest.mark.parametrize("delay_us", [1_000, 250_000])
def test_a_fin_that_leaves_behind_the_applications_back_settles_once(delay_us: int) -> None:
    """Its stream was ended while the socket was full, and the application has gone before the FIN could leave."""
    pair = Pair(Link(delay_us=delay_us))
    port = pair.client.transport._utp.transport
    port.refusing = True
    pair.client.transport.loseWriteConnection()
    pair.server.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.client.lost))
    assert pair.server.lost == []
    rings = 0
    settle_now = UTPProtocol._settle_now

    def counted(utp: UTPProtocol) -> None:
        nonlocal rings
        rings += 1
        assert rings < MOST_RINGS
        settle_now(utp)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(UTPProtocol, "_settle_now", counted)
        port.refusing = False
        assert pair.run(10, until=lambda: bool(pair.server.lost))
    assert pair.client.lost_type is pair.server.lost_type is error.ConnectionDone


def test_a_reset_that_waited_does_not_end_the_next_attempt() -> None:
    """A server stops and listens again while its socket is full, and the peer repeats its SYN."""
    scene = ScriptedClient(confirm=False)
    blocked = Blocked(scene.network, SERVER)
    scene.peer.syn(1_000, 5_000)
    scene.run(1)
    scene.ports[0].stopListening()
    UTPServerEndpoint(scene.server_reactor, PORT).listen(scene.accepting)
    scene.run(1)
    scene.peer.syn(1_000, 5_000)
    scene.run(1)
    blocked.end()
    scene.run(1)
    (answer,) = scene.peer.take()
    assert (answer.type, answer.ack_nr) == (ST_STATE, 5_000)
