"""How much may leave, when, and what becomes of it: the sending half of a connection with its windows and timers.

The connection calls it.  ``receive_window`` and ``receive_ack`` take what the peer says; ``next_resend``, ``next_run``
and ``next_fin`` give what may leave now; ``handle_timeout`` is called when nothing came back by ``deadline_us``.  It
knows nothing of headers, ids or the state of the connection.

Lost segments are found by acknowledgements first (``SendBuffer.detect_losses``), at the tail of what is in flight by
one probe after two round trips (RFC 8985 7), and by the retransmission timeout in the end (RFC 6298).  ``gaps.py`` has
the rules for a peer that does not name what arrived behind a gap.  When all that one cut of the window was for turns
out to have arrived after all, the cut is undone (as RFC 3522 does with TCP's timestamps; here an answer that comes too
soon after a retransmission gives it away).
"""

from __future__ import annotations

from typing import Any

from txutp.core.caps import SendCap
from txutp.core.congestion.crowd import Crowd
from txutp.core.congestion.interface import Controller
from txutp.core.congestion.steering import Steering
from txutp.core.delay import NOT_A_SAMPLE
from txutp.core.gaps import GapSearch
from txutp.core.mtu import MtuSearch
from txutp.core.packet import HEADER_BYTES
from txutp.core.rare import Rare
from txutp.core.rtt import RoundTrip
from txutp.core.sending import RUN_MAXIMUM_BYTES, RUN_MAXIMUM_SEGMENTS, Run, SendBuffer
from txutp.core.settings import Settings
from txutp.core.units import SECOND_US

NEVER_US = 1 << 62

PERSIST_US = SECOND_US  # first probe of a closed window (RFC 1122 4.2.2.17); doubled each time
MAXIMUM_BACKOFF = 10
NAMELESS_BACKOFF = 2  # for an answer that came late, see Flow._on_old_answer

# Tail probes in a row, each after twice the wait of the one before.
MAXIMUM_TAIL_PROBES = 5

# An answer that comes sooner than this share of the shortest round trip after a retransmission was not for it.
SOONEST_ANSWER_PERCENT = 90
MAXIMUM_REORDERING_QUARTERS = 8

# A path is probed for larger datagrams while so many segments wait to be sent...
BULK_SEGMENTS = 8
# ...if so many of the larger datagrams fit the peer's window and ours, or one would wait for the ack of the other.
WINDOW_DATAGRAMS = 4
# So many timeouts in a row, and what passed once may not pass any more (RFC 8899 4.3).
BLACK_HOLE_TIMEOUTS = 2

# Time between two tries in back-off: an outage ends between two timeouts, of which the later ones are many seconds
# apart.  RFC 8085 3.1.2 allows so many to a peer that says nothing.
RETRY_US = 3 * SECOND_US

# So little may be in flight without anybody steering: most connections of a peer-to-peer program never say more.
SMALL_SEGMENTS = 2

# Do not cut small bursts off a large transfer: on fast paths each ack would free three segments, which would draw an
# ack, for ever (15 times slower with no error anywhere).  Bounded by a quarter of the window and by what the
# path carries in a millisecond, so that slow paths never see a burst because of it.
BURST_SEGMENTS = 32
BURST_US = 1_000


class Flow(SendBuffer):
    """A stream on its way to the peer, and the rules of its traffic."""

    # what no ordinary connection changes, see rare.py
    bytes_resent: Rare[int] = Rare(0)
    segments_resent: Rare[int] = Rare(0)
    losses: Rare[int] = Rare(0)  # how often something was found lost, by acks or by time
    total_timeouts: Rare[int] = Rare(0)
    _resend_forced = Rare(False)  # the first fast retransmit does not wait for the window
    _duplicates_began_us = Rare(0)  # when the first of them came

    __slots__ = (
        "_burst_segments",
        "_crowd",
        "_cut_marks",
        "_doubts_timeout",
        "_duplicate_acks",
        "_flush",
        "_gaps",
        "_last_sent_us",
        "_limited_sequence",
        "_mtu_probe",
        "_paced_until_us",
        "_persist_due",
        "_probes",
        "_rare",
        "_recovery_sequence",
        "_reordering_quarters",
        "_settings",
        "_shrunk_bytes",
        "_timed_out_us",
        "_timeout_stands",
        "_timer_started_us",
        "_window_ack",
        "_window_sequence",
        "backoff",
        "bytes_sent",
        "cap",
        "mtu",
        "no_delay",
        "peer_window_bytes",
        "probe_due",
        "round_trip",
        "segment_bytes",
        "steering",
        "timeouts",
    )

    def __init__(self, next_sequence: int, segment_bytes: int, settings: Settings, crowd: Crowd) -> None:
        super().__init__(next_sequence)
        self._rare: dict[str, Any] | None = None
        self._settings = settings
        self._crowd = crowd  # the flows of the port
        self.segment_bytes: int = segment_bytes  # payload of a full packet

        # how much
        self.peer_window_bytes: int = 0
        self.steering: Steering | None = None  # created when there is more to send than a few packets
        self.cap: SendCap | None = None  # on bytes per second, see caps.py
        self.no_delay: bool = False  # small writes leave at once although another small packet is in flight
        self._flush = False  # the short segment at the end of what is unsent leaves at once
        self._burst_segments = burst_segments(segment_bytes + HEADER_BYTES)
        self._limited_sequence = next_sequence - 1  # up to here the congestion window bounded what was sent
        self._paced_until_us = NEVER_US  # when a burst may leave that had to wait
        self._persist_due = False  # the closed window shall be probed, as soon as our own socket lets us
        self._window_ack = self._window_sequence = -1  # of the packet that `peer_window_bytes` is from
        self._shrunk_bytes = 0  # by so much the last packet made it smaller

        # what we know of the path
        self.round_trip: RoundTrip = RoundTrip()
        self.mtu: MtuSearch | None = None  # set by the connection when there is much to send
        self._mtu_probe: Run | None = None  # under way

        # loss
        self._duplicate_acks = 0
        self._gaps: GapSearch | None = None  # created when the peer does not name what arrived behind a gap
        self._recovery_sequence = next_sequence - 1  # the window was cut for losses up to here
        self._cut_marks = (0, 0)  # spurious and given up segments when the window was cut; equal ones: nothing to undo
        self._reordering_quarters = 1  # of the shortest round trip; by so much packets may overtake each other
        self.probe_due: bool = False  # the tail shall be sent again to hear of what is in flight
        self._probes = 0  # tail probes since the last progress
        self.timeouts: int = 0  # in a row, without a sign of life; too many end the connection
        self.backoff: int = 0  # doublings of the timeout
        self._timer_started_us = 0  # the retransmission timer
        self._timed_out_us = -1  # the last timeout; what left before tells no round trip
        self._timeout_stands = False  # the controller's last cut was for a timeout
        self._doubts_timeout = False  # answers came that were older than the timeout, and no round trip was told since
        self._last_sent_us = 0  # new data

        # counters
        self.bytes_sent: int = 0  # payload, first transmissions

    # -- questions --

    def use_settings(self, settings: Settings) -> None:
        """Take other settings, before there is a congestion controller."""
        self._settings = settings

    @property
    def datagram_bytes(self) -> int:
        """How large datagrams are, or would be without a cap."""
        return self.segment_bytes + HEADER_BYTES if self.cap is None else self.cap.path_datagram_bytes

    @property
    def burst_bytes(self) -> int:
        """How much data one batch carries at most."""
        return self._burst_segments * self.segment_bytes

    @property
    def timeout_us(self) -> int:
        """The retransmission timeout as it stands."""
        settings = self._settings
        return self.round_trip.timeout_us(settings.minimum_timeout_us, settings.maximum_timeout_us, self.backoff)

    @property
    def acknowledged_bytes(self) -> int:
        """How many bytes from the beginning of the stream the peer has.

        What it acknowledged selectively, behind a gap, does not count: it may still take that back (RFC 2018 section
        8).
        """
        runs = self.runs
        under_way_bytes = sum(run.total_bytes for run in runs)
        if runs:
            under_way_bytes -= runs[0].bytes_of((1 << self.first_unacked - runs[0].first) - 1)
        return self.bytes_sent - under_way_bytes

    @property
    def controller(self) -> Controller | None:
        """The congestion controller, if there is one yet."""
        return None if self.steering is None else self.steering.controller

    @property
    def window_bytes(self) -> int:
        """How much may be in flight; one segment always.

        A controller may have chosen less: segments grow, and with nothing in flight no ack would ever raise its window.
        """
        if self.steering is None:
            return SMALL_SEGMENTS * self.segment_bytes
        return max(self.steering.window_bytes, self.segment_bytes)

    @property
    def pacing_rate(self) -> float:
        """Bytes per second at which data leaves; 0 without a pace."""
        return 0.0 if self.steering is None else self.steering.pacing_rate(self.round_trip)

    @property
    def deadline_us(self) -> int:
        """When something has to be done if nothing comes back, or may leave that had to wait."""
        deadline_us = self._paced_until_us
        if self.runs:
            probe_us = self._probe_deadline_us
            if probe_us < deadline_us:
                deadline_us = probe_us
            if deadline_us > self._timer_started_us + self._settings.minimum_timeout_us:
                deadline_us = min(deadline_us, self._timer_started_us + self.timeout_us)
        elif self.unsent_bytes and self._persisting and not self._persist_due:
            deadline_us = self._timer_started_us + self._persist_us
        return deadline_us

    @property
    def pipe_bytes(self) -> int:
        """What is on its way: in flight, without what arrived behind a gap or is lost although nobody knows which."""
        gaps = self._gaps
        return self.flight_bytes if gaps is None else gaps.pipe_bytes(self.flight_bytes, self.segment_bytes)

    @property
    def _may_send_new(self) -> bool:
        """Whether there is new data that nothing but the congestion window holds back."""
        return (
            self.unsent_bytes > 0
            and self.peer_window_bytes - self.flight_bytes >= self.segment_bytes
            and self.outstanding < self._settings.maximum_outstanding_packets
        )

    @property
    def is_paced(self) -> bool:
        """Whether a burst waits for its time."""
        return self._paced_until_us != NEVER_US

    @property
    def _probe_is_held(self) -> bool:
        """Whether a tail probe is due and waits for the pace, as all that a window below a segment sends."""
        return self.probe_due and self._paced_until_us != NEVER_US

    @property
    def _probe_deadline_us(self) -> int:
        """When the tail of what is in flight is probed: a few times in a row, and in back-off now and then.

        RFC 8985 7.3 allows one probe.  The shortest retransmission timeout is hundreds of round trips on a short path,
        so a path that loses one packet in ten would stand still most of the time with a small window.
        """
        round_trip = self.round_trip
        if not round_trip.smoothed_us or self._probe_is_held:
            return NEVER_US
        if self.timeouts:
            wait_us = max(RETRY_US, 2 * round_trip.smoothed_us)
            return max(self._timer_started_us, self._last_sent_us) + wait_us
        if self._probes >= MAXIMUM_TAIL_PROBES or (self.backoff and not self._doubts_timeout):
            return NEVER_US
        return max(self._timer_started_us, self._last_sent_us) + round_trip.probe_timeout_us()

    @property
    def _persisting(self) -> bool:
        """Data waits, nothing is in flight, and the peer's window is too small for a segment."""
        return (
            self.unsent_bytes > 0
            and not self.outstanding
            and self.peer_window_bytes < min(self.segment_bytes, self.unsent_bytes)
        )

    @property
    def _persist_us(self) -> int:
        return max(self.timeout_us, min(PERSIST_US << self.backoff, self._settings.maximum_timeout_us))

    def judges_silence(self, now_us: int) -> bool:
        """Whether ``handle_timeout`` would count it against the peer that nothing came back."""
        return self.outstanding > 0 and now_us >= self._timer_started_us + self.timeout_us

    # -- verbs --

    def begin(self, now_us: int) -> None:
        """The connection is up."""
        self._timer_started_us = now_us
        self._limited_sequence = self._recovery_sequence = self.next_sequence - 1

    def set_datagram_bytes(self, datagram_bytes: int) -> None:
        """Cut what is sent for the first time from now on so that datagrams have this size, or less under a cap."""
        if self.cap is not None:
            datagram_bytes = self.cap.fitted(datagram_bytes)
        self.segment_bytes = segment_bytes = datagram_bytes - HEADER_BYTES
        self._burst_segments = burst_segments(datagram_bytes)
        if self.steering is not None:
            self.steering.controller.segment_bytes = segment_bytes

    @property
    def is_stuck(self) -> bool:
        """Whether the first segment in flight was repeated for want of an answer, and waits to be repeated again."""
        return (self._probes > 1 or self.timeouts > 0) and (self.probe_due or self.lost_segments > 0)

    @property
    def attempt(self) -> int:
        """A number that is another one each time that silence makes something leave again."""
        return self.total_timeouts * (MAXIMUM_TAIL_PROBES + 1) + self._probes

    def stuck_segment(self) -> tuple[int, int, int]:
        """Of the first segment in flight: its number, its datagram's bytes, and how many as large arrived behind it."""
        oldest = self.oldest_unacked()
        if oldest is None:
            return -1, 0, 0
        size = oldest[0].size_of(oldest[1])
        arrived = sum(
            run.acked >> index & 1
            for run in self.runs
            if run.acked
            for index in range(max(self.first_unacked - run.first, 0), run.count)
            if run.size_of(index) >= size
        )
        return self.first_unacked, size + HEADER_BYTES, arrived

    def on_swallowed(self, datagram_bytes: int, now_us: int) -> None:
        """The path swallows segments as large as those in flight: repeat them at once, and cut smaller ones.

        That is no sign of congestion.
        """
        if self._mtu_probe is not None:
            self._on_mtu_lost()
        self.give_up_all()
        self.timeouts = self.backoff = self._probes = 0
        self.probe_due = False
        self._resend_forced = True
        self._timer_started_us = now_us
        self.set_datagram_bytes(min(datagram_bytes, self.segment_bytes + HEADER_BYTES))

    def flush(self) -> None:
        """Let what was written so far leave in a short packet, although another one is in flight."""
        self._flush = self.unsent_bytes > 0

    # -- what the peer says --

    def receive_window(self, ack: int, sequence: int, window_bytes: int) -> bool:
        """Take the peer's window from the newest packet only; returns whether it grew.

        A window that shrinks while the ack stays shows that something arrived behind a gap, as the ack itself does.
        """
        # an equal number that is there already may be shared, see resting.py
        if ack != self._window_ack:
            if ack < self._window_ack:
                self._shrunk_bytes = 0
                return False
            self._window_ack = ack
        elif sequence < self._window_sequence:
            self._shrunk_bytes = 0
            return False
        if sequence != self._window_sequence:
            self._window_sequence = sequence
        before_bytes = self.peer_window_bytes
        if window_bytes == before_bytes:
            self._shrunk_bytes = 0
            return False
        self.peer_window_bytes = window_bytes
        self._shrunk_bytes = before_bytes - window_bytes
        if self.backoff and before_bytes < self.segment_bytes <= window_bytes and self.runs:
            # The window opens: what was sent into the closed one was dropped there.
            self.give_up_all()
            self.backoff = 0
        return window_bytes > before_bytes

    def receive_ack(self, ack: int, selective: int, difference_us: int, pure_ack: bool, now_us: int) -> None:
        """Take an ack that is known to be in range; ``pure_ack`` if the packet said nothing else."""
        steering = self.steering
        round_trip = self.round_trip

        # what arrived
        first_unacked = self.first_unacked
        head = self.runs[0]
        # An answer to a tail probe may come sooner than any before: what left earlier has been unanswered for long.
        earliest_us = 0 if self._probes else round_trip.minimum_us * SOONEST_ANSWER_PERCENT // 100
        if (
            self.nameless_segments
            and ack >= first_unacked
            and not head.resent >> first_unacked - head.first & 1
            and difference_us not in NOT_A_SAMPLE
        ):
            # Nothing was missing there: the duplicate acks were for what came twice, or early.  npm's utp, which tells
            # no time, shows too little to be sure.
            self.nameless_segments = 0
        progress, acked_bytes, newest = self.acknowledge(ack, selective, now_us - earliest_us)
        sample_us = 0
        if newest is not None:
            sent_at_us = newest[0].sent_at_us
            if sent_at_us <= self._timed_out_us:
                self._on_old_answer(now_us - sent_at_us)
            elif not self.fills_gap:
                sample_us = now_us - sent_at_us
                round_trip.on_sample(sample_us)
                self._doubts_timeout = False
                if self._gaps is not None:
                    self._gaps.on_measured()
            elif self._gaps is not None:
                repair_us = now_us - (head.resent_at_us or {}).get(first_unacked - head.first, now_us)
                sample_us = self._gaps.assume_round_trip(difference_us, steering, repair_us, self.timeout_us)
        if progress:
            self._timer_started_us = now_us
            self.timeouts = self._probes = 0
            if self.backoff:
                if not self._doubts_timeout:
                    self.backoff = 0
                elif self._gaps is not None:
                    self.backoff = min(self.backoff, NAMELESS_BACKOFF)
            self._duplicate_acks = 0
            if self._gaps is not None:
                acked_bytes = self._gaps.uncredited(acked_bytes, self.nameless_segments > 0)
        elif pure_ack and ack == self.first_unacked - 1 and not self.selective_seen:
            # RFC 5681 section 2; a selective ack that says nothing new is one too.  A peer that names what came behind
            # a gap shows gaps by that alone (RFC 6675 2).
            acked_bytes, sample_us = self._on_duplicate_ack(difference_us, now_us)

        # how long it took
        if acked_bytes and steering is not None:
            full_size = newest is None or newest[0].size_of(newest[1]) == self.segment_bytes
            steering.on_ack(
                now_us,
                acked_bytes,
                self.newest_delivered_us if progress else max(self.newest_delivered_us, now_us - sample_us),
                max(sample_us, 1) if full_size and sample_us else 0,
                difference_us,
                round_trip,
                first_unacked <= self._limited_sequence
                and (self.cap is None or not self.cap.limits(round_trip.smoothed_us, now_us)),
            )

        # what was given up and arrived after all
        if self.spurious_segments != self._cut_marks[0]:
            self._on_spurious(now_us)

        # what was longer than others
        if self._mtu_probe is not None and self._mtu_probe.acked:
            self._on_mtu_passed()

        # what did not arrive
        if self.runs:
            self._detect_losses(ack, selective, now_us)
        if self._gaps is not None:
            self._gaps.search(self, self.window_bytes, self.segment_bytes, self._may_send_new, progress, now_us)

    def _detect_losses(self, ack: int, selective: int, now_us: int) -> None:
        """Give up what the ack proves to be lost, and tell who decides what that means."""
        window_us = self.round_trip.reordering_window_us(self._reordering_quarters)
        given_up = self.given_up_segments
        duplicate_acks = self._duplicate_acks
        if self.reordering_seen and now_us < self._duplicates_began_us + window_us:
            duplicate_acks = 0  # the first segment may still be on its way
        if self._gaps is not None and self.first_unacked <= self.nameless_sequence:
            highest, lost_bytes = self.detect_first_loss(duplicate_acks, window_us, now_us - self._gaps.answer_us)
            if highest >= 0:
                self._resend_forced = True  # one packet, and the only one that brings the ack forward
        else:
            highest, lost_bytes = self.detect_losses(ack, selective, duplicate_acks, window_us)
        if self._mtu_probe is not None and self._mtu_probe.given_up:
            lost_bytes -= self._mtu_probe.total_bytes
            if not lost_bytes:
                highest = -1  # the loss of a probe says nothing of congestion (RFC 8899 3)
            self._on_mtu_lost()
        if highest >= 0:
            self.losses += 1
            new_window = highest > self._recovery_sequence
            if new_window:
                self._cut_marks = (self.spurious_segments, given_up)
                self._recovery_sequence = self.next_sequence - 1
                self._resend_forced = True
                self._timeout_stands = False
            if self.steering is not None:
                base_us = self.round_trip.base_us
                self.steering.on_loss(now_us, lost_bytes, new_window, self.lost_together, base_us)

    def _on_old_answer(self, age_us: int) -> None:
        """Something arrived that left before the last timeout.

        Perhaps it came to the peer long ago and the answer was lost or late; then its age is no round trip.  But
        perhaps the path takes as long as that now, so no timeout is shorter until a round trip is measured.
        """
        self._doubts_timeout = True
        # A peer that names nothing answers late behind a gap, and then its age is that of the gap.
        most = MAXIMUM_BACKOFF if self._gaps is None else NAMELESS_BACKOFF
        while self.backoff < most and self.timeout_us < min(age_us, self._settings.maximum_timeout_us):
            self.backoff += 1

    def _on_duplicate_ack(self, difference_us: int, now_us: int) -> tuple[int, int]:
        """The peer has something behind a gap, or something for the second time.

        Returns how many bytes have arrived that the controller does not know of, and how long a round trip may take.
        """
        gaps = None
        arrived_bytes = self._shrunk_bytes
        if not self.selective_seen:
            gaps = self._gaps
            if gaps is None:
                gaps = self._gaps = GapSearch(self.round_trip)
            if gaps.is_expected(arrived_bytes, now_us):
                return 0, 0
        if not self._duplicate_acks:
            self._duplicates_began_us = now_us
        self._duplicate_acks += 1
        if gaps is None:
            return 0, 0
        # One ack may be for several segments that came together.
        new_bytes = self.count_nameless(max(round(arrived_bytes / self.segment_bytes), 1)) * self.segment_bytes
        sample_us = gaps.assume_round_trip(difference_us, self.steering, 0, self.timeout_us)
        if not sample_us:
            return 0, 0  # a window that grows without any sign of a queue would have no bound
        gaps.credit(new_bytes)
        return new_bytes, sample_us

    def handle_timeout(self, now_us: int, heard_us: int) -> bool:
        """Nothing came back in time; gives whether that happened because of a silent peer.

        ``heard_us`` is when the peer last said anything at all: one that answers and has no room is not gone.
        """
        is_held = self._probe_is_held and self._probes == 1 and not self.timeouts
        self._paced_until_us = NEVER_US  # it will be asked for again
        if not self.outstanding:
            self._persist_due = self._persisting and now_us >= self._timer_started_us + self._persist_us
            return False
        if now_us < self._timer_started_us + self.timeout_us:
            if now_us >= self._probe_deadline_us:
                if self.timeouts:
                    self._last_sent_us = now_us
                    self.probe_due = True
                    return False
                if not self._probes:
                    self._timer_started_us = now_us  # RFC 8985 7.3: the timeout counts from the first probe
                self._probes += 1
                self.probe_due = True
                self.round_trip.unmeasured_probes += 1
            return False
        if is_held or (self.lost_segments and not self.flight_bytes):
            # Our own socket takes nothing, or the pace holds it back; that says nothing of the path.
            self._timer_started_us = now_us
            return False

        probe = self._mtu_probe
        only_probe = probe is not None and self.flight_bytes == probe.total_bytes and not probe.acked
        peer_is_full = self.peer_window_bytes < self.segment_bytes and heard_us >= self._timer_started_us
        if not peer_is_full and not only_probe:
            self.timeouts += 1
            self.total_timeouts += 1
            self.losses += 1
            if self.flight_bytes and self.steering is not None:
                self._cut_marks = (self.spurious_segments, self.given_up_segments)
                self.steering.on_timeout(now_us)
                self._timeout_stands = True
            self._timed_out_us = now_us
        # RFC 6298 5.4 to 5.6: the oldest again, everything else as the window allows
        if self._gaps is not None:
            self._gaps.on_timeout(self.nameless_segments, now_us)
        self.give_up_all()
        self._timer_started_us = now_us
        self._probes = 0
        if probe is not None:
            self._on_mtu_lost()
        if only_probe:
            return False
        self.backoff = min(self.backoff + 1, MAXIMUM_BACKOFF)
        self._recovery_sequence = self.next_sequence - 1
        if self.mtu is not None and self.timeouts >= BLACK_HOLE_TIMEOUTS and self.mtu.is_raised:
            self.mtu.on_black_hole(now_us)
            self.set_datagram_bytes(self.mtu.passed_bytes)
        return not peer_is_full

    # -- what may leave --

    def next_resend(self, now_us: int) -> tuple[Run, int] | None:
        """One lost segment, or the tail probe; it counts as sent again."""
        self._paced_until_us = NEVER_US
        lost = self.next_lost()
        if lost is None and not self.probe_due:
            return None
        if self.cap is not None and not self._capped_bytes(self.segment_bytes, now_us):
            return None
        paced = is_sparse = self.steering is not None and self.steering.is_sparse
        is_probe = self.probe_due
        if is_probe:
            if is_sparse and not self._paced_bytes(self.segment_bytes, now_us):
                return None
            self.probe_due = False
            lost = self._lose_oldest(now_us) if is_sparse and not self.timeouts else self._next_tail_probe(lost)
        elif lost is not None and (is_sparse or (self.flight_bytes and not self._resend_forced)):
            size = lost[0].size_of(lost[1])
            pipe_bytes = self.pipe_bytes
            if pipe_bytes and pipe_bytes + size > self.window_bytes:
                return None  # alone it leaves always: it may be larger than the window of smaller segments
            wanted_bytes = min(size, self.segment_bytes)  # it may be larger than a burst is now
            if self._paced_bytes(wanted_bytes, now_us) < wanted_bytes:
                return None
            paced = True
        if lost is None:
            return None
        was_held = self.cap is not None and self.cap.resumed_us == now_us
        if (is_sparse and not (self.timeouts and self.flight_bytes)) or (
            was_held and not (self.timeouts if is_probe else self.flight_bytes)
        ):
            self._timer_started_us = now_us  # it may have waited for longer than an answer takes
        run, index = lost
        self._resend_forced = False
        if run is self._mtu_probe:
            self._on_mtu_lost()  # it goes without padding now, so its arrival will say nothing
        if self._gaps is not None:
            self._gaps.on_resent(now_us)
        size = run.size_of(index)
        self.resend(run, index, now_us)
        self.segments_resent += 1
        self.bytes_resent += size
        if paced and self.steering is not None:
            self.steering.on_sent(size)  # what did not ask the pace leaves no debt to it
        return lost

    def _lose_oldest(self, now_us: int) -> tuple[Run, int] | None:
        """Give up the only segment in flight, for which no later one can speak."""
        oldest = self.oldest_unacked()
        assert self.steering is not None
        if oldest is not None and not oldest[0].lost >> oldest[1] & 1:
            self._cut_marks = (self.spurious_segments, self.given_up_segments)
            self._recovery_sequence = self.next_sequence - 1
            self.losses += 1
            lost_bytes = self._give_up(oldest[0], 1 << oldest[1])
            self.steering.on_loss(now_us, lost_bytes, True, False, self.round_trip.base_us)
        return oldest

    def _next_tail_probe(self, lost: tuple[Run, int] | None) -> tuple[Run, int] | None:
        """The segment that a tail probe repeats: a lost one or the newest; the oldest where these may stay unanswered.

        The newest shows all that is missing before it, to a peer that names it.  But some peers name nothing, libutp
        names only the first 32 segments behind a gap, and it does not answer at all to what waits there already.
        """
        if self._probes > 1 or self.timeouts or not self.selective_seen:
            return self.oldest_unacked()
        if lost is not None:
            return lost
        return self.oldest_unacked() if self._duplicate_acks else self.newest_unacked()

    def next_probe(self, now_us: int) -> tuple[Run, int] | None:
        """One new segment, and the size of the padded datagram that it shall be, to try whether the path carries it."""
        search = self.mtu
        segment_bytes = self.segment_bytes
        unsent_bytes = self.unsent_bytes
        if (
            search is None
            or self._mtu_probe is not None
            or self.lost_segments
            or self.backoff
            or unsent_bytes < BULK_SEGMENTS * segment_bytes
        ):
            return None
        datagram_bytes = search.next_probe_bytes(now_us, self.peer_window_bytes // WINDOW_DATAGRAMS)
        if not datagram_bytes:
            return None
        if self.window_bytes < WINDOW_DATAGRAMS * datagram_bytes or (
            self._allowed_bytes(unsent_bytes, False, now_us) < segment_bytes
            or (self.cap is not None and not self.cap.allows_probe(datagram_bytes, now_us))
        ):
            search.on_unsent()
            return None
        if self.steering is not None:
            self.steering.on_sent(datagram_bytes)
        self._on_new(now_us)
        self.bytes_sent += segment_bytes
        self._mtu_probe = run = self.take_run(segment_bytes, segment_bytes, now_us)
        return run, datagram_bytes

    def next_run(self, now_us: int, flush: bool) -> Run | None:
        """New data, of which there is some, as much as windows and kernel take in one go.

        With ``flush`` the last segment may be short.
        """
        self._paced_until_us = NEVER_US
        unsent_bytes = self.unsent_bytes
        steering = self.steering
        if not self.runs and steering is None and unsent_bytes <= self.segment_bytes <= self.peer_window_bytes:
            total_bytes = unsent_bytes  # a question or an answer, and nothing else under way
        else:
            total_bytes = self._allowed_bytes(unsent_bytes, flush or self._flush or self.no_delay, now_us)
            steering = self.steering
        if total_bytes:
            if steering is not None:
                total_bytes = self._paced_bytes(total_bytes, now_us)
            if self.cap is not None and total_bytes:
                total_bytes = self._capped_bytes(total_bytes, now_us)
            if not total_bytes:
                return None
            if steering is not None:
                steering.on_sent(total_bytes)
        else:
            if not self._persisting:
                return None
            if not self._persist_due and now_us < self._timer_started_us + self._persist_us:
                return None
            total_bytes = min(max(self.peer_window_bytes, 1), unsent_bytes, self.segment_bytes)
            self.backoff = min(self.backoff + 1, MAXIMUM_BACKOFF)

        self._on_new(now_us)
        if total_bytes == unsent_bytes:
            self._flush = False
        self.bytes_sent += total_bytes
        return self.take_run(total_bytes, self.segment_bytes, now_us)

    def next_fin(self, now_us: int) -> Run:
        """Our FIN; the connection knows that it is time for it."""
        self._on_new(now_us)
        return self.take_fin(now_us)

    def refuse(self, run: Run, index: int, accepted: int) -> None:
        """The socket took only ``accepted`` segments of what was given last: the others were never sent."""
        if index >= 0:
            size = run.size_of(index)
            self.unresend(run, index)
            self.segments_resent -= 1
            self.bytes_resent -= size
        else:
            before_bytes = self.unsent_bytes
            if run is self._mtu_probe:
                assert self.mtu is not None
                self._mtu_probe = None
                self.mtu.on_unsent()
            self.untake(accepted)
            size = self.unsent_bytes - before_bytes
            self.bytes_sent -= size
        if self.steering is not None:
            self.steering.on_sent(-size)

    def _paced_bytes(self, wanted_bytes: int, now_us: int) -> int:
        """How much of it may leave now: all, or whole segments.  If nothing, the deadline says when."""
        steering = self.steering
        if steering is None:
            return wanted_bytes
        allowed_bytes = steering.paced_bytes(now_us, wanted_bytes, self.segment_bytes, self.round_trip)
        if allowed_bytes < wanted_bytes:
            if self.flight_bytes + self.unsent_bytes >= steering.window_bytes and steering.limited_by_window(
                self.round_trip
            ):
                self._limited_sequence = self.next_sequence - 1  # by the window, for which the pace stands
            if not allowed_bytes:
                self._paced_until_us = steering.due_us
        return allowed_bytes

    def _capped_bytes(self, wanted_bytes: int, now_us: int) -> int:
        """How much of it the caps allow now: all, or whole segments.  If nothing, the deadline says when."""
        assert self.cap is not None
        allowed_bytes = self.cap.allow(wanted_bytes, self.segment_bytes, now_us)
        if not allowed_bytes:
            self._paced_until_us = self.cap.due_us
        if self.steering is not None:
            self.steering.on_capped(not allowed_bytes, now_us)
        return allowed_bytes

    def _on_mtu_passed(self) -> None:
        assert self.mtu is not None
        self._mtu_probe = None
        self.mtu.on_passed()
        self.set_datagram_bytes(self.mtu.passed_bytes)

    def _on_mtu_lost(self) -> None:
        assert self.mtu is not None
        self._mtu_probe = None
        self.mtu.on_lost()

    def _on_spurious(self, now_us: int) -> None:
        """Some of what the window was cut for had arrived; if that is all of it, the cut was for nothing.

        After a timeout some of it is enough: it was not congestion that kept the answers away (F-RTO, RFC 5682).  A
        peer that names nothing behind a gap cannot show that, because its answers come late for other reasons.
        """
        spurious_before, given_up_before = self._cut_marks
        spurious = self.spurious_segments - spurious_before
        given_up = self.given_up_segments - given_up_before
        self._cut_marks = (self.spurious_segments, self.given_up_segments - given_up + spurious)
        if self.newest_delivered_us <= self._timed_out_us:
            self._on_old_answer(now_us - self.newest_delivered_us)
        if self.steering is not None:
            self.steering.overload.on_spurious(spurious * self.segment_bytes)
        self._reordering_quarters = min(self._reordering_quarters + 1, MAXIMUM_REORDERING_QUARTERS)
        if spurious == given_up and not self.selective_seen:
            self.reordering_seen = True  # a peer that names nothing shows it in no other way
        if (spurious == given_up or (self._timeout_stands and self._gaps is None)) and self.steering is not None:
            self._timeout_stands = False
            self.steering.controller.on_spurious(now_us)

    def _on_new(self, now_us: int) -> None:
        if not self.runs:
            self._timer_started_us = now_us
            self._persist_due = False
        self._last_sent_us = now_us

    def _allowed_bytes(self, unsent_bytes: int, flush: bool, now_us: int) -> int:
        """How much new data may leave now."""
        segment_bytes = self.segment_bytes
        flight_bytes = self.flight_bytes
        if self.steering is None and flight_bytes + unsent_bytes > SMALL_SEGMENTS * segment_bytes:
            self.steering = Steering(self._settings, segment_bytes, self._crowd, now_us)
        window_bytes = self.window_bytes
        by_congestion = window_bytes - self.pipe_bytes
        room = min(
            by_congestion,
            self.peer_window_bytes - flight_bytes,
            (self._settings.maximum_outstanding_packets - self.outstanding) * segment_bytes,
            self._burst_segments * segment_bytes,
        )
        if by_congestion < min(segment_bytes, unsent_bytes):
            self._limited_sequence = self.next_sequence - 1

        # all that is left, with a short segment at its end: one such may be in flight (Nagle, RFC 896)
        if unsent_bytes <= room:
            short_bytes = unsent_bytes % segment_bytes
            if not short_bytes or flush or self.undersized_sequence < self.first_unacked:
                return unsent_bytes
            return unsent_bytes - short_bytes

        segments = max(room, 0) // segment_bytes
        if segments and flight_bytes:
            per_millisecond = window_bytes * BURST_US // (self.round_trip.smoothed_us or SECOND_US)
            burst = min(BURST_SEGMENTS, window_bytes // (4 * segment_bytes), per_millisecond // segment_bytes)
            if segments < burst and flight_bytes > 2 * burst * segment_bytes:
                if room == by_congestion:
                    self._limited_sequence = self.next_sequence - 1
                return 0
        return segments * segment_bytes


def burst_segments(datagram_bytes: int) -> int:
    """How many full segments leave in one go at most.

    It is an odd number.  Programs on libuv (utp-native) read 32 datagrams, look elsewhere, and hear that there are no
    more only if there were not just as many; until then libutp does not acknowledge.  A window of 16 times 44 segments
    waited 10 ms for its ack again and again.
    """
    return min(RUN_MAXIMUM_SEGMENTS, RUN_MAXIMUM_BYTES // datagram_bytes) - 1 | 1
