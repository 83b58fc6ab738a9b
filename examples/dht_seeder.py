"""Offer the file of a torrent, and be a node of the DHT on the same UDP port, so that others find it by its hash.

    python examples/dht_seeder.py FILE.torrent FILE PORT [INTERFACE]

uTP and the DHT (BEP 5) tell their datagrams apart by how they begin; txutp hands on what is not its own. The node here
knows only itself: it answers what others ask, and whoever asks for the peers of this torrent gets our address.
"""

from __future__ import annotations

import os
import sys
from socket import inet_aton
from typing import Any

from bittorrent import Torrent, bdecode, bencode
from seeder import SeederFactory
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import react

from txutp import UTPServerEndpoint

TOKEN = b"anybody"


class Node(DatagramProtocol):
    """A DHT node: an ordinary Twisted protocol that does not know of uTP."""

    noisy = False

    def __init__(self, torrent: Torrent) -> None:
        self.torrent = torrent
        self.id = os.urandom(20)

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        try:
            message = bdecode(datagram)
            query, transaction = message[b"q"], message[b"t"]
            answer = self.answer(query, message[b"a"], addr)
        except Exception:
            return  # no query, or nonsense
        print(f"{query.decode()} from {addr[0]}:{addr[1]}", file=sys.stderr)
        reply = {b"t": transaction, b"y": b"r", b"r": {b"id": self.id, **answer}}
        self.transport.write(bencode(reply), addr)

    def answer(self, query: bytes, arguments: dict[bytes, Any], asker: Any) -> dict[bytes, Any]:
        """What to say to a query beside our id; KeyError if it is none that we know."""
        if query == b"get_peers" and arguments[b"info_hash"] == self.torrent.info_hash:
            # BEP 5 "compact peer info": where we are, as far as the asker is concerned
            here = self.transport.getHost()
            host = asker[0] if here.host == "0.0.0.0" else here.host
            return {b"token": TOKEN, b"values": [inet_aton(host) + here.port.to_bytes(2, "big")]}
        answers: dict[bytes, dict[bytes, Any]] = {
            b"ping": {},
            b"announce_peer": {},
            b"find_node": {b"nodes": b""},
            b"get_peers": {b"token": TOKEN, b"nodes": b""},
        }
        return answers[query]


async def main(reactor: Any, torrent_path: str, content_path: str, port: str, interface: str = "") -> None:
    """Listen, tell the address on one line, and serve until interrupted."""
    torrent = Torrent.load(torrent_path)
    with open(content_path, "rb") as content:
        endpoint = UTPServerEndpoint(reactor, int(port), interface=interface, datagramProtocol=Node(torrent))
        address = (await endpoint.listen(SeederFactory(torrent, content))).getHost()
        print(f"{torrent.name} is offered on {address.host} port {address.port}, the DHT too", flush=True)
        await Deferred()


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    react(main, sys.argv[1:])
