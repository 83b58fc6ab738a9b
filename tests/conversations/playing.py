"""Runs the program of a seed on a simulated network and checks it meanwhile: ``play`` returns an ``Outcome``."""

from __future__ import annotations

import gc
import random
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from tests.conversations import checks
from tests.conversations.program import (
    OPEN_SOCKET,
    SECOND_US,
    SERVER,
    SOCKET,
    SOCKETS,
    Part,
    Program,
    Span,
    Talk,
    Weather,
    draw,
)
from tests.conversations.speakers import Speaker
from tests.conversations.voices import SocketVoice, VoiceFactory, ssl
from tests.support import check_counts
from txutp import UTPClientEndpoint, listenUTP
from txutp.core.connection import Connection
from txutp.core.packet import ST_STATE
from txutp.protocol import UTPProtocol
from txutp.socket import Server, Socket
from txutp.testing import Datagram, Link, Network, SimulatedReactor
from txutp.transport import UTPTransport

# Where each kind of application listens.
PORTS = {SOCKET: 6882, OPEN_SOCKET: 6883}
PORT = 6881

# So often it is looked whether something moves.
LOOK_SECONDS = 5.0

# A connection moves, or it ends, within so many of the longest retransmission timeouts.
STILL_TIMEOUTS = 10
# What applications wait at most between two things that they do: the longest pause, and the longest delay.
STILL_SECONDS = 60
# One end that is alone hears that from an answer to its keepalives, some of which are lost.
ALONE_SECONDS = 1_200

# A server waits so long at most for those that it has answered, and packets may be under way.
LATE_SECONDS = 15

# No conversation takes longer.
LONGEST_SECONDS = 24 * 3_600

# How long it may take until nothing is left once everybody was told: a last ack may be asked for.
REST_SECONDS = 300

# Called with a network and the names of its hosts before anything happens there.
Record = Callable[[Network, list[str]], None]


@dataclass
class Outcome:
    """The result of a conversation: its failures, how much it carried, and how its connections ended."""

    seed: int
    failures: list[str] = field(default_factory=list)
    connections: int = 0
    bytes: int = 0
    virtual_seconds: float = 0.0
    endings: Counter[str] = field(default_factory=Counter)


class Internet(Network):
    """A network that shows each datagram to a trace."""

    trace: Callable[[str], None] | None = None

    def transmit(self, datagram: Datagram) -> None:
        link = self.link(datagram.source[0], datagram.destination[0])
        dropped = link.dropped
        super().transmit(datagram)
        if self.trace is not None:
            lost = " LOST" if link.dropped > dropped else ""
            where = f"{datagram.source[0]}:{datagram.source[1]} > {datagram.destination[0]}:{datagram.destination[1]}"
            self.trace(f"{self.now_us / SECOND_US:12.6f} {where} {datagram.packet!r}{lost}")


def is_in(spans: tuple[Span, ...], now_us: int) -> bool:
    return any(begin_us <= now_us < end_us for begin_us, end_us in spans)


def link_for(weather: Weather, network: Network) -> Link:
    """The link that behaves like this."""
    in_burst = False

    def loses() -> bool:
        nonlocal in_burst
        assert weather.bursts is not None
        begin, end = weather.bursts
        in_burst = network.random.random() >= end if in_burst else network.random.random() < begin
        return in_burst

    def hook(datagram: Datagram) -> None:
        if is_in(weather.outages, network.now_us):
            datagram.dropped = True
        data = datagram.data
        if weather.strips_selective_acks and data[0] >> 4 == ST_STATE and data[1]:
            datagram.data = data[:1] + b"\0" + data[2:20]

    return Link(
        delay_us=weather.delay_us,
        jitter_us=weather.jitter_us,
        keep_order=weather.keep_order,
        rate_bytes_per_second=weather.rate_bytes_per_second,
        queue_bytes=weather.queue_bytes,
        mtu_bytes=weather.mtu_bytes,
        loss=weather.loss,
        loses=None if weather.bursts is None else loses,
        reorder=weather.reorder,
        reorder_delay_us=weather.reorder_delay_us,
        duplicate=weather.duplicate,
        hook=hook,
    )


class Stage:
    """A program that runs."""

    def __init__(
        self, program: Program, trace: Callable[[str], None] | None = None, record: Record | None = None
    ) -> None:
        self.program = program
        self.failures: list[str] = []
        self.network = network = Internet(program.seed, program.interface_mtu_bytes)
        self._trace = network.trace = trace
        self._attempts = 0  # that have not been answered
        self._stopping = 0  # ports of which nobody has heard yet that they have stopped
        self._listening: dict[str, Any] = {}
        self._utps: weakref.WeakSet[UTPProtocol] = weakref.WeakSet()
        self._by_id: dict[tuple[Any, int], Speaker] = {}  # who speaks at the server, by address and id
        hosts = {SERVER: program.server, **program.clients}
        for name, host in hosts.items():
            reactor = network.reactor(name, host.clock_offset_us, host.clock_drift_ppm)
            for at_us, step in host.wall_clock_steps:
                network.call_at(at_us, lambda reactor=reactor, step=step: reactor.set_wall_clock(step))
            for span in host.refusals:
                for at_us, refusing in zip(span, (True, False), strict=True):
                    network.call_at(at_us, lambda name=name, refusing=refusing: self._refuse(name, refusing))
            for at_us in host.overflows:
                network.call_at(at_us, lambda name=name: self._overflow(name))
        if record is not None:
            record(network, list(hosts))
        for name in program.clients:
            network.connect(name, SERVER, link_for(program.up[name], network), link_for(program.down[name], network))
        self.speakers: list[tuple[Speaker, Speaker]] = []
        for number, talk in enumerate(program.talks):
            self._introduce(number, talk)
        self._kinds = {talk.server.kind if talk.server.kind in SOCKETS else "" for talk in program.talks}
        for kind in sorted(self._kinds):
            self._listen(kind)
        for begin_us, end_us in program.stops_listening:
            network.call_at(begin_us, self._stop_listening)
            if end_us > begin_us:
                network.call_at(end_us, self._listen_again)
            else:
                network.call_at(begin_us, self._listen_again)

    def _introduce(self, number: int, talk: Talk) -> None:
        def payload(part: Part, side: int) -> bytes:
            return random.Random(2 * number + side).randbytes(part.total_bytes)

        tls = talk.tls and ssl is not None
        client = Speaker(self, f"client {number}", talk.client, payload(talk.client, 0), talk.server.total_bytes, tls)
        server = Speaker(self, f"server {number}", talk.server, payload(talk.server, 1), talk.client.total_bytes, tls)
        client.peer, server.peer = server, client
        self.speakers.append((client, server))
        self.network.call_at(talk.begins_us, lambda: self._connect(client, talk))

    # -- called by speakers and voices --

    def later(self, after_us: int, function: Callable[[], None]) -> None:
        self.network.call_at(self.network.now_us + after_us, function)

    def note(self, speaker: Speaker, what: str) -> None:
        if self._trace is not None:
            self._trace(f"{self.network.now_us / SECOND_US:12.6f} {speaker} {what}")

    def client_is_up(self, client: Speaker, transport: Any) -> None:
        """A client knows its ids now, before the server can hear of it."""
        address = (transport.reactor.host, transport._utp.port_address.port)
        self._by_id[address, transport._connection.send_id] = client.peer

    def speaker_of(self, connection: Connection) -> Speaker | None:
        """Who speaks for a connection that a server has accepted."""
        speaker = self._by_id.pop((connection.address, connection.receive_id), None)
        if speaker is None:
            self.failures.append(f"a server accepts {connection}, which nobody has made")
            return None
        return speaker

    # -- hosts --

    def _refuse(self, host: str, refusing: bool) -> None:
        for (its_host, _), port in self.network.ports.items():
            if its_host == host:
                port.refusing = refusing

    def _overflow(self, host: str) -> None:
        for (its_host, _), port in list(self.network.ports.items()):
            if its_host == host:
                port.protocol.overflowed(1)

    # -- listening and connecting --

    def _listen(self, kind: str) -> None:
        reactor = self.network.reactor(SERVER)
        settings = self.program.server.settings
        if kind:
            server = Server(reactor=reactor, allowHalfOpen=kind == OPEN_SOCKET, settings=settings)
            server.on("connection", lambda socket: SocketVoice(self, socket))
            server.on("error", lambda problem: self.failures.append(f"listening again failed: {problem!r}"))
            server.listen(PORTS[kind])
            self._listening[kind] = server
        else:
            try:
                self._listening[kind] = listenUTP(reactor, PORT, VoiceFactory(self), settings=settings)
            except CannotListenError as problem:
                self.failures.append(f"listening again failed: {problem!r}")

    def _listen_again(self) -> None:
        for kind in sorted(self._kinds):
            self._listen(kind)

    def _stop_listening(self) -> None:
        for kind in sorted(self._listening):
            port = self._listening.pop(kind)
            self._stopping += 1
            if kind:
                port.close(self._stopped)
            else:
                stopped: Deferred[None] = port.stopListening()
                stopped.addBoth(self._stopped)

    def _stopped(self, result: Any) -> None:
        self._stopping -= 1

    def _connect(self, client: Speaker, talk: Talk) -> None:
        reactor = self.network.reactor(talk.client_host)
        settings = self.program.clients[talk.client_host].settings
        kind = talk.server.kind
        port = PORTS.get(kind, PORT)
        self.note(client, "begins to connect")
        if client.part.kind in SOCKETS:
            socket = Socket(reactor, allowHalfOpen=client.part.kind == OPEN_SOCKET, settings=settings)
            SocketVoice(self, socket, client)
            socket.connect(port, SERVER)
            if talk.gives_up_us is not None:
                self.later(talk.gives_up_us, lambda: None if client.made else socket.destroy() and None)
            return
        local = (talk.client_host, talk.own_port) if talk.own_port else None
        endpoint = UTPClientEndpoint(reactor, SERVER, port, bindAddress=local, settings=settings)
        attempt = endpoint.connect(VoiceFactory(self, client))
        self._attempts += 1
        attempt.addCallbacks(self._answered, lambda failure: self._refused(client, failure.value))
        if talk.gives_up_us is not None:
            self.later(talk.gives_up_us, lambda: None if client.made else attempt.cancel())

    def _answered(self, protocol: Any) -> None:
        self._attempts -= 1

    def _refused(self, client: Speaker, problem: BaseException) -> None:
        self._attempts -= 1
        client.refused = problem
        self.note(client, f"has no connection: {problem!r}")

    def is_answered(self, speaker: Speaker) -> bool:
        """Whether somebody still has the UDP port to which it is connected."""
        assert speaker.connection is not None
        return speaker.connection.address in self.network.ports

    # -- running --

    def run(self) -> None:
        """Run until every speaker has heard of its end."""
        network, program = self.network, self.program
        timeouts_us = [host.settings.maximum_timeout_us for host in (program.server, *program.clients.values())]
        still_us = STILL_TIMEOUTS * max(timeouts_us) + STILL_SECONDS * SECOND_US
        marks: list[Any] = [None] * len(self.speakers)
        moved_us = [0] * len(self.speakers)
        quiet_us = max(program.quiet_us, *(talk.begins_us for talk in program.talks))
        while network.now_us < LONGEST_SECONDS * SECOND_US:
            network.run(min(LOOK_SECONDS, 0.1 + network.now_us / SECOND_US / 10))
            self._look_at_counts()
            if network.now_us > program.quiet_us and self._is_over():
                # a server may still accept what its client has left already
                network.run(LATE_SECONDS)
                if self._is_over():
                    return
            for number, talk in enumerate(self.speakers):
                mark = checks.mark_of(talk)
                if mark != marks[number]:
                    marks[number] = mark
                    moved_us[number] = network.now_us
                    continue
                is_alone = sum(speaker.is_up for speaker in talk) < 2
                patience_us = max(still_us, ALONE_SECONDS * SECOND_US) if is_alone else still_us
                if network.now_us > max(moved_us[number], quiet_us) + patience_us:
                    moved_us[number] = network.now_us
                    checks.judge_stillness(self, number)
        self.failures.append(f"it is not over after {LONGEST_SECONDS} seconds")

    def _is_over(self) -> bool:
        return all(client.is_over and (server.is_over or not server.made) for client, server in self.speakers)

    def _look_at_counts(self) -> None:
        for port in self.network.ports.values():
            utp = port.protocol
            self._utps.add(utp)
            for connection in utp.multiplexer:
                try:
                    check_counts(connection.sending)
                except AssertionError as problem:
                    self.failures.append(f"the counts of {connection} are wrong: {problem}")

    def rest(self) -> None:
        """Stop listening, let the last acks come, and check that nothing is left."""
        network = self.network
        for port in network.ports.values():
            self._utps.add(port.protocol)
        self._stop_listening()
        network.run(REST_SECONDS)
        checks.check_nothing_is_left(self, self._utps)
        if self._attempts or self._stopping:
            self.failures.append(f"{self._attempts} attempts and {self._stopping} stopped ports were never told")


def play(
    seed: int,
    trace: Callable[[str], None] | None = None,
    program: Program | None = None,
    record: Record | None = None,
) -> Outcome:
    """Run the program of a seed and check everything."""
    outcome = Outcome(seed)
    logged: list[str] = []

    def observe(event: Any) -> None:
        if event.get("log_level", LogLevel.info) >= LogLevel.error or event.get("isError"):
            failure = event.get("log_failure")
            logged.append(f"{formatEvent(event)}: {failure.getTraceback() if failure is not None else ''}")

    before = in_memory()
    globalLogPublisher.addObserver(observe)
    try:
        stage = Stage(program or draw(seed), trace, record)
        try:
            stage.run()
            outcome.virtual_seconds = stage.network.now_us / SECOND_US
            stage.rest()
        except (RuntimeError, AssertionError) as problem:
            stage.failures.append(f"{type(problem).__name__}: {problem}")
        checks.check_speakers(stage, outcome)
        outcome.failures = stage.failures
        del stage
        left = in_memory() - before
        if left and not outcome.failures:
            outcome.failures.append(f"left in memory: {dict(left)}")
        outcome.failures += [f"logged: {line}" for line in logged]
    finally:
        globalLogPublisher.removeObserver(observe)
    return outcome


def in_memory() -> Counter[str]:
    """Connections, transports, ports, sockets and reactors that are alive, by type; frozen objects do not count."""
    gc.collect()
    kinds = (Connection, UTPTransport, UTPProtocol, Socket, SimulatedReactor)
    return Counter(type(thing).__name__ for thing in gc.get_objects() if isinstance(thing, kinds))
