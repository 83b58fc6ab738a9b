"""libutp sends to us through a bottleneck, and keeps a short queue because we say so."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import pytest
import pytest_twisted

from .relay import Bottleneck, relayed
from .support import TRANSPORT, listening, running, within

PEER = Path(__file__).parent / "peer.js"
TOTAL_BYTES = 5_000_000

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
