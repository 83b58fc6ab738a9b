"""What losses have shown of a path: how long packets can wait in its queue, and how much of a window it holds.

A loss that no other traffic causes comes from a full queue or from the path itself, as on radio links.  Delay tells
them apart only where the queue is deeper than a controller's target.  A shorter one, in a switch or in the receive
buffer of a peer, overflows unannounced.  These facts give it away:

- the share: a window that loses more than a fifth has overflowed something, whatever the delays say;
- the delay: a full queue drops packets at the longest delay that it has, again and again, and a loss at much less than
  that is the path's own;
- the repetition: a window that has overflowed something once will do so again, so growth is slow from there on.

A window never needs to be smaller than the part of it that arrived.

``Shallow`` reports each loss and asks for the limits of its target, its window and its growth.
"""

from __future__ import annotations

from txutp.core.units import SECOND_US

# The depth of the queue, as packets' longest wait before a loss.
VISIBLE_SHARE = 0.125  # of the empty round trip; a shorter wait is no queue
VISIBLE_PACKETS = (1.5, 4)  # a wait for so few packets is a queue...
VISIBLE_US = (200, 500)  # ...from the first of these on, any other from the second: busy hosts delay packets, too
SAME_DEPTH = 0.75  # of the known depth; a loss after a shorter wait is the path's own...
OWN_LOSS_RISE = 1.1  # ...and shows that the depth was underrated
CALM_RISE = 1.5  # of the depth, after a while without losses
TARGET_SHARE = 0.5  # of the depth

# How much of a window may be lost before it counts as an overflow.
SCATTERED_SHARE = 0.2
SCATTERED_SEGMENTS = 8
LEAST_KEPT = 0.5  # of the window, whatever was lost of it

# A window near what overflowed grows slowly.
CEILING_START = 0.9  # of what arrived
CEILING_RISE = 1.0  # of it per second
CEILING_LEAST = 0.7  # of the window that overflowed: some of what was not acknowledged arrived all the same
CEILING_FALL = 0.85  # of the last one within a short time: a window in recovery is no measure
RECOVERY_US = 250_000
REMEMBERED_US = 10_000_000


class Capacity:
    """What one flow has learned from its losses."""

    __slots__ = (
        "_ceiling",
        "_ceiling_us",
        "_depth_us",
        "_lost_bytes",
        "_overflowed_us",
        "_window",
        "overflowed",
    )

    def __init__(self) -> None:
        self.overflowed: bool = False  # the last window that lost something did so at the known depth of the queue
        self._overflowed_us = -REMEMBERED_US  # the last time
        self._depth_us = 0.0  # 0: unknown
        self._window = 0.0  # that lost something
        self._lost_bytes = 0  # of it
        self._ceiling = 0.0  # bytes that arrived of the last window that overflowed; 0: unknown
        self._ceiling_us = 0  # when that was

    def begin_loss(self, now_us: int, window: float, waited_us: float, is_visible: bool) -> None:
        """A window lost its first packet.

        Packets waited up to ``waited_us`` lately; ``is_visible`` if that was in a queue, as far as one can tell.
        """
        self._window = window
        self._lost_bytes = 0
        self.overflowed = False
        if waited_us < SAME_DEPTH * self._depth_us:
            self._depth_us *= OWN_LOSS_RISE
        elif is_visible:
            self._depth_us = waited_us
            self.overflowed = True
            self._overflowed_us = now_us

    def keep(self, now_us: int, lost_bytes: int, segment_bytes: int) -> float:
        """More of that window was lost; returns how much of it may be kept."""
        window = self._window
        self._lost_bytes += lost_bytes
        arrived = window - self._lost_bytes
        if self._lost_bytes > max(SCATTERED_SHARE * window, SCATTERED_SEGMENTS * segment_bytes):
            again = now_us < self._ceiling_us + RECOVERY_US
            self._ceiling = max(arrived, CEILING_LEAST * window, CEILING_FALL * self._ceiling if again else 0.0)
            self._ceiling_us = now_us
        scattered = 0.0 if self.overflowed else SCATTERED_SHARE * window
        return max(arrived + max(scattered, segment_bytes), LEAST_KEPT * window)

    def is_suspect(self, now_us: int) -> bool:
        """Whether a full queue showed lately, so that a window should grow in small steps."""
        return now_us < self._overflowed_us + REMEMBERED_US

    def limit_window(self, window: float, now_us: int) -> float:
        """How much of a window that would grow to this size is allowed, now that some time has passed."""
        if not self._ceiling:
            return window
        elapsed_us = now_us - self._ceiling_us
        if elapsed_us > REMEMBERED_US:
            self._ceiling = 0.0
            return window
        return min(window, self._ceiling * (CEILING_START + CEILING_RISE * elapsed_us / SECOND_US))

    def limit_target(self, target_us: float, noise_us: float) -> float:
        """The target, or half of what the queue holds above the noise if that is less."""
        if self._depth_us <= noise_us:
            return target_us
        return min(target_us, noise_us + TARGET_SHARE * (self._depth_us - noise_us))

    def on_calm(self) -> None:
        """Nothing was lost for a while: the queue may be deeper by now."""
        self._depth_us *= CALM_RISE
