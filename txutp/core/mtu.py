"""How large a datagram the path carries (RFC 8899, as far as uTP allows).

uTP cannot cut a packet smaller once it was sent: a sequence number stands for the same payload for ever (BEP 29).  A
probe with a longer payload, as libutp sends it, is therefore lost for good on a path that neither carries nor fragments
it, and the stream with it.  So a probe risks nothing of the stream here: it is an ordinary full packet made longer by
padding in its extensions.  If it is lost, its payload goes again without the padding, and all that is known is that
this size may be too large.

Not every peer reads extensions: npm's ``utp`` takes all that follows the header for the stream.  A peer gets probes
only after it has shown that it reads extensions, by sending one itself.  For any other the size stays what it was at
the start.  That costs such a stream 5 % of header bytes on Ethernet, while a probe would cost it its integrity.

Two ends of txutp on a path without losses would never send a selective ack to each other.  So the end that has much to
send asks: it sends a STATE with an empty selective ack, which BEP 29 allows in any STATE and which peers ignore that do
not read it.  The other end has seen an extension then, and answers with empty selective acks in its next STATEs.

The flow calls ``next_probe_bytes`` when there is much to send, and reports the outcome of the probe.  Sizes are those
of UDP payloads, headers of uTP included.
"""

from __future__ import annotations

from txutp.core.packet import LEAST_PADDING_BYTES

MAXIMUM_PROBES = 3  # RFC 8899 5.1.2: of one size, before it counts as too large
RAISE_US = 600_000_000  # RFC 8899 5.1.1 PMTU_RAISE_TIMER
WORTHWHILE = 2  # times as large as now, where less than the path takes is wanted
CLOSE_ENOUGH_BYTES = 20  # the search ends when it cannot gain more; above the least padding
MAXIMUM_QUESTIONS = 3  # STATEs that ask the peer to show that it reads extensions
QUESTION_US = 1_000_000  # between two of them; RFC 8899 5.1.1 PROBE_TIMER


class MtuSearch:
    """The search of one connection: one probe at a time, between what is known to pass and what is not."""

    __slots__ = (
        "_failures",
        "_hint_bytes",
        "_interface_bytes",
        "_question_us",
        "_questions_left",
        "_start_bytes",
        "_too_large_bytes",
        "_waits_until_us",
        "largest_bytes",
        "passed_bytes",
        "peer_reads_extensions",
        "probe_bytes",
        "question_due",
    )

    def __init__(self, start_bytes: int, largest_bytes: int, interface_bytes: int, peer_reads_extensions: bool) -> None:
        self.largest_bytes: int = largest_bytes  # what interface and peer take
        self._interface_bytes = interface_bytes
        self.passed_bytes: int = start_bytes  # the largest that is known, or assumed, to arrive
        self.probe_bytes: int = 0  # of the probe under way
        self._start_bytes = start_bytes
        self._too_large_bytes = largest_bytes + 1  # the smallest that is known not to
        self._failures = 0  # of the size that was tried last
        self._hint_bytes = 0  # the size to try next, because a router said so
        self._waits_until_us = 0  # the search is over until then
        self.peer_reads_extensions: bool = peer_reads_extensions  # without that nothing is probed
        self.question_due: bool = False  # the connection shall ask for it
        self._questions_left = MAXIMUM_QUESTIONS
        self._question_us = 0  # earliest time of the next question

    @property
    def has_asked(self) -> bool:
        """Whether the peer was asked to show that it reads extensions."""
        return self._questions_left < MAXIMUM_QUESTIONS

    @property
    def is_raised(self) -> bool:
        """Whether datagrams are larger than at the start."""
        return self.passed_bytes > self._start_bytes

    def next_probe_bytes(self, now_us: int, limit_bytes: int) -> int:
        """The size to try now; 0 for none.  It is under way until ``on_passed``, ``on_lost`` or ``on_unsent``.

        More than ``limit_bytes`` is not wanted now, and that only if it is worth it.  As long as the peer has not shown
        that it reads extensions there is none, and ``question_due`` may become true.
        """
        if self.probe_bytes or now_us < self._waits_until_us:
            return 0
        if self._waits_until_us:
            # the path may have changed
            self._waits_until_us = 0
            self._too_large_bytes = self.largest_bytes + 1
        if limit_bytes < self._too_large_bytes - 1 and limit_bytes < WORTHWHILE * self.passed_bytes:
            return 0
        if self._too_large_bytes - self.passed_bytes <= CLOSE_ENOUGH_BYTES:
            self._waits_until_us = now_us + RAISE_US
            return 0
        if not self.peer_reads_extensions:
            if self._questions_left and now_us >= self._question_us:
                self._questions_left -= 1
                self._question_us = now_us + QUESTION_US
                self.question_due = True
            return 0
        if self._hint_bytes > self.passed_bytes:
            size = self._hint_bytes
            self._hint_bytes = 0
        elif self._too_large_bytes > self.largest_bytes:
            # what the interface takes is what most paths take
            size = self.largest_bytes
        else:
            size = (self.passed_bytes + self._too_large_bytes) // 2
        self.probe_bytes = max(min(size, limit_bytes), self.passed_bytes + LEAST_PADDING_BYTES)
        return self.probe_bytes

    def on_passed(self) -> None:
        """The probe arrived."""
        self.passed_bytes = self.probe_bytes
        self.probe_bytes = self._failures = 0

    def on_lost(self, certain: bool = False) -> None:
        """It did not; ``certain`` if somebody said that it was too large, else it may have been any loss."""
        self._failures += 1
        if certain or self._failures >= MAXIMUM_PROBES:
            self._too_large_bytes = min(self.probe_bytes, self._too_large_bytes)
            self._failures = 0
        self.probe_bytes = 0

    def on_unsent(self) -> None:
        """It never left."""
        self.probe_bytes = 0

    def on_hint(self, datagram_bytes: int) -> None:
        """A router says what the next link takes; it can only end a probe early (RFC 8899 4.6.1)."""
        if self.passed_bytes <= datagram_bytes < self.probe_bytes:
            self._too_large_bytes = datagram_bytes + 1
            self._hint_bytes = datagram_bytes
            self._failures = 0

    def on_welcome(self) -> None:
        """The peer takes whatever our interface takes."""
        if self.largest_bytes < self._interface_bytes:
            self.largest_bytes = self._interface_bytes
            self._too_large_bytes = self.largest_bytes + 1
            self._waits_until_us = 0

    def on_swallowed(self, smallest_bytes: int, swallowed_bytes: int) -> None:
        """Datagrams of a size that should pass vanish: search again from the smallest one.

        The size that vanished is tried first, for it may have been an unlucky series of losses.
        """
        self._start_bytes = self.passed_bytes = smallest_bytes
        self._too_large_bytes = self.largest_bytes + 1
        self._hint_bytes = min(swallowed_bytes, self.largest_bytes)
        self.probe_bytes = self._failures = self._waits_until_us = 0

    def wait_until(self, time_us: int) -> None:
        """Another connection has searched this path; search again then."""
        self._waits_until_us = time_us

    def on_black_hole(self, now_us: int) -> None:
        """What passed once does not any more: back to the start, and up again later."""
        self._too_large_bytes = self.passed_bytes
        self.passed_bytes = self._start_bytes
        self.probe_bytes = self._failures = 0
        self._waits_until_us = now_us + RAISE_US
