"""SYN cookies: beyond the limit of half-open connections SYNs are answered and not remembered."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
import pytest_twisted
from twisted.internet import error, reactor

from tests.support import CLIENT, PORT, SERVER, Accepting, ScriptedClient, ScriptedPeer, Stream, pause, until
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, listenUTP
from txutp.core.cookies import EARLY, NOTHING, PROOF, SynCookies
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, Packet
from txutp.testing import Link, Network

PEER = ("10.0.0.2", 6881)
LIFE_US = 10_000_000
NONE_REMEMBERED = Settings(maximum_half_open=1)


def cookies(seed: int = 1) -> SynCookies:
    return SynCookies(random.Random(seed).randbytes)


# -- the numbers --


def test_a_cookie_depends_on_everything_that_it_stands_for_and_on_the_key() -> None:
    made = cookies().make(PEER, 1_000, 5_000, LIFE_US, 0)
    assert made == cookies().make(PEER, 1_000, 5_000, LIFE_US, LIFE_US - 1)
    others = {
        cookies(2).make(PEER, 1_000, 5_000, LIFE_US, 0),
        cookies().make(("10.0.0.3", 6881), 1_000, 5_000, LIFE_US, 0),
        cookies().make(("10.0.0.2", 6882), 1_000, 5_000, LIFE_US, 0),
        cookies().make(PEER, 1_001, 5_000, LIFE_US, 0),
        cookies().make(PEER, 1_000, 5_001, LIFE_US, 0),
        cookies().make(PEER, 1_000, 5_000, LIFE_US, LIFE_US),
    }
    assert len(others - {made}) == 6


def test_no_key_is_drawn_before_it_is_needed() -> None:
    """So that what is random in other places is the same with and without a flood."""
    drawn: list[int] = []

    def random_bytes(count: int) -> bytes:
        drawn.append(count)
        return bytes(count)

    made = SynCookies(random_bytes)
    assert not made.are_out(0)
    assert not drawn
    made.make(PEER, 1, 1, LIFE_US, 0)
    made.make(PEER, 2, 1, LIFE_US, 0)
    assert drawn == [16]


@pytest.mark.parametrize(
    ("age_us", "verdict"), [(0, PROOF), (LIFE_US, PROOF), (2 * LIFE_US - 1, PROOF), (2 * LIFE_US, NOTHING)]
)
def test_a_cookie_goes_out_of_date(age_us: int, verdict: int) -> None:
    made = cookies()
    cookie = made.make(PEER, 1_000, 5_000, LIFE_US, 0)
    assert made.judge(PEER, 1_001, 5_001, cookie - 1, LIFE_US, age_us) == verdict
    assert made.are_out(age_us) is (verdict == PROOF)


def test_only_the_exact_ack_of_the_first_packet_is_a_proof() -> None:
    made = cookies()
    cookie = made.make(PEER, 0xFFFF, 0xFFFF, LIFE_US, 0)
    assert made.judge(PEER, 0, 0, cookie - 1 & 0xFFFF, LIFE_US, 0) == PROOF
    for sequence, ack, verdict in [
        (0, 0, NOTHING),
        (0, -2, NOTHING),
        (1, -1, EARLY),
        (3, -1, EARLY),
        (-1, -1, EARLY),
        (-2, -1, NOTHING),
    ]:
        assert made.judge(PEER, 0, sequence & 0xFFFF, cookie + ack & 0xFFFF, LIFE_US, 0) == verdict


def test_a_proof_counts_once() -> None:
    made = cookies()
    cookie = made.make(PEER, 1_000, 5_000, LIFE_US, 0)
    made.spend(PEER, 1_001, 5_001, LIFE_US, 0)
    assert made.judge(PEER, 1_001, 5_001, cookie - 1, LIFE_US, LIFE_US) == NOTHING


def test_guesses_succeed_as_often_as_said() -> None:
    """Two of 65,536."""
    made = cookies()
    made.make(PEER, 1_000, 5_000, LIFE_US, LIFE_US)
    verdicts = [made.judge(PEER, 1_001, 5_001, ack, LIFE_US, LIFE_US) for ack in range(65_536)]
    assert verdicts.count(PROOF) == 2


# -- connections made of them --


def flooded(settings: Settings = NONE_REMEMBERED, protocol: type[Stream] = Stream) -> ScriptedClient:
    """Somebody else has used up the share, so nothing is remembered of a peer whose SYN was answered."""
    scene = ScriptedClient(settings=settings, protocol=protocol, confirm=False, backlog=0)
    flood = ScriptedPeer(scene.network.reactor("10.0.0.66"))
    flood.syn(7_000, 1)
    scene.run(0.001)
    peer = scene.peer
    peer.syn(1_000, 5_000)
    scene.run(0.001)
    (answer,) = peer.take()
    assert (answer.type, answer.connection_id, answer.ack_nr) == (ST_STATE, 1_000, 5_000)
    peer.send_id, peer.sequence, peer.ack = 1_001, 5_001, answer.seq_nr - 1
    assert len(scene.ports[0]._utp.multiplexer) == 1
    return scene


def first_state(scene: ScriptedClient) -> None:
    scene.peer.state()
    scene.run(0.001)


def first_data(scene: ScriptedClient) -> None:
    """libutp says nothing before."""


@pytest.mark.parametrize("first", [first_state, first_data])
def test_the_first_packet_makes_the_connection(first: object) -> None:
    scene = flooded()
    first(scene)  # type: ignore[operator]
    scene.peer.data(b"hello")
    scene.run(0.001)
    assert bytes(scene.server.received) == b"hello"
    answers = scene.peer.take()
    assert answers[-1].ack_nr == 5_001
    (data,) = scene.push(b"welcome")
    assert (data.seq_nr, data.data) == (scene.peer.ack + 1 & 0xFFFF, b"welcome")
    scene.peer.syn(1_000, 5_000)
    scene.run(0.001)
    assert scene.peer.take()[-1].seq_nr == scene.peer.ack + 1 & 0xFFFF, "the SYN-ACK is what it was"
    assert len(scene.accepting.made) == 1


def test_a_connection_may_end_with_its_first_packets() -> None:
    scene = flooded()
    scene.peer.data(b"all")
    scene.peer.fin()
    scene.run(0.001)
    assert bytes(scene.server.received) == b"all"
    assert ST_FIN in [packet.type for packet in scene.peer.take()]


def test_a_packet_that_overtakes_the_first_one_draws_no_reset() -> None:
    scene = flooded()
    scene.peer.data(b"second", seq_nr=5_002)
    scene.peer.data(b"\0", seq_nr=5_000)  # a probe
    scene.run(0.001)
    assert scene.peer.take() == []
    assert not scene.accepting.made
    scene.peer.data(b"first ", seq_nr=5_001)
    scene.peer.data(b"second", seq_nr=5_002)
    scene.run(0.001)
    assert bytes(scene.server.received) == b"first second"


@pytest.mark.parametrize("off", [-2, -1, 1, 2, 30_000])
def test_a_wrong_ack_draws_a_reset_and_no_connection(off: int) -> None:
    scene = flooded()
    scene.peer.data(b"forged", ack_nr=scene.peer.ack + off)
    scene.run(0.001)
    assert [packet.type for packet in scene.peer.take()] == [ST_RESET]
    assert not scene.accepting.made


def test_a_proof_that_is_too_late_draws_a_reset() -> None:
    scene = flooded()
    scene.run(20)
    scene.peer.data(b"late")
    scene.run(0.001)
    assert [packet.type for packet in scene.peer.take()] == [ST_RESET]
    assert not scene.accepting.made


def test_a_copy_of_the_first_packet_makes_no_second_connection() -> None:
    """Neither while there is the first one, nor when that has ended, in whatever way."""
    scene = flooded()
    scene.peer.data(b"once", seq_nr=5_001)
    scene.peer.data(b"once", seq_nr=5_001)
    scene.run(0.001)
    assert bytes(scene.server.received) == b"once"
    scene.server.transport.abortConnection()  # type: ignore[union-attr]
    scene.run(0.001)
    scene.peer.data(b"once", seq_nr=5_001)
    scene.run(1)
    assert len(scene.accepting.made) == 1
    assert scene.server.lost_type is error.ConnectionAborted


def test_without_cookies_a_good_guess_is_worth_nothing() -> None:
    """They are compared only while some are out."""
    scene = ScriptedClient(confirm=False)
    for ack in range(0, 65_536, 64):
        scene.peer.send(ST_DATA, connection_id=1_001, seq_nr=5_001, ack_nr=ack, data=b"x")
    scene.run(0.1)
    assert not scene.accepting.made
    assert not scene.ports[0]._utp.multiplexer._cookies._key


def test_a_cookie_is_no_longer_than_the_syn() -> None:
    scene = flooded()
    sent = len(Packet(ST_STATE, 0, 0, 0, 0, 0, 0).encode())
    scene.peer.syn(2_000, 5_000)
    scene.run(0.001)
    assert [len(datagram) for datagram in scene.peer.datagrams] == [sent]


def test_a_port_that_is_full_of_proven_connections_answers_no_syn() -> None:
    """The client would believe that it is connected."""
    scene = flooded(Settings(maximum_half_open=1, maximum_connections=3))
    for number in range(2):
        scene.peer.syn(2_000 + 4 * number, 5_000)
        scene.run(0.001)
        (answer,) = scene.peer.take()
        scene.peer.state(connection_id=2_001 + 4 * number, seq_nr=5_001, ack_nr=answer.seq_nr - 1)
        scene.run(0.001)
    assert len(scene.accepting.made) == 2
    scene.run(11)  # what was half-open is gone
    scene.peer.take()
    scene.peer.syn(3_000, 5_000)
    scene.run(0.001)
    (answer,) = scene.peer.take()
    scene.peer.state(connection_id=3_001, seq_nr=5_001, ack_nr=answer.seq_nr - 1)
    scene.run(0.001)
    assert len(scene.accepting.made) == 3
    scene.peer.syn(4_000, 5_000)
    scene.run(0.001)
    assert scene.peer.take() == []
    assert scene.ports[0].stats().syns_refused == 1


@pytest.mark.parametrize("forged_host", [CLIENT, "10.0.0.66"])
@pytest.mark.parametrize("loss", [0.0, 0.05])
def test_honest_clients_connect_in_a_flood(forged_host: str, loss: float) -> None:
    """4,000 forged SYNs a second, from the address of the clients or another one, on a path of a long round trip."""
    network = Network(seed=5)
    network.connect(CLIENT, SERVER, Link(delay_us=200_000, loss=loss))
    network.connect("10.0.0.66", SERVER, Link())
    accepting = Accepting()
    ports: list[object] = []
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(accepting).addCallback(ports.append)
    flood = ScriptedPeer(network.reactor("10.0.0.66"))
    flood.port._address = (forged_host, 9)
    numbers = random.Random(1)

    def forge() -> None:
        flood.syn(numbers.randrange(65_536), numbers.randrange(65_536))
        network.call_at(network.now_us + 250, forge)

    forge()
    network.run(1)
    connecting = Accepting()
    failures: list[object] = []
    for _ in range(60):
        endpoint = UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, timeout=8)
        endpoint.connect(connecting).addErrback(failures.append)
        network.run(0.02)
    network.run(4)
    for stream in connecting.made:
        stream.transport.write(b"hello")  # type: ignore[union-attr]
    network.run(10)
    assert len(connecting.made) >= 57
    assert [bytes(stream.received) for stream in accepting.made].count(b"hello") >= 57
    assert ports[0].stats().cookies_sent > 10_000  # type: ignore[attr-defined]
    assert ports[0].stats().half_open <= 1_000  # type: ignore[attr-defined]


FLOOD = """
import random, socket, struct, sys, time

forged = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
forged.bind((sys.argv[1], 0))
forged.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
numbers, began, sent = random.Random(1), time.monotonic(), 0
while (passed := time.monotonic() - began) < 30:
    while sent < passed * 4_000:
        header = struct.pack(">BBHIIIHH", 0x41, 0, numbers.randrange(65536), 1, 0, 1 << 20, numbers.randrange(65536), 0)
        forged.sendto(header, ("127.0.0.1", int(sys.argv[2])))
        sent += 1
    time.sleep(0.001)
"""

VICTIM = "127.0.0.77"


@pytest_twisted.ensureDeferred
async def test_a_flood_over_loopback_keeps_nobody_out() -> None:
    """4,000 forged SYNs a second from the address of the honest clients; a stream goes on meanwhile."""
    accepting, connecting = Accepting(), Accepting()
    settings = Settings(maximum_half_open=200)
    port = listenUTP(reactor, 0, accepting, interface="127.0.0.1", settings=settings)
    where = "127.0.0.1", port.getHost().port
    stream = await UTPClientEndpoint(reactor, *where).connect(connecting)
    flood = subprocess.Popen([sys.executable, "-c", FLOOD, VICTIM, str(where[1])])
    try:
        await until(lambda: port.stats().cookies_sent > 4_000, 20)
        stream.transport.write(bytes(1_000_000))
        clients = []
        for _ in range(20):
            endpoint = UTPClientEndpoint(reactor, *where, timeout=5, bindAddress=VICTIM)
            clients.append(await endpoint.connect(connecting))
            clients[-1].transport.write(b"hello")
        await until(lambda: [bytes(made.received) for made in accepting.made].count(b"hello") == 20, 5)
        await until(lambda: any(len(made.received) == 1_000_000 for made in accepting.made), 10)
        assert port.stats().half_open <= 200
    finally:
        flood.kill()
        flood.wait()
        for made in connecting.made:
            made.transport.abortConnection()  # type: ignore[union-attr]
        await port.stopListening()
        await pause(0.1)
