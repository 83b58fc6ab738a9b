"""What the kernel says beside a datagram: read by level and type, whatever else is there, and whatever is cut off."""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.shell.test_udp import Collecting, batch_port
from tests.support import Accepting, until
from tests.wire.test_transfer import pattern
from txutp import UTPClientEndpoint, UTPServerEndpoint, adoptUTPPort
from txutp.core.address import local_of, remote_of, with_local
from txutp.udp.options import SO_RXQ_OVFL, SOL_UDP, UDP_GRO
from txutp.udp.ports import ANCILLARY_BYTES, CUT_DATAGRAM, CUT_MESSAGES, MAXIMUM_ANCILLARY_BYTES, BatchPort
from txutp.udp.sources import MAPPED_PREFIX, MAXIMUM_KEPT, MAXIMUM_REMEMBERED, PKTINFO, PKTINFO6, Senders, Sources

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="The messages are those of Linux.")

LOCAL = "127.0.0.1"
PEER = ("127.0.0.1", 9)
STRIDE = (SOL_UDP, UDP_GRO, struct.pack("=i", 500))

# Options that somebody else may have set on a socket, each of which adds a control message.
SO_TIMESTAMP, SO_TIMESTAMPNS = 29, 35
IP_PKTINFO, IP_RECVOPTS, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR = 8, 6, 12, 13, 20
OF_SOCKET = [(socket.SOL_SOCKET, option) for option in (SO_TIMESTAMP, SO_TIMESTAMPNS)]
OF_IPV4 = [
    (socket.IPPROTO_IP, option) for option in (IP_PKTINFO, IP_RECVOPTS, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR)
]
OF_IPV6 = [
    (socket.IPPROTO_IPV6, option)
    for option in (socket.IPV6_RECVPKTINFO, socket.IPV6_RECVHOPLIMIT, socket.IPV6_RECVTCLASS)
]


class Saying:
    """A socket on which one datagram has arrived, with control messages beside it."""

    def __init__(self, port: BatchPort, *arrived: tuple[bytes, list[Any], int]) -> None:
        self.arrived = list(arrived)
        self.rooms: list[int] = []
        self._real = port.socket
        port.socket = self  # type: ignore[assignment]

    def recvmsg(self, size: int, room: int, flags: int = 0) -> tuple[bytes, list[Any], int, Any]:
        if flags or not self.arrived:
            raise BlockingIOError
        self.rooms.append(room)
        return (*self.arrived.pop(0), PEER)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def read(port: BatchPort, received: Collecting, ancillary: list[Any], flags: int = 0) -> Any:
    """What the protocol gets of 1,000 bytes; None for nothing."""
    received.reads.clear()
    Saying(port, (bytes(1_000), ancillary, flags))
    port.doRead()
    port.socket = port.socket._real  # type: ignore[attr-defined]
    return received.reads[0][1:] if received.reads else None


@pytest.mark.parametrize(
    "stranger",
    [
        (socket.IPPROTO_IP, 1, b"\4"),  # IP_TOS, of a byte
        (socket.IPPROTO_IP, 2, struct.pack("=i", 64)),  # IP_TTL, as long as ours
        (socket.IPPROTO_IP, UDP_GRO, struct.pack("=i", 7)),  # the number of ours on another level
        (SOL_UDP, SO_RXQ_OVFL, struct.pack("=i", 7)),
        (socket.SOL_SOCKET, UDP_GRO, struct.pack("=i", 7)),
        (socket.SOL_SOCKET, SO_TIMESTAMP, bytes(range(16))),
        (socket.SOL_SOCKET, SO_RXQ_OVFL, b"\1\2"),  # ours, but of another size
        (socket.SOL_SOCKET, SO_RXQ_OVFL, bytes(range(8))),
        (socket.IPPROTO_IP, IP_PKTINFO, b"\1\2\3"),
        (9_999, 9_999, b""),
    ],
)
def test_a_message_that_is_none_of_ours_says_nothing(stranger: Any) -> None:
    for interface in (LOCAL, "0.0.0.0"):
        port, received = batch_port(interface)
        assert read(port, received, [stranger]) == (0, PEER)
        assert read(port, received, [stranger, STRIDE, stranger]) == (500, PEER)
        assert received.overflows == 0
        port.close()


@pytest.mark.parametrize("size", [0, 2, 3, 8])
def test_a_segment_size_of_another_size_is_none(size: int) -> None:
    port, received = batch_port()
    assert read(port, received, [(SOL_UDP, UDP_GRO, bytes([1] * size))]) == (0, PEER)
    port.close()


def test_what_was_dropped_is_counted_among_other_messages() -> None:
    port, received = batch_port()
    counts = [struct.pack("=I", number) for number in (3, 3, 10, 2**32 - 1, 1)]
    for count in counts:
        read(port, received, [(0, 2, bytes(4)), (socket.SOL_SOCKET, SO_RXQ_OVFL, count)])
    assert received.overflows == 2**32 + 1, "it wraps at 32 bits"
    port.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("option", [*OF_SOCKET, *OF_IPV4, *OF_IPV6, None])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_adopted_socket_may_have_any_option_set(family: int, option: Any, everywhere: bool) -> None:
    """None stands for all of them at once.  A stream arrives, and nothing is taken for an overflow."""
    is_ipv6 = family == socket.AF_INET6
    usable = [*OF_SOCKET, *OF_IPV4, *(OF_IPV6 if is_ipv6 else [])]
    if option is not None and option not in usable:
        return
    host = "::1" if is_ipv6 else LOCAL
    theirs = socket.socket(family, socket.SOCK_DGRAM)
    theirs.bind((("::" if is_ipv6 else "") if everywhere else host, 0))
    for level, number in usable if option is None else [option]:
        theirs.setsockopt(level, number, 1)
    accepting = Accepting()
    port = adoptUTPPort(reactor, theirs.fileno(), accepting)
    theirs.close()
    client = await UTPClientEndpoint(reactor, host, port.getHost().port, timeout=9).connect(Accepting())
    data = pattern(200_000)
    client.transport.write(data)
    await until(lambda: accepting.made and len(accepting.made[0].received) == len(data))
    assert bytes(accepting.made[0].received) == data
    assert port.stats().receive_overflows == 0
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


# -- where the list is cut off --


PINNED = (socket.IPPROTO_IP, IP_PKTINFO, PKTINFO.pack(1, bytes([127, 0, 0, 2]), bytes([127, 0, 0, 2])))


@pytest.mark.parametrize(
    ("interface", "offload", "ancillary", "expected"),
    [
        # several datagrams may look like one
        (LOCAL, True, [], None),
        (LOCAL, True, [STRIDE], (500, PEER)),
        # none was joined
        (LOCAL, False, [], (0, PEER)),
        # nobody knows where it came to
        ("0.0.0.0", False, [], None),
        ("0.0.0.0", True, [STRIDE], None),
        ("0.0.0.0", False, [PINNED], (0, (*PEER, 0, 0, "127.0.0.2"))),
        ("0.0.0.0", True, [STRIDE, PINNED], (500, (*PEER, 0, 0, "127.0.0.2"))),
    ],
)
def test_a_list_that_was_cut_off_loses_no_more_than_it_must(
    interface: str, offload: bool, ancillary: Any, expected: Any
) -> None:
    port, received = batch_port(interface, offload)
    assert port.offload_receive == offload, "this test is about a kernel that joins"
    assert read(port, received, ancillary, CUT_MESSAGES) == expected
    assert read(port, received, [STRIDE, PINNED], CUT_DATAGRAM) is None
    port.close()


def test_after_a_list_that_was_cut_off_there_is_more_room() -> None:
    port, _ = batch_port()
    saying = Saying(port, *[(b"x", [], CUT_MESSAGES)] * 3)
    port.doRead()
    assert saying.rooms == [ANCILLARY_BYTES, MAXIMUM_ANCILLARY_BYTES, MAXIMUM_ANCILLARY_BYTES]
    port.close()


@pytest_twisted.ensureDeferred
async def test_a_stream_survives_a_room_that_was_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("txutp.udp.ports.ANCILLARY_BYTES", 16)
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    client = await UTPClientEndpoint(reactor, "127.0.0.2", port.getHost().port, timeout=20).connect(Accepting())
    data = pattern(2_000_000)
    client.transport.write(data)
    await until(lambda: accepting.made and len(accepting.made[0].received) == len(data))
    assert bytes(accepting.made[0].received) == data
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


# -- our own address --


def sources(family: int = socket.AF_INET) -> Sources:
    with socket.socket(family, socket.SOCK_DGRAM) as made:
        return Sources(made)


@pytest.mark.parametrize(
    ("answering", "addressed", "local"),
    [
        ("127.0.0.2", "127.0.0.2", "127.0.0.2"),
        ("192.0.2.1", "192.0.2.255", "192.0.2.1"),  # a broadcast is answered from an address of ours
        ("0.0.0.0", "192.0.2.1", "192.0.2.1"),  # beside an ICMP error
        ("0.0.0.0", "0.0.0.0", ""),
    ],
)
def test_our_ipv4_address(answering: str, addressed: str, local: str) -> None:
    told = sources()
    message = PKTINFO.pack(3, socket.inet_aton(answering), socket.inet_aton(addressed))
    assert told.local(message) == told.local(message) == local
    if local:
        level, kind, packed = told.message(local)
        assert (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO)
        # any interface that leads to the peer
        assert PKTINFO.unpack(packed) == (0, socket.inet_aton(local), bytes(4))


@pytest.mark.parametrize(
    ("host", "interface", "local", "sent_interface"),
    [
        ("::1", 1, "::1", 0),
        ("2001:db8::5", 4, "2001:db8::5", 0),
        ("fe80::7", 4, "fe80::7%4", 4),  # there is one on each interface
        ("::ffff:127.0.0.2", 1, "::ffff:127.0.0.2", 0),
        ("::", 1, "", None),
        ("::ffff:0.0.0.0", 1, "", None),
        ("ff02::1", 4, "", None),  # nothing leaves from a multicast address
    ],
)
def test_our_ipv6_address(host: str, interface: int, local: str, sent_interface: int | None) -> None:
    told = sources(socket.AF_INET6)
    packed = socket.inet_pton(socket.AF_INET6, host)
    assert told.local(PKTINFO6.pack(packed, interface)) == local
    if local:
        assert told.message(local) == (
            socket.IPPROTO_IPV6,
            socket.IPV6_PKTINFO,
            PKTINFO6.pack(packed, sent_interface),
        )


def test_a_message_of_another_size_tells_no_address() -> None:
    for told in (sources(), sources(socket.AF_INET6)):
        assert {told.local(bytes([1] * size)) for size in (0, 4, 11, 13, 19, 21)} == {""}


def test_whole_networks_of_local_addresses_take_no_memory() -> None:
    told = sources(socket.AF_INET6)
    for number in range(3 * MAXIMUM_KEPT):
        packed = MAPPED_PREFIX + struct.pack(">I", 0x7F000001 + number)
        told.message(told.local(PKTINFO6.pack(packed, 1)))
    assert max(told.local.cache_info().currsize, told.message.cache_info().currsize) <= MAXIMUM_KEPT


def test_addresses_with_and_without_a_local_end() -> None:
    for remote in (("192.0.2.1", 5), ("fe80::1", 5, 0, 3)):
        assert remote_of(remote) is remote
        assert local_of(remote) == ""
        both = with_local(remote, "192.0.2.9")
        assert (remote_of(both), local_of(both)) == (remote, "192.0.2.9")


def test_senders_of_other_datagrams_are_remembered_for_a_while() -> None:
    senders = Senders()
    first = ("192.0.2.1", 5, 0, 0, "192.0.2.9")
    assert senders.note(first) == ("192.0.2.1", 5)
    assert senders.answer(("192.0.2.1", 5)) == first
    assert senders.answer(("192.0.2.1", 6)) == ("192.0.2.1", 6), "one that never sent"
    assert senders.note(("192.0.2.2", 5)) == ("192.0.2.2", 5)
    assert senders.answer(("192.0.2.2", 5)) == ("192.0.2.2", 5), "nobody said where it came to"
    for number in range(MAXIMUM_REMEMBERED):
        senders.note(("192.0.2.3", number, 0, 0, "192.0.2.9"))
    assert senders.answer(("192.0.2.1", 5)) == ("192.0.2.1", 5)
    assert senders.answer(("192.0.2.3", 0)) == ("192.0.2.3", 0, 0, 0, "192.0.2.9")
