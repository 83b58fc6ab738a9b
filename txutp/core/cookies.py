"""SYN cookies: SYNs that are answered without being remembered (RFC 4987 3.6, for uTP).

The multiplexer calls it when there is no room for another half-open connection.  Our initial sequence number in the
SYN-ACK is then a keyed hash of the address, the id, the peer's own sequence number and the time; ``proves`` tells
whether the first packet of a connection acknowledges such a number.  Address, ids and both sequence numbers are in
that packet again, so the connection can be made from it.

A sequence number has 16 bits, and two numbers are good at any time, so a blind guess succeeds once in 32,768.  (One for
a half-open connection that is remembered succeeds once in 65,536.)  Hence cookies are used only while there is no room,
and a packet is compared with them only for a while after that.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2s

from txutp.core.batch import Address
from txutp.core.sequence import MASK16

KEY_BYTES = 16

# Connections that were made of a cookie are remembered until it is out of date, so that no copy of the packet makes
# another one: so many at most.
MAXIMUM_SPENT = 20_000

# Packets that may have overtaken the one that proves the source.
OVERTAKING = 3

# What a packet for no connection says.
NOTHING, EARLY, PROOF = range(3)


class SynCookies:
    """Of one UDP port."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._key = b""  # drawn when the first one is needed
        self._good_until_us = -1  # for all that were given out
        self._spent: OrderedDict[tuple[Address, int, int], int] = OrderedDict()  # and until when it matters

    def share(self, key: bytes, lifetime_us: int, now_us: int) -> None:
        """Use a key of ``KEY_BYTES`` that others use as well, whose cookies may be out."""
        self._key = key
        self._good_until_us = max(self._good_until_us, now_us + 2 * lifetime_us)

    def are_out(self, now_us: int) -> bool:
        """Whether somebody may have one that is still good."""
        return now_us < self._good_until_us

    def make(self, address: Address, syn_id: int, syn_sequence: int, lifetime_us: int, now_us: int) -> int:
        """The initial sequence number with which a SYN is answered; it is good for one to two lifetimes."""
        if not self._key:
            self._key = self._random_bytes(KEY_BYTES)
        self._good_until_us = max(self._good_until_us, now_us + 2 * lifetime_us)
        start, factor = self._secrets(address, syn_id, now_us // lifetime_us)
        return start + factor * syn_sequence & MASK16

    def judge(self, address: Address, receive_id: int, sequence: int, ack: int, lifetime_us: int, now_us: int) -> int:
        """What a packet for no connection says.

        ``PROOF`` if it is the first one of its sender and acknowledges a cookie that is good; ``EARLY`` if it may be
        another one of such a sender; else ``NOTHING``.
        """
        syn_id = receive_id - 1 & MASK16
        slot = now_us // lifetime_us
        secrets = [self._secrets(address, syn_id, made) for made in (slot, slot - 1)]
        cookie = ack + 1 & MASK16
        for ahead in range(2 + OVERTAKING):
            syn_sequence = sequence - ahead & MASK16
            if any(start + factor * syn_sequence & MASK16 == cookie for start, factor in secrets):
                if ahead != 1:
                    return EARLY  # with the number of the SYN itself it is a probe (liveness.py)
                return NOTHING if (address, syn_id, syn_sequence) in self._spent else PROOF
        return NOTHING

    def spend(self, address: Address, receive_id: int, sequence: int, lifetime_us: int, now_us: int) -> None:
        """A connection was made of a proof: no copy of the packet shall make another one."""
        spent = self._spent
        while spent:
            oldest_until_us = next(iter(spent.values()))
            if now_us < oldest_until_us and len(spent) < MAXIMUM_SPENT:
                break
            spent.popitem(last=False)
        spent[address, receive_id - 1 & MASK16, sequence - 1 & MASK16] = now_us + 2 * lifetime_us

    def _secrets(self, address: Address, syn_id: int, slot: int) -> tuple[int, int]:
        """What makes a cookie of the number of a SYN: a number to start from, and an odd factor.

        They differ for each address and id, so nobody learns those of others from cookies of its own.  A hash takes
        more time than the rest of ``judge``, which tries several numbers.
        """
        what = repr((address, syn_id, slot)).encode()
        secrets = int.from_bytes(blake2s(what, digest_size=4, key=self._key).digest(), "big")
        return secrets >> 16, secrets & MASK16 | 1
