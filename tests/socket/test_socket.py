"""Sockets and servers in Node's style: what a program sees, in virtual time, and with libutp on the loopback."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorPluggableNameResolver
from twisted.logger import globalLogPublisher
from zope.interface import alsoProvides

from tests.interop.support import HERE as INTEROP
from tests.interop.support import TRANSPORT, running, seeded_bytes, tally_of, within
from tests.socket.test_program import output_of
from tests.wire.test_transfer import pattern
from txutp.socket import Address, Server, Socket, WriteAfterEnd, connect, createServer
from txutp.socket.events import Emitter
from txutp.testing import Link, Network

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "10.0.0.2"
THERE = "10.0.0.1"
PORT = 6881
EVENTS = ("lookup", "connect", "ready", "data", "end", "finish", "error", "close", "drain", "timeout")


@dataclass
class Scene:
    """A server on one host, which keeps what it accepts, and sockets that connect to it from another."""

    link: Link = field(default_factory=lambda: Link(delay_us=10_000))
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 1

    def __post_init__(self) -> None:
        self.network = Network(self.seed)
        self.network.connect(HERE, THERE, self.link)
        self.here, self.there = self.network.reactor(HERE), self.network.reactor(THERE)
        self.accepted: list[Socket] = []
        self.server = createServer(self.accepted.append, reactor=self.there, **self.options).listen(PORT)

    def connect(self, **options: Any) -> Socket:
        """A socket on its way to the server."""
        return connect(PORT, THERE, reactor=self.here, **options)

    def pair(self, **options: Any) -> tuple[Socket, Socket]:
        """A socket that is connected, and the one that the server has for it."""
        socket = self.connect(**options)
        assert self.run(until=lambda: bool(self.accepted) and not socket.connecting)
        return socket, self.accepted[-1]

    def run(self, seconds: float = 60, until: Callable[[], bool] | None = None) -> bool:
        return self.network.run(seconds, until)


def written_down(emitter: Emitter, *names: str) -> list[Any]:
    """A list that gets every event of these names (all by default): its name, and its arguments if it has some."""
    events: list[Any] = []
    for name in names or EVENTS:

        def happened(*arguments: Any, name: str = name) -> None:
            events.append((name, *arguments) if arguments else name)

        emitter.on(name, happened)
    return events


def collected(socket: Socket) -> list[Any]:
    """A list that gets all data."""
    data: list[Any] = []
    socket.on("data", data.append)
    return data


def types(events: list[Any]) -> list[Any]:
    """Events with the types of exceptions in the place of these."""
    return [
        tuple(type(part) if isinstance(part, Exception) else part for part in event)
        if isinstance(event, tuple)
        else event
        for event in events
    ]


@contextmanager
def logged_failures() -> Iterator[list[Any]]:
    """What was logged with a failure meanwhile: its events."""
    events: list[Any] = []

    def observe(event: Any) -> None:
        if event.get("log_failure") is not None or event["log_level"].name == "critical":
            events.append(event)

    globalLogPublisher.addObserver(observe)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(observe)


def outcome_of(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets what a Deferred fires with: a value, or the type of an exception."""
    outcome: list[Any] = []
    deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.type))
    return outcome


# -- a connection from begin to end --


def test_a_conversation() -> None:
    """The events of both sides, in their order."""
    scene = Scene()
    there: list[Any] = []

    @scene.server.on("connection")
    def accept(socket: Socket) -> None:
        there.append(written_down(socket))
        socket.write("hi")

    socket = scene.connect()
    here = written_down(socket.setEncoding("utf8"))
    assert socket.connecting
    assert socket.write("hello ", "utf8", lambda problem: here.append(("written", problem)))
    socket.end("world", "utf8", lambda problem: here.append(("ended", problem)))
    scene.run()

    assert there == [[("data", b"hello world"), "end", "finish", ("close", False)]]
    told = [("written", None), "finish", ("ended", None)]
    assert here == ["connect", "ready", *told, ("data", "hi"), "end", ("close", False)]


def test_nothing_is_emitted_from_within_a_call() -> None:
    """Connecting, listening, failing, destroying, callbacks: all of it comes in a later turn, in its order."""
    scene = Scene()
    server = Server(reactor=scene.there)
    heard = written_down(server, "listening", "close")
    server.listen(PORT + 1, lambda: heard.append("listener"))
    server.getConnections(lambda problem, count: heard.append(count))
    server.close(lambda: heard.append("closed"))
    assert heard == []
    scene.run(1)
    assert heard == ["listening", "listener", 0, "closed", "close"]

    socket, _ = scene.pair()
    heard = written_down(socket)
    socket.write(b"", callback=lambda: heard.append("written"))
    socket.write(b"x", callback=lambda: heard.append("not written"))
    socket.end(lambda: heard.append("not ended"))
    socket.end(b"late", callback=lambda: heard.append("too late"))
    socket.write(b"later", callback=lambda: heard.append("later"))
    socket.destroy()
    assert heard == []
    scene.run(1)
    end = ["too late", ("error", WriteAfterEnd), "not written", "not ended", ("close", True), "later"]
    assert types(heard) == ["written", *end]


def test_a_refused_connection_is_an_error_and_a_close() -> None:
    """What was written gets the error too; there is no other event."""
    scene = Scene()
    scene.server.close()
    socket = scene.connect()
    events = written_down(socket)
    socket.write(b"x", callback=lambda problem: events.append(("written", problem)))
    socket.end(lambda problem: events.append(("ended", problem)))
    scene.run()

    refused = error.TimeoutError
    assert types(events) == [("error", refused), ("written", refused), ("ended", refused), ("close", True)]
    assert socket.destroyed
    assert (socket.readyState, socket.connecting, socket.address()) == ("closed", False, None)


@dataclass
class Names:
    """A resolver that knows two addresses of one name."""

    addresses: tuple[str, ...] = (THERE, "fd00::1")

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int, **options: Any) -> None:
        """Answer within the call."""
        receiver.resolutionBegan(object())
        for host in self.addresses:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("UDP", host, portNumber))
        receiver.resolutionComplete()


def looking_up(scene: Scene, *addresses: str) -> None:
    """Let every name have these addresses."""
    scene.here.nameResolver = Names(addresses)  # type: ignore[attr-defined]
    alsoProvides(scene.here, IReactorPluggableNameResolver)


def test_a_lookup_is_an_event_for_each_address() -> None:
    """It comes before anything else; an address of numbers is not looked up."""
    scene = Scene()
    looking_up(scene, THERE, "fd00::1")
    socket = Socket(scene.here)
    events = written_down(socket)
    socket.connect(PORT, "server.example")
    assert events == []
    scene.run(1)
    name = "server.example"
    assert events == [("lookup", None, THERE, 4, name), ("lookup", None, "fd00::1", 6, name), "connect", "ready"]
    events = written_down(scene.connect())
    scene.run(1)
    assert events == ["connect", "ready"]


def test_a_name_that_nobody_knows_is_a_lookup_with_an_error() -> None:
    scene = Scene()
    looking_up(scene)
    socket = Socket(scene.here)
    events = written_down(socket)
    socket.connect(PORT, "server.example")
    scene.run(1)
    unknown = error.DNSLookupError
    assert types(events) == [("lookup", unknown, None, None, "server.example"), ("error", unknown), ("close", True)]


def test_destroy_within_a_lookup() -> None:
    """Nothing more is said about the name, and nobody connects."""
    scene = Scene()
    looking_up(scene, THERE, "fd00::1")
    socket = Socket(scene.here)
    events = written_down(socket)
    socket.once("lookup", socket.destroy)
    socket.connect(PORT, "server.example")
    scene.run(1)
    assert events == [("lookup", None, THERE, 4, "server.example"), ("close", False)]
    assert scene.accepted == []
    assert list(scene.network.ports) == [(THERE, PORT)]


def test_a_socket_connects_again_after_its_end() -> None:
    """Its counters begin again; what was said to it stays: listeners, the encoding, half open or not."""
    scene = Scene()
    scene.server.on("connection", lambda accepted: accepted.pipe(accepted))
    socket = Socket(scene.here)
    events = written_down(socket)
    seen: list[tuple[int, int, bool]] = []
    socket.setEncoding("utf8")
    socket.on("connect", lambda: socket.end("caf\N{LATIN SMALL LETTER E WITH ACUTE}"))

    @socket.on("close")
    def again() -> None:
        seen.append((socket.bytesRead, socket.bytesWritten, socket.destroyed))
        if len(seen) < 3:
            socket.connect(PORT, THERE)

    socket.connect(PORT, THERE)
    scene.run(60)
    once = ["connect", "ready", ("data", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"), "finish", "end", ("close", False)]
    assert [event for event in events if event != "finish"] == [event for event in once * 3 if event != "finish"]
    assert events.count("finish") == 3
    assert seen == [(5, 5, True)] * 3
    assert len(scene.accepted) == 3
    assert list(scene.network.ports) == [(THERE, PORT)]


def test_a_socket_connects_again_after_a_failure() -> None:
    """Half a character, a pipe and an error do not get into the next connection."""
    scene = Scene()
    socket = Socket(scene.here)
    events = written_down(socket, "connect", "data", "error", "close")
    sink: list[Any] = []
    socket.pipe(type("Sink", (), {"write": staticmethod(sink.append)})())
    socket.setEncoding("utf8")
    socket.connect(PORT + 1, THERE)
    scene.run(31)
    assert types(events) == [("error", error.TimeoutError), ("close", True)]
    events.clear()

    socket.connect(PORT, THERE)
    scene.run(1)
    scene.accepted[0].write(b"\xc3")
    scene.run(1)
    scene.accepted[0].resetAndDestroy()
    scene.run(1)
    assert types(events) == ["connect", ("error", error.ConnectionLost), ("close", True)]
    events.clear()

    socket.connect(PORT, THERE)
    scene.run(1)
    scene.accepted[1].end("ok")
    scene.run(1)
    assert events == ["connect", ("data", "ok"), ("close", False)]
    assert sink == []


def test_a_connection_that_was_left_does_not_end_the_next_one() -> None:
    """After destroy the old one closes in the background, while the socket has a new one already."""
    scene = Scene(Link(delay_us=500_000))
    socket, accepted = scene.pair()
    accepted.on("data", print)
    socket.write("x" * 5_000)
    events = written_down(socket)
    socket.destroy()
    with pytest.raises(RuntimeError, match="after its event close"):
        socket.connect(PORT, THERE)
    scene.run(0.001)
    assert events == [("close", False)]
    socket.connect(PORT, THERE)
    scene.run(10)
    assert accepted.destroyed
    assert events == [("close", False), "connect", "ready"]
    assert socket.readyState == "open"
    assert len(scene.accepted) == 2


def test_ready_states() -> None:
    scene = Scene(options={"allowHalfOpen": True})
    states = [Socket(scene.here).readyState]
    socket = scene.connect()
    states.append(socket.readyState)
    scene.run(1)
    states.append(socket.readyState)
    socket.end()
    states.append(socket.readyState)
    scene.run(1)
    states.append(scene.accepted[0].readyState)
    scene.accepted[0].end()
    scene.run()
    states += [socket.readyState, scene.accepted[0].readyState]
    assert states == ["closed", "opening", "open", "readOnly", "writeOnly", "closed", "closed"]


def test_addresses() -> None:
    """Both sides agree; before and after the connection there are none."""
    scene = Scene()
    fresh = Socket(scene.here)
    assert (fresh.address(), fresh.localAddress, fresh.localPort, fresh.remoteAddress) == (None, None, None, None)
    socket, accepted = scene.pair()
    assert socket.address() == Address(HERE, "IPv4", socket.localPort or 0)
    assert accepted.address() == (THERE, "IPv4", PORT)
    assert (socket.localAddress, socket.localFamily) == (HERE, "IPv4")
    assert (socket.remoteAddress, socket.remoteFamily, socket.remotePort) == (THERE, "IPv4", PORT)
    assert (accepted.remoteAddress, accepted.remotePort) == (HERE, socket.localPort)
    assert scene.server.address() == (THERE, "IPv4", PORT)
    socket.destroy()
    assert (socket.address(), socket.remoteFamily, socket.remotePort) == (None, None, None)


def test_addresses_of_ipv6() -> None:
    network = Network()
    accepted: list[Socket] = []
    server = createServer(accepted.append, reactor=network.reactor("fd00::1")).listen(PORT, "fd00::1")
    socket = connect(PORT, "fd00::1", reactor=network.reactor("fd00::2"))
    assert network.run(5, until=lambda: bool(accepted))
    assert server.address() == ("fd00::1", "IPv6", PORT)
    assert (socket.remoteAddress, socket.remoteFamily) == ("fd00::1", "IPv6")


def test_bytes_are_counted() -> None:
    """Written are those that wait as well, as bytes and not as characters."""
    scene = Scene()
    socket = scene.connect()
    socket.write("h\N{LATIN SMALL LETTER E WITH ACUTE}llo")
    socket.write("6869", "hex")
    assert (socket.bytesWritten, socket.writableLength) == (8, 8)
    socket.write(pattern(1_000_000))
    assert (socket.bytesWritten, socket.writableLength) == (1_000_008, 1_000_008)
    scene.run(until=lambda: bool(scene.accepted))
    scene.accepted[0].resume()
    scene.run()
    assert (scene.accepted[0].bytesRead, socket.bytesWritten, socket.writableLength) == (1_000_008, 1_000_008, 0)
    assert (socket.bytesRead, scene.accepted[0].bytesWritten) == (0, 0)


# -- end, and its kinds --


def test_end_closes_one_half() -> None:
    """The other side goes on for as long as it likes, if it wants that."""
    scene = Scene(options={"allowHalfOpen": True})
    socket, accepted = scene.pair()
    here, there = written_down(socket), written_down(accepted)
    socket.end(b"question")
    scene.run(10)
    accepted.write(b"answer, ")
    scene.run(10)
    assert here == ["finish", ("data", b"answer, ")]
    assert there == [("data", b"question"), "end"]
    accepted.end(b"and end")
    scene.run(10)
    assert here[2:] == [("data", b"and end"), "end", ("close", False)]
    assert there[2:] == ["finish", ("close", False)]


def test_without_half_open_the_end_is_answered() -> None:
    """By default, as in net: what was written before still arrives."""
    scene = Scene()
    socket, accepted = scene.pair()
    data = collected(socket)
    accepted.resume()
    accepted.write(pattern(500_000))
    socket.end()
    scene.run()
    assert b"".join(data) == pattern(500_000)
    assert socket.destroyed
    assert accepted.destroyed


def test_an_end_without_data_comes_although_nobody_reads() -> None:
    """A socket that only writes needs no listener for data to be closed, nor does one that is paused."""
    scene = Scene()
    socket, accepted = scene.pair()
    here, there = written_down(socket, "end", "close"), written_down(accepted, "end", "close")
    accepted.pause()
    socket.end()
    scene.run()
    assert here == there == ["end", ("close", False)]


def test_end_behind_data_that_nobody_reads_waits() -> None:
    """The end comes after the data, as in Node.js."""
    scene = Scene()
    socket, accepted = scene.pair()
    there = written_down(accepted, "end", "close")
    socket.end(b"x")
    scene.run()
    assert there == []
    assert accepted.bytesRead == 1
    accepted.resume()
    scene.run()
    assert there == ["end", ("close", False)]


def test_write_after_end_is_an_error() -> None:
    """As in Node.js it destroys the socket; what was written before arrives."""
    scene = Scene()
    socket, accepted = scene.pair()
    data = collected(accepted)
    events = written_down(socket)
    socket.write(pattern(100_000))
    socket.end()
    assert socket.write(b"late", callback=lambda problem: events.append(("late", problem))) is False
    scene.run()
    assert types(events) == [("late", WriteAfterEnd), ("error", WriteAfterEnd), ("close", True)]
    assert str(events[1][1]) == "write after end"
    assert b"".join(data) == pattern(100_000)


def test_write_after_their_end_says_so() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    accepted.on("end", lambda: accepted.write("?"))
    accepted.on("end", lambda: scene.there.callLater(0, accepted.write, "!"))
    events = written_down(accepted, "error")
    socket.end()
    scene.run()
    assert [str(problem) for _, problem in events] == ["this socket has been ended by the other party"]


def test_end_twice_is_harmless() -> None:
    """Each callback is called, once."""
    scene = Scene()
    socket, _ = scene.pair()
    told: list[Any] = []
    socket.end(told.append).end(told.append)
    scene.run()
    socket.end(told.append)
    scene.run()
    assert told[:2] == [None, None]
    assert isinstance(told[2], error.ConnectionClosed)


def test_destroy_ends_it_at_once() -> None:
    """Nothing but ``error`` and ``close`` comes; what was written is still on its way; twice is once."""
    scene = Scene()
    socket, accepted = scene.pair()
    here, there = written_down(socket), written_down(accepted, "end", "error", "close")
    data = collected(accepted)
    accepted.write(b"never read")
    socket.write(pattern(300_000), lambda problem: here.append(("written", type(problem))))
    assert socket.destroy(ValueError("mine")).destroy(KeyError()) is socket
    assert (socket.destroyed, socket.readyState) == (True, "closed")
    scene.run()
    assert types(here) == [("error", ValueError), ("written", ValueError), ("close", True)]
    assert b"".join(data) == pattern(300_000)
    assert there == ["end", ("close", False)]


def test_destroy_without_an_error() -> None:
    scene = Scene()
    socket, _ = scene.pair()
    events = written_down(socket)
    socket.write(b"x", lambda problem: events.append(("written", type(problem))))
    socket.destroy()
    scene.run()
    assert events == [("written", error.ConnectionClosed), ("close", False)]


@pytest.mark.parametrize("begun", [False, True])
def test_destroy_before_it_is_connected(begun: bool) -> None:
    """There is no connection then, and no event but ``close``."""
    scene = Scene()
    socket = scene.connect() if begun else Socket(scene.here)
    events = written_down(socket)
    scene.run(0.01)
    socket.destroy()
    scene.run()
    assert events == [("close", False)]
    assert scene.accepted == []


def test_reset_and_destroy_is_an_error_there() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    here, there = written_down(socket), written_down(accepted)
    accepted.write(pattern(100_000), lambda problem: there.append(("written", problem)))
    socket.resetAndDestroy()
    scene.run()
    assert here == [("close", False)]
    assert types(there) == [("error", error.ConnectionLost), ("written", error.ConnectionLost), ("close", True)]


def test_destroy_within_a_listener() -> None:
    """Whatever the event: nothing comes after it but ``close``."""
    for name in ("connect", "ready", "data", "end", "drain", "finish"):
        scene = Scene()
        scene.server.on("connection", lambda socket: socket.pipe(socket))
        socket = scene.connect()
        events = written_down(socket)
        socket.on(name, lambda *arguments, socket=socket: socket.destroy())
        socket.write(pattern(300_000))
        if name != "drain":
            socket.end()
        scene.run()
        names = [event[0] if isinstance(event, tuple) else event for event in events]
        assert names[-2:] == [name, "close"]
        assert names.count("close") == 1


# -- servers --


def test_listening_is_an_event() -> None:
    """The address is known at once, and the listener is called once."""
    scene = Scene()
    heard: list[Any] = []
    server = Server(reactor=scene.there)
    assert server.address() is None
    assert server.listen(lambda: heard.append("listener")) is server
    events = written_down(server, "listening", "close")
    here = server.address()
    assert here is not None
    assert here.port > 0
    scene.run(1)
    assert (heard, events) == (["listener"], ["listening"])
    server.close()
    scene.run(1)
    assert events == ["listening", "close"]
    assert server.address() is None


def test_a_port_that_is_taken_is_an_error_event() -> None:
    """EADDRINUSE; the server may try again."""
    scene = Scene()
    server = Server(reactor=scene.there)
    events = written_down(server, "listening", "error", "close")
    server.listen(PORT)
    scene.run(1)
    assert types(events) == [("error", error.CannotListenError)]
    assert events[0][1].socketError.errno == 98
    server.listen(PORT + 1)
    scene.run(1)
    assert events[1:] == ["listening"]


def test_a_server_closes_when_its_last_connection_has() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    events = written_down(scene.server, "close")
    told: list[Any] = []
    assert scene.server.close(told.append) is scene.server
    scene.run(5)
    assert (scene.server.connections, events) == (1, [])
    accepted.on("close", lambda: events.append("the last connection"))
    socket.end()
    scene.run(5)
    assert (scene.server.connections, events, told) == (0, ["the last connection", "close"], [None])


def test_closing_a_server_that_does_not_listen() -> None:
    """The callback hears that, and ``close`` comes all the same."""
    scene = Scene()
    server = Server(reactor=scene.there)
    events = written_down(server, "close")
    told: list[Any] = []
    server.close(told.append)
    scene.run(1)
    assert [str(problem) for problem in told] == ["the server is not running"]
    assert events == ["close"]


def test_a_server_counts_and_limits_connections() -> None:
    scene = Scene()
    scene.server.maxConnections = 2
    sockets = [scene.connect() for _ in range(3)]
    events = [written_down(socket, "error", "close") for socket in sockets]
    told: list[Any] = []
    scene.run(5)
    assert scene.server.getConnections(lambda problem, count: told.append((problem, count))) is scene.server
    scene.run(1)
    assert told == [(None, 2)]
    assert sorted(len(heard) for heard in events) == [0, 0, 2]
    sockets[0].destroy()
    scene.run(5)
    assert scene.server.connections == 1


def test_listening_on_a_name() -> None:
    """The reactor looks it up; a name that it does not know is an error event."""
    scene = Scene()
    looking: list[Deferred[str]] = []

    def resolve(name: str) -> Deferred[str]:
        looking.append(Deferred())
        return looking[-1]

    scene.there.resolve = resolve  # type: ignore[attr-defined]
    server, other, closed = (Server(reactor=scene.there) for _ in range(3))
    events = [written_down(each, "listening", "error", "close") for each in (server, other, closed)]
    for each in (server, other, closed):
        each.listen(7_000, "this.example")
    closed.close()
    looking[0].callback(THERE)
    looking[1].errback(error.DNSLookupError("no such name"))
    looking[2].callback(THERE)
    scene.run(1)
    assert server.address() == (THERE, "IPv4", 7_000)
    assert [types(each) for each in events] == [["listening"], [("error", error.DNSLookupError)], ["close"]]


# -- listeners --


def test_what_a_listener_raises_harms_nobody() -> None:
    """Not the other listeners, not the connection; it is logged, that of an async one too."""
    scene = Scene()
    socket, accepted = scene.pair()

    def fail(*arguments: Any) -> None:
        raise ValueError("a listener's own")

    async def fail_later(data: bytes) -> None:
        raise ValueError("a coroutine's own")

    accepted.on("data", fail)
    accepted.on("data", fail_later)
    data = collected(accepted)
    with logged_failures() as logged:
        socket.end(b"x", callback=fail)
        scene.run()
    assert data == [b"x"]
    assert socket.destroyed
    assert [str(event["log_failure"].value) for event in logged] == [
        "a listener's own",
        "a coroutine's own",
        "a listener's own",
    ]


def test_an_error_that_nobody_listens_to_is_logged() -> None:
    scene = Scene()
    socket, accepted = scene.pair()
    socket.on("error", lambda: None)
    with logged_failures() as logged:
        socket.destroy(ValueError("heard"))
        accepted.destroy(ValueError("unheard"))
        scene.run()
    assert [str(event["log_failure"].value) for event in logged] == ["unheard"]
    assert "Unhandled error" in logged[0]["log_format"]
    with logged_failures() as logged:
        assert Emitter().emit("error", "just text") is False
    assert logged[0]["problem"] == "just text"


WRONG: list[tuple[type[Exception], str, Callable[[Socket], Any]]] = [
    (TypeError, "a port is an int", lambda socket: Socket(socket.reactor).connect("80")),  # type: ignore[arg-type]
    (ValueError, "from 1 to 65535", lambda socket: Socket(socket.reactor).connect(0)),
    (ValueError, "from 0 to 65535", lambda socket: Server(reactor=socket.reactor).listen(65_536)),
    (TypeError, "a host is a name", lambda socket: Socket(socket.reactor).connect(80, 5)),  # type: ignore[arg-type]
    (RuntimeError, "has a connection already", lambda socket: socket.connect(80)),
    (RuntimeError, "call connect before", lambda socket: Socket(socket.reactor).write("x")),
    (TypeError, "data is a str, or bytes", lambda socket: socket.write(5)),
    (TypeError, "data is a str, or bytes", lambda socket: socket.end([b"x"])),
    (ValueError, "unknown encoding 'utf9'; known are utf8", lambda socket: socket.write("x", "utf9")),
    (ValueError, "unknown encoding 'utf9'; known are utf8", lambda socket: socket.setEncoding("utf9")),
    (TypeError, "an encoding is a str", lambda socket: socket.setEncoding(8)),  # type: ignore[arg-type]
    (ValueError, "cannot be sent as hex", lambda socket: socket.write("abc", "hex")),
    (ValueError, "cannot be sent as hex", lambda socket: socket.write("zz", "hex")),
    (ValueError, "cannot be sent as base64", lambda socket: socket.write("aGk*", "base64")),
    (ValueError, "cannot be sent as base64", lambda socket: socket.write("a", "base64")),
    (ValueError, "cannot be sent as latin1", lambda socket: socket.write("\N{EURO SIGN}", "latin1")),
    (ValueError, "cannot be sent as utf8", lambda socket: socket.write("\ud800")),
    (TypeError, "a callback has to be", lambda socket: socket.write("x", "utf8", 5)),  # type: ignore[arg-type]
    (TypeError, "a callback has to be", lambda socket: socket.end(None, "utf8", 5)),  # type: ignore[arg-type]
    (TypeError, "a listener has to be", lambda socket: socket.on("data", 5)),  # type: ignore[call-overload]
    (TypeError, "the name of an event", lambda socket: socket.on(5, print)),  # type: ignore[call-overload]
    (TypeError, "number of milliseconds", lambda socket: socket.setTimeout("5")),  # type: ignore[arg-type]
    (ValueError, "0 or more", lambda socket: socket.setTimeout(-1)),
    (TypeError, "is an exception or None", lambda socket: socket.destroy("x")),  # type: ignore[arg-type]
    (TypeError, "a pipe leads to a Socket", lambda socket: socket.pipe(5)),  # type: ignore[type-var]
]


@pytest.mark.parametrize(("kind", "words", "misuse"), WRONG)
def test_misuse_raises_at_once(kind: type[Exception], words: str, misuse: Callable[[Socket], Any]) -> None:
    """In the caller's stack, with what is accepted; nothing has changed."""
    scene = Scene()
    socket, accepted = scene.pair()
    events = written_down(socket)
    with pytest.raises(kind, match=words):
        misuse(socket)
    scene.run(1)
    assert (events, socket.bytesWritten, accepted.bytesRead, socket.readyState) == ([], 0, 0, "open")


def test_a_server_listens_once() -> None:
    scene = Scene()
    with pytest.raises(RuntimeError, match="listens already"):
        scene.server.listen(PORT + 1)


# -- coroutines --


def test_with_coroutines() -> None:
    """A client and a server without a listener but the one for connections."""
    scene = Scene()
    heard: list[Any] = []

    @scene.server.on("connection")
    async def answer(socket: Socket) -> None:
        async for line in socket.setEncoding("utf8"):
            socket.write(line.upper())
            await socket.drained()
        heard.append("server")

    async def talk() -> str:
        server = await scene.server.listening()
        socket = await scene.connect().connected()
        socket.setEncoding("utf8")
        assert await socket.connected() is socket
        answers = []
        for word in ("one", "two"):
            socket.write(word)
            answers.append(await socket.received())
        socket.end()
        assert await socket.received() is None
        assert await socket.received() is None
        await socket.closed()
        await socket.closed()
        await server.close().closed()
        await server.closed()
        return " ".join(answers)

    outcome = outcome_of(ensureDeferred(talk()))
    scene.run()
    assert outcome == ["ONE TWO"]
    assert heard == ["server"]


def test_coroutines_have_back_pressure() -> None:
    """Between two awaits nothing is read; ``drained`` waits."""
    scene = Scene()
    socket, accepted = scene.pair()
    sent: list[int] = []

    async def send() -> None:
        for number in range(100):
            socket.write(pattern(30_000, number))
            sent.append(number)
            await socket.drained()
        socket.end()

    outcome = outcome_of(ensureDeferred(send()))
    scene.run(5)
    assert 20 < len(sent) < 60
    first = outcome_of(accepted.received())
    scene.run(5)
    assert len(first) == 1
    assert accepted.bytesRead < 1_000_000

    async def receive() -> int:
        return sum([len(data) async for data in accepted])

    total = outcome_of(ensureDeferred(receive()))
    scene.run()
    assert outcome == [None]
    assert total == [3_000_000 - len(first[0])]


def test_what_coroutines_await_fails_with_the_connection() -> None:
    """With its error, or because it is closed; afterwards at once."""
    scene = Scene()
    socket, accepted = scene.pair()
    socket.write(pattern(3_000_000))
    outcomes = [outcome_of(wait()) for wait in (socket.received, socket.drained, socket.closed)]
    accepted.resetAndDestroy()
    scene.run(5)
    outcomes += [outcome_of(wait()) for wait in (socket.received, socket.drained, socket.closed, socket.connected)]
    assert outcomes == [[error.ConnectionLost]] * 7

    other = scene.connect()
    outcomes = [outcome_of(wait()) for wait in (other.connected, other.received)]
    other.destroy()
    scene.run(5)
    assert outcomes == [[error.ConnectionClosed]] * 2
    assert outcome_of(other.closed()) == [None]


# -- with libutp --


@pytest.fixture
def peer() -> list[str]:
    """The command that runs a peer on libutp."""
    node = shutil.which("node")
    if node is None or not (INTEROP / "node_modules" / "utp-native").is_dir():
        pytest.skip("needs node, and `npm install` in tests/interop")
    if TRANSPORT == "tcp":
        pytest.skip("a Socket speaks uTP only")
    return [node, str(INTEROP / "peer.js")]


@pytest.mark.interop
@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_a_socket_talks_to_utp_native(peer: list[str]) -> None:
    """We connect, and what we send comes back."""
    data = seeded_bytes(1_000_000)
    async with running(*peer, "listen", "echo") as program:
        socket = await connect((await program.result())["port"], "127.0.0.1").connected()
        told: list[Any] = []
        socket.write("greeting, ", told.append)
        socket.end(data)
        received = b"".join([chunk async for chunk in socket])
        await socket.closed()
        result = await program.result()
    assert received == b"greeting, " + data
    assert result["received"] == tally_of(received)
    assert result["error"] is None
    assert told == [None]


@pytest.mark.interop
@pytest_twisted.ensureDeferred
@within(seconds=20)
async def test_utp_native_talks_to_a_server(peer: list[str]) -> None:
    """They connect, greet, send what they have and end; we echo the same."""
    received: list[bytes] = []

    def accept(socket: Socket) -> None:
        socket.on("data", received.append)
        socket.pipe(socket)

    server = await createServer(accept).listen(0, "127.0.0.1").listening()
    here = server.address()
    assert here is not None
    what = ["exchange", "--bytes", "1000000", "--greeting", "greeting, "]
    async with running(*peer, "connect", str(here.port), *what) as program:
        result = await program.result()
    await server.close().closed()
    assert result["received"] == result["sent"] == tally_of(b"".join(received))
    assert result["ended"]
    assert result["error"] is None


# -- documentation --

PAGE = (ROOT / "docs" / "reference" / "socket.md").read_text(encoding="utf-8")


def test_every_row_of_the_page_names_a_test() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", PAGE, re.MULTILINE)
    rows = [(name, cell) for name, cell in rows if name not in ("In Node.js", "---")]
    assert len(rows) > 40
    for name, cell in rows:
        tests = re.findall(r"`([\w/]+\.py)::(\w+)`", cell)
        assert tests, name
        for file, test in tests:
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), test


def test_the_page_has_every_public_name() -> None:
    """Methods and properties, and the events."""
    public = {name for kind in (Socket, Server) for name in dir(kind) if not name.startswith("_")}
    missing = [name for name in sorted(public | set(EVENTS)) if not re.search(rf"`{name}\b", PAGE)]
    assert missing == []


def test_the_program_of_the_page() -> None:
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    [said] = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert output_of([sys.executable, "-c", program]) == said


def test_the_example() -> None:
    """It ends by itself, and fits on a screen."""
    example = ROOT / "examples" / "node_style_echo.py"
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 30
    assert output_of([sys.executable, str(example)]) == "echo: Hello over uTP!\nserver closed\n"
