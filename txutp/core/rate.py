"""The delivery rate: bytes that the peer acknowledges, over the time that they took.

A sample takes half a round trip and a few packets: a shorter one would measure the gap between two acks.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

SAMPLE_SEGMENTS = 4


class DeliveryRate:
    """The delivery rate of one flow, from its acknowledgements."""

    __slots__ = ("_acked_bytes", "_acked_us", "_started_us", "bytes_per_second")

    def __init__(self) -> None:
        self.bytes_per_second: float = 0.0  # the last sample; 0 before there was one
        self._started_us = 0
        self._acked_bytes = 0
        self._acked_us = 0  # the last time

    def on_ack(self, now_us: int, acked_bytes: int, sent_us: int, smoothed_us: int, segment_bytes: int) -> float:
        """Take an ack whose newest packet left at ``sent_us``; returns a sample if one ends with it, else 0."""
        if sent_us > self._acked_us + smoothed_us:
            # the flow was idle in between, not slow
            self._started_us = sent_us
            self._acked_bytes = 0
        self._acked_us = now_us
        self._acked_bytes += acked_bytes
        elapsed_us = now_us - self._started_us
        if elapsed_us < smoothed_us // 2 or self._acked_bytes < SAMPLE_SEGMENTS * segment_bytes:
            return 0.0
        sample = self._acked_bytes * SECOND_US / max(elapsed_us, 1)
        self.bytes_per_second = sample
        self._started_us = now_us
        self._acked_bytes = 0
        return sample
