"""Rate caps: how many bytes per second a connection, or all connections of a port, may send or receive.

A ``Pool`` is one cap.  Bytes become free in it with time, and connections draw on it.  A ``Cap`` is one direction of a
connection, which draws on a pool of its own, on that of the port, or on both.  ``Flow`` asks a ``Cap`` before data
leaves, ``Intake`` before it opens the window of the peer.  ``rates.py`` decides which pools there are.

What counts
    Whole IP packets: the headers of IP, UDP and uTP, and the payload.  Data waits until the pool has enough for it.
    Acks, handshakes, keepalives and FINs never wait, because the other direction would stand still: the pool *owes*
    their bytes, and pays with three quarters at most of what becomes free, so that some data always leaves.

Fairness
    Where connections want more than there is, they wait in a row, and each has a turn of so many bytes (deficit round
    robin, Shreedhar and Varghese 1995).  A connection that wants nothing is not in the row, so the others have its
    share.  A turn is large where the rate is high, because a batch costs one system call, but all connections have one
    in ``ROUND_US`` where that leaves a packet to each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from txutp.core.batch import Batch
from txutp.core.packet import HEADER_BYTES
from txutp.core.units import SECOND_US

# A burst is what becomes free in this time, or one packet.
BURST_US = 5_000
# So much of the past may be free besides: always; while connections wait, because timers may be late on a busy machine,
# and what they lose would be missing in the second; and while a connection waits for another cap.
LATENESS_US = 10_000
LATE_US = 50_000
HELD_US = 100_000

# Time in which all connections shall have a turn, and the largest turn: a batch for one system call.
ROUND_US = 10_000
LARGEST_TURN_BYTES = 65_000

# The part of what becomes free that pays for packets that did not wait, and the seconds of it that are owed at most.
OWED_SHARE = 0.75
LONGEST_OWED_SECONDS = 1.0

# The seconds of silence at most that pay for data which came although the cap did not offer as much.
LONGEST_DEBT_SECONDS = 4.0

# Under small caps packets are smaller: this part of a second's bytes, so that a second is exact; but not below a size
# that every path carries whole (RFC 791).
PACKET_SHARE = 0.015
LEAST_PACKET_BYTES = 576

# A cap limits a connection for so long after it held back something, if it was so for this many round trips.
LIMITED_US = 100_000
LIMITED_ROUND_TRIPS = 1.25

# Within this time a connection whose turn has come draws on it; others wait for so long.
PROMISE_US = 2_000

# A connection is busy if it uses its turn within this part of the time for which it waited, or within this time.
BUSY_SHARE = 0.25
BUSY_US = 1_000

# How soon a connection in a row is asked again, at the earliest.
SOONEST_US = 200

NEVER_US = 1 << 62


class Claim:
    """The part of one connection in a pool."""

    __slots__ = (
        "due_us",
        "on_turn",
        "pool",
        "promised_us",
        "seen_second",
        "ticket",
        "turn_bytes",
        "unit_bytes",
        "waits",
        "wanted_bytes",
    )

    def __init__(self, pool: Pool, on_turn: Callable[[int], None]) -> None:
        self.pool: Pool = pool
        self.on_turn: Callable[[int], None] = on_turn  # called with the time when its turn has come
        self.unit_bytes: int = 1  # a full packet of it
        self.wanted_bytes: int = 0
        self.turn_bytes: float = 0.0  # what is left of its turn
        self.waits: bool = False  # in the row
        self.ticket: int = 0  # its place in the row
        self.due_us: int = 0  # when it may ask again
        self.promised_us: int = 0  # when its turn came
        self.seen_second: int = -1

    @property
    def goes_on(self) -> bool:
        """Whether a packet of those that it wants still belongs to the turn that it had."""
        return self.turn_bytes >= min(self.wanted_bytes, self.unit_bytes)


class Pool:
    """Bytes that become free at a rate."""

    __slots__ = (
        "_credit",
        "_is_serving",
        "_last_sharers",
        "_owed_bytes",
        "_promised",
        "_promised_bytes",
        "_returned",
        "_ring_us",
        "_row",
        "_second",
        "_served",
        "_sharers",
        "_unit_bytes",
        "_updated_us",
        "bytes_per_second",
        "is_held",
    )

    def __init__(self, bytes_per_second: int, now_us: int) -> None:
        self.bytes_per_second: int = bytes_per_second
        self._updated_us = now_us
        self._unit_bytes = 0  # the largest packet of all claims
        self._credit = bytes_per_second * (BURST_US + LATENESS_US) / SECOND_US
        self._owed_bytes = 0.0  # of what did not wait
        self._row: deque[Claim] = deque()
        self._returned = 0  # claims at the front of the row that have begun their turn
        self._served = 0  # turns, ever
        self._ring_us = 0  # a claim asks then whether the first in the row may have its turn
        self._promised: dict[Claim, float] = {}  # to claims whose turn has come and that have not drawn yet
        self._promised_bytes = 0.0  # in all
        self._is_serving = False
        self.is_held: bool = False  # what is free here waits for another pool
        # claims that drew in this second, and in the one before
        self._second = -1
        self._sharers = self._last_sharers = 0

    @property
    def share(self) -> float:
        """Bytes per second for each connection that draws."""
        return self.bytes_per_second / max(self._sharers, self._last_sharers, 1)

    def change(self, bytes_per_second: int, now_us: int) -> None:
        """From now on another rate."""
        self._grow(now_us)
        self.bytes_per_second = bytes_per_second
        self._grow(now_us)
        for claim in list(self._row):
            claim.on_turn(now_us)

    def offer(self, claim: Claim, wanted_bytes: int, now_us: int) -> int:
        """Returns how much of it a claim may draw now, at least a packet; if that is 0 the claim waits in the row."""
        if claim.unit_bytes > self._unit_bytes:
            self._unit_bytes = claim.unit_bytes
        self._grow(now_us)
        self._serve(claim, now_us)
        credit = self._credit + 1e-3  # a matter of rounding
        if claim.waits:
            claim.wanted_bytes = wanted_bytes
        elif claim.turn_bytes >= min(wanted_bytes, claim.unit_bytes):
            if credit >= min(wanted_bytes, claim.unit_bytes):
                return int(min(claim.turn_bytes, credit, wanted_bytes))
            self._wait_on(claim, wanted_bytes)
        elif not self._row and credit >= min(wanted_bytes, self._burst_bytes):
            return int(min(credit, wanted_bytes))
        else:
            self._wait(claim, wanted_bytes)
        claim.due_us = self._due_us(claim, now_us)
        return 0

    def draw(self, claim: Claim, size: float, now_us: int) -> None:
        """A claim has drawn so much, whether that was offered or not; what was put back is negative."""
        self._credit = max(self._credit - size, -self.bytes_per_second * LONGEST_DEBT_SECONDS)
        if claim.turn_bytes:
            claim.turn_bytes = max(claim.turn_bytes - size, 0.0)
            self._fulfil(claim)
        second = now_us // SECOND_US
        if second != self._second:
            self._last_sharers = self._sharers if second == self._second + 1 else 0
            self._second, self._sharers = second, 0
        if claim.seen_second != second:
            claim.seen_second = second
            self._sharers += 1

    def put_back(self, size: int) -> None:
        """So much of what was drawn was not used."""
        self._credit += size

    def owe(self, size: float) -> None:
        """So much passed without waiting; it is negative for what did not pass after all."""
        most_bytes = self.bytes_per_second * LONGEST_OWED_SECONDS
        self._owed_bytes = min(max(self._owed_bytes + size, 0.0), most_bytes)

    def leave(self, claim: Claim) -> None:
        """A claim wants nothing any more."""
        self._fulfil(claim)
        if claim.waits:
            claim.waits = False
            self._forget_ring(claim)
            self._returned -= self._row.index(claim) < self._returned
            self._row.remove(claim)

    @property
    def _burst_bytes(self) -> float:
        return max(self.bytes_per_second * BURST_US / SECOND_US, self._unit_bytes)

    def _grow(self, now_us: int) -> None:
        """What has become free since the last time."""
        rate = self.bytes_per_second
        income = (now_us - self._updated_us) * rate / SECOND_US
        self._updated_us = now_us
        if self._owed_bytes:
            paid = min(self._owed_bytes, OWED_SHARE * income)
            self._owed_bytes -= paid
            income -= paid
        lateness_us = HELD_US if self.is_held else LATE_US if self._row else LATENESS_US
        self._credit = min(self._credit + income, self._burst_bytes + rate * lateness_us / SECOND_US)

    @property
    def _turn_bytes(self) -> float:
        """Turns are equal for all, and no shorter than the largest packet."""
        turn_bytes = self.bytes_per_second * ROUND_US / SECOND_US / max(len(self._row), 2)
        return max(min(turn_bytes, LARGEST_TURN_BYTES), self._unit_bytes)

    def _needed_bytes(self, claim: Claim) -> float:
        """What has to be free before a claim in the row has its turn."""
        return min(claim.unit_bytes if claim.goes_on else self._turn_bytes, claim.wanted_bytes)

    def _serve(self, caller: Claim, now_us: int) -> None:
        """Give turns to the first in the row; all but the caller are told."""
        if self._is_serving or not self._row:
            return
        row = self._row
        for claim in list(self._promised):
            if now_us - claim.promised_us <= PROMISE_US:
                break
            self._fulfil(claim)
        free_bytes = self._credit + 1e-3 - self._promised_bytes
        turned: list[Claim] = []
        while row:
            head = row[0]
            needed_bytes = self._needed_bytes(head)
            if needed_bytes > free_bytes:
                break
            free_bytes -= needed_bytes
            self._fulfil(head)
            self._promised[head] = needed_bytes
            self._promised_bytes += needed_bytes
            head.promised_us = now_us
            if not head.goes_on:
                head.turn_bytes += self._turn_bytes
            head.waits = False
            self._forget_ring(head)
            row.popleft()
            self._returned = max(self._returned - 1, 0)
            self._served += 1
            turned.append(head)
        self._is_serving = True
        for claim in turned:
            if claim is not caller:
                claim.on_turn(now_us)
        self._is_serving = False

    def _fulfil(self, claim: Claim) -> None:
        """A claim draws, or will not do so soon: others may have what it leaves."""
        self._promised_bytes -= self._promised.pop(claim, 0.0)

    def _forget_ring(self, claim: Claim) -> None:
        """A claim may not ask again."""
        if claim.due_us == self._ring_us:
            self._ring_us = 0

    def _wait_on(self, claim: Claim, wanted_bytes: int) -> None:
        """Wait to go on with a turn that has begun."""
        claim.wanted_bytes = wanted_bytes
        claim.waits = True
        claim.ticket = self._served + self._returned
        self._row.insert(self._returned, claim)
        self._returned += 1

    def _wait(self, claim: Claim, wanted_bytes: int) -> None:
        """Wait for the next turn."""
        claim.wanted_bytes = wanted_bytes
        claim.waits = True
        claim.ticket = self._served + len(self._row)
        self._row.append(claim)

    def _due_us(self, claim: Claim, now_us: int) -> int:
        """When a claim in the row asks again.

        One of them does so when the first may have its turn, whatever those before it have drawn; the others when they
        expect their own.
        """
        head_us = self._free_us(self._needed_bytes(self._row[0]), now_us)
        if claim.due_us == self._ring_us or not now_us < self._ring_us <= head_us:
            self._ring_us = head_us
            return head_us
        ahead = max(claim.ticket - self._served, 0)
        return self._free_us(ahead * self._turn_bytes + self._needed_bytes(claim), now_us)

    def _free_us(self, needed_bytes: float, now_us: int) -> int:
        """When so much will be free."""
        missing_bytes = needed_bytes - self._credit
        missing_bytes += min(self._owed_bytes, missing_bytes * OWED_SHARE / (1 - OWED_SHARE))
        return now_us + max(int(missing_bytes * SECOND_US / self.bytes_per_second) + 1, SOONEST_US)


class Cap:
    """One direction of a connection, and the pools that it draws on."""

    __slots__ = (
        "_busy_since_us",
        "_claims",
        "_held_us",
        "_on_turn",
        "_refused_us",
        "_waited_us",
        "_waits_since_us",
        "due_us",
        "overhead_bytes",
        "own",
        "resumed_us",
        "shared",
    )

    def __init__(self, overhead_bytes: int, on_turn: Callable[[int], None]) -> None:
        """``overhead_bytes`` are the headers of IP and UDP; ``on_turn`` is called when something may go that waited."""
        self.overhead_bytes: int = overhead_bytes
        self.own: Pool | None = None
        self.shared: Pool | None = None
        self.due_us: int = NEVER_US  # when to ask again after a refusal
        self._on_turn = on_turn
        self._claims: tuple[Claim, ...] = ()
        self._held_us = 0
        self._waits_since_us = -1
        self._waited_us = 0  # the last time...
        self.resumed_us: int = -SECOND_US  # ...until then
        self._refused_us = -SECOND_US
        self._busy_since_us = 0  # since then it has used each turn much faster than it waited for it

    def draw_on(self, own: Pool | None, shared: Pool | None) -> None:
        """Draw on these pools from now on, in the place of any others."""
        self.leave()
        self.own, self.shared = own, shared
        self._claims = tuple(Claim(pool, self._on_turn) for pool in self._pools())

    def _pools(self) -> Iterator[Pool]:
        for pool in (self.own, self.shared):
            if pool is not None:
                yield pool

    @property
    def bytes_per_second(self) -> int:
        """The lowest of the caps."""
        return min(pool.bytes_per_second for pool in self._pools())

    @property
    def share(self) -> float:
        """Bytes per second that are left to this connection."""
        return min(pool.share for pool in self._pools())

    def limits(self, round_trip_us: int, now_us: int) -> bool:
        """Whether the caps bound the rate of the connection: a window that does leaves a gap in each round trip."""
        is_busy = now_us - self._busy_since_us > LIMITED_ROUND_TRIPS * (round_trip_us + self._waited_us)
        return is_busy and (self._waits_since_us >= 0 or now_us - self._refused_us <= LIMITED_US)

    def held_us(self, now_us: int) -> int:
        """How long something has waited for the caps, in all."""
        return self._held_us + (now_us - self._waits_since_us if self._waits_since_us >= 0 else 0)

    def allow(self, wanted_bytes: int, segment_bytes: int, now_us: int) -> int:
        """Returns how much of this payload may go now: all, or whole segments.  If that is 0, ask again at ``due_us``.

        Nothing is drawn: ``draw`` says what went.
        """
        header_bytes = HEADER_BYTES + self.overhead_bytes
        all_bytes = offered_bytes = wanted_bytes + -(-wanted_bytes // segment_bytes) * header_bytes
        for claim in self._claims:
            claim.unit_bytes = segment_bytes + header_bytes
            offered_bytes = claim.pool.offer(claim, offered_bytes, now_us)
            if not offered_bytes:
                self.due_us = claim.due_us
                if self._waits_since_us < 0:
                    self._begin_wait(now_us)
                if self.own is not None:
                    self.own.is_held = claim.pool is not self.own
                return 0
        if self.own is not None:
            self.own.is_held = False
        if self._waits_since_us >= 0:
            self._waited_us = now_us - self._waits_since_us
            self._held_us += self._waited_us
            self.resumed_us = now_us
            self._waits_since_us = -1
        self.due_us = NEVER_US
        if offered_bytes >= all_bytes:
            return wanted_bytes
        return offered_bytes // (segment_bytes + header_bytes) * segment_bytes

    def _begin_wait(self, now_us: int) -> None:
        self._waits_since_us = self._refused_us = now_us
        if now_us - self.resumed_us > max(self._waited_us * BUSY_SHARE, BUSY_US):
            self._busy_since_us = now_us

    def draw(self, datagrams_bytes: float, count: int, now_us: int) -> None:
        """Datagrams with data went; these are their bytes without the headers of IP and UDP."""
        size = datagrams_bytes + count * self.overhead_bytes
        for claim in self._claims:
            claim.pool.draw(claim, size, now_us)

    def owe(self, datagrams_bytes: float, count: int) -> None:
        """Datagrams went that do not wait."""
        for claim in self._claims:
            claim.pool.owe(datagrams_bytes + count * self.overhead_bytes)

    def leave(self) -> None:
        """Nothing waits any more."""
        for claim in self._claims:
            claim.pool.leave(claim)
        self._waits_since_us = -1
        self.due_us = NEVER_US


class SendCap(Cap):
    """What a connection sends."""

    __slots__ = ("path_datagram_bytes",)

    def __init__(self, overhead_bytes: int, on_turn: Callable[[int], None], path_datagram_bytes: int) -> None:
        super().__init__(overhead_bytes, on_turn)
        self.path_datagram_bytes: int = path_datagram_bytes  # how large they are without a cap

    def fitted(self, datagram_bytes: int) -> int:
        """Returns how large datagrams are where the path takes this size."""
        self.path_datagram_bytes = datagram_bytes
        return min(datagram_bytes, self._largest_bytes)

    @property
    def _largest_bytes(self) -> int:
        """The largest datagram under these caps."""
        packet_bytes = max(int(self.bytes_per_second * PACKET_SHARE), LEAST_PACKET_BYTES)
        return packet_bytes - self.overhead_bytes

    def allows_probe(self, datagram_bytes: int, now_us: int) -> bool:
        """Whether a datagram of this size may leave now, to see whether the path takes it."""
        return datagram_bytes <= self._largest_bytes and self.allow(datagram_bytes, datagram_bytes, now_us) > 0

    def on_batch(self, batch: Batch, has_data: bool, now_us: int) -> None:
        """A batch leaves."""
        if has_data:
            self.draw(batch.last_bytes(batch.count), batch.count, now_us)
        else:
            self.owe(batch.last_bytes(batch.count), batch.count)

    def on_refused(self, batch: Batch, missing: int, has_data: bool) -> None:
        """The last ``missing`` datagrams of a batch did not leave after all."""
        size = batch.last_bytes(missing) + missing * self.overhead_bytes
        for claim in self._claims:
            if has_data:
                claim.pool.put_back(size)
            else:
                claim.pool.owe(-size)
