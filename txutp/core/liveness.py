"""Whether the peer is still there: keepalives, probes that it has to answer, and what ICMP says of its port.

The connection inherits the rules, and asks for ``presence_deadline_us`` and ``presence``; the multiplexer has the
``ClosedPorts``, because a closed port concerns all connections to it.

Probes
    A receiver has to acknowledge DATA that it has received before, because its ack may have been lost.  So DATA with
    such a number and one byte that nobody will read draws a STATE at once, as TCP's keepalive does (RFC 9293 3.8.4).
    The number is one less than the last one that the peer has acknowledged; where that is our SYN, it is that of the
    SYN.

    A peer is tried a few times while the connection is young.  *A peer that has answered is believed to be gone when
    it leaves many probes in a row unanswered.*  One that never has is not; it gets libutp's keepalive, which is a STATE
    with an older ack and draws nothing.  Where data of ours is in flight no probe is needed: that is sent again anyway.

ICMP
    The host of a process that was killed answers with "port unreachable", and quotes our packet.  Such an error is
    easily forged (RFC 5927), so it counts only with the id, the number and the timestamp of a packet that we sent
    lately.  It ends a connection only if a second error quotes a packet that left seconds after the first one came, and
    nothing of that address was received in between.  A filter that rejects for a moment, while its rules are loaded,
    answers just like a closed port; so the peer is probed at once, and again when that moment is over.
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

# Unanswered probes in a row until a peer that has answered before is gone, and the time between two of them: 28 s.  A
# path that loses 30 % each way swallows half of all probes or answers; it seems dead once in a million silences.
PROBES = 20
PROBE_US = 1_400_000

# Probes of a peer that has never answered one: the first ones leave soon and with doubled distance, the others in the
# place of keepalives.  The very first waits for a moment of silence, but not for long.
EARLY_TRIALS = 3
TRIALS = 10
TRIAL_US = SECOND_US // 2
FIRST_TRIAL_US = 5 * SECOND_US

# Shortest interval between answered probes, the share of each connection of the port in that interval, and the part of
# the silence so far that the interval is.
SOONEST_US = 2 * SECOND_US
SHARE_US = SECOND_US // 100
SILENCE_PART = 4

# Parts of the keepalive interval, and of a shorter one, by which a side that was called waits longer, so that not both
# sides ask.  A short interval has to be longer by a round trip.
PATIENCE = 64
SHORT_PATIENCE = 8

# Addresses of which an ICMP error is remembered.
MAXIMUM_CLOSED_PORTS = 1_000

# Time between the first ICMP error and the packet that another one has to quote: longer than a filter that is being
# changed rejects.  Then the peer is probed until a verdict, for so long at most, because hosts send few errors.
CONFIRM_US = 3_500_000
CONFIRM_EACH_US = SECOND_US // 2
CONFIRM_UNTIL_US = 6 * SECOND_US

# Silence after which the sender of a stream is probed once, and the packets received without an answer of ours that
# make a stream.  Nothing else would leave that draws an ICMP error.
STALL_US = SECOND_US // 2
STREAM_SEGMENTS = 8

# What is to be done about the peer's presence.
KEEPALIVE, PROBE, GIVE_UP = range(3)

# What an ICMP error says of a port.
KNOWN, SUSPECTED, PROVEN = range(3)


class Watch:
    """How soon the connections of one port probe their idle peers."""

    def __init__(self, connections: Sized) -> None:
        self._connections = connections

    @property
    def soonest_us(self) -> int:
        """The shortest interval: with many connections a longer one, so that they do not send much together."""
        return max(SOONEST_US, SHARE_US * len(self._connections))


class Liveness:
    """What one connection knows of the presence of its peer."""

    _doubted_us = Rare(NEVER_US)  # when an ICMP error said that nobody is there
    _doubt_deadline_us = Rare(NEVER_US)  # when the peer is to be probed again because of that

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
        self._probes = 0  # unanswered ones since the peer was heard; ever, as long as it has not answered any
        self._probe_us = NEVER_US  # when a peer that has not answered any yet is tried again
        self._progress = 0  # of both streams, when it was looked at last
        self._quiet_since_us = 0  # when the peer was last heard before that progress was seen to stop

    def is_on_trial(self, keepalive_us: int, now_us: int) -> bool:
        """Whether the peer has left so many probes unanswered, for so long, that the next timer means its end."""
        patience_us = keepalive_us + PROBES * min(PROBE_US, keepalive_us)
        return self.answers_probes and self._probes >= PROBES and now_us >= self._last_received_us + patience_us

    @property
    def heard_us(self) -> int:
        """When the peer was last heard."""
        return self._last_received_us

    def ask_interval_us(self, keepalive_us: int, soonest_us: int, progress: int, is_patient: bool) -> int:
        """Returns after how much more silence a peer that answers probes is asked again.

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
        """When something is to be done about the peer's presence if nothing leaves or comes until then.

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
        """What is to be done at that deadline: ``KEEPALIVE``, ``PROBE`` or ``GIVE_UP``.

        A keepalive that is due may just as well be a probe, unless the peer was heard lately.
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
        """An ICMP error says that nobody is there: the peer is probed again later."""
        self._doubted_us = now_us
        self._doubt_deadline_us = now_us + CONFIRM_US

    def _must_confirm(self, now_us: int) -> bool:
        """Whether the peer, which is in doubt, was silent since: then it has to be probed again, now and soon."""
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
        """The socket did not take it."""
        self._probes -= 1

    def _on_heard(self, is_answer: bool) -> None:
        """The peer said something after a probe; ``is_answer`` if it is what a probe draws."""
        if is_answer:
            self.answers_probes = True
            self._probe_us = NEVER_US
        if self.answers_probes:
            self._probes = 0


def sent_us_of(liveness: Liveness, sending: SendBuffer, sequence16: int, timestamp_us: int) -> int | None:
    """When a packet with this number and this timestamp left; None if it is none that was sent lately.

    That is the last one, of whatever type, and all of those that are not acknowledged.
    """
    last_us = liveness._last_sent_us
    # numbers of a STATE, of what has left last, and of a probe behind our FIN
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
    """The timestamp in a packet that left at this time."""
    return sent_us & MASK32 or 1


class ClosedPorts:
    """The addresses of which an ICMP error has said that nobody is there, the oldest first."""

    def __init__(self) -> None:
        self._since_us: OrderedDict[Address, int] = OrderedDict()

    def judge(self, address: Address, sent_us: int, heard_us: int, now_us: int) -> int:
        """An error quotes a packet that left at ``sent_us``; ``heard_us`` is when the address was last heard.

        Returns ``SUSPECTED`` for the first error: then another packet has to leave, and one after ``CONFIRM_US``.
        Returns ``PROVEN`` for the error that quotes this one, if nothing was heard in between, and ``KNOWN`` for all
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
