"""What a link does with datagrams that have to wait: drop-tail, RED, CoDel, FQ-CoDel, and a policer.

Each is a ``Discipline`` of ``txutp.testing``: the link gives it what comes with ``enqueue`` and asks with ``dequeue``
when it can send.  ``dropped`` counts what it threw away, wherever in the queue that was.  ``paths.py`` makes them.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque

from txutp.core.batch import Address
from txutp.core.units import SECOND_US
from txutp.testing import Datagram


class DropTail:
    """First in, first out, with a limit in packets, in bytes, or both."""

    def __init__(self, limit_packets: int | None = None, limit_bytes: int | None = None) -> None:
        self.limit_packets = limit_packets
        self.limit_bytes = limit_bytes
        self.backlog_bytes = 0
        self.dropped = 0
        self._waiting: deque[Datagram] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        size = datagram.wire_bytes
        if (self.limit_packets is not None and len(self._waiting) >= self.limit_packets) or (
            self.limit_bytes is not None and self.backlog_bytes + size > self.limit_bytes
        ):
            self.dropped += 1
            return False
        self._waiting.append(datagram)
        self.backlog_bytes += size
        return True

    def dequeue(self, now_us: int) -> Datagram | None:
        if not self._waiting:
            return None
        datagram = self._waiting.popleft()
        self.backlog_bytes -= datagram.wire_bytes
        return datagram


class RED(DropTail):
    """Random early detection (Floyd and Jacobson 1993), with the gentle slope above the maximum.

    The average counts packets.  Between minimum and maximum the chance to be dropped rises to ``probability``, from
    there to twice the maximum it rises to one.
    """

    def __init__(
        self,
        chance: random.Random,
        packet_us: float,
        minimum: float = 5,
        maximum: float = 15,
        probability: float = 0.1,
        weight: float = 0.002,
        limit_packets: int = 500,
    ) -> None:
        """``packet_us`` is how long a full packet takes on this link: by it the average falls while it is idle."""
        super().__init__(limit_packets)
        self.average = 0.0
        self._chance = chance
        self._packet_us = packet_us
        self._minimum = minimum
        self._maximum = maximum
        self._probability = probability
        self._weight = weight
        self._passed = 0  # packets since the last drop
        self._idle_since_us: int | None = 0

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        if self._idle_since_us is not None:
            self.average *= (1 - self._weight) ** ((now_us - self._idle_since_us) / self._packet_us)
            self._idle_since_us = None
        self.average += self._weight * (len(self) - self.average)
        if self._early():
            self.dropped += 1
            if not len(self):
                self._idle_since_us = now_us
            return False
        return super().enqueue(datagram, now_us)

    def _early(self) -> bool:
        average = self.average
        if average < self._minimum:
            self._passed = 0
            return False
        if average < self._maximum:
            share = (average - self._minimum) / (self._maximum - self._minimum) * self._probability
        elif average < 2 * self._maximum:
            share = self._probability + (average / self._maximum - 1) * (1 - self._probability)
        else:
            share = 1.0
        # spread drops evenly instead of in clusters
        left = 1 - self._passed * share
        if left <= share or self._chance.random() < share / left:
            self._passed = 0
            return True
        self._passed += 1
        return False

    def dequeue(self, now_us: int) -> Datagram | None:
        datagram = super().dequeue(now_us)
        if datagram is None:
            self._idle_since_us = now_us
        return datagram


class CoDel:
    """Controlled delay (RFC 8289): drops at the head while packets have waited too long for a whole interval."""

    def __init__(self, target_us: int = 5_000, interval_us: int = 100_000, limit_packets: int = 1_000) -> None:
        self.backlog_bytes = 0
        self.dropped = 0
        self._target_us = target_us
        self._interval_us = interval_us
        self._limit_packets = limit_packets
        self._waiting: deque[tuple[Datagram, int]] = deque()
        self._above_since_us = 0  # when the delay will have been above the target for an interval; 0: it is below
        self._dropping = False
        self._drop_next_us = 0
        self._count = 0
        self._last_count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        if len(self._waiting) >= self._limit_packets:
            self.dropped += 1
            return False
        self._waiting.append((datagram, now_us))
        self.backlog_bytes += datagram.wire_bytes
        return True

    def dequeue(self, now_us: int) -> Datagram | None:
        datagram, may_drop = self._pop(now_us)
        if self._dropping:
            if not may_drop:
                self._dropping = False
            while self._dropping and now_us >= self._drop_next_us:
                self.dropped += 1
                self._count += 1
                datagram, may_drop = self._pop(now_us)
                if may_drop:
                    self._drop_next_us = self._control(self._drop_next_us)
                else:
                    self._dropping = False
        elif may_drop:
            self.dropped += 1
            datagram, may_drop = self._pop(now_us)
            self._dropping = True
            # a little after the last time, begin where that one ended (RFC 8289 5.4)
            recent = self._count - self._last_count
            again = recent > 1 and now_us - self._drop_next_us < 16 * self._interval_us
            self._count = recent if again else 1
            self._drop_next_us = self._control(now_us)
            self._last_count = self._count
        return datagram

    def drop_head(self) -> None:
        """Throw away what waited longest (FQ-CoDel makes room so)."""
        datagram, _ = self._waiting.popleft()
        self.backlog_bytes -= datagram.wire_bytes
        self.dropped += 1

    def _control(self, at_us: int) -> int:
        return at_us + round(self._interval_us / math.sqrt(self._count))

    def _pop(self, now_us: int) -> tuple[Datagram | None, bool]:
        """The head, and whether it has been above the target for so long that it may be dropped."""
        if not self._waiting:
            self._above_since_us = 0
            return None, False
        datagram, came_us = self._waiting.popleft()
        self.backlog_bytes -= datagram.wire_bytes
        if now_us - came_us < self._target_us or self.backlog_bytes <= datagram.wire_bytes:
            self._above_since_us = 0
            return datagram, False
        if not self._above_since_us:
            self._above_since_us = now_us + self._interval_us
            return datagram, False
        return datagram, now_us >= self._above_since_us


class FQCoDel:
    """Fair queueing with CoDel for each flow (RFC 8290), by addresses and ports; no two flows share a queue here."""

    def __init__(self, quantum_bytes: int = 1_514, limit_packets: int = 10_240) -> None:
        self._quantum_bytes = quantum_bytes
        self._limit_packets = limit_packets
        self._queues: dict[tuple[Address, Address], CoDel] = {}
        self._credit: dict[tuple[Address, Address], int] = {}
        self._new: OrderedDict[tuple[Address, Address], None] = OrderedDict()
        self._old: OrderedDict[tuple[Address, Address], None] = OrderedDict()
        self.backlog_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def dropped(self) -> int:
        return sum(queue.dropped for queue in self._queues.values())

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        flow = (datagram.source, datagram.destination)
        queue = self._queues.get(flow)
        if queue is None:
            queue = self._queues[flow] = CoDel(limit_packets=self._limit_packets)
        if not queue.enqueue(datagram, now_us):
            return False
        self.backlog_bytes += datagram.wire_bytes
        if flow not in self._new and flow not in self._old:
            self._new[flow] = None
            self._credit[flow] = self._quantum_bytes
        if self.backlog_bytes > self._limit_packets * 64 and len(self) > self._limit_packets:
            fattest = max(self._queues.values(), key=lambda queue: queue.backlog_bytes)
            before_bytes = fattest.backlog_bytes
            fattest.drop_head()
            self.backlog_bytes -= before_bytes - fattest.backlog_bytes
        return True

    def dequeue(self, now_us: int) -> Datagram | None:
        while True:
            turns = self._new or self._old
            if not turns:
                return None
            flow = next(iter(turns))
            if self._credit[flow] <= 0:
                self._credit[flow] += self._quantum_bytes
                del turns[flow]
                self._old[flow] = None
                continue
            queue = self._queues[flow]
            before_bytes = queue.backlog_bytes
            datagram = queue.dequeue(now_us)
            self.backlog_bytes -= before_bytes - queue.backlog_bytes
            if datagram is None:
                # an empty new queue waits at the end of the old ones, or it would get more than its share
                was_new = turns is self._new
                del turns[flow]
                if was_new and self._old:
                    self._old[flow] = None
                continue
            self._credit[flow] -= datagram.wire_bytes
            return datagram


class Policer(DropTail):
    """A token bucket: what comes faster than the rate is dropped instead of delayed."""

    def __init__(self, rate_bytes_per_second: float, bucket_bytes: int) -> None:
        super().__init__()
        self._rate = rate_bytes_per_second / SECOND_US
        self._bucket_bytes = bucket_bytes
        self._tokens = float(bucket_bytes)
        self._filled_us = 0

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        self._tokens = min(self._tokens + (now_us - self._filled_us) * self._rate, self._bucket_bytes)
        self._filled_us = now_us
        size = datagram.wire_bytes
        if self._tokens < size:
            self.dropped += 1
            return False
        self._tokens -= size
        return super().enqueue(datagram, now_us)


class BurstLoss:
    """The model of Gilbert and Elliott: a path that is good or bad, and loses everything while it is bad.

    A link asks it for each datagram (``Link.loses``).
    """

    def __init__(self, chance: random.Random, mean_loss: float, mean_burst_packets: float) -> None:
        self._chance = chance
        self._recovers = 1 / mean_burst_packets
        self._fails = mean_loss / (1 - mean_loss) * self._recovers
        self._bad = False

    def __call__(self) -> bool:
        if self._bad:
            self._bad = self._chance.random() >= self._recovers
        else:
            self._bad = self._chance.random() < self._fails
        return self._bad
