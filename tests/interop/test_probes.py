"""Probes of a peer's presence: libutp and npm's ``utp`` answer them, and do not deliver what is in them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.missing import leave_out

from .matrix import ROLES, WE_CONNECT, Peer
from .streams import GREETING
from .support import (
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
from .table import NPM_UTP, UTP_NATIVE

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(TRANSPORT != "utp", reason="The kernel probes for TCP."),
]


@asynccontextmanager
async def met(peer: Peer, role: str) -> AsyncIterator[tuple[Stream, Program]]:
    """A connection between a stream of ours and a peer that sends back what comes; the side that connects greets."""
    if missing := peer.missing():
        leave_out(missing)
    if role == WE_CONNECT:
        async with (
            running(*peer.command(), "listen", "echo") as program,
            connected((await program.result())["port"]) as stream,
        ):
            stream.transport.write(GREETING.encode())
            yield stream, program
    else:
        async with listening() as listener:
            call = [*peer.command(), "connect", str(listener.port), "echo", "--greeting", GREETING]
            async with running(*call) as program:
                yield await listener.stream(), program


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("peer", [UTP_NATIVE, NPM_UTP], ids=lambda peer: peer.name.replace(" ", "-"))
@pytest_twisted.ensureDeferred
@within(seconds=60)
async def test_a_probe_is_answered_and_not_delivered(peer: Peer, role: str) -> None:
    """So a peer that is gone is found; what follows arrives as before."""
    data = seeded_bytes(300_000)  # npm's utp alters a stream of more than 512 packets where one is repeated needlessly

    async with met(peer, role) as (stream, program):
        await stream.has_begun
        assert await is_probed(stream)
        stream.transport.write(data)
        length = len(GREETING) + len(data)
        while stream.received["bytes"] < length:
            await deferLater(reactor, 0.01)
        await stream.close()
        result = await program.result()

    ours, theirs = (GREETING.encode(), b"") if role == WE_CONNECT else (b"", GREETING.encode())
    assert stream.received == tally_of(theirs + ours + data)
    assert result["received"] == tally_of(ours + data)
