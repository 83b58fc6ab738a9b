"""libutp sends to us through a bottleneck, and keeps a short queue because we say so."""

from __future__ import annotations

import shutil
import statistics
import time
from pathlib import Path

import pytest
import pytest_twisted

from .relay import Bottleneck, relayed
from .support import TRANSPORT, listening, running, within

PEER = Path(__file__).parent / "peer.js"
TOTAL_BYTES = 5_000_000
CAPPED_BYTES = 1_000_000
CAP = 200_000
LIBUTP_SEGMENT_BYTES = 1_382

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TRANSPORT == "tcp", reason="only UDP can be relayed"),
    pytest.mark.skipif(shutil.which("node") is None, reason="node is missing"),
]


@pytest_twisted.ensureDeferred
@within(seconds=60)
async def test_libutp_yields_to_its_receiver() -> None:
    """Left alone it keeps 100 ms of packets waiting; 5 Mbit/s, 40 ms."""
    bottleneck = Bottleneck(625_000, 0.04)
    async with listening() as listener, relayed(listener.port, bottleneck) as (port, _):
        command = ("node", str(PEER), "connect", str(port), "send-close", "--bytes", str(TOTAL_BYTES))
        async with running(*command) as peer:
            stream = await listener.stream()
            result = await peer.result()
            await peer.finished()
            await stream.has_ended
            stats = stream.transport.stats()  # type: ignore[union-attr]

    assert stream.received == result["sent"]
    assert stats.receive_window < 200_000
    waits = bottleneck.waits_seconds[len(bottleneck.waits_seconds) // 2 :]
    assert statistics.median(waits) < 0.06


@pytest_twisted.ensureDeferred
@within(seconds=60)
async def test_libutp_sends_no_faster_than_a_cap_says() -> None:
    """A third of what the bottleneck carries: nothing waits there, and next to nothing is sent twice."""
    bottleneck = Bottleneck(625_000, 0.04)
    async with listening() as listener, relayed(listener.port, bottleneck) as (port, _):
        command = ("node", str(PEER), "connect", str(port), "send-close", "--bytes", str(CAPPED_BYTES))
        async with running(*command) as peer:
            stream = await listener.stream()
            stream.transport.setRateLimit(down=CAP)  # type: ignore[union-attr]
            began, before_bytes = time.monotonic(), stream.transport.stats().bytes_received  # type: ignore[union-attr]
            result = await peer.result()
            await peer.finished()
            await stream.has_ended
            seconds = time.monotonic() - began
            stats = stream.transport.stats()  # type: ignore[union-attr]

    assert stream.received == result["sent"]
    # what fits in a round trip may have been on its way before the peer heard of the cap
    assert seconds > 0.9 * (CAPPED_BYTES - before_bytes - 60_000) / CAP
    waits = bottleneck.waits_seconds[len(bottleneck.waits_seconds) // 4 :]
    assert statistics.median(waits) < 0.02
    assert stats.segs_in < 1.05 * CAPPED_BYTES / LIBUTP_SEGMENT_BYTES + 20
