"""Sending batches through a UDP socket: a run of datagrams in one system call where the kernel cuts it (GSO).

Ports of ``udp.py`` inherit ``BatchSender``.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any

from txutp.core.batch import Address, Batch, Buffer

# Linux, from linux/udp.h; Python's socket module does not name them.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104

# Other things in ip(7) that Python does not name on every version.
IP_MTU_DISCOVER = 10
IPV6_MTU_DISCOVER = 23
PMTUDISC_DONT = 0
PMTUDISC_PROBE = 3

# The socket takes nothing now and will later.
REFUSALS = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM}
# The kernel or the card does not cut this run: it leaves as single datagrams.
UNCUT = {errno.EMSGSIZE, errno.EINVAL, errno.EIO, errno.ENOPROTOOPT, errno.EOPNOTSUPP}


class BatchSender:
    """What a port inherits that has a ``socket`` of its own, and may use ``offload_send``."""

    socket: Any  # a socket.socket
    offload_send: bool

    def send_batch(self, batch: Batch) -> int:
        """Send a batch; gives how many of its datagrams left.  A network error raises ``OSError``."""
        if batch.dont_fragment:
            set_ip_option(self.socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
            try:
                self._send(batch.buffers, [], batch.address)
                return 1
            except OSError as problem:
                if problem.errno == errno.ENOBUFS:
                    return 1  # the next device dropped it, and for one of this size it may do so for ever
                if problem.errno in REFUSALS:
                    return self._refused(problem, 0)
                raise
            finally:
                set_ip_option(self.socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT)
        count = batch.count
        buffers = batch.buffers
        if count > 1 and self.offload_send:
            segment = struct.pack("=H", batch.datagram_bytes)
            try:
                self._send(buffers, [(SOL_UDP, UDP_SEGMENT, segment)], batch.address)
                return count
            except OSError as problem:
                if problem.errno in REFUSALS:
                    return self._refused(problem, 0)
                if problem.errno not in UNCUT:
                    raise
                if problem.errno != errno.EMSGSIZE:
                    self.offload_send = False
        step = len(buffers) // count
        for sent in range(count):
            try:
                self._send(buffers[sent * step : sent * step + step], [], batch.address)
            except OSError as problem:
                if problem.errno in REFUSALS:
                    return self._refused(problem, sent)
                # too large even for fragments: this datagram is lost on the way, as others are
                if problem.errno != errno.EMSGSIZE:
                    raise
        return count

    def _send(self, buffers: list[Buffer], ancillary: list[tuple[int, int, bytes]], address: Address) -> None:
        try:
            self.socket.sendmsg(buffers, ancillary, 0, address)
        except OSError as problem:
            # An ICMP error of the past is raised by whichever call comes next, and that call does nothing else.
            if problem.errno in REFUSALS or not self._read_errors():
                raise
            self.socket.sendmsg(buffers, ancillary, 0, address)

    def _refused(self, problem: OSError, sent: int) -> int:
        """The socket takes no more now: see that the protocol's ``writable`` is called later; gives ``sent``."""
        raise NotImplementedError

    def _read_errors(self) -> bool:
        """Pass on what ICMP said of earlier datagrams; gives whether it said anything."""
        return False


def set_ip_option(udp_socket: socket.socket, ipv4_option: int, ipv6_option: int, value: int) -> None:
    """Set an option that both versions have; an IPv6 socket may carry IPv4 as well."""
    udp_socket.setsockopt(socket.IPPROTO_IP, ipv4_option, value)
    if udp_socket.family == socket.AF_INET6:
        udp_socket.setsockopt(socket.IPPROTO_IPV6, ipv6_option, value)


def has_option(udp_socket: socket.socket, option: int, value: int | None) -> bool:
    """Whether the kernel knows a UDP option; a value is set, None only looks."""
    try:
        if value is None:
            udp_socket.getsockopt(SOL_UDP, option)
        else:
            udp_socket.setsockopt(SOL_UDP, option, value)
    except OSError:
        return False
    return True
