"""The UDP socket: batches in, batches out.

``protocol.py`` calls it.  Three kinds of port offer the same: ``BatchPort`` is a ``twisted.internet.udp.Port`` that
reads and writes runs of datagrams in one system call where Linux allows it; ``SocketPort`` wraps a port that
``reactor.listenUDP`` (or an application) made, and writes so; ``PlainPort`` wraps whatever else sends datagrams.

All promise that a full socket is not an error: ``send_batch`` says how many datagrams left, and the protocol's
``writable`` is called when it is worth trying again.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from typing import Any, Protocol

from twisted.internet import error, udp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorFDSet
from twisted.python.failure import Failure
from zope.interface import Attribute, Interface, implementer

from txutp.core.address import local_of, remote_of, with_local
from txutp.core.batch import Address, Batch
from txutp.timers import Timer, call_later
from txutp.udp.joiner import RUN_BYTES, RunJoiner
from txutp.udp.offload import REFUSALS, BatchSender
from txutp.udp.options import (
    IP_RECVERR,
    IPV6_RECVERR,
    SO_RXQ_OVFL,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    ask_for_large_buffers,
    can_forbid_fragments,
    has_option,
    set_ip_option,
    set_option,
)
from txutp.udp.retries import FREE_FAILURES, retry_seconds
from txutp.udp.sources import ControlMessage, Sources, is_wildcard

# In ip(7), and not named by Python on every version.
IP_MTU = 14
IPV6_MTU = 24
MSG_ERRQUEUE = 0x2000

# How much of a datagram that an ICMP error is about we look at, and room for the error itself (ip(7)).
QUOTED_BYTES = 64
ERROR_ANCILLARY_BYTES = 512
EXTENDED_ERROR_BYTES = 16
EXTENDED_ERRORS: set[tuple[int, int]] = {
    (socket.IPPROTO_IP, IP_RECVERR),
    (getattr(socket, "IPPROTO_IPV6", 41), IPV6_RECVERR),
}

INT = struct.Struct("=I")

LARGEST_DATAGRAM_BYTES = 65_535
KERNEL_BUFFER_BYTES = 4 << 20  # asked for; a burst that the kernel's default buffer does not hold is lost

# Room for control messages: the segment size, how much the kernel has dropped, our own address, and whatever the
# owner of an adopted socket has asked for.  If it is too little there is more the next time.
ANCILLARY_BYTES = 512
MAXIMUM_ANCILLARY_BYTES = 16_384

# Something of a datagram, or what was said beside it, did not fit.  Ints, for enums are slow.
CUT_DATAGRAM = int(getattr(socket, "MSG_TRUNC", 0))
CUT_MESSAGES = int(getattr(socket, "MSG_CTRUNC", 0))

# How much of a granted receive buffer holds payload, if each datagram comes alone; the rest is the kernel's own.
PAYLOAD_SHARE = 0.6

# How much one turn of the reactor reads: enough for a whole window of bursts, little enough for others to have a turn.
# Joining much more than 256 KiB for one dataReceived costs eight times as much per byte.  Each connection may be heard
# of several times: a thousand that send in each turn would else wait for acks that nobody reads (at 1.5 s of round trip
# 50 MB/s instead of 600).
READ_BYTES = 256 * 1024
READ_CALLS = 256
READ_CALLS_EACH = 4

# Asking for a datagram that is not there costs as much as a small one.  While they come alone and fit a frame, as in a
# conversation, we ask only in each turn of so many; what we miss meanwhile the reactor tells us at once.
LOOK_AGAIN = 4
LONE_BYTES = 1_500

# At 100 Mbit/s each packet would wake the process alone, which costs more than the packet: a bulk transfer lets them
# gather for a moment, unless many came already.
RESTFUL_READS = 8
RESTFUL_BYTES = 16 * 1024
REST_SECONDS = 0.001


class BatchReceiver(Protocol):
    """What a port needs of the protocol above it."""

    @property
    def connections(self) -> int:
        """How many there are, each of which may have something to say."""

    def datagrams_received(self, data: bytes, stride: int, address: Address) -> None:
        """One datagram, or (``stride`` not 0) several of ``stride`` bytes, the last maybe shorter."""

    def drained(self) -> bool:
        """Nothing more comes in this turn; gives whether reading may rest for a moment."""

    def writable(self) -> None:
        """The socket takes datagrams again."""

    def overflowed(self, dropped: int) -> None:
        """Our kernel dropped so many datagrams because nobody read them in time."""

    def unreachable(self, datagram: bytes, address: Address, code: int, path_mtu_bytes: int, from_peer: bool) -> None:
        """The network answered a datagram that we sent (of which this is the beginning) with an error.

        ``path_mtu_bytes`` says with EMSGSIZE how large an IP packet may be; ``from_peer`` whether the error came from
        the host to which the datagram went.
        """

    def farewell(self) -> None:
        """The socket is about to be closed; it is still open."""


class IBatchPort(Interface):
    """A UDP port that sends batches and calls ``datagrams_received`` and ``drained`` of its protocol."""

    granted_receive_bytes = Attribute("Memory that the kernel gives to datagrams until they are read; 0: not known.")
    granted_send_bytes = Attribute("The same for those that were sent.")
    times_empty = Attribute("How often there was nothing more to read; always 0 where that is not known.")
    offload_send = Attribute("Whether a batch of several datagrams costs no more system calls than one datagram.")

    def send_batch(batch: Batch) -> int:
        """Send a batch; gives how many of its datagrams left.  A network error raises ``OSError``."""

    def link_mtu_bytes(address: Address) -> int | None:
        """The largest IP packet that the interface towards an address takes; None if that is not known.

        Where it is known, a batch with ``dont_fragment`` is sent so, and raises EMSGSIZE if it is too large for that.
        """

    def close() -> None:
        """Stop listening and close the socket within this call if that is possible."""


@implementer(IBatchPort)
class BatchPort(BatchSender, udp.Port):
    """A UDP port with large buffers, segmentation offload (GSO) and its inverse (GRO) where the kernel has them."""

    maxPacketSize = LARGEST_DATAGRAM_BYTES
    protocol: Any

    def __init__(
        self,
        port: int,
        protocol: BatchReceiver,
        interface: str = "",
        reactor: Any = None,
        offload: bool = True,
    ) -> None:
        super().__init__(port, protocol, interface, LARGEST_DATAGRAM_BYTES, reactor)
        self.offload_send: bool = offload
        self.offload_receive: bool = offload
        self.granted_receive_bytes: int = 0  # of kernel memory, once the socket is there
        self.granted_send_bytes: int = 0
        self._overflows = 0  # datagrams that the kernel has dropped so far, modulo 2**32
        self._leaving = False
        self.times_empty: int = 0  # so often there was nothing more to read
        self._lone_reads = 0  # in a row, of one such datagram with nothing behind it
        self._reading_again: Timer | None = None
        self._trying_again: Timer | None = None  # to send
        self._joiner = RunJoiner(protocol.datagrams_received)
        self._forbids_fragments = False  # if it is asked to
        self._ancillary_bytes = ANCILLARY_BYTES
        # What the kernel said beside the last read, and what that means:
        self._last_ancillary: list[ControlMessage] = []
        self._stride = 0  # the size of the datagrams that it joined, 0 for one alone
        self._local = ""  # the address of ours that they came to; empty if the socket has only that one
        self._opened: socket.socket | None = None
        self._vain_reads = 0  # in a row; the reactor had said that there is something

    # -- socket --

    def startListening(self) -> None:
        """Open the socket and begin to read; raises ``CannotListenError``, and leaves nothing open then."""
        try:
            super().startListening()
        except BaseException as problem:
            if self.protocol.numPorts:  # only the reactor has refused
                self.protocol.doStop()
            if self._opened is not None:
                self._opened.close()
            if isinstance(problem, OSError):
                raise error.CannotListenError(self.interface, self.port, problem) from problem
            raise

    def createInternetSocket(self) -> socket.socket:
        self._opened = new = self._new_socket()
        new.setblocking(False)
        self._set_options(new, self.interface)
        return new

    def _new_socket(self) -> socket.socket:
        return socket.socket(self.addressFamily, self.socketType)

    def _set_options(self, new: socket.socket, host: str) -> None:
        """Ask for all that makes a socket better which is, or will be, bound to ``host``; all of it may be refused."""
        self.granted_receive_bytes, self.granted_send_bytes = ask_for_large_buffers(new, KERNEL_BUFFER_BYTES)
        if sys.platform == "linux":
            # Whom an ICMP error is about is known only with this option.
            set_ip_option(new, IP_RECVERR, IPV6_RECVERR, 1)
            set_option(new, socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        self._forbids_fragments = can_forbid_fragments(new)
        self.offload_send = self.offload_send and has_option(new, UDP_SEGMENT, None)
        self.offload_receive = self.offload_receive and has_option(new, UDP_GRO, 1)
        if is_wildcard(host):
            self._sources = Sources(new)

    def _bindSocket(self) -> None:
        # Twisted's own way loses the scope of an address like fe80::1%eth0, so it gets a bound socket.
        if self._preexistingSocket is None:
            bound = self.createInternetSocket()
            bound.bind(numeric_address(self.interface, self.port))
            self._preexistingSocket = bound  # type: ignore[assignment]
        super()._bindSocket()

    def getHost(self) -> IPv4Address | IPv6Address:
        return twisted_address(socket_address(self.socket.getsockname()))

    def close(self) -> None:
        self.stopReading()
        self.stopWriting()
        self.connectionLost()

    def connectionLost(self, reason: Failure | None = None) -> None:
        # The reactor says it again if the socket went away while it was being read, and so may farewell.
        if self.fileno() == -1 or self._leaving:
            return
        # Poll and epoll take an ICMP error for a hang-up.  The reader was removed; it comes back.
        if reason is not None and reason.check(error.ConnectionDone) and not self.disconnecting:
            self._read_later(0)
            self._read_errors()
            return
        self._leaving = True
        self.protocol.farewell()
        for waking in (self._reading_again, self._trying_again):
            if waking is not None:
                waking.cancel()
        self._reading_again = self._trying_again = None
        try:
            super().connectionLost(reason)
        except OSError:
            # Whatever close(2) says, the descriptor is gone; nobody shall wait for its end for ever.
            del self.socket
            del self.fileno
            if hasattr(self, "d"):
                self.d.callback(None)
                del self.d

    def _read_later(self, seconds: float) -> None:
        """Go on reading after a while, or in the next turn."""
        if self._reading_again is None:
            self._reading_again = call_later(self.reactor, seconds, self._read_again)

    def _read_again(self) -> None:
        self._reading_again = None
        self.startReading()

    # -- in --

    def doRead(self) -> None:
        receive = self.socket.recvmsg
        protocol = self.protocol
        joiner = self._joiner
        long_addresses = self.addressFamily == socket.AF_INET6
        alone = self._lone_reads % LOOK_AGAIN
        received_bytes = reads = stride = 0
        in_vain = False
        while received_bytes < READ_BYTES and (reads < READ_CALLS or reads < READ_CALLS_EACH * protocol.connections):
            try:
                data, ancillary, flags, address = receive(LARGEST_DATAGRAM_BYTES, self._ancillary_bytes)
            except (BlockingIOError, InterruptedError):
                self.times_empty += 1
                if not reads:
                    # What is in the error queue looks like something to read.
                    in_vain = not self._hear_error()
                break
            except OSError:
                # What an ICMP error left behind concerns some datagram of the past, not this read.
                if not self._hear_error():
                    in_vain = not reads
                    break
                reads += 1
                continue
            reads += 1
            if long_addresses:
                address = socket_address(address)
            if ancillary or flags:
                if flags and self._is_damaged(flags, ancillary):
                    continue
                # the kernel says the same beside most datagrams
                if ancillary != self._last_ancillary:
                    self._read_ancillary(ancillary)
                stride = self._stride
                if self._local:
                    address = with_local(address, self._local)
            size = len(data)
            received_bytes += size
            if stride or size < RUN_BYTES:
                if joiner.run:
                    joiner.flush()
                protocol.datagrams_received(data, stride, address)
                stride = 0
            else:
                joiner.add(data, address)
            if alone:
                break
        if joiner.run:
            joiner.flush()
        self._lone_reads = self._lone_reads + 1 if reads == 1 and received_bytes <= LONE_BYTES else 0
        if in_vain:
            self._vain_reads += 1
            if self._vain_reads > FREE_FAILURES:
                self._rest(retry_seconds(self._vain_reads - FREE_FAILURES))
        elif self._vain_reads:
            self._vain_reads = 0
        if protocol.drained() and reads < RESTFUL_READS and received_bytes < RESTFUL_BYTES:
            self._rest(REST_SECONDS)

    def _rest(self, seconds: float) -> None:
        """Read nothing for a while."""
        if self.fileno() != -1:
            self.stopReading()
            self._read_later(seconds)

    def _read_ancillary(self, ancillary: list[ControlMessage]) -> None:
        """Read what the kernel says beside the data: the size of the datagrams that it joined, and where they came to.

        Messages that we did not ask for, or that are of another size than ours, say nothing.
        """
        self._last_ancillary = ancillary
        self._stride = 0
        self._local = ""
        sources = self._sources
        for level, kind, message in ancillary:
            if sources is not None and (level, kind) == sources.received:
                self._local = sources.local(message)
            elif len(message) != INT.size:
                continue
            elif level == SOL_UDP and kind == UDP_GRO:
                (self._stride,) = INT.unpack(message)
            elif level == socket.SOL_SOCKET and kind == SO_RXQ_OVFL:
                (number,) = INT.unpack(message)
                if number != self._overflows:
                    dropped, self._overflows = number - self._overflows & 0xFFFFFFFF, number
                    self.protocol.overflowed(dropped)

    def _is_damaged(self, flags: int, ancillary: list[ControlMessage]) -> bool:
        """Whether something is missing without which a read cannot be used.

        A datagram that was cut off is none.  Where messages are missing, one read may be several datagrams, or we do
        not know which of our addresses they came to; next time there is more room.
        """
        if flags & CUT_MESSAGES:
            self._ancillary_bytes = MAXIMUM_ANCILLARY_BYTES
            kinds = {(level, kind) for level, kind, _ in ancillary}
            if self.offload_receive and (SOL_UDP, UDP_GRO) not in kinds:
                return True
            if self._sources is not None and self._sources.received not in {None, *kinds}:
                return True
        return bool(flags & CUT_DATAGRAM)

    def _hear_error(self) -> bool:
        """The reactor called for an error: take what is in the error queue, and see that the reactor goes on watching.

        Returns whether there was something in the queue.
        """
        said = self._read_errors()
        if not said:
            self._watch_again()
        return said

    def _watch_again(self) -> None:
        """Libuv (uvloop) stops watching a descriptor with an error, and does not say so: let the reactor ask again."""
        if self.fileno() != -1 and self._reading_again is None:
            self.stopReading()
            self.startReading()

    def _read_errors(self) -> bool:
        if sys.platform != "linux":
            return False  # the flag means an ordinary read there
        said = False
        while True:
            try:
                datagram, ancillary, _, address = self.socket.recvmsg(QUOTED_BYTES, ERROR_ANCILLARY_BYTES, MSG_ERRQUEUE)
            except OSError:
                break
            said = True
            self._read_ancillary(ancillary)
            where = socket_address(address)
            if self._local:
                where = with_local(where, self._local)
            for level, kind, message in ancillary:
                if (level, kind) in EXTENDED_ERRORS and len(message) >= EXTENDED_ERROR_BYTES:
                    code, path_mtu_bytes = struct.unpack_from("=I4xI", message)
                    from_peer = offender(message[EXTENDED_ERROR_BYTES:]) == address[0].partition("%")[0]
                    self.protocol.unreachable(datagram, where, code, path_mtu_bytes, from_peer)
        if said:
            # Also where a send has met the error: the reactor may know of it already, and read data before it looks.
            self._watch_again()
        return said

    # -- out --

    def link_mtu_bytes(self, address: Address) -> int | None:
        if not self._forbids_fragments:
            return None
        level, option = (
            (socket.IPPROTO_IP, IP_MTU) if self.addressFamily == socket.AF_INET else (socket.IPPROTO_IPV6, IPV6_MTU)
        )
        try:
            with socket.socket(self.addressFamily, socket.SOCK_DGRAM) as probe:
                probe.connect(remote_of(address))
                return probe.getsockopt(level, option)
        except OSError:
            return None

    def _refused(self, problem: OSError, sent: int) -> int:
        self._refusals += 1
        if problem.errno in (errno.EAGAIN, errno.EWOULDBLOCK) and self._refusals <= FREE_FAILURES:
            self.startWriting()
        elif self._trying_again is None:
            # The kernel is short of memory, which the socket's own state does not tell; or that state is wrong.
            self._trying_again = call_later(self.reactor, retry_seconds(self._refusals), self._writable)
        return sent

    def _writable(self) -> None:
        self._trying_again = None
        self.protocol.writable()

    def doWrite(self) -> None:
        self.stopWriting()
        self.protocol.writable()


@implementer(IBatchPort)
class PlainPort:
    """Any other UDP transport: a datagram at a time, its exceptions turned into facts."""

    offload_send = False
    times_empty = 0
    _refusals = 0  # in a row

    def __init__(self, transport: Any, protocol: BatchReceiver, reactor: Any) -> None:
        self._transport = transport
        self._protocol = protocol
        self._reactor = reactor
        self.granted_receive_bytes: int = 0
        self.granted_send_bytes: int = 0
        if hasattr(transport, "getHandle"):
            self.granted_receive_bytes, self.granted_send_bytes = ask_for_large_buffers(
                transport.getHandle(), KERNEL_BUFFER_BYTES
            )
        # Twisted cuts longer datagrams off at 8192 bytes without a word.
        if getattr(transport, "maxPacketSize", LARGEST_DATAGRAM_BYTES) < LARGEST_DATAGRAM_BYTES:
            transport.maxPacketSize = LARGEST_DATAGRAM_BYTES

    def send_batch(self, batch: Batch) -> int:
        write = self._transport.write
        address = batch.address
        for sent, datagram in enumerate(batch.datagrams()):
            try:
                write(datagram, address)
            except error.MessageLengthError:
                continue
            except OSError as problem:
                if problem.errno not in REFUSALS:
                    raise
                self._try_again()
                return sent
            self._refusals = 0
        return batch.count

    def _try_again(self) -> None:
        """Nothing tells when such a transport becomes writable."""
        self._refusals += 1
        call_later(self._reactor, retry_seconds(self._refusals), self._protocol.writable)

    def link_mtu_bytes(self, address: Address) -> int | None:
        # Nothing but BatchPort can forbid fragments; a transport that can (as the simulated one) says so itself.
        known = getattr(self._transport, "link_mtu_bytes", None)
        return None if known is None else known(address)

    def close(self) -> None:
        self._transport.stopListening()


class SocketPort(BatchSender, PlainPort):
    """A port that Twisted made: it reads as it does, and batches leave through its socket."""

    def __init__(self, transport: udp.Port, protocol: BatchReceiver, reactor: Any) -> None:
        super().__init__(transport, protocol, reactor)
        self.socket: Any = transport.getHandle()
        self.offload_send: bool = has_option(self.socket, UDP_SEGMENT, None)

    def _refused(self, problem: OSError, sent: int) -> int:
        self._try_again()
        return sent


def batch_port_of(transport: Any, protocol: BatchReceiver, reactor: Any) -> Any:
    """An ``IBatchPort`` for whatever a ``DatagramProtocol`` was given as transport."""
    if IBatchPort.providedBy(transport):
        return transport
    kind = SocketPort if isinstance(transport, udp.Port) and hasattr(socket.socket, "sendmsg") else PlainPort
    return kind(transport, protocol, reactor)


def offender(sender: bytes) -> str:
    """The host that sent an ICMP error, from the ``sockaddr`` behind the error (ip(7)); empty if it is not known."""
    if len(sender) < 8:
        return ""
    (family,) = struct.unpack_from("=H", sender)
    if family == socket.AF_INET:
        return socket.inet_ntop(family, sender[4:8])
    if family == socket.AF_INET6 and len(sender) >= 24:
        return socket.inet_ntop(family, sender[8:24])
    return ""


def socket_address(address: Address) -> Address:
    """An address as we write it everywhere: (host, port), with flow 0 and the scope only if there is a scope."""
    if len(address) == 4 and address[3]:
        return (address[0], address[1], 0, address[3])
    return address[:2]


def numeric_address(host: str, port: int) -> Address:
    """The same for a numeric host as people write it, with a scope behind a percent sign or without."""
    if "%" not in host:
        return (host, port)
    found = socket.getaddrinfo(host, port, socket.AF_INET6, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
    return socket_address(found[0][4])


def twisted_address(where: Address) -> IPv4Address | IPv6Address:
    """A socket's address as Twisted spells it.  The type is "UDP": Twisted accepts no "UTP"."""
    host, port = where[0], where[1]
    where = remote_of(where)
    if len(where) == 4:
        try:
            scope = socket.if_indextoname(where[3])
        except OSError:  # the interface is gone
            scope = str(where[3])
        return IPv6Address("UDP", f"{host}%{scope}", port, where[2], where[3])
    return IPv6Address("UDP", host, port) if ":" in host else IPv4Address("UDP", host, port)


def listen_udp(reactor: Any, port: int, protocol: Any, interface: str) -> Any:
    """The best UDP port that this reactor can have; raises ``CannotListenError``."""
    if IReactorFDSet.providedBy(reactor) and hasattr(socket.socket, "sendmsg"):
        batch_port = BatchPort(port, protocol, interface, reactor)
        batch_port.startListening()
        return batch_port
    return reactor.listenUDP(port, protocol, interface, LARGEST_DATAGRAM_BYTES)


def local_address_of(address: Address, port: int) -> IPv4Address | IPv6Address:
    """Our own end of a connection with this address, with this port."""
    host, _, scope = local_of(address).partition("%")
    if not host:
        return local_address_for(address, port)
    return twisted_address((host, port, 0, int(scope)) if scope else (host, port))


def local_address_for(remote: Address, port: int) -> IPv4Address | IPv6Address:
    """Our own address on the way to a remote one, with this port; nothing is sent."""
    family = socket.AF_INET6 if ":" in remote[0] else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            host, _, *scope = probe.getsockname()
    except OSError:
        host, scope = "::" if family == socket.AF_INET6 else "0.0.0.0", []
    return twisted_address(socket_address((host, port, *scope)))
