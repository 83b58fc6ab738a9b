"""The send buffer: what it counts, whatever the peer acknowledges, and takes back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import ScriptedClient, check_counts
from tests.wire.test_transfer import pattern
from txutp.core.packet import ST_DATA
from txutp.core.sending import SendBuffer


def test_a_peer_that_takes_a_selective_ack_back_is_counted_once() -> None:
    """RFC 2018 section 8: what it still asks for it does not have, and then nothing of the rest either."""
    sending = SendBuffer(1)
    sending.write(bytes(10_000))
    sending.take_run(10_000, 1_000, 0)
    sending.acknowledge(0, 0b1_1111_1111, 0)
    sending.acknowledge(1, 0, 0)
    assert sending.flight_bytes == 0
    sending.give_up_all()
    assert (sending.flight_bytes, sending.lost_segments) == (0, 9)
    for expected in range(1, 10):
        lost = sending.next_lost()
        assert lost is not None
        sending.resend(*lost, 1)
        assert sending.flight_bytes == expected * 1_000
    sending.acknowledge(10, 0, 2)
    assert sending.flight_bytes == 0


@pytest.mark.parametrize("times", [1, 3])
def test_the_window_still_holds_after_a_selective_ack_was_taken_back(times: int) -> None:
    """Each time it used to let more into flight than the window allows, for good."""
    scene = ScriptedClient()
    scene.push(pattern(400_000))
    sending = scene.server.connection.sending
    first = scene.peer.ack + 1
    for _ in range(times):
        in_flight = sending.outstanding
        scene.peer.state(ack_nr=first - 1, selective_ack=(1 << in_flight - 1) - 1)
        scene.run(0.0001)
        scene.peer.state(ack_nr=first)
        first += 1
        scene.run(30)
        check_counts(sending)
    assert 0 <= sending.flight_bytes <= sending.window_bytes + 10 * sending.segment_bytes
    assert [packet.type for packet in scene.peer.take()].count(ST_DATA) > 1


def act(sending: SendBuffer, rng: random.Random, now_us: int) -> None:
    """Something that may happen to it."""
    what = rng.randrange(9)
    outstanding = sending.outstanding
    if what == 0:
        sending.write(rng.randbytes(rng.randrange(1, 6_000)))
    elif what <= 2 and sending.unsent_bytes:
        segment_bytes = rng.choice((100, 1_000, 1_382))
        total_bytes = min(sending.unsent_bytes, rng.randrange(1, 12_000), 64 * segment_bytes)
        run = sending.take_run(total_bytes, segment_bytes, now_us)
        if rng.random() < 0.3:
            sending.untake(rng.randrange(run.count))
    elif what == 3 and outstanding:
        ack = sending.first_unacked - 1 + rng.randrange(min(outstanding, 4) + 1)
        sending.acknowledge(ack, rng.getrandbits(rng.randrange(1, 40)), now_us - 10)
    elif what == 4 and outstanding:
        # what was acknowledged before is asked for again
        sending.acknowledge(sending.first_unacked - 1, 0, now_us - 10)
    elif what == 5 and outstanding:
        sending.detect_losses(sending.first_unacked - 1, rng.getrandbits(30), rng.randrange(5), 50)
    elif what == 6 and outstanding:
        sending.give_up_all()
    elif sending.next_lost() is not None:
        run, index = sending.next_lost()  # type: ignore[misc]
        sending.resend(run, index, now_us)
        if rng.random() < 0.3:
            sending.unresend(run, index)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 120))
def test_its_counts_hold_whatever_happens(seed: int, steps: int) -> None:
    """Acks forth and back, losses, retransmissions, and a socket that refuses some of it."""
    rng = random.Random(seed)
    sending = SendBuffer(1)
    for step in range(steps):
        act(sending, rng, 100 * step)
        check_counts(sending)
    # all of it arrives at last
    if sending.outstanding:
        sending.acknowledge(sending.next_sequence - 1, 0, 100 * steps)
    check_counts(sending)
    assert (sending.flight_bytes, sending.lost_segments, len(sending.runs)) == (0, 0, 0)
