"""What the two ends of a measurement say to each other: lines of JSON, each an object, on a control stream.

The client begins with ``{"txutp-perf": 1, "test": {...}}``.  The server answers with ``{"accepted": TOKEN}``, or with
``{"error": SENTENCE}`` and closes.  The client opens the data streams; each begins with one line,
``{"txutp-perf": 1, "token": TOKEN, "stream": NUMBER}``.  When the server has all of them it says ``{"begin": true}``,
and data flow.  Meanwhile each end says ``{"sample": {...}}`` after each interval; the last one has the key ``ended``.
Then the client closes the control stream.

Everything that comes is checked here and in ``messages.py``; ``ProtocolError`` has a sentence for people.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from txutp.cli.messages import (
    LARGEST_COUNT,
    ProtocolError,
    checked,
    count,
    flag,
    optional,
    quantity,
)
from txutp.congestion import CONTROLLERS
from txutp.core.settings import LIMITS, Settings

NAME = "txutp-perf"
VERSION = 1

LONGEST_FIRST_LINE_BYTES = 4 * 1024

TOKEN_BYTES = 16
MAXIMUM_STREAMS = 128
LONGEST_BLOCK_BYTES = 1 << 20
LONGEST_TEST_SECONDS = 7 * 24 * 3600.0
SHORTEST_INTERVAL_SECONDS = 0.1


def greeting_of(message: dict[str, Any]) -> dict[str, Any]:
    """Returns the first message of a connection; raises ``ProtocolError`` unless it is of our version."""
    if NAME not in message:
        raise ProtocolError("this port measures; it speaks the protocol of txutp perf only")
    if message[NAME] != VERSION:
        raise ProtocolError(f"this end speaks version {VERSION} of the protocol of txutp perf, and not yours")
    return message


def token_of(value: Any) -> str:
    """Returns the token of a test; it is in hexadecimal digits."""
    if not isinstance(value, str) or len(value) != 2 * TOKEN_BYTES or set(value) - set(string.hexdigits):
        raise ProtocolError("a token is none")
    return value


def _controller(value: Any) -> str:
    if not isinstance(value, str) or value not in CONTROLLERS:
        raise ProtocolError(f"a congestion controller is one of {', '.join(CONTROLLERS)}")
    return value


def _target(value: Any) -> int:
    lowest, highest = LIMITS["target_delay_us"]
    return count(value, lowest, highest or LARGEST_COUNT)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a test is to be.  ``from_message`` has checked each value."""

    seconds: float
    """How long to send; without meaning if there are ``total_bytes``."""
    total_bytes: int | None = None
    """What to send in each direction, all streams together."""
    streams: int = 1
    reverse: bool = False
    """Whether the server sends, and not the client."""
    bidirectional: bool = False
    """Whether both send."""
    block_bytes: int = 64 * 1024
    """How much one write has."""
    omit_seconds: float = 0.0
    """Time at the beginning that counts in no total; it comes in addition to ``seconds``."""
    interval_seconds: float = 1.0
    bits_per_second: int | None = None
    """The rate of each stream; None: as fast as it goes."""
    congestion: str | None = None
    """Name of the congestion controller; None: that of each end."""
    target_delay_us: int | None = None

    @property
    def client_sends(self) -> bool:
        """Whether data go from the client to the server."""
        return self.bidirectional or not self.reverse

    @property
    def server_sends(self) -> bool:
        """Whether data go from the server to the client."""
        return self.bidirectional or self.reverse

    def bytes_of_stream(self, number: int) -> int | None:
        """The part of ``total_bytes`` that a stream sends."""
        if self.total_bytes is None:
            return None
        share, rest = divmod(self.total_bytes, self.streams)
        return share + (number < rest)

    @property
    def settings_changes(self) -> dict[str, Any]:
        """The fields of ``Settings`` that the test asks for.

        The sender's controller is measured, so no receiver holds it back.
        """
        changes: dict[str, Any] = {"receive_target_delay_us": None}
        if self.congestion is not None:
            changes["congestion"] = CONTROLLERS[self.congestion]
        if self.target_delay_us is not None:
            changes["target_delay_us"] = self.target_delay_us
        return changes

    def as_message(self) -> dict[str, Any]:
        """Returns what the client's first message says."""
        return {NAME: VERSION, "test": asdict(self)}

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Parameters:
        """Returns what such a message asks for."""
        parameters = cls(**checked("the test", PARAMETERS, message.get("test")))
        try:
            Settings(**parameters.settings_changes)
        except ValueError as problem:
            raise ProtocolError(str(problem)) from problem
        return parameters


PARAMETERS: dict[str, Callable[[Any], Any]] = {
    "seconds": lambda value: quantity(value, 0.0, LONGEST_TEST_SECONDS),
    "total_bytes": optional(lambda value: count(value, 1)),
    "streams": lambda value: count(value, 1, MAXIMUM_STREAMS),
    "reverse": flag,
    "bidirectional": flag,
    "block_bytes": lambda value: count(value, 1, LONGEST_BLOCK_BYTES),
    "omit_seconds": lambda value: quantity(value, 0.0, LONGEST_TEST_SECONDS),
    "interval_seconds": lambda value: quantity(value, SHORTEST_INTERVAL_SECONDS, LONGEST_TEST_SECONDS),
    "bits_per_second": optional(lambda value: count(value, 8)),
    "congestion": optional(_controller),
    "target_delay_us": optional(_target),
}


@dataclass(frozen=True, slots=True)
class StreamSample:
    """How one end of a stream is doing.  Bytes and segments are counted from its beginning."""

    sent_bytes: int = 0
    """Those that the other end has acknowledged, where the transport tells; else those that were written."""
    received_bytes: int = 0
    retransmitted_segments: int | None = None
    cwnd_bytes: int | None = None
    rtt_ms: float | None = None
    queue_delay_ms: float | None = None
    """What our packets waited in queues."""
    reverse_queue_delay_ms: float | None = None
    """What those of the other end did."""
    sent_seconds: float = 0.0
    """When the last byte that counts in ``sent_bytes`` was acknowledged, from the beginning of the test on."""
    received_seconds: float = 0.0
    """When the last byte came."""


STREAM_SAMPLE: dict[str, Callable[[Any], Any]] = {
    "sent_bytes": count,
    "received_bytes": count,
    "retransmitted_segments": optional(count),
    "cwnd_bytes": optional(count),
    "rtt_ms": optional(quantity),
    "queue_delay_ms": optional(quantity),
    "reverse_queue_delay_ms": optional(quantity),
    "sent_seconds": quantity,
    "received_seconds": quantity,
}
assert list(STREAM_SAMPLE) == [field.name for field in fields(StreamSample)]
assert list(PARAMETERS) == [field.name for field in fields(Parameters)]


@dataclass(frozen=True, slots=True)
class Sample:
    """How one end of a test is doing."""

    number: int
    """Intervals since the beginning."""
    seconds: float
    """Time since the beginning, by the clock of this end."""
    streams: tuple[StreamSample, ...]
    ended: bool = False
    """Whether it is the last one."""

    def as_message(self) -> dict[str, Any]:
        """Returns what the end tells the other one."""
        streams = [list(asdict(stream).values()) for stream in self.streams]
        return {"sample": {"number": self.number, "seconds": self.seconds, "ended": self.ended, "streams": streams}}

    @classmethod
    def from_message(cls, message: dict[str, Any], streams: int) -> Sample:
        """Returns the sample in a message, of a test with this number of streams."""
        values = checked("a sample", SAMPLE, message.get("sample"))
        rows = values["streams"]
        if len(rows) != streams or any(len(row) != len(STREAM_SAMPLE) for row in rows):
            raise ProtocolError("a sample is not of this test")
        taken = [checked("a sample", STREAM_SAMPLE, dict(zip(STREAM_SAMPLE, row, strict=True))) for row in rows]
        return cls(values["number"], values["seconds"], tuple(StreamSample(**row) for row in taken), values["ended"])


def _rows(value: Any) -> list[list[Any]]:
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        raise ProtocolError("this is not a list of lists")
    return value


SAMPLE: dict[str, Callable[[Any], Any]] = {"number": count, "seconds": quantity, "ended": flag, "streams": _rows}
