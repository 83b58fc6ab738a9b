"""Our endpoints against libutp, the reference implementation, through utp-native for node.

Every test runs twice where that makes a difference: once we connect to libutp, and once libutp
connects to us. What libutp does in each test is told at the top of peer.js.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ConnectionDone, ConnectionRefusedError, TimeoutError
from twisted.internet.task import deferLater

from .support import (
    HERE,
    HOST,
    TRANSPORT,
    Echo,
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

pytestmark = pytest.mark.interop

# Large enough for several windows of one megabyte, which is what libutp offers.
MANY_BYTES = 50_000_000

# More than one window of packets, so that an end comes while data is still on its way.
SOME_BYTES = 2_000_000

# Whoever connects speaks first: libutp as the one who connects sends not a packet after the handshake
# until it has data, and as the one who listens it cannot write before it has read something.
GREETING = b"Hello."


@pytest.fixture
def node() -> list[str]:
    """The command that runs peer.js."""
    program = shutil.which("node")
    if program is None:
        pytest.fail("node is missing: install Node.js 18 or newer, for instance the package nodejs")
    if not (HERE / "node_modules" / "utp-native").is_dir():
        pytest.fail("utp-native is missing: run `npm install` in tests/interop")
    return [program, str(HERE / "peer.js")]


@pytest.fixture(params=["we connect", "they connect"])
def role(request: pytest.FixtureRequest) -> str:
    """Who connects to whom."""
    return str(request.param)


@asynccontextmanager
async def met(node: list[str], role: str, verb: str, length: int = 0) -> AsyncIterator[tuple[Stream, Program]]:
    """One connection between a stream of ours and libutp doing ``verb`` with ``length`` bytes.

    Whoever connects has said ``GREETING`` already; ``greetings`` tells who did.
    """
    what = [verb, "--bytes", str(length)]
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
            stream = await listener.stream()
            await stream.has_begun
            yield stream, peer


def greetings(role: str) -> tuple[bytes, bytes]:
    """What we and what they have said before the test itself."""
    return (GREETING, b"") if role == "we connect" else (b"", GREETING)


@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_echo(node: list[str], role: str) -> None:
    """What we send comes back."""
    ours, theirs = greetings(role)
    data = seeded_bytes(SOME_BYTES)

    async with met(node, role, "echo") as (stream, peer):
        stream.end(data)
        await stream.has_ended
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert stream.received == tally_of(theirs + ours + data)
    assert result["received"] == tally_of(ours + data)
    assert stream.reason is not None
    assert stream.reason.check(ConnectionDone)


@pytest.mark.slow
@pytest_twisted.ensureDeferred
@within(seconds=60)
async def test_fifty_megabytes_to_them(node: list[str], role: str) -> None:
    """A long transfer arrives as it was sent."""
    ours, _ = greetings(role)
    data = seeded_bytes(MANY_BYTES)

    async with met(node, role, "answer") as (stream, peer):
        stream.write_and_close(data)

        result = await peer.result()
        await peer.finished()

    assert result["received"] == tally_of(ours + data)
    assert result["error"] is None


@pytest.mark.slow
@pytest_twisted.ensureDeferred
@within(seconds=60)
async def test_fifty_megabytes_to_us(node: list[str], role: str) -> None:
    """The same in the other direction."""
    ours, theirs = greetings(role)

    async with met(node, role, "exchange", MANY_BYTES) as (stream, peer):
        await stream.has_ended
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert stream.received == result["sent"]
    assert stream.received["bytes"] == MANY_BYTES + len(theirs)
    assert result["received"] == tally_of(ours)


@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_both_directions_at_once(node: list[str], role: str) -> None:
    """Two transfers on one connection do not disturb each other."""
    ours, _ = greetings(role)
    data = seeded_bytes(5 * SOME_BYTES)

    async with met(node, role, "exchange", len(data)) as (stream, peer):
        stream.end(data)
        await stream.has_ended
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert stream.received == result["sent"]
    assert result["received"] == tally_of(ours + data)
    assert result["error"] is None


@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_half_close_by_us(node: list[str], role: str) -> None:
    """After our end, libutp sends its answer, and all of it arrives."""
    ours, theirs = greetings(role)
    question = seeded_bytes(SOME_BYTES)

    async with met(node, role, "answer", SOME_BYTES) as (stream, peer):
        stream.end(question)
        await stream.has_ended
        assert not stream.is_lost.has_come
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert result["received"] == tally_of(ours + question)
    assert stream.received == result["sent"]
    assert stream.received["bytes"] == SOME_BYTES + len(theirs)


@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_half_close_by_them(node: list[str], role: str) -> None:
    """After libutp's end, we send our answer, and all of it arrives."""
    ours, _ = greetings(role)
    answer = seeded_bytes(SOME_BYTES)

    async with met(node, role, "exchange", SOME_BYTES) as (stream, peer):
        await stream.has_ended
        assert not stream.is_lost.has_come
        stream.transport.write(answer)
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert stream.received == result["sent"]
    assert result["received"] == tally_of(ours + answer)
    assert result["ended"] is True
    assert result["error"] is None


@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_close_right_after_write_by_us(node: list[str], role: str) -> None:
    """loseConnection directly after write loses nothing, and libutp sees a clean end."""
    ours, _ = greetings(role)
    data = seeded_bytes(SOME_BYTES)

    async with met(node, role, "answer") as (stream, peer):
        stream.write_and_close(data)
        await stream.is_lost

        result = await peer.result()
        await peer.finished()

    assert result["received"] == tally_of(ours + data)
    assert result["ended"] is True
    assert result["error"] is None
    assert stream.reason is not None
    assert stream.reason.check(ConnectionDone)


@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_close_right_after_write_by_them(node: list[str], role: str) -> None:
    """libutp closes directly after its last write: we get all of it and a clean end.

    libutp forgets such a connection at once and answers our end with a reset.
    """
    _, theirs = greetings(role)

    async with met(node, role, "send-close", SOME_BYTES) as (stream, peer):
        await stream.has_ended
        await stream.close()

        result = await peer.result()
        await peer.finished()

    assert stream.received == result["sent"]
    assert stream.received["bytes"] == SOME_BYTES + len(theirs)
    assert stream.reason is not None
    # Closing like this, a kernel's TCP may reset the connection after all.
    assert stream.reason.check(ConnectionDone) or TRANSPORT == "tcp"


def digests(tallies: list[dict[str, object]]) -> list[str]:
    """The hashes in some tallies, in an order that does not depend on who finished first."""
    return sorted(str(tally["sha256"]) for tally in tallies)


@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_hundred_connections_to_them(node: list[str]) -> None:
    """A hundred connections of ours at once, each with bytes of its own."""
    questions = [seeded_bytes(20_000, seed) for seed in range(100)]

    async def ask(port: int, question: bytes) -> Stream:
        async with connected(port) as stream:
            stream.end(question)
            await stream.has_ended
            await stream.close()
        return stream

    async with running(*node, "listen", "echo", "--connections", "100") as peer:
        port = (await peer.result())["port"]
        streams = await gatherResults([Deferred.fromCoroutine(ask(port, question)) for question in questions])
        results = [await peer.result() for _ in questions]
        await peer.finished()

    assert [stream.received for stream in streams] == [tally_of(data) for data in questions]
    assert digests([result["received"] for result in results]) == digests([tally_of(data) for data in questions])


@pytest_twisted.ensureDeferred
@within(seconds=30)
async def test_hundred_connections_to_us(node: list[str]) -> None:
    """A hundred connections of libutp at once to one port of ours, each with bytes of its own."""
    how = ["exchange", "--bytes", "20000", "--connections", "100"]

    async with (
        listening(Echo) as listener,
        running(*node, "connect", str(listener.port), *how) as peer,
    ):
        results = [await peer.result() for _ in range(100)]
        await peer.finished()

    assert [result["error"] for result in results] == [None] * 100
    assert [result["received"] for result in results] == [result["sent"] for result in results]
    assert len(set(digests([result["sent"] for result in results]))) == 100


@pytest_twisted.ensureDeferred
@within(seconds=10)
async def test_connect_to_a_closed_port() -> None:
    """Nobody has the UDP port: the kernel says so, or nobody answers in time."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]

    async with AsyncExitStack() as stack:
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await stack.enter_async_context(connected(port, timeout_seconds=2))


@pytest_twisted.ensureDeferred
@within(seconds=10)
async def test_connect_to_a_port_that_does_not_speak_utp() -> None:
    """Somebody has the UDP port but never answers."""
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind((HOST, 0))

        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await stack.enter_async_context(connected(silent.getsockname()[1], timeout_seconds=2))


@pytest.mark.skipif(TRANSPORT != "utp", reason="The kernel probes for TCP.")
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
