"""``txutp dump``: what it reads from captures is what was sent, and what tshark reads."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpkt
import pytest
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from tests.cli.support import run
from txutp import ConnectionStats, UTPClientEndpoint, UTPServerEndpoint
from txutp.cli.following import Follower, packets_in
from txutp.cli.output import EXIT_UNREADABLE
from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet
from txutp.testing import Datagram, Link, Network, Recorder

# Fields that both programs print of each packet.
FIELDS = (
    "bt-utp.type",
    "bt-utp.connection_id",
    "bt-utp.timestamp_us",
    "bt-utp.timestamp_diff_us",
    "bt-utp.wnd_size",
    "bt-utp.seq_nr",
    "bt-utp.ack_nr",
    "bt-utp.len",
)


class Sending(Protocol):
    """Sends a message and ends."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.stats: ConnectionStats | None = None

    def connectionMade(self) -> None:
        self.transport.write(bytes(self.size))
        self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.stats = self.transport.stats()


def conversation(hosts: tuple[str, str], size: int = 200_000, loss: float = 0.03) -> tuple[list[Datagram], Sending]:
    """Returns the datagrams of a simulated upload, each when it leaves its host, and the client."""
    network = Network(seed=4)
    recorder = Recorder()
    link = Link(delay_us=20_000, rate_bytes_per_second=1_000_000, loss=loss, hook=recorder)
    network.connect(*hosts, link, Link(delay_us=20_000, hook=recorder))
    here, there = (network.reactor(host) for host in hosts)
    UTPServerEndpoint(there, 6881, interface="::" if ":" in hosts[0] else "").listen(Factory.forProtocol(Protocol))
    client = Sending(size)
    connectProtocol(UTPClientEndpoint(here, hosts[1], 6881), client)
    assert network.run(seconds=120, until=lambda: client.stats is not None), network
    return sorted(recorder.datagrams, key=lambda datagram: datagram.sent_at_us), client


def ip_packet(datagram: Datagram) -> Any:
    """Returns the IP packet that carries a datagram."""
    (source, source_port), (destination, destination_port) = datagram.source, datagram.destination
    udp = dpkt.udp.UDP(sport=source_port, dport=destination_port, data=datagram.data, ulen=8 + len(datagram.data))
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    addresses = {"src": socket.inet_pton(family, source), "dst": socket.inet_pton(family, destination)}
    if family == socket.AF_INET6:
        return dpkt.ip6.IP6(nxt=17, plen=len(udp), data=udp, hlim=64, extension_hdrs={}, **addresses)
    return dpkt.ip.IP(p=17, len=20 + len(udp), data=udp, ttl=64, **addresses)


def ethernet(packet: Any, vlan: bool = False) -> bytes:
    """Returns an Ethernet frame, padded to its least size."""
    kind = 0x86DD if isinstance(packet, dpkt.ip6.IP6) else 0x0800
    tag = b"\x81\x00\x00\x07" if vlan else b""
    return (bytes(12) + tag + kind.to_bytes(2, "big") + bytes(packet)).ljust(60, b"\0")


def cooked(packet: Any) -> bytes:
    """Returns a frame of the interface "any"."""
    kind = 0x86DD if isinstance(packet, dpkt.ip6.IP6) else 0x0800
    return b"\x00\x00\x00\x01\x00\x06" + bytes(8) + kind.to_bytes(2, "big") + bytes(packet)


def cooked2(packet: Any) -> bytes:
    """Returns a frame of the interface "any", second version."""
    kind = 0x86DD if isinstance(packet, dpkt.ip6.IP6) else 0x0800
    return kind.to_bytes(2, "big") + bytes(2) + b"\0\0\0\1" + b"\0\1" + b"\0\6" + bytes(8) + bytes(packet)


def loopback(packet: Any) -> bytes:
    """Returns a frame of BSD's loopback."""
    return (30 if isinstance(packet, dpkt.ip6.IP6) else 2).to_bytes(4, "little") + bytes(packet)


LINKS: dict[str, tuple[int, Callable[[Any], bytes]]] = {
    "ethernet": (1, ethernet),
    "vlan": (1, lambda packet: ethernet(packet, vlan=True)),
    "loopback": (0, loopback),
    "cooked": (113, cooked),
    "cooked2": (276, cooked2),
    "raw": (101, bytes),
}


def write(path: Path, datagrams: list[Datagram], link: str, pcapng: bool = False) -> Path:
    """Write a capture."""
    link_type, framed = LINKS[link]
    with path.open("wb") as file:
        writer = (dpkt.pcapng.Writer if pcapng else dpkt.pcap.Writer)(file, linktype=link_type)
        for datagram in datagrams:
            writer.writepkt(framed(ip_packet(datagram)), ts=1.7e9 + datagram.sent_at_us / 1e6)
    return path


def dumped(*arguments: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the packets and the connections that the command prints as JSON."""
    done = run("dump", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [line for line in lines if "bt-utp.type" in line], [line for line in lines if "bt-utp.type" not in line]


@pytest.mark.parametrize("pcapng", [False, True], ids=["pcap", "pcapng"])
@pytest.mark.parametrize("hosts", [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("link", LINKS)
def test_every_kind_of_link_is_read(link: str, hosts: tuple[str, str], pcapng: bool, tmp_path: Path) -> None:
    """The same packets come out of each format, and add up to what the sender says of itself."""
    datagrams, client = conversation(hosts)
    path = write(tmp_path / "capture", datagrams, link, pcapng)

    packets, [connection] = dumped(str(path)) if link == "ethernet" else dumped("-p", "6881", str(path))

    assert client.stats is not None
    assert [packet["bt-utp.seq_nr"] for packet in packets] == [datagram.packet.seq_nr for datagram in datagrams]
    assert connection["initiator"]["payload_bytes"] == 200_000
    assert connection["initiator"]["retransmitted_packets"] == client.stats.segs_retrans > 0
    assert connection["acceptor"]["payload_bytes"] == 0
    assert (connection["syns"], connection["end"]) == (1, "FIN")
    # Each datagram is seen when it leaves, so an answer is seen half a round trip later.
    assert connection["handshake_ms"] == pytest.approx(20, abs=1)
    assert connection["initiator"]["round_trip_ms"]["p50"] >= 20
    assert sum(connection["initiator"]["queue_delay_histogram"].values()) > 20


@pytest.mark.parametrize("link", LINKS)
def test_tshark_reads_the_same(link: str, tmp_path: Path) -> None:
    """Field by field, packet by packet, under Wireshark's names."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not here")
    datagrams, _ = conversation(("10.0.0.1", "10.0.0.2"))
    path = write(tmp_path / "capture.pcap", datagrams, link)
    command = ["tshark", "-r", str(path), "-T", "fields", "-d", "udp.port==6881,bt-utp"]
    command += ["--disable-protocol", "bittorrent", *(f"-e{field}" for field in FIELDS)]

    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    packets, _ = dumped(str(path))

    assert [[int(text or 0) for text in line.split("\t")] for line in lines] == [
        [packet[field] for field in FIELDS] for packet in packets
    ]


def test_people_see_packets_and_a_summary(tmp_path: Path) -> None:
    """Lines with what happened in brackets, ranges of selective acks, then a table."""
    datagrams, _ = conversation(("10.0.0.1", "10.0.0.2"))

    done = run("dump", str(write(tmp_path / "capture.pcap", datagrams, "ethernet")))

    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert " SYN id=" in lines[0]
    assert "[answers the SYN]" in lines[1]
    assert any("[retransmission]" in line for line in lines)
    assert any(" sack=" in line for line in lines)
    assert "1 SYN, answered after " in done.stdout
    assert "end: FIN" in done.stdout


def test_other_protocols_are_left_out(tmp_path: Path) -> None:
    """A DHT on the same port, and datagrams that only begin like uTP, are no connections."""
    datagrams, _ = conversation(("10.0.0.1", "10.0.0.2"), 3_000, 0.0)
    here, there = datagrams[0].source, datagrams[0].destination
    strangers = [
        Datagram(here, there, b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe", 0),
        Datagram(("10.0.0.3", 53), ("10.0.0.1", 999), bytes([0x21, 0]) + bytes(30), 0),
        Datagram(here, there, b"", 0),
    ]
    path = write(tmp_path / "capture.pcap", [*strangers, *datagrams], "ethernet")

    packets, connections = dumped(str(path))

    assert len(connections) == 1
    assert len(packets) == len(datagrams)
    none = run("dump", "-s", str(write(tmp_path / "none.pcap", strangers, "ethernet")))
    assert (none.returncode, none.stdout) == (0, f"{tmp_path / 'none.pcap'}: no uTP connection.\n")


def test_one_of_several_connections(tmp_path: Path) -> None:
    """``-c`` shows one; each has its number."""
    first, _ = conversation(("10.0.0.1", "10.0.0.2"), 3_000, 0.0)
    second, _ = conversation(("10.0.0.3", "10.0.0.4"), 5_000, 0.0)
    path = write(tmp_path / "capture.pcap", [*first, *second], "ethernet")

    packets, [connection] = dumped("-c", "2", str(path))

    assert connection["connection"] == 2
    assert connection["initiator"]["payload_bytes"] == 5_000
    assert {packet["connection"] for packet in packets} == {2}


def test_damaged_files_are_told(tmp_path: Path) -> None:
    """No capture, an unknown link, and one that ends in the middle: a sentence and an exit code."""
    (tmp_path / "text").write_text("This is no capture at all, only text.", encoding="utf-8")
    with (tmp_path / "link").open("wb") as file:
        dpkt.pcap.Writer(file, linktype=250).writepkt(b"x", ts=1)
    for name, words in (("text", "is not a capture"), ("link", "link of type 250")):
        done = run("dump", str(tmp_path / name))
        assert (done.returncode, done.stdout) == (EXIT_UNREADABLE, "")
        assert words in done.stderr


def test_a_capture_that_breaks_off_shows_what_is_there(tmp_path: Path) -> None:
    """The program that captures may be killed in the middle of a frame."""
    datagrams, _ = conversation(("10.0.0.1", "10.0.0.2"), 3_000, 0.0)
    path = write(tmp_path / "capture.pcap", datagrams, "ethernet")
    path.write_bytes(path.read_bytes()[:-7])

    packets, _ = dumped(str(path))

    assert len(packets) == len(datagrams) - 1


def burst(count: int, size: int) -> list[bytes]:
    """Returns DATA packets with numbers that follow each other, across the wrap."""
    return [
        Packet(ST_DATA, 7, 1, 2, 3, 0xFFFE + index & 0xFFFF, 5, None, bytes(size)).encode() for index in range(count)
    ]


def test_bursts_that_the_kernel_joined_are_taken_apart() -> None:
    """With GSO and GRO a capture shows many packets as one datagram; the last one may be shorter."""
    packets = burst(5, 1_000)
    packets[-1] = packets[-1][:300]

    assert packets_in(b"".join(packets)) == packets
    assert packets_in(packets[0]) == [packets[0]]


def test_payload_that_looks_like_a_header_is_not_taken_apart() -> None:
    """Bytes of a header within the payload do not make a burst of one packet."""
    [first, second] = burst(2, 100)
    disguised = first + second[:4] + bytes(700)

    assert packets_in(disguised) == [disguised]


def test_connections_without_a_beginning() -> None:
    """A capture that starts late knows the initiator by the higher id; one side alone is not certain."""
    follower = Follower()
    here, there = ("10.0.0.1", 1), ("10.0.0.2", 2)

    def saw(source: tuple[str, int], destination: tuple[str, int], kind: int, number: int, sequence: int = 1) -> None:
        data = Packet(kind, number, 0, 0, 0, sequence, 0).encode()
        assert follower.on_datagram(0, source, destination, data, len(data)) is not None

    saw(here, there, ST_STATE, 100)
    [connection] = follower.connections
    assert not connection.is_certain

    saw(there, here, ST_STATE, 101)
    assert follower.connections == [connection]
    assert connection.is_certain
    assert [direction.source for direction in connection.directions] == [there, here]

    saw(there, here, ST_RESET, 100)
    assert follower.connections == [connection]
    assert connection.end == "RESET"

    saw(here, there, ST_SYN, 99)
    assert len(follower.connections) == 2


def test_one_fin_is_half_an_end() -> None:
    """Each direction ends by itself."""
    follower = Follower()
    fin = Packet(ST_FIN, 100, 0, 0, 0, 1, 0).encode()
    follower.on_datagram(0, ("10.0.0.1", 1), ("10.0.0.2", 2), fin, len(fin))

    assert follower.connections[0].end == "half closed"
