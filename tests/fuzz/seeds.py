"""The seed corpus: real datagrams for the parser, and stories that reach far for the other targets.

``python -m tests.fuzz seeds`` writes it anew; a test compares.
"""

from __future__ import annotations

import random
from pathlib import Path

from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.testing import Link, Network, Recorder

CORPUS = Path(__file__).parent / "corpus"
PARSER_SEEDS = 24
STORY_SEEDS = 12
LONGEST_DATAGRAM_BYTES = 400


def datagrams() -> list[bytes]:
    """Returns short datagrams of a simulated conversation with losses, one of each kind at least."""
    network = Network(seed=1)
    recorder = Recorder()
    network.connect("10.0.0.1", "10.0.0.2", Link(delay_us=10_000, loss=0.05, hook=recorder))
    here, there = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            self.transport.write(data)

    client = Protocol()
    UTPServerEndpoint(there, 6881).listen(Factory.forProtocol(Echo))
    connectProtocol(UTPClientEndpoint(here, "10.0.0.2", 6881), client)
    assert network.run(seconds=5, until=lambda: client.transport is not None)
    for size in (1, 100, 300, 30_000):
        client.transport.write(bytes(size))
        network.run(seconds=1)
    client.transport.loseConnection()
    network.run(seconds=5)
    kinds: dict[tuple[int, int, int], bytes] = {}
    for datagram in recorder.datagrams:
        data = datagram.data
        if len(data) <= LONGEST_DATAGRAM_BYTES:
            kinds.setdefault((data[0], data[1], len(data) // 8), data)
    return list(kinds.values())[:PARSER_SEEDS]


def seeds() -> dict[str, bytes]:
    """Returns the corpus: the names of files below ``corpus``, and what is in them."""
    found = {f"parser/datagram-{number:02}": data for number, data in enumerate(datagrams())}
    for target in ("port", "conversation"):
        for number in range(STORY_SEEDS):
            story = random.Random(f"{target} {number}").randbytes(100 * (1 + number))
            found[f"{target}/story-{number:02}"] = story
    return found


def write() -> None:
    """Write the corpus; files that a fuzzer has added stay."""
    for name, data in seeds().items():
        path = CORPUS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
