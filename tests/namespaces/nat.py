"""Two programs for test_nat.py: a router that filters as NATs do, and a peer behind one."""

from __future__ import annotations

import select
import socket
import struct
import sys
import time
from typing import Any

from benchmarks.processes import say

ETH_P_IP = 0x0800
UDP = 17
PORT = 6881
TIMEOUT_SECONDS = 20
DATA = b"0123456789" * 10_000

# A router quotes as much of a packet as fits into 576 bytes (RFC 1812 section 4.3.2.3).
QUOTED_BYTES = 548


def checksum(data: bytes) -> int:
    """That of IP and ICMP (RFC 1071)."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1])) + (data[-1] << 8 if len(data) & 1 else 0)
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def port_unreachable(packet: bytes) -> bytes:
    """What the receiver's side of a filter answers to an IPv4 packet: ICMP type 3, code 3, with the packet in it."""
    icmp = bytearray(struct.pack("!BBHI", 3, 3, 0, 0) + packet[:QUOTED_BYTES])
    struct.pack_into("!H", icmp, 2, checksum(icmp))
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 0, 0, 64, socket.IPPROTO_ICMP, 0))
    header += packet[16:20] + packet[12:16]
    struct.pack_into("!H", header, 10, checksum(header))
    return bytes(header + icmp)


def route(left_mac: str, right_mac: str, answers: str) -> None:
    """Carry UDP between eth1 and eth2, but only to where something came from, until our parent says a line.

    Where ``answers`` is "icmp", what may not pass is answered with an ICMP error; with "none" it is swallowed.
    The kernel must not forward.  Checksums are left out, because those of virtual cables are not computed yet.
    """
    sockets = {}
    for name in ("eth1", "eth2"):
        sockets[name] = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
        sockets[name].bind((name, ETH_P_IP))
    macs = {"eth1": bytes.fromhex(left_mac), "eth2": bytes.fromhex(right_mac)}
    far_side = {"eth1": "eth2", "eth2": "eth1"}
    opened: dict[str, set[bytes]] = {"eth1": set(), "eth2": set()}
    swallowed = carried = 0
    say(ready=True)
    while True:
        readable, _, _ = select.select([*sockets.values(), sys.stdin], [], [])
        if sys.stdin in readable:
            say(swallowed=swallowed, carried=carried)
            return
        for name, incoming in sockets.items():
            if incoming not in readable:
                continue
            data, about = incoming.recvfrom(65_535)
            packet = bytearray(data)
            header_bytes = (packet[0] & 15) * 4
            if about[2] == socket.PACKET_OUTGOING or packet[9] != UDP:
                continue
            source, destination = packet[12:16], packet[16:20]
            source_port = packet[header_bytes : header_bytes + 2]
            destination_port = packet[header_bytes + 2 : header_bytes + 4]
            opened[name].add(bytes(source + source_port + destination + destination_port))
            far = far_side[name]
            if bytes(destination + destination_port + source + source_port) not in opened[far]:
                swallowed += 1
                if answers == "icmp":
                    incoming.sendto(port_unreachable(packet), (name, ETH_P_IP, 0, 0, macs[name]))
                continue
            packet[header_bytes + 6 : header_bytes + 8] = bytes(2)
            sockets[far].sendto(packet, (far, ETH_P_IP, 0, 0, macs[far]))
            carried += 1


def peer(host: str, believe_unreachable: str) -> None:
    """Listen, connect to a peer who does the same, and say when both connections have carried data both ways."""
    from twisted.internet import reactor
    from twisted.internet.protocol import Factory, Protocol

    from txutp import Settings, UTPClientEndpoint, listenUTP

    started = [0.0]
    finished: list[str] = []

    class Talking(Protocol):
        role = ""
        left = len(DATA)

        def connectionMade(self) -> None:
            self.transport.write(DATA)

        def dataReceived(self, data: bytes) -> None:
            self.left -= len(data)
            if not self.left:
                finished.append(self.role)
                if len(finished) == 2:
                    say(finished=sorted(finished), seconds=time.monotonic() - started[0])

    def factory(role: str) -> Any:
        return Factory.forProtocol(type(role, (Talking,), {"role": role}))

    listenUTP(reactor, PORT, factory("acceptor"))
    settings = Settings(believe_unreachable=believe_unreachable == "yes")
    endpoint = UTPClientEndpoint(reactor, host, PORT, bindAddress=("", PORT), settings=settings)
    say(ready=True)
    sys.stdin.readline()
    started[0] = time.monotonic()
    endpoint.connect(factory("initiator")).addErrback(lambda failure: say(failure=failure.type.__name__))
    reactor.callLater(TIMEOUT_SECONDS, reactor.stop)  # type: ignore[attr-defined]
    reactor.run()  # type: ignore[attr-defined]


if __name__ == "__main__":
    {"route": route, "peer": peer}[sys.argv[1]](*sys.argv[2:])
