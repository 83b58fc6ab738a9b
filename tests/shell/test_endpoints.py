"""Endpoints and their strings: what is accepted, what is refused and how, names and both IP versions."""

from __future__ import annotations

import gc
import socket
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, error, reactor
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.interfaces import IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from tests.support import PORT, SERVER, Accepting, Leaving, Pair, ScriptedServer, pause
from txutp import Ledbat, LedbatPlusPlus, Settings, UTPClientEndpoint, UTPServerEndpoint

LOCAL = "127.0.0.1"


@pytest.mark.parametrize(
    ("description", "attributes"),
    [
        ("utp:6881", {"_port": 6881, "_interface": "", "_backlog": 50}),
        ("utp:6881:interface=127.0.0.1", {"_port": 6881, "_interface": "127.0.0.1"}),
        (r"utp:port=6881:interface=\:\:", {"_port": 6881, "_interface": "::"}),
        ("UTP:0:backlog=7", {"_port": 0, "_backlog": 7}),
    ],
)
def test_server_strings(description: str, attributes: dict[str, Any]) -> None:
    endpoint = serverFromString(reactor, description)
    assert isinstance(endpoint, UTPServerEndpoint)
    verifyObject(IStreamServerEndpoint, endpoint)
    assert {name: getattr(endpoint, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    ("description", "attributes"),
    [
        ("utp:127.0.0.1:6881", {"_host": "127.0.0.1", "_port": 6881, "_timeout": 30.0, "_bind_address": None}),
        ("utp:host=example.org:port=6881:timeout=10", {"_host": "example.org", "_timeout": 10.0}),
        ("utp:host=example.org:port=6881:timeout=0.5", {"_timeout": 0.5}),
        (r"utp:host=\:\:1:port=6881", {"_host": "::1"}),
        ("utp:127.0.0.1:6881:bindAddress=127.0.0.2", {"_bind_address": ("127.0.0.2", 0)}),
        ("utp:127.0.0.1:6881:localPort=7000", {"_bind_address": ("", 7000)}),
        ("utp:127.0.0.1:6881:bindAddress=127.0.0.2:localPort=7000", {"_bind_address": ("127.0.0.2", 7000)}),
    ],
)
def test_client_strings(description: str, attributes: dict[str, Any]) -> None:
    endpoint = clientFromString(reactor, description)
    assert isinstance(endpoint, UTPClientEndpoint)
    verifyObject(IStreamClientEndpoint, endpoint)
    assert {name: getattr(endpoint, name) for name in attributes} == attributes


@pytest.mark.parametrize(
    "arguments", ["", ":http", ":80:interface=127.0.0.1:nonsense=1", ":80:50:127.0.0.1:more", ":80:backlog=x"]
)
def test_bad_server_strings_fail_as_tcp_strings_do(arguments: str) -> None:
    with pytest.raises((TypeError, ValueError)) as utp:
        serverFromString(reactor, f"utp{arguments}")
    if arguments != ":http":  # tcp looks services up by name
        with pytest.raises((TypeError, ValueError)) as tcp:
            serverFromString(reactor, f"tcp{arguments}")
        assert utp.type is tcp.type


@pytest.mark.parametrize("arguments", ["", ":fd=x", ":fd=3:interface=127.0.0.1", ":6881:fd=3"])
def test_bad_strings_for_adopted_sockets_are_refused(arguments: str) -> None:
    with pytest.raises((TypeError, ValueError)):
        serverFromString(reactor, f"utp{arguments}")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("localPort=http", "localPort is a number from 0 to 65535, not 'http'"),
        ("localPort=70000", "localPort is from 0 to 65535, not 70000"),
        ("timeout=-1", "timeout is a number of seconds"),
    ],
)
def test_a_wrong_option_of_a_client_is_told_with_what_is_accepted(option: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        clientFromString(reactor, f"utp:127.0.0.1:6881:{option}")


@pytest.mark.parametrize("arguments", ["", ":only", ":host:port", ":host:80:timeout=soon", ":host:80:colour=red"])
def test_bad_client_strings_fail_as_tcp_strings_do(arguments: str) -> None:
    with pytest.raises((TypeError, ValueError)) as utp:
        clientFromString(reactor, f"utp{arguments}")
    with pytest.raises((TypeError, ValueError)) as tcp:
        clientFromString(reactor, f"tcp{arguments}")
    assert utp.type is tcp.type


@pytest.mark.parametrize("kind", [clientFromString, serverFromString])
def test_strings_choose_the_congestion_controller_and_its_target(kind: Any) -> None:
    where = "utp:127.0.0.1:6881" if kind is clientFromString else "utp:6881"
    assert kind(reactor, where)._settings == Settings()
    chosen = kind(reactor, f"{where}:congestion=ledbat++:target=25ms")._settings
    assert (chosen.congestion, chosen.target_delay_us) == (LedbatPlusPlus, 25_000)
    assert kind(reactor, f"{where}:congestion=txutp.core.congestion.ledbat.Ledbat")._settings.congestion is Ledbat
    assert kind(reactor, f"{where}:target=0.005s")._settings.target_delay_us == 5_000


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("congestion=bbr", "ledbat, ledbat\\+\\+, shallow"),
        ("congestion=txutp.nothing", "dotted name"),
        ("target=25", "unit"),
        ("target=fastms", "unit"),
        ("target=2s", "target is from 0.001s to 0.1s, not 2s"),
    ],
)
def test_a_wrong_choice_is_told_with_what_is_accepted(option: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        serverFromString(reactor, f"utp:6881:{option}")


def test_a_bad_interface_fails_at_listen() -> None:
    failures: list[Any] = []
    serverFromString(reactor, "utp:0:interface=192.0.2.1").listen(Accepting()).addErrback(failures.append)
    assert failures[0].check(error.CannotListenError)


@pytest_twisted.ensureDeferred
async def test_a_taken_port_fails_at_listen() -> None:
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(Accepting())
    failures: list[Any] = []
    UTPServerEndpoint(reactor, port.getHost().port, interface=LOCAL).listen(Accepting()).addErrback(failures.append)
    assert failures[0].check(error.CannotListenError)
    await port.stopListening()


@pytest.mark.parametrize(("interface", "host"), [(LOCAL, "localhost"), (LOCAL, LOCAL), (r"\:\:1", r"\:\:1")])
@pytest_twisted.ensureDeferred
async def test_strings_connect_by_name_and_by_address(interface: str, host: str) -> None:
    accepting = Accepting()
    port = await serverFromString(reactor, f"utp:0:interface={interface}").listen(accepting)
    client = await clientFromString(reactor, f"utp:{host}:{port.getHost().port}:timeout=9").connect(Accepting())
    client.transport.write(b"hello")
    while not (accepting.made and accepting.made[0].received):
        await pause()
    assert bytes(accepting.made[0].received) == b"hello"
    assert accepting.made[0].transport.getPeer().port == client.transport.getHost().port
    client.transport.loseConnection()
    while not (client.lost and accepting.made[0].lost):
        await pause()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_an_unknown_name_fails_without_blocking() -> None:
    ticks = []
    ticking = deferLater(reactor, 0, ticks.append, 1)
    attempt = clientFromString(reactor, "utp:no-such-host.invalid:80:timeout=20").connect(Accepting())
    await ticking
    with pytest.raises(error.DNSLookupError):
        await attempt
    assert ticks


@pytest_twisted.ensureDeferred
async def test_a_dead_end_times_out() -> None:
    """A bound socket that never answers."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind((LOCAL, 0))
    with pytest.raises(error.TimeoutError):
        await clientFromString(reactor, f"utp:{LOCAL}:{silent.getsockname()[1]}:timeout=0.3").connect(Accepting())
    silent.close()


@pytest_twisted.ensureDeferred
async def test_a_bad_bind_address_fails_the_attempt() -> None:
    with pytest.raises(error.ConnectBindError):
        await clientFromString(reactor, f"utp:{LOCAL}:9:bindAddress=192.0.2.1").connect(Accepting())


def test_connecting_can_be_cancelled_at_any_time() -> None:
    scene = ScriptedServer(answer=False)
    scene.attempt.cancel()
    assert scene.failures[0].check(error.ConnectingCancelledError)
    assert scene.failures[0].value.address == IPv4Address("UDP", SERVER, 6881)
    scene.run(60)
    assert scene.peer.take() == []
    assert scene.client_reactor.getDelayedCalls() == []


def test_listen_fires_at_once() -> None:
    """strports.service and others rely on it, as TCP does it."""
    pair = Pair(wait=False)
    assert len(pair.ports) == 1
    assert isinstance(pair.attempt, defer.Deferred)


def test_a_clients_end_leaves_nothing_to_the_garbage_collector() -> None:
    """Nothing refers to itself in a circle: at thousands of connections a second the collector costs a sixth."""
    pair = Pair()
    endpoint = UTPClientEndpoint(pair.client_reactor, SERVER, PORT)
    factory = Factory.forProtocol(Leaving)
    factory.noisy = False

    def visit(times: int) -> None:
        for _ in range(times):
            endpoint.connect(factory)
            pair.run(1)

    visit(2)
    gc.collect()
    gc.disable()
    try:
        visit(10)
        assert gc.collect() == 0
    finally:
        gc.enable()
