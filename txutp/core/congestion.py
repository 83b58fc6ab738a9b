"""What a congestion controller offers a connection, and a wrapper that watches one.

A controller is a plain object with a window.  It is told facts; it never looks anything up and never logs.  A new one
is one file: a class with these members, given as ``Settings(congestion=ThatClass)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from txutp.core.rtt import RoundTrip

# RFC 6817 2.4.2 MIN_CWND; with less, one lost packet can only be repaired by a timeout.
MINIMUM_WINDOW_SEGMENTS = 2


class Controller(Protocol):
    """The rules for how much may be in flight."""

    @property
    def window_bytes(self) -> int:
        """How much may be in flight."""

    @property
    def target_delay_us(self) -> int:
        """How long our packets may wait in queues."""

    def on_ack(
        self,
        now_us: int,
        acked_bytes: int,
        queue_delay_us: int | None,
        round_trip: RoundTrip,
        window_limited: bool,
    ) -> None:
        """One packet acknowledged ``acked_bytes`` more; called once however many segments that are.

        ``queue_delay_us`` is unfiltered, None if the packet carried no sample.  ``window_limited`` says whether the
        window, not the application or the peer, bounded what was in flight.
        """

    def on_loss(self, now_us: int) -> None:
        """Something was lost; called at most once per window of data."""

    def on_timeout(self, now_us: int) -> None:
        """Nothing came back for a whole retransmission timeout."""


class ControllerFactory(Protocol):
    """How a connection gets its controller; a controller class is one."""

    def __call__(self, *, segment_bytes: int, target_delay_us: int | None) -> Controller:
        """A fresh controller; ``target_delay_us=None`` asks for the controller's own default."""


class Traced:
    """A controller that tells ``report(now_us, event, window_bytes, queue_delay_us)`` what happens to another one."""

    def __init__(self, controller: Controller, report: Callable[[int, str, int, int | None], None]) -> None:
        self._controller = controller
        self._report = report

    @property
    def window_bytes(self) -> int:
        return self._controller.window_bytes

    @property
    def target_delay_us(self) -> int:
        return self._controller.target_delay_us

    def on_ack(
        self,
        now_us: int,
        acked_bytes: int,
        queue_delay_us: int | None,
        round_trip: RoundTrip,
        window_limited: bool,
    ) -> None:
        self._controller.on_ack(now_us, acked_bytes, queue_delay_us, round_trip, window_limited)
        self._report(now_us, "ack", self.window_bytes, queue_delay_us)

    def on_loss(self, now_us: int) -> None:
        self._controller.on_loss(now_us)
        self._report(now_us, "loss", self.window_bytes, None)

    def on_timeout(self, now_us: int) -> None:
        self._controller.on_timeout(now_us)
        self._report(now_us, "timeout", self.window_bytes, None)
