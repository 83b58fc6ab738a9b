"""What some simulated transfers come to, to the last packet.

A change of behaviour shows here in review.  ``python -m tests.wire.test_pinned_runs`` prints the table of a change that
is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.support import Pair
from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow
from txutp.testing import Link


@dataclass(frozen=True)
class Run:
    """4 MB over a path; the link is the way there, the way back has its delay and loss only."""

    controller: type
    delay_ms: float
    megabits: float
    queue_packets: int
    loss: float = 0.0
    reorder: float = 0.0

    def counters(self) -> tuple[int, int, int, int, int]:
        """Packets sent, packets acknowledged with, packets sent again, timeouts, and milliseconds that it took."""
        delay_us = round(self.delay_ms * 1_000)
        link = Link(
            delay_us=delay_us,
            rate_bytes_per_second=self.megabits * 125_000,
            queue_bytes=self.queue_packets * 1_430,
            loss=self.loss,
            reorder=self.reorder,
        )
        settings = Settings(congestion=self.controller, receive_buffer_bytes=4 << 20)
        if self.controller is not Shallow:
            settings = replace(settings, receive_target_delay_us=None)  # the receiver would shorten their queues
        pair = Pair(link, Link(delay_us=delay_us, loss=self.loss), settings=settings)
        began_us = pair.network.now_us
        pair.client.transport.write(bytes(TOTAL_BYTES))
        assert pair.run(300, until=lambda: len(pair.server.received) == TOTAL_BYTES), pair.network
        took_ms = (pair.network.now_us - began_us) // 1_000
        stats = pair.client.transport.stats()
        return stats.segs_out, stats.segs_in, stats.segs_retrans, stats.timeouts, took_ms


TOTAL_BYTES = 4_000_000

RUNS = {
    "buffer bloat": Run(Shallow, 25, 2, 500),
    "local network": Run(Shallow, 1, 100, 180),
    "straw": Run(Shallow, 50, 10, 10),
    "satellite": Run(Shallow, 300, 10, 500),
    "flaky wifi": Run(Shallow, 20, 10, 64, loss=0.02, reorder=0.02),
    "buffer bloat, ledbat++": Run(LedbatPlusPlus, 25, 2, 500),
    "buffer bloat, ledbat": Run(Ledbat, 25, 2, 500),
    "flaky wifi, ledbat": Run(Ledbat, 20, 10, 64, loss=0.02, reorder=0.02),
}

PINNED = {
    "buffer bloat": (2898, 2892, 0, 0, 17067),
    "local network": (2897, 2886, 0, 0, 339),
    "straw": (2996, 2861, 98, 0, 5897),
    "satellite": (2898, 2720, 0, 0, 8465),
    "flaky wifi": (2944, 2832, 46, 0, 5753),
    "buffer bloat, ledbat++": (2898, 2892, 0, 0, 17797),
    "buffer bloat, ledbat": (2898, 2892, 0, 0, 16668),
    "flaky wifi, ledbat": (2967, 2856, 69, 0, 6364),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_what_it_was(name: str) -> None:
    assert RUNS[name].counters() == PINNED[name]


def main() -> None:
    """Print the table as it would be now."""
    for name, run in RUNS.items():
        print(f'    "{name}": {run.counters()},')


if __name__ == "__main__":
    main()
