"""Round-trip times, and the timeouts that follow from them (RFC 6298)."""

from __future__ import annotations

from txutp.core.delay import DelayHistory

INITIAL_TIMEOUT_US = 1_000_000  # RFC 6298 2.1

# The wait of a tail probe beyond two round trips, because a busy peer acknowledges late (RFC 8985 7.2).
PROBE_MARGIN_US = 2_000
MAXIMUM_PROBE_DOUBLINGS = 10


class RoundTrip:
    """Smoothed round-trip time, its variation, and the timeouts that follow from them; all 0 before a sample."""

    __slots__ = ("_full_size", "minimum_us", "smoothed_us", "unmeasured_probes", "variation_us")

    def __init__(self) -> None:
        self.minimum_us: int = 0
        self.smoothed_us: int = 0
        self.variation_us: int = 0
        self.unmeasured_probes: int = 0  # tail probes since the last sample
        self._full_size: DelayHistory | None = None

    @property
    def base_us(self) -> int:
        """The round trip of a full-size packet on the empty path, of the last minutes."""
        return self.minimum_us if self._full_size is None else self._full_size.base_us

    def on_sample(self, sample_us: int) -> None:
        """Take the round trip of a packet that was sent once (the caller applies Karn's rule)."""
        if sample_us < 1:
            sample_us = 1
        smoothed_us = self.smoothed_us
        self.unmeasured_probes = 0
        if not smoothed_us:
            # RFC 6298 2.2
            self.smoothed_us = self.minimum_us = sample_us
            self.variation_us = sample_us // 2
            return
        # RFC 6298 2.3
        self.variation_us += (abs(smoothed_us - sample_us) - self.variation_us) // 4
        self.smoothed_us = smoothed_us + (sample_us - smoothed_us) // 8
        if sample_us < self.minimum_us:
            self.minimum_us = sample_us

    def on_full_size(self, sample_us: int, now_us: int) -> int:
        """Take the round trip of a full-size packet; returns the part of it that was spent in queues."""
        if self._full_size is None:
            self._full_size = DelayHistory()
        return self._full_size.on_sample(max(sample_us, 1), now_us)

    def timeout_us(self, floor_us: int, ceiling_us: int, backoff: int = 0) -> int:
        """The retransmission timeout after ``backoff`` timeouts in a row (RFC 6298 2.3, 5.5)."""
        base_us = self.smoothed_us + 4 * self.variation_us if self.smoothed_us else INITIAL_TIMEOUT_US
        return min(max(base_us, floor_us) << backoff, ceiling_us)

    def probe_timeout_us(self) -> int:
        """Returns how long to wait before the tail of the flight is probed (RFC 8985 7.2).

        The wait doubles with each probe until a round trip is measured again (Karn's rule for timeouts, RFC 6298 5).
        Otherwise each packet would be probed on a path that has become slower, and none would be a sample.
        """
        wait_us = 2 * self.smoothed_us + max(self.variation_us, PROBE_MARGIN_US)
        return wait_us << min(self.unmeasured_probes, MAXIMUM_PROBE_DOUBLINGS)

    def reordering_window_us(self, quarters: int = 1) -> int:
        """Returns by how much a later packet may overtake an earlier one that does not count as lost (RFC 8985 6.2)."""
        return max(min(quarters * self.minimum_us // 4, self.smoothed_us), 1_000)
