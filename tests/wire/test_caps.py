"""Rate caps: so many bytes per second and no more, in both directions, for a port and for a connection."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone

from tests.support import CLIENT, PORT, SERVER, Accepting, HalfStream, Pair, Stream
from tests.wire.test_downloads import Greedy
from tests.wire.test_transfer import pattern
from txutp import Ledbat, Settings, Shallow, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.caps import LEAST_PACKET_BYTES, OWED_SHARE
from txutp.core.packet import ST_DATA
from txutp.testing import Datagram, Link, Network, ScriptedPeer

SECOND_US = 1_000_000
CHUNK_BYTES = 1 << 20
PACKET_BYTES = 1_430  # with all headers


class Wire:
    """Counts the bytes of whole packets on a link, in each second."""

    def __init__(self, link: Link) -> None:
        self.seconds: dict[int, int] = {}
        self.dropped = 0
        link.hook = self

    def __call__(self, datagram: Datagram) -> None:
        second = datagram.sent_at_us // SECOND_US
        self.seconds[second] = self.seconds.get(second, 0) + datagram.wire_bytes

    def rates(self, first: int, last: int) -> list[int]:
        """Bytes of each second, the last one included."""
        return [self.seconds.get(second, 0) for second in range(first, last + 1)]


class Scene:
    """Connections through one listening port; ``up`` if its side sends, else the peers do.  All of them are greedy.

    The port is at SERVER; what is capped crosses ``way``.
    """

    def __init__(
        self,
        connections: int = 1,
        up: bool = True,
        settings: Settings | None = None,
        theirs: Settings | None = None,
        link: Link | None = None,
    ) -> None:
        self.network = Network(1)
        way = Link(delay_us=20_000) if link is None else link
        back = Link(delay_us=way.delay_us)
        there, here = (way, back) if up else (back, way)
        self.network.connect(SERVER, CLIENT, there, here)
        self.way, self.wire = way, Wire(way)
        self.accepting = Accepting()
        ports: list[Any] = []
        endpoint = UTPServerEndpoint(self.network.reactor(SERVER), PORT, settings=settings)
        endpoint.listen(self.accepting).addCallback(ports.append)
        self.port = ports[0]
        self.peers = [Stream() for _ in range(connections)]
        for peer in self.peers:
            connectProtocol(UTPClientEndpoint(self.network.reactor(CLIENT), SERVER, PORT, settings=theirs), peer)
        assert self.network.run(5, until=lambda: len(self.accepting.made) == connections)
        self.senders, self.receivers = (self.made, self.peers) if up else (self.peers, self.made)
        self.network.run((-self.network.now_us % SECOND_US) / SECOND_US)
        self.greedy = list(self.senders)

    @property
    def made(self) -> list[Stream]:
        return self.accepting.made

    def run(self, seconds: float) -> list[int]:
        """Let everybody send; returns the bytes of each whole second on the wire."""
        first = self.network.now_us // SECOND_US
        end_us = self.network.now_us + round(seconds * SECOND_US)
        while self.network.now_us < end_us:
            for sender in self.greedy:
                if sender.connection.sending.unsent_bytes < 2 * CHUNK_BYTES:
                    sender.transport.write(bytes(4 * CHUNK_BYTES))  # type: ignore[union-attr]
            self.network.run(min(0.1, (end_us - self.network.now_us) / SECOND_US))
            for receiver in self.receivers:
                receiver.received.clear()
        return self.wire.rates(first, self.network.now_us // SECOND_US - 1)

    def shares(self, seconds: float) -> list[float]:
        """What each connection received in this time."""
        before = [receiver.connection.bytes_received for receiver in self.receivers]
        self.run(seconds)
        return [
            receiver.connection.bytes_received - bytes_before
            for receiver, bytes_before in zip(self.receivers, before, strict=True)
        ]


def jain(shares: list[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))


def close_to(rates: list[int], cap: int, packet_bytes: int = 0) -> bool:
    """Whether each second is within 2 % of a cap, or within a packet where that is more."""
    return all(abs(rate - cap) <= max(0.02 * cap, packet_bytes) for rate in rates)


# -- exact --


@pytest.mark.parametrize(
    ("cap", "connections", "seconds"),
    [(50_000, 1, 8), (50_000, 10, 8), (50_000, 100, 8), (1_000_000, 1, 2), (1_000_000, 100, 2)],
)
def test_what_leaves_is_exact_in_every_second(cap: int, connections: int, seconds: int) -> None:
    scene = Scene(connections, settings=Settings(up_bytes_per_second=cap))
    scene.run(1)
    assert close_to(scene.run(seconds), cap)


@pytest.mark.parametrize(("connections", "congestion"), [(1, Shallow), (4, Ledbat)])
def test_fast_caps_are_exact_too(connections: int, congestion: Any) -> None:
    scene = Scene(connections, settings=Settings(up_bytes_per_second=20_000_000, congestion=congestion))
    scene.run(1)
    assert close_to(scene.run(1), 20_000_000)


@pytest.mark.parametrize(
    ("cap", "connections", "seconds"),
    [(50_000, 1, 8), (50_000, 10, 8), (50_000, 100, 5), (1_000_000, 1, 2), (1_000_000, 100, 2), (20_000_000, 4, 1)],
)
def test_what_arrives_is_exact_in_every_second(cap: int, connections: int, seconds: int) -> None:
    """The packets are those of the peers: what lies in a second differs by one, and by probes of closed windows."""
    scene = Scene(connections, up=False, settings=Settings(down_bytes_per_second=cap))
    scene.run(2 + connections * PACKET_BYTES // cap)  # each peer begins with a packet, which is paid for then
    assert close_to(scene.run(seconds), cap, PACKET_BYTES + 200)
    # probes of a closed window have one byte, and go again when it opens
    assert sum(sender.connection.sending.bytes_resent for sender in scene.senders) <= 100


@pytest.mark.parametrize("up", [True, False])
def test_ipv6_headers_count(up: bool) -> None:
    """20 bytes more in each packet."""
    server, client = "2001:db8::1", "2001:db8::2"
    network = Network(1)
    way = Link(delay_us=5_000)
    network.connect(client, server, way, Link(delay_us=5_000))
    wire = Wire(way)
    ours = Settings(up_bytes_per_second=200_000) if up else Settings()
    theirs = Settings() if up else Settings(down_bytes_per_second=200_000)
    UTPServerEndpoint(network.reactor(server), PORT, interface="::", settings=theirs).listen(Accepting())
    sender = Stream()
    connectProtocol(UTPClientEndpoint(network.reactor(client), server, PORT, settings=ours), sender)
    network.run(1)
    sender.transport.write(bytes(2_000_000))  # type: ignore[union-attr]
    network.run(4)
    assert close_to(wire.rates(2, 4), 200_000)


def test_what_a_full_socket_refuses_was_not_sent() -> None:
    scene = Scene(settings=Settings(up_bytes_per_second=1_000_000, congestion=Ledbat))
    scene.run(1)
    utp = scene.port._utp
    (port,) = [port for port in scene.network.ports.values() if port.protocol is utp]

    def refuse(refusing: bool) -> None:
        port.refusing = refusing
        if not refusing:
            utp.writable()

    for start_us in range(scene.network.now_us, scene.network.now_us + 3 * SECOND_US, 10_000):
        scene.network.call_at(start_us, lambda: refuse(True))
        scene.network.call_at(start_us + 4_000, lambda: refuse(False))
    assert close_to(scene.run(3), 1_000_000)
    assert scene.port.stats().sends_refused > 100


# -- fair --


@pytest.mark.parametrize("up", [True, False])
def test_greedy_connections_share_in_equal_parts(up: bool) -> None:
    cap = 500_000
    settings = Settings(up_bytes_per_second=cap) if up else Settings(down_bytes_per_second=cap)
    scene = Scene(20, up, settings)
    scene.run(2)
    assert jain(scene.shares(4)) >= 0.99


@pytest.mark.parametrize("up", [True, False])
def test_what_idle_connections_leave_is_used(up: bool) -> None:
    """Ten connections, of which three are greedy: three thirds."""
    cap = 300_000
    settings = Settings(up_bytes_per_second=cap) if up else Settings(down_bytes_per_second=cap)
    scene = Scene(10, up, settings)
    scene.greedy = list(scene.senders[:3])
    for sender in scene.senders[3:]:
        sender.transport.write(bytes(20_000))  # type: ignore[union-attr]
    scene.run(4)
    first = scene.network.now_us // SECOND_US
    shares = scene.shares(4)
    assert close_to(scene.wire.rates(first, first + 3), cap)
    assert jain(shares[:3]) >= 0.99
    assert sum(shares[3:]) == 0


def test_unequal_paths_and_controllers_share_too() -> None:
    """A window that is too small for its share at first grows, although others always wait for the cap."""
    network = Network(1)
    accepting = Accepting()
    settings = Settings(up_bytes_per_second=300_000)
    UTPServerEndpoint(network.reactor(SERVER), PORT, settings=settings).listen(accepting)
    receivers = []
    for number, delay_us in enumerate((1_000, 20_000, 100_000)):
        host = f"10.0.1.{number}"
        network.connect(SERVER, host, Link(delay_us=delay_us), Link(delay_us=delay_us))
        for _ in range(3):
            receivers.append(Stream())
            connectProtocol(UTPClientEndpoint(network.reactor(host), SERVER, PORT), receivers[-1])
    network.run(1)
    for sender in accepting.made:
        sender.transport.write(bytes(4 * CHUNK_BYTES))  # type: ignore[union-attr]
    network.run(8)
    before = [receiver.connection.bytes_received for receiver in receivers]
    network.run(5)
    shares = [r.connection.bytes_received - b for r, b in zip(receivers, before, strict=True)]
    assert jain([float(share) for share in shares]) >= 0.99


# -- of the port and of each connection --


@pytest.mark.parametrize("up", [True, False])
@pytest.mark.parametrize(("connections", "each"), [(3, 60_000), (10, 30_000)])
def test_caps_of_the_port_and_of_each_connection(up: bool, connections: int, each: int) -> None:
    """300 kB/s for all, 60 kB/s for each: three connections have 60 kB/s each, and ten have 30."""
    if up:
        settings = Settings(up_bytes_per_second=300_000, connection_up_bytes_per_second=60_000)
    else:
        settings = Settings(down_bytes_per_second=300_000, connection_down_bytes_per_second=60_000)
    scene = Scene(connections, up, settings)
    scene.run(2)
    first = scene.network.now_us // SECOND_US
    shares = scene.shares(3)
    assert close_to(scene.wire.rates(first, first + 2), connections * each, PACKET_BYTES)
    assert jain(shares) >= 0.998


@pytest.mark.parametrize("up", [True, False])
def test_a_low_cap_beside_greedy_connections_is_used(up: bool) -> None:
    """Its waits for the port's cap do not add to those for its own; what it leaves is used, and its window stays."""
    cap = 100_000
    scene = Scene(3, up, Settings(up_bytes_per_second=cap) if up else Settings(down_bytes_per_second=cap))
    slow: Any = scene.made[0].transport
    slow.setRateLimit(**{"up" if up else "down": 20_000})
    scene.run(2)
    first = scene.network.now_us // SECOND_US
    window_bytes = scene.made[0].connection.sending.window_bytes
    shares = scene.shares(4)
    assert close_to(scene.wire.rates(first, first + 3), cap, PACKET_BYTES)
    packet_bytes = slow.stats().pmtu if up else PACKET_BYTES
    assert shares[0] == pytest.approx(4 * 20_000 * (1 - 48 / packet_bytes), rel=0.03)
    assert shares[1] == pytest.approx(shares[2], rel=0.05)
    assert scene.made[0].connection.sending.window_bytes == window_bytes


def test_a_clients_cap_is_of_its_own_connection() -> None:
    """Clients share a UDP port, and not their caps."""
    network = Network(1)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000, rate_bytes_per_second=1_000_000), Link(delay_us=5_000))
    accepting = Accepting()
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(accepting)
    capped, other = Stream(), Stream()
    for stream, settings in ((capped, Settings(up_bytes_per_second=100_000)), (other, Settings())):
        connectProtocol(UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, settings=settings), stream)
    network.run(1)
    assert capped.transport.getHost() == other.transport.getHost()  # type: ignore[union-attr]
    for stream in (capped, other):
        stream.transport.write(bytes(4 * CHUNK_BYTES))  # type: ignore[union-attr]
    network.run(3)
    first, second = (made.connection.bytes_received for made in accepting.made)
    assert first == pytest.approx(3 * 100_000, rel=0.06)
    assert second > 2_000_000
    assert other.connection.sending.cap is None


# -- changed while running --


@pytest.mark.parametrize("up", [True, False])
def test_a_ports_cap_changes_while_data_flows(up: bool) -> None:
    """Set, lowered, raised, and lifted; the link carries 400 kB/s."""
    scene = Scene(3, up, link=Link(delay_us=20_000, rate_bytes_per_second=400_000, queue_bytes=40_000))
    direction = "up" if up else "down"
    scene.run(2)
    for cap in (200_000, 40_000, 100_000):
        scene.port.setRateLimit(**{direction: cap})
        scene.run(1)
        assert close_to(scene.run(2), cap, PACKET_BYTES), cap
    assert getattr(scene.port.stats(), f"{direction}_limit") == 100_000
    scene.port.setRateLimit()
    scene.run(4)
    assert sum(scene.shares(1)) > 340_000
    assert getattr(scene.port.stats(), f"{direction}_limit") is None
    for made in scene.made:
        assert made.connection.sending.cap is None
        assert made.connection.intake is None


@pytest.mark.parametrize("up", [True, False])
def test_a_connections_cap_changes_while_data_flows(up: bool) -> None:
    scene = Scene(2, up, link=Link(delay_us=20_000, rate_bytes_per_second=400_000, queue_bytes=40_000))
    direction = "up" if up else "down"
    transport: Any = scene.made[0].transport
    scene.run(2)
    transport.setRateLimit(**{direction: 100_000})
    scene.run(1)
    shares = scene.shares(2)
    assert shares[0] == pytest.approx(200_000 * 1_382 / 1_430, rel=0.03)
    assert shares[1] > 400_000
    transport.setRateLimit()
    scene.run(6)
    assert scene.shares(2)[0] > 250_000
    assert transport.stats().up_limit is None


def test_packets_are_small_under_a_small_cap_only() -> None:
    scene = Scene(settings=Settings(up_bytes_per_second=10_000))
    transport: Any = scene.made[0].transport
    scene.run(5)
    assert transport.stats().pmtu == LEAST_PACKET_BYTES
    scene.port.setRateLimit(up=1_000_000)
    scene.run(1)
    assert transport.stats().pmtu >= PACKET_BYTES


@pytest.mark.parametrize("wrong", [0, 99, -5])
def test_a_rate_that_cannot_be_is_refused_at_once(wrong: int) -> None:
    pair = Pair()
    for limit in (pair.ports[0].setRateLimit, pair.client.transport.setRateLimit):
        with pytest.raises(
            ValueError, match=f"up is at least 100 bytes per second, or None without a cap, not {wrong}"
        ):
            limit(up=wrong)
        with pytest.raises(
            TypeError, match="down is a whole number of bytes per second, or None without a cap, not '1M'"
        ):
            limit(down="1M")
    with pytest.raises(ValueError, match="down_bytes_per_second is at least 100, not"):
        Settings(down_bytes_per_second=wrong)
    with pytest.raises(TypeError, match="up_bytes_per_second is a whole number or None"):
        Settings(up_bytes_per_second=1.5e6)  # type: ignore[arg-type]


def test_a_cap_on_a_connection_that_has_ended_changes_nothing() -> None:
    pair = Pair()
    transport: Any = pair.client.transport
    transport.loseConnection()
    pair.run(5)
    transport.setRateLimit(up=1_000)
    assert transport.stats().up_limit is None


# -- how it limits --


def test_waits_for_the_cap_are_no_round_trips_and_no_losses() -> None:
    """And the window does not grow while the cap is the limit."""
    scene = Scene(settings=Settings(up_bytes_per_second=100_000))
    scene.run(3)
    stats = scene.made[0].transport.stats()  # type: ignore[union-attr]
    window_bytes = stats.cwnd
    scene.run(5)
    stats = scene.made[0].transport.stats()  # type: ignore[union-attr]
    assert stats.rtt == pytest.approx(40, abs=3)
    assert stats.timeouts == stats.segs_retrans == 0
    assert stats.cwnd == window_bytes
    assert 6_000 < stats.held < scene.network.now_us / 1_000
    assert stats.up_limit == 100_000


def test_losses_under_a_cap_are_repaired_within_it() -> None:
    """What is sent again counts, and waits; that it waited is no time-out."""
    scene = Scene(4, settings=Settings(up_bytes_per_second=100_000), link=Link(delay_us=20_000, loss=0.03))
    scene.run(1)
    assert all(rate <= 102_000 for rate in scene.run(10))
    for made in scene.made:
        stats = made.transport.stats()  # type: ignore[union-attr]
        assert stats.segs_retrans > 0
        assert stats.timeouts <= 1


def test_libutp_like_senders_slow_down_and_lose_nothing() -> None:
    """They would fill the queue of this link, and lose packets; below the cap it stays empty."""
    link = Link(delay_us=20_000, rate_bytes_per_second=600_000, queue_bytes=30_000)
    scene = Scene(5, up=False, theirs=Settings(congestion=Greedy), link=link)
    waits_us: list[float] = []

    def sample() -> None:
        waits_us.append(scene.network.wait_us(link))
        scene.network.call_at(scene.network.now_us + 5_000, sample)

    sample()
    scene.run(3)
    assert sorted(waits_us)[len(waits_us) // 2] > 10_000

    scene.port.setRateLimit(down=300_000)
    scene.run(2)
    waits_us.clear()
    dropped = link.dropped
    rates = scene.run(4)
    assert close_to(rates, 300_000)
    assert (link.dropped - dropped) / (sum(rates) / PACKET_BYTES) <= 0.005
    assert sorted(waits_us)[len(waits_us) * 95 // 100] < 10_000


def test_acks_do_not_wait_and_leave_room_for_data() -> None:
    """A download needs more acks than the small cap on what leaves allows; some data leaves all the same."""
    pair = Pair(Link(delay_us=10_000), settings=Settings(up_bytes_per_second=2_000), server_settings=Settings())
    pair.server.transport.write(bytes(8 * CHUNK_BYTES))
    pair.client.transport.write(bytes(100_000))
    pair.run(4)
    assert len(pair.client.received) == 8 * CHUNK_BYTES
    before = len(pair.server.received)
    pair.run(4)
    assert before > 0.5 * (1 - OWED_SHARE) * 4 * 2_000
    assert len(pair.server.received) > before


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_very_small_cap_completes(direction: str) -> None:
    """2 kB/s, and 20 kB with a close right behind them; then the answer."""
    pair = Pair(
        Link(delay_us=20_000, loss=0.02),
        protocol=HalfStream,
        settings=Settings(**{f"{direction}_bytes_per_second": 2_000}),
        server_settings=Settings(),
    )
    content = pattern(20_000)
    pair.client.transport.write(content)
    pair.client.transport.loseWriteConnection()
    assert pair.run(60, until=lambda: bool(pair.server.read_lost))
    assert bytes(pair.server.received) == content
    pair.server.transport.write(content)
    pair.server.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.client.read_lost))
    assert bytes(pair.client.received) == content
    pair.client.transport.loseConnection()
    assert pair.run(60, until=lambda: bool(pair.client.lost and pair.server.lost))
    assert pair.client.lost_type is pair.server.lost_type is ConnectionDone


@pytest.mark.parametrize("up", [True, False])
def test_closing_under_a_cap_loses_nothing(up: bool) -> None:
    cap = 40_000
    settings = Settings(up_bytes_per_second=cap) if up else Settings(down_bytes_per_second=cap)
    scene = Scene(10, up, settings)
    content = pattern(40_000)
    for sender in scene.senders:
        sender.transport.write(content)  # type: ignore[union-attr]
        sender.transport.loseConnection()  # type: ignore[union-attr]
    assert scene.network.run(30, until=lambda: all(peer.lost for peer in scene.senders + scene.receivers))
    assert all(bytes(receiver.received) == content for receiver in scene.receivers)
    assert {stream.lost_type for stream in scene.senders + scene.receivers} == {ConnectionDone}


@pytest.mark.parametrize("up", [True, False])
def test_connections_that_end_in_the_row_hold_nobody_up(up: bool) -> None:
    cap = 50_000
    settings = Settings(up_bytes_per_second=cap) if up else Settings(down_bytes_per_second=cap)
    scene = Scene(20, up, settings)
    scene.run(2)
    for sender in scene.senders[1:]:
        sender.transport.abortConnection()  # type: ignore[union-attr]
    scene.greedy = list(scene.senders[:1])
    scene.senders, scene.receivers = scene.senders[:1], scene.receivers[:1]
    scene.run(1)
    assert close_to(scene.run(3), cap, PACKET_BYTES)
    rates = scene.port._utp.multiplexer.rates
    assert len((rates.up if up else rates.down)._row) <= 1


@pytest.mark.parametrize("busy", [False, True])
def test_a_peer_that_is_gone_is_noticed_under_a_cap(busy: bool) -> None:
    """While only the FIN is on its way, and while others use up the cap as well."""
    scene = Scene(3, settings=Settings(up_bytes_per_second=20_000))
    leaving = scene.made[0]
    scene.greedy = list(scene.made[1:]) if busy else []
    gone = leaving.connection.receive_id, leaving.connection.send_id
    leaving.transport.write(bytes(2_000))  # type: ignore[union-attr]
    scene.run(1)  # so that a round trip is known, and the FIN is probed

    def lose(datagram: Datagram) -> None:
        packet = datagram.packet
        datagram.dropped = packet is not None and packet.connection_id in gone

    scene.way.hook = scene.network.link(CLIENT, SERVER).hook = lose
    leaving.transport.loseConnection()  # type: ignore[union-attr]
    connections = scene.port._utp.multiplexer
    scene.run(90)
    assert leaving.lost
    assert len(connections) == 2


def test_a_cap_below_the_keepalives() -> None:
    """Ten connections that say 49 bytes each second, capped to 100 bytes: they stay, no timer spins, data arrives."""
    settings = Settings(keepalive_us=SECOND_US, up_bytes_per_second=100, down_bytes_per_second=100)
    scene = Scene(10, settings=settings, theirs=Settings(keepalive_us=SECOND_US))
    sent = scene.way.sent
    scene.made[0].transport.write(b"hello")  # type: ignore[union-attr]
    scene.network.run(120)
    assert not any(stream.lost for stream in scene.made + scene.peers)
    assert bytes(scene.peers[0].received) == b"hello"
    assert scene.way.sent - sent < 120 * 10 * 3


def test_headers_of_small_packets_count_on_arrival() -> None:
    """Each byte leaves in a packet of its own while the window has room: the window has to pause for that."""
    up = Link(delay_us=10_000)
    wire = Wire(up)
    pair = Pair(up, Link(delay_us=10_000), settings=Settings(), server_settings=Settings(down_bytes_per_second=10_000))
    pair.client.transport.setTcpNoDelay(True)
    for _ in range(16_000):
        pair.client.transport.write(b"x")
        pair.run(0.001)
    assert 0.5 * 160_000 < sum(wire.rates(0, 15)) < 1.5 * 160_000
    assert pair.run(10, until=lambda: len(pair.server.received) == 16_000)


def test_forged_syns_do_not_use_up_the_cap() -> None:
    """Half-open connections have a window, and draw nothing."""
    scene = Scene(1, up=False, settings=Settings(down_bytes_per_second=100_000))
    scene.run(2)
    attacker = ScriptedPeer(scene.network.reactor("10.0.0.9"), remote=(SERVER, PORT))
    scene.network.connect("10.0.0.9", SERVER, Link(delay_us=5_000), Link(delay_us=5_000))
    for number in range(900):
        at_us = scene.network.now_us + number * 3_000
        scene.network.call_at(at_us, lambda number=number: attacker.syn(2 * number + 1, 1))  # type: ignore[misc]
    assert close_to(scene.run(3), 100_000, PACKET_BYTES)
    assert scene.port.stats().half_open > 400


def test_a_window_update_that_is_lost_comes_again() -> None:
    pair = Pair(Link(delay_us=10_000), settings=Settings(), server_settings=Settings(down_bytes_per_second=20_000))
    pair.client.transport.write(bytes(200_000))
    pair.run(3)
    before = len(pair.server.received)
    pair.down.loss = 1.0
    pair.run(0.3)
    pair.down.loss = 0.0
    pair.run(4)
    assert len(pair.server.received) - before > 60_000


def test_no_timer_spins_under_a_cap() -> None:
    """Each packet costs few rings, whoever waits."""
    scene = Scene(50, settings=Settings(up_bytes_per_second=200_000))
    scene.run(1)
    rings = 0
    utp = scene.port._utp
    on_timer = utp._on_timer

    def counted() -> None:
        nonlocal rings
        rings += 1
        on_timer()

    utp._on_timer = counted
    sent = scene.way.sent
    scene.run(3)
    assert rings <= 4 * (scene.way.sent - sent)


def test_without_caps_there_is_nothing() -> None:
    pair = Pair()
    assert pair.client.connection.sending.cap is None
    assert pair.server.connection.intake is None
    stats = pair.server.transport.stats()
    assert (stats.up_limit, stats.down_limit, stats.held) == (None, None, 0)


def test_the_first_packet_tells_a_capped_window() -> None:
    """A peer does not send a megabyte before it hears of the cap."""
    windows: list[int] = []

    def see(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is not None and packet.type != ST_DATA:
            windows.append(packet.wnd_size)

    back = Link(delay_us=10_000, hook=see)
    pair = Pair(
        Link(delay_us=10_000), back, settings=Settings(), server_settings=Settings(down_bytes_per_second=50_000)
    )
    pair.client.transport.write(bytes(100_000))
    pair.run(1)
    assert max(windows) < 20_000
