"""Which of our addresses a datagram came to, and leaves from: control messages of a UDP socket that has them all.

A host with several addresses has to answer from the one that was asked, or the peer takes the answer for a stranger's
(RFC 1122 4.1.3.5).  The kernel tells it beside each datagram, and takes it beside each that is sent (IP_PKTINFO in
ip(7), RFC 3542 for IPv6).  ``ports.py`` and ``offload.py`` ask here; they write the local address as text (see
``core/address.py``).

A socket that is bound to one address needs none of this.  Where the kernel refuses, its own choice has to do.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from txutp.core.address import remote_of
from txutp.core.batch import Address
from txutp.udp.options import set_option

ControlMessage = tuple[int, int, bytes]

# The remote address, the control message for the local one, and the level and type of that message.
Route = tuple[Address, ControlMessage, tuple[int, int]]

# in_pktinfo and in6_pktinfo: interface, the address to answer from, the one in the header; address, interface.
PKTINFO = struct.Struct("=I4s4s")
PKTINFO6 = struct.Struct("=16sI")
UNKNOWN4, UNKNOWN6 = bytes(4), bytes(16)
# What IPv6 writes before an IPv4 address (RFC 4291 2.5.5.2).
MAPPED_PREFIX = bytes(10) + b"\xff\xff"

# Local addresses whose texts and messages are kept; whole networks may be local (AnyIP).
MAXIMUM_KEPT = 256

# Peers for which the address and the control message of a send are kept.
MAXIMUM_ROUTES = 1_024

# Senders of datagrams that are not uTP of which we know to which address they sent last.
MAXIMUM_REMEMBERED = 4_096


class Option(NamedTuple):
    """What makes the kernel tell the local address of what it received, and how that is said in both directions."""

    level: int
    request: int
    received: int
    sent: int
    is_pktinfo: bool
    """Whether the message is an in_pktinfo, not the address alone."""


def ipv4_option(platform: str) -> Option | None:
    """How IPv4 does it; Python names few of these numbers.  They are from the systems' netinet/in.h."""
    if platform == "linux":
        return Option(socket.IPPROTO_IP, 8, 8, 8, True)
    if platform == "darwin":
        return Option(socket.IPPROTO_IP, 26, 26, 26, True)
    if platform.startswith(("freebsd", "openbsd", "netbsd", "dragonfly")):
        return Option(socket.IPPROTO_IP, 7, 7, 7, False)  # IP_RECVDSTADDR, and the same number as IP_SENDSRCADDR
    return None


def ipv6_option() -> Option | None:
    """How IPv6 does it everywhere (RFC 3542)."""
    request = getattr(socket, "IPV6_RECVPKTINFO", None)
    message = getattr(socket, "IPV6_PKTINFO", None)
    if request is None or message is None:
        return None
    return Option(socket.IPPROTO_IPV6, request, message, message, True)


class Sources:
    """The local addresses of one UDP socket."""

    def __init__(self, udp_socket: socket.socket) -> None:
        """Ask the kernel to tell them, from the next datagram on."""
        self.is_ipv6: bool = udp_socket.family == socket.AF_INET6
        option = ipv6_option() if self.is_ipv6 else ipv4_option(sys.platform)
        if option is not None and not set_option(udp_socket, option.level, option.request, 1):
            option = None
        self._option = option
        # the level and the type of the message that tells
        self.received: tuple[int, int] | None = None if option is None else (option.level, option.received)
        # asked for most reads, and for each send
        self.local: Callable[[bytes], str] = lru_cache(MAXIMUM_KEPT)(self._local)
        self.message: Callable[[str], ControlMessage] = lru_cache(MAXIMUM_KEPT)(self._message)
        self.route: Callable[[Address], Route] = lru_cache(MAXIMUM_ROUTES)(self._route)

    def _local(self, message: bytes) -> str:
        """Returns the address of ours that a control message tells; empty if nothing can leave from there."""
        assert self._option is not None
        if self.is_ipv6:
            if len(message) != PKTINFO6.size:
                return ""
            packed, interface = PKTINFO6.unpack(message)
            if packed[0] == 0xFF or packed == UNKNOWN6 or packed == MAPPED_PREFIX + UNKNOWN4:
                return ""
            text = socket.inet_ntop(socket.AF_INET6, packed)
            return f"{text}%{interface}" if is_link_local(packed) and interface else text
        if not self._option.is_pktinfo:
            packed = message
        elif len(message) == PKTINFO.size:
            # beside an ICMP error there is only the one in the header
            _, answering, addressed = PKTINFO.unpack(message)
            packed = addressed if answering == UNKNOWN4 else answering
        else:
            return ""
        return "" if len(packed) != 4 or packed == UNKNOWN4 else socket.inet_ntop(socket.AF_INET, packed)

    def _route(self, address: Address) -> Route:
        """Returns what a send to an address with a local one needs."""
        message = self.message(address[4])
        return (address[:4] if self.is_ipv6 else address[:2]), message, message[:2]

    def _message(self, local: str) -> ControlMessage:
        """Returns the control message that lets a datagram leave from an address of ours."""
        option = self._option
        assert option is not None
        host, _, scope = local.partition("%")
        if self.is_ipv6:
            packed = PKTINFO6.pack(socket.inet_pton(socket.AF_INET6, host), int(scope or 0))
        else:
            packed = socket.inet_pton(socket.AF_INET, host)
            if option.is_pktinfo:
                packed = PKTINFO.pack(0, packed, UNKNOWN4)
        return option.level, option.sent, packed


class Senders:
    """To which address of ours the senders of datagrams that are not uTP have sent last."""

    def __init__(self) -> None:
        self._pinned: OrderedDict[Address, Address] = OrderedDict()

    def note(self, address: Address) -> Address:
        """Note where a datagram came from and to; returns the sender's address alone."""
        remote = remote_of(address)
        if remote is not address:
            self._pinned[remote] = address
            self._pinned.move_to_end(remote)
            if len(self._pinned) > MAXIMUM_REMEMBERED:
                self._pinned.popitem(last=False)
        return remote

    def answer(self, remote: Address) -> Address:
        """The address with which a datagram to a remote one leaves from where that one has sent to, if it has."""
        return self._pinned.get(remote, remote)


def is_link_local(packed: bytes) -> bool:
    """Whether an IPv6 address is good on one interface only: fe80::/10."""
    return packed[0] == 0xFE and packed[1] & 0xC0 == 0x80


def is_wildcard(host: str) -> bool:
    """Whether a socket that is bound to this numeric host has all addresses of its version of IP."""
    host = host.partition("%")[0]
    if not host:
        return True
    try:
        if ":" not in host:
            return socket.inet_aton(host) == UNKNOWN4
        packed = socket.inet_pton(socket.AF_INET6, host)
    except (OSError, ValueError):
        return False
    return packed in (UNKNOWN6, MAPPED_PREFIX + UNKNOWN4)
