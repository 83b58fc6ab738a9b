"""Which worker a datagram belongs to: in Python, in the kernel, and for the ids that workers choose."""

from __future__ import annotations

import random
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from twisted.internet.error import CannotListenError

from txutp import Settings
from txutp.core.cookies import KEY_BYTES, PROOF, SynCookies
from txutp.core.packet import HEADER_BYTES, ST_DATA, ST_SYN, TYPES, Packet
from txutp.workers import steering, why_no_steering
from txutp.workers.group import SocketGroup
from txutp.workers.settings import PER_ADDRESS, RATES, WHOLE, share_of
from txutp.workers.steering import MAXIMUM_WORKERS, WorkerIds, candidates, worker_of

needs_steering = pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())

# So many ids in the usual run; `python -m benchmarks --only workers-steering` takes a million.
DATAGRAMS = 5_000
LIFETIME_US = 10_000_000


@contextmanager
def group_of(workers: int, interface: str = "127.0.0.1") -> Iterator[SocketGroup]:
    group = SocketGroup(interface, 0, workers)
    try:
        yield group
    finally:
        group.close()


def taken(group: SocketGroup) -> list[tuple[int, bytes]]:
    """What has arrived, with the number of its socket."""
    found: list[tuple[int, bytes]] = []
    ready, _, _ = select.select(group.sockets, [], [], 5)
    for each in ready:
        try:
            while True:
                found.append((group.sockets.index(each), each.recv(2_000)))
        except BlockingIOError:
            continue
    return found


def random_datagram(lots: random.Random) -> bytes:
    """Of any type, also none of uTP's, and of any length around that of a header."""
    first = lots.choice([*TYPES, 0x51, 0x02, 0x00, ord("d"), 0x11 + 0x40])
    size = lots.choice([1, 4, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1, 1_400])
    return (bytes([first]) + lots.randbytes(size))[:size]


@needs_steering
@pytest.mark.parametrize("interface", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("workers", [1, 2, 3, 7, 64])
def test_the_kernel_and_we_agree(workers: int, interface: str) -> None:
    lots = random.Random(workers)
    with group_of(workers, interface) as group, socket.socket(group.family, socket.SOCK_DGRAM) as sender:
        for _ in range(DATAGRAMS // 50):
            sent = [random_datagram(lots) for _ in range(10)]
            for datagram in sent:
                sender.sendto(datagram, group.address)
            arrived: list[tuple[int, bytes]] = []
            while len(arrived) < len(sent):
                more = taken(group)
                assert more, "a datagram was lost"
                arrived += more
            assert sorted(arrived) == sorted((worker_of(datagram, workers), datagram) for datagram in sent)


@needs_steering
def test_every_packet_of_a_connection_reaches_the_same_socket() -> None:
    """The SYN, and what follows with the id above it, from any source port."""
    lots = random.Random(1)
    with group_of(4) as group:
        for _ in range(DATAGRAMS // 10):
            syn_id = lots.getrandbits(16)
            syn = Packet(ST_SYN, syn_id, 1, 0, 0, 1, 0, None, b"").encode()
            data = Packet(ST_DATA, syn_id + 1 & 0xFFFF, 1, 0, 0, 2, 1, None, b"x").encode()
            for datagram in (syn, data):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                    sender.sendto(datagram, group.address)
            numbers = [number for number, _ in taken(group)]
            assert set(numbers) == {(syn_id + 1 & 0xFFFF) % 4}, syn_id


@needs_steering
def test_the_order_of_a_group_survives_another_size() -> None:
    """Sockets are added behind the others and taken away from the end; the program is exchanged."""
    with group_of(2) as group, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for workers in (4, 3, 1, 5):
            while len(group.sockets) < workers:
                group.add()
            group.steer_to(workers)
            group.drop_unused(workers)
            for connection_id in range(2 * workers):
                datagram = Packet(ST_DATA, connection_id, 1, 0, 0, 2, 1, None, b"x").encode()
                sender.sendto(datagram, group.address)
                assert taken(group) == [(connection_id % workers, datagram)]


@needs_steering
def test_a_port_that_others_have_is_not_joined() -> None:
    """SO_REUSEPORT would let a second parent into the group, and take part of its datagrams."""
    with group_of(2) as group, pytest.raises(CannotListenError):
        SocketGroup("127.0.0.1", group.address[1], 2)


def test_another_system_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert why_no_steering() == (
        "This system cannot steer the datagrams of a UDP port to several processes (it is not Linux); one has to do."
    )


def test_a_kernel_that_refuses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(steering, "SO_ATTACH_REUSEPORT_CBPF", 9_999)
    assert "one has to do" in why_no_steering()


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 5, 6, 7, 64, MAXIMUM_WORKERS])
def test_ids_that_workers_choose(workers: int) -> None:
    """They lead back to the worker, none is next to that of another worker, and two generations share none."""
    lots = random.Random(workers)
    chosen: list[dict[int, int]] = []
    for generation in range(2):
        of: dict[int, int] = {}
        for number in range(workers):
            ids = WorkerIds(number, workers, generation, lots.randbytes)
            drawn = {ids.draw() for _ in range(500)}
            assert len(drawn) >= 30
            for receive_id in drawn:
                assert 1 <= receive_id <= 0xFFFD
                assert receive_id % workers == number
                assert of.setdefault(receive_id, number) == number
        chosen.append(of)
    first, second = chosen
    assert not first.keys() & second.keys()
    assert not any(receive_id + 1 in first for receive_id in first)


def test_who_may_have_the_connection_of_a_reset() -> None:
    """Its id may be our receive id, or our send id on either side of that."""
    for workers in (1, 2, 3, 8):
        for receive_id in (1, 2, 1_000, 0xFFFD):
            for echoed in (receive_id, receive_id - 1, receive_id + 1):
                packet = Packet(ST_DATA, echoed, 1, 0, 0, 2, 1, None, b"").encode()
                assert receive_id % workers in candidates(packet, workers)


@pytest.mark.parametrize("workers", [2, 3, 64])
def test_all_shares_together_are_the_limit(workers: int) -> None:
    settings = Settings(
        resets_per_second=100,
        receive_memory_bytes=1 << 30,
        up_bytes_per_second=1_000_000,
        down_bytes_per_second=2_000_000,
        connection_up_bytes_per_second=5_000,
    )
    shares = [share_of(settings, number, workers) for number in range(workers)]
    for name in WHOLE:
        assert sum(getattr(share, name) for share in shares) == getattr(settings, name)
    for name in PER_ADDRESS:
        assert sum(getattr(share, name) for share in shares) <= getattr(settings, name)
    for name in RATES:
        total = sum(getattr(share, name) for share in shares)
        assert getattr(settings, name) - workers < total <= getattr(settings, name)
    assert {share.connection_up_bytes_per_second for share in shares} == {5_000}
    assert sum(share.port_memory_bytes for share in shares) <= settings.port_memory_bytes


def test_a_limit_that_cannot_be_shared_raises() -> None:
    with pytest.raises(ValueError, match="maximum_connections is 3, which 4 workers cannot share"):
        share_of(Settings(maximum_connections=3), 0, 4)
    with pytest.raises(ValueError, match="up_bytes_per_second is 300, which 4 workers cannot share; at least 400"):
        share_of(Settings(up_bytes_per_second=300), 0, 4)
    assert share_of(Settings(resets_per_second=0), 0, 4).resets_per_second == 0
    assert share_of(Settings(maximum_connections_per_address=1), 3, 4).maximum_connections_per_address == 1


def test_a_cookie_of_one_worker_is_good_in_another_one() -> None:
    """It may have been made before the other one was started."""
    key = bytes(range(KEY_BYTES))
    address, syn_id, sequence = ("10.0.0.2", 6881), 4_000, 77
    makes, judges, stranger = (SynCookies(lambda count: bytes(count)) for _ in range(3))
    makes.share(key, LIFETIME_US, 0)
    cookie = makes.make(address, syn_id, sequence, LIFETIME_US, 1_000)
    judges.share(key, LIFETIME_US, 5_000_000)
    assert judges.are_out(5_000_000)
    assert judges.judge(address, syn_id + 1, sequence + 1, cookie - 1, LIFETIME_US, 5_000_000) == PROOF
    assert stranger.judge(address, syn_id + 1, sequence + 1, cookie - 1, LIFETIME_US, 5_000_000) != PROOF
    assert not judges.are_out(5_000_000 + 2 * LIFETIME_US)
