"""What a congestion controller offers a connection, and a wrapper that watches one.

A controller is a plain object with a window.  It is told facts; it never looks anything up and never logs.  A new one
is one file: a class with these members, given as ``Settings(congestion=ThatClass)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txutp.core.congestion.crowd import Crowd
from txutp.core.rtt import RoundTrip

# RFC 6817 2.4.2 MIN_CWND; with less, one lost packet can only be repaired by a timeout.
MINIMUM_WINDOW_SEGMENTS = 2

# In smaller windows whole segments are too coarse a measure: the pace alone keeps them, and each sample counts.
SMALL_SEGMENTS = 4
# In windows below this the pace says when a packet leaves, also one that is sent again.
SPARSE_SEGMENTS = 1


class Acknowledgement:
    """What one packet of the peer says of our data.

    Both delays are what our packets waited in queues, unfiltered, in microseconds: ``one_way_delay_us`` by the
    timestamps, on the way to the peer; ``round_trip_delay_us`` by our own clock, on both ways.  They are None unless a
    full-size packet was answered: a small one passes a slow link faster, and would make all later ones look delayed.
    """

    __slots__ = (
        "acked_bytes",
        "delivery_rate",
        "now_us",
        "one_way_delay_us",
        "round_trip",
        "round_trip_delay_us",
        "sent_us",
        "window_limited",
    )

    def __init__(
        self,
        now_us: int,
        acked_bytes: int,
        sent_us: int,
        one_way_delay_us: int | None,
        round_trip_delay_us: int | None,
        round_trip: RoundTrip,
        window_limited: bool,
        delivery_rate: float = 0.0,
    ) -> None:
        self.now_us: int = now_us
        self.acked_bytes: int = acked_bytes  # that were not acknowledged before
        self.sent_us: int = sent_us  # when the latest packet left that is known to have arrived
        self.one_way_delay_us: int | None = one_way_delay_us
        self.round_trip_delay_us: int | None = round_trip_delay_us
        self.round_trip: RoundTrip = round_trip
        self.window_limited: bool = window_limited  # the window, not application or peer, bounded what was in flight
        self.delivery_rate: float = delivery_rate  # bytes per second, if a sample of it ends with this packet; else 0


def window_after_loss(window: float, segment_bytes: int, queued: bool) -> float:
    """Half of it, but no less than ``MINIMUM_WINDOW_SEGMENTS`` of what there was if no queue has shown.

    Below that only time tells of a loss.  It is for flows of which there are many, not for paths that lose packets.
    """
    least = 0.0 if queued else min(window, float(MINIMUM_WINDOW_SEGMENTS * segment_bytes))
    return max(window / 2, least)


class Controller(Protocol):
    """The rules for how much may be in flight.

    A controller may also have a method ``join(crowd, now_us)``.  It is called once, before anything is sent, with what
    the port knows of its flows (``crowd.py``).  Such a controller may choose windows below one segment.
    """

    segment_bytes: int
    """Payload of a full packet; the connection sets it again when it learns the path's MTU."""
    pacing_gain: float
    """Packets leave spread over the round trip at this many windows per round trip; 0 sends them as they come."""

    @property
    def window_bytes(self) -> int:
        """How much may be in flight."""

    @property
    def target_delay_us(self) -> int:
        """How long our packets may wait in queues."""

    def on_ack(self, ack: Acknowledgement) -> None:
        """Something arrived; called once for a packet of the peer however many segments it acknowledges."""

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        """Something was lost; ``new_window`` if all that was lost before had been sent before the last such call."""

    def on_timeout(self, now_us: int) -> None:
        """Nothing came back for a whole retransmission timeout."""

    def on_spurious(self, now_us: int) -> None:
        """What the last ``on_loss`` or ``on_timeout`` reported was not lost, only late."""


class ControllerFactory(Protocol):
    """How a connection gets its controller; a controller class is one."""

    def __call__(self, *, segment_bytes: int, target_delay_us: int | None) -> Controller:
        """A fresh controller; ``target_delay_us=None`` asks for the controller's own default."""


# What a controller has to have.
MEMBERS = tuple(name for name in (*Controller.__annotations__, *vars(Controller)) if not name.startswith("_"))

USUAL_SEGMENT_BYTES = 1_382


def check_factory(factory: object, target_delay_us: int | None) -> None:
    """Make one controller, and TypeError with what is missing if it is none."""
    accepted = "congestion is a controller class or another callable"
    if not callable(factory):
        raise TypeError(f"{accepted}, not {factory!r}")
    try:
        controller = factory(segment_bytes=USUAL_SEGMENT_BYTES, target_delay_us=target_delay_us)
    except Exception as problem:
        raise TypeError(
            f"{accepted} that takes segment_bytes and target_delay_us, and {factory!r} raised"
            f" {type(problem).__name__}: {problem}"
        ) from problem
    missing = [name for name in MEMBERS if not hasattr(controller, name)]
    if missing:
        raise TypeError(f"{accepted} that returns a controller, and what {factory!r} returned has no {missing[0]}")


class Traced:
    """A controller that tells ``report(now_us, event, window_bytes, queue_delay_us)`` what happens to another one."""

    def __init__(self, controller: Controller, report: Callable[[int, str, int, int | None], None]) -> None:
        self._controller = controller
        self._report = report

    @property
    def join(self) -> Callable[[Crowd, int], None] | None:
        return getattr(self._controller, "join", None)

    @property
    def segment_bytes(self) -> int:
        return self._controller.segment_bytes

    @segment_bytes.setter
    def segment_bytes(self, size: int) -> None:
        self._controller.segment_bytes = size

    @property
    def pacing_gain(self) -> float:
        return self._controller.pacing_gain

    @pacing_gain.setter
    def pacing_gain(self, gain: float) -> None:
        self._controller.pacing_gain = gain

    @property
    def window_bytes(self) -> int:
        return self._controller.window_bytes

    @property
    def target_delay_us(self) -> int:
        return self._controller.target_delay_us

    def on_ack(self, ack: Acknowledgement) -> None:
        self._controller.on_ack(ack)
        self._report(ack.now_us, "ack", self.window_bytes, ack.one_way_delay_us)

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        self._controller.on_loss(now_us, lost_bytes, new_window)
        self._report(now_us, "loss", self.window_bytes, None)

    def on_timeout(self, now_us: int) -> None:
        self._controller.on_timeout(now_us)
        self._report(now_us, "timeout", self.window_bytes, None)

    def on_spurious(self, now_us: int) -> None:
        self._controller.on_spurious(now_us)
        self._report(now_us, "spurious", self.window_bytes, None)
