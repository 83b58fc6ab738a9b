"""What ``txutp perf`` is made of, on simulated hosts and in virtual time: nothing here depends on this machine."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol

from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.cli.measurement.client import Client
from txutp.cli.measurement.ends import DRAIN_SECONDS, STALL_SECONDS
from txutp.cli.measurement.ping import ANSWER, QUESTION, REST, Echo, Pinger, percentile
from txutp.cli.measurement.results import (
    CLIENT,
    LONGEST_QUEUE,
    SERVER,
    Interval,
    Results,
    Summary,
    direction_from,
)
from txutp.cli.measurement.server import MAXIMUM_TESTS, Server, Session
from txutp.cli.measurement.streams import Pace
from txutp.cli.measurement.wire import Parameters, Sample, StreamSample
from txutp.cli.messages import Broken, Lines, ProtocolError, Refused, Unanswered, decode, encode
from txutp.testing import Link, Network

SERVER_HOST, CLIENT_HOST = "10.0.0.1", "10.0.0.2"
OUT, BACK = direction_from(CLIENT), direction_from(SERVER)


class Hosts:
    """A server and a client with a path between them; each direction carries 10 Mbit/s, with 20 ms of delay."""

    def __init__(self, **link: Any) -> None:
        options = {"delay_us": 20_000, "rate_bytes_per_second": 1_250_000, "queue_bytes": 125_000} | link
        self.network = Network(seed=1)
        self.there, self.back = Link(**options), Link(**options)
        self.network.connect(CLIENT_HOST, SERVER_HOST, self.there, self.back)
        self.server_reactor = self.network.reactor(SERVER_HOST)
        self.client_reactor = self.network.reactor(CLIENT_HOST)
        self.sessions: list[Session] = []
        self.endings: list[Exception | None] = []
        self.server = Server(self.server_reactor, self._on_test)
        listening = UTPServerEndpoint(self.server_reactor, 5201, datagramProtocol=Echo(self.server.sessions))
        listening.listen(self.server)

    def _on_test(self, session: Session) -> Any:
        self.sessions.append(session)
        session.ended.addCallback(self.endings.append)
        return lambda intervals: None

    def client(self, parameters: Parameters) -> Client:
        """Return a client that was not started."""
        self.intervals: list[Interval] = []
        endpoint = UTPClientEndpoint(self.client_reactor, SERVER_HOST, 5201)
        return Client(self.client_reactor, endpoint, Results(parameters), 10.0, self.intervals.extend)

    def begin(self, parameters: Parameters) -> tuple[Client, list[Any]]:
        """Begin a test; returns the client, and a list that gets its result or failure."""
        client = self.client(parameters)
        self.running = Deferred.fromCoroutine(client.run())
        outcome: list[Any] = []
        self.running.addBoth(outcome.append)
        return client, outcome

    def run(self, parameters: Parameters) -> list[Summary]:
        """Run a test to its end; returns the client's totals, which are the server's, too."""
        client, outcome = self.begin(parameters)
        self.network.run(seconds=300, until=lambda: bool(outcome))
        assert outcome == [None]
        self.network.run(seconds=5)
        assert self.endings[-1] is None
        assert self.sessions[-1].results.summaries() == client.results.summaries()
        assert not self.server.sessions
        return client.results.summaries()


def test_a_size_arrives_exactly() -> None:
    """``-n``: the streams share it, and both ends count all of it."""
    [summary] = Hosts().run(Parameters(1.0, total_bytes=1_000_001, streams=3))

    assert summary.direction == OUT
    assert summary.sender.bytes == summary.receiver.bytes == 1_000_001
    assert [(sender.bytes, receiver.bytes) for sender, receiver in summary.streams] == [
        (333_334, 333_334),
        (333_334, 333_334),
        (333_333, 333_333),
    ]


def test_the_server_sends() -> None:
    """``-R``."""
    [summary] = Hosts().run(Parameters(1.0, total_bytes=700_000, reverse=True))

    assert summary.direction == BACK
    assert summary.sender.bytes == summary.receiver.bytes == 700_000


def test_both_send() -> None:
    """``--bidir``: each direction has the whole size."""
    out, back = Hosts().run(Parameters(1.0, total_bytes=700_000, bidirectional=True))

    assert (out.direction, back.direction) == (OUT, BACK)
    assert out.sender.bytes == out.receiver.bytes == back.sender.bytes == back.receiver.bytes == 700_000


def test_a_time_measures_the_path() -> None:
    """On 10 Mbit/s goodput is a little less, for headers; the queue is on the way out and not on the way back."""
    hosts = Hosts()
    [summary] = hosts.run(Parameters(10.0, congestion="ledbat"))

    assert 9.0e6 < summary.receiver.bits_per_second < 10.0e6
    assert summary.receiver.seconds == pytest.approx(10.0, abs=0.3)
    assert [round(interval.end_seconds) for interval in hosts.intervals][:10] == list(range(1, 11))
    assert all(interval.bits_per_second < 10e6 for interval in hosts.intervals)
    interval = hosts.intervals[5]
    assert interval.queue_delay_ms == pytest.approx(95, abs=10)
    assert interval.rtt_ms == pytest.approx(40 + interval.queue_delay_ms, abs=5)
    assert interval.reverse_queue_delay_ms < 5
    assert interval.cwnd_bytes == pytest.approx(1_250_000 * interval.rtt_ms / 1_000, rel=0.1)


def test_losses_are_counted() -> None:
    """Retransmissions are those of the sender; nothing is missing at the receiver."""
    hosts = Hosts(loss=0.02)
    [summary] = hosts.run(Parameters(1.0, total_bytes=2_000_000))

    assert summary.sender.retransmits > 10
    assert summary.sender.retransmits == sum(interval.retransmits for interval in hosts.intervals)
    assert summary.receiver.bytes == 2_000_000


def test_what_is_omitted_counts_in_no_total() -> None:
    """``-O``: the test is longer by it, its intervals are marked, and totals begin behind it."""
    hosts = Hosts()
    [summary] = hosts.run(Parameters(4.0, omit_seconds=2.0, interval_seconds=0.5))

    assert [interval.omitted for interval in hosts.intervals[:5]] == [True] * 4 + [False]
    assert hosts.intervals[-1].end_seconds > 5.9
    assert summary.receiver.seconds == pytest.approx(4.0, abs=0.3)
    counted = sum(interval.bytes for interval in hosts.intervals if not interval.omitted)
    assert summary.receiver.bytes == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_rate_is_kept(streams: int) -> None:
    """``-b`` is the rate of each stream, counted in what the application wrote, whatever the block's size is."""
    [summary] = Hosts().run(Parameters(5.0, bits_per_second=1_000_000, streams=streams))

    assert summary.sender.bytes == pytest.approx(streams * 625_000, rel=0.02)


def test_a_rate_that_the_path_does_not_carry() -> None:
    """The path's own rate is what comes, and what was not written is not made up for."""
    hosts = Hosts()
    [summary] = hosts.run(Parameters(5.0, bits_per_second=50_000_000))

    assert 8.5e6 < summary.receiver.bits_per_second < 10e6


def test_pace() -> None:
    """A pace catches up with a late timer, and with no more than a quarter of a second."""
    pace = Pace(8_000_000, 100.0)

    assert pace.due_bytes(100.01) == pytest.approx(10_000, abs=1)
    pace.wrote(10_000)
    assert pace.due_bytes(100.2) == pytest.approx(190_000, abs=1)
    assert pace.due_bytes(110.0) == pytest.approx(250_000, abs=1)
    pace.wrote(250_000)
    assert pace.due_bytes(110.01) == pytest.approx(10_000, abs=2)


@pytest.mark.parametrize(("reverse", "way"), [(False, "there"), (True, "back")])
def test_both_ends_use_the_target_that_is_asked_for(reverse: bool, way: str) -> None:
    """A target of 5 ms keeps the queue shorter than one of 90 ms, whichever end sends."""
    waits_us = []
    for target_delay_us in (5_000, 90_000):
        hosts = Hosts()
        parameters = Parameters(8.0, reverse=reverse, congestion="ledbat", target_delay_us=target_delay_us)
        _, outcome = hosts.begin(parameters)
        hosts.network.run(seconds=6)
        waits_us.append(getattr(hosts, way).queue_delay_us)
        hosts.network.run(seconds=60, until=lambda outcome=outcome: bool(outcome))
        assert outcome == [None]

    assert waits_us[0] < 20_000 < 60_000 < waits_us[1]


def test_what_drains_too_long_is_cut_off() -> None:
    """A test of a given time ends in time, also where the receiver has stopped reading; what came counts."""
    hosts = Hosts()
    client, outcome = hosts.begin(Parameters(3.0))
    hosts.network.run(seconds=2)
    for stream in hosts.sessions[0]._test.streams.values():
        stream.transport.pauseProducing()

    hosts.network.run(seconds=1 + DRAIN_SECONDS + 2, until=lambda: bool(outcome))

    assert outcome == [None]
    [summary] = client.results.summaries()
    assert 1_500_000 < summary.receiver.bytes < 2_500_000


def test_a_path_that_stops_carrying_ends_the_test() -> None:
    """Both ends notice, and the client knows what had come."""
    hosts = Hosts()
    client, outcome = hosts.begin(Parameters(30.0))
    hosts.network.run(seconds=4)
    hosts.there.loss = hosts.back.loss = 1.0

    hosts.network.run(seconds=200, until=lambda: bool(outcome))

    assert outcome[0].check(Broken, Unanswered)
    assert client.results.summaries()[0].receiver.bytes > 2_000_000
    hosts.network.run(seconds=200)
    assert not hosts.server.sessions


def test_a_peer_that_stops_reading_is_noticed() -> None:
    """A test of a given size ends when nothing has moved for a while, although the connection lives."""
    hosts = Hosts()
    _, outcome = hosts.begin(Parameters(1.0, total_bytes=50_000_000))
    hosts.network.run(seconds=2)
    [session] = hosts.sessions
    for stream in session._test.streams.values():
        stream.transport.pauseProducing()

    hosts.network.run(seconds=3 * STALL_SECONDS, until=lambda: bool(outcome))

    [failure] = outcome
    assert failure.check(Unanswered, Broken)
    assert "Nothing moves any more" in failure.getErrorMessage()


def test_a_peer_that_does_not_read_its_samples_takes_no_memory() -> None:
    """Those that find the control stream full are left out, for a later one says the same; the last one is not."""
    hosts = Hosts()
    client, _ = hosts.begin(Parameters(60.0, bits_per_second=8_000))
    hosts.network.run(seconds=2)
    [session] = hosts.sessions
    client._test._control._peer.transport.pauseProducing()
    sending = session.control._peer.transport._connection.sending

    for number in range(100_000, 120_000):
        session.control.say_sample(sample(number))
        if not number % 100:
            hosts.network.run(seconds=0.001)
    unsent_bytes = sending.unsent_bytes
    assert 0 < unsent_bytes < 200_000

    session.control.say_sample(sample(300_000, ended=True))
    assert sending.unsent_bytes > unsent_bytes


def test_an_interrupted_client_is_told_at_the_server() -> None:
    """The server hears the reason before the streams break, and both keep what they know."""
    hosts = Hosts()
    client, outcome = hosts.begin(Parameters(60.0))
    hosts.network.run(seconds=3.5)

    hosts.running.cancel()
    hosts.network.run(seconds=5)

    [failure] = outcome
    assert failure.check(CancelledError)
    assert [str(ending) for ending in hosts.endings] == ["The other end says of the test: the client has ended it"]
    for results in (client.results, hosts.sessions[0].results):
        [summary] = results.summaries()
        assert summary.receiver.bytes > 2_000_000
    assert not hosts.client_reactor.getDelayedCalls()


def test_a_server_that_runs_enough_tests_refuses() -> None:
    """A sentence says why; tests that run go on."""
    hosts = Hosts()
    outcomes = [hosts.begin(Parameters(5.0, bits_per_second=80_000))[1] for _ in range(MAXIMUM_TESTS)]
    hosts.network.run(seconds=2)

    _, refused = hosts.begin(Parameters(5.0))
    hosts.network.run(seconds=1)
    assert refused[0].check(Refused)
    assert "tests already" in refused[0].getErrorMessage()

    hosts.network.run(seconds=30)
    assert outcomes == [[None]] * MAXIMUM_TESTS


class Collecting(Protocol):
    """Keeps what comes."""

    def __init__(self) -> None:
        self.came = b""
        self.over = False

    def dataReceived(self, data: bytes) -> None:
        self.came += data

    def connectionLost(self, reason: Any = None) -> None:
        self.over = True


def test_connections_that_say_nothing_are_dropped() -> None:
    """So is a test whose client does not open its streams; it is told."""
    hosts = Hosts()
    silent, half = Collecting(), Collecting()
    for protocol in (silent, half):
        factory = Factory.forProtocol(lambda protocol=protocol: protocol)
        UTPClientEndpoint(hosts.client_reactor, SERVER_HOST, 5201).connect(factory)
    hosts.network.run(seconds=1)
    half.transport.write(encode(Parameters(1.0, streams=2).as_message()))
    hosts.network.run(seconds=20)

    assert silent.over
    assert half.over
    accepted, refusal = half.came.splitlines()
    assert "accepted" in decode(accepted)
    assert decode(refusal) == {"error": "The client did not open all its streams."}
    assert not hosts.server.sessions


def test_an_echo_answers_only_tests_that_run() -> None:
    """Nothing else is answered: no other datagram, no unknown token, and no answer."""
    token = "ab" * 16
    sent: list[tuple[bytes, Any]] = []

    class Transport:
        def write(self, data: bytes, address: Any) -> None:
            sent.append((data, address))

    echo = Echo({token})
    echo.transport = Transport()
    rest = REST.pack(token.encode(), 7)
    strange = REST.pack(b"\xff" * 32, 7)
    for datagram in (b"", QUESTION, ANSWER + rest, QUESTION + rest + b"!", QUESTION + strange, b"x" * 51):
        echo.datagramReceived(datagram, ("192.0.2.1", 9))
    assert sent == []

    echo.datagramReceived(QUESTION + rest, ("192.0.2.1", 9))
    assert sent == [(ANSWER + rest, ("192.0.2.1", 9))]


def test_a_ping_sees_the_queue() -> None:
    """It takes the path's 40 ms when nothing flows, and the queue more while a stream does."""
    hosts = Hosts()
    medians = []
    for parameters in (Parameters(5.0, bits_per_second=8), Parameters(10.0, congestion="ledbat")):
        client, outcome = hosts.begin(parameters)
        hosts.network.run(seconds=2)
        pinger = Pinger(hosts.client_reactor, (SERVER_HOST, 5201), client.token)
        port = hosts.client_reactor.listenUDP(0, pinger)
        hosts.network.run(seconds=2.5)
        port.stopListening()
        hosts.network.run(seconds=30, until=lambda outcome=outcome: bool(outcome))
        assert outcome == [None]
        medians.append(percentile(list(pinger.round_trips_ms), 0.5))

    assert medians[0] == pytest.approx(40, abs=1)
    assert medians[1] > 80


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"streams": 0}, "streams"),
        ({"streams": 129}, "from 1 to 128"),
        ({"streams": 1.5}, "streams"),
        ({"streams": True}, "streams"),
        ({"seconds": -1}, "seconds"),
        ({"seconds": 1e300}, "seconds"),
        ({"seconds": None}, "seconds"),
        ({"block_bytes": 1 << 40}, "block_bytes"),
        ({"total_bytes": 0}, "total_bytes"),
        ({"interval_seconds": 0.0001}, "interval_seconds"),
        ({"congestion": "os.system"}, "a congestion controller is one of"),
        ({"congestion": ["ledbat"]}, "a congestion controller is one of"),
        ({"target_delay_us": 10**9}, "target_delay_us"),
        ({"reverse": "yes"}, "reverse"),
    ],
)
def test_parameters_from_the_network_are_checked(change: dict[str, Any], words: str) -> None:
    """Each has a range; a controller is one of ours, and no name of anything else."""
    message = Parameters(1.0).as_message()
    assert Parameters.from_message(decode(encode(message))) == Parameters(1.0)
    message["test"] |= change

    with pytest.raises(ProtocolError, match=words):
        Parameters.from_message(message)


@pytest.mark.parametrize("line", [b"", b"[]", b"1", b"{", b'{"a":NaN}', b"[" * 60_000, b"\xff\xfe", b"null"])
def test_lines_that_are_no_messages(line: bytes) -> None:
    """Whatever comes is an object, or a ``ProtocolError``."""
    with pytest.raises(ProtocolError):
        decode(line)


def sample(number: int, sent_bytes: int = 0, received_bytes: int = 0, ended: bool = False) -> Sample:
    """A sample of one stream, an interval of one second after the one before it."""
    stream = StreamSample(
        sent_bytes, received_bytes, 0, 1, 1.0, 1.0, 1.0, sent_seconds=float(number), received_seconds=float(number)
    )
    return Sample(number, float(number), (stream,), ended)


def test_a_missing_sample_makes_an_interval_longer() -> None:
    """Samples count from the beginning, so nothing is lost."""
    results = Results(Parameters(3.0))

    assert results.add(CLIENT, sample(1, 1_000)) == []
    assert results.add(CLIENT, sample(2, 2_000)) == []
    [interval] = results.add(SERVER, sample(2, received_bytes=1_800))
    assert (interval.start_seconds, interval.end_seconds, interval.bytes) == (0.0, 2.0, 1_800)
    assert interval.bits_per_second == 7_200
    assert results.add(SERVER, sample(3, received_bytes=2_000, ended=True)) == []
    [interval] = results.add(CLIENT, sample(5, 2_000, ended=True))
    assert interval.bytes == 200
    assert results.ended(CLIENT)
    assert results.ended(SERVER)


def test_samples_out_of_order_are_refused() -> None:
    """So is one behind the last word."""
    results = Results(Parameters(3.0))
    results.add(CLIENT, sample(2, ended=True))

    for number in (1, 2, 3):
        with pytest.raises(ProtocolError, match="out of order"):
            results.add(CLIENT, sample(number))


def test_samples_of_a_peer_that_is_far_ahead_take_no_memory() -> None:
    """Of what waits for the other end only the newest is kept; the totals are right."""
    results = Results(Parameters(3.0))
    for number in range(1, 3_000):
        results.add(CLIENT, sample(number, number))

    assert max(len(waiting) for waiting in results._waiting.values()) == LONGEST_QUEUE
    assert results.summaries()[0].sender.bytes == 2_999


def test_lines_come_out_of_a_stream_however_it_is_cut() -> None:
    """Whole lines, the rest behind them, and an error as soon as one is too long."""
    stream = b"".join(encode({"number": number}) for number in range(50)) + b"rest"
    for step in (1, 7, 64, len(stream)):
        lines, found = Lines(32), []
        for begin in range(0, len(stream), step):
            line = lines.next(stream[begin : begin + step])
            while line is not None:
                found.append(decode(line)["number"])
                line = lines.next()
        assert found == list(range(50))
        assert lines.rest == b"rest"
        assert Lines.behind(lines).next(b" of it\n") == b"rest of it"
    with pytest.raises(ProtocolError, match="too long"):
        Lines(32).next(b"x" * 33)
    with pytest.raises(ProtocolError, match="too long"):
        Lines(32).next(b"x" * 33 + b"\n")
    assert Lines(32).next(b"x" * 32 + b"\n") == b"x" * 32


def test_a_test_whose_coroutine_is_closed_ends_at_once() -> None:
    """As the garbage collector closes it when the program ends: the coroutine waits for nothing, and leaves nothing."""
    hosts = Hosts()
    running = hosts.client(Parameters(60.0)).run()
    Deferred.fromCoroutine(running)
    hosts.network.run(seconds=5)
    assert hosts.sessions

    running.close()

    hosts.network.run(seconds=30)
    assert [type(problem) for problem in hosts.endings] == [Broken]
    assert not hosts.server.sessions
    assert list(hosts.network.ports) == [(SERVER_HOST, 5201)]
