"""The search for the largest datagram that the path carries (RFC 8899, as far as uTP allows).

A uTP packet cannot be split once it was sent: a sequence number stands for the same payload for ever (BEP 29).  If a
path neither carries nor fragments a probe with a longer payload, as libutp sends it, the probe is lost for good, and
the stream with it.  So a probe of ours is an ordinary full packet with padding in its extensions, and risks nothing of
the stream: if it is lost, its payload is retransmitted without the padding, and the size may be too large.

Not every peer reads extensions: npm's ``utp`` takes all bytes behind the header for the stream.  A peer gets probes
only after it has shown that it reads extensions, by sending one itself.  For other peers the size stays as it was at
the start.  That costs their streams 5 % of header bytes on Ethernet; a probe would corrupt them.

Two ends of txutp on a path without losses would never send a selective ack to each other.  So the end that has much to
send asks: it sends a STATE with an empty selective ack, which BEP 29 allows in any STATE, and which peers that do not
read it ignore.  The other end has then seen an extension, and answers with empty selective acks in its next STATEs.

The flow calls ``next_probe_bytes`` when there is much to send, and reports the outcome of the probe.  Sizes are those
of UDP payloads, headers of uTP included.
"""

from __future__ import annotations

from txutp.core.packet import LEAST_PADDING_BYTES

MAXIMUM_PROBES = 3  # lost probes of one size until it counts as too large (RFC 8899 5.1.2)
RAISE_US = 600_000_000  # time until the search begins again (RFC 8899 5.1.1 PMTU_RAISE_TIMER)
WORTHWHILE = 2  # factor by which a probe has to be larger than now, where less than the path takes is wanted
CLOSE_ENOUGH_BYTES = 20  # largest gain for which the search does not go on; more than the least padding
MAXIMUM_QUESTIONS = 3  # STATEs that ask the peer to show that it reads extensions
QUESTION_US = 1_000_000  # time between two of these STATEs (RFC 8899 5.1.1 PROBE_TIMER)


class MtuSearch:
    """The search of one connection: one probe at a time, between a size that passes and one that is too large."""

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
        self.largest_bytes: int = largest_bytes  # that interface and peer take
        self._interface_bytes = interface_bytes
        self.passed_bytes: int = start_bytes  # the largest that is known, or assumed, to arrive
        self.probe_bytes: int = 0  # of the probe under way
        self._start_bytes = start_bytes
        self._too_large_bytes = largest_bytes + 1  # the smallest that is known not to
        self._failures = 0  # of the size that was tried last
        self._hint_bytes = 0  # the size to try next, because a router said so
        self._waits_until_us = 0  # the search is over until then
        self.peer_reads_extensions: bool = peer_reads_extensions  # without that nothing is probed
        self.question_due: bool = False  # the connection shall ask the peer to show that it reads extensions
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
        """Returns the size of a probe to send now, or 0.

        The probe is under way until ``on_passed``, ``on_lost`` or ``on_unsent``.  It is at most ``limit_bytes`` long;
        where that is less than the path may take, the probe has to be worth it.  The size is 0 until the peer has shown
        that it reads extensions; ``question_due`` may become true.
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
            # most paths take as much as the interface
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
        """The probe was lost; ``certain`` if a host said that it was too large, else it may have been any loss."""
        self._failures += 1
        if certain or self._failures >= MAXIMUM_PROBES:
            self._too_large_bytes = min(self.probe_bytes, self._too_large_bytes)
            self._failures = 0
        self.probe_bytes = 0

    def on_unsent(self) -> None:
        """The probe never left."""
        self.probe_bytes = 0

    def on_hint(self, datagram_bytes: int) -> None:
        """A router reports the MTU of its next link; that only ends a probe early (RFC 8899 4.6.1)."""
        if self.passed_bytes <= datagram_bytes < self.probe_bytes:
            self._too_large_bytes = datagram_bytes + 1
            self._hint_bytes = datagram_bytes
            self._failures = 0

    def on_welcome(self) -> None:
        """The peer takes datagrams as large as our interface does."""
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
        """Search from this time on: another connection has searched the same path."""
        self._waits_until_us = time_us

    def on_black_hole(self, now_us: int) -> None:
        """A size that passed does not any more: return to the size at the start, and search again later."""
        self._too_large_bytes = self.passed_bytes
        self.passed_bytes = self._start_bytes
        self.probe_bytes = self._failures = 0
        self._waits_until_us = now_us + RAISE_US
