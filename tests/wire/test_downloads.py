"""What comes in yields, too: the receiver holds back senders that fill queues, by the window that it advertises."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from twisted.internet.endpoints import connectProtocol

from tests.support import CLIENT, PORT, SERVER, Accepting, Pair, ScriptedClient, Stream
from txutp import Ledbat, Settings, Shallow, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.congestion.interface import Acknowledgement
from txutp.testing import Datagram, Link, Network

SEGMENT_BYTES = 1_382
SECOND = 1_000_000
RATE = 1_250_000  # 10 Mbit/s
SLOW_RATE = 375_000  # 3 Mbit/s; a third of the packets to simulate
QUEUE_BYTES = 375_000  # 300 ms

Hook = Callable[[Datagram], None]


class Greedy(Ledbat):
    """As libutp: it takes the peer's window for its own limit, and its window goes on growing meanwhile."""

    __slots__ = ()

    join = None  # type: ignore[assignment]  # each stands for a host of its own

    def on_ack(self, ack: Acknowledgement) -> None:
        ack.window_limited = True
        super().on_ack(ack)

    def _set_window(self, window: float) -> None:
        super()._set_window(min(window, 1 << 20))


class Download:
    """Greedy peers that send to one port over a link of 10 Mbit/s and 50 ms; the queue is sampled each 5 ms."""

    def __init__(
        self,
        peers: int = 1,
        receive: int | None = 4_000,
        controller: type = Greedy,
        seed: int = 1,
        rate: float = RATE,
        hook: Hook | None = None,
        back_hook: Hook | None = None,
        drift_ppm: float = 0.0,
        **link: float,
    ) -> None:
        self.network = Network(seed)
        way = Link(delay_us=25_000, rate_bytes_per_second=rate, queue_bytes=QUEUE_BYTES, hook=hook, **link)  # type: ignore[arg-type]
        self.network.connect(CLIENT, SERVER, way, Link(delay_us=25_000, hook=back_hook))
        self.way = way
        self.waits_ms: list[float] = []
        self.accepting = Accepting()
        receiver = self.network.reactor(SERVER, 1_234_500_000, drift_ppm)
        settings = Settings(receive_target_delay_us=receive, receive_buffer_bytes=16 << 20)
        UTPServerEndpoint(receiver, PORT, settings=settings).listen(self.accepting)
        self.senders = [Stream() for _ in range(peers)]
        theirs = Settings(congestion=controller)
        for number, sender in enumerate(self.senders):
            endpoint = UTPClientEndpoint(self.network.reactor(CLIENT), SERVER, PORT, settings=theirs)
            delay = number * 0.1 / peers
            self.network.reactor(CLIENT).callLater(delay, connectProtocol, endpoint, sender)
        self._sample()

    def _sample(self) -> None:
        self.waits_ms.append(self.network.wait_us(self.way) / 1_000)
        self.network.call_at(self.network.now_us + 5_000, self._sample)

    def run(self, seconds: float) -> tuple[float, float]:
        """Let everybody send for so long; returns the median of the queue in ms, and the share of the link's rate."""
        before_bytes, samples = self.received_bytes, len(self.waits_ms)
        end_us = self.network.now_us + round(seconds * SECOND)
        while self.network.now_us < end_us:
            for sender in self.senders:
                if sender.transport is not None and sender.connection.sending.unsent_bytes < 1 << 19:
                    sender.transport.write(bytes(1 << 20))  # type: ignore[attr-defined]
            self.network.run(0.25)
        waits_ms = sorted(self.waits_ms[samples:])
        payload = SEGMENT_BYTES / (SEGMENT_BYTES + 48)
        rate = (self.received_bytes - before_bytes) / seconds / self.way.rate_bytes_per_second / payload
        return waits_ms[len(waits_ms) // 2], rate

    @property
    def received_bytes(self) -> int:
        return sum(stream.connection.bytes_received for stream in self.accepting.made)


def test_a_greedy_sender_keeps_a_short_queue_and_the_rate() -> None:
    """Left alone it keeps a tenth of a second."""
    left_alone = Download(receive=None)
    left_alone.run(4)
    assert left_alone.run(1)[0] > 80

    download = Download(seed=12)
    download.run(5)
    wait_ms, share = download.run(6)
    assert wait_ms < 9
    assert share > 0.95


@pytest.mark.parametrize(("peers", "settling_s"), [(20, 10), (100, 17)])
def test_a_crowd_keeps_the_queue_of_one(peers: int, settling_s: float) -> None:
    """A hundred peers with two segments each would keep 180 ms."""
    download = Download(peers=peers)
    download.run(settling_s)
    before = [stream.connection.bytes_received for stream in download.accepting.made]
    wait_ms, share = download.run(4)
    rates = [s.connection.bytes_received - b for s, b in zip(download.accepting.made, before, strict=True)]

    assert wait_ms < 12
    assert share > 0.93
    assert sum(rates) ** 2 / (len(rates) * sum(rate**2 for rate in rates)) > 0.9


def test_peers_that_stop_in_their_turn_hold_nobody_up() -> None:
    """Those whose turn it is fall silent, all at once; the others wait behind closed windows, and nothing comes."""
    download = Download(peers=60)
    download.run(8)
    downlink = download.accepting.made[0].connection._downlink
    assert downlink.takes_turns

    connections = [made.connection for made in download.accepting.made]
    silent = {each.receive_id for each in connections if each._yielding and not each._yielding.is_in_row}
    assert 0 < len(silent) < 60

    def drop(datagram: Datagram) -> None:
        packet = datagram.packet
        datagram.dropped = packet is not None and packet.connection_id in silent

    download.way.hook = drop
    download.run(1)
    _, share = download.run(4)

    assert share > 0.5


def test_a_sender_that_yields_itself_is_not_bounded() -> None:
    download = Download(controller=Shallow, rate=SLOW_RATE)
    download.run(8)
    (stream,) = download.accepting.made

    assert stream.connection.stats(0).receive_window > 15 << 20
    assert not stream.connection._downlink.is_engaged


def test_stats_tell_of_the_way_in() -> None:
    download = Download()
    download.run(5)
    stats = download.accepting.made[0].transport.stats()  # type: ignore[union-attr]

    assert stats.receive_target == 4
    assert 0 <= stats.receive_queue_delay < 30
    assert stats.receive_rate == pytest.approx(RATE, rel=0.3)
    assert stats.receive_window < 150_000


def test_the_buffer_keeps_its_capacity() -> None:
    """What is in flight when the window shrinks is accepted: nothing is sent again."""
    download = Download()
    download.run(4)

    assert download.accepting.made[0].connection.receiving.capacity_bytes == 16 << 20
    assert download.senders[0].transport.stats().segs_retrans == 0  # type: ignore[union-attr]


def test_a_single_peer_keeps_two_segments() -> None:
    """A TCP that fills the queue by itself: the window falls, but not to nothing."""
    windows: list[int] = []

    def see(datagram: Datagram) -> None:
        packet = datagram.packet
        if packet is not None:
            windows.append(packet.wnd_size)

    download = Download(back_hook=see)
    download.run(5)
    base_us = download.way.delay_us
    for number in range(40):
        # a foreign queue that swings as TCP's does
        def longer(extra_us: int = 60_000 + number % 8 * 20_000) -> None:
            download.way.delay_us = base_us + extra_us

        download.network.call_at(download.network.now_us + number * 400_000, longer)
    windows.clear()
    download.run(12)

    assert 2 * SEGMENT_BYTES <= min(windows) < 6 * SEGMENT_BYTES


def test_a_peer_that_is_limited_elsewhere_is_not_held_back() -> None:
    """The peer's application writes 2 Mbit/s, behind a queue that never stands."""
    download = Download(controller=Shallow)
    sender = download.senders[0]
    download.network.run(1)
    for _ in range(40):
        sender.transport.write(bytes(25_000))  # type: ignore[union-attr]
        download.network.run(0.1)

    assert download.received_bytes > 0.97 * 40 * 25_000


def stamped(alter: Callable[[int, int], tuple[int, int]]) -> Hook:
    """A hook that lets a peer send other timestamps: ``alter(timestamp, difference)``."""

    def hook(datagram: Datagram) -> None:
        timestamp, difference = struct.unpack_from("!II", datagram.data, 4)
        timestamp, difference = alter(timestamp, difference)
        numbers = struct.pack("!II", timestamp & 0xFFFFFFFF, difference & 0xFFFFFFFF)
        datagram.data = datagram.data[:4] + numbers + datagram.data[12:]

    return hook


@pytest.mark.parametrize(
    ("name", "alter"),
    [
        ("a clock of 16 ms", lambda stamp, diff: (stamp - stamp % 16_000 or 1, diff - diff % 16_000)),
        ("milliseconds in the place of microseconds", lambda stamp, diff: (stamp // 1_000, diff)),
        ("no difference", lambda stamp, diff: (stamp, 0)),
        ("old uTorrent's difference", lambda stamp, diff: (stamp, 0x7FFFFFFF)),
        ("no timestamp", lambda stamp, diff: (0, diff)),
        ("nonsense", lambda stamp, diff: (stamp * 2_654_435_761, diff * 40_503)),
        ("the same always", lambda stamp, diff: (77, 88)),
    ],
)
def test_no_clock_of_a_peer_starves_it(name: str, alter: Callable[[int, int], tuple[int, int]]) -> None:
    download = Download(hook=stamped(alter), rate=SLOW_RATE)
    download.run(6)
    _, share = download.run(6)

    assert share > 0.75, name


@pytest.mark.parametrize("drift_ppm", [-200.0, 200.0])
def test_clocks_that_drift(drift_ppm: float) -> None:
    download = Download(drift_ppm=drift_ppm, rate=SLOW_RATE)
    download.run(8)
    wait_ms, share = download.run(6)

    assert wait_ms < 25
    assert share > 0.93


@pytest.mark.parametrize(
    "link", [{"loss": 0.01}, {"reorder": 0.01}, {"jitter_us": 5_000}, {"duplicate": 0.02}], ids=str
)
def test_paths_that_lose_reorder_and_jitter(link: dict[str, float]) -> None:
    """The sender's own losses count for more than ours: it gets as much as without us, or nearly."""
    shares = []
    for receive in (None, 4_000):
        download = Download(receive=receive, rate=SLOW_RATE, **link)
        download.run(6)
        shares.append(download.run(6)[1])

    assert shares[1] > 0.8 * shares[0]


def test_a_connection_without_data_has_nothing_of_it() -> None:
    assert Pair().server.connection._yielding is None


def test_measurements_are_forgotten_in_a_long_silence() -> None:
    scripted = ScriptedClient(Settings(keepalive_us=11_000_000))
    for _ in range(20):
        scripted.peer.data(bytes(1_000))
        scripted.run(0.01)
    connection = scripted.server.connection
    assert connection._yielding is not None

    scripted.run(20)

    assert connection._yielding is None
    assert len(connection._downlink) == 0


def test_without_a_receive_target_nothing_is_measured() -> None:
    scripted = ScriptedClient(Settings(receive_target_delay_us=None))
    for _ in range(20):
        scripted.peer.data(bytes(1_000))
        scripted.run(0.01)

    assert scripted.server.connection._yielding is None
    assert scripted.server.transport.stats().receive_target == 0  # type: ignore[union-attr]
