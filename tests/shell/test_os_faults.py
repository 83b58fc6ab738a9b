"""The operating system's faults: whatever call of a socket fails, and however long, nothing is lost, busy or left."""

from __future__ import annotations

import errno
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.logger import globalLogPublisher

from tests.shell.faults import CODES, Fault, Faulty, descriptors, faults
from tests.support import Accepting, HalfStream, Stream, pause, until
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint, adoptUTPPort, listenUTP

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Sockets are faked as those of Linux.")

LOCAL = "127.0.0.1"
STREAM_BYTES = 150_000

# What ends a stream soon.
HASTY = Settings(
    minimum_timeout_us=100_000,
    maximum_timeout_us=400_000,
    maximum_timeouts=3,
    close_timeout_us=100_000,
    tombstone_us=0,
    connect_timeout_us=2_000_000,
    keepalive_us=1_000_000,
)

OPENING = ("socket", "bind", "setsockopt", "getsockopt", "getsockname", "setblocking")
RUNNING = ("sendmsg", "recvmsg", "recvmsg of errors", "setsockopt", "getsockopt", "getsockname", "connect", "socket")
FEW = [errno.EINTR, errno.EMFILE, errno.EPERM]

# What the socket refuses waits; everything else is lost on the way.
WAITING = (errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM)

# Calls of a kind that fails for ever, in a second: far more than a timer of streams makes, far fewer than a loop.
MOST_CALLS_EACH_SECOND = 1_000


@asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No descriptor stays, and nothing is logged as an error."""
    logged: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None:
            logged.append(event["log_failure"])

    before = descriptors()
    globalLogPublisher.addObserver(observe)
    try:
        yield
        await until(lambda: descriptors() <= before)
    finally:
        globalLogPublisher.removeObserver(observe)
    assert logged == []


@asynccontextmanager
async def two_streams() -> AsyncIterator[tuple[Stream, Stream]]:
    """A client and a server that have talked a little; they are gone afterwards."""
    accepting = Accepting(HalfStream)
    port: Any = listenUTP(reactor, 0, accepting, interface=LOCAL, settings=HASTY)
    client: Any = await UTPClientEndpoint(reactor, LOCAL, port.getHost().port, settings=HASTY).connect(
        Accepting(HalfStream)
    )
    await until(lambda: accepting.made)
    server = accepting.made[0]
    client.transport.write(b"begin")
    await until(lambda: server.received)
    server.received.clear()
    try:
        yield client, server
    finally:
        Faulty.fault.left = 0
        for stream in (client, server):
            if not stream.lost:
                assert stream.transport is not None
                stream.transport.abortConnection()
        await until(lambda: client.lost and server.lost)
        await port.stopListening()


def talk(client: Stream, server: Stream) -> bytes:
    """Both write; returns what."""
    data = pattern(STREAM_BYTES)
    for stream in (client, server):
        assert stream.transport is not None
        stream.transport.write(data)
    return data


async def all_arrives(client: Stream, server: Stream, data: bytes) -> None:
    await until(lambda: len(client.received) == len(server.received) == len(data) or client.lost or server.lost, 20)
    assert not client.lost
    assert not server.lost
    assert bytes(client.received) == bytes(server.received) == data


async def warm_up() -> None:
    """What is opened once, such as the thread of timers, is open now."""
    async with two_streams() as (client, server):
        await all_arrives(client, server, talk(client, server))
    await pause(0.1)


# -- opening --


@pytest.mark.parametrize("call", OPENING)
@pytest_twisted.ensureDeferred
async def test_a_port_opens_or_says_why_not(call: str) -> None:
    """Each call of the kind fails once, the first, the second and so on."""
    await warm_up()
    for code in FEW:
        skip = 0
        failures: list[Any] = []
        fault = Fault(call, code)
        while fault.left == 0 or not skip:
            async with nothing_left():
                with faults(Fault(call, code, skip)) as fault:
                    try:
                        port = listenUTP(reactor, 0, Accepting(), interface=LOCAL)
                    except error.CannotListenError as problem:
                        failures.append(problem.socketError.errno)
                    else:
                        fault.skip = 1_000
                        await port.stopListening()
            skip += 1
        assert skip > 1, "no such call was made"
        # options are improvements
        assert set(failures) == (set() if call in ("setsockopt", "getsockopt") else {code})


@pytest.mark.parametrize("call", OPENING)
@pytest_twisted.ensureDeferred
async def test_a_client_connects_or_hears_why_not(call: str) -> None:
    await warm_up()
    accepting = Accepting()
    server: Any = listenUTP(reactor, 0, accepting, interface=LOCAL, settings=HASTY)
    for code in FEW:
        skip = 0
        failures: list[Any] = []
        fault = Fault(call, code)
        while fault.left == 0 or not skip:
            async with nothing_left():
                with faults(Fault(call, code, skip)) as fault:
                    attempt = UTPClientEndpoint(reactor, LOCAL, server.getHost().port, timeout=9, settings=HASTY)
                    try:
                        client: Any = await attempt.connect(Accepting())
                    except error.ConnectBindError as problem:
                        failures.append(problem.osError)
                    else:
                        fault.skip = 1_000
                        client.transport.abortConnection()
                        await until(lambda client=client: client.lost)
            skip += 1
        assert skip > 1, "no such call was made"
        assert set(failures) == (set() if call in ("setsockopt", "getsockopt") else {code})
    await until(lambda: all(stream.lost for stream in accepting.made))
    await server.stopListening()


@pytest.mark.parametrize("call", ["dup", "socket", "getsockname", "setblocking", "setsockopt", "getsockopt"])
@pytest_twisted.ensureDeferred
async def test_a_socket_is_adopted_or_left_as_it_was(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await warm_up()
    theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    theirs.bind((LOCAL, 0))
    dup = os.dup

    def asking_dup(descriptor: int) -> int:
        Faulty.fault.ask("dup")
        return dup(descriptor)

    monkeypatch.setattr(os, "dup", asking_dup)
    for code in FEW:
        skip = 0
        fault = Fault(call, code)
        while fault.left == 0 or not skip:
            async with nothing_left():
                with faults(Fault(call, code, skip)) as fault:
                    try:
                        port = adoptUTPPort(reactor, theirs.fileno(), Accepting())
                    except (error.CannotListenError, OSError, ValueError):
                        pass
                    else:
                        fault.skip = 1_000
                        await port.stopListening()
            skip += 1
        assert skip > 1, "no such call was made"
    theirs.close()


@pytest_twisted.ensureDeferred
async def test_a_descriptor_that_is_no_socket_leaves_none() -> None:
    async with nothing_left():
        with open(os.devnull, "rb") as nothing, pytest.raises(ValueError, match="is not an open socket"):
            adoptUTPPort(reactor, nothing.fileno(), Accepting())


@pytest_twisted.ensureDeferred
async def test_a_close_that_fails_has_closed() -> None:
    """Whoever waits for the end of the port hears of it."""
    await warm_up()
    async with nothing_left():
        with faults(Fault("close", errno.EIO, left=0)) as fault:
            port = listenUTP(reactor, 0, Accepting(), interface=LOCAL)
            fault.left = 10
            await port.stopListening()
            assert fault.calls


# -- running --


@pytest.mark.parametrize("call", RUNNING)
@pytest_twisted.ensureDeferred
async def test_a_call_that_fails_once_costs_nothing(call: str) -> None:
    """With any error, in mid-stream."""
    await warm_up()
    fails = 0
    for code in CODES if call in ("sendmsg", "recvmsg") else FEW:
        async with nothing_left():
            with faults(Fault(call, code, left=0)) as fault:
                async with two_streams() as (client, server):
                    fault.skip, fault.left = 2, 1
                    await all_arrives(client, server, talk(client, server))
                    fails += not fault.left
    assert fails or call not in ("sendmsg", "recvmsg")


@pytest.mark.parametrize("call", ["sendmsg", "recvmsg"])
@pytest_twisted.ensureDeferred
async def test_a_call_that_fails_for_a_while_costs_nothing_but_time(call: str) -> None:
    await warm_up()
    for code in CODES:
        async with nothing_left():
            with faults(Fault(call, code, left=0)) as fault:
                async with two_streams() as (client, server):
                    fault.left, fault.calls = 1_000_000, 0
                    data = talk(client, server)
                    await pause(0.1)
                    fault.left = 0
                    assert 0 < fault.calls < 0.1 * MOST_CALLS_EACH_SECOND + 50
                    await all_arrives(client, server, data)


@pytest.mark.parametrize("code", [errno.EINTR, errno.ENOMEM, errno.ENETDOWN, errno.ECONNREFUSED])
@pytest.mark.parametrize("call", ["sendmsg", "recvmsg"])
@pytest_twisted.ensureDeferred
async def test_a_call_that_fails_for_ever_ends_streams_once(call: str, code: int) -> None:
    """Each end is told; a socket that is full waits instead.  Nothing is busy, not even afterwards."""
    await warm_up()
    waits = call == "sendmsg" and code in WAITING
    async with nothing_left():
        with faults(Fault(call, code, left=0)) as fault:
            async with two_streams() as (client, server):
                fault.left, fault.calls = 1_000_000, 0
                began = time.monotonic()
                talk(client, server)
                if not waits:
                    await until(lambda: client.lost and server.lost, 20)
                    assert client.lost_type is server.lost_type is error.ConnectionLost
                await pause(0.5)
                assert fault.calls < MOST_CALLS_EACH_SECOND * (time.monotonic() - began)
                assert bool(client.lost) is not waits
                fault.left = 0
                if waits:
                    data = pattern(STREAM_BYTES)
                    await all_arrives(client, server, data)
