"""What a small datagram waits while streams flow: an echo on the port of uTP, and a client that asks it.

The echo answers only the questions of a test that runs now, and with a datagram of the same size that is no question:
two echoes never answer each other.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Container
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from txutp.cli.measurement.clock import clock_of

# "t" in front: no datagram of uTP has it.
QUESTION, ANSWER = b"txutp-perf?", b"txutp-perf!"
REST = struct.Struct("!32sQ")  # the test's token, and a number

PING_SECONDS = 0.05
# So late an answer is none.
LOST_SECONDS = 5.0
LARGEST_SAMPLES = 100_000


class Echo(DatagramProtocol):
    """Answers the questions of tests that run."""

    def __init__(self, tokens: Container[str]) -> None:
        self._tokens = tokens

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if len(datagram) != len(QUESTION) + REST.size or not datagram.startswith(QUESTION):
            return
        token, _ = REST.unpack_from(datagram, len(QUESTION))
        if token.decode("ascii", "replace") in self._tokens:
            assert self.transport is not None
            self.transport.write(ANSWER + datagram[len(QUESTION) :], addr)


class Pinger(DatagramProtocol):
    """Asks an echo again and again; ``round_trips_ms`` has what the answers took.

    It goes by a timer of this process, so what this process keeps it from counts, too.
    """

    def __init__(self, reactor: Any, address: tuple[str, int], token: str) -> None:
        self._reactor = reactor
        self._clock = clock_of(reactor)
        self._address = address
        self._token = token.encode("ascii")
        self._asked: dict[int, float] = {}
        self._next = 0
        self._call: Any = None
        self.round_trips_ms: deque[float] = deque(maxlen=LARGEST_SAMPLES)

    def startProtocol(self) -> None:
        self._ask()

    def stopProtocol(self) -> None:
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _ask(self) -> None:
        now = self._clock()
        for number in [number for number, asked in self._asked.items() if now - asked > LOST_SECONDS]:
            del self._asked[number]
        self._asked[self._next] = now
        assert self.transport is not None
        self.transport.write(QUESTION + REST.pack(self._token, self._next), self._address)
        self._next += 1
        self._call = self._reactor.callLater(PING_SECONDS, self._ask)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if len(datagram) == len(ANSWER) + REST.size and datagram.startswith(ANSWER):
            token, number = REST.unpack_from(datagram, len(ANSWER))
            asked = self._asked.pop(number, None) if token == self._token else None
            if asked is not None:
                self.round_trips_ms.append((self._clock() - asked) * 1_000)


def percentile(values: list[float], share: float) -> float | None:
    """The value below which this share of the values lies; None of none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
