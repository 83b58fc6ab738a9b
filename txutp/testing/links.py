"""What radio, cable and busy hosts do to datagrams, for a ``Link`` of ``txutp.testing``, which publishes all of it.

A *service* says when the datagram at the head of the queue has left, in the place of a constant rate::

    trace = Trace.generate(random.Random(1), seconds=60, megabits=8)
    Link(delay_us=25_000, service=trace, queue_bytes=300_000)

``Trace`` follows a file of mahimahi, ``Turns`` is a Wi-Fi that others use, too, and ``Grants`` the way up of a cable.

A *stage* says when a datagram that has left the queue goes on, or loses it.  A link has any number of them::

    Link(delay_us=25_000, behind=[HARQ(random.Random(1)), Outage(10_000_000, 15_000_000, held=True)])

``HARQ`` repeats what a cell's radio lost, ``Outage`` is a tunnel, and ``ThinnedAcks`` a modem that drops old acks.  A
receiver that reads its socket so often only, and a Wi-Fi that hands over whole frames, are ``Link.gate_us``; a host
with a coarse clock is ``Network.reactor(host, clock_tick_us=15_625)``.

Each object belongs to one link of one network: it remembers what it did.  Everything random comes from the
``random.Random`` that it is given.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from random import Random
from typing import Protocol

from txutp.core.batch import Address
from txutp.core.packet import HEADER_BYTES, ST_STATE, Packet, parse_untrusted
from txutp.core.units import SECOND_US

UDP_HEADER_BYTES = 8
IPV4_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40

MILLISECOND_US = 1_000


@dataclass
class Datagram:
    """A UDP datagram on its way.  A hook may change it, and set ``dropped``."""

    source: Address
    destination: Address
    data: bytes
    sent_at_us: int
    dropped: bool = False
    header_bytes: int | None = None
    """What UDP and IP add; None is what they do add."""

    @property
    def wire_bytes(self) -> int:
        """Its size with UDP and IP headers."""
        header_bytes = self.header_bytes
        if header_bytes is None:
            header_bytes = UDP_HEADER_BYTES + (IPV6_HEADER_BYTES if ":" in self.destination[0] else IPV4_HEADER_BYTES)
        return len(self.data) + header_bytes

    @property
    def packet(self) -> Packet | None:
        """What it says if it is uTP."""
        return parse_untrusted(self.data)


class Service(Protocol):
    """When datagrams leave a queue; ``Link.service``."""

    def finish_us(self, datagram: Datagram, begin_us: int) -> int:
        """When this datagram has left, which is at the head of the queue from ``begin_us`` on.

        The link asks once for each datagram, in the order in which they leave.
        """

    def wait_us(self, waiting_bytes: int, from_us: int) -> float:
        """How long it takes from a time on until so much has left, as far as that can be told; changes nothing."""


class Stage(Protocol):
    """What happens to datagrams behind the queue; one of ``Link.behind``."""

    def pass_us(self, datagram: Datagram, leaves_us: int) -> int | None:
        """When this datagram goes on, which came here at ``leaves_us``; None loses it."""


# -- services --


class Trace:
    """A rate from a recording, in the format of mahimahi's ``mm-link``.

    Each number is a millisecond at which one packet of ``packet_bytes`` may leave; a number that stands there twice
    lets two leave.  What a smaller datagram leaves of an opportunity serves the next one if that waits already.  After
    the last number the recording begins anew.
    """

    def __init__(self, opportunities_ms: Sequence[int], packet_bytes: int = 1_504) -> None:
        """``ValueError`` unless the numbers rise from 0 or more, and the last one is at least 1."""
        self.opportunities_ms: list[int] = list(opportunities_ms)
        self.packet_bytes = packet_bytes
        if not self.opportunities_ms or self.opportunities_ms[-1] < 1 or self.opportunities_ms[0] < 0:
            raise ValueError("a trace has at least one opportunity after its first millisecond, and none before 0")
        if sorted(self.opportunities_ms) != self.opportunities_ms:
            raise ValueError("the opportunities of a trace do not rise")
        self._next = 0  # the opportunity that is in use, counted through all repetitions
        self._left_bytes = packet_bytes  # of it

    @classmethod
    def parse(cls, text: str, packet_bytes: int = 1_504) -> Trace:
        """From the text of a trace file, one number per line; empty lines and those that begin with # say nothing."""
        lines = (line.strip() for line in text.splitlines())
        return cls([int(line) for line in lines if line and not line.startswith("#")], packet_bytes)

    @classmethod
    def generate(
        cls,
        chance: Random,
        seconds: float,
        megabits: float,
        volatility: float = 0.5,
        outages_per_minute: float = 0.0,
        outage_ms: float = 500.0,
        packet_bytes: int = 1_504,
    ) -> Trace:
        """A made-up cell: Poisson opportunities at a rate that wanders around ``megabits``.

        The rate's logarithm moves by ``volatility`` in a second (the standard deviation) and drifts back to its mean;
        the rate stays between a tenth and three times of it.  ``outages_per_minute`` pauses, ``outage_ms`` long in the
        mean, come on top.
        """
        per_ms = megabits * SECOND_US / 8 / packet_bytes / 1_000
        numbers: list[int] = []
        level, credit, silent_until_ms = 0.0, chance.expovariate(1.0), 0.0
        for millisecond in range(round(seconds * 1_000)):
            level += chance.gauss(0.0, volatility * 0.001**0.5) - level * 0.001
            if outages_per_minute and chance.random() < outages_per_minute / 60_000:
                silent_until_ms = max(silent_until_ms, millisecond + chance.expovariate(1 / outage_ms))
            if millisecond < silent_until_ms:
                continue
            credit -= per_ms * min(max(exp(level), 0.1), 3.0)
            while credit <= 0.0:
                numbers.append(millisecond)
                credit += chance.expovariate(1.0)
        return cls(numbers, packet_bytes)

    @property
    def text(self) -> str:
        """The trace as a file of it."""
        return "".join(f"{number}\n" for number in self.opportunities_ms)

    @property
    def megabits(self) -> float:
        """What it carries in the mean."""
        return len(self.opportunities_ms) * self.packet_bytes * 8 / self.opportunities_ms[-1] / 1_000

    def finish_us(self, datagram: Datagram, begin_us: int) -> int:
        first = self._first_from(begin_us)
        if first > self._next:
            self._next, self._left_bytes = first, self.packet_bytes
        missing_bytes = datagram.wire_bytes - self._left_bytes
        if missing_bytes > 0:
            more = -(-missing_bytes // self.packet_bytes)
            self._next += more
            missing_bytes -= more * self.packet_bytes
        at_us = max(self._at_us(self._next), begin_us)
        self._left_bytes = -missing_bytes
        if not self._left_bytes:
            self._next, self._left_bytes = self._next + 1, self.packet_bytes
        return at_us

    def wait_us(self, waiting_bytes: int, from_us: int) -> float:
        if not waiting_bytes:
            return 0.0
        last = max(self._first_from(from_us), self._next) + -(-waiting_bytes // self.packet_bytes) - 1
        return max(self._at_us(last) - from_us, 0)

    def carried_bytes(self, from_us: int, to_us: int) -> int:
        """What may leave between two times."""
        return (self._first_from(to_us) - self._first_from(from_us)) * self.packet_bytes

    def _first_from(self, at_us: int) -> int:
        """The first opportunity that is not over, counted through all repetitions."""
        numbers = self.opportunities_ms
        repetitions, before_ms = divmod(-(-at_us // MILLISECOND_US) - 1, numbers[-1])
        return max(repetitions * len(numbers) + bisect_left(numbers, before_ms + 1), 0)

    def _at_us(self, number: int) -> int:
        numbers = self.opportunities_ms
        repetitions, index = divmod(number, len(numbers))
        return (repetitions * numbers[-1] + numbers[index]) * MILLISECOND_US


class Turns:
    """A station of a busy Wi-Fi: it may send now and then, and then many frames together.

    A turn carries what waited when it began, up to ``most_packets``, after ``overhead_us`` and at the full rate of the
    radio.  Then the others have the channel for ``others_us``, a tenth more or less.  A station with an empty queue
    waits for a part of that when a datagram comes.
    """

    def __init__(
        self,
        chance: Random,
        others_us: int,
        rate_bytes_per_second: float,
        most_packets: int = 64,
        overhead_us: int = 200,
    ) -> None:
        self.others_us = others_us
        self.rate_bytes_per_second = rate_bytes_per_second
        self.most_packets = most_packets
        self.overhead_us = overhead_us
        self._chance = chance
        self._began_us = -1
        self._ends_us = 0  # when the last datagram of the turn has left, so far
        self._packets = 0  # in this turn

    def finish_us(self, datagram: Datagram, begin_us: int) -> int:
        if self._packets >= self.most_packets or datagram.sent_at_us > self._began_us or begin_us > self._ends_us:
            others_us = self.others_us * self._chance.uniform(0.9, 1.1)
            began_us = self._ends_us + others_us
            if begin_us > began_us:
                began_us = begin_us + self._chance.random() * others_us
            self._began_us = round(began_us)
            self._ends_us = self._began_us + self.overhead_us
            self._packets = 0
        self._packets += 1
        self._ends_us += round(datagram.wire_bytes / self.rate_bytes_per_second * SECOND_US)
        return self._ends_us

    def megabits(self, packet_bytes: int) -> float:
        """What it carries of packets of this size, with full turns."""
        turn_bytes = self.most_packets * packet_bytes
        turn_us = self.others_us + self.overhead_us + turn_bytes / self.rate_bytes_per_second * SECOND_US
        return turn_bytes * 8 / turn_us

    def wait_us(self, waiting_bytes: int, from_us: int) -> float:
        if not waiting_bytes:
            return 0.0
        sent_us = waiting_bytes / self.rate_bytes_per_second * SECOND_US
        return max(self._ends_us + self.others_us - from_us, 0) + sent_us


class Grants:
    """The way up of a cable modem: each packet asks for its time, and leaves in a grant that comes later.

    Requests are heard every ``every_us`` (a MAP interval of DOCSIS), and their grants begin ``delay_us`` after that.
    """

    def __init__(self, rate_bytes_per_second: float, every_us: int = 2_000, delay_us: int = 4_000) -> None:
        self.rate_bytes_per_second = rate_bytes_per_second
        self.every_us = every_us
        self.delay_us = delay_us

    def finish_us(self, datagram: Datagram, begin_us: int) -> int:
        granted_us = -(-datagram.sent_at_us // self.every_us) * self.every_us + self.delay_us
        return max(begin_us, granted_us) + round(datagram.wire_bytes / self.rate_bytes_per_second * SECOND_US)

    def wait_us(self, waiting_bytes: int, from_us: int) -> float:
        return waiting_bytes / self.rate_bytes_per_second * SECOND_US


# -- stages --


class HARQ:
    """A cell's radio: a block of a millisecond fails as a whole, and is sent again a little later.

    A share of blocks fails, and so does that share of their repetitions, of which there are at most ``most``; after
    the last one the block arrives all the same (the layer above repeats it).  Links keep the order, so what comes
    behind a block that failed waits for it.
    """

    def __init__(self, chance: Random, share: float = 0.1, repeat_us: int = 8_000, most: int = 3) -> None:
        self.share = share
        self.repeat_us = repeat_us
        self.most = most
        self._chance = chance
        self._block = -1
        self._later_us = 0

    def pass_us(self, datagram: Datagram, leaves_us: int) -> int | None:
        block = leaves_us // MILLISECOND_US
        if block != self._block:
            self._block = block
            self._later_us = 0
            for _ in range(self.most):
                if self._chance.random() >= self.share:
                    break
                self._later_us += self.repeat_us
        return leaves_us + self._later_us


class Outage:
    """Nothing passes between two times; what comes is lost, or with ``held`` arrives when it is over."""

    def __init__(self, from_us: int, to_us: int, held: bool = False) -> None:
        self.from_us = from_us
        self.to_us = to_us
        self.held = held

    def pass_us(self, datagram: Datagram, leaves_us: int) -> int | None:
        if not self.from_us <= leaves_us < self.to_us:
            return leaves_us
        return self.to_us if self.held else None


class ThinnedAcks:
    """A way back that passes a flow's pure acks every ``every_us`` only, and of those that came meanwhile the newest.

    Cable modems do that, and access points that are short of air.  Links keep the order, so packets with data wait for
    acks that came before them.
    """

    def __init__(self, every_us: int) -> None:
        self.every_us = every_us
        self.dropped: int = 0
        self._held: dict[tuple[Address, Address, bytes], tuple[int, Datagram]] = {}  # of flows, by their ids

    def pass_us(self, datagram: Datagram, leaves_us: int) -> int | None:
        if len(datagram.data) < HEADER_BYTES or datagram.data[0] >> 4 != ST_STATE:
            return leaves_us
        passes_us = -(-leaves_us // self.every_us) * self.every_us
        flow = datagram.source, datagram.destination, datagram.data[2:4]
        held_us, held = self._held.get(flow, (-1, datagram))
        if held_us == passes_us:
            held.dropped = True
            self.dropped += 1
        self._held[flow] = passes_us, datagram
        return passes_us
