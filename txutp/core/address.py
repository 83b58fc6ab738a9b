"""The addresses of a datagram.

An address is a tuple, as the socket has it: ``(host, port)``, or ``(host, port, flow, scope)`` for an IPv6 address with
a scope.  A UDP port that is bound to all addresses of its host adds the one that the datagram came to: ``(host, port,
flow, scope, local)``, with the text of the local address last.  The answer leaves from that address, so both ends
identify a connection, as with TCP.

The multiplexer does not look into an address.  Only a connection that we begin does not know its local address until
the peer has answered; ``remote_of`` and ``with_local`` convert between the two forms.
"""

from __future__ import annotations

from txutp.core.batch import Address

# Number of items of an address with a local address.
PINNED_ITEMS = 5


def remote_of(address: Address) -> Address:
    """Returns the address without its local address."""
    if len(address) != PINNED_ITEMS:
        return address
    return address[:4] if address[3] else address[:2]


def local_of(address: Address) -> str:
    """Returns the local address, with a scope behind a percent sign if it has one; empty if it is not known."""
    return address[4] if len(address) == PINNED_ITEMS else ""


def with_local(remote: Address, local: str) -> Address:
    """Returns an address with a local address; ``remote`` has none."""
    flow, scope = remote[2:4] if len(remote) == 4 else (0, 0)
    return (remote[0], remote[1], flow, scope, local)
