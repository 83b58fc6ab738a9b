"""Our side of the matrix of peers where they speak BitTorrent: the protocols of the examples over txutp.

    python ours_torrent.py seed FILE.torrent FILE [PORT] [OPTIONS]
    python ours_torrent.py fetch FILE.torrent FILE [PORT] [OPTIONS]

With a port it connects to that peer, otherwise it listens.  Options:

    --host ADDRESS        where to listen, or where the peer is
    --listen-port PORT    where to listen, or the port that a client leaves from
    --settings JSON       fields of ``Settings``
    --pause-seconds S     how long a leecher waits before it shows its interest

Results are lines of JSON.  {"port": P} comes first if it listens.  {"up": true} says that the other side has
acknowledged a megabyte, or has sent one.  When a connection has ended or could not be made, a line tells the error, the
name of an exception, and, of a leecher, whether the file was complete.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "examples"))

from bittorrent import PIECE, Block, Peer, Torrent
from leecher import Download, Leecher
from seeder import Seeder

UP_BYTES = 1_000_000
CONNECT_SECONDS = 10


def say(**what: object) -> None:
    """Print a line for the test."""
    print(json.dumps(what), flush=True)


class Reporting(Peer):
    """What both kinds of peers tell the test."""

    side: Side
    carried_bytes = 0

    def carried(self, length: int) -> bool:
        """Count bytes of the file; returns whether they are the ones that make a megabyte."""
        before = self.carried_bytes
        self.carried_bytes += length
        return before < UP_BYTES <= self.carried_bytes

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        error = None if reason.check(ConnectionDone) else reason.type.__name__
        say(error=error, complaint=self.complaint, complete=getattr(self, "complete", None))
        self.side.end()


class ReportingSeeder(Reporting, Seeder):
    """The seeder of the examples."""

    def send_block(self, block: Block) -> None:
        super().send_block(block)
        if self.carried(block.length):
            self.transport.acknowledged().addCallbacks(lambda _: say(up=True), lambda failure: None)


class ReportingLeecher(Reporting, Leecher):
    """The leecher of the examples, which may wait before it shows its interest."""

    has_begun = False

    @property
    def complete(self) -> bool:
        """Whether every piece is in the output."""
        return len(self.download.written) == len(self.torrent.piece_hashes)

    def greeted(self) -> None:
        reactor.callLater(self.side.options.pause_seconds, self.begin)

    def begin(self) -> None:
        """Show our interest, and ask.  libtorrent lets us ask before we have shown any."""
        self.has_begun = True
        super().greeted()
        self.ask()

    def ask(self) -> None:
        if self.has_begun:
            super().ask()

    def message_received(self, kind: int, body: bytes) -> None:
        super().message_received(kind, body)
        if kind == PIECE and self.carried(len(body)):
            say(up=True)


class Side(Factory):
    """This program."""

    noisy = False

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.torrent = Torrent.load(options.torrent)
        self.settings = Settings(**options.settings)

    def buildProtocol(self, address: object) -> Reporting:
        if self.options.verb == "seed":
            peer: Reporting = ReportingSeeder(self.torrent, open(self.options.file, "rb"))  # noqa: SIM115
        else:
            output = open(self.options.file, "wb", buffering=0)  # noqa: SIM115
            peer = ReportingLeecher(Download(self.torrent, output))
        peer.side = self
        return peer

    def end(self) -> None:
        """End the program, in a turn of its own."""
        reactor.callLater(0, reactor.stop)

    def listen(self) -> None:
        options = self.options
        endpoint = UTPServerEndpoint(reactor, options.listen_port, interface=options.host, settings=self.settings)
        endpoint.listen(self).addCallback(lambda port: say(port=port.getHost().port))

    def connect(self) -> None:
        options = self.options
        bind = ("::" if ":" in options.host else "", options.listen_port) if options.listen_port else None
        endpoint = UTPClientEndpoint(
            reactor, options.host, options.port, timeout=CONNECT_SECONDS, bindAddress=bind, settings=self.settings
        )
        connectProtocol(endpoint, self.buildProtocol(None)).addErrback(self.not_connected)

    def not_connected(self, failure: Failure) -> None:
        say(error=failure.type.__name__)
        self.end()


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["seed", "fetch"])
    parser.add_argument("torrent")
    parser.add_argument("file")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--listen-port", type=int, default=0)
    parser.add_argument("--settings", type=json.loads, default={})
    parser.add_argument("--pause-seconds", type=float, default=0)
    options = parser.parse_intermixed_args()
    side = Side(options)
    reactor.callWhenRunning(side.connect if options.port else side.listen)
    reactor.run()


if __name__ == "__main__":
    main()
