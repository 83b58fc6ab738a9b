"""TCP as a competitor: Reno and CUBIC, as datagram protocols on the simulated reactors.

Only what decides about sharing a bottleneck is modelled, in whole segments: the window, recovery with selective acks
(RFC 6675), loss detection by later transmissions and by time once reordering was seen (RACK, RFC 8985), a tail probe,
the retransmission timeout (RFC 6298 with Linux' floor), and the way back when nothing was lost after all (as Linux has
it, but told by time instead of timestamps or DSACK).  The receiver is infinitely fast and has infinite room.

``flows.py`` makes a ``TCPSender`` and a ``TCPReceiver``.  A segment is a datagram of ``SEGMENT_BYTES`` and a header as
large as uTP's, so that a byte of each costs the same; an ack takes ``ACK_BYTES``.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Callable
from copy import copy
from typing import Any, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import DatagramProtocol

from txutp.core.batch import Address
from txutp.core.units import SECOND_US
from txutp.testing import SimulatedReactor

SEGMENT_BYTES = 1_400
HEADER_BYTES = 20
ACK_BYTES = 40
SACK_BLOCKS = 3

INITIAL_WINDOW = 10.0  # RFC 6928
SPURIOUS_SHARE = 0.9  # an ack that comes sooner after a repetition, in shortest round trips, is for the original
MOST_PATIENCE = 16
DUPLICATE_THRESHOLD = 3  # later transmissions that must arrive before one counts as lost
MINIMUM_TIMEOUT_US = 200_000  # Linux
FIRST_TIMEOUT_US = 1_000_000
MAXIMUM_TIMEOUT_US = 60_000_000
PROBE_SLACK_US = 2_000
ACK_DELAY_US = 40_000

SYN, SYN_ACK, DATA, ACK = range(4)
NUMBER = struct.Struct("!BQ")  # kind; number of the segment, or of the one expected next
BLOCKS = struct.Struct("!6H")  # first and end of what arrived early, relative to what is expected next
PADDING = bytes(SEGMENT_BYTES + HEADER_BYTES - NUMBER.size)
ACK_PADDING = bytes(ACK_BYTES - NUMBER.size - BLOCKS.size)


class Ranges:
    """Numbers, kept as disjoint ranges."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []  # behind the last

    def add(self, start: int, end: int) -> list[tuple[int, int]]:
        """Add a range; gives the parts of it that were not there."""
        starts, ends = self.starts, self.ends
        # those that overlap or touch
        first = bisect_left(ends, start)
        last = first
        new = []
        position = start
        low, high = start, end
        while last < len(starts) and starts[last] <= end:
            if starts[last] > position:
                new.append((position, starts[last]))
            position = max(position, ends[last])
            low, high = min(low, starts[last]), max(high, ends[last])
            last += 1
        if position < end:
            new.append((position, end))
        if new:
            starts[first:last] = [low]
            ends[first:last] = [high]
        return new

    def forget_below(self, number: int) -> None:
        """Drop what lies below; a range that reaches across keeps its end."""
        while self.ends and self.ends[0] <= number:
            del self.starts[0], self.ends[0]
        if self.starts and self.starts[0] < number:
            self.starts[0] = number

    def around(self, number: int) -> tuple[int, int]:
        """The range that holds a number."""
        index = bisect_left(self.ends, number + 1)
        return self.starts[index], self.ends[index]


class Window(Protocol):
    """A congestion control, in segments."""

    segments: float

    def on_ack(self, now_us: int, acked: int, number: int, next_number: int, round_trip_us: int) -> None:
        """So many segments more arrived, the newest of them ``number``; not called in recovery."""

    def on_loss(self, now_us: int) -> None:
        """The first loss of a window."""

    def on_timeout(self, now_us: int) -> None:
        """Nothing came back."""


class Reno:
    """RFC 5681: doubles, then one more for each round trip, and halves."""

    def __init__(self) -> None:
        self.segments = INITIAL_WINDOW
        self.threshold = math.inf

    def on_ack(self, now_us: int, acked: int, number: int, next_number: int, round_trip_us: int) -> None:
        if self.segments < self.threshold:
            self.segments += acked
        else:
            self.segments += acked / self.segments

    def on_loss(self, now_us: int) -> None:
        self.segments = self.threshold = max(self.segments / 2, 2.0)

    def on_timeout(self, now_us: int) -> None:
        self.threshold = max(self.segments / 2, 2.0)
        self.segments = 1.0


class Cubic:
    """RFC 9438, with the end of slow start of RFC 9406 (HyStart++)."""

    SCALE = 0.4  # C
    DECREASE = 0.7  # beta
    RENO_INCREASE = 3 * (1 - DECREASE) / (1 + DECREASE)

    def __init__(self) -> None:
        self.segments = INITIAL_WINDOW
        self.threshold = math.inf
        self._slow_start: HyStart | None = HyStart()  # the first one only
        # the curve
        self._maximum = 0.0  # the window before the last cut
        self._before = 0.0  # the same, without fast convergence
        self._began_us = 0  # 0: the next ack begins
        self._origin = 0.0
        self._reaches_s = 0.0  # K
        self._reno = 0.0  # what Reno would have

    def on_ack(self, now_us: int, acked: int, number: int, next_number: int, round_trip_us: int) -> None:
        if self.segments < self.threshold:
            if self._slow_start is None:
                self.segments += acked
                return
            self.segments += self._slow_start.growth(acked, number, next_number, round_trip_us)
            if self._slow_start.over:
                self.threshold = self.segments
            return

        if not self._began_us:
            self._began_us = now_us
            self._reno = self.segments
            self._origin = max(self._maximum, self.segments)
            self._reaches_s = ((self._origin - self.segments) / self.SCALE) ** (1 / 3)
        elapsed_s = (now_us - self._began_us) / SECOND_US
        self._reno += (1.0 if self._reno >= self._before else self.RENO_INCREASE) * acked / self.segments
        curve = self._origin + self.SCALE * (elapsed_s - self._reaches_s) ** 3
        if curve < self._reno:
            self.segments = max(self.segments, self._reno)
            return
        ahead_s = elapsed_s + round_trip_us / SECOND_US - self._reaches_s
        target = min(max(self._origin + self.SCALE * ahead_s**3, self.segments), 1.5 * self.segments)
        self.segments += (target - self.segments) / self.segments * acked

    def on_loss(self, now_us: int) -> None:
        self._cut()
        self.segments = self.threshold

    def on_timeout(self, now_us: int) -> None:
        self._cut()
        self.segments = 1.0

    def _cut(self) -> None:
        self._before = self.segments
        # fast convergence: who could not get back to where it was leaves room
        self._maximum = self.segments * (1 + self.DECREASE) / 2 if self.segments < self._maximum else self.segments
        self.threshold = max(self.segments * self.DECREASE, 2.0)
        self._began_us = 0
        self._slow_start = None


class HyStart:
    """RFC 9406: slow start ends when round trips grow, after some rounds of slower growth to be sure."""

    MINIMUM_THRESHOLD_US = 4_000
    MAXIMUM_THRESHOLD_US = 16_000
    SAMPLES = 8
    SLOWER = 4
    ROUNDS = 5
    LARGEST_GROWTH = 8

    def __init__(self) -> None:
        self.over = False
        self._round_ends = 0
        self._samples = 0
        self._smallest_us = self._last_us = self._baseline_us = 1 << 62
        self._careful_rounds = 0  # 0: fast growth

    def growth(self, acked: int, number: int, next_number: int, round_trip_us: int) -> float:
        """By how many segments the window grows."""
        if number >= self._round_ends:
            self._round_ends = next_number
            self._last_us, self._smallest_us = self._smallest_us, 1 << 62
            self._samples = 0
            if self._careful_rounds:
                self._careful_rounds += 1
                self.over = self._careful_rounds > self.ROUNDS
        if round_trip_us:
            self._smallest_us = min(self._smallest_us, round_trip_us)
            self._samples += 1
        acked = min(acked, self.LARGEST_GROWTH)
        known = self._samples >= self.SAMPLES and self._last_us < 1 << 62
        if not self._careful_rounds:
            threshold_us = max(self.MINIMUM_THRESHOLD_US, min(self._last_us // 8, self.MAXIMUM_THRESHOLD_US))
            if known and self._smallest_us >= self._last_us + threshold_us:
                self._baseline_us = self._smallest_us
                self._careful_rounds = 1
            return acked
        if known and self._smallest_us < self._baseline_us:
            self._careful_rounds = 0
        return acked / self.SLOWER


WINDOWS: dict[str, Callable[[], Window]] = {"reno": Reno, "cubic": Cubic}


class TCPReceiver(DatagramProtocol):
    """Acknowledges every segment, or with ``delay_acks`` every second one that comes in order."""

    noisy = False
    transport: Any

    def __init__(self, reactor: SimulatedReactor, delivered: Callable[[int], None], delay_acks: bool = False) -> None:
        """``delivered(count)`` is called with each piece of the stream that is in order."""
        self.expected = 0
        self._reactor = reactor
        self._delivered = delivered
        self._delay_acks = delay_acks
        self._early = Ranges()
        self._recent: list[int] = []  # a number of each block that is told, the newest first
        self._waiting: IDelayedCall | None = None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        kind, number = NUMBER.unpack_from(datagram)
        if kind == SYN:
            self.transport.write(NUMBER.pack(SYN_ACK, 0) + bytes(ACK_BYTES - NUMBER.size), addr)
            return
        before = self.expected
        early = self._early
        if number == before and not early.starts:
            self.expected += 1
        elif number >= before:
            early.add(number, number + 1)
            if early.starts[0] == before:
                self.expected = early.ends[0]
                early.forget_below(self.expected)
            else:
                self._remember(number)
        if self.expected > before:
            self._delivered((self.expected - before) * SEGMENT_BYTES)
            if self._delay_acks and not early.starts and self.expected == before + 1 and self._waiting is None:
                self._waiting = self._reactor.callLater(ACK_DELAY_US / SECOND_US, self._acknowledge, addr)
                return
        self._acknowledge(addr)

    def _remember(self, number: int) -> None:
        """The block of a number comes first among those that are told."""
        start, end = self._early.around(number)
        others = [other for other in self._recent if not start <= other < end]
        self._recent = [number, *others][:SACK_BLOCKS]

    def _acknowledge(self, addr: Address) -> None:
        if self._waiting is not None:
            if self._waiting.active():
                self._waiting.cancel()
            self._waiting = None
        blocks = []
        if self._early.starts:
            for number in self._recent:
                if number >= self.expected:
                    start, end = self._early.around(number)
                    blocks += [start - self.expected, end - self.expected]
        blocks += [0] * (2 * SACK_BLOCKS - len(blocks))
        self.transport.write(NUMBER.pack(ACK, self.expected) + BLOCKS.pack(*blocks) + ACK_PADDING, addr)


class TCPSender(DatagramProtocol):
    """Sends ``segments`` segments, or for ever, as fast as its window allows."""

    noisy = False
    transport: Any

    def __init__(self, reactor: SimulatedReactor, remote: Address, window: Window, segments: int | None = None) -> None:
        self.window = window
        self.sent = 0  # segments, with those sent again
        self.resent = 0
        self.timeouts = 0
        self.cuts = 0
        self._reactor = reactor
        self._network = reactor.network
        self._remote = remote
        self._end = math.inf if segments is None else segments
        self._stopped = False

        # what is on its way
        self.first_unacked = 0
        self.next_number = 0
        self._transmissions = 0
        self._outstanding: dict[int, tuple[int, int, bool]] = {}  # number -> transmission, when, whether again
        self._flight: dict[int, int] = {}  # transmission -> number, oldest first; without what counts as lost
        self._lost: dict[int, None] = {}  # numbers to send again, in order
        self._sacked = Ranges()

        # loss detection
        self._newest_transmission = -1  # that is known to have arrived
        self._highest = -1  # number that is known to have arrived
        self._reordering = False
        self._patience = 1  # quarters of a round trip that something may be late; one more each time that was too short
        self._before_cut: Window | None = None  # to go back to
        self._needed = 0  # repetitions of this recovery that are not known to be needless
        self._first_of_recovery = 0  # transmission
        self._recovery_ends = 0  # the window was cut for losses below
        self._recovering = False  # by selective acks, not after a timeout
        self._probed = False

        # time
        self._smoothed_us = 0.0
        self._variation_us = 0.0
        self._minimum_us = 1 << 62
        self._round_trip_us = 0  # the last sample
        self._backoff = 0
        self._timer: IDelayedCall | None = None
        self._timer_started_us = 0
        self._reordering_ends_us = 0  # when to look for losses again; 0: not
        self._connected = False
        self._syn_sent_us = 0

    @property
    def in_flight(self) -> int:
        """Segments that are neither known to have arrived nor held for lost."""
        return len(self._flight)

    def startProtocol(self) -> None:
        self._timer_started_us = self._network.now_us
        self._send_syn()
        self._arm()

    def stop(self) -> None:
        """Send nothing any more."""
        self._stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    def _send_syn(self) -> None:
        self._syn_sent_us = self._network.now_us
        self.transport.write(NUMBER.pack(SYN, 0) + bytes(ACK_BYTES - NUMBER.size), self._remote)

    # -- what comes back --

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self._stopped:
            return
        now_us = self._network.now_us
        kind, number = NUMBER.unpack_from(datagram)
        if kind == SYN_ACK:
            if not self._connected:
                self._connected = True
                self._backoff = 0
                self._on_round_trip(now_us - self._syn_sent_us)
                self._fill(now_us)
            return

        arrived, newest = self._take(number, BLOCKS.unpack_from(datagram, NUMBER.size), now_us)
        if arrived:
            self._timer_started_us = now_us
            self._backoff = 0
            self._probed = False
        if self.first_unacked >= self._recovery_ends:
            self._recovering = False
        found = self._find_losses(now_us)
        if arrived and not self._recovering:
            self.window.on_ack(now_us, arrived, newest, self.next_number, self._round_trip_us)
        if found and self.first_unacked >= self._recovery_ends:
            self._begin_recovery(now_us)
        self._fill(now_us)
        self._arm()

    def _take(self, expected: int, blocks: tuple[int, ...], now_us: int) -> tuple[int, int]:
        """What an ack tells; gives how many segments are known to have arrived by it, and the newest of them."""
        arrived = 0
        parts = []
        if expected > self.first_unacked:
            parts.append((self.first_unacked, expected))
            self.first_unacked = expected
            self._sacked.forget_below(expected)
        # ascending, so that what comes below something that is known already was overtaken
        for start, end in sorted((blocks[0:2], blocks[2:4], blocks[4:6])):
            if end and end + expected > self.first_unacked:
                parts += self._sacked.add(max(start + expected, self.first_unacked), end + expected)

        newest_transmission, round_trip_us = -1, 0
        newest = -1
        for start, end in parts:
            for number in range(start, end):
                record = self._outstanding.pop(number, None)
                if record is None:
                    continue
                transmission, sent_us, again = record
                arrived += 1
                if again and now_us - sent_us < SPURIOUS_SHARE * self._minimum_us:
                    self._on_spurious(transmission)
                if self._flight.pop(transmission, None) is None:
                    self._lost.pop(number, None)
                if number < self._highest:
                    self._reordering = self._reordering or not again
                else:
                    self._highest = number
                newest = number
                if transmission > newest_transmission:
                    newest_transmission = transmission
                    round_trip_us = 0 if again else now_us - sent_us
                    # the answer may be to the first of two transmissions (RFC 8985 5.2)
                    if transmission > self._newest_transmission and (not again or now_us - sent_us >= self._minimum_us):
                        self._newest_transmission = transmission
        self._round_trip_us = round_trip_us
        if round_trip_us:
            self._on_round_trip(round_trip_us)
        return arrived, newest

    def _on_round_trip(self, sample_us: int) -> None:
        """RFC 6298."""
        self._minimum_us = min(self._minimum_us, sample_us)
        if not self._smoothed_us:
            self._smoothed_us = sample_us
            self._variation_us = sample_us / 2
            return
        self._variation_us += (abs(self._smoothed_us - sample_us) - self._variation_us) / 4
        self._smoothed_us += (sample_us - self._smoothed_us) / 8

    def _find_losses(self, now_us: int) -> bool:
        """Hold for lost what later transmissions have overtaken."""
        found = []
        self._reordering_ends_us = 0
        if not self._reordering:
            for transmission, number in self._flight.items():
                if transmission + DUPLICATE_THRESHOLD > self._newest_transmission:
                    break
                found.append((transmission, number))
        else:
            # some quarters of the shortest round trip later than what arrived (RFC 8985 6.2)
            late_us = min(self._patience * self._minimum_us // 4, int(self._smoothed_us))
            patience_us = self._newest_round_trip_us + late_us
            for transmission, number in self._flight.items():
                if transmission >= self._newest_transmission:
                    break
                due_us = self._outstanding[number][1] + patience_us
                if due_us > now_us:
                    self._reordering_ends_us = due_us
                    break
                found.append((transmission, number))
        for transmission, number in found:
            del self._flight[transmission]
            self._lost[number] = None
        return bool(found)

    @property
    def _newest_round_trip_us(self) -> int:
        return max(self._round_trip_us, int(self._smoothed_us))

    def _on_spurious(self, transmission: int) -> None:
        """What was sent again had not been lost, only late; if that is true of all of it, the cut was a mistake."""
        self._patience = min(self._patience + 1, MOST_PATIENCE)
        if transmission < self._first_of_recovery:
            return
        self._needed -= 1
        if not self._needed and not self._lost and self._recovering and self._before_cut is not None:
            self.window, self._before_cut = self._before_cut, None
            self._recovering = False
            self._recovery_ends = self.first_unacked

    def _begin_recovery(self, now_us: int) -> None:
        self.cuts += 1
        self._before_cut = copy(self.window)
        self._first_of_recovery = self._transmissions
        self._needed = 0
        self.window.on_loss(now_us)
        self._recovering = True
        self._recovery_ends = self.next_number
        # the first one does not wait for room (RFC 6675 5, step 4.3)
        self._send(self._next_lost(), now_us)

    # -- what leaves --

    def _fill(self, now_us: int) -> None:
        while len(self._flight) < int(self.window.segments):
            if self._lost:
                self._send(self._next_lost(), now_us)
            elif self.next_number < self._end:
                self._send(self.next_number, now_us)
            else:
                return

    def _next_lost(self) -> int:
        number = next(iter(self._lost))
        del self._lost[number]
        return number

    def _send(self, number: int, now_us: int) -> None:
        again = number < self.next_number
        if again:
            self.resent += 1
            self._needed += 1
        else:
            self.next_number += 1
        self.sent += 1
        self._outstanding[number] = (self._transmissions, now_us, again)
        self._flight[self._transmissions] = number
        self._transmissions += 1
        self.transport.write(NUMBER.pack(DATA, number) + PADDING, self._remote)

    # -- time --

    @property
    def _timeout_us(self) -> float:
        if not self._smoothed_us:
            return FIRST_TIMEOUT_US << self._backoff
        # the floor counts for the variation, as in Linux: a queue that fills does not look like a loss
        timeout_us = self._smoothed_us + max(4 * self._variation_us, MINIMUM_TIMEOUT_US)
        return min(timeout_us * (1 << self._backoff), MAXIMUM_TIMEOUT_US)

    def _deadline_us(self) -> float:
        """When something has to be done if nothing comes back."""
        if self._connected and not self._outstanding:
            return math.inf
        deadline_us = self._timer_started_us + self._timeout_us
        if self._may_probe:
            deadline_us = min(deadline_us, self._timer_started_us + 2 * self._smoothed_us + PROBE_SLACK_US)
        if self._reordering_ends_us:
            deadline_us = min(deadline_us, self._reordering_ends_us)
        return deadline_us

    @property
    def _may_probe(self) -> bool:
        ready = self._connected and not self._probed and not self._backoff
        return ready and not self._lost and self.first_unacked >= self._recovery_ends

    def _arm(self) -> None:
        """One timer, which is only ever moved to an earlier time; when it fires it looks at the deadline."""
        deadline_us = self._deadline_us()
        timer = self._timer
        if timer is not None and timer.active():
            if timer.getTime() * SECOND_US <= deadline_us + 1:
                return
            timer.cancel()
        if deadline_us < math.inf:
            wait_us = max(deadline_us - self._network.now_us, 1)
            self._timer = self._reactor.callLater(wait_us / SECOND_US, self._on_timer)

    def _on_timer(self) -> None:
        now_us = self._network.now_us
        if now_us >= self._deadline_us():
            if not self._connected:
                self._backoff += 1
                self._timer_started_us = now_us
                self._send_syn()
            elif self._reordering_ends_us and now_us >= self._reordering_ends_us:
                if self._find_losses(now_us) and self.first_unacked >= self._recovery_ends:
                    self._begin_recovery(now_us)
                self._fill(now_us)
            elif self._may_probe:
                self._probe(now_us)
            else:
                self._on_timeout(now_us)
        self._arm()

    def _probe(self, now_us: int) -> None:
        """RFC 8985 7: something new, or the last one again, draws an ack that shows what was lost."""
        self._probed = True
        self._timer_started_us = now_us
        if self.next_number < self._end:
            self._send(self.next_number, now_us)
        elif self._flight:
            transmission, number = next(reversed(self._flight.items()))
            del self._flight[transmission]
            self._send(number, now_us)

    def _on_timeout(self, now_us: int) -> None:
        self.timeouts += 1
        self._backoff = min(self._backoff + 1, 10)
        self._timer_started_us = now_us
        if self._recovery_ends <= self.first_unacked or self._recovering:
            self.window.on_timeout(now_us)
        else:
            self.window.segments = 1.0
        self._recovering = False
        self._recovery_ends = self.next_number
        for number in sorted(self._flight.values()):
            self._lost[number] = None
        self._flight.clear()
        self._fill(now_us)
