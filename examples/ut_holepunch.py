"""Peers behind NATs meet with the help of a third one: BitTorrent's ut_holepunch (BEP 55) over uTP.

    python examples/ut_holepunch.py relay 6881
    python examples/ut_holepunch.py peer 192.0.2.1:6881

The relay is a peer that everybody can reach.  It tells a new peer the addresses of those that are there (ut_pex,
BEP 11).  For each of them the new peer asks the relay for a rendezvous.  The relay tells both sides to connect, and
each side's first packet opens its own NAT for the other side.  It needs bencode2 (the extra `examples`).
"""

from __future__ import annotations

import ipaddress
import os
import struct
import sys
from typing import Any

from punch import GIVE_UP_SECONDS, PUNCHING, address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import react
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure

from txutp import UTPClientEndpoint, UTPServerEndpoint

try:
    from bencode2 import bdecode, bencode
except ModuleNotFoundError as missing:
    sys.exit(f'This example needs {missing.name}. Please run: pip install "txutp[examples]"')

# The handshake of BEP 3, with the bit that announces extensions (BEP 10).  All peers here want the same torrent.
GREETING = b"\x13BitTorrent protocol" + b"\0\0\0\0\0\x10\0\0" + b"a torrent of nothing"
HANDSHAKE_BYTES = len(GREETING) + 20
OUR_ID = b"-TX0001-" + os.urandom(6).hex().encode()

EXTENDED = 20
EXTENDED_HANDSHAKE = 0
# Which number an extension has in messages to us.
OUR_NUMBERS = {b"ut_pex": 1, b"ut_holepunch": 2}

RENDEZVOUS, CONNECT, ERROR = range(3)
NOT_CONNECTED, NO_SUPPORT = 2, 3
WORDS = {1: "no such peer", NOT_CONNECTED: "not connected", NO_SUPPORT: "no support", 4: "that is yourself"}

Where = tuple[str, int]


def punch_message(kind: int, where: Where, error: int = 0) -> bytes:
    """A message of ut_holepunch."""
    host = ipaddress.ip_address(where[0])
    return struct.pack("!BB", kind, host.version == 6) + host.packed + struct.pack("!HI", where[1], error)


def read_punch_message(body: bytes) -> tuple[int, Where, int]:
    """Its kind, the address in it, and the number of an error."""
    size = 16 if body[1] else 4
    port, error = struct.unpack_from("!HI", body, 2 + size)
    return body[0], (str(ipaddress.ip_address(body[2 : 2 + size])), port), error


class Wire(Int32StringReceiver):
    """The handshakes of BitTorrent and of its extensions; ``heard`` gets the messages of an extension."""

    MAX_LENGTH = 1 << 16

    def __init__(self) -> None:
        self.greeting = b""
        self.id = b""
        self.numbers: dict[bytes, int] = {}

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.where = (peer.host, peer.port)
        self.transport.write(GREETING + OUR_ID)
        self.say(EXTENDED_HANDSHAKE, bencode({b"m": OUR_NUMBERS}))

    def dataReceived(self, data: bytes) -> None:
        if not self.id:
            self.greeting += data
            if len(self.greeting) < HANDSHAKE_BYTES:
                return
            if not self.greeting.startswith(GREETING):
                self.transport.abortConnection()
                return
            self.id = self.greeting[len(GREETING) : HANDSHAKE_BYTES]
            data = self.greeting[HANDSHAKE_BYTES:]
            self.greeted()
        super().dataReceived(data)

    def say(self, number: int, body: bytes) -> None:
        self.sendString(bytes([EXTENDED, number]) + body)

    def stringReceived(self, string: bytes) -> None:
        try:
            kind, number, body = string[0], string[1], string[2:]
            if kind != EXTENDED:
                return
            if number == EXTENDED_HANDSHAKE:
                self.numbers = bdecode(body)[b"m"]
                self.ready()
            else:
                self.heard(number, body)
        except Exception:
            self.transport.abortConnection()  # nonsense, or a peer that breaks off

    def greeted(self) -> None:
        """The peer has said who it is."""

    def ready(self) -> None:
        """The peer has said which extensions it knows."""

    def heard(self, number: int, body: bytes) -> None:
        """A message of one of our extensions."""


class AtRelay(Wire):
    """A peer, as the relay sees it."""

    there: dict[Where, AtRelay] = {}

    def ready(self) -> None:
        # Those of IPv6 would have a list of their own.
        there = [(host, port) for host, port in self.there if ":" not in host]
        packed = b"".join(ipaddress.ip_address(host).packed + port.to_bytes(2, "big") for host, port in there)
        self.there[self.where] = self
        print(f"{self.id.decode()} is here, from {self.where[0]}:{self.where[1]}", flush=True)
        self.say(self.numbers[b"ut_pex"], bencode({b"added": packed}))

    def heard(self, number: int, body: bytes) -> None:
        kind, wanted, _ = read_punch_message(body)
        if number != OUR_NUMBERS[b"ut_holepunch"] or kind != RENDEZVOUS:
            return
        target = self.there.get(wanted)
        if target is None or b"ut_holepunch" not in target.numbers:
            why = NOT_CONNECTED if target is None else NO_SUPPORT
            self.say(self.numbers[b"ut_holepunch"], punch_message(ERROR, wanted, why))
            return
        for one, other in ((self, target), (target, self)):
            one.say(one.numbers[b"ut_holepunch"], punch_message(CONNECT, other.where))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.there.pop(self.where, None)


class ToRelay(Wire):
    """Our connection to the relay; ``call`` connects to a peer."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call = call

    def heard(self, number: int, body: bytes) -> None:
        if number == OUR_NUMBERS[b"ut_pex"]:
            added = bdecode(body)[b"added"]
            for start in range(0, len(added), 6):
                host, port = ipaddress.ip_address(added[start : start + 4]), added[start + 4 : start + 6]
                where = (str(host), int.from_bytes(port, "big"))
                self.say(self.numbers[b"ut_holepunch"], punch_message(RENDEZVOUS, where))
            return
        kind, where, error = read_punch_message(body)
        if kind == CONNECT:
            self.call(where)
        else:
            print(f"no rendezvous with {where[0]}:{where[1]}: {WORDS.get(error, error)}", flush=True)


class Direct(Wire):
    """A connection to another peer.  Both sides connect, so there may be two; both sides drop the same one."""

    known: dict[bytes, Direct] = {}

    def __init__(self, we_began: bool) -> None:
        super().__init__()
        self.we_began = we_began

    def greeted(self) -> None:
        twin = self.known.setdefault(self.id, self)
        if twin is self:
            print(f"met {self.id.decode()} at {self.where[0]}:{self.where[1]}", flush=True)
            return
        # Both sides know both ids: the connection that the smaller id began stays.
        stays, goes = (self, twin) if self.we_began == (self.id > OUR_ID) else (twin, self)
        self.known[self.id] = stays
        goes.transport.loseConnection()


async def relay(reactor: Any, port: str) -> None:
    listening = await UTPServerEndpoint(reactor, int(port)).listen(Factory.forProtocol(AtRelay))
    print(f"Listening on port {listening.getHost().port}.", flush=True)
    await Deferred()


async def peer(reactor: Any, where: str, port: str = "6881") -> None:
    """Listen, and call everybody, from one port: its NAT then has one address for it."""
    server = UTPServerEndpoint(reactor, int(port))
    listening = await server.listen(Factory.forProtocol(lambda: Direct(we_began=False)))
    ours = ("", listening.getHost().port)

    def call(there: Where) -> None:
        endpoint = UTPClientEndpoint(reactor, *there, timeout=GIVE_UP_SECONDS, bindAddress=ours, settings=PUNCHING)

        def failed(failure: Failure) -> None:
            failure.trap(ConnectError)
            print(f"{there[0]}:{there[1]} was not reached. {failure.getErrorMessage()}", flush=True)

        connectProtocol(endpoint, Direct(we_began=True)).addErrback(failed)

    await connectProtocol(UTPClientEndpoint(reactor, *address(where), bindAddress=ours), ToRelay(call))
    print("connected to the relay as", OUR_ID.decode(), flush=True)
    await Deferred()


if __name__ == "__main__":
    verbs = {"relay": relay, "peer": peer}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    react(verbs[sys.argv[1]], sys.argv[2:])
