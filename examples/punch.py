"""Meet a peer that calls us while we call it, as two peers behind NATs do (BEP 55, "hole punching").

    python examples/punch.py OUR_HOST:PORT PEER_HOST:PORT

Both sides are started at about the same time, each with the address of the other one. In BitTorrent a third peer, which
is connected to both, tells them to begin. Each side listens and calls from one UDP port, so both calls may succeed: the
two connections differ in the side that began them, and both sides drop the same one.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import react
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint

GIVE_UP_SECONDS = 20

# A NAT or a host that was not called by its own side yet may answer "port unreachable": that must not end the attempt.
# The first SYN opens our NAT and rarely gets through, so the second one leaves soon.
PUNCHING = Settings(believe_unreachable=False, syn_timeout_us=500_000)

OUR_ID = os.urandom(8).hex()


class Peer(LineReceiver):
    """Tells the other side our id, and keeps one connection to each id."""

    known: dict[str, Peer] = {}

    def __init__(self, we_began: bool) -> None:
        self.we_began = we_began
        self.id = ""

    def connectionMade(self) -> None:
        self.sendLine(OUR_ID.encode())

    def lineReceived(self, line: bytes) -> None:
        self.id = line.decode()
        print(f"{self.id} is here, by {'our' if self.we_began else 'its'} call", flush=True)
        twin = self.known.setdefault(self.id, self)
        if twin is not self:
            # Both sides know both ids, so they agree: the call of the smaller id stays.
            stays, goes = (self, twin) if self.we_began == (self.id > OUR_ID) else (twin, self)
            self.known[self.id] = stays
            goes.transport.loseConnection()
            print(f"{self.id} stays, by {'our' if stays.we_began else 'its'} call", flush=True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.known.get(self.id) is self:
            del self.known[self.id]
            print(f"{self.id} has gone: {reason.getErrorMessage()}", flush=True)


def address(text: str) -> tuple[str, int]:
    """A numeric host and a port."""
    host, _, port = text.rpartition(":")
    return host, int(port)


async def main(reactor: Any, ours: str, theirs: str) -> None:
    """Listen, call, and stay until interrupted; without an answer, end."""
    here, there = address(ours), address(theirs)
    server = UTPServerEndpoint(reactor, here[1], interface=here[0])
    await server.listen(Factory.forProtocol(lambda: Peer(we_began=False)))
    client = UTPClientEndpoint(reactor, *there, timeout=GIVE_UP_SECONDS, bindAddress=here, settings=PUNCHING)
    try:
        await connectProtocol(client, Peer(we_began=True))
    except ConnectError as problem:
        if not Peer.known:
            sys.exit(f"The peer does not answer. {problem}")
    await Deferred()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
