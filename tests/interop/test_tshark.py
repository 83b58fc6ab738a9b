"""What Wireshark sees: every datagram of a whole conversation is sound BT-uTP in its eyes."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.missing import need_capture

from .relay import relayed
from .support import (
    TRANSPORT,
    connected,
    listening,
    running,
    seeded_bytes,
    tally_of,
    within,
)

pytestmark = pytest.mark.interop

LENGTH = 300_000

# What tshark prints of each packet: one line, with tabs between the fields.
FIELDS = [
    "frame.protocols",
    "_ws.malformed",
    "_ws.expert.message",
    "udp.srcport",
    "bt-utp.type",
    "bt-utp.len",
]

ST_DATA, ST_FIN, ST_STATE, ST_RESET, ST_SYN = map(str, range(5))


@pytest.fixture
def tshark() -> str:
    """The program that reads captures; dumpcap, which makes them, comes in the same package."""
    need_capture("lo")
    return "tshark"


async def converse(question: bytes, answer: bytes, capture: Path) -> tuple[int, int]:
    """Exchange two messages through a relay, capturing what leaves it; gives the relay's ports."""
    async with listening() as listener, relayed(listener.port) as (front, back):
        own_packets = f"udp src port {front} or udp src port {back}"
        how = ["-i", "lo", "-f", own_packets, "-B", "32", "-w", str(capture)]
        async with running("dumpcap", *how) as dumpcap:
            await dumpcap.says(b"File: ")

            async with connected(front) as client:
                client.end(question)
                server = await listener.stream()
                await server.has_ended
                server.write_and_close(answer)
                await client.has_ended
                await client.close()
                await server.is_lost

            # What is sent after the end is part of it, and dumpcap writes a moment later.
            await deferLater(reactor, 1)
            dumpcap.interrupt()
            await dumpcap.finished()

    assert server.received == tally_of(question)
    assert client.received == tally_of(answer)
    return front, back


@pytest.mark.skipif(TRANSPORT == "tcp", reason="only UDP can be relayed")
@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_a_whole_conversation(tshark: str, tmp_path: Path) -> None:
    """Handshake, data both ways, both ends: no datagram is unknown or malformed."""
    question, answer = seeded_bytes(LENGTH, 1), seeded_bytes(LENGTH, 2)

    # The system may give us a port that traceroute is known for, and Wireshark says so: then once more, on others.
    for attempt in range(3):
        capture = tmp_path / f"conversation{attempt}.pcapng"
        front, back = await converse(question, answer, capture)
        decode = ["-r", str(capture), "-T", "fields", *(f"-e{field}" for field in FIELDS)]
        decode += ["-d", f"udp.port=={front},bt-utp", "-d", f"udp.port=={back},bt-utp"]
        # Our data is no BitTorrent, and must not be judged as such.
        decode += ["--disable-protocol", "bittorrent"]
        async with running(tshark, *decode) as decoder:
            lines = await decoder.rest()
        packets = [dict(zip(FIELDS, line.split("\t"), strict=True)) for line in lines]
        if not any(packet["_ws.expert.message"].startswith("Possible traceroute") for packet in packets):
            break

    assert packets
    for packet in packets:
        assert ":udp:bt-utp" in packet["frame.protocols"], packet
        assert packet["_ws.malformed"] == "", packet
        assert packet["_ws.expert.message"] == "", packet

    # What leaves the back of the relay comes from the client.
    for source, length, with_syn in [(back, LENGTH, True), (front, LENGTH, False)]:
        sent = [packet for packet in packets if packet["udp.srcport"] == str(source)]
        kinds = {packet["bt-utp.type"] for packet in sent}
        assert kinds == {ST_DATA, ST_FIN, ST_STATE} | ({ST_SYN} if with_syn else set())
        assert sum(int(packet["bt-utp.len"]) for packet in sent) >= length
