"""Captures of simulated runs: Wireshark and ``txutp dump`` read what the simulation has sent."""

from __future__ import annotations

import json
import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.cli.support import run
from tests.support import CLIENT, PORT, SERVER, Pair
from txutp.testing import Link, Network, Recorder
from txutp.testing.pcap import PcapFile, checksum

FIELDS = ("bt-utp.type", "bt-utp.connection_id", "bt-utp.seq_nr", "bt-utp.ack_nr", "bt-utp.wnd_size")


def read_by_tshark(path: Path, *fields: str) -> list[list[str]]:
    """Returns the fields of each packet, as tshark reads a file."""
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not here")
    command = ["tshark", "-r", str(path), "-d", f"udp.port=={PORT},bt-utp", "--disable-protocol", "bittorrent"]
    command += ["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-T", "fields"]
    command += [f"-e{field}" for field in fields]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


def transfer(directory: Path) -> tuple[Path, list[Recorder]]:
    """Returns a capture of all that two hosts say, and recorders of both ways."""
    link = Link(delay_us=10_000, loss=0.1)
    pair = Pair(link, wait=False)
    recorders = [Recorder(), Recorder()]
    pair.up.hook, pair.down.hook = recorders
    pair.network.capture(directory / "all.pcap")
    pair.network.capture(directory / "server.pcap", SERVER)
    pair.run(10)
    pair.client.transport.write(bytes(50_000))
    pair.client.transport.loseConnection()
    pair.run(30)
    assert len(pair.server.received) == 50_000
    return directory, recorders


def test_tshark_reads_a_simulated_run(tmp_path: Path) -> None:
    """Every datagram that left, with right checksums, at its time, with Wireshark's names for its fields."""
    directory, recorders = transfer(tmp_path)
    # both hosts may send at the same microsecond
    datagrams = sorted((d for r in recorders for d in r.datagrams), key=lambda d: (d.sent_at_us, d.source[0]))

    lines = read_by_tshark(
        directory / "all.pcap", "frame.time_epoch", "ip.checksum.status", "udp.checksum.status", "ip.src", *FIELDS
    )

    lines.sort(key=lambda line: (float(line[0]), line[3]))
    assert len(lines) == len(datagrams) > 50
    for line, datagram in zip(lines, datagrams, strict=True):
        packet = datagram.packet
        assert packet is not None
        assert round(float(line[0]) * 1_000_000) == datagram.sent_at_us
        assert line[1:4] == ["1", "1", datagram.source[0]]
        assert [int(text) for text in line[4:]] == [
            packet.type,
            packet.connection_id,
            packet.seq_nr,
            packet.ack_nr,
            packet.wnd_size,
        ]


def test_dump_reads_a_simulated_run(tmp_path: Path) -> None:
    """The capture of the whole network has what was lost; that of a host has what left there, and what arrived."""
    directory, recorders = transfer(tmp_path)
    sent = sum(len(recorder.datagrams) for recorder in recorders)

    counts = {}
    for name in ("all", "server"):
        done = run("dump", "--json", str(directory / f"{name}.pcap"))
        assert (done.returncode, done.stderr) == (0, "")
        *packets, connection = [json.loads(line) for line in done.stdout.splitlines()]
        counts[name] = len(packets)
        assert (connection["syns"] > 0, connection["end"]) == (True, "FIN")
        assert connection["initiator"]["payload_bytes"] >= 50_000

    assert counts["all"] == sent
    lost = sent - counts["server"]
    assert 0 < lost < sent / 4


def test_ipv6_and_every_length_have_right_checksums(tmp_path: Path) -> None:
    """Odd and even lengths, empty datagrams, and a sum of 0, which is written as all ones."""
    lots = random.Random(1)
    file = PcapFile(tmp_path / "x.pcap")
    payloads = [lots.randbytes(size) for size in (0, 1, 2, 3, 20, 255, 1_400, 65_000)]
    for payload in payloads:
        file.write(5, (CLIENT, 1), (SERVER, PORT), payload)
        file.write(1_500_000, ("fd00::1", 1), ("fd00::2", PORT), payload)
    # two bytes that bring the sum over everything to all ones
    file.write(2_000_000, (CLIENT, 1), (SERVER, PORT), b"\0\0")
    before = (tmp_path / "x.pcap").read_bytes()[-4:-2]
    file.write(2_000_000, (CLIENT, 1), (SERVER, PORT), before)
    file.close()

    lines = read_by_tshark(
        tmp_path / "x.pcap", "ip.checksum.status", "udp.checksum.status", "udp.length", "udp.checksum"
    )

    assert {line[0] for line in lines} == {"1", ""}
    assert {line[1] for line in lines} == {"1"}
    assert [int(line[2]) - 8 for line in lines] == [len(p) for p in payloads for _ in range(2)] + [2, 2]
    assert lines[-1][3] == "0xffff"


def test_the_internet_checksum() -> None:
    """The example of RFC 1071 section 3."""
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF - 0xDDF2


def test_a_capture_is_whole_at_any_time(tmp_path: Path) -> None:
    """Each packet is written at once: a run that raises leaves all that was said until then."""
    network = Network()
    network.capture(tmp_path / "x.pcap")
    one = network.reactor("10.0.0.1")

    class Talker:
        def makeConnection(self, transport: object) -> None:
            self.transport = transport

    talker = Talker()
    one.listenUDP(7, talker)
    sizes = []
    for number in range(3):
        talker.transport.write(b"x" * number, ("10.0.0.2", 7))  # type: ignore[attr-defined]
        data = (tmp_path / "x.pcap").read_bytes()
        sizes.append(len(data))
        (length,) = struct.unpack_from(">I", data, len(data) - 28 - number - 4)
        assert length == 28 + number
    assert sizes == sorted(set(sizes))
