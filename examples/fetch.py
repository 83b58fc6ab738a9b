"""Fetch a file from a web server that listens on a uTP port, and write it to standard output.

    python examples/fetch.py http://127.0.0.1:8080/README.md

HTTP does not notice: Twisted's ``Agent`` asks for an endpoint, and gets one that speaks uTP.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, ResponseDone
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txutp import UTPClientEndpoint


@implementer(IAgentEndpointFactory)
class OverUTP:
    """Tells an ``Agent`` where to connect to."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def endpointForURI(self, uri: URI) -> UTPClientEndpoint:
        return UTPClientEndpoint(self.reactor, uri.host, uri.port)


class Output(Protocol):
    """Writes the body of a response to standard output as it comes."""

    def __init__(self) -> None:
        # Fires when the body has ended: with a result if it is complete.
        self.finished: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ResponseDone):
            self.finished.callback(None)
        else:
            self.finished.errback(reason)


async def main(reactor: Any, url: str) -> None:
    """Get one file; without it the process ends with status 1."""
    agent = Agent.usingEndpointFactory(reactor, OverUTP(reactor))
    try:
        response = await agent.request(b"GET", url.encode())
    except ConnectError as error:
        sys.exit(f"{url}: {error}")
    if response.code != 200:
        sys.exit(f"{url}: {response.code} {response.phrase.decode()}")
    output = Output()
    response.deliverBody(output)
    await output.finished


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    react(main, sys.argv[1:])
