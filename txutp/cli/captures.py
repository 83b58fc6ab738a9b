"""Captures of packets, as tcpdump and Wireshark write them: the UDP datagrams in a pcap or pcapng file.

``dpkt`` reads the files and knows the layers.  Fragments and other protocols are counted and passed over.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dpkt

PCAPNG = b"\x0a\x0d\x0d\x0a"
INTERFACE_BLOCK = 1
IPV6_FRAGMENT_HEADER = 44

RAW_IP = {12, 14, 101, 228, 229}  # link types without a link layer
LINK_LAYERS: dict[int, Any] = {
    0: dpkt.loopback.Loopback,
    1: dpkt.ethernet.Ethernet,
    108: dpkt.loopback.Loopback,
    113: dpkt.sll.SLL,
    276: dpkt.sll2.SLL2,
}


class UnreadableCapture(Exception):
    """The file is no capture, or of a kind that cannot be read."""


@dataclass(frozen=True, slots=True)
class CapturedDatagram:
    """One UDP datagram."""

    time_us: int
    source: tuple[str, int]
    destination: tuple[str, int]
    data: bytes
    """Its payload, as far as it was captured."""
    length: int
    """The size of the payload on the wire."""


class Capture:
    """The datagrams of a file, in its order, and how many frames held none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.skipped: int = 0

    def __iter__(self) -> Iterator[CapturedDatagram]:
        with self._path.open("rb") as file:
            if file.read(4) == PCAPNG:
                self._check_interfaces()
            file.seek(0)
            try:
                reader = dpkt.pcap.UniversalReader(file)
            except (ValueError, dpkt.dpkt.Error) as problem:
                raise UnreadableCapture(f"{self._path} is not a capture: {problem}") from problem
            link_type = reader.datalink()
            if link_type not in LINK_LAYERS and link_type not in RAW_IP:
                raise UnreadableCapture(f"{self._path} was captured on a link of type {link_type}, which is not known")
            try:
                for seconds, frame in reader:
                    datagram = _datagram(round(seconds * 1_000_000), frame, link_type)
                    if datagram is None:
                        self.skipped += 1
                    else:
                        yield datagram
            except (ValueError, struct.error, dpkt.dpkt.Error) as problem:
                raise UnreadableCapture(f"{self._path} is damaged: {problem}") from problem

    def _check_interfaces(self) -> None:
        """The reader takes all frames of a pcapng file for those of its first interface."""
        data = self._path.read_bytes()
        order = "<" if data[8:12] == b"\x4d\x3c\x2b\x1a" else ">"
        link_types: set[int] = set()
        offset = 0
        while offset + 12 <= len(data):
            kind, length = struct.unpack_from(f"{order}II", data, offset)
            if kind == INTERFACE_BLOCK:
                link_types.update(struct.unpack_from(f"{order}H", data, offset + 8))
            if length < 12:
                break
            offset += length
        if len(link_types) > 1:
            raise UnreadableCapture(f"{self._path} has frames of links of several types; split it by interface")


def _is_fragment(packet: Any) -> bool:
    if isinstance(packet, dpkt.ip6.IP6):
        return IPV6_FRAGMENT_HEADER in packet.extension_hdrs
    return bool(packet.mf or packet.offset)


def _datagram(time_us: int, frame: bytes, link_type: int) -> CapturedDatagram | None:
    try:
        packet = frame if link_type in RAW_IP else LINK_LAYERS[link_type](frame).data
        if isinstance(packet, bytes):
            packet = dpkt.ip6.IP6(packet) if packet and packet[0] >> 4 == 6 else dpkt.ip.IP(packet)
        udp = packet.data
        if not isinstance(udp, dpkt.udp.UDP) or _is_fragment(packet):
            return None
    except (dpkt.dpkt.Error, IndexError, AttributeError):
        return None
    family = socket.AF_INET if len(packet.src) == 4 else socket.AF_INET6
    source, destination = (socket.inet_ntop(family, address) for address in (packet.src, packet.dst))
    length = max(udp.ulen - 8, 0)
    # Ethernet pads short frames.
    data = bytes(udp.data)[:length]
    return CapturedDatagram(time_us, (source, udp.sport), (destination, udp.dport), data, length)
