"""Classic LEDBAT as libutp runs it, to see whether published figures come out of this simulator.

It is ``txutp.congestion.Ledbat`` with what libutp does otherwise.  ``controllers.py`` gives it a name.
"""

from __future__ import annotations

from txutp.core.congestion.ledbat import Ledbat

# One cut in this time, however long a round trip is.
CUT_INTERVAL_US = 100_000


class Libutp(Ledbat):
    """LEDBAT that begins with one packet, may go back to it, and has no slow start to speak of.

    What libutp calls slow start adds a packet per round trip.  LEDBAT itself adds more on an empty queue.
    """

    __slots__ = ("_cut_us",)

    join = None  # type: ignore[assignment]  # each of its flows is alone

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        super().__init__(segment_bytes=segment_bytes, target_delay_us=target_delay_us)
        self.slow_start = False
        self._window = float(segment_bytes)
        self._cut_us = -CUT_INTERVAL_US

    def on_loss(self, now_us: int, lost_bytes: int, new_window: bool) -> None:
        if now_us - self._cut_us >= CUT_INTERVAL_US:
            self._cut_us = now_us
            super().on_loss(now_us, lost_bytes, True)

    def on_timeout(self, now_us: int) -> None:
        super().on_timeout(now_us)
        self.slow_start = False

    def _set_window(self, window: float) -> None:
        # the least that it sets is smaller than a packet, and one packet it always sends
        self._window = max(window, float(self.segment_bytes))
