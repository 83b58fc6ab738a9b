"""Sending batches through a UDP socket: a run of datagrams in one system call where the kernel cuts it (GSO).

Ports of ``ports.py`` inherit ``BatchSender``.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

from txutp.core.address import PINNED_ITEMS
from txutp.core.batch import Address, Batch, Buffer
from txutp.udp.options import (
    IP_MTU_DISCOVER,
    IPV6_MTU_DISCOVER,
    PMTUDISC_DONT,
    PMTUDISC_PROBE,
    SOL_UDP,
    UDP_SEGMENT,
    set_ip_option,
    traffic_class_message,
)
from txutp.udp.sources import ControlMessage, Sources

# The socket takes nothing now and will later.
REFUSALS = {errno.EAGAIN, errno.EWOULDBLOCK, errno.ENOBUFS, errno.ENOMEM}

# Hosts to which runs leave as single datagrams, because the device on the way there cannot cut; with more of them it
# seems that none can.
MAXIMUM_UNCUT_HOSTS = 32

# What a kernel says that does not know a control message.  EINVAL also means that the address is no longer ours.
UNKNOWN_MESSAGE = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOPROTOOPT, errno.EPERM, errno.EACCES}

SEGMENT_BYTES = struct.Struct("=H")  # what UDP_SEGMENT says

# Sends buffers as one datagram or run, with control messages, to an address.
Send = Callable[[list[Buffer], list[ControlMessage], Address], None]


class BatchSender:
    """What a port inherits that has a ``socket`` of its own, and may use ``offload_send``."""

    socket: Any  # a socket.socket
    offload_send: bool
    _sources: Sources | None = None  # of a socket that has all addresses of its host
    _uncut_hosts: frozenset[str] = frozenset()
    _refusals = 0  # in a row: the socket took nothing

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # whether the kernel takes the improvements that were tried, by level and type
        self._takes: dict[tuple[int, int], bool] = {}

    def send_batch(self, batch: Batch) -> int:
        """Send a batch; returns how many of its datagrams left.  A network error raises ``OSError``."""
        address = batch.address
        send: Send = self._send if batch.dscp is None else partial(self._send_marked, batch.dscp)
        if batch.dont_fragment:
            return self._send_unfragmented(batch, send)
        count = batch.count
        buffers = batch.buffers
        uncut = False
        if count > 1 and self.offload_send and not batch.alone and address[0] not in self._uncut_hosts:
            try:
                send(buffers, [(SOL_UDP, UDP_SEGMENT, SEGMENT_BYTES.pack(batch.datagram_bytes))], address)
                return count
            except OSError as problem:
                if problem.errno in REFUSALS:
                    return self._refused(problem, 0)
                # The kernel or the card may not cut this run; if single datagrams do leave, it is that.
                uncut = problem.errno != errno.EMSGSIZE
        step = len(buffers) // count
        datagrams = [buffers] if count == 1 else [buffers[at : at + step] for at in range(0, len(buffers), step)]
        for sent, datagram in enumerate(datagrams):
            try:
                send(datagram, [], address)
            except OSError as problem:
                if problem.errno in REFUSALS:
                    return self._refused(problem, sent)
                # too large even for fragments: this datagram is lost on the way, as others are
                if problem.errno != errno.EMSGSIZE:
                    raise
            else:
                if uncut:
                    uncut = False
                    self._stop_cutting(address[0])
        return count

    def _send_unfragmented(self, batch: Batch, send: Send) -> int:
        """Send one datagram that the network may not cut."""
        set_ip_option(self.socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_PROBE)
        try:
            send(batch.buffers, [], batch.address)
            return 1
        except OSError as problem:
            if problem.errno == errno.ENOBUFS:
                return 1  # the next device dropped it, and for one of this size it may do so for ever
            if problem.errno in REFUSALS:
                return self._refused(problem, 0)
            raise
        finally:
            set_ip_option(self.socket, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, PMTUDISC_DONT)

    def _stop_cutting(self, host: str) -> None:
        """Runs for this host leave as single datagrams from now on."""
        self._uncut_hosts |= {host}
        if len(self._uncut_hosts) > MAXIMUM_UNCUT_HOSTS:
            self.offload_send = False

    def _send_marked(self, dscp: int, buffers: list[Buffer], beside: list[ControlMessage], address: Address) -> None:
        """Send with another traffic class than the socket has."""
        is_ipv6 = ":" in address[0] and not address[0].startswith("::ffff:")
        self._send_improved(self._send, traffic_class_message(dscp, is_ipv6), buffers, beside, address)

    def _send(self, buffers: list[Buffer], beside: list[ControlMessage], address: Address) -> None:
        """Send from the local address that ``address`` has, if it has one."""
        if len(address) == PINNED_ITEMS:
            assert self._sources is not None
            address, message, kind = self._sources.route(address)
            if not self._takes.get(kind):
                self._send_improved(self._send, message, buffers, beside, address)
                return
            beside = [*beside, message]
        try:
            self.socket.sendmsg(buffers, beside, 0, address)
        except OSError as problem:
            # An ICMP error of the past is raised by whichever call comes next, and that call does nothing else.
            if problem.errno in REFUSALS or not self._read_errors():
                raise
            try:
                self.socket.sendmsg(buffers, beside, 0, address)
            except OSError:
                # What stays in the error queue makes the socket look readable.
                self._read_errors()
                raise
        self._refusals = 0

    def _send_improved(
        self,
        send: Send,
        message: ControlMessage,
        buffers: list[Buffer],
        beside: list[ControlMessage],
        address: Address,
    ) -> None:
        """Send with a control message; or without, if the kernel takes none of its kind."""
        kind = message[:2]
        takes = self._takes.get(kind)
        if takes is not False:
            try:
                send(buffers, [*beside, message], address)
                self._takes[kind] = True
                return
            except OSError as problem:
                if takes or problem.errno not in UNKNOWN_MESSAGE:
                    raise
        send(buffers, beside, address)
        self._takes[kind] = False

    def _refused(self, problem: OSError, sent: int) -> int:
        """The socket takes no more now: see that the protocol's ``writable`` is called later; gives ``sent``."""
        raise NotImplementedError

    def _read_errors(self) -> bool:
        """Pass on what ICMP said of earlier datagrams; gives whether it said anything."""
        return False
