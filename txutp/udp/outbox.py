"""What leaves a UDP port: the batches of its connections, in order and each once, however full the socket is.

``protocol.py`` calls it.  In each round of a settle ``transmit`` takes what one connection after the other has to send,
and ``flush`` ends the round.  Two things are done here on the way to the socket:

- Small datagrams of different connections that are of one size and for one address are gathered, so that they leave in
  one system call where the kernel cuts runs (GSO).  So a peer with many connections costs less than many peers, and it
  reads them in one call, too.
- What the socket refuses was never sent.  Its connection takes it back, and is asked again when there is room.

What raises while the datagrams of one connection are sent ends that one alone; all others leave.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

from txutp.core.batch import Address, Batch, Buffer
from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.states import FAILED, SYN_SENT, UNREACHABLE
from txutp.udp.marking import Marking

# Smaller datagrams are gathered: acks, SYNs and FINs, and short messages.  For others the system call is not what costs
# most, and they shall not wait.
SMALL_BYTES = 256

# So many are gathered at most, and not for more than half of the connections: the other side has something to do then
# while we go on, and both work all the time.  If a round is less than this part of the connections, most of them are
# idle, and those of the round are all that count.
MOST_GATHERED = 32
BUSY_PART = 1 / 4

# An application that is slow to answer some shall not hold up what others wait for.
LONGEST_WAIT_US = 2_000

# What ends an attempt to connect.  A packet filter's EPERM does not, nor does anything that is not known: as with TCP,
# the SYN is repeated.  EHOSTDOWN is what BSDs and macOS say of a neighbour that does not answer.
NO_ROUTE: set[int] = {
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EHOSTUNREACH,
    errno.EADDRNOTAVAIL,
    errno.EINVAL,
    getattr(errno, "EHOSTDOWN", errno.EHOSTUNREACH),
}

# One or more small datagrams that leave together, or one batch of any kind, with those that they are from.
Bundle = list[tuple[Connection, Batch]]


class Outbox:
    """Between the connections of a UDP port and its socket."""

    _log = Logger()

    def __init__(self, multiplexer: Multiplexer, now_us: Callable[[], int]) -> None:
        self.port: Any = None  # an IBatchPort while it is open
        self.marking: Marking = Marking()
        self._multiplexer = multiplexer
        self._now_us = now_us
        self._blocked = False  # the socket refused something
        self._waiting: dict[Connection, None] = {}  # until it takes datagrams again; in order, each once
        self._bundles: list[Bundle] = []  # in the order in which they leave
        # the last bundle of each kind, as its place in the list
        self._newest: dict[tuple[Address, int, int, int | None], int] = {}
        self._gathered = 0
        self._gathering_since_us = 0
        self._limit = 0  # so many gathered ones leave

    # -- called by UTPProtocol --

    def begin_round(self, connections: int) -> None:
        """So many connections are about to be asked what they have."""
        self._limit = 0
        if connections > 1 and self.port is not None and self.port.offload_send:
            busy = len(self._multiplexer)
            if connections < BUSY_PART * busy:
                busy = connections
            if busy > 3:
                self._limit = min(busy // 2, MOST_GATHERED)

    def transmit(self, connection: Connection, owner: Any) -> None:
        """Send what the connection has; let a waiting producer add to it in time for full bursts."""
        hungry = owner is not None and owner.hungry
        place = 0  # of the bundle that its last datagram is in
        dscp = None if connection.settings is self.marking.settings else self.marking.of(connection)
        while self.port is not None:
            if self._blocked:
                self._waiting[connection] = None
                return
            if hungry:
                owner.refill()
            now_us = self._now_us()
            batch = connection.next_batch(now_us)
            if batch is None:
                return
            batch.dscp = dscp
            if self._limit and batch.count == 1 and batch.datagram_bytes < SMALL_BYTES:
                place = self._gather(connection, batch, place, now_us)
            elif self._bundles:
                self._bundles.append([(connection, batch)])
                self.flush()
            else:
                self._send_bundles([[(connection, batch)]])

    def flush(self) -> None:
        """Send what was gathered."""
        bundles = self._bundles
        if not bundles:
            return
        self._bundles = []
        self._gathered = 0
        self._newest.clear()
        if self.port is not None:
            self._send_bundles(bundles)

    def _send_bundles(self, bundles: list[Bundle]) -> None:
        """Send each bundle as one batch, in order."""
        for place, bundle in enumerate(bundles):
            batch = bundle[0][1] if len(bundle) == 1 else joined(bundle)
            try:
                accepted = 0 if self._blocked else self._send(batch)
            except OSError as problem:
                self._failed(bundle, problem)
                continue
            except Exception:
                # the address is none, say; a RESET could not be sent there either
                self._log.failure("sending to {address} raised", address=batch.address)
                for connection, _ in bundle:
                    connection.fail(FAILED)
                    self._multiplexer.touch(connection)
                continue
            if accepted < batch.count:
                self._take_back(bundles[place:], accepted)
                return

    def send(self, batch: Batch) -> None:
        """Send something that no connection waits for: it is lost if the socket is full.  May raise ``OSError``."""
        if self.port is not None and not self._blocked:
            self._send(batch)

    def writable(self) -> None:
        """The socket takes datagrams again: those who were refused want to be settled."""
        self._blocked = False
        waiting, self._waiting = self._waiting, {}
        for connection in waiting:
            # the last words of one that has ended would be taken for those of its successor
            if not self._multiplexer.has_successor(connection):
                self._multiplexer.touch(connection)

    # -- bundles --

    def _gather(self, connection: Connection, batch: Batch, place: int, now_us: int) -> int:
        """Put a small datagram to others like it.

        It has to leave behind those that are in the first bundles, up to that at ``place``; gives where it is itself.
        """
        kind = batch.address, batch.datagram_bytes, len(batch.buffers), batch.dscp
        found = self._newest.get(kind, -1)
        if found >= place:
            self._bundles[found].append((connection, batch))
        else:
            self._newest[kind] = found = len(self._bundles)
            self._bundles.append([(connection, batch)])
        if not self._gathered:
            self._gathering_since_us = now_us
        self._gathered += 1
        if self._gathered < self._limit and now_us < self._gathering_since_us + LONGEST_WAIT_US:
            return found
        self.flush()
        return 0

    def _take_back(self, bundles: list[Bundle], accepted: int) -> None:
        """All but the first datagrams of these were never sent; what was made last is taken back first."""
        refused: list[tuple[Connection, Batch, int]] = []
        for bundle in bundles:
            for connection, batch in bundle:
                if accepted < batch.count:
                    refused.append((connection, batch, accepted))
                    self._waiting[connection] = None
                accepted = max(accepted - batch.count, 0)
        for connection, batch, accepted in reversed(refused):
            connection.refuse(batch, accepted)

    def _send(self, batch: Batch) -> int:
        """Hand a batch to the port and count it; gives how many of its datagrams left."""
        counters = self._multiplexer.counters
        counters.send_calls += 1
        try:
            accepted: int = self.port.send_batch(batch)
        except OSError:
            counters.sends_failed += 1
            raise
        counters.datagrams_sent += accepted
        if accepted < batch.count:
            counters.sends_refused += 1
            self._blocked = True
        return accepted

    def _failed(self, bundle: Bundle, problem: OSError) -> None:
        """No route and the like.  A connection that is up waits for better times: its datagrams count as lost."""
        for connection, batch in bundle:
            if problem.errno == errno.EMSGSIZE and batch.dont_fragment:
                connection.too_large(batch)
            elif connection.state == SYN_SENT and problem.errno in NO_ROUTE:
                connection.fail(UNREACHABLE)
                self._multiplexer.touch(connection)


def joined(bundle: Bundle) -> Batch:
    """Small datagrams that are alike, as one batch."""
    first = bundle[0][1]
    buffers: list[Buffer] = []
    for _, batch in bundle:
        buffers += batch.buffers
    together = Batch(first.address, buffers, len(bundle), first.datagram_bytes)
    together.dscp = first.dscp
    return together
