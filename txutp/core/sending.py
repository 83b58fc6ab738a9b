"""The sending half of a connection: bytes become segments, segments become acknowledged, or lost and sent again.

The connection calls it.  Three steps: ``write`` appends the application's bytes as they are; ``take_run`` cuts the
next segments off their front and remembers them as one ``Run``; ``acknowledge`` and ``detect_losses`` mark segments of
runs until all of a run is acknowledged and it goes away whole.

What is in flight is a bit in a ``Run``, nowhere else.  A selective ack is one integer too, so loss, partial acks and
retransmission are a few mask operations per run however many segments it has.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from txutp.core.batch import Buffer
from txutp.core.packet import slices

# A run fits one system call: the kernel cuts at most 65,507 bytes, and older ones at most 64 segments.
RUN_MAXIMUM_SEGMENTS = 64
RUN_MAXIMUM_BYTES = 65_000

# BEP 29: a packet is lost when three later ones arrived.
DUPLICATE_ACKS = 3

# Nothing is on its way, or waits: a list of its own would take 56 bytes of each idle connection.
NOTHING: Any = ()

# Segments up to this size are copied, see SendBuffer._cut.
LARGEST_COPY_BYTES = 9_000


class Run:
    """Segments that were cut and first sent together; they are equal in size, only the last may be shorter."""

    __slots__ = (
        "acked",
        "count",
        "every",
        "first",
        "given_up",
        "lost",
        "payloads",
        "resent",
        "resent_at_us",
        "segment_bytes",
        "sent_at_us",
        "total_bytes",
    )

    def __init__(self, first: int, payloads: list[Buffer], segment_bytes: int, total_bytes: int, now_us: int) -> None:
        self.first: int = first  # sequence number of the first segment, unwrapped
        count = len(payloads)
        self.count: int = count
        self.segment_bytes: int = segment_bytes
        self.total_bytes: int = total_bytes
        self.payloads: list[Buffer] = payloads  # of each segment
        self.sent_at_us: int = now_us  # of the first transmission
        # one bit per segment, the first is bit 0.  Lost: given up and not sent again yet.  Given up: ever, so that a
        # late arrival shows that it was too early.  Resent: sent more than once, so useless for round trips (Karn).
        self.every: int = (1 << count) - 1
        self.acked: int = 0
        self.lost: int = 0
        self.given_up: int = 0
        self.resent: int = 0
        self.resent_at_us: dict[int, int] | None = None  # bit number -> last transmission

    @property
    def is_fin(self) -> bool:
        """Whether it is the one empty segment that ends the stream."""
        return not self.total_bytes

    def bytes_of(self, mask: int) -> int:
        """Payload bytes of the segments in a mask."""
        size = mask.bit_count() * self.segment_bytes
        if mask >> self.count - 1:
            size -= self.count * self.segment_bytes - self.total_bytes
        return size

    def size_of(self, index: int) -> int:
        """Payload bytes of segment number ``index``."""
        return len(self.payloads[index])


def first_of(run: Run) -> int:
    """The number of its first segment, by which runs are in order."""
    return run.first


class SendBuffer:
    """Bytes on their way to the peer.

    ``flight_bytes`` counts what left and is neither acknowledged nor given up; ``unsent_bytes`` what never left.
    """

    __slots__ = (
        "_chunks",
        "_head_offset",
        "_named",
        "_named_ack",
        "_searched_before_us",
        "_searched_below",
        "fills_gap",
        "first_unacked",
        "flight_bytes",
        "given_up_segments",
        "highest_delivered",
        "lost_segments",
        "lost_together",
        "nameless_segments",
        "nameless_sequence",
        "newest_delivered_us",
        "next_sequence",
        "reordering_seen",
        "runs",
        "selective_seen",
        "spurious_segments",
        "undersized_sequence",
        "unsent_bytes",
    )

    def __init__(self, next_sequence: int) -> None:
        self.next_sequence: int = next_sequence  # of the next new segment, unwrapped
        self.first_unacked: int = next_sequence
        self.flight_bytes: int = 0
        self.unsent_bytes: int = 0
        self.lost_together: bool = False  # neighbours were, when something was found lost the last time
        self.lost_segments: int = 0  # bits set in all `lost` masks
        self.newest_delivered_us: int = 0  # when the latest segment that we know to have arrived was sent (RFC 8985)
        self.highest_delivered: int = next_sequence - 1
        self.reordering_seen: bool = False  # packets overtake each other on this path
        self.given_up_segments: int = 0  # ever; of these...
        self.spurious_segments: int = 0  # ...so many arrived after all, by their first transmission
        self.selective_seen: bool = False  # the peer has named a segment behind a gap
        self.nameless_segments: int = 0  # arrived behind a gap, as duplicate acks say without naming them
        self.nameless_sequence: int = next_sequence - 1  # the last segment that may be one of them
        self.fills_gap: bool = False  # the last ack may be late for all that it covers but one
        self.undersized_sequence: int = next_sequence - 1  # the last short segment; at most one is in flight
        self._named = 0  # all that selective acks have named; bit `i` is `_named_ack + 2 + i`
        self._named_ack = 0
        self._searched_below = 0  # `detect_losses` has given up all that lies below this number...
        self._searched_before_us = 0  # ...or left before this time
        # Lists, not deques: an empty deque costs 760 bytes, and one `del` per run is cheap.
        self.runs: list[Run] = NOTHING
        self._chunks: list[Buffer] = NOTHING
        self._head_offset = 0  # bytes of the first chunk that already belong to runs

    def renumber(self, next_sequence: int) -> None:
        """Count from another number; only while nothing was sent."""
        self.next_sequence = self.first_unacked = next_sequence
        self.undersized_sequence = self.highest_delivered = self.nameless_sequence = next_sequence - 1

    @property
    def outstanding(self) -> int:
        """Sequence numbers in use: sent and not cumulatively acknowledged."""
        return self.next_sequence - self.first_unacked

    @property
    def unacked_bytes(self) -> int:
        """Written bytes that the peer has not acknowledged, sent or not."""
        return self.unsent_bytes + sum(run.bytes_of(run.every & ~run.acked) for run in self.runs)

    # -- bytes in --

    def write(self, data: bytes) -> None:
        """Append stream bytes; they are kept as they are until segments are cut from them."""
        if self._chunks:
            self._chunks.append(data)
        else:
            self._chunks = [data]
        self.unsent_bytes += len(data)

    # -- segments out --

    def take_run(self, total_bytes: int, segment_bytes: int, now_us: int) -> Run:
        """Cut ``total_bytes`` (at most ``unsent_bytes``) into segments that count as sent now."""
        first = self.next_sequence
        if total_bytes <= segment_bytes and total_bytes == len(self._chunks[0]) and not self._head_offset:
            # one small write, one segment: nothing to cut
            payloads = [self._chunks.pop(0)]
            if not self._chunks:
                self._chunks = NOTHING
            count = 1
        else:
            payloads = self._cut(total_bytes, segment_bytes)
            count = len(payloads)
        run = Run(first, payloads, segment_bytes, total_bytes, now_us)
        if self.runs:
            self.runs.append(run)
        else:
            self.runs = [run]
        self.next_sequence = first + count
        self.unsent_bytes -= total_bytes
        self.flight_bytes += total_bytes
        if total_bytes < count * segment_bytes:
            self.undersized_sequence = first + count - 1
        return run

    def _append(self, run: Run) -> None:
        if self.runs:
            self.runs.append(run)
        else:
            self.runs = [run]

    def take_fin(self, now_us: int) -> Run:
        """The FIN: an empty segment with a sequence number of its own (BEP 29)."""
        run = Run(self.next_sequence, [b""], 0, 0, now_us)
        self._append(run)
        self.next_sequence += 1
        return run

    def untake(self, kept: int) -> None:
        """The socket refused all but ``kept`` segments of the run that was taken last: they were never sent."""
        run = self.runs.pop()
        kept_bytes = min(kept * run.segment_bytes, run.total_bytes)
        returned_bytes = run.total_bytes - kept_bytes
        if returned_bytes:
            if self._head_offset:
                self._chunks[0] = memoryview(self._chunks[0])[self._head_offset :]
                self._head_offset = 0
            self._chunks = [*run.payloads[kept:], *self._chunks]
            self.unsent_bytes += returned_bytes
            self.flight_bytes -= returned_bytes
        self.next_sequence -= run.count - kept
        self.undersized_sequence = min(self.undersized_sequence, self.next_sequence - 1)
        if kept:
            self._append(Run(run.first, run.payloads[:kept], run.segment_bytes, kept_bytes, run.sent_at_us))

    def next_lost(self) -> tuple[Run, int] | None:
        """The oldest segment that has to be sent again, as run and index."""
        if not self.lost_segments:
            return None
        for run in self.runs:
            if run.lost:
                return run, (run.lost & -run.lost).bit_length() - 1
        raise AssertionError("lost segments are counted that no run has")

    def resend(self, run: Run, index: int, now_us: int) -> None:
        """Segment ``index`` of ``run`` leaves once more."""
        bit = 1 << index
        if run.lost & bit:
            run.lost &= ~bit
            self.lost_segments -= 1
            self.flight_bytes += run.bytes_of(bit)
        run.resent |= bit
        if run.resent_at_us is None:
            run.resent_at_us = {}
        run.resent_at_us[index] = now_us

    def unresend(self, run: Run, index: int) -> None:
        """The socket refused the segment: it waits to be sent again, unless it was a probe of one that has arrived."""
        bit = 1 << index
        if not run.acked & bit:
            self._give_up(run, bit)

    def newest_unacked(self) -> tuple[Run, int] | None:
        """The last segment that the peer is not known to have, for a tail probe (RFC 8985 7.3)."""
        for run in reversed(self.runs):
            missing = run.every & ~run.acked
            if missing:
                return run, missing.bit_length() - 1
        return None

    def oldest_unacked(self) -> tuple[Run, int] | None:
        """The first segment that the peer does not have."""
        if not self.runs:
            return None
        head = self.runs[0]
        return head, self.first_unacked - head.first

    # -- answers in --

    def acknowledge(self, ack: int, selective: int, latest_sent_us: int) -> tuple[bool, int, tuple[Run, int] | None]:
        """The peer has everything up to ``ack``, and ``ack + 2 + i`` for each bit ``i`` of ``selective``.

        Returns whether that is news, how many payload bytes are new, and the newest new segment that was sent only once
        (as run and index), whose round trip can be told.  What was sent later than ``latest_sent_us`` cannot have been
        answered yet: the answer is to an earlier transmission.
        """
        progress = False
        acked_bytes = 0
        newest: tuple[Run, int] | None = None

        # cumulative: whole runs leave, the one that is cut keeps its mask
        if ack >= self.first_unacked:
            progress = True
            fills_gap = self.nameless_segments > 0
            if ack >= self.nameless_sequence:
                self.nameless_segments = 0
            elif fills_gap:
                self.nameless_segments = max(self.nameless_segments - (ack - self.first_unacked), 0)
            self.fills_gap = fills_gap
            self.first_unacked = ack + 1
            done = 0
            for run in self.runs:
                covered = ack - run.first + 1
                if covered >= run.count:
                    fresh = run.every & ~run.acked
                    done += 1
                elif covered > 0:
                    fresh = (1 << covered) - 1 & ~run.acked
                else:
                    break
                if fresh:
                    acked_bytes += self._on_delivered(run, fresh, latest_sent_us)
                    once = fresh & ~run.resent
                    if once:
                        newest = run, once.bit_length() - 1
                    if once != fresh and not self.selective_seen:
                        self.fills_gap = True
            if done == len(self.runs):
                self.runs = NOTHING
            else:
                del self.runs[:done]

        # selective
        if selective:
            self.fills_gap = False
            selective = self._unnamed(ack, selective)
            if not self.selective_seen:
                self.selective_seen = True
                self.nameless_segments = 0
                self.nameless_sequence = self.first_unacked - 1
        if selective:
            # runs in which something is named for the first time
            runs = self.runs
            lowest = ack + 1 + (selective & -selective).bit_length()
            beyond = ack + 2 + selective.bit_length()
            for place in range(max(bisect_right(runs, lowest, key=first_of) - 1, 0), len(runs)):
                run = runs[place]
                shift = run.first - ack - 2
                if run.first >= beyond:
                    break
                mask = selective >> shift if shift >= 0 else selective << -shift
                fresh = mask & run.every & ~run.acked
                if fresh:
                    progress = True
                    acked_bytes += self._on_delivered(run, fresh, latest_sent_us)
                    once = fresh & ~run.resent
                    if once:
                        newest = run, once.bit_length() - 1

        return progress, acked_bytes, newest

    def _unnamed(self, ack: int, selective: int) -> int:
        """Those bits of a selective ack that none has had before; they are remembered.

        A peer may name the same hundreds of segments again and again, and each may be in a run of its own.
        """
        selective &= (1 << max(self.next_sequence - ack - 2, 0)) - 1
        moved = ack - self._named_ack
        if moved < 0:  # an ack that was overtaken
            fresh = selective & ~(self._named << -moved)
            self._named |= selective >> -moved
        else:
            known = self._named >> moved
            fresh = selective & ~known
            self._named = known | selective
            self._named_ack = ack
        return fresh

    def _on_delivered(self, run: Run, fresh: int, latest_sent_us: int) -> int:
        """Mark segments as arrived; gives their payload bytes."""
        sent_us = run.sent_at_us
        if run.lost or run.resent:
            sent_us = self._on_doubted_delivered(run, fresh, latest_sent_us)
        if sent_us > self.newest_delivered_us:
            self.newest_delivered_us = sent_us
        if fresh == run.every:
            size = run.total_bytes
            highest = run.first + run.count - 1
        else:
            size = run.bytes_of(fresh)
            highest = run.first + fresh.bit_length() - 1
        self.flight_bytes -= size
        run.acked |= fresh
        overtaken_by = self.highest_delivered
        if highest > overtaken_by:
            self.highest_delivered = highest
        if overtaken_by > run.first:
            once = fresh & ~run.resent
            if once and run.first + (once & -once).bit_length() <= overtaken_by:
                self.reordering_seen = True
        return size

    def _on_doubted_delivered(self, run: Run, fresh: int, latest_sent_us: int) -> int:
        """Some of the run was given up or sent again; gives when the latest was sent that can have arrived."""
        returned = fresh & run.lost
        if returned:
            run.lost &= ~returned
            self.lost_segments -= returned.bit_count()
            self.spurious_segments += (returned & run.given_up).bit_count()
            self.flight_bytes += run.bytes_of(returned)  # it was taken off when it was given up
        sent_us = run.sent_at_us
        # the last transmission that can have been answered by now (RFC 8985 6.2 step 2)
        for index, resent_us in (run.resent_at_us or {}).items():
            if not fresh >> index & 1:
                continue
            if resent_us > latest_sent_us:
                self.spurious_segments += run.given_up >> index & ~(returned >> index) & 1
            elif resent_us > sent_us:
                sent_us = resent_us
        return sent_us

    def detect_losses(
        self, ack: int, selective: int, duplicate_acks: int, reordering_window_us: int
    ) -> tuple[int, int]:
        """Give up what later arrivals prove to be lost; gives the highest sequence number among it (-1) and its bytes.

        Never sent again yet: three later packets arrived (BEP 29), or one that left later by more than the
        reordering window (RFC 8985 6.2).  Sent again already, or on a path that is known to reorder: only the rule of
        time can tell.
        """
        # everything below the third-highest selectively acknowledged packet has three above it
        below = ack + 1
        without_two = selective
        for _ in range(DUPLICATE_ACKS - 1):
            without_two &= ~(1 << without_two.bit_length() >> 1)
        if without_two and not self.reordering_seen:
            below = ack + 1 + without_two.bit_length()
        elif duplicate_acks >= DUPLICATE_ACKS:
            below = ack + 2
        below = min(below, self.next_sequence)
        sent_before_us = self.newest_delivered_us - reordering_window_us

        self.lost_together = False
        if below <= self._searched_below and sent_before_us <= self._searched_before_us:
            return -1, 0  # what left again since the last search left later than that
        self._searched_below = max(below, self._searched_below)
        self._searched_before_us = max(sent_before_us, self._searched_before_us)
        highest = -1
        lost_bytes = 0
        for run in self.runs:
            if run.first >= below and run.sent_at_us >= sent_before_us:
                break
            missing = run.every & ~run.acked & ~run.lost
            if not missing:
                continue
            once = missing & ~run.resent
            if run.sent_at_us >= sent_before_us:
                once &= (1 << max(below - run.first, 0)) - 1
            lost = once
            for index, resent_us in (run.resent_at_us or {}).items():
                if missing >> index & 1 and resent_us < sent_before_us:
                    lost |= 1 << index
            if lost:
                lost_bytes += self._give_up(run, lost)
                if lost & lost >> 1 & lost >> 2:
                    self.lost_together = True
                highest = run.first + lost.bit_length() - 1
        return highest, lost_bytes

    def count_nameless(self, segments: int) -> int:
        """So many of those in flight, not the first, have arrived, as a duplicate ack says; returns the news in it."""
        before = self.nameless_segments
        self.nameless_segments = min(before + segments, self.outstanding - 1)
        self.nameless_sequence = self.next_sequence - 1
        return self.nameless_segments - before

    def detect_first_loss(
        self, duplicate_acks: int, reordering_window_us: int, unanswered_since_us: int
    ) -> tuple[int, int]:
        """The same as ``detect_losses`` for a peer that does not name what arrived: only the first segment is judged.

        It is lost if three later ones arrived, or one that left later: then an ack that fills a gap and ends before the
        next one shows that next one (a partial ack, RFC 6582).  If it was sent again already, it is also lost again if
        later segments are still arriving and it left before ``unanswered_since_us``.
        """
        head = self.runs[0]
        index = self.first_unacked - head.first
        bit = 1 << index
        if head.lost & bit:
            return -1, 0
        if head.resent & bit:
            assert head.resent_at_us is not None
            left_us = head.resent_at_us[index]
            is_lost = duplicate_acks > 0 and left_us < unanswered_since_us
        else:
            left_us = head.sent_at_us
            is_lost = duplicate_acks >= DUPLICATE_ACKS
        if not self.reordering_seen:
            reordering_window_us = 0
        is_lost = is_lost or left_us < self.newest_delivered_us - reordering_window_us
        return (self.first_unacked, self._give_up(head, bit)) if is_lost else (-1, 0)

    def overdue(self, left_before_us: int, once: bool) -> tuple[list[tuple[Run, int]], int, int]:
        """What left for the last time before that, and is not acknowledged: masks of runs, and how many segments.

        The last number is that of segments which left again since then.  With ``once`` the masks lack what left more
        than once.
        """
        masks: list[tuple[Run, int]] = []
        count = recent = 0
        for run in self.runs:
            mask = run.every & ~run.acked & ~run.lost
            if run.first < self.first_unacked:
                mask &= -1 << self.first_unacked - run.first
            for index, resent_us in (run.resent_at_us or {}).items():
                if mask >> index & 1 and resent_us >= left_before_us:
                    mask &= ~(1 << index)
                    recent += 1
            if mask and run.sent_at_us < left_before_us:
                count += mask.bit_count()
                if once:
                    mask &= ~run.resent
                if mask:
                    masks.append((run, mask))
        return masks, count, recent

    def send_again(self, masks: list[tuple[Run, int]], limit_segments: int) -> int:
        """Queue segments to be sent again without giving them up, the oldest first; returns how many."""
        left = limit_segments
        for run, mask in masks:
            while mask.bit_count() > left:
                mask &= ~(1 << mask.bit_length() - 1)
            run.lost |= mask
            self.flight_bytes -= run.bytes_of(mask)
            left -= mask.bit_count()
            if not left:
                break
        queued = limit_segments - left
        self.lost_segments += queued
        return queued

    def give_up_all(self) -> None:
        """Nothing came back for a retransmission timeout: all that is in flight counts as lost.

        A peer that selectively acknowledged a segment and still asks for it does not have it: then its selective acks
        are worth nothing, and all of that is sent again too (RFC 2018 section 8).
        """
        self.nameless_segments = self._named = 0
        head = self.runs[0]
        if head.acked >> self.first_unacked - head.first & 1:
            for run in self.runs:
                returned = run.acked & ~((1 << max(self.first_unacked - run.first, 0)) - 1)
                run.acked &= ~returned
                self.flight_bytes += run.bytes_of(returned)  # it was taken off when it arrived
        for run in self.runs:
            lost = run.every & ~run.acked & ~run.lost
            if lost:
                self._give_up(run, lost)

    def _give_up(self, run: Run, lost: int) -> int:
        """Count segments as lost; gives their payload bytes."""
        count = lost.bit_count()
        lost_bytes = run.bytes_of(lost)
        run.lost |= lost
        run.given_up |= lost
        self.lost_segments += count
        self.given_up_segments += count
        self.flight_bytes -= lost_bytes
        return lost_bytes

    # -- chunks --

    def _cut(self, total_bytes: int, segment_bytes: int) -> list[Buffer]:
        """Take the next unsent bytes as payloads.

        Many small segments are copied out of a chunk in one call: a view of each would cost more, for the garbage
        collector has to look at views and not at bytes.  Large ones are views, copied only where one spans two chunks.
        """
        chunks = self._chunks
        payloads: list[Buffer] = []
        used = 0  # chunks that are finished
        start = self._head_offset
        while total_bytes:
            chunk = chunks[used]
            size = min(segment_bytes, total_bytes)
            if len(chunk) - start >= size:
                # as many segments as this chunk has; only the last of all may be short
                count = min(len(chunk) - start, total_bytes) // segment_bytes or 1
                if count == 1 or size > LARGEST_COPY_BYTES:
                    view = memoryview(chunk)
                    payloads += [view[at : at + size] for at in range(start, start + count * size, size)]
                else:
                    payloads += slices(0, size, count).unpack_from(chunk, start)
                total_bytes -= count * size
                start += count * size
                if start == len(chunk):
                    used += 1
                    start = 0
                continue
            pieces: list[Buffer] = []
            total_bytes -= size
            while size:
                piece = memoryview(chunks[used])[start : start + size]
                pieces.append(piece)
                size -= len(piece)
                start += len(piece)
                if start == len(chunks[used]):
                    used += 1
                    start = 0
            payloads.append(b"".join(pieces))
        if used:
            del chunks[:used]
            self._chunks = chunks or NOTHING
        self._head_offset = start
        return payloads
