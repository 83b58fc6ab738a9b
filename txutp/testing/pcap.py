"""Captures that Wireshark, tshark and ``txutp dump`` read: UDP datagrams as raw IP packets in a pcap file.

The format is that of the Internet-Draft draft-ietf-opsawg-pcap, with microseconds and LINKTYPE_RAW.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from array import array
from pathlib import Path

from txutp.core.batch import Address

FILE_HEADER = struct.Struct(">IHHiIII")
RECORD_HEADER = struct.Struct(">IIII")
MAGIC = 0xA1B2C3D4
VERSION = 2, 4
LARGEST_PACKET_BYTES = 1 << 18
LINKTYPE_RAW = 101

IPV4_HEADER = struct.Struct(">BBHHHBBH4s4s")
IPV6_HEADER = struct.Struct(">IHBB16s16s")
UDP_HEADER = struct.Struct(">HHHH")
HOP_LIMIT = 64


class PcapFile:
    """A capture that is being written; each packet at once, so that it is complete whenever the process ends."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Create the file, or empty it; raises ``OSError``."""
        self.path: Path = Path(path)
        self._file = self.path.open("wb", buffering=0)
        self._file.write(FILE_HEADER.pack(MAGIC, *VERSION, 0, 0, LARGEST_PACKET_BYTES, LINKTYPE_RAW))

    def write(self, time_us: int, source: Address, destination: Address, payload: bytes) -> None:
        """Append a UDP datagram; the hosts are numeric addresses of one IP version."""
        packet = ip_packet(source, destination, payload)
        seconds, microseconds = divmod(time_us, 1_000_000)
        self._file.write(RECORD_HEADER.pack(seconds, microseconds, len(packet), len(packet)) + packet)

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def ip_packet(source: Address, destination: Address, payload: bytes) -> bytes:
    """Returns the IP packet of a UDP datagram, with its checksums."""
    family = socket.AF_INET6 if ":" in destination[0] else socket.AF_INET
    here, there = (socket.inet_pton(family, address[0].partition("%")[0]) for address in (source, destination))
    size = UDP_HEADER.size + len(payload)
    udp = UDP_HEADER.pack(source[1], destination[1], size, 0) + payload
    # RFC 768: none is written as 0, so a sum of 0 is written as all ones.
    sum16 = checksum(here + there + struct.pack(">HH", socket.IPPROTO_UDP, size) + udp) or 0xFFFF
    udp = udp[:6] + sum16.to_bytes(2, "big") + udp[8:]
    if family == socket.AF_INET6:
        return IPV6_HEADER.pack(6 << 28, size, socket.IPPROTO_UDP, HOP_LIMIT, here, there) + udp
    fields = (4 << 4 | IPV4_HEADER.size // 4, 0, IPV4_HEADER.size + size, 0, 0, HOP_LIMIT, socket.IPPROTO_UDP)
    without = IPV4_HEADER.pack(*fields, 0, here, there)
    return IPV4_HEADER.pack(*fields, checksum(without), here, there) + udp


def checksum(data: bytes) -> int:
    """Returns the Internet checksum (RFC 1071)."""
    # The sum of words in the order of this machine is the sum in the other order with its bytes swapped (section 2 B).
    total = sum(array("H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int.from_bytes((~total & 0xFFFF).to_bytes(2, sys.byteorder), "big")
