"""A client that stays connected: it tries again, with growing patience, whenever the connection is gone.

    python examples/reconnect.py utp:127.0.0.1:6881

It prints each line that the server says.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure


class Listener(LineOnlyReceiver):
    def connectionMade(self) -> None:
        print("connected", flush=True)

    def lineReceived(self, line: bytes) -> None:
        print(f"heard {line.decode()}", flush=True)

    def connectionLost(self, reason: Failure) -> None:
        print("lost", flush=True)


async def main(reactor: Any, where: str) -> None:
    patience = backoffPolicy(initialDelay=0.2, maxDelay=30)
    ClientService(clientFromString(reactor, where), Factory.forProtocol(Listener), patience).startService()
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
