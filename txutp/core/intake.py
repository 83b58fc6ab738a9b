"""A cap on what one connection receives: the peer sees a window that opens no faster than the cap allows.

The peer may send what the window says, so the window is opened by what the cap offers and closed by what arrives.  The
cap is paid when the window opens.  What arrives has been paid for, but for segments that come twice and the headers of
small packets, which the next ones wait for, and for the acks of our data, which the cap owes.  So the peer slows down,
and nothing has to be lost.

The buffer keeps its capacity: data that was on its way when a cap was set is accepted.
"""

from __future__ import annotations

from typing import Protocol

from txutp.core.caps import NEVER_US, Cap
from txutp.core.memory import LEAST_WINDOW_BYTES
from txutp.core.packet import HEADER_BYTES
from txutp.core.units import SECOND_US

# What the peer may have in flight of its share: so many round trips, and time for timers on both sides.
OPEN_ROUND_TRIPS = 1.25
OPEN_MARGIN_US = 50_000
UNKNOWN_ROUND_TRIP_US = 200_000

# Window updates between two packets of data.  Three STATEs with the same ack are a sign of loss, to libutp also if the
# window has grown.
MOST_UPDATES = 2

# Probes of a closed window take a byte each of what opens next, and a packet has to fit all the same.
PROBES_BYTES = 16

# The window opens by packets of the size that the peer sends, but not by less than this.
SMALLEST_UNIT_BYTES = 536


class Receiver(Protocol):
    """The connection, as far as it matters here."""

    bytes_received: int

    @property
    def round_trip_us(self) -> int:
        """The round trip; 0 if it is not known."""

    def tell_window(self, until_heard: bool) -> None:
        """Let a packet leave that tells the peer of its window; again and again ``until_heard``."""


class Intake:
    """What the peer may still send."""

    __slots__ = (
        "_arrived_bytes",
        "_largest_bytes",
        "_receiver",
        "_told_bytes",
        "_unit_bytes",
        "_unpaid_bytes",
        "_updates",
        "_uses_window",
        "cap",
        "due_us",
        "open_bytes",
    )

    def __init__(self, receiver: Receiver, overhead_bytes: int) -> None:
        self._receiver = receiver
        self.cap: Cap = Cap(overhead_bytes, self.ask)
        self._arrived_bytes = receiver.bytes_received
        self._unit_bytes = LEAST_WINDOW_BYTES  # a full packet; this much until one has come
        self._largest_bytes = 0  # payload of a packet
        self._uses_window = receiver.bytes_received > 0
        # A peer may begin with a packet at once.  That is paid when it comes, or SYNs with forged sources would use up
        # the cap.
        self.open_bytes = self._unpaid_bytes = LEAST_WINDOW_BYTES
        self._told_bytes = 0  # what is left of the window in our last packet
        self._updates = 0  # packets for the sake of the window since the last data
        self.due_us: int = NEVER_US  # when to ask again

    def bound_bytes(self, window_bytes: int) -> int:
        """The window of the peer, where the buffer has room for ``window_bytes``."""
        open_bytes = self.open_bytes
        if open_bytes >= self._unit_bytes - PROBES_BYTES:
            # libutp sends nothing into a window that its largest packet might not fit in
            open_bytes = max(open_bytes, LEAST_WINDOW_BYTES)
        return min(window_bytes, open_bytes)

    def advertise(self, window_bytes: int) -> int:
        """Returns the window for a packet that leaves now."""
        self._told_bytes = min(window_bytes, self.open_bytes)
        return self.bound_bytes(window_bytes)

    def on_packets(self, count: int, payload_bytes: int, now_us: int) -> None:
        """So many packets came, with so much payload of which some may have come before."""
        arrived_bytes = self._receiver.bytes_received
        new_bytes = arrived_bytes - self._arrived_bytes
        used_bytes = min(new_bytes, self.open_bytes)
        self._arrived_bytes = arrived_bytes
        self.open_bytes -= used_bytes
        self._told_bytes -= used_bytes
        unpaid_bytes = min(used_bytes, self._unpaid_bytes)
        self._unpaid_bytes -= unpaid_bytes
        overhead_bytes = HEADER_BYTES + self.cap.overhead_bytes
        paid_bytes = (used_bytes - unpaid_bytes) * (1 + overhead_bytes / self._unit_bytes)
        if payload_bytes:
            self.cap.draw(payload_bytes + count * HEADER_BYTES - paid_bytes, count, now_us)
        else:
            self.cap.owe(count * HEADER_BYTES, count)
        if new_bytes:
            self._updates = 0
            self._uses_window = True
            if payload_bytes > count * self._largest_bytes:
                self._largest_bytes = payload_bytes // count
                self._unit_bytes = max(self._largest_bytes, SMALLEST_UNIT_BYTES)
            self.ask(now_us)

    def ask(self, now_us: int) -> None:
        """Open the window as far as the cap allows and the peer may need."""
        unit_bytes = self._unit_bytes
        wanted_bytes = self._wanted_bytes()
        self.due_us = NEVER_US
        while wanted_bytes:
            allowed_bytes = self.cap.allow(wanted_bytes, unit_bytes, now_us)
            if not allowed_bytes:
                self.due_us = self.cap.due_us
                break
            count = allowed_bytes // unit_bytes
            self.cap.draw(allowed_bytes + count * HEADER_BYTES, count, now_us)
            self.open_bytes += allowed_bytes
            wanted_bytes -= allowed_bytes
        if self.open_bytes < self._told_bytes + unit_bytes:
            return
        if self._told_bytes < unit_bytes:
            self._receiver.tell_window(until_heard=True)  # the peer can send nothing
        elif self._updates < MOST_UPDATES:
            # or what opens between two bursts would leave as one burst
            self._updates += 1
            self._receiver.tell_window(until_heard=False)

    def _wanted_bytes(self) -> int:
        """By how much the window should open: whole units, up to what its share needs in flight."""
        unit_bytes = self._unit_bytes
        most_bytes = unit_bytes  # a peer that has sent nothing yet may never do
        if self._uses_window:
            round_trip_us = self._receiver.round_trip_us or UNKNOWN_ROUND_TRIP_US
            flight_us = OPEN_ROUND_TRIPS * round_trip_us + OPEN_MARGIN_US
            most_bytes = 2 * unit_bytes + int(self.cap.share * flight_us / SECOND_US)
        return max(most_bytes - self.open_bytes, 0) // unit_bytes * unit_bytes

    def leave(self) -> None:
        """The connection ends, or is no longer capped."""
        self.cap.leave()
        self.due_us = NEVER_US
