"""Socket options, each of which may be refused.

Each of them is an improvement, and a stream works without it: some kernels that call themselves Linux lack them
(gVisor, WSL 1, LX zones), a filter of system calls may forbid them, other systems do not have them.  So no function of
this module raises; each returns what was granted.  ``ports.py`` and ``offload.py`` call them.
"""

from __future__ import annotations

import socket
import struct
import sys

from txutp.core.dscp import traffic_class

# In ip(7), ipv6(7) and linux/udp.h; Python's socket module does not name them on every version.
IP_TOS: int = getattr(socket, "IP_TOS", 1)
IPV6_TCLASS: int = getattr(socket, "IPV6_TCLASS", 67)
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
IP_RECVERR = 11
IPV6_RECVERR = 25
SO_RXQ_OVFL = 40
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104

# Values of IP_MTU_DISCOVER: fragment datagrams that are too large for the path; or forbid that, and report EMSGSIZE.
PMTUDISC_DONT = 0
PMTUDISC_PROBE = 3

# Number of times that the request for a buffer is halved after a refusal.
BUFFER_HALVINGS = 5


def set_option(udp_socket: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option; returns whether the kernel took it."""
    try:
        udp_socket.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def set_ip_option(udp_socket: socket.socket, ipv4_option: int, ipv6_option: int, value: int) -> bool:
    """Set an option that both versions of IP have; returns whether the kernel took it for the version of the socket.

    An IPv6 socket may carry IPv4 as well.  Linux takes the option of IPv4 there, other systems do not.
    """
    taken = set_option(udp_socket, socket.IPPROTO_IP, ipv4_option, value)
    if udp_socket.family == socket.AF_INET6:
        taken = set_option(udp_socket, socket.IPPROTO_IPV6, ipv6_option, value)
    return taken


def has_option(udp_socket: socket.socket, option: int, value: int | None) -> bool:
    """Whether the kernel knows a UDP option; a value is set, with None the option is only read."""
    if value is not None:
        return set_option(udp_socket, SOL_UDP, option, value)
    try:
        udp_socket.getsockopt(SOL_UDP, option)
    except OSError:
        return False
    return True


def set_dscp(udp_socket: socket.socket, dscp: int) -> bool:
    """Mark all datagrams of a socket (RFC 2474); returns whether the kernel does."""
    return set_ip_option(udp_socket, IP_TOS, IPV6_TCLASS, traffic_class(dscp))


def traffic_class_message(dscp: int, is_ipv6: bool) -> tuple[int, int, bytes]:
    """Returns the control message that marks the datagrams sent with it."""
    value = struct.pack("=i", traffic_class(dscp))
    return (socket.IPPROTO_IPV6, IPV6_TCLASS, value) if is_ipv6 else (socket.IPPROTO_IP, IP_TOS, value)


def can_forbid_fragments(udp_socket: socket.socket) -> bool:
    """Whether a datagram can be sent so that the network drops it if it is too large.

    Afterwards the socket fragments: a packet that is too large for the path has to arrive in fragments, because it
    cannot be sent again in a smaller size (BEP 29).
    """
    if sys.platform != "linux":
        return False
    forbidden = set_ip_option(udp_socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
    return set_ip_option(udp_socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT) and forbidden


def ask_for_large_buffers(udp_socket: socket.socket, wanted_bytes: int) -> tuple[int, int]:
    """Ask for buffers that hold a burst; returns the sizes for receiving and for sending, 0 if unknown.

    Linux grants twice its limit, and counts its own bookkeeping against that.  The BSDs refuse a size above their
    limits; then less is asked for.
    """
    return (
        ask_for_buffer(udp_socket, socket.SO_RCVBUF, wanted_bytes),
        ask_for_buffer(udp_socket, socket.SO_SNDBUF, wanted_bytes),
    )


def ask_for_buffer(udp_socket: socket.socket, option: int, wanted_bytes: int) -> int:
    """Ask for one buffer; returns its size, 0 if unknown."""
    try:
        granted_bytes = udp_socket.getsockopt(socket.SOL_SOCKET, option)
        for halvings in range(BUFFER_HALVINGS + 1):
            asked_bytes = wanted_bytes >> halvings
            if granted_bytes >= asked_bytes or set_option(udp_socket, socket.SOL_SOCKET, option, asked_bytes):
                break
        return udp_socket.getsockopt(socket.SOL_SOCKET, option)
    except OSError:
        return 0
