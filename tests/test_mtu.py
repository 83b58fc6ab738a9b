"""The search for the path's MTU: padding is risked, never bytes, and the loss of a probe says nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import CLIENT, Pair, ScriptedClient
from tests.test_transfer import SEGMENT, pattern
from txutp import Ledbat, Settings
from txutp.core.flow import WINDOW_DATAGRAMS
from txutp.core.mtu import CLOSE_ENOUGH_BYTES, MAXIMUM_PROBES, RAISE_US, MtuSearch
from txutp.core.packet import (
    HEADER_BYTES,
    LARGE_WANTED,
    LARGE_WELCOME,
    LEAST_PADDING_BYTES,
    SELECTIVE_ACK,
    ST_DATA,
    encode_padding,
    parse_extensions_untrusted,
)
from txutp.testing import Datagram, Link

START = 1_402
ETHERNET = 1_472  # 1500 without the headers of IPv4 and UDP
ANY = 1 << 20  # no limit of the peer's window


# -- the search alone --


def search(path_bytes: int, largest_bytes: int, limit_bytes: int = ANY) -> tuple[MtuSearch, int]:
    """A search on a path that carries ``path_bytes``; gives it and how many probes it took."""
    found = MtuSearch(START, largest_bytes, largest_bytes)
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


def test_what_the_interface_takes_is_tried_first() -> None:
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
    found = MtuSearch(START, ETHERNET, ETHERNET)
    for _ in range(MAXIMUM_PROBES - 1):
        assert found.next_probe_bytes(0, ANY) == ETHERNET
        found.on_lost()
    assert found.next_probe_bytes(0, ANY) == ETHERNET
    found.on_passed()
    assert found.passed_bytes == ETHERNET


def test_somebody_who_knows_ends_it_at_once() -> None:
    found = MtuSearch(START, 8_972, 8_972)
    found.next_probe_bytes(0, ANY)
    found.on_lost(certain=True)
    assert found.next_probe_bytes(0, ANY) < 8_972


def test_a_router_tells_the_size_and_cannot_tell_nonsense() -> None:
    found = MtuSearch(START, 8_972, 8_972)
    assert found.next_probe_bytes(0, ANY) == 8_972
    for nonsense in (0, 100, START - 1, 9_000):
        found.on_hint(nonsense)
    found.on_hint(1_500)
    found.on_lost()
    assert found.next_probe_bytes(0, ANY) == 1_500
    found.on_passed()
    assert not found.next_probe_bytes(0, ANY)


def test_it_begins_again_after_a_while() -> None:
    """RFC 8899: PMTU_RAISE_TIMER, 600 seconds."""
    found, _ = search(1_430, ETHERNET)
    assert not found.next_probe_bytes(RAISE_US - 1, ANY)
    assert found.next_probe_bytes(RAISE_US, ANY) == ETHERNET


def test_a_limit_is_kept_and_little_more_is_not_worth_a_probe() -> None:
    found = MtuSearch(START, 65_000, 65_000)
    assert not found.next_probe_bytes(0, 2 * START - 1)
    assert found.next_probe_bytes(0, 30_000) == 30_000
    found.on_passed()
    assert not found.next_probe_bytes(0, 59_999)
    assert found.next_probe_bytes(0, 60_000) == 60_000
    found.on_passed()
    assert found.next_probe_bytes(0, 65_000) == 65_000


def test_large_frames_need_a_welcome() -> None:
    found = MtuSearch(START, ETHERNET, 8_972)
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
    pair = path(1_500, settings=Settings(maximum_datagram_bytes=1_000))
    assert max(len(datagram.data) for datagram in transfer(pair)) == 1_000


def test_little_talk_is_no_reason_to_probe() -> None:
    pair = path(1_500)
    for _ in range(50):
        transfer(pair, 2_000)
    assert segment_of(pair) == START - HEADER_BYTES


def test_strangers_get_no_frames_larger_than_ethernet() -> None:
    """A peer that does not say that they are welcome; and its own words are understood only where they belong."""
    scene = ScriptedClient(settings=Settings(congestion=Ledbat))
    scene.network.interface_mtu_bytes = 9_000
    largest = 0
    scene.server.transport.write(pattern(2_000_000))
    for _ in range(100):
        scene.run(0.02)
        packets = scene.peer.packets
        if not packets:
            break
        largest = max(largest, *(len(datagram) for datagram in scene.peer.datagrams))
        scene.peer.take()
        scene.peer.ack += sum(packet.type == ST_DATA for packet in packets)
        scene.peer.state()
    assert largest == ETHERNET


def test_a_probe_says_what_it_wants_and_is_answered() -> None:
    pair = path(9_000, 9_000)
    _, down = pair.record()
    sent = transfer(pair, 8_000_000)
    said = [datagram.data for datagram in sent if LARGE_WANTED in datagram.data[:40]]
    answered = [datagram.data for datagram in down.datagrams if LARGE_WELCOME in datagram.data]
    assert 1 <= len(said) <= 4
    assert len(said) <= len(answered) <= 3 * len(said)


def test_a_path_that_becomes_a_black_hole_is_noticed() -> None:
    """New data goes out small again; what was cut before keeps its size, because uTP cannot cut it smaller."""
    pair = path(1_500, settings=Settings(congestion=Ledbat))
    transfer(pair)
    assert segment_of(pair) == ETHERNET - HEADER_BYTES
    pair.up.mtu_bytes = 1_450
    pair.client.transport.write(pattern(10 * SEGMENT))
    pair.run(4)
    assert segment_of(pair) == START - HEADER_BYTES
    pair.up.mtu_bytes = 1_500
    assert pair.run(30, until=lambda: len(pair.server.received) == 3_000_000 + 10 * SEGMENT)


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
