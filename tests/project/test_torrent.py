"""The BitTorrent examples among peers of every kind, on a network in memory with a clock of its own."""

from __future__ import annotations

import hashlib
import importlib
import io
import random
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.python.failure import Failure

from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.testing import Link, Network

bencode2 = pytest.importorskip("bencode2")
sys.path.append(str(Path(__file__).resolve().parent.parent.parent / "examples"))
bittorrent, leecher, seeder = (importlib.import_module(name) for name in ("bittorrent", "leecher", "seeder"))

PORT = 6881
HERE = "10.0.0.1"
PIECE_LENGTH = 4 * bittorrent.BLOCK_BYTES
LENGTH = 40 * PIECE_LENGTH + 12_345
FAST = Link(delay_us=5_000, rate_bytes_per_second=2e6, queue_bytes=200_000)
SLOW = Link(delay_us=5_000, rate_bytes_per_second=2e4, queue_bytes=20_000)


class Counting(seeder.Seeder):
    """An honest seeder that counts, and after ``limit`` blocks does what its kind does."""

    limit = 1 << 30

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.sent: list[bittorrent.Block] = []
        self.why = ""

    def send_block(self, block: bittorrent.Block) -> None:
        if len(self.sent) < self.limit:
            self.sent.append(block)
            self.deliver(block)
        else:
            self.refuse(block)

    def deliver(self, block: bittorrent.Block) -> None:
        super().send_block(block)

    def refuse(self, block: bittorrent.Block) -> None:
        """Called for each request beyond the limit."""

    def ended(self, why: str) -> None:
        super().ended(why)
        self.why = why


class Silent(Counting):
    """Stays, and sends nothing more."""

    limit = 10


class Leaving(Counting):
    limit = 10

    def refuse(self, block: bittorrent.Block) -> None:
        self.transport.abortConnection()


class Choking(Counting):
    """Chokes again and again, and forgets what it was asked for."""

    limit = 10

    def refuse(self, block: bittorrent.Block) -> None:
        self.answers.requests.clear()
        self.send(bittorrent.CHOKE)
        self.sent_before, self.sent = getattr(self, "sent_before", []) + self.sent, []
        self.send(bittorrent.UNCHOKE)


class Locked(Counting):
    """Chokes for good."""

    limit = 10

    def refuse(self, block: bittorrent.Block) -> None:
        self.answers.requests.clear()
        self.send(bittorrent.CHOKE)


class Liar(Counting):
    """Sends other bytes, one block of three."""

    def deliver(self, block: bittorrent.Block) -> None:
        if len(self.sent) % 3:
            super().deliver(block)
        else:
            self.send(bittorrent.PIECE, struct.pack("!II", block.piece, block.offset) + bytes(block.length))


class Swarm:
    """A leecher at HERE, and a seeder of some kind at each of the other addresses."""

    def __init__(self, place: Path, length: int = LENGTH) -> None:
        self.network = Network(seed=1)
        self.here = self.network.reactor(HERE)
        self.content = random.Random(1).randbytes(length)
        pieces = [self.content[start : start + PIECE_LENGTH] for start in range(0, length, PIECE_LENGTH)]
        information = {
            "length": length,
            "name": "file",
            "piece length": PIECE_LENGTH,
            "pieces": b"".join(hashlib.sha1(piece).digest() for piece in pieces),
        }
        self.path, self.output = place / "file.torrent", place / "file"
        self.path.write_bytes(bencode2.bencode({"info": information}))
        self.torrent = leecher.Torrent.load(str(self.path))
        self.seeders: list[list[Any]] = []

    def seed(self, kind: type[seeder.Seeder] | None, link: Link = FAST) -> list[Any]:
        """One more host with a seeder of this kind, or without one; its protocols come into the list."""
        host, made = f"10.0.1.{len(self.seeders)}", []
        self.seeders.append(made)
        self.network.connect(host, HERE, Link(**{name: getattr(link, name) for name in LINK_FIELDS}), Link(5_000))
        reactor = self.network.reactor(host)
        if kind is not None:
            factory = seeder.SeederFactory(self.torrent, io.BytesIO(self.content))
            factory.buildProtocol = lambda address: made.append(kind(factory.torrent, factory.content)) or made[-1]
            UTPServerEndpoint(reactor, PORT).listen(factory)
        return made

    def fetch(self, seconds: float = 120) -> Any:
        """Let the leecher fetch from all of them; returns None, or the exception that ended it."""
        strings = [f"utp:10.0.1.{number}:{PORT}:timeout=10" for number in range(len(self.seeders))]
        ended: list[Any] = []
        running = Deferred.fromCoroutine(leecher.main(self.here, str(self.path), str(self.output), *strings))
        running.addBoth(ended.append)
        assert self.network.run(seconds, until=lambda: bool(ended)), "it takes too long"
        self.seconds = self.network.now_us / 1e6
        self.network.run(5)
        return ended[0].value if isinstance(ended[0], Failure) else ended[0]

    def is_complete(self) -> bool:
        return self.output.read_bytes() == self.content


LINK_FIELDS = ("delay_us", "rate_bytes_per_second", "queue_bytes")
BLOCKS = -(-LENGTH // bittorrent.BLOCK_BYTES)


@pytest.fixture(autouse=True)
def _virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a peer's patience comes on the clock of its network."""

    def call_later(peer: Any, *arguments: Any) -> Any:
        return peer.transport.reactor.callLater(*arguments)

    monkeypatch.setattr(bittorrent.Peer, "callLater", call_later)


@pytest.fixture
def swarm(tmp_path: Path) -> Swarm:
    return Swarm(tmp_path)


def sent(made: list[Any]) -> int:
    [peer] = made
    return len(peer.sent) + len(getattr(peer, "sent_before", []))


def test_the_blocks_are_shared_out_over_all_peers(swarm: Swarm) -> None:
    """Three peers that are alike send about a third each, in about a third of the time, and little twice."""
    alone = swarm.seed(Counting)
    assert swarm.fetch() is None
    seconds, began = swarm.seconds, swarm.network.now_us / 1e6
    assert sent(alone) == BLOCKS
    alone.clear()

    others = [alone, swarm.seed(Counting), swarm.seed(Counting)]
    assert swarm.fetch() is None
    assert swarm.is_complete()
    assert all(sent(made) > BLOCKS / 4 for made in others)
    assert sum(sent(made) for made in others) <= BLOCKS + 3 * leecher.ENDGAME_REQUESTS
    assert swarm.seconds - began < 0.6 * seconds


def test_a_slow_peer_slows_nothing_down(swarm: Swarm) -> None:
    """A hundredth of the speed: alone it would take more than two minutes, and for its pipeline one of them."""
    slow, fast = swarm.seed(Counting, SLOW), swarm.seed(Counting)
    assert swarm.fetch(10) is None
    assert swarm.is_complete()
    assert sent(slow)
    assert sent(fast)


@pytest.mark.parametrize("kind", [Silent, Leaving, Choking, Locked])
def test_a_peer_that_sends_no_more_gives_its_blocks_back(swarm: Swarm, kind: type[Counting]) -> None:
    bad, good = swarm.seed(kind), swarm.seed(Counting)
    assert swarm.fetch(20) is None
    assert swarm.is_complete()
    assert sent(bad) >= 10
    assert sent(good)


def test_a_peer_that_chokes_now_and_then_is_enough(swarm: Swarm) -> None:
    swarm.seed(Choking)
    assert swarm.fetch() is None
    assert swarm.is_complete()


def test_a_peer_that_cannot_be_reached_does_not_stop_the_others(swarm: Swarm) -> None:
    swarm.seed(None)
    swarm.seed(Counting)
    assert swarm.fetch(9) is None
    assert swarm.is_complete()


def test_a_failure_names_the_reason_of_each_peer(swarm: Swarm) -> None:
    swarm.seed(None)
    swarm.seed(Leaving)
    problem = swarm.fetch()
    assert isinstance(problem, SystemExit)
    first, *others = str(problem).splitlines()
    assert first == f"file is not complete: {len(written(swarm))} of 41 pieces."
    assert others[0].startswith("utp:10.0.1.0:6881:timeout=10: User timeout caused connection failure")
    assert others[1].startswith("utp:10.0.1.1:6881:timeout=10: Connection to the other side was lost")


def written(swarm: Swarm) -> list[int]:
    """The pieces that are right in the output."""
    data = swarm.output.read_bytes()
    pieces = range(len(swarm.torrent.piece_hashes))
    return [n for n in pieces if swarm.torrent.is_right(n, data[n * PIECE_LENGTH : (n + 1) * PIECE_LENGTH])]


def test_a_peer_that_falls_silent_is_left_in_the_end(swarm: Swarm) -> None:
    swarm.seed(Silent)
    problem = swarm.fetch(200)
    assert "file is not complete: 2 of 41 pieces.\n" in str(problem)
    assert str(problem).endswith("The other side was silent for 150 seconds.")


def test_a_liar_who_is_alone_is_to_blame(swarm: Swarm) -> None:
    [made] = [swarm.seed(Liar)]
    problem = swarm.fetch()
    assert "The other side sent a wrong piece 0." in str(problem)
    assert len(made) == 1


@pytest.mark.parametrize("liars", [1, 2])
def test_liars_among_others_are_found_and_no_honest_peer_is_left(swarm: Swarm, liars: int) -> None:
    """Pieces have blocks of several peers, so that a wrong one alone does not show the liar."""
    bad = [swarm.seed(Liar) for _ in range(liars)]
    good = [swarm.seed(Counting) for _ in range(2)]
    assert swarm.fetch() is None
    assert swarm.is_complete()
    assert all("lost in a non-clean fashion" in made[0].why for made in bad)
    assert all(made[0].why == "The other side closed the connection." for made in good)


@pytest.mark.parametrize("seed", range(20))
def test_the_file_is_right_in_the_end_with_any_mixture_of_peers(tmp_path: Path, seed: int) -> None:
    """Peers of all kinds in any order, with one good one among them."""
    dice = random.Random(seed)
    swarm = Swarm(tmp_path)
    kinds = [Counting, *dice.choices([Counting, Silent, Leaving, Choking, Locked, Liar, None], k=5)]
    dice.shuffle(kinds)
    for kind in kinds:
        swarm.seed(kind, dice.choice([FAST, SLOW]) if kind is not Counting else FAST)
    assert swarm.fetch(300) is None
    assert swarm.is_complete()


class Asking(bittorrent.Peer):
    """Asks for the same block without end, and can stop reading."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.blocks = 0

    def greeted(self) -> None:
        self.send(bittorrent.INTERESTED)
        self.ask(1)

    def ask(self, count: int) -> None:
        for _ in range(count):
            self.send(bittorrent.REQUEST, struct.pack("!III", 0, 0, bittorrent.BLOCK_BYTES))

    def message_received(self, kind: int, body: bytes) -> None:
        self.blocks += kind == bittorrent.PIECE


def test_a_peer_that_asks_and_does_not_read_costs_no_memory(swarm: Swarm) -> None:
    """It asks for 800 MB: neither blocks nor requests heap up at the seeder, and in the end it is left."""
    made = swarm.seed(Counting, Link(delay_us=5_000))
    asking = Asking(swarm.torrent)
    connectProtocol(UTPClientEndpoint(swarm.here, "10.0.1.0", PORT), asking)
    assert swarm.network.run(1, until=lambda: asking.blocks == 1)
    [peer] = made
    asking.transport.pauseProducing()
    asking.setTimeout(None)
    asking.ask(50_000)
    most_requests = most_bytes = 0
    for _ in range(100):
        swarm.network.run(0.1)
        most_requests = max(most_requests, len(peer.answers.requests))
        most_bytes = max(most_bytes, peer.transport._connection.sending.unsent_bytes)
    assert leecher.PIPELINE_REQUESTS < most_requests <= seeder.MAXIMUM_REQUESTS
    # what the receiver's window takes has left
    assert len(peer.sent) * bittorrent.BLOCK_BYTES < 2 << 20
    assert most_bytes < 256 * 1024
    assert len(peer._unprocessed) <= 1 << 20

    swarm.network.run(160)
    assert peer.why == "The other side was silent for 150 seconds."


def test_a_peer_that_reads_again_gets_everything_that_it_has_asked_for(swarm: Swarm) -> None:
    """More than the seeder keeps, and CANCEL is not needed for it."""
    swarm.seed(Counting, Link(delay_us=5_000))
    asking = Asking(swarm.torrent)
    connectProtocol(UTPClientEndpoint(swarm.here, "10.0.1.0", PORT), asking)
    assert swarm.network.run(1, until=lambda: asking.blocks == 1)
    asking.transport.pauseProducing()
    asking.ask(3 * seeder.MAXIMUM_REQUESTS)
    swarm.network.run(20)
    asking.transport.resumeProducing()
    assert swarm.network.run(60, until=lambda: asking.blocks == 1 + 3 * seeder.MAXIMUM_REQUESTS)


def test_interest_that_is_told_again_is_answered_once(swarm: Swarm) -> None:
    """Otherwise a peer that does not read could let answers heap up in the seeder's transport."""
    made = swarm.seed(Counting, Link(delay_us=5_000))
    asking = Asking(swarm.torrent)
    connectProtocol(UTPClientEndpoint(swarm.here, "10.0.1.0", PORT), asking)
    assert swarm.network.run(1, until=lambda: asking.blocks == 1)
    before = made[0].transport.stats().bytes_sent
    for _ in range(1_000):
        asking.send(bittorrent.INTERESTED)
    swarm.network.run(1)
    assert made[0].transport.stats().bytes_sent == before
