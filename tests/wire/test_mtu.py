"""The search for the path's MTU: padding is risked, never bytes, and the loss of a probe says nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import CLIENT, SERVER, Pair, ScriptedClient, ScriptedPeer
from tests.wire.test_transfer import SEGMENT, pattern
from txutp import Ledbat, Settings
from txutp.core.flow import WINDOW_DATAGRAMS
from txutp.core.mtu import (
    CLOSE_ENOUGH_BYTES,
    MAXIMUM_PROBES,
    MAXIMUM_QUESTIONS,
    QUESTION_US,
    RAISE_US,
    MtuSearch,
)
from txutp.core.packet import (
    EXTENSION_BITS,
    HEADER_BYTES,
    LARGE_WANTED,
    LARGE_WELCOME,
    LEAST_PADDING_BYTES,
    NO_EXTENSION,
    SELECTIVE_ACK,
    ST_DATA,
    ST_STATE,
    ST_SYN,
    Packet,
    encode_bits,
    encode_padding,
    encode_selective_ack,
    parse_extensions_untrusted,
)
from txutp.core.parts import PARTS_WANTED
from txutp.testing import Datagram, Link

START = 1_402
ETHERNET = 1_472  # 1500 without the headers of IPv4 and UDP
ANY = 1 << 20  # no limit of the peer's window
FIXED = Settings(maximum_datagram_bytes=1_000)


# -- the search alone --


def search(path_bytes: int, largest_bytes: int, limit_bytes: int = ANY) -> tuple[MtuSearch, int]:
    """A search on a path that carries ``path_bytes``; gives it and how many probes it took."""
    found = MtuSearch(START, largest_bytes, largest_bytes, True)
    probes = 0
    while True:
        size = found.next_probe_bytes(0, limit_bytes)
        if not size:
            return found, probes
        probes += 1
        assert found.passed_bytes < size <= min(largest_bytes, limit_bytes)
        assert not found.next_probe_bytes(0, ANY), "one at a time"
        if size <= path_bytes:
            found.on_passed()
        else:
            found.on_lost()


def test_the_mtu_of_the_interface_is_tried_first() -> None:
    found, probes = search(ETHERNET, ETHERNET)
    assert (found.passed_bytes, probes) == (ETHERNET, 1)


@pytest.mark.parametrize("path_bytes", [1_402, 1_430, 1_464, 4_000, 8_000, 8_971])
def test_any_path_is_found(path_bytes: int) -> None:
    found, probes = search(path_bytes, 8_972)
    assert path_bytes - CLOSE_ENOUGH_BYTES <= found.passed_bytes <= max(path_bytes, START)
    assert probes < 40


@pytest.mark.parametrize("path_bytes", [1_464, 8_971, 15_000, 16_000])
def test_a_path_that_takes_less_than_the_limit_is_found_too(path_bytes: int) -> None:
    """The limit is a quarter of the peer's window, and is no reason to stop below it."""
    found, probes = search(path_bytes, 65_000, 16_384)
    assert path_bytes - CLOSE_ENOUGH_BYTES <= found.passed_bytes <= path_bytes
    assert probes < 40


def test_a_single_loss_may_be_any_loss() -> None:
    found = MtuSearch(START, ETHERNET, ETHERNET, True)
    for _ in range(MAXIMUM_PROBES - 1):
        assert found.next_probe_bytes(0, ANY) == ETHERNET
        found.on_lost()
    assert found.next_probe_bytes(0, ANY) == ETHERNET
    found.on_passed()
    assert found.passed_bytes == ETHERNET


def test_a_probe_that_is_certainly_too_large_is_not_repeated() -> None:
    found = MtuSearch(START, 8_972, 8_972, True)
    found.next_probe_bytes(0, ANY)
    found.on_lost(certain=True)
    assert found.next_probe_bytes(0, ANY) < 8_972


def test_a_router_tells_the_size_and_cannot_tell_nonsense() -> None:
    found = MtuSearch(START, 8_972, 8_972, True)
    assert found.next_probe_bytes(0, ANY) == 8_972
    for nonsense in (0, 100, START - 1, 9_000):
        found.on_hint(nonsense)
    found.on_hint(1_500)
    found.on_lost()
    assert found.next_probe_bytes(0, ANY) == 1_500
    found.on_passed()
    assert not found.next_probe_bytes(0, ANY)


def test_the_search_begins_again_after_ten_minutes() -> None:
    """RFC 8899: PMTU_RAISE_TIMER, 600 seconds."""
    found, _ = search(1_430, ETHERNET)
    assert not found.next_probe_bytes(RAISE_US - 1, ANY)
    assert found.next_probe_bytes(RAISE_US, ANY) == ETHERNET


def test_before_the_peer_has_shown_that_it_reads_extensions_it_is_asked_now_and_then() -> None:
    found = MtuSearch(START, ETHERNET, ETHERNET, False)
    asked_us = []
    for now_us in range(0, 10_000_000, 100_000):
        assert not found.next_probe_bytes(now_us, ANY)
        if found.question_due:
            asked_us.append(now_us)
            found.question_due = False
    assert asked_us == [at * QUESTION_US for at in range(MAXIMUM_QUESTIONS)]
    found.peer_reads_extensions = True
    assert found.next_probe_bytes(10_000_000, ANY) == ETHERNET
    assert not found.question_due


def test_a_limit_is_kept_and_little_more_is_not_worth_a_probe() -> None:
    found = MtuSearch(START, 65_000, 65_000, True)
    assert not found.next_probe_bytes(0, 2 * START - 1)
    assert found.next_probe_bytes(0, 30_000) == 30_000
    found.on_passed()
    assert not found.next_probe_bytes(0, 59_999)
    assert found.next_probe_bytes(0, 60_000) == 60_000
    found.on_passed()
    assert found.next_probe_bytes(0, 65_000) == 65_000


def test_large_frames_need_a_welcome() -> None:
    found = MtuSearch(START, ETHERNET, 8_972, True)
    assert found.next_probe_bytes(0, ANY) == ETHERNET
    found.on_welcome()
    found.on_passed()
    assert found.next_probe_bytes(0, ANY) == 8_972


@pytest.mark.parametrize("size", [*range(LEAST_PADDING_BYTES, 800), 7_570, 63_598])
def test_padding_has_any_size_and_is_a_proper_chain(size: int) -> None:
    packet = bytes(HEADER_BYTES) + encode_padding(size) + b"payload"
    assert parse_extensions_untrusted(packet, SELECTIVE_ACK) == (HEADER_BYTES + size, 0, LARGE_WANTED)
    for cut in (1, size // 2, size - 1):
        assert parse_extensions_untrusted(packet[: HEADER_BYTES + cut], SELECTIVE_ACK)[0] < 0, "a cut one is noticed"


# -- on a path --


def transfer(pair: Pair, total_bytes: int = 3_000_000) -> list[Datagram]:
    """Send so much, and see that it arrives; gives the client's datagrams."""
    up, _ = pair.record()
    data = pattern(total_bytes)
    before = len(pair.server.received)
    pair.client.transport.write(data)
    assert pair.run(60, until=lambda: len(pair.server.received) == before + total_bytes), pair.network
    assert bytes(pair.server.received[before:]) == data
    return up.datagrams


def path(mtu_bytes: int, interface_bytes: int | None = 1_500, settings: Settings | None = None) -> Pair:
    """A path of 20 ms and 80 Mbit/s that drops larger packets without a word."""
    link = Link(delay_us=10_000, rate_bytes_per_second=10_000_000, queue_bytes=3_000_000, mtu_bytes=mtu_bytes)
    return Pair(
        link,
        Link(delay_us=10_000),
        settings=Settings() if settings is None else settings,
        interface_mtu_bytes=interface_bytes,
    )


class Narrow(Ledbat):
    """Chooses a window that holds segments of the usual size, and less than one of the largest."""

    window_bytes = 30_000  # type: ignore[assignment]


class Narrowing(Narrow):
    """The same, but only after the probe has found out that the largest ones pass."""

    @property
    def window_bytes(self) -> int:  # type: ignore[override]
        return 1 << 20 if self.segment_bytes < 10_000 else 30_000


class Tiny(Narrow):
    """Chooses less than one segment from the beginning."""

    window_bytes = 100  # type: ignore[assignment]


@pytest.mark.parametrize("controller", [Narrow, Narrowing, Tiny])
def test_a_window_of_less_than_a_segment_is_no_end(controller: type[Ledbat]) -> None:
    """With nothing in flight no ack would come to raise it, so one segment may always leave."""
    pair = path(65_536, 65_536, Settings(congestion=controller))
    transfer(pair, 6_000_000 if controller is Narrowing else 1_000_000)
    assert (segment_of(pair) > 30_000) is (controller is Narrowing)


def segment_of(pair: Pair) -> int:
    return pair.client.connection.sending.segment_bytes


@pytest.mark.parametrize(
    ("interface_bytes", "expected"), [(1_500, 1_472), (9_000, 8_972), (65_536, 65_000), (1_280, 1_252)]
)
def test_datagrams_grow_to_what_the_interface_takes(interface_bytes: int, expected: int) -> None:
    """Jumbo frames and the loopback interface too: our peer is one of us."""
    pair = path(interface_bytes, interface_bytes)
    sent = transfer(pair, 8_000_000)
    assert segment_of(pair) == expected - HEADER_BYTES
    assert max(len(datagram.data) for datagram in sent) == expected
    assert pair.client.transport.stats().pmtu == expected + 28


@pytest.mark.parametrize("window_bytes", [40_000, 127_795, 300_000])
def test_datagrams_stay_so_small_that_several_fit_the_peers_window(window_bytes: int) -> None:
    """With a stock socket buffer two of 65,000 bytes would not fit: each would wait for the ack of the other."""
    pair = path(65_536, 65_536, Settings(receive_buffer_bytes=window_bytes))
    sent = transfer(pair, 4_000_000)
    largest_bytes = max(len(datagram.data) for datagram in sent)
    assert 2 * START < largest_bytes <= window_bytes // WINDOW_DATAGRAMS
    assert largest_bytes == segment_of(pair) + HEADER_BYTES


@pytest.mark.parametrize("mtu_bytes", [1_430, 1_450, 1_492])
def test_a_path_that_drops_large_packets_silently_costs_nothing_but_probes(mtu_bytes: int) -> None:
    pair = path(mtu_bytes, settings=Settings(congestion=Ledbat))
    sent = transfer(pair)
    found = segment_of(pair) + HEADER_BYTES + 28
    assert mtu_bytes - CLOSE_ENOUGH_BYTES <= found <= mtu_bytes
    assert pair.up.dropped == sum(datagram.wire_bytes > mtu_bytes for datagram in sent) > 0
    sending = pair.client.connection.sending
    assert sending.total_timeouts == 0
    assert sending.losses == 0, "a lost probe is no congestion"
    assert sending.controller is not None
    assert sending.controller.slow_start or sending.controller.window_bytes > 100 * SEGMENT


def test_a_lost_probe_goes_again_as_the_same_packet_without_padding() -> None:
    """BEP 29: what has been sent once under a number is what that number means."""
    pair = path(1_450)
    sent = [datagram for datagram in transfer(pair) if datagram.packet is not None and datagram.packet.data]
    (first, *_) = [datagram for datagram in sent if datagram.wire_bytes > 1_450]
    assert first.packet is not None
    again = [
        datagram
        for datagram in sent
        if datagram is not first and datagram.packet is not None and datagram.packet.seq_nr == first.packet.seq_nr
    ]
    assert len(again) == 1
    assert again[0].packet is not None
    assert again[0].packet.data == first.packet.data
    assert len(again[0].data) == START


def test_without_knowledge_of_the_interface_nothing_is_probed() -> None:
    pair = path(1_500, interface_bytes=None)
    assert max(len(datagram.data) for datagram in transfer(pair)) == START


def test_a_size_that_the_user_set_is_kept() -> None:
    pair = path(1_500, settings=FIXED)
    assert max(len(datagram.data) for datagram in transfer(pair)) == 1_000


def test_little_talk_is_no_reason_to_probe_or_to_ask() -> None:
    pair = path(1_500)
    for _ in range(50):
        sent = transfer(pair, 2_000)
        assert not any(datagram.data[1] for datagram in sent)
    assert segment_of(pair) == START - HEADER_BYTES


def test_no_question_leaves_where_no_larger_datagram_is_possible() -> None:
    for pair in (path(1_500, interface_bytes=None), path(1_400, 1_400), path(1_500, settings=FIXED)):
        assert not any(datagram.data[1] for datagram in transfer(pair))


def talk(
    scene: ScriptedClient, total_bytes: int, show: Callable[[ScriptedPeer], None], show_at_bytes: int
) -> list[bytes]:
    """Our server sends so much to a peer that has an interface like ours and acknowledges everything in plain STATEs.

    The peer says ``show`` once, as soon as it has so much.  Gives all datagrams that it got.
    """
    scene.network.interface_mtu_bytes = 9_000
    peer = scene.peer
    data = pattern(total_bytes)
    scene.server.transport.write(data)  # type: ignore[union-attr]
    stream = bytearray()
    got: list[bytes] = []
    shown = False
    while len(stream) < total_bytes:
        if not shown and len(stream) >= show_at_bytes:
            shown = True
            show(peer)
        scene.run(0.02)
        datagrams = list(peer.datagrams)
        assert datagrams, "it does not go on"
        for packet in peer.take():
            if packet.type == ST_DATA:
                assert packet.seq_nr == peer.ack + 1 & 0xFFFF
                peer.ack = packet.seq_nr
                stream += packet.data
        got += datagrams
        peer.state()
    assert bytes(stream) == data
    return got


def extended(datagrams: list[bytes], kind: int) -> list[bytes]:
    """Those of one type that have extensions."""
    return [datagram for datagram in datagrams if datagram[0] == kind << 4 | 1 and datagram[1] != NO_EXTENSION]


def keep_silent(peer: ScriptedPeer) -> None:
    """A peer that sends no extension."""


def with_extension(chain: bytes, first: int, kind: int = ST_STATE) -> Callable[[ScriptedPeer], None]:
    """A peer that sends a packet with these extensions."""

    def show(peer: ScriptedPeer) -> None:
        header = bytearray(Packet(kind, peer.send_id, 1, 1, peer.window, peer.sequence, peer.ack).encode())
        header[1] = first
        peer.sequence += kind == ST_DATA
        peer.send_bytes(bytes(header) + chain + (b"payload" if kind == ST_DATA else b""))

    return show


SHOWS = {
    "an empty selective ack": with_extension(encode_selective_ack(0), SELECTIVE_ACK),
    "a selective ack without bytes": with_extension(b"\0\0", SELECTIVE_ACK),
    "a selective ack in DATA": with_extension(encode_selective_ack(0), SELECTIVE_ACK, ST_DATA),
    "extension bits": with_extension(encode_bits(bytes(8)), EXTENSION_BITS),
    "a selective ack behind a stranger": with_extension(bytes((SELECTIVE_ACK, 1, 0)) + encode_selective_ack(0), 200),
}


def test_a_peer_that_shows_no_extension_gets_none_in_its_data() -> None:
    """Some peers take all that follows the header for the stream; they never see a byte there that is not of it."""
    scene = ScriptedClient(settings=Settings(congestion=Ledbat))
    got = talk(scene, 3_000_000, keep_silent, 0)
    assert extended(got, ST_DATA) == []
    assert max(map(len, got)) == START
    scene.run(5)
    asked = extended(got + scene.peer.datagrams, ST_STATE)
    assert 1 <= len(asked) <= MAXIMUM_QUESTIONS
    assert {datagram[HEADER_BYTES:] for datagram in asked} == {encode_selective_ack(0)}


@pytest.mark.parametrize("show_at_bytes", [0, 500_000], ids=["at once", "in the middle"])
@pytest.mark.parametrize("how", SHOWS)
def test_a_peer_that_shows_an_extension_gets_probes(how: str, show_at_bytes: int) -> None:
    scene = ScriptedClient(settings=Settings(congestion=Ledbat))
    got = talk(scene, 3_000_000, SHOWS[how], show_at_bytes)
    padded = extended(got, ST_DATA)
    assert len(padded) == 1
    assert max(map(len, got)) == len(padded[0]) == ETHERNET
    before = got[: got.index(padded[0])]
    assert sum(len(datagram) - HEADER_BYTES for datagram in before if datagram[0] == 1) >= show_at_bytes


def test_a_syn_with_extension_bits_shows_it_too() -> None:
    """Old versions of uTorrent say nothing of it later."""
    scene = ScriptedClient(settings=Settings(congestion=Ledbat), confirm=False)
    peer = scene.peer
    syn = bytearray(Packet(ST_SYN, 1_000, 1, 0, 0, 5_000, 0).encode())
    syn[1] = EXTENSION_BITS
    peer.send_bytes(bytes(syn) + encode_bits(bytes(8)))
    scene.run(0.001)
    (answer,) = peer.take()
    assert answer.type == ST_STATE
    assert answer.selective_ack is None
    scene.handshake()
    assert len(extended(talk(scene, 3_000_000, keep_silent, 0), ST_DATA)) == 1


def test_a_packet_that_does_not_count_shows_nothing() -> None:
    """Anyone can send a datagram with a foreign address; its ack gives it away."""

    def forge(peer: ScriptedPeer) -> None:
        peer.state(ack_nr=peer.ack + 5_000, selective_ack=0)

    scene = ScriptedClient(settings=Settings(congestion=Ledbat))
    assert extended(talk(scene, 1_000_000, forge, 100_000), ST_DATA) == []


def test_strangers_get_no_frames_larger_than_ethernet() -> None:
    """A peer that reads extensions, and does not say that larger frames are welcome."""
    scene = ScriptedClient(settings=Settings(congestion=Ledbat))
    got = talk(scene, 2_000_000, SHOWS["an empty selective ack"], 0)
    assert max(map(len, got)) == ETHERNET


@pytest.mark.parametrize("sender", ["client", "server"])
def test_two_of_us_show_it_to_each_other_before_the_first_probe(sender: str) -> None:
    """One end asks because it has much to send, the other answers; a path without losses needs nothing else."""
    pair = path(9_000, 9_000)
    up, down = pair.record()
    there, back = (up, down) if sender == "client" else (down, up)
    source, sink = (pair.client, pair.server) if sender == "client" else (pair.server, pair.client)
    source.transport.write(pattern(8_000_000))
    assert pair.run(60, until=lambda: len(sink.received) == 8_000_000)
    assert source.connection.sending.segment_bytes == 8_972 - HEADER_BYTES
    asked = [datagram for datagram in there.datagrams if extended([datagram.data], ST_STATE)]
    probed = [datagram for datagram in there.datagrams if extended([datagram.data], ST_DATA)]
    answered = [datagram for datagram in back.datagrams if extended([datagram.data], ST_STATE)]
    assert len(asked) == 1
    assert asked[0].sent_at_us < answered[0].sent_at_us < probed[0].sent_at_us


@pytest.mark.parametrize("lost", [{0}, {0, 1}], ids=["the first", "the first two"])
@pytest.mark.parametrize("which", ["questions", "answers"])
def test_a_lost_question_or_answer_is_repeated(which: str, lost: set[int]) -> None:
    pair = path(1_500)
    count = 0

    def lose(datagram: Datagram) -> None:
        nonlocal count
        if extended([datagram.data], ST_STATE):
            datagram.dropped = count in lost
            count += 1

    (pair.up if which == "questions" else pair.down).hook = lose
    pair.client.transport.write(pattern(30_000_000))
    assert pair.run(60, until=lambda: len(pair.server.received) == 30_000_000)
    assert count > len(lost)
    assert segment_of(pair) == ETHERNET - HEADER_BYTES


def test_both_directions_at_once_find_the_size() -> None:
    """Both ask, so neither answers: a question shows the same as an answer."""
    pair = path(9_000, 9_000)
    pair.client.transport.write(pattern(8_000_000))
    pair.server.transport.write(pattern(8_000_000))
    assert pair.run(60, until=lambda: len(pair.server.received) == len(pair.client.received) == 8_000_000)
    for end in (pair.client, pair.server):
        assert end.connection.sending.segment_bytes == 8_972 - HEADER_BYTES


@pytest.mark.parametrize("host", [CLIENT, SERVER])
def test_a_state_that_the_socket_refuses_has_shown_nothing(host: str) -> None:
    """Neither the question of the client, nor the answer of the server and its welcome."""
    pair = path(9_000, 9_000)
    (port,) = [port for (owner, _), port in pair.network.ports.items() if owner == host]
    write = port.write
    refused: list[bytes] = []

    def refuse(packet: bytes, addr: Any = None) -> None:
        if extended([packet], ST_STATE) and len(refused) < 8:
            refused.append(packet)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        write(packet, addr)

    port.write = refuse  # type: ignore[method-assign]
    sent = transfer(pair, 8_000_000)
    assert len(refused) == 8
    questions = [data for data in extended([datagram.data for datagram in sent], ST_STATE) if PARTS_WANTED not in data]
    assert len(questions) == 1, "asked once"
    assert segment_of(pair) == 8_972 - HEADER_BYTES


def test_a_probe_says_what_it_wants_and_is_answered() -> None:
    pair = path(9_000, 9_000)
    _, down = pair.record()
    sent = transfer(pair, 8_000_000)
    said = [datagram.data for datagram in sent if LARGE_WANTED in datagram.data[:40]]
    answered = [datagram.data for datagram in down.datagrams if LARGE_WELCOME in datagram.data]
    assert 1 <= len(said) <= 4
    assert len(said) <= len(answered) <= 3 * len(said)


def test_a_path_that_becomes_a_black_hole_is_noticed() -> None:
    """The stream goes on in parts, and the search finds what arrives."""
    pair = path(1_500, settings=Settings(congestion=Ledbat))
    transfer(pair)
    assert segment_of(pair) == ETHERNET - HEADER_BYTES
    pair.up.mtu_bytes = 1_450
    transfer(pair, 6_000_000)
    assert 1_450 - 28 - CLOSE_ENOUGH_BYTES <= segment_of(pair) + HEADER_BYTES <= 1_450 - 28


def test_a_probe_that_the_socket_refuses_was_never_sent() -> None:
    pair = path(1_500)
    (port,) = [port for (host, _), port in pair.network.ports.items() if host == CLIENT]
    write = port.write
    refused: list[bytes] = []

    def refuse_probes(packet: bytes, addr: Any = None) -> None:
        if LARGE_WANTED in packet[:40] and len(refused) < 5:
            refused.append(packet)
            raise BlockingIOError(11, "Resource temporarily unavailable")
        write(packet, addr)

    port.write = refuse_probes  # type: ignore[method-assign]
    transfer(pair)
    assert len(refused) == 5
    assert segment_of(pair) == ETHERNET - HEADER_BYTES
    assert pair.client.connection.sending.bytes_sent == 3_000_000
