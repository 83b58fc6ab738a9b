"""One controller for all that comes in on a port, so that two hundred peers keep no longer a queue than one.

RFC 9840 lets a receiver of TCP steer one connection by the window that it advertises.  A torrent has hundreds, from
peers with every sort of sender, and all of them come in over the link of this host.  So there is one window for all: a
``Shallow`` is told of each arrival on any connection, and what it allows is shared out in equal parts.

Two states
    *On watch*, which costs next to nothing: some packets of each round trip are looked at, and nothing is bounded.
    Senders that keep queues short themselves, as txutp's own do, never see anything else.

    *Engaged*, as soon as packets have waited too long for too long.  A change of the window shows in what arrives a
    round trip later, so that is taken for the time of sending.

Whose queue it is
    A queue at our own link is seen by everything that comes in.  One that a peer has in front of its own uplink, where
    it sends to others as well, is seen by what comes from there alone, and yielding to it would only starve us.  So a
    delay counts as far as three quarters of the connections see it.  A queue that stays as it is although we take next
    to nothing is not ours either, but that of others who steer by delay: from then on only what comes on top counts.

Who is limited elsewhere
    A peer that does not use its part leaves the rest of it to the others.  If nobody uses theirs, all get twice of what
    they use as soon as nothing waits, and all of the buffer when it was so for long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from txutp.core.congestion.interface import Acknowledgement
from txutp.core.congestion.shallow import Shallow
from txutp.core.rate import DeliveryRate
from txutp.core.rtt import RoundTrip
from txutp.core.turns import Turns, Waiting
from txutp.core.units import SECOND_US

REVIEW_US = 10_000
FRESH_US = 2_000_000  # a connection that has received nothing for longer has no say
DISSENTERS = (
    4  # one connection in four may see a shorter delay: newcomers that never saw the empty path, peers that lie
)

# What it takes to engage: more delay than a txutp sender leaves, packets of it on slow links, and for how long.
STANDING_DELAY_US = 20_000
STANDING_SEGMENTS = 4
STANDING_US = 400_000

# The least that may be on its way, of all connections together.
FLOOR_SEGMENTS = 2

HEADROOM = 2.0  # of what peers use that are limited elsewhere
RELEASE_US = 10_000_000  # time since a peer was last seen to use its part

# A queue that did not move by more than this share in this time, although we took next to nothing, is not ours.
FOREIGN_US = 3_000_000
FOREIGN_SHARE = 0.8

# Slowdowns are longer than those of a sender, and less deep.
SLOWDOWN_ROUND_TRIPS = 2.25
SLOWDOWN_DIVISOR = 2


# Segments of each member's share: below the first, members take turns; from the second on they have shares again.
TURNS_SEGMENTS = 2.0
SHARES_SEGMENTS = 2.5


class Member(Waiting, Protocol):
    """One connection on which data comes in."""

    waited_us: int
    heard_us: int
    lost_us: int
    rate: float
    round_trip: RoundTrip
    round_trip_us: int
    share_bytes: float
    uses_window: bool


class Incoming(Shallow):
    """The controller of what comes in: all of a host slow down at the same moments, half as far and longer.

    What we advertise takes a round trip to show, and another one until we have seen enough of it.
    """

    __slots__ = ("_known_base_us",)

    pushes = False  # peers may send less than they may, or have queues of their own

    def __init__(self, *, segment_bytes: int, target_delay_us: int | None = None) -> None:
        super().__init__(segment_bytes=segment_bytes, target_delay_us=target_delay_us)
        self._known_base_us = 0  # at the last slowdown

    def _begin_slowdown(self, now_us: int, smoothed_us: int) -> None:
        super()._begin_slowdown(now_us, smoothed_us)
        if self._saved_window:
            self._window = max(self._window, self._saved_window / SLOWDOWN_DIVISOR)
            self._slowdown_us = now_us + int(SLOWDOWN_ROUND_TRIPS * smoothed_us)

    def _next_slowdown_us(self, now_us: int, smoothed_us: int) -> int:
        # where the last one has shown a shorter path the next one may show more of it
        fell_us, self._known_base_us = self._known_base_us - self.base_us, self.base_us
        return super()._next_slowdown_us(now_us, smoothed_us if abs(fell_us) <= self.wanted_delay_us else 0)


class MeanRoundTrip(RoundTrip):
    """The round trip of all connections together."""

    __slots__ = ("mean_base_us",)

    def __init__(self) -> None:
        super().__init__()
        self.mean_base_us: int = 0

    @property
    def base_us(self) -> int:
        return self.mean_base_us


class Downlink:
    """What comes in on one port, and how much of it may be on its way."""

    __slots__ = (
        "_controller",
        "_delivery",
        "_foreign_high_us",
        "_foreign_low_us",
        "_foreign_since_us",
        "_loss_us",
        "_members",
        "_open_bytes",
        "_reviewed_us",
        "_round_trip",
        "_samples",
        "_segment_bytes",
        "_standing_since_us",
        "_tolerated_us",
        "_turns",
        "_used_us",
        "rate",
        "touch",
        "waited_us",
    )

    def __init__(self, touch: Callable[[Any], None]) -> None:
        """``touch(connection)`` lets a connection say what it has to say."""
        self.touch: Callable[[Any], None] = touch
        self._members: dict[Member, None] = {}
        self._reviewed_us = -REVIEW_US
        self._samples: list[int] = []  # since the last review
        self._round_trip = MeanRoundTrip()
        self._segment_bytes = 1
        self.waited_us: int = 0  # what most of them see
        self.rate: float = 0.0  # bytes per second, of all
        self._standing_since_us = -1  # packets have waited since
        self._tolerated_us = 0  # a queue that was found not to be ours

        # engaged
        self._controller: Incoming | None = None
        self._delivery = DeliveryRate()
        self._turns: Turns | None = None  # in the place of shares
        self._open_bytes = 0.0  # of the window: it opens by what arrives, or its bursts would be the queue
        self._used_us = 0  # the last time that a member used its part
        self._loss_us = 0
        self._foreign_since_us = -1
        self._foreign_low_us = self._foreign_high_us = 0

    def __len__(self) -> int:
        return len(self._members)

    @property
    def is_engaged(self) -> bool:
        """Whether peers are held back."""
        return self._controller is not None

    @property
    def takes_turns(self) -> bool:
        """Whether most windows are closed, and open one after the other."""
        return self._turns is not None

    @property
    def target_delay_us(self) -> int:
        """How long packets may wait; 0 while nobody is held back."""
        return 0 if self._controller is None else self._controller.target_delay_us

    # -- facts --

    def watch(self, member: Member, target_delay_us: int, now_us: int) -> None:
        """A member has measured for a while."""
        self._members[member] = None
        self._samples.append(member.waited_us)
        if now_us - self._reviewed_us >= REVIEW_US:
            self._samples = [other.waited_us for other in self._members]
            self._review(now_us)
        # packets take as long as the link needs for them, so at the rate of all
        packets_us = int(STANDING_SEGMENTS * member.segment_bytes * SECOND_US / max(self.rate, member.rate, 1.0))
        if self.waited_us < self._tolerated_us // 2:
            self._tolerated_us = 0
        if self.waited_us - self._tolerated_us < max(STANDING_DELAY_US, packets_us):
            self._standing_since_us = -1
        elif self._standing_since_us < 0:
            self._standing_since_us = now_us
        elif now_us - self._standing_since_us >= STANDING_US and self._round_trip.smoothed_us:
            self._engage(target_delay_us, now_us)

    def on_arrival(self, member: Member, arrived_bytes: int, measured: bool, now_us: int) -> None:
        """A member received bytes while peers are held back; ``measured`` if a full-size packet was among them."""
        controller = self._controller
        assert controller is not None
        self._members[member] = None
        round_trip = self._round_trip
        if measured:
            self._samples.append(member.waited_us)
            round_trip.on_sample(member.round_trip_us)
        # a single one is looked at with each packet
        if now_us - self._reviewed_us >= REVIEW_US or len(self._members) == 1:
            self._review(now_us)
            controller = self._controller
            if controller is None:
                return
        self._open_bytes = min(self._window_bytes(controller), self._open_bytes + arrived_bytes)
        if self._turns is not None:
            self._turns.on_arrival(member, arrived_bytes)
            self._turns.grant(self._open_bytes, now_us)
        waited_us = max(self.waited_us - self._tolerated_us, 0)
        smoothed_us = round_trip.smoothed_us
        sent_us = now_us - smoothed_us
        controller.segment_bytes = self._segment_bytes
        rate = self._delivery.on_ack(now_us, arrived_bytes, sent_us, smoothed_us, self._segment_bytes)
        controller.on_ack(
            Acknowledgement(
                now_us,
                arrived_bytes,
                sent_us,
                None,
                waited_us if measured else None,
                round_trip,
                now_us - self._used_us <= 2 * smoothed_us,
                rate,
            )
        )

    def on_loss(self, member: Member, lost_bytes: int, now_us: int) -> None:
        """A member misses something that others have overtaken; it counts if it is not alone with that."""
        if self._controller is None:
            return
        recent_us = now_us - max(SECOND_US, 4 * self._round_trip.smoothed_us)
        losers = sum(other.lost_us > recent_us for other in self._members)
        if 2 * losers >= len(self._members) or self.waited_us > self._controller.target_delay_us:
            new_window = now_us - self._loss_us > self._round_trip.smoothed_us
            if new_window:
                self._loss_us = now_us
            self._controller.on_loss(now_us, lost_bytes, new_window)

    def leave(self, member: Member) -> None:
        """A member measures no more."""
        self._members.pop(member, None)

    def on_silence(self, now_us: int) -> None:
        """A member waits for its turn, perhaps because nothing arrives at all."""
        if self._turns is not None:
            self._turns.take_back(self._members, self._round_trip.smoothed_us, now_us)
            self._turns.grant(self._open_bytes, now_us)

    def on_spurious(self, now_us: int) -> None:
        """What a member missed was only late."""
        if self._controller is not None:
            self._controller.on_spurious(now_us)

    # -- what follows from them --

    def _review(self, now_us: int) -> None:
        """Look at all members."""
        self._reviewed_us = now_us
        members = self._members
        stale_us = now_us - FRESH_US
        for member in [member for member in members if member.heard_us < stale_us and not member.is_in_row]:
            del members[member]
        count = len(members)
        if not count:
            return
        if self._samples:
            waited = sorted(self._samples)
            self.waited_us = waited[len(waited) // DISSENTERS]
            self._samples.clear()
        self.rate = sum(member.rate for member in members)
        round_trip = self._round_trip
        if self._controller is None:
            round_trip.smoothed_us = sum(member.round_trip.smoothed_us for member in members) // count
        round_trip.mean_base_us = sum(member.round_trip.base_us for member in members) // count
        self._segment_bytes = max(max(member.segment_bytes for member in members), 1)
        if self._controller is not None:
            self._share_out(self._controller, now_us)

    def _window_bytes(self, controller: Incoming) -> float:
        return max(float(controller.window_bytes), float(FLOOR_SEGMENTS * self._segment_bytes))

    def _share_out(self, controller: Incoming, now_us: int) -> None:
        """What the window leaves to each of those that use their part; the others get as much, and do not use it."""
        members = self._members
        segment_bytes = self._segment_bytes
        users = 0
        used = 0.0
        for member in members:
            if member.uses_window:
                users += 1
            else:
                used += member.rate * member.round_trip.smoothed_us / SECOND_US
        if users:
            self._used_us = now_us
        elif self.waited_us - self._tolerated_us < controller.target_delay_us:
            controller.widen(HEADROOM * used + FLOOR_SEGMENTS * segment_bytes * len(members))
        if now_us - self._used_us > RELEASE_US or self._is_foreign(controller, now_us):
            self.release()
            return

        window = min(self._window_bytes(controller), self._open_bytes)
        share = max(window - used, window / len(members)) / max(users, 1)
        turns = self._turns
        if turns is not None and share < SHARES_SEGMENTS * segment_bytes:
            turns.take_back(members, self._round_trip.smoothed_us, now_us)
            return
        if turns is None and share < TURNS_SEGMENTS * segment_bytes and len(members) > 1:
            for member in members:
                member.granted_bytes, member.granted_us = member.share_bytes, now_us
            self._turns = Turns(members)
            return
        # whole segments, or all would have one more at the same moment
        whole, rest = divmod(share, segment_bytes)
        extra = round(rest / segment_bytes * len(members))
        for number, member in enumerate(members):
            more = whole + (number < extra) if len(members) > 1 else share / segment_bytes
            member.share_bytes = more * segment_bytes
        if turns is not None:
            self._open_all()

    def _open_all(self) -> None:
        """Nobody waits for a turn any more."""
        self._turns = None
        for member in self._members:
            member.is_in_row = False
            member.open_window()

    def _engage(self, target_delay_us: int, now_us: int) -> None:
        """Go on from what is on its way now."""
        self._controller = Incoming(segment_bytes=self._segment_bytes, target_delay_us=target_delay_us)
        self._controller.resume(now_us, self.rate * self._round_trip.smoothed_us / SECOND_US)
        self._open_bytes = self._window_bytes(self._controller)
        self._delivery = DeliveryRate()
        self._used_us = now_us
        self._share_out(self._controller, now_us)

    def release(self) -> None:
        """Bound nothing, and watch."""
        self._controller = None
        if self._turns is not None:
            self._open_all()
        self._standing_since_us = self._foreign_since_us = -1

    def _is_foreign(self, controller: Incoming, now_us: int) -> bool:
        """Whether packets wait as long as ever although we take next to nothing; then that is tolerated from now on."""
        waited_us = self.waited_us - self._tolerated_us
        if controller.window_bytes > FLOOR_SEGMENTS * self._segment_bytes or waited_us <= controller.target_delay_us:
            self._foreign_since_us = -1
            return False
        if self._foreign_since_us < 0:
            self._foreign_since_us = now_us
            self._foreign_low_us = self._foreign_high_us = waited_us
        self._foreign_low_us = min(self._foreign_low_us, waited_us)
        self._foreign_high_us = max(self._foreign_high_us, waited_us)
        if now_us - self._foreign_since_us < FOREIGN_US:
            return False
        self._foreign_since_us = -1
        if self._foreign_low_us < FOREIGN_SHARE * self._foreign_high_us:
            return False
        self._tolerated_us += self._foreign_high_us
        return True
