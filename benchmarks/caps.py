"""Measure rate caps in simulation: how exact each second is, how even the shares, and what of it was sent again.

    python -m benchmarks.caps
    python -m benchmarks.caps --seconds 3 --only 50000

Time is virtual, so the figures are the same on every machine.  Whole IP packets are counted where they leave.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.units import SECOND_US
from txutp.testing import Datagram, Link, Network

SERVER, CLIENT, PORT = "10.0.0.1", "10.0.0.2", 6881
DELAY_US = 20_000
SETTLING_SECONDS = 4
CHUNK_BYTES = 4 << 20

# Bytes per second, and how many connections share them.
CASES = {50_000: (1, 10, 100), 1_000_000: (1, 10, 100), 20_000_000: (1, 10)}


class Greedy(Protocol):
    """Sends as fast as it may, or counts what comes."""

    received_bytes = 0

    def dataReceived(self, data: bytes) -> None:
        self.received_bytes += len(data)


@dataclass
class Row:
    """What one cap came to."""

    lowest: float
    """The second in which the least bytes left, as a part of the cap."""
    highest: float
    fairness: float
    """Jain's index of what the connections received."""
    resent: float
    """The part of all payload that was sent again."""


def measured(up: bool, rate: int, connections: int, seconds: int) -> Row:
    """Returns how exact the cap of a port is that listens; ``up`` if it sends, else its peers do."""
    network = Network(1)
    way, back = Link(delay_us=DELAY_US), Link(delay_us=DELAY_US)
    network.connect(SERVER, CLIENT, *((way, back) if up else (back, way)))
    sent: dict[int, int] = {}

    def count(datagram: Datagram) -> None:
        second = datagram.sent_at_us // SECOND_US
        sent[second] = sent.get(second, 0) + datagram.wire_bytes

    way.hook = count
    accepted: list[Greedy] = []
    settings = Settings(up_bytes_per_second=rate) if up else Settings(down_bytes_per_second=rate)
    factory = Factory.forProtocol(lambda: accepted.append(Greedy()) or accepted[-1])  # type: ignore[func-returns-value,arg-type]
    UTPServerEndpoint(network.reactor(SERVER), PORT, settings=settings).listen(factory)
    peers = [Greedy() for _ in range(connections)]
    for peer in peers:
        connectProtocol(UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT), peer)
    network.run(1, until=lambda: len(accepted) == connections)
    network.run(1 - network.now_us / SECOND_US)
    senders, receivers = (accepted, peers) if up else (peers, accepted)

    def run_to(second: int) -> None:
        while network.now_us < second * SECOND_US:
            for sender in senders:
                transport: Any = sender.transport
                if transport.stats().unsent < CHUNK_BYTES // 2:
                    transport.write(bytes(CHUNK_BYTES))
            network.run(0.1)

    first = 1 + SETTLING_SECONDS
    run_to(first)
    before = [receiver.received_bytes for receiver in receivers]
    run_to(first + seconds)
    shares = [receiver.received_bytes - earlier for receiver, earlier in zip(receivers, before, strict=True)]
    parts = [sent.get(second, 0) / rate for second in range(first, first + seconds)]
    totals = [sender.transport.stats() for sender in senders]  # type: ignore[union-attr]
    return Row(
        min(parts),
        max(parts),
        sum(shares) ** 2 / (connections * sum(share**2 for share in shares)),
        sum(stats.bytes_retrans for stats in totals) / sum(stats.bytes_sent for stats in totals),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure rate caps in simulation.")
    parser.add_argument("--seconds", type=int, default=10, help="how many are measured; 10 by default")
    parser.add_argument("--only", type=int, choices=CASES, help="only this cap, in bytes per second")
    options = parser.parse_args()
    print("| bytes/s | connections | direction | least and most in a second | Jain's index | sent again |")
    print("| ---: | ---: | --- | ---: | ---: | ---: |")
    for rate in CASES if options.only is None else (options.only,):
        for connections in CASES[rate]:
            for up in (True, False):
                row = measured(up, rate, connections, options.seconds)
                print(
                    f"| {rate:,} | {connections} | {'up' if up else 'down'} | {row.lowest:.1%} to {row.highest:.1%}"
                    f" | {row.fairness:.4f} | {row.resent:.2%} |"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
