"""In which packets an ack leaves: a peer reads the ack of new data, and maybe not that of anything else.

libutp drops DATA that it has already before it looks at the ack in it; libtorrent drops DATA that acknowledges its FIN;
a path drops a probe that is too large.  So an ack that leaves in one of these leaves in a STATE besides.

The connection is asked directly here, for what has to coincide (a timer and an arrival) does so seldom on a network.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.wire.test_transfer import SEGMENT, lossy_sender, pattern
from txutp import Ledbat, Settings
from txutp.core.batch import Batch
from txutp.core.liveness import TRIALS
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import ST_DATA, ST_FIN, ST_STATE, ST_SYN, Packet, parse_untrusted

PEER = ("10.0.0.2", 6881)
ROUND_TRIP_US = 20_000


class Core:
    """A connection that a peer has opened, without network and shell."""

    def __init__(self) -> None:
        self.now_us = 1_000_000
        self.sequence = 100  # of the peer's next DATA or FIN
        self.ack = 0
        self.window = 1 << 20
        self.multiplexer = Multiplexer(
            Settings(congestion=Ledbat), lambda count: b"\x10" * count, lambda address: 1_500
        )
        self.multiplexer.listening = True
        self.say(ST_SYN, connection_id=1_000, seq_nr=99)
        (self.connection,) = self.multiplexer
        (answer,) = self.out()
        self.ack = answer.seq_nr - 1
        self.say(ST_STATE)
        # one question and one answer, for a round-trip time
        self.connection.write(b"question")
        self.out()
        self.now_us += ROUND_TRIP_US
        self.ack += 1
        self.say(ST_STATE)
        self.out()

    def say(self, kind: int, data: bytes = b"", **fields: Any) -> None:
        """The peer sends a packet."""
        packet = Packet(
            kind,
            fields.get("connection_id", 1_001),
            self.now_us,
            1_000,
            self.window,
            fields.get("seq_nr", self.sequence),
            self.ack,
            fields.get("selective_ack"),
            data,
        )
        self.sequence += kind in (ST_DATA, ST_FIN)
        self.multiplexer.receive(packet.encode(), PEER, self.now_us)

    def next_batch(self) -> Batch | None:
        return self.connection.next_batch(self.now_us)

    def out(self) -> list[Packet]:
        """Everything that leaves now."""
        packets = []
        while (batch := self.next_batch()) is not None:
            data = b"".join(batch.buffers)
            for start in range(0, len(data), batch.datagram_bytes):
                packet = parse_untrusted(data[start : start + batch.datagram_bytes])
                assert packet is not None
                packets.append(packet)
        return packets

    def wait(self, seconds: float) -> None:
        """Time passes, and the timers ring that are due then."""
        self.now_us += round(seconds * 1_000_000)
        self.connection.handle_timeout(self.now_us)


def kinds(packets: list[Packet]) -> list[int]:
    return [packet.type for packet in packets]


def test_new_data_carries_the_ack() -> None:
    core = Core()
    core.say(ST_DATA, b"x")
    core.connection.write(b"y")
    (data,) = core.out()
    assert (data.type, data.ack_nr) == (ST_DATA, 100)


def late(core: Core) -> None:
    """A segment is in flight, and is to be sent again as a probe of the tail."""
    core.connection.write(pattern(SEGMENT))
    core.out()
    core.wait(3 * ROUND_TRIP_US / 1e6)


def timed_out(core: Core) -> None:
    """The same, and the timeout is over, too."""
    late(core)
    core.out()
    core.wait(5)


def unanswered_fin(core: Core) -> None:
    core.connection.shutdown()
    core.out()
    core.wait(5)


def window_closed(core: Core) -> None:
    """It is time for a persist probe."""
    core.window = 0
    core.say(ST_STATE)
    core.connection.write(pattern(SEGMENT))
    assert core.out() == []
    core.wait(5)


CASES = {
    "a probe of the tail": (late, ST_DATA),
    "a segment after a timeout": (timed_out, ST_DATA),
    "a FIN again": (unanswered_fin, ST_FIN),
    "a persist probe": (window_closed, ST_DATA),
}


@pytest.mark.parametrize("case", CASES)
def test_what_the_peer_may_not_read_does_not_carry_the_ack_alone(case: str) -> None:
    prepare, kind = CASES[case]
    core = Core()
    prepare(core)
    core.say(ST_DATA, b"x")
    packets = core.out()
    assert kinds(packets) == [kind, ST_STATE]
    assert {packet.ack_nr for packet in packets} == {100}
    assert core.out() == []


@pytest.mark.parametrize("case", CASES)
def test_without_an_ack_that_is_due_no_state_goes_along(case: str) -> None:
    """The repair of losses costs no packet besides, but for the question whether the peer takes segments in parts."""
    prepare, kind = CASES[case]
    core = Core()
    prepare(core)
    question = [ST_STATE] if prepare is timed_out else []
    assert kinds(core.out()) == [kind, *question]


@pytest.mark.parametrize("case", CASES)
def test_a_refused_packet_took_no_ack_along(case: str) -> None:
    """The socket is full: the ack is still due, and leaves once when there is room again."""
    prepare, _ = CASES[case]
    core = Core()
    prepare(core)
    core.say(ST_DATA, b"x")
    batch = core.next_batch()
    assert batch is not None
    core.connection.refuse(batch, 0)
    assert kinds(core.out()).count(ST_STATE) == 1
    assert core.out() == []


def test_an_ack_in_refused_new_data_is_due_again() -> None:
    core = Core()
    core.say(ST_DATA, b"x")
    core.connection.write(b"y")
    batch = core.next_batch()
    assert batch is not None
    core.connection.refuse(batch, 0)
    core.window = 0
    core.say(ST_STATE)  # there is no room any more
    (state,) = core.out()
    assert (state.type, state.ack_nr) == (ST_STATE, 100)


def unanswering() -> Core:
    """A peer that has ignored so many probes that it gets keepalives only."""
    core = Core()
    for _ in range(TRIALS):
        core.wait(30)
        core.out()
    return core


def test_a_refused_keepalive_is_due_again() -> None:
    """Data that leaves makes it needless; data that the socket refuses does not."""
    core = unanswering()
    core.wait(30)
    core.connection.write(b"y")
    batch = core.next_batch()
    assert batch is not None
    core.connection.refuse(batch, 0)
    core.window = 0
    core.say(ST_STATE)
    (keepalive,) = core.out()
    assert (keepalive.type, keepalive.ack_nr) == (ST_STATE, 98)


def test_an_ack_is_none_of_one_packet_less() -> None:
    """A keepalive acknowledges one packet less; an ack that is due with it acknowledges all."""
    core = unanswering()
    core.wait(30)
    core.say(ST_DATA, b"x")
    (state,) = core.out()
    assert (state.type, state.ack_nr) == (ST_STATE, 100)


def test_a_probe_of_the_path_does_not_carry_the_ack_alone() -> None:
    core = Core()
    core.say(ST_STATE, selective_ack=0)
    core.connection.write(pattern(400 * SEGMENT))
    for _ in range(20):
        core.say(ST_DATA, b"x")
        batch = core.next_batch()
        assert batch is not None
        if batch.dont_fragment:
            break
        core.ack += batch.count + kinds(core.out()).count(ST_DATA)
        core.now_us += ROUND_TRIP_US
    assert batch.dont_fragment
    core.window = 0
    core.say(ST_STATE)  # so that no new data leaves behind it
    (state,) = core.out()
    assert (state.type, state.ack_nr) == (ST_STATE, core.sequence - 1)


def test_data_does_not_carry_the_ack_of_the_peers_fin_alone() -> None:
    """The peer has closed its half; libtorrent then reads nothing of DATA that acknowledges that."""
    core = Core()
    core.connection.write(pattern(SEGMENT))
    core.say(ST_FIN)
    packets = core.out()
    assert kinds(packets) == [ST_DATA, ST_STATE]
    assert packets[1].ack_nr == 100


def test_our_fin_carries_the_ack_of_the_peers() -> None:
    core = Core()
    core.say(ST_FIN)
    core.connection.shutdown()
    (fin,) = core.out()
    assert (fin.type, fin.ack_nr) == (ST_FIN, 100)


def test_new_data_behind_a_repeated_packet_carries_the_ack() -> None:
    """The peer reads that, so the STATE would be one packet too many."""
    core = Core()
    late(core)
    core.connection.write(b"new")
    core.connection.sending.flush()
    core.say(ST_DATA, b"x")
    again, new = core.out()
    assert again.seq_nr + 1 == new.seq_nr
    assert new.data == b"new"


def test_a_spurious_resend_over_the_network() -> None:
    """The peer has all, and says of one packet that it is missing while it sends data of its own."""
    scene = lossy_sender()
    scene.peer.data(b"hello", selective_ack=0b111)
    scene.run(0.0001)
    again, state = scene.peer.take()
    assert (again.type, again.seq_nr) == (ST_DATA, scene.peer.ack + 1)
    assert (state.type, state.ack_nr) == (ST_STATE, 5_001)
