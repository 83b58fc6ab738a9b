"""What ``txutp.testing`` offers to the tests of other programs: a connected pair, and a peer driven by packets."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionLost, TimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import LoopingCall
from twisted.protocols.basic import LineReceiver

from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.testing import ST_STATE, ST_SYN, Link, Network, Pair, ScriptedPeer


class Greeter(LineReceiver):
    """Greets by name."""

    reason: BaseException | None = None

    def lineReceived(self, line: bytes) -> None:
        self.sendLine(b"hello " + line)

    def connectionLost(self, reason: object = None) -> None:
        self.reason = reason.value  # type: ignore[union-attr]


class Caller(LineReceiver):
    """Asks to be greeted."""

    answer = b""

    def connectionMade(self) -> None:
        self.sendLine(b"world")

    def lineReceived(self, line: bytes) -> None:
        self.answer = line


def pair_of(**fields: object) -> Pair:
    return Pair(Factory.forProtocol(Greeter), Factory.forProtocol(Caller), **fields)  # type: ignore[arg-type]


def test_a_pair_talks_over_its_link() -> None:
    pair = pair_of(link=Link(delay_us=40_000))
    up, down = pair.record()
    begin_us = pair.network.now_us
    assert pair.run(5, until=lambda: bool(pair.client.answer))
    assert pair.client.answer == b"hello world"
    assert pair.network.now_us - begin_us >= 40_000
    assert up.packets
    assert down.packets
    assert pair.servers == [pair.server]


def test_a_factory_that_keeps_its_protocols_and_starts_is_not_in_the_way() -> None:
    started: list[str] = []

    class Told(Factory):
        protocol = Greeter
        noisy = False

        def startFactory(self) -> None:
            started.append("server")

    factory = Told()
    pair = Pair(factory, Factory.forProtocol(Caller))
    assert started == ["server"]
    assert pair.server.factory is factory


def test_a_pair_that_cannot_connect_says_which_one() -> None:
    with pytest.raises(AssertionError, match="seed=7"):
        pair_of(link=Link(loss=1.0), seed=7)


def test_a_pair_can_be_watched_while_it_connects() -> None:
    pair = pair_of(connect=False, link=Link(loss=1.0))
    assert not pair.servers
    pair.run(60)
    (failure,) = pair.failures
    assert failure.check(TimeoutError)


def test_a_scripted_client_is_a_peer_like_others() -> None:
    network = Network(seed=1)
    made: list[Greeter] = []
    factory = Factory.forProtocol(Greeter)
    build = factory.buildProtocol
    factory.buildProtocol = lambda addr: made.append(build(addr)) or made[-1]  # type: ignore[func-returns-value, method-assign]
    UTPServerEndpoint(network.reactor("10.0.0.1"), 6881).listen(factory)
    peer = ScriptedPeer(network.reactor("10.0.0.2"), remote=("10.0.0.1", 6881))
    answer = peer.connect()
    assert answer.type == ST_STATE
    peer.data(b"world\r\n")
    network.run(0.1)
    assert b"".join(packet.data for packet in peer.take()) == b"hello world\r\n"
    peer.reset()
    network.run(0.1)
    assert isinstance(made[0].reason, ConnectionLost)


def test_a_scripted_server_accepts_and_may_stay_silent() -> None:
    network = Network(seed=1)
    peer = ScriptedPeer(network.reactor("10.0.0.1"), 6881)
    connecting = UTPClientEndpoint(network.reactor("10.0.0.2"), "10.0.0.1", 6881).connect(Factory.forProtocol(Protocol))
    network.run(0.01)
    assert peer.accept().type == ST_SYN
    assert connecting.called
    with pytest.raises(ValueError, match="expected one SYN"):
        peer.accept()


def test_a_scripted_client_of_a_host_that_does_not_listen_says_so() -> None:
    network = Network(seed=1)
    network.reactor("10.0.0.1")
    peer = ScriptedPeer(network.reactor("10.0.0.2"), remote=("10.0.0.1", 6881))
    with pytest.raises(ValueError, match="expected one STATE"):
        peer.connect()


@pytest.mark.parametrize("begin", [0, 0.04, 0.07, 1 / 3, 1_000.1])
@pytest.mark.parametrize("interval", [0.05, 0.1, 1 / 3])
def test_a_looping_call_goes_on(begin: float, interval: float) -> None:
    network = Network(seed=1)
    reactor = network.reactor("10.0.0.1")
    network.run(begin)
    rung: list[int] = []
    loop = LoopingCall(lambda: rung.append(network.now_us))
    loop.clock = reactor
    loop.start(interval)
    network.run(20 * interval)
    # What rounding makes early comes once more, a microsecond later.
    on_time = [rang for rang in rung if rang - 1 not in rung]
    assert len(on_time) in (20, 21)
    assert all(abs(rang - rung[0] - number * interval * 1_000_000) < 10 for number, rang in enumerate(on_time))
