"""Programs and libraries of others that take endpoint strings, given those of ``docs/howto/programs.md``."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from typing import Any

import pytest

from tests.programs.support import HOST, ROOT, Installed, tcp_ports
from tests.project.test_readme import free_port

PAGE = (ROOT / "docs" / "howto" / "programs.md").read_text(encoding="utf-8")
FETCH = shlex.quote(str(ROOT / "examples" / "fetch.py"))

pytestmark = [
    pytest.mark.clients,
    pytest.mark.skipif(os.name == "nt", reason="programs are ended as POSIX systems do it"),
]


def shown(pattern: str, port: int) -> str:
    """What the table of the page has in backticks, with another port."""
    [found] = re.findall(rf"`({pattern})`", PAGE)
    return re.sub(r"utp:\d+", f"utp:{port}", found)


@pytest.fixture(scope="module")
def here(tmp_path_factory: Any) -> Installed:
    """All of them in one environment."""
    packages = ("daphne", "klein", "treq", "autobahn", "magic-wormhole-transit-relay")
    return Installed(tmp_path_factory.mktemp("strings"), *packages)


def sha256_of_page(here: Installed, port: int) -> str:
    """Fetch a page over uTP."""
    return here.run(here.command(f"python {FETCH} http://{HOST}:{port}/page")).strip()


DAPHNE = """
content = {content!r}

async def application(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": content}})
"""


def test_daphne(here: Installed) -> None:
    content = os.urandom(1_000_000).hex()
    (here.place / "pages.py").write_text(DAPHNE.format(content=content.encode()))
    port = free_port()
    with here.running(here.command(shown("daphne .*?", port))) as server:
        server.until("Listening")
        assert port not in tcp_ports()
        assert sha256_of_page(here, port) == content
        here.stop(server)


KLEIN = """
from klein import Klein

app = Klein()

@app.route("/page")
def page(request):
    return {content!r}

{run}
"""

TREQ = """
import hashlib, sys, treq
from treq.client import HTTPClient
from twisted.internet.task import react
from twisted.web.client import Agent
from twisted.web.iweb import IAgentEndpointFactory
from txutp import UTPClientEndpoint
from zope.interface import implementer

@implementer(IAgentEndpointFactory)
class OverUTP:
    def endpointForURI(self, uri):
        return UTPClientEndpoint(reactor, uri.host, uri.port)

async def main(started):
    global reactor
    reactor = started
    {line}
    response = await client.get(sys.argv[1])
    print(hashlib.sha256(await treq.content(response)).hexdigest())

react(main, [])
"""


def test_klein_and_treq(here: Installed) -> None:
    content = os.urandom(1_000_000).hex().encode()
    port = free_port()
    run = shown(r"app\.run\(.*?\)", port)
    (here.place / "serve.py").write_text(KLEIN.format(content=content, run=run))
    [make_agent] = re.findall(r"`(Agent\.usingEndpointFactory\(.*?\))`", PAGE)
    [make_client] = re.findall(r"`(treq\.client\.HTTPClient\(agent\))`", PAGE)
    line = f"agent, factory = None, OverUTP(); agent = {make_agent}; client = {make_client}"
    (here.place / "ask.py").write_text(TREQ.format(line=line))
    with here.running(here.command("python serve.py")) as server:
        server.until("starting on")
        said = here.run(here.command(f"python ask.py http://{HOST}:{port}/page"))
        assert said.strip() == hashlib.sha256(content).hexdigest()
        here.stop(server)


AUTOBAHN = """
import hashlib, os, sys
from autobahn.twisted.websocket import (
    WebSocketClientFactory, WebSocketClientProtocol, WebSocketServerFactory, WebSocketServerProtocol
)
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString

class Server(WebSocketServerProtocol):
    def onMessage(self, payload, isBinary):
        self.sendMessage(payload, isBinary)

class Client(WebSocketClientProtocol):
    def onOpen(self):
        self.sent = os.urandom(1 << 20)
        self.sendMessage(self.sent, isBinary=True)

    def onMessage(self, payload, isBinary):
        print(type(self.transport).__name__, payload == self.sent)
        reactor.stop()

server, client = WebSocketServerFactory(), WebSocketClientFactory()
server.protocol, client.protocol = Server, Client

def listening(port):
    clientFromString(reactor, f"utp:127.0.0.1:{port.getHost().port}").connect(client)

serverFromString(reactor, "utp:0:interface=127.0.0.1").listen(server).addCallback(listening)
reactor.run()
"""


def test_autobahn(here: Installed) -> None:
    """A megabyte comes back over a WebSocket."""
    (here.place / "web_sockets.py").write_text(AUTOBAHN)
    said = here.run(here.command("python web_sockets.py"))
    assert said.splitlines()[-1].endswith(" True")
    assert "UTPClientTransport" in said.splitlines()[-1]


def test_transit_relay(here: Installed) -> None:
    """It tells the first of two clients when the second one has named the same token."""
    port = free_port()
    netcat = shlex.quote(str(ROOT / "examples" / "netcat.py"))
    with here.running(here.command(shown("twist transitrelay .*?", port))) as relay:
        relay.until(f"starting on {port}")

        def client(side: str) -> str:
            """It says what it wants, and goes on listening."""
            script = f"(echo please relay {'ab' * 32} for side {side * 16}; sleep 30) | exec python {netcat}"
            return f"bash -c {shlex.quote(f'{script} utp:{HOST}:{port}')}"

        with here.running(client("0")) as first, here.running(client("1")) as second:
            first.until("^ok")
            second.until("^ok")
        here.stop(relay)
