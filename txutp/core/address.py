"""Where a datagram comes from and goes to.

An address is a tuple, as the socket has it: ``(host, port)``, or ``(host, port, flow, scope)`` for an IPv6 address with
a scope.  A UDP port that has all addresses of its host adds which of them the datagram came to: ``(host, port, flow,
scope, local)``, with the text of the local address last.  The answer leaves from there, so a connection is known by
both ends, as a TCP connection is.

The multiplexer takes an address as it is.  Only a connection that we begin does not know its local address until the
peer has answered; ``remote_of`` and ``with_local`` lead from the one form to the other.
"""

from __future__ import annotations

from txutp.core.batch import Address

# How many items the address of a UDP port with a known local address has.
PINNED_ITEMS = 5


def remote_of(address: Address) -> Address:
    """The remote end alone."""
    if len(address) != PINNED_ITEMS:
        return address
    return address[:4] if address[3] else address[:2]


def local_of(address: Address) -> str:
    """The text of the local address, with a scope behind a percent sign if it has one; empty if it is not known."""
    return address[4] if len(address) == PINNED_ITEMS else ""


def with_local(remote: Address, local: str) -> Address:
    """Both ends; ``remote`` is an address without a local one."""
    flow, scope = remote[2:4] if len(remote) == 4 else (0, 0)
    return (remote[0], remote[1], flow, scope, local)
