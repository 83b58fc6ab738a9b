"""How fast data arrives at the peer: the bytes that it acknowledges, over the time that they took.

A sample needs half a round trip and a few packets: a shorter one would be about the gaps between two acks.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

SAMPLE_SEGMENTS = 4


class DeliveryRate:
    """The rate of one flow, as its acknowledgements tell it."""

    __slots__ = ("_acked_bytes", "_acked_us", "_started_us", "bytes_per_second")

    def __init__(self) -> None:
        self.bytes_per_second: float = 0.0  # the last sample; 0 before there was one
        self._started_us = 0
        self._acked_bytes = 0
        self._acked_us = 0  # the last time

    def on_ack(self, now_us: int, acked_bytes: int, sent_us: int, smoothed_us: int, segment_bytes: int) -> float:
        """So much arrived, the latest of it sent at ``sent_us``; gives a sample if one ends with it, else 0."""
        if sent_us > self._acked_us + smoothed_us:
            # what was between them was silence, not slowness
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
