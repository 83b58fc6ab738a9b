"""Detection of a dead peer: keepalives, probes that the peer has to answer, and ICMP errors about its port.

The connection inherits the rules, and calls ``presence_deadline_us`` and ``presence``; the multiplexer has the
``ClosedPorts``, because a closed port concerns all connections to it.

Probes
    A receiver has to acknowledge DATA that it has received before, because its ack may have been lost.  So DATA with
    such a number, and one byte that the peer discards, draws a STATE at once, as TCP's keepalive does (RFC 9293 3.8.4).
    The number is one less than the last one that the peer has acknowledged; where that is our SYN, it is the number of
    the SYN.

    A new connection tries its peer a few times.  *A peer that has answered a probe is considered dead when it leaves
    many probes in a row unanswered.*  A peer that has never answered is not; it gets libutp's keepalive, which is a
    STATE with an older ack and draws no answer.  While data of ours is in flight no probe is needed: the data is
    retransmitted anyway.

ICMP
    The host of a process that was killed answers with "port unreachable", and quotes our packet.  Such an error is
    easily forged (RFC 5927), so it counts only with the id, the number and the timestamp of a packet that we sent
    lately.  It ends a connection only if a second error quotes a packet that left seconds after the first error came,
    and no packet of that address was received in between.  A filter that rejects for a moment, while its rules are
    loaded, answers like a closed port; so the peer is probed at once, and again when that moment is over.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sized

from txutp.core.batch import Address
from txutp.core.flow import NEVER_US
from txutp.core.rare import Rare
from txutp.core.sending import SendBuffer, first_of
from txutp.core.sequence import MASK16, MASK32
from txutp.core.units import SECOND_US

# Keepalive interval of connections that ask for keepalives where the settings have none, as libutp's.
KEEPALIVE_US = 29 * SECOND_US

# Unanswered probes in a row until a peer that has answered before counts as dead, and the time between two of them:
# together 28 s.  A path with 30 % loss each way loses half of all probes or answers; it seems dead once in a million
# silences.
PROBES = 20
PROBE_US = 1_400_000

# Probes of a peer that has never answered one.  The early ones leave soon, at doubled intervals; the others replace
# keepalives.  The very first one waits for a silence of `TRIAL_US`, but no longer than `FIRST_TRIAL_US`.
EARLY_TRIALS = 3
TRIALS = 10
TRIAL_US = SECOND_US // 2
FIRST_TRIAL_US = 5 * SECOND_US

# Shortest interval between answered probes, the part of it that each connection of the port adds, and the divisor of
# the silence so far that yields the interval.
SOONEST_US = 2 * SECOND_US
SHARE_US = SECOND_US // 100
SILENCE_PART = 4

# Divisors of the keepalive interval, and of a shorter one, that yield how much longer the accepting side waits, so that
# not both sides probe.  A short interval has to be longer by a round trip.
PATIENCE = 64
SHORT_PATIENCE = 8

# Part of an interval of keepalives or probes by which that of one connection is shorter at most, in steps that its id
# chooses: what connections send that fell silent together spreads within some intervals.
SPREAD = 8
STEPS = 64

# Maximum number of addresses whose ICMP error is remembered.
MAXIMUM_CLOSED_PORTS = 1_000

# Time between the first ICMP error and the packet that the second one has to quote: longer than a filter rejects while
# it is being changed.  Then the interval of probes until a verdict, and the end of these probes after the first error;
# they are several because hosts limit their errors.
CONFIRM_US = 3_500_000
CONFIRM_EACH_US = SECOND_US // 2
CONFIRM_UNTIL_US = 6 * SECOND_US

# Silence after which the sender of a stream is probed once, and the packets received, without data of ours in between,
# that make a stream.  No other packet would leave that draws an ICMP error.
STALL_US = SECOND_US // 2
STREAM_SEGMENTS = 8

# The verdicts of ``presence``: the packet to send, or the end of the connection.
KEEPALIVE, PROBE, GIVE_UP = range(3)

# The verdicts of ``ClosedPorts.judge`` on an ICMP error.
KNOWN, SUSPECTED, PROVEN = range(3)


class Watch:
    """The shortest interval in which the connections of one port probe idle peers."""

    def __init__(self, connections: Sized) -> None:
        self._connections = connections

    @property
    def soonest_us(self) -> int:
        """The interval; it grows with the number of connections, which limits the rate of all probes together."""
        return max(SOONEST_US, SHARE_US * len(self._connections))


def spread(interval_us: int, connection_id: int) -> int:
    """Returns the interval of one connection, by an id that both of its ends know; never more than the given one."""
    return interval_us - interval_us // SPREAD * (connection_id % STEPS) // STEPS


class Liveness:
    """The part of a connection that detects a dead peer."""

    _doubted_us = Rare(NEVER_US)  # time of an ICMP error that says "port unreachable"
    _doubt_deadline_us = Rare(NEVER_US)  # when the peer is to be probed again because of the error

    __slots__ = (
        "_last_received_us",
        "_last_sent_us",
        "_probe_us",
        "_probes",
        "_progress",
        "_quiet_since_us",
        "answers_probes",
    )

    def __init__(self) -> None:
        self._last_sent_us = 0
        self._last_received_us = 0
        self.answers_probes: bool = False  # the peer has answered one
        self._probes = 0  # unanswered since the peer was heard; all of them while it has never answered one
        self._probe_us = NEVER_US  # when a peer that has never answered is tried again
        self._progress = 0  # of both streams, at the last check
        self._quiet_since_us = 0  # when the peer was last heard before progress stopped

    def is_on_trial(self, keepalive_us: int, now_us: int) -> bool:
        """Whether the peer has left enough probes unanswered, for long enough, to count as dead at the next timer."""
        patience_us = keepalive_us + PROBES * min(PROBE_US, keepalive_us)
        return self.answers_probes and self._probes >= PROBES and now_us >= self._last_received_us + patience_us

    @property
    def heard_us(self) -> int:
        """When the peer was last heard."""
        return self._last_received_us

    def ask_interval_us(self, keepalive_us: int, soonest_us: int, progress: int, is_patient: bool) -> int:
        """Returns after how much more silence a peer that answers probes is probed again.

        ``progress`` is a number that grows whenever either stream moves; probes and their answers leave it as it is.
        """
        if progress != self._progress:
            self._progress = progress
            self._quiet_since_us = self._last_received_us
        interval_us = max((self._last_received_us - self._quiet_since_us) // SILENCE_PART, soonest_us)
        if is_patient:
            interval_us += interval_us // SHORT_PATIENCE
        return min(interval_us, keepalive_us)

    def presence_deadline_us(self, keepalive_us: int, may_probe: bool, interval_us: int) -> int:
        """Returns when ``presence`` is to be called if no packet leaves or comes until then.

        ``interval_us`` is what ``ask_interval_us`` has returned.
        """
        sent_deadline_us = self._last_sent_us + keepalive_us
        if not may_probe:
            return sent_deadline_us
        if not self.answers_probes:
            deadline_us = min(sent_deadline_us, self._probe_us)
            if not self._probes:
                deadline_us = min(deadline_us, max(self._last_sent_us, self._last_received_us) + TRIAL_US)
            return deadline_us
        if self._probes:
            return self._last_sent_us + min(PROBE_US, keepalive_us)
        return min(sent_deadline_us, self._last_received_us + interval_us)

    def presence(self, keepalive_us: int, may_probe: bool, interval_us: int, now_us: int) -> int:
        """Returns what to do at that deadline: ``KEEPALIVE``, ``PROBE`` or ``GIVE_UP``.

        A keepalive that is due becomes a probe, unless the peer was heard lately.
        """
        if not may_probe:
            return KEEPALIVE
        if not self.answers_probes:
            return PROBE if self._probes < TRIALS else KEEPALIVE
        if self.is_on_trial(keepalive_us, now_us):
            return GIVE_UP
        heard_lately = now_us < self._last_received_us + min(interval_us, keepalive_us // 2)
        return KEEPALIVE if heard_lately and not self._probes else PROBE

    def _doubt(self, now_us: int) -> None:
        """An ICMP error says "port unreachable": the peer is probed again later."""
        self._doubted_us = now_us
        self._doubt_deadline_us = now_us + CONFIRM_US

    def _must_confirm(self, now_us: int) -> bool:
        """Whether the peer was silent since the ICMP error; if so, it has to be probed now, and again soon."""
        is_silent = self._last_received_us <= self._doubted_us
        again_us = now_us + CONFIRM_EACH_US
        goes_on = is_silent and again_us < self._doubted_us + CONFIRM_UNTIL_US
        self._doubt_deadline_us = again_us if goes_on else NEVER_US
        return is_silent

    def _begin_trials(self, now_us: int) -> None:
        """The connection is up."""
        self._probe_us = now_us + FIRST_TRIAL_US

    def _on_probe_sent(self, now_us: int) -> None:
        self._probes += 1
        if not self.answers_probes:
            self._probe_us = now_us + (TRIAL_US << self._probes) if self._probes < EARLY_TRIALS else NEVER_US

    def _on_probe_refused(self) -> None:
        """The socket refused the probe."""
        self._probes -= 1

    def _on_heard(self, is_answer: bool) -> None:
        """A packet of the peer came after a probe; ``is_answer`` says whether it is an answer to a probe."""
        if is_answer:
            self.answers_probes = True
            self._probe_us = NEVER_US
        if self.answers_probes:
            self._probes = 0


def sent_us_of(liveness: Liveness, sending: SendBuffer, sequence16: int, timestamp_us: int) -> int | None:
    """Returns when a packet with this number and this timestamp left; None if no such packet left lately.

    It may be the last packet, of any type, or one that is not acknowledged.
    """
    last_us = liveness._last_sent_us
    # the number of a STATE, of the last segment, or of a probe behind our FIN
    if timestamp_us == wire_timestamp(last_us) and sending.next_sequence - sequence16 & MASK16 <= 2:
        return last_us
    runs = sending.runs
    if runs:
        sequence = runs[0].first + (sequence16 - runs[0].first & MASK16)
        run = runs[bisect_right(runs, sequence, key=first_of) - 1]
        index = sequence - run.first
        if index < run.count:
            resent_us = (run.resent_at_us or {}).get(index, run.sent_at_us)
            for sent_us in (run.sent_at_us, resent_us):
                if timestamp_us == wire_timestamp(sent_us):
                    return sent_us
    return None


def wire_timestamp(sent_us: int) -> int:
    """Returns the timestamp in a packet that left at this time."""
    return sent_us & MASK32 or 1


class ClosedPorts:
    """The addresses of which an ICMP error has said "port unreachable", the oldest first."""

    def __init__(self) -> None:
        self._since_us: OrderedDict[Address, int] = OrderedDict()

    def judge(self, address: Address, sent_us: int, heard_us: int, now_us: int) -> int:
        """Judge an error that quotes a packet that left at ``sent_us``; the address was last heard at ``heard_us``.

        Returns ``SUSPECTED`` for the first error: then a packet has to leave now, and another one after ``CONFIRM_US``.
        Returns ``PROVEN`` for an error that quotes the latter, if no packet came in between, and ``KNOWN`` for all
        others.
        """
        since_us = self._since_us.get(address)
        if since_us is not None and heard_us < since_us:
            if sent_us < since_us + CONFIRM_US:
                return KNOWN
            del self._since_us[address]
            return PROVEN
        self._since_us[address] = now_us
        self._since_us.move_to_end(address)
        if len(self._since_us) > MAXIMUM_CLOSED_PORTS:
            self._since_us.popitem(last=False)
        return SUSPECTED
