"""Our endpoints against npm's ``utp``, which is written in JavaScript and reads nothing of BEP 29 but the header.

It takes whatever follows the header of a DATA packet for the stream, so an extension there would be read as data.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from .support import (
    HERE,
    TRANSPORT,
    Program,
    Stream,
    connected,
    is_probed,
    listening,
    running,
    seeded_bytes,
    tally_of,
    within,
)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TRANSPORT != "utp", reason="the package speaks nothing else"),
]

# Many times what is enough to look for larger datagrams.
SOME_BYTES = 300_000

# The side that connects speaks first, because the package sends nothing after the handshake until it has data.
GREETING = b"Hello."


@pytest.fixture
def node() -> list[str]:
    """The command that runs peer.js."""
    program = shutil.which("node")
    if program is None:
        pytest.fail("node is missing: install Node.js 18 or newer, for instance the package nodejs")
    if not (HERE / "node_modules" / "utp").is_dir():
        pytest.fail("utp is missing: run `npm install` in tests/interop")
    return [program, str(HERE / "peer.js")]


@asynccontextmanager
async def met(node: list[str], role: str, verb: str, length: int = 0) -> AsyncIterator[tuple[Stream, Program]]:
    """One connection between a stream of ours and npm's ``utp`` doing ``verb`` with ``length`` bytes.

    The side that connects has said ``GREETING`` already.
    """
    what = [verb, "--bytes", str(length), "--javascript"]
    if role == "we connect":
        async with running(*node, "listen", *what) as peer:
            port = (await peer.result())["port"]
            async with connected(port) as stream:
                stream.transport.write(GREETING)
                yield stream, peer
    else:
        what += ["--greeting", GREETING.decode()]
        async with (
            listening() as listener,
            running(*node, "connect", str(listener.port), *what) as peer,
        ):
            yield await listener.stream(), peer


def greetings(role: str) -> tuple[bytes, bytes]:
    """What we and what they have said before the test itself."""
    return (GREETING, b"") if role == "we connect" else (b"", GREETING)


@pytest.mark.parametrize("role", ["we connect", "they connect"])
@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_echo(node: list[str], role: str) -> None:
    """What comes back is what we sent, to the byte."""
    data = seeded_bytes(SOME_BYTES)
    async with met(node, role, "echo") as (stream, peer):
        stream.end(data)
        await stream.has_ended
        await stream.close()
        result = await peer.result()
    ours, theirs = greetings(role)
    assert result["received"] == tally_of(ours + data)
    assert stream.received == tally_of(theirs + ours + data)


@pytest.mark.parametrize("role", ["we connect", "they connect"])
@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_both_directions_at_once(node: list[str], role: str) -> None:
    """Each side sends while it receives, so acks travel in data and alone."""
    data = seeded_bytes(SOME_BYTES)
    async with met(node, role, "exchange", SOME_BYTES) as (stream, peer):
        stream.end(data)
        await stream.has_ended
        await stream.close()
        result = await peer.result()
    ours, _ = greetings(role)
    assert result["received"] == tally_of(ours + data)
    assert stream.received == result["sent"]


@pytest.mark.parametrize("role", ["we connect", "they connect"])
@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_a_probe_is_answered_and_not_delivered(node: list[str], role: str) -> None:
    """So a peer that is gone is found; what follows arrives as before."""
    data = seeded_bytes(SOME_BYTES)

    async with met(node, role, "echo") as (stream, peer):
        await stream.has_begun
        assert await is_probed(stream)
        stream.transport.write(data)
        length = len(GREETING) + len(data)
        while stream.received["bytes"] < length:
            await deferLater(reactor, 0.01)
        await stream.close()
        result = await peer.result()

    ours, theirs = (GREETING, b"") if role == "we connect" else (b"", GREETING)
    assert stream.received == tally_of(theirs + ours + data)
    assert result["received"] == tally_of(ours + data)
