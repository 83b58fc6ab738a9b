"""SYN cookies: SYNs that are answered without state (RFC 4987 3.6, for uTP).

The multiplexer uses them when there is no room for another half-open connection.  Our initial sequence number in the
SYN-ACK is then a keyed hash of the address, the id, the peer's own sequence number and the time; ``judge`` says
whether the first packet of a connection acknowledges such a number.  Address, ids and both sequence numbers are in
that packet again, so the connection can be made from it.

A sequence number has 16 bits, and two cookies are valid at any time, so one blind guess in 32,768 succeeds.  (For a
half-open connection with state it is one in 65,536.)  Hence cookies are used only while there is no room, and packets
are compared with them only for a while after that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2s

from txutp.core.batch import Address
from txutp.core.sequence import MASK16

KEY_BYTES = 16

# Maximum number of spent cookies that are remembered, each until it expires, so that no copy of a packet makes a second
# connection.
MAXIMUM_SPENT = 20_000

# Maximum number of packets that may have overtaken the one that proves the source.
OVERTAKING = 3

# The verdicts of ``judge`` on a packet that belongs to no connection.
NOTHING, EARLY, PROOF = range(3)


class SynCookies:
    """The cookies of one UDP port."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._key = b""  # drawn for the first cookie
        self._good_until_us = -1  # when the last cookie that was sent expires
        self._spent: OrderedDict[tuple[Address, int, int], int] = OrderedDict()  # spent cookies, and their expiry

    def share(self, key: bytes, lifetime_us: int, now_us: int) -> None:
        """Use a key of ``KEY_BYTES`` that is shared with other ports, which may have sent cookies already."""
        self._key = key
        self._good_until_us = max(self._good_until_us, now_us + 2 * lifetime_us)

    def are_out(self, now_us: int) -> bool:
        """Whether a peer may have a valid cookie."""
        return now_us < self._good_until_us

    def make(self, address: Address, syn_id: int, syn_sequence: int, lifetime_us: int, now_us: int) -> int:
        """Returns the initial sequence number that answers a SYN; it is valid for one to two lifetimes."""
        if not self._key:
            self._key = self._random_bytes(KEY_BYTES)
        self._good_until_us = max(self._good_until_us, now_us + 2 * lifetime_us)
        start, factor = self._secrets(address, syn_id, now_us // lifetime_us)
        return start + factor * syn_sequence & MASK16

    def judge(self, address: Address, receive_id: int, sequence: int, ack: int, lifetime_us: int, now_us: int) -> int:
        """Judge a packet that belongs to no connection.

        Returns ``PROOF`` if it is the first packet after the SYN and acknowledges a valid cookie, ``EARLY`` if it may
        be a later packet of such a sender, else ``NOTHING``.
        """
        syn_id = receive_id - 1 & MASK16
        slot = now_us // lifetime_us
        secrets = [self._secrets(address, syn_id, made) for made in (slot, slot - 1)]
        cookie = ack + 1 & MASK16
        for ahead in range(2 + OVERTAKING):
            syn_sequence = sequence - ahead & MASK16
            if any(start + factor * syn_sequence & MASK16 == cookie for start, factor in secrets):
                if ahead != 1:
                    return EARLY  # the number of the SYN itself is that of a probe (liveness.py)
                return NOTHING if (address, syn_id, syn_sequence) in self._spent else PROOF
        return NOTHING

    def spend(self, address: Address, receive_id: int, sequence: int, lifetime_us: int, now_us: int) -> None:
        """Remember that a connection was made from a proof, so that a copy of the packet makes no other one."""
        spent = self._spent
        while spent:
            oldest_until_us = next(iter(spent.values()))
            if now_us < oldest_until_us and len(spent) < MAXIMUM_SPENT:
                break
            spent.popitem(last=False)
        spent[address, receive_id - 1 & MASK16, sequence - 1 & MASK16] = now_us + 2 * lifetime_us

    def _secrets(self, address: Address, syn_id: int, slot: int) -> tuple[int, int]:
        """Returns the numbers that turn the sequence number of a SYN into a cookie: a start, and an odd factor.

        They differ for each address and id, so a peer learns nothing of others' cookies from its own.  ``judge`` tries
        several sequence numbers with one hash, because a hash takes more time than all the rest.
        """
        what = repr((address, syn_id, slot)).encode()
        secrets = int.from_bytes(blake2s(what, digest_size=4, key=self._key).digest(), "big")
        return secrets >> 16, secrets & MASK16 | 1
