"""Traces: what they hold is what was on the wire, they change nothing, and they end whole."""

from __future__ import annotations

import errno
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import capturedLogs

from tests.support import CLIENT, SERVER, Accepting, Pair
from txutp import Ledbat, Settings, UTPClientEndpoint, listenUTP
from txutp.congestion import Acknowledgement
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import NAMES, ST_DATA, ST_FIN, ST_SYN, Packet
from txutp.qlog import Tracing, trace_connection, trace_port, trace_reactor
from txutp.qlog.files import NotAQlogFile, QlogFile, read_qlog
from txutp.qlog.observing import Sink
from txutp.testing import Datagram, Link, Network, Recorder, SimulatedPort

Event = dict[str, Any]

CHUNK = bytes(range(256)) * 400


def events_of(path: Path, name: str = "") -> list[Event]:
    """Returns the data of all events with a name, or all events whole; every record of the file has to be whole."""
    *begin, end = path.read_bytes().split(b"\x1e")
    assert begin[0] == b""
    assert all(text.endswith(b"\n") for text in [*begin[1:], end])
    events = [json.loads(text) for text in [*begin[1:], end]][1:]
    return [event["data"] for event in events if event["name"] == name] if name else events


def lossy() -> Link:
    return Link(delay_us=10_000, rate_bytes_per_second=500_000, queue_bytes=30_000, loss=0.03, reorder=0.02)


def transfer(directory: Path | None) -> tuple[Pair, list[Recorder]]:
    """Both ends say something over a path that loses packets, with both of them traced if there is a directory."""
    pair = Pair(lossy(), wait=False)
    recorders = [Recorder(), Recorder()]
    pair.up.hook, pair.down.hook = recorders
    if directory is not None:
        trace_reactor(pair.client_reactor, directory / "client.qlog", title="here", vantage_point="client")
        trace_reactor(pair.server_reactor, directory / "server.qlog", vantage_point="server")
    pair.network.run(1)
    pair.client.transport.write(CHUNK * 5)
    pair.server.transport.write(CHUNK)
    pair.client.transport.loseConnection()
    pair.network.run(60)
    assert pair.server.lost_type is ConnectionDone
    return pair, recorders


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Pair, list[Recorder]]:
    directory = tmp_path_factory.mktemp("traces")
    return directory, *transfer(directory)


def test_a_trace_has_every_packet_that_left(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """In order, with the fields that are on the wire."""
    directory, _, (up, down) = traced
    for name, recorder in (("client", up), ("server", down)):
        sent = events_of(directory / f"{name}.qlog", "transport:packet_sent")
        assert [(event["utp"]["type"], event["utp"]["seq_nr"], event["utp"]["ack_nr"]) for event in sent] == [
            (NAMES[packet.type], packet.seq_nr, packet.ack_nr) for packet in recorder.packets
        ]
        assert [event["raw"]["length"] for event in sent] == [len(datagram.data) for datagram in recorder.datagrams]


def test_a_trace_has_every_packet_that_came(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """The payload that came once, and what came twice, adds up to what the connection counted."""
    directory, pair, _ = traced
    connection = pair.server.connection
    received = events_of(directory / "server.qlog", "transport:packet_received")
    [syn] = [event["header"]["packet_number"] for event in received if event["utp"]["type"] == "SYN"]
    # A packet with the number of the SYN only asks whether we are there.
    streams = [event for event in received if event["utp"]["type"] == "DATA" and event["header"]["packet_number"] > syn]

    # The SYN is not given to the connection, and it may refuse some with an old ack.
    assert connection.segments_received < len(received) <= pair.up.sent - pair.up.dropped
    assert len({event["header"]["packet_number"] for event in streams}) < len(streams)
    by_number = {event["header"]["packet_number"]: event["raw"]["payload_length"] for event in streams}
    assert sum(by_number.values()) == connection.bytes_received == len(CHUNK) * 5


def test_what_was_lost_had_left_and_left_again(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """Each loss is of a packet that was sent before, and a retransmission of it follows."""
    directory, pair, _ = traced
    events = events_of(directory / "client.qlog")
    sent: set[int] = set()
    waiting: list[int] = []
    losses = resent = 0
    for event in events:
        data = event["data"]
        if event["name"] == "recovery:packet_lost":
            losses += 1
            assert data["header"]["packet_number"] in sent
            waiting.append(data["header"]["packet_number"])
        elif event["name"] == "transport:packet_sent" and "packet_number" in data["header"]:
            number = data["header"]["packet_number"]
            if data["utp"].get("retransmission"):
                resent += 1
                assert number in sent
            sent.add(number)
            if number in waiting:
                assert data["utp"]["retransmission"]
                waiting.remove(number)

    assert losses == pair.client.connection.sending.given_up_segments > 3
    assert resent == pair.client.connection.sending.segments_resent > 3
    # What arrives late needs no second transmission.
    assert len(waiting) <= pair.client.connection.sending.spurious_segments


def test_acks_are_of_packets_that_left(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """As qvis joins them: an ack in a received packet, and the packet with that number and of that type."""
    directory, _, _ = traced
    for name in ("client", "server"):
        sent = set()
        acked = set()
        for event in events_of(directory / f"{name}.qlog"):
            header = event["data"].get("header", {})
            if event["name"] == "transport:packet_sent" and "presence_probe" not in event["data"]["utp"]:
                sent.add((header["packet_type"], header.get("packet_number")))
            elif event["name"] == "transport:packet_received":
                for frame in event["data"]["frames"]:
                    for first, last in frame.get("acked_ranges", ()):
                        acked |= {(header["packet_type"], number) for number in range(first, last + 1)}
        numbered = {key for key in sent if key[1] is not None}
        first = min(number for _, number in numbered)
        # Before its own first packet a server acknowledges the number below it.
        assert {key for key in acked if key[1] >= first} == numbered


def test_the_frame_of_the_file_is_what_qvis_reads(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """Version, format, a reference time; each event has a time that does not go back, a name, and a group."""
    directory, _pair, _ = traced
    header, events = read_qlog(directory / "client.qlog")
    listed = list(events)

    assert (header["qlog_version"], header["qlog_format"]) == ("0.3", "JSON-SEQ")
    assert header["trace"]["vantage_point"] == {"name": "here", "type": "client"}
    assert header["trace"]["common_fields"]["time_format"] == "relative"
    assert header["trace"]["common_fields"]["reference_time"] == 0
    times = [event["time"] for event in listed]
    assert times == sorted(times)
    assert {event["group_id"] for event in listed} == {f"1 {SERVER}:6881"}
    assert {event["name"] for event in listed} == {
        "connectivity:connection_started",
        "connectivity:connection_state_updated",
        "connectivity:connection_closed",
        "recovery:metrics_updated",
        "recovery:packet_lost",
        "transport:packet_received",
        "transport:packet_sent",
        "utp:metrics_updated",
    }
    assert listed[-1]["data"] == {"reason": "DONE"}


def test_metrics_end_where_the_connection_does(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """Only changes are written, so the last values are those of the connection at its end."""
    directory, pair, _ = traced
    told: dict[str, Any] = {}
    for name in ("recovery:metrics_updated", "utp:metrics_updated"):
        for data in events_of(directory / "client.qlog", name):
            assert all(told.get(key) != value for key, value in data.items())
            told |= data

    stats = pair.client.connection.stats(0)
    assert (told["bytes_acked"], told["bytes_retransmitted"]) == (len(CHUNK) * 5, stats.bytes_retrans)
    assert (told["congestion_window"], told["bytes_in_flight"]) == (stats.cwnd, 0)
    assert (told["smoothed_rtt"], told["min_rtt"]) == (stats.rtt, stats.minrtt)


def test_a_trace_changes_nothing(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """The same run without a trace has the same datagrams at the same times."""
    _, _, recorders = traced
    _, again = transfer(None)

    for one, other in zip(recorders, again, strict=True):
        assert [(d.sent_at_us, d.data) for d in one.datagrams] == [(d.sent_at_us, d.data) for d in other.datagrams]


def test_without_a_trace_nothing_is_in_the_way(tmp_path: Path) -> None:
    """Before the first trace, and after the last one, a port has the classes of every other one."""
    pair = Pair(Link(delay_us=10_000))
    utp = pair.client.transport._utp
    plain = (Multiplexer, vars(utp.multiplexer).keys(), utp.port)

    first, second = (trace_connection(pair.client.transport, tmp_path / name) for name in ("one", "two"))
    assert type(utp.multiplexer) is not Multiplexer
    assert utp.port is not plain[2]
    first.stop()
    pair.client.transport.write(b"only in the second one")
    pair.run(1)
    second.stop()
    second.stop()
    pair.client.transport.write(b"in none")
    pair.run(1)

    assert (type(utp.multiplexer), vars(utp.multiplexer).keys(), utp.port) == plain
    assert events_of(tmp_path / "one", "transport:packet_sent") == []
    first_sent, *others = events_of(tmp_path / "two", "transport:packet_sent")
    assert first_sent["raw"]["payload_length"] == len(b"only in the second one")
    assert len(b"in none") not in {data["raw"]["payload_length"] for data in others}


def test_a_transfer_that_is_not_traced_calls_nothing_of_traces() -> None:
    """Not a single function of theirs, from the first packet to the last one."""
    called: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            called[Path(frame.f_code.co_filename).as_posix().rpartition("/txutp/")[2]] += 1

    pair = Pair(lossy())
    before = sys.getprofile()
    sys.setprofile(count)
    try:
        pair.client.transport.write(CHUNK)
        pair.run(10)
    finally:
        sys.setprofile(before)

    assert len(pair.server.received) == len(CHUNK)
    assert called["core/connection.py"] > 500
    assert not [name for name in called if re.search("qlog|tracing|monitoring|openports", name)]


def three_connections() -> tuple[Network, Any, Accepting, Accepting]:
    """Of one client to one port: the network, the port, and the factories of server and client."""
    network = Network(1)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000))
    accepting, connecting = Accepting(), Accepting()
    port = listenUTP(network.reactor(SERVER), 6881, accepting)
    endpoint = UTPClientEndpoint(network.reactor(CLIENT), SERVER, 6881)
    for _ in range(3):
        endpoint.connect(connecting)
    network.run(1)
    return network, port, accepting, connecting


def test_one_connection_of_several(tmp_path: Path) -> None:
    """Its own trace has nothing of the others, ends with it, and may stand beside that of the port."""
    network, port, accepting, connecting = three_connections()
    everything = trace_port(port, tmp_path / "port.qlog")
    alone = trace_connection(accepting.made[1].transport, tmp_path / "one.qlog")
    for number, stream in enumerate(connecting.made):
        stream.transport.write(bytes(100 * (number + 1)))
    network.run(1)
    for stream in connecting.made:
        stream.transport.loseConnection()
    network.run(30)

    groups = {event["group_id"] for event in events_of(tmp_path / "port.qlog")}
    assert len(groups) == 3
    assert "stopped" not in repr(everything)
    assert "stopped" in repr(alone)
    ours = events_of(tmp_path / "one.qlog")
    assert {event["group_id"].partition(" ")[0] for event in ours} == {"1"}
    received = [data["raw"]["payload_length"] for data in events_of(tmp_path / "one.qlog", "transport:packet_received")]
    assert sum(received) == len(accepting.made[1].received)
    assert ours[0]["data"]["initiator"] is False
    assert ours[-1]["name"] == "connectivity:connection_closed"
    everything.stop()


def test_what_the_kernel_has_joined_is_of_several_connections(tmp_path: Path) -> None:
    """Small packets of one peer's connections may leave, and be read, together."""
    network, port, accepting, connecting = three_connections()
    held: list[Datagram] = []

    def hold(datagram: Datagram) -> None:
        datagram.dropped = True
        held.append(datagram)

    network.link(CLIENT, SERVER).hook = hold
    for stream in connecting.made:
        stream.transport.write(b"hello")
    network.run(0.001)
    network.link(CLIENT, SERVER).hook = None
    assert [len(datagram.data) for datagram in held] == [25, 25, 25]

    trace_port(port, tmp_path / "port.qlog")
    utp = port._utp
    assert utp is not None
    utp.datagrams_received(b"".join(datagram.data for datagram in held), 25, held[0].source)
    utp.drained()

    events = events_of(tmp_path / "port.qlog")
    received = [event for event in events if event["name"] == "transport:packet_received"]
    assert len({event["group_id"] for event in received}) == len(received) == 3
    counts = [e["data"]["bytes_received"] for e in events if e["data"].get("bytes_received")]
    assert counts == [5, 5, 5]
    assert [stream.received for stream in accepting.made] == [b"hello"] * 3


def test_a_reactors_trace_has_ports_that_are_opened_later(tmp_path: Path) -> None:
    """Clients leave from a port that did not exist when the trace began; after ``stop`` new ones are not traced."""
    network = Network(1)
    listenUTP(network.reactor(SERVER), 6881, Accepting())
    client = network.reactor(CLIENT)
    tracing = trace_reactor(client, tmp_path / "client.qlog")
    endpoint = UTPClientEndpoint(client, SERVER, 6881)
    for _ in range(2):
        connecting = Accepting()
        endpoint.connect(connecting)
        network.run(1)
        connecting.made[0].transport.loseConnection()
        network.run(60)  # the port closes
    tracing.stop()
    size = (tmp_path / "client.qlog").stat().st_size
    endpoint.connect(Accepting())
    network.run(1)

    assert len(events_of(tmp_path / "client.qlog", "connectivity:connection_closed")) == 2
    assert (tmp_path / "client.qlog").stat().st_size == size


def test_what_a_full_socket_refuses_has_not_left(tmp_path: Path) -> None:
    """It takes some of a batch, and the others later: each is in the trace once, when it has left."""
    pair = Pair(Link(delay_us=10_000))
    recorder = Recorder()
    [port] = [port for (host, _), port in pair.network.ports.items() if host == CLIENT]
    refusals = 0

    def fill(datagram: Datagram) -> None:
        nonlocal refusals
        recorder(datagram)
        if len(recorder.datagrams) % 4 == 3:
            refusals += 1
            port.refusing = True
            pair.network.call_at(pair.network.now_us + 1_000, lambda: setattr(port, "refusing", False))

    pair.up.hook = fill
    trace_connection(pair.client.transport, tmp_path / "one.qlog")
    pair.client.transport.write(CHUNK)
    pair.run(10)

    assert len(pair.server.received) == len(CHUNK)
    assert refusals > 10
    sent = events_of(tmp_path / "one.qlog", "transport:packet_sent")
    assert [event["utp"]["seq_nr"] for event in sent] == [packet.seq_nr for packet in recorder.packets]
    assert events_of(tmp_path / "one.qlog", "utp:send_failed") == []


def test_what_the_system_refuses_to_send_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such packets count as lost, and are no packets that were sent."""
    pair = Pair(Link(delay_us=10_000))
    trace_connection(pair.client.transport, tmp_path / "one.qlog")

    def write(port: SimulatedPort, packet: bytes, address: Any = None) -> None:
        raise OSError(errno.ENETUNREACH, "no route")

    with monkeypatch.context() as context:
        context.setattr(SimulatedPort, "write", write)
        pair.client.transport.write(b"hello")
        pair.run(0.01)
    pair.run(5)

    [failed, *_] = events_of(tmp_path / "one.qlog", "utp:send_failed")
    assert failed == {"packets": 1, "reason": "ENETUNREACH"}
    first_sent, *_ = events_of(tmp_path / "one.qlog", "transport:packet_sent")
    assert first_sent["raw"]["payload_length"] == len(b"hello")
    assert pair.server.received == b"hello"


class Strange(Ledbat):
    """A controller of an application, with figures that JSON does not have, and then none at all."""

    is_broken = False

    @property
    def target_delay_us(self) -> float:  # type: ignore[override]
        if self.is_broken:
            raise ZeroDivisionError("a fault of the application")
        return float("inf")

    @target_delay_us.setter
    def target_delay_us(self, value: int) -> None:
        """It has its own."""

    def on_ack(self, ack: Acknowledgement) -> None:
        """The window stays as it is."""


def test_a_strange_controller_ends_its_own_trace_alone(tmp_path: Path) -> None:
    """Numbers that JSON does not have are null; a controller that raises when it is asked costs no byte."""
    pair = Pair(Link(delay_us=10_000), settings=Settings(congestion=Strange))
    trace_reactor(pair.client_reactor, tmp_path / "x.qlog")
    pair.client.transport.write(CHUNK)
    pair.run(1)
    targets = [data.get("target_delay") for data in events_of(tmp_path / "x.qlog", "utp:metrics_updated")]
    assert set(targets) == {None}
    assert b"Infinity" not in (tmp_path / "x.qlog").read_bytes()

    controller = pair.client.connection.sending.controller
    assert isinstance(controller, Strange)
    controller.is_broken = True
    with capturedLogs() as logged:
        pair.client.transport.write(CHUNK)
        pair.run(20)

    assert len(pair.server.received) == 2 * len(CHUNK)
    assert [event["log_format"] for event in logged] == ["the trace of {connection} raised"]


def test_a_connection_that_gives_way_is_traced_to_its_end(tmp_path: Path) -> None:
    """Many SYNs and no proof: the first half-open ones are evicted, and nothing of them is left in the trace."""
    network = Network(1)
    network.connect(CLIENT, SERVER, Link(delay_us=5_000))
    port = listenUTP(network.reactor(SERVER), 6881, Accepting(), settings=Settings(maximum_half_open=50))
    tracing = trace_port(port, tmp_path / "port.qlog")
    talker = DatagramProtocol()
    network.reactor(CLIENT).listenUDP(7, talker)
    for number in range(200):
        syn = Packet(ST_SYN, 2 * number, 1, 0, 1_000, 1, 0).encode()
        talker.transport.write(syn, (SERVER, 6881))
        network.run(0.01)
        if number % 3 == 0:  # the same peer, started again
            talker.transport.write(Packet(ST_SYN, 2 * number, 1, 0, 1_000, 7, 0).encode(), (SERVER, 6881))
    network.run(300)
    port.stopListening()
    network.run(60)

    started = events_of(tmp_path / "port.qlog", "connectivity:connection_started")
    closed = events_of(tmp_path / "port.qlog", "connectivity:connection_closed")
    assert len(started) == len(closed) >= 60
    assert [data["reason"] for data in closed].count("EVICTED") >= 10
    assert "stopped" in repr(tracing)
    assert tracing._sink._groups == {}


def test_a_full_disk_ends_the_trace_alone(tmp_path: Path) -> None:
    """What was written stays, an error is logged, and the transfer goes on."""
    pair = Pair(Link(delay_us=10_000))
    tracing = trace_connection(pair.client.transport, tmp_path / "one.qlog")
    pair.client.transport.write(b"a")
    pair.run(1)
    file = tracing._sink.file
    whole = file.path.read_bytes()

    class Full:
        closed = False

        def write(self, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            self.closed = True

    file._file.close()
    file._file = Full()  # type: ignore[assignment]
    pair.client.transport.write(CHUNK)
    pair.run(5)

    assert file.path.read_bytes() == whole
    assert not file.is_open
    assert len(pair.server.received) == 1 + len(CHUNK)


def test_a_record_that_is_cut_off_is_passed_over(tmp_path: Path) -> None:
    """A machine that loses power may cut the last record off, or leave zeros."""
    pair = Pair(Link(delay_us=10_000))
    trace_connection(pair.client.transport, tmp_path / "one.qlog").stop()
    path = tmp_path / "one.qlog"
    whole = path.read_bytes()
    count = len(list(read_qlog(path)[1]))

    path.write_bytes(whole[:-5])
    assert len(list(read_qlog(path)[1])) == count - 1
    path.write_bytes(whole + b"\x1e\0\0\0\n\x1e[1]\n\x1e7\n")
    assert len(list(read_qlog(path)[1])) == count
    for content in (b"", b"\x1e{}\n", b"plain text", whole[10:]):
        path.write_bytes(content)
        with pytest.raises(NotAQlogFile):
            read_qlog(path)


def test_what_cannot_be_traced_is_told_at_once(tmp_path: Path) -> None:
    """A sentence in the caller's stack, and no file."""
    pair = Pair(Link(delay_us=10_000))
    path = tmp_path / "x.qlog"
    transport = pair.client.transport
    utp_port: Any = pair.ports[0]
    for call, problem, words in (
        (lambda: trace_connection(object(), path), TypeError, "not a transport over uTP"),
        (lambda: trace_port(transport, path), TypeError, "a listening port"),
        (lambda: trace_reactor(pair.client_reactor, path, vantage_point="middle"), ValueError, "a vantage point"),
        (lambda: trace_reactor(pair.client_reactor, tmp_path), IsADirectoryError, "Is a directory"),
    ):
        with pytest.raises(problem, match=words):
            call()
    transport.abortConnection()
    utp_port.stopListening()
    pair.run(60)
    for call in (lambda: trace_connection(transport, path), lambda: trace_port(utp_port, path)):
        with pytest.raises(ValueError, match="nothing to trace"):
            call()
    assert not path.exists()
    assert isinstance(trace_reactor(pair.client_reactor, path), Tracing)


def test_types_that_take_no_number_have_none(traced: tuple[Path, Pair, list[Recorder]]) -> None:
    """A STATE carries the number of the next packet, whose acknowledgement is not its own."""
    directory, _, _ = traced
    for event in events_of(directory / "client.qlog", "transport:packet_sent"):
        numbered = event["utp"]["type"] in {NAMES[kind] for kind in (ST_DATA, ST_FIN, ST_SYN)}
        assert ("packet_number" in event["header"]) == numbered


def test_time_never_goes_back_in_a_file(tmp_path: Path) -> None:
    """A connection may be evicted while a packet is taken that came a little earlier; qvis wants events in order."""
    pair = Pair(Link(delay_us=10_000))
    file = QlogFile(tmp_path / "x.qlog", "title", "unknown", 0)
    sink = Sink(file, None, 1_000)

    for now_us in (5_000, 4_999, 6_000):
        sink.write(pair.client.connection, [("a:b", {})], now_us)

    assert [event["time"] for event in events_of(tmp_path / "x.qlog")] == [4, 4, 5]
