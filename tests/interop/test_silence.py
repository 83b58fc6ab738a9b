"""A port where something listens that does not speak uTP, and never answers."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack

import pytest
import pytest_twisted
from twisted.internet.error import ConnectionRefusedError, TimeoutError

from .support import HOST, connected, within

pytestmark = pytest.mark.interop


@pytest_twisted.ensureDeferred
@within(seconds=10)
async def test_connect_to_a_port_that_does_not_speak_utp() -> None:
    """The attempt fails when its time is over, or before."""
    async with AsyncExitStack() as stack:
        silent = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        silent.bind((HOST, 0))

        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            await stack.enter_async_context(connected(silent.getsockname()[1], timeout_seconds=2))
