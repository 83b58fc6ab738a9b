"""Black holes: paths that carry small packets and drop large ones silently (RFC 8899 section 4.3).

A sequence number of uTP stands for the same payload for ever (BEP 29), so a segment that the path drops cannot be split
into smaller segments: if a delayed copy of the original arrived as well, the stream would be corrupt, and no answer of
the peer says which of the two it took.  But two ends of txutp can send it in *parts*: DATA packets that all have the
number of the segment, and say in EXTENSION_BITS where in the segment their payload belongs.  The receiver joins the
parts and then takes the segment as if it had come whole.  Each copy of the segment has the same bytes.

A peer that does not know parts would take the first of them for the whole segment, so the sender asks first: a STATE
with ``PARTS_WANTED`` in its EXTENSION_BITS, which other peers ignore.  The question is also the measurement.  It leaves
right behind a retransmitted large segment.  If the peer answers repeatedly and that segment does not arrive, the path
carries small packets and drops large ones.

``SmallPaths`` remembers the result for a while, so that the next connection to the host begins with small segments.
"""

from __future__ import annotations

from collections import OrderedDict
from struct import Struct

from txutp.core.units import SECOND_US

# EXTENSION_BITS between two ends of txutp: whether segments may come in parts.
PARTS_WANTED = b"txutp\0\1?"
PARTS_WELCOME = b"txutp\0\1!"

# EXTENSION_BITS of a part: mark, offset of the part in its segment, bytes of the segment.
PART = Struct(">4sHH")
PART_MARK = b"part"

# Size of a datagram in an IPv4 packet of 576 bytes, which every host takes (RFC 791).
SMALLEST_DATAGRAM_BYTES = 548

ANSWERED_QUESTIONS = 2  # answers while the segment is missing, until it counts as dropped for its size
MAXIMUM_QUESTIONS = 8  # about one segment

MAXIMUM_JOINED_SEGMENTS = 8  # incomplete segments at once
LEAST_PART_BYTES = 256  # mean size of the parts of one segment

REMEMBERED_US = 600 * SECOND_US  # life of a result (RFC 8899 5.1.1 PMTU_RAISE_TIMER)
LOOK_AGAIN_US = 30 * SECOND_US  # age of a result from which new connections probe for larger datagrams at once
MAXIMUM_REMEMBERED_HOSTS = 1_000


class BlackHoleSearch:
    """Finds out whether a path drops the segment that a connection retransmits because of its size."""

    __slots__ = ("_answers", "_arrived", "_asked", "_attempt", "_questions_left", "_sequence")

    def __init__(self) -> None:
        self._sequence = -1  # of the segment that the questions are about
        self._arrived = 0  # equally large segments behind it that have arrived
        self._questions_left = 0
        self._attempt = -1  # of the segment, behind which the last question left
        self._asked = False  # the last question is not answered yet
        self._answers = 0

    def on_stuck(self, sequence: int, arrived: int, attempt: int) -> bool:
        """A large segment is retransmitted; returns whether a question shall follow it, once for each attempt."""
        if sequence != self._sequence:
            self._sequence = sequence
            self._questions_left = MAXIMUM_QUESTIONS
            self._answers = 0
        if arrived != self._arrived:
            self._arrived = arrived
            self._answers = 0
        if attempt == self._attempt or not self._questions_left:
            return False
        self._attempt = attempt
        self._questions_left -= 1
        self._asked = True
        return True

    def on_answer(self, first_unacked: int, arrived: int) -> bool:
        """The peer answers that it takes parts; returns whether that proves a black hole."""
        if not self._asked or first_unacked != self._sequence or arrived != self._arrived:
            return False
        self._asked = False
        self._answers += 1
        if self._answers < ANSWERED_QUESTIONS:
            return False
        self._sequence = -1  # a smaller hole is another one
        return True


class PartJoiner:
    """Joins the parts of segments."""

    __slots__ = ("_segments",)

    def __init__(self) -> None:
        self._segments: dict[int, tuple[int, dict[int, bytes]]] = {}  # sequence -> bytes of it, and parts by offset

    def add(self, sequence: int, next_sequence: int, bits: bytes, payload: bytes) -> bytes | None:
        """Take a part of segment ``sequence``; returns the segment when it is complete.

        ``next_sequence`` is the next one in order.  Contradictory parts, and too many parts, are forgotten: the sender
        retransmits them.
        """
        _, offset, total_bytes = PART.unpack(bits)
        if not payload or offset + len(payload) > total_bytes:
            return None
        segments = self._segments
        for past in [number for number in segments if number < next_sequence]:
            del segments[past]
        known = segments.get(sequence)
        if known is None or known[0] != total_bytes or len(known[1]) > total_bytes // LEAST_PART_BYTES + 1:
            if known is None and len(segments) >= MAXIMUM_JOINED_SEGMENTS:
                farthest = max(segments)
                if farthest < sequence:
                    return None  # the sender retransmits it when those before it are complete
                del segments[farthest]
            known = segments[sequence] = (total_bytes, {})
        parts = known[1]
        parts[offset] = payload
        joined: list[bytes] = []
        at = 0
        while at in parts:
            joined.append(parts[at])
            at += len(parts[at])
        if at != total_bytes:
            return None
        del segments[sequence]
        return b"".join(joined)


class SmallPaths:
    """Hosts whose paths drop large packets, and the size of datagrams that arrive."""

    def __init__(self) -> None:
        self._found: OrderedDict[str, tuple[int, int]] = OrderedDict()  # host -> size, and time of the result

    def __len__(self) -> int:
        return len(self._found)

    def remember(self, host: str, datagram_bytes: int, now_us: int) -> None:
        """Remember that datagrams of this size arrive there, and that larger ones are not known to arrive."""
        found = self._found
        known = found.get(host)
        if known is not None and known[0] == datagram_bytes:
            return
        found.pop(host, None)
        found[host] = (datagram_bytes, now_us)
        while len(found) > MAXIMUM_REMEMBERED_HOSTS:
            found.popitem(last=False)

    def forget(self, host: str) -> None:
        """Forget the result: datagrams of the usual size arrive there."""
        self._found.pop(host, None)

    def find(self, host: str, now_us: int) -> tuple[int, int] | None:
        """Returns the size of datagrams that arrive at a host, and the time of that result; None without a result."""
        found = self._found.get(host)
        if found is not None and now_us >= found[1] + REMEMBERED_US:
            del self._found[host]
            return None
        return found


def encode_part(offset: int, total_bytes: int) -> bytes:
    """Returns the EXTENSION_BITS of a part."""
    return PART.pack(PART_MARK, offset, total_bytes)


def bytes_of_segment(bits: bytes) -> int:
    """Returns the size of the segment that a part belongs to."""
    total_bytes: int = PART.unpack(bits)[2]
    return total_bytes


def is_part(bits: bytes) -> bool:
    """Whether EXTENSION_BITS say that the payload is a part of a segment."""
    return len(bits) == PART.size and bits.startswith(PART_MARK)
