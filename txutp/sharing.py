"""The UDP ports of a reactor, which listeners and clients share.

``port.py`` gets a port to listen on from this module, ``client.py`` one to connect from.  Both are a ``UTPProtocol``:

- A client without a port in ``bindAddress`` shares one with all others of its reactor that have the same IP version,
  the same limits and the same DSCP.  It is opened for the first of these clients and closes in the turn after the end
  of the last one, unless another client connects until then.
- A client with a port in ``bindAddress`` shares the port that listens there, or gets one of its own.
- A listener on a port that connections have kept open gets that port, with its settings for new connections.

A port without a listener closes with its last connection; ``UTPProtocol`` does that.  So this module counts no users,
and never returns a closed port.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from operator import attrgetter
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from twisted.internet import error
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IReactorFDSet

from txutp.arguments import is_numeric
from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.settings import Settings
from txutp.protocol import UTPProtocol
from txutp.udp.ports import (
    LARGEST_DATAGRAM_BYTES,
    BatchPort,
    listen_udp,
    local_address_for,
    numeric_address,
    socket_address,
)
from txutp.udp.sources import is_wildcard

ANY_IPV4, ANY_IPV6 = "0.0.0.0", "::"

# The settings that clients on one port have in common; all others belong to each connection.  ``dscp`` belongs to each
# as well (``udp/marking.py``), but some systems have one for the whole socket only.
limits_of: Callable[[Settings], tuple[Any, ...]] = attrgetter(
    "maximum_connections", "maximum_connections_per_address", "resets_per_second", "dscp"
)

Accept = Callable[[Connection], None]

# The sources of ports that this process shares with other processes (``workers/``).  Each is called with the arguments
# of ``port_to_listen_on``, with a canonical interface, and returns None if it has no such port.
Given = Callable[[Any, str, int, Settings, Accept, str], UTPProtocol | None]
given: list[Given] = []


class SharedPorts:
    """The UDP ports of one reactor."""

    def __init__(self) -> None:
        # A reactor refers to its open ports; closed ones vanish from these dictionaries.
        self.by_address: WeakValueDictionary[tuple[str, int], UTPProtocol] = WeakValueDictionary()
        self.common: WeakValueDictionary[tuple[Any, ...], UTPProtocol] = WeakValueDictionary()

    def add(self, interface: str, utp: UTPProtocol) -> None:
        """Add a port that was opened."""
        self.by_address[interface, utp.port_address.port] = utp

    def at(self, interface: str, number: int) -> UTPProtocol | None:
        """Returns the port that is open at this address; None if there is none."""
        utp = self.by_address.get((interface, number))
        return utp if utp is not None and utp.port is not None else None

    def listening(self, remote: Address, interface: str, number: int) -> UTPProtocol | None:
        """Returns the port that listens with this number, and from which a client can reach a remote address."""
        found = {
            host: utp
            for (host, its_number), utp in list(self.by_address.items())
            if its_number == number and utp.port is not None and utp.accept is not None
        }
        if interface in found or interface not in (ANY_IPV4, ANY_IPV6):
            return found.get(interface)
        # a port that is bound to a single address of this host
        alike = {host: utp for host, utp in found.items() if is_ipv6(host) == is_ipv6(interface)}
        if len(alike) > 1:
            ours = local_address_for(remote, number).host
            return alike.get(ours) or next(iter(alike.values()))
        if alike:
            return next(iter(alike.values()))
        # a port for both IP versions
        both = found.get(ANY_IPV6)
        return both if both is not None and is_dual_stack(both) else None


_ports_of: WeakKeyDictionary[Any, SharedPorts] = WeakKeyDictionary()


def ports_of(reactor: Any) -> SharedPorts:
    """Returns the ports of a reactor."""
    ports = _ports_of.get(reactor)
    if ports is None:
        ports = _ports_of[reactor] = SharedPorts()
    return ports


def port_to_listen_on(
    reactor: Any, number: int, interface: str, settings: Settings, accept: Accept, prefix: str
) -> UTPProtocol:
    """Open a UDP port, or take one that has lost its listener; raises ``CannotListenError``."""
    ports = ports_of(reactor)
    interface = numeric(interface, number, socket.AF_INET)
    host = canonical(interface) or ANY_IPV4
    utp = ports.at(host, number) if number else None
    if utp is not None and utp.accept is None:
        utp.accept_again(accept, settings)
        for key in [key for key, other in ports.common.items() if other is utp]:
            del ports.common[key]
        return utp
    for give in given:
        utp = give(reactor, host, number, settings, accept, prefix)
        if utp is not None:
            utp.mark_as_ours()
            ports.add(host, utp)
            return utp
    utp = UTPProtocol(reactor, settings, accept, prefix=prefix)
    listen_udp(reactor, number, utp, interface)
    utp.mark_as_ours()
    ports.add(host, utp)
    return utp


def port_to_connect_from(
    reactor: Any, remote: Address, bind_address: tuple[str, int] | None, settings: Settings
) -> tuple[UTPProtocol, Address]:
    """Returns a UDP port for a connection to a remote address, and that address in the form that the port needs.

    The port may be new: then it closes with its last connection, so the caller has to begin one at once.  Raises
    ``CannotListenError``.
    """
    ports = ports_of(reactor)
    interface, number = bind_address or ("", 0)
    if is_wildcard(remote[0]):
        remote = this_host(remote, interface)
    host = ANY_IPV6 if is_ipv6(remote[0]) else ANY_IPV4
    if interface:
        host = canonical(numeric(interface, number, socket.AF_INET6 if is_ipv6(remote[0]) else socket.AF_INET))
        if is_ipv6(host) != is_ipv6(remote[0]):
            problem = OSError(f"{remote[0]} cannot be reached from {interface}: one is IPv6, one is not")
            raise error.CannotListenError(interface, number, problem)
    alike = (host, limits_of(settings))
    if number:
        utp = ports.listening(remote, host, number)
        if utp is not None:
            return utp, mapped(remote) if is_ipv6(utp.port_address.host) else remote
    else:
        utp = ports.common.get(alike)
        if utp is not None and utp.port is not None:
            return utp, remote

    utp = UTPProtocol(reactor, settings, lasting=False, shared=not number)
    listen_udp(reactor, number, utp, "" if host == ANY_IPV4 else host)
    utp.mark_as_ours()
    ports.add(host, utp)
    if not number:
        ports.common[alike] = utp
    return utp, remote


def adopt(reactor: Any, file_descriptor: int, settings: Settings, accept: Accept, prefix: str) -> UTPProtocol:
    """Listen on a UDP socket that the caller has bound.  Its descriptor stays open; the caller closes it."""
    taken = bound_socket(file_descriptor)
    try:
        host = socket_address(taken.getsockname())[0]
        utp = UTPProtocol(reactor, settings, accept, prefix=prefix)
        if IReactorFDSet.providedBy(reactor) and hasattr(socket.socket, "sendmsg"):
            AdoptedPort(taken, utp, reactor).startListening()
        elif not hasattr(reactor, "adoptDatagramPort"):
            raise NotImplementedError(
                f"{reactor.__class__.__name__} cannot adopt a UDP socket; listen on a port of its own instead"
            )
        else:
            reactor.adoptDatagramPort(taken.fileno(), taken.family, utp, LARGEST_DATAGRAM_BYTES)
            taken.close()
    except BaseException:
        taken.close()
        raise
    ports_of(reactor).add(host, utp)
    return utp


class AdoptedPort(BatchPort):
    """A ``BatchPort`` on a socket that is bound already: it sets its options, and binds nothing."""

    def __init__(self, taken: socket.socket, protocol: UTPProtocol, reactor: Any) -> None:
        self.taken = taken
        super().__init__(taken.getsockname()[1], protocol, taken.getsockname()[0], reactor)

    def _new_socket(self) -> socket.socket:
        return self.taken

    def _bindSocket(self) -> None:
        self._preexistingSocket = self.createInternetSocket()  # type: ignore[assignment]
        super()._bindSocket()


def bound_socket(file_descriptor: int) -> socket.socket:
    """Returns a duplicate of a UDP socket; raises TypeError or ValueError if the descriptor cannot be used."""
    if not isinstance(file_descriptor, int) or isinstance(file_descriptor, bool):
        raise TypeError(f"a file descriptor is a whole number, not {file_descriptor!r}")
    copy = -1
    try:
        copy = os.dup(file_descriptor)
        taken = socket.socket(fileno=copy)
    except OSError as problem:
        if copy >= 0:
            os.close(copy)
        raise ValueError(f"file descriptor {file_descriptor} is not an open socket: {problem}") from problem
    try:
        wrong = what_is_wrong_with(taken)
        if wrong:
            raise ValueError(f"file descriptor {file_descriptor} has to be a bound UDP socket, but {wrong}")
        taken.setblocking(False)
    except BaseException:
        taken.close()
        raise
    return taken


def what_is_wrong_with(taken: socket.socket) -> str:
    """Returns why a socket cannot carry uTP; empty if it can."""
    if taken.family not in (socket.AF_INET, socket.AF_INET6):
        return "it is of another address family"
    if taken.type != socket.SOCK_DGRAM:
        return "it is not for datagrams"
    if not taken.getsockname()[1]:
        return "it is not bound to a port"
    try:
        return f"it is connected to {taken.getpeername()[:2]}, and receives from there only"
    except OSError:
        return ""


def numeric(interface: str, number: int, family: int) -> str:
    """Returns the numeric address of a name of this host, as Twisted's TCP ports find it.

    Raises ``CannotListenError`` for an unknown name.  The lookup blocks, as that of Twisted's TCP does.
    """
    if not interface or is_numeric(interface):
        return interface
    try:
        found = socket.getaddrinfo(interface, None, family, socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as problem:
        if isinstance(problem, UnicodeError):  # bind(2) calls a name unknown that cannot be encoded
            problem = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        raise error.CannotListenError(interface, number, problem) from problem
    return str(found[0][4][0])


def canonical(host: str) -> str:
    """Returns a numeric address as the system writes it, so that addresses can be compared; a name stays as it is."""
    if isIPv6Address(host):
        address, percent, scope = host.partition("%")
        return socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, address)) + percent + scope
    return host


def this_host(remote: Address, interface: str) -> Address:
    """Returns the address for a connection to 0.0.0.0 or ::, as with TCP: the one that it leaves from, or loopback."""
    if interface and not is_wildcard(interface) and is_ipv6(interface) == is_ipv6(remote[0]):
        return numeric_address(interface, remote[1])
    loopback = "127.0.0.1"
    if is_ipv6(remote[0]):
        loopback = "::1" if canonical(remote[0]) == ANY_IPV6 else "::ffff:127.0.0.1"
    return (loopback, remote[1])


def is_ipv6(host: str) -> bool:
    return ":" in host


def is_dual_stack(utp: UTPProtocol) -> bool:
    """Whether an IPv6 port also carries IPv4."""
    try:
        handle = utp.transport.getHandle()  # type: ignore[union-attr]
        return not handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    except (AttributeError, OSError):
        return False


def mapped(remote: Address) -> Address:
    """Returns an IPv4 address in the form of an IPv6 socket (RFC 4291 2.5.5.2); an IPv6 address stays as it is."""
    return (f"::ffff:{remote[0]}", remote[1]) if isIPAddress(remote[0]) else remote
