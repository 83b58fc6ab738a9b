"""What raises in one connection is logged and ends that one; the others on its UDP port do not notice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error
from twisted.internet.protocol import ClientFactory, Factory
from twisted.python.failure import Failure

from tests.socket.test_socket import logged_failures
from tests.support import CLIENT, PORT, SERVER, Accepting, Stream
from tests.wire.test_transfer import pattern
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, connectUTP
from txutp.core.batch import Batch
from txutp.core.congestion.ledbat import Ledbat
from txutp.testing import Datagram, Link, Network

DATA = pattern(100_000)


class Broken(Exception):
    """What is raised on purpose."""


def broken(*arguments: Any, **options: Any) -> Any:
    raise Broken


class Scene:
    """Four clients on one UDP port of theirs, which all write to a server; one of them is odd, on either side."""

    def __init__(
        self,
        server_protocol: type[Stream] = Stream,
        client_protocol: type[Stream] = Stream,
        odd_settings: Settings | None = None,
        prepare: Callable[[Scene], object] = lambda scene: None,
    ) -> None:
        self.network = Network(seed=1)
        self.network.connect(CLIENT, SERVER, Link(delay_us=10_000))
        self.here, self.there = self.network.reactor(CLIENT), self.network.reactor(SERVER)
        self.accepting = Accepting()
        self.accepting.buildProtocol = self.build  # type: ignore[method-assign]
        self.server_protocol = server_protocol
        ports: list[Any] = []
        UTPServerEndpoint(self.there, PORT).listen(self.accepting).addCallback(ports.append)
        self.server_utp = ports[0]._utp
        self.connecting: list[Accepting] = []
        self.results: list[Any] = []
        for number in range(4):
            odd = number == 1
            connecting = Accepting(client_protocol if odd else Stream)
            self.connecting.append(connecting)
            endpoint = UTPClientEndpoint(self.here, SERVER, PORT, settings=odd_settings if odd else None)
            self.results.append(None)
            endpoint.connect(connecting).addBoth(self.connected, number)
        ((_, port),) = [place for place in self.network.ports.items() if place[0][0] == CLIENT]
        self.client_utp = port.protocol
        prepare(self)
        with logged_failures() as logged:
            self.network.run(1)
            for connecting in self.connecting:
                for stream in connecting.made:
                    if stream.transport is not None and not stream.lost:
                        stream.transport.write(DATA)
            self.network.run(20)
        self.logged = [event["log_failure"].type for event in logged]

    def connected(self, result: Any, number: int) -> None:
        self.results[number] = result

    def build(self, addr: Any) -> Stream:
        """The protocol of the second connection is the odd one."""
        made = self.server_protocol() if len(self.accepting.made) == 1 else Stream()
        self.accepting.made.append(made)
        return made

    def others_are_well(self, others: int = 3) -> bool:
        """Their streams arrived, and nobody else's connection is left on either port, or waits for ever."""
        streams = [stream for stream in self.accepting.made if bytes(stream.received) == DATA and not stream.lost]
        multiplexers = [self.server_utp.multiplexer, self.client_utp.multiplexer]
        assert not any(connection.touched for multiplexer in multiplexers for connection in multiplexer)
        return len(streams) == others and [len(multiplexer) for multiplexer in multiplexers] == [others, others]

    @property
    def odd(self) -> Stream:
        """The odd client."""
        return self.connecting[1].made[0]


# -- what an application raises --


class RaisesWhenMade(Stream):
    def connectionMade(self) -> None:
        super().connectionMade()
        raise Broken


class RaisesAtData(Stream):
    def dataReceived(self, data: bytes) -> None:
        raise Broken


class Exits(Stream):
    """The reactor would log that, too, but close the whole port."""

    def dataReceived(self, data: bytes) -> None:
        raise SystemExit(1)


class HasNoName(Stream):
    def logPrefix(self) -> str:
        raise Broken


class RaisesAtTheEnd(Stream):
    def connectionMade(self) -> None:
        super().connectionMade()
        assert self.transport is not None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        super().connectionLost(reason)
        raise Broken


@pytest.mark.parametrize(
    ("protocol", "logged", "lost"),
    [
        (RaisesWhenMade, Broken, Broken),
        (RaisesAtData, Broken, Broken),
        (Exits, SystemExit, SystemExit),
        (HasNoName, Broken, None),
        (RaisesAtTheEnd, Broken, error.ConnectionAborted),
    ],
)
def test_a_protocol_of_a_server_that_raises(protocol: type[Stream], logged: type, lost: type | None) -> None:
    """It hears the end if it heard the beginning, and its peer hears a RESET."""
    scene = Scene(server_protocol=protocol)
    assert scene.others_are_well()
    assert scene.logged == [logged]
    odd = next(stream for stream in scene.accepting.made if type(stream) is protocol)
    assert odd.lost_type is lost
    assert [stream.lost_type for connecting in scene.connecting for stream in connecting.made if stream.lost] == [
        error.ConnectionLost
    ]


@pytest.mark.parametrize("protocol", [RaisesWhenMade, HasNoName, RaisesAtTheEnd])
def test_a_protocol_of_a_client_that_raises(protocol: type[Stream]) -> None:
    """Whoever waits for the connection hears of it."""
    scene = Scene(client_protocol=protocol)
    assert scene.others_are_well()
    assert Broken in scene.logged
    result = scene.results[1]
    if protocol is HasNoName:
        assert result.type is Broken
        assert scene.odd.made == len(scene.odd.lost) == 0
    else:
        assert scene.odd.lost_type is (Broken if protocol is RaisesWhenMade else error.ConnectionAborted)


@pytest.mark.parametrize("method", ["buildProtocol", "clientConnectionLost", "clientConnectionFailed"])
def test_a_client_factory_that_raises(method: str) -> None:
    """At the beginning, at the end, and when there is no connection."""
    factory = ClientFactory()
    factory.noisy = False
    factory.protocol = Stream
    setattr(factory, method, broken)

    def connect(scene: Scene) -> None:
        port = PORT + 1 if method == "clientConnectionFailed" else PORT
        connector = connectUTP(scene.here, SERVER, port, factory, timeout=0.5)
        if method == "clientConnectionLost":
            scene.here.callLater(0.5, connector.disconnect)

    scene = Scene(prepare=connect)
    assert scene.others_are_well(4)
    assert scene.logged == [Broken]


# -- what a congestion controller raises --


class Controller(Ledbat):
    """One that works when it is tried, and raises in one place later."""

    where = ""

    def __getattribute__(self, name: str) -> Any:
        if name == type(self).where:
            raise Broken
        return super().__getattribute__(name)


class AtAcks(Controller):
    where = "on_ack"


class AtLosses(Controller):
    where = "on_loss"


class AtTimeouts(Controller):
    where = "on_timeout"


class Window(Controller):
    @property
    def window_bytes(self) -> int:  # type: ignore[override]
        if self.told:
            raise Broken
        return 3_000

    told = False

    def on_ack(self, ack: Any) -> None:
        self.told = True


def factory_that_raises_later() -> Any:
    made: list[Ledbat] = []

    def make(*, segment_bytes: int, target_delay_us: int | None) -> Ledbat:
        if made:
            raise Broken
        made.append(Ledbat(segment_bytes=segment_bytes, target_delay_us=target_delay_us))
        return made[0]

    return make


def lose_some(scene: Scene) -> None:
    """Every tenth datagram of the clients, and for a while all of them."""
    count = [0]

    def lose(datagram: Datagram) -> None:
        count[0] += len(datagram.data) > 1_000
        datagram.dropped = count[0] % 10 == 9 or 1_050_000 < scene.network.now_us < 1_500_000

    scene.network.link(CLIENT, SERVER).hook = lose


@pytest.mark.parametrize("controller", [AtAcks, AtLosses, AtTimeouts, Window, factory_that_raises_later()])
def test_a_congestion_controller_that_raises(controller: Any) -> None:
    """Where it is made, told or asked: when something is sent, when something arrives, and when nothing does."""
    AtAcks.where = AtLosses.where = AtTimeouts.where = ""
    settings = Settings(congestion=controller)
    AtAcks.where, AtLosses.where, AtTimeouts.where = "on_ack", "on_loss", "on_timeout"
    scene = Scene(odd_settings=settings, prepare=lose_some)
    assert scene.others_are_well()
    assert scene.logged == [Broken]
    assert scene.odd.lost_type is error.ConnectionLost
    assert "an exception in this program" in str(scene.odd.lost[0].value)


# -- what the shell raises --


def test_an_address_that_is_none_ends_its_connection_alone() -> None:
    """A resolver said a port that is a float, say.  What others had to send in the same turn leaves all the same."""

    def break_one(scene: Scene) -> None:
        port = scene.client_utp.port
        odd = list(scene.client_utp.multiplexer)[1]
        odd.address = (SERVER, 6881.5)
        send = port.send_batch

        def send_batch(batch: Batch) -> int:
            if batch.address is odd.address:
                raise TypeError("'float' object cannot be interpreted as an integer")
            return send(batch)

        port.send_batch = send_batch
        port.offload_send = True

    scene = Scene(prepare=break_one)
    assert scene.results[1].type is error.ConnectionLost
    assert scene.logged == [TypeError]
    assert [type(result) for result in scene.results].count(Stream) == 3


def test_an_owner_that_raises_whenever_it_is_asked() -> None:
    """Even the end cannot be told; the connection goes all the same."""

    class Owner:
        hungry = False
        settle = broken

    def own(scene: Scene) -> None:
        next(iter(scene.client_utp.multiplexer)).owner = Owner()

    scene = Scene(prepare=own)
    assert len(scene.client_utp.multiplexer) == 3
    assert set(scene.logged) == {Broken}


# -- listening --


class RefusesToStart(Factory):
    noisy = False

    def startFactory(self) -> None:
        raise Broken


def test_a_factory_that_does_not_start_leaves_no_port() -> None:
    network = Network()
    failures: list[Failure] = []
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(RefusesToStart()).addErrback(failures.append)
    assert failures[0].type is Broken
    network.run(1)
    assert network.ports == {}
    assert network.reactor(SERVER).getDelayedCalls() == []
