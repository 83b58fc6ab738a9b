"""libutp at the other end of a bad path: lost and reordered datagrams, both directions, both roles."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted

from .relay import Path, relayed
from .support import TRANSPORT, Program, Stream, connected, listening, running, seeded_bytes, tally_of, within
from .test_utp_native import GREETING, greetings, node, role

__all__ = ["node", "role"]  # fixtures

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TRANSPORT == "tcp", reason="only UDP can be relayed"),
]

# libutp resends what its four-byte selective ack does not reach only after a timeout of a second each, so on bad
# paths less has to do: ten megabytes at two percent of loss take it more than a minute.
PATHS = {
    "clean": (Path(), 10_000_000),
    "2 % loss": (Path(loss=0.02), 3_000_000),
    "10 % loss": (Path(loss=0.10), 100_000),
    "20 % reordering": (Path(reorder=0.20), 10_000_000),
}


@asynccontextmanager
async def met(node: list[str], role: str, path: Path, length: int) -> AsyncIterator[tuple[Stream, Program]]:
    """A connection across a bad path to libutp, which sends ``length`` bytes while it reads."""
    what = ["exchange", "--bytes", str(length)]
    if role == "we connect":
        async with (
            running(*node, "listen", *what) as peer,
            relayed((await peer.result())["port"], path) as (front, _),
            connected(front) as stream,
        ):
            stream.transport.write(GREETING)
            yield stream, peer
    else:
        async with (
            listening() as listener,
            relayed(listener.port, path) as (front, _),
            running(*node, "connect", str(front), *what, "--greeting", GREETING.decode()) as peer,
        ):
            stream = await listener.stream()
            await stream.has_begun
            yield stream, peer


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
@pytest_twisted.ensureDeferred
@within(seconds=180)
async def test_streams_over_a_bad_path(node: list[str], role: str, name: str) -> None:
    """Both directions at once; every byte arrives."""
    path, length = PATHS[name]
    ours, _ = greetings(role)
    data = seeded_bytes(length)

    async with met(node, role, path, length) as (stream, peer):
        stream.end(data)
        await stream.has_ended
        await stream.close()

        result = await peer.result()

    assert stream.received == result["sent"]
    assert result["received"] == tally_of(ours + data)
