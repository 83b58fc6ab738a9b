"""The two buffers of a connection, in any order of calls, each held against a simple model."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support import check_counts
from txutp.core.memory import ReceiveMemory
from txutp.core.receiving import DUPLICATE, EARLY, IN_ORDER, REFUSED, ReceiveBuffer
from txutp.core.sending import SendBuffer
from txutp.core.stats import PortCounters

SETTINGS = settings(max_examples=200, stateful_step_count=40, deadline=None, derandomize=True)
SEGMENT_BYTES = 10


def payload_of(sequence: int) -> bytes:
    """The one payload of a sequence number: up to twelve bytes, different from those of its neighbours."""
    return bytes([sequence % 251]) * (sequence * 7 % 13)


class Receiving(RuleBasedStateMachine):
    """The model is the set of accepted numbers: their payloads, joined up to the first gap, are the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = ReceiveBuffer(60, ReceiveMemory(1 << 40, PortCounters()))
        self.accepted: set[int] = set()
        self.taken = b""

    @property
    def gap(self) -> int:
        """The first number that was not accepted."""
        return next(number for number in range(len(self.accepted) + 1) if number not in self.accepted)

    @rule(ahead=st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 6, -1, -3]))
    def insert(self, ahead: int) -> None:
        buffer = self.buffer
        gap = self.gap
        sequence = max(gap + ahead, 0)
        size = len(payload_of(sequence))
        # an early segment leaves room for one of its size: the one that is missing
        needed_bytes = buffer.ready_bytes + buffer.early_bytes + (size if sequence == gap else 2 * size)
        fits = needed_bytes <= buffer.capacity_bytes
        # the segment that is next in order is refused only while the application has not read
        always_fits = sequence == gap and (not buffer.ready_bytes or not size)
        verdict = buffer.insert(sequence, payload_of(sequence))
        if sequence in self.accepted:
            assert verdict == DUPLICATE
        elif fits or always_fits:
            assert verdict == (IN_ORDER if sequence == gap else EARLY)
            self.accepted.add(sequence)
        else:
            assert verdict == REFUSED

    @rule(count=st.integers(1, 5))
    def insert_run(self, count: int) -> None:
        numbers = [number for number in range(self.gap, self.gap + count) if payload_of(number)]
        if len(numbers) == count:
            payloads = [payload_of(number) for number in numbers]
            if self.buffer.insert_run(payloads, sum(map(len, payloads))):
                self.accepted.update(numbers)

    @precondition(lambda self: self.buffer.ready)
    @rule(limit_bytes=st.integers(1, 40))
    def take(self, limit_bytes: int) -> None:
        self.taken += self.buffer.take(limit_bytes)

    @rule(capacity_bytes=st.integers(0, 100))
    def resize(self, capacity_bytes: int) -> None:
        self.buffer.capacity_bytes = capacity_bytes

    @invariant()
    def nothing_accepted_is_lost_or_altered(self) -> None:
        gap = self.gap
        stream = b"".join(map(payload_of, range(gap)))
        early = {number: payload_of(number) for number in self.accepted if number > gap}
        buffer = self.buffer
        assert self.taken + b"".join(buffer.ready) == stream
        assert buffer.next_sequence == gap
        assert buffer.early == early
        assert buffer.selective_ack_mask() == sum(1 << number - gap - 1 for number in early)

    @invariant()
    def counts_are_sums(self) -> None:
        buffer = self.buffer
        assert buffer.ready_bytes == sum(map(len, buffer.ready))
        assert buffer.early_bytes == sum(map(len, buffer.early.values()))
        assert buffer.window_bytes == max(buffer.capacity_bytes - buffer.ready_bytes - buffer.early_bytes, 0)


class Sending(RuleBasedStateMachine):
    """The model is what was written, what left under each number, and which numbers an honest peer has."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SendBuffer(0)
        self.now_us = 1
        self.written = b""
        self.sent: list[bytes] = []
        self.arrived: set[int] = set()
        self.ended = False

    @rule(elapsed_us=st.integers(1, 1_000))
    def wait(self, elapsed_us: int) -> None:
        self.now_us += elapsed_us

    @precondition(lambda self: not self.ended)
    @rule(size=st.integers(1, 75))
    def write(self, size: int) -> None:
        data = bytes((len(self.written) + index) % 251 for index in range(size))
        self.written += data
        self.buffer.write(data)

    @precondition(lambda self: self.buffer.unsent_bytes)
    @rule(part=st.integers(1, 60), kept=st.integers(0, 6))
    def send(self, part: int, kept: int) -> None:
        """A run leaves; the socket may refuse its end."""
        run = self.buffer.take_run(min(part, self.buffer.unsent_bytes), SEGMENT_BYTES, self.now_us)
        assert run.first == len(self.sent)
        self.sent += [bytes(payload) for payload in run.payloads[:kept]]
        if kept < run.count:
            self.buffer.untake(kept)

    @precondition(lambda self: not self.ended and not self.buffer.unsent_bytes)
    @rule()
    def end(self) -> None:
        self.ended = True
        self.buffer.take_fin(self.now_us)
        self.sent.append(b"")

    @rule(back=st.integers(1, 12))
    def arrive(self, back: int) -> None:
        if back <= len(self.sent):
            self.arrived.add(len(self.sent) - back)

    @rule(window_us=st.integers(0, 500))
    def acknowledge(self, window_us: int) -> None:
        gap = next(number for number in range(len(self.sent) + 1) if number not in self.arrived)
        selective = sum(1 << number - gap - 1 for number in self.arrived if number > gap)
        before = self.buffer.unacked_bytes
        _, acked_bytes, _ = self.buffer.acknowledge(gap - 1, selective, self.now_us)
        assert before - self.buffer.unacked_bytes == acked_bytes
        assert self.buffer.first_unacked == gap
        self.buffer.detect_losses(gap - 1, selective, 0, window_us)

    @precondition(lambda self: self.buffer.runs)
    @rule()
    def time_out(self) -> None:
        self.buffer.give_up_all()
        assert not self.buffer.flight_bytes

    @rule(refused=st.booleans())
    def send_again(self, refused: bool) -> None:
        lost = self.buffer.next_lost()
        if lost is not None:
            run, index = lost
            assert bytes(run.payloads[index]) == self.sent[run.first + index]
            self.buffer.resend(run, index, self.now_us)
            if refused:
                self.buffer.unresend(run, index)

    @invariant()
    def counts_are_sums(self) -> None:
        check_counts(self.buffer)
        assert self.buffer.next_sequence == len(self.sent)

    @invariant()
    def every_byte_left_or_waits(self) -> None:
        cut = b"".join(self.sent)
        assert cut == self.written[: len(cut)]
        assert self.buffer.unsent_bytes == len(self.written) - len(cut)

    @invariant()
    def only_what_arrived_is_acknowledged(self) -> None:
        for run in self.buffer.runs:
            acked = {run.first + index for index in range(run.count) if run.acked >> index & 1}
            assert acked <= self.arrived

    def teardown(self) -> None:
        """Once the peer has everything, nothing is left."""
        while self.buffer.unsent_bytes:
            self.send(60, 6)
        self.arrived.update(range(len(self.sent)))
        self.acknowledge(0)
        assert not self.buffer.runs
        assert not self.buffer.flight_bytes
        assert not self.buffer.lost_segments
        assert not self.buffer.unacked_bytes


def test_a_receive_buffer_in_any_order_of_calls() -> None:
    run_state_machine_as_test(Receiving, settings=SETTINGS)


def test_a_send_buffer_in_any_order_of_calls() -> None:
    run_state_machine_as_test(Sending, settings=SETTINGS)
