"""``utp:`` beside ``tcp:``, form by form; what strings say of themselves; the options, and their rows in the docs.

Every form runs with both, on a real reactor, and the outcomes are compared: whether it works, and if not, which
exception comes, and whether it is raised at once or reaches a Deferred.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    clientFromString,
    serverFromString,
)
from twisted.internet.protocol import ClientFactory, Factory, Protocol
from twisted.internet.protocol import DatagramProtocol as CompanionProtocol

from tests.support import until
from txutp import Ledbat, LedbatPlusPlus, Settings, UTPClientEndpoint, UTPServerEndpoint, connectUTP, listenUTP
from txutp.endpoints import AdoptedUTPServerEndpoint
from txutp.strings import ADOPTED, ALL, CLIENT, OPTIONS, SERVER, read_client, read_server

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reference" / "strings.md").read_text(encoding="utf-8")


async def outcome_of(make: Callable[[], Any], begin: Callable[[Any], Any]) -> tuple[str, Any]:
    """What making an endpoint and using it comes to: where it ends, and with what."""
    try:
        endpoint = make()
    except Exception as problem:
        return "made", type(problem)
    try:
        begun = begin(endpoint)
    except Exception as problem:
        return "used", type(problem)
    try:
        result = await begun
    except Exception as problem:
        return "failed", type(problem)
    return "works", result


def quiet_factory() -> Factory:
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    return factory


SERVER_FORMS = [
    "0",
    " 0",
    "port=0",
    "0:interface=",
    "0:interface=127.0.0.1",
    "0:interface=localhost",
    "0:interface=127.1",
    "0:interface=0",
    "0:interface=0.0.0.0",
    r"0:interface=\:\:1",
    r"0:interface=\:\:",
    r"0:interface=\:\:ffff\:127.0.0.1",
    r"0:interface=fe80\:\:1%nosuch",
    "port=0:interface=localhost",
    "0:localhost",
    "0:localhost:7",
    "0::7",
    "0:backlog=7",
    "0:interface=no-such-host.invalid",
    "0:interface=192.0.2.1",
    "0:interface=256.1.1.1",
    "0:interface=a b",
    "0:interface=a..b",
    "0:interface=" + "x" * 300,
    "0:interface=::1",
    "0:port=0",
    "0:backlog=x",
    "0:colour=red",
    "0:localhost:7:8",
    "",
    "http",
    "80a",
]


@pytest.mark.parametrize("form", SERVER_FORMS)
@pytest_twisted.ensureDeferred
async def test_a_server_string_does_what_tcp_does(form: str) -> None:
    async def outcome(kind: str) -> tuple[str, Any]:
        where, result = await outcome_of(
            lambda: serverFromString(reactor, f"{kind}:{form}"), lambda endpoint: endpoint.listen(quiet_factory())
        )
        if where == "works":
            host = result.getHost().host
            await defer.maybeDeferred(result.stopListening)
            return where, host
        return where, result

    assert await outcome("utp") == await outcome("tcp")


CLIENT_FORMS = [
    "127.0.0.1:{port}",
    "127.0.0.1: {port}",
    "host=127.0.0.1:port={port}",
    "host=127.0.0.1:{port}",
    "port={port}:127.0.0.1",
    "port={port}:host=127.0.0.1",
    "localhost:{port}",
    "127.1:{port}",
    "127.0.0.1:{port}:timeout=5",
    "127.0.0.1:{port}:bindAddress=",
    "127.0.0.1:{port}:bindAddress=127.0.0.1",
    "127.0.0.1:{port}:bindAddress=localhost",
    "127.0.0.1:{port}:bindAddress=127.1",
    "127.0.0.1:{port}:bindAddress=192.0.2.1",
    "127.0.0.1:{port}:bindAddress=no-such-host.invalid",
    "127.0.0.1:{port}:bindAddress=" + "x" * 300,
    "no-such-host.invalid:{port}",
    "",
    "127.0.0.1",
    "port={port}",
    "host=127.0.0.1",
    "127.0.0.1:http",
    "127.0.0.1:{port}:timeout=soon",
    "127.0.0.1:{port}:colour=red",
    "127.0.0.1:{port}:7",
]


@pytest.mark.parametrize("form", CLIENT_FORMS)
@pytest_twisted.ensureDeferred
async def test_a_client_string_does_what_tcp_does(form: str) -> None:
    async def outcome(kind: str) -> tuple[str, Any]:
        accepted: list[Protocol] = []
        lost: list[object] = []
        port = await serverFromString(reactor, f"{kind}:0:interface=127.0.0.1").listen(keeping(accepted, lost))
        text = f"{kind}:{form.format(port=port.getHost().port)}"
        where, result = await outcome_of(
            lambda: clientFromString(reactor, text), lambda endpoint: endpoint.connect(quiet_factory())
        )
        if where == "works":
            host = result.transport.getHost().host
            await until(lambda: accepted)
            result.transport.loseConnection()
            await until(lambda: lost)
            where, result = where, host
        await defer.maybeDeferred(port.stopListening)
        return where, result

    assert await outcome("utp") == await outcome("tcp")


def keeping(accepted: list[Protocol], lost: list[object]) -> Factory:
    class Kept(Protocol):
        def connectionMade(self) -> None:
            accepted.append(self)

        def connectionLost(self, reason: Any = None) -> None:
            lost.append(reason)

    factory = Factory.forProtocol(Kept)
    factory.noisy = False
    return factory


# Where ``utp:`` differs on purpose: it refuses at once what ``tcp:`` refuses later or understands in an odd way.
STRICTER = {
    "utp:70000": ValueError,
    "utp:-1": ValueError,
    "utp:0:backlog=-1": ValueError,
}
STRICTER_CLIENTS = {
    "utp::80": ValueError,  # tcp: connects to this host
    "utp:127.0.0.1:80:host=192.0.2.1": TypeError,  # tcp: forgets one of them
    "utp:127.0.0.1:70000": ValueError,
    "utp:[\\:\\:1]:80": ValueError,
}


@pytest.mark.parametrize(("text", "kind"), STRICTER.items())
def test_a_server_string_that_cannot_work_is_refused_at_once(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        serverFromString(reactor, text)


@pytest.mark.parametrize(("text", "kind"), STRICTER_CLIENTS.items())
def test_a_client_string_that_cannot_work_is_refused_at_once(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        clientFromString(reactor, text)


# -- the same in programs --


@pytest.mark.parametrize(
    "interface", ["", "127.0.0.1", "localhost", "127.1", "::1", "no-such-host.invalid", "192.0.2.1", "x" * 300]
)
@pytest_twisted.ensureDeferred
async def test_an_interface_in_a_program_does_what_it_does_with_tcp(interface: str) -> None:
    async def outcome(listen: Callable[[], Any]) -> tuple[str, Any]:
        where, port = await outcome_of(lambda: None, lambda nothing: defer.maybeDeferred(listen))
        if where == "works":
            host = port.getHost().host
            await defer.maybeDeferred(port.stopListening)
            return where, host
        return where, port

    raised: list[list[str]] = []
    for listen in (listenUTP, lambda reactor, *rest, **named: reactor.listenTCP(*rest, **named)):
        try:
            port = listen(reactor, 0, quiet_factory(), interface=interface)
        except Exception as problem:
            raised.append([type(problem).__name__, str(problem)])
        else:
            raised.append([port.getHost().host])
            await defer.maybeDeferred(port.stopListening)
    assert raised[0] == raised[1]
    ours = await outcome(lambda: UTPServerEndpoint(reactor, 0, interface=interface).listen(quiet_factory()))
    assert ours == await outcome(lambda: TCP4ServerEndpoint(reactor, 0, interface=interface).listen(quiet_factory()))


@pytest.mark.parametrize(
    "address",
    [None, "localhost", b"127.0.0.1", ("localhost", 0), ("", 0), ("192.0.2.1", 0), ("no-such-host.invalid", 0)],
)
@pytest_twisted.ensureDeferred
async def test_a_bind_address_in_a_program_does_what_it_does_with_tcp(address: Any) -> None:
    outcomes = []
    for kind, endpoint_class in (("utp", UTPClientEndpoint), ("tcp", HostnameEndpoint)):
        port = await serverFromString(reactor, f"{kind}:0:interface=127.0.0.1").listen(quiet_factory())
        make = partial(endpoint_class, reactor, "127.0.0.1", port.getHost().port, bindAddress=address)
        where, result = await outcome_of(make, lambda endpoint: endpoint.connect(quiet_factory()))
        if where == "works":
            result.transport.loseConnection()
            result = result.transport.getHost().host
        outcomes.append((where, result))
        await defer.maybeDeferred(port.stopListening)
    assert outcomes[0] == outcomes[1]


@pytest_twisted.ensureDeferred
async def test_a_name_to_connect_from_is_looked_up_in_the_family_of_the_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    getaddrinfo = socket.getaddrinfo

    def by_family(host: Any, port: Any, family: Any = 0, *rest: Any, **named: Any) -> Any:
        if host == "here.example":
            asked.append(family)
            host = "::1" if family == socket.AF_INET6 else "127.0.0.1"
        return getaddrinfo(host, port, family, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", by_family)
    for ours in ("127.0.0.1", "::1"):
        port = listenUTP(reactor, 0, quiet_factory(), interface=ours)
        endpoint = UTPClientEndpoint(reactor, ours, port.getHost().port, bindAddress="here.example")
        protocol = await endpoint.connect(quiet_factory())
        assert protocol.transport.getHost().host == ours
        protocol.transport.loseConnection()
        await port.stopListening()  # type: ignore[misc]
    assert asked == [socket.AF_INET, socket.AF_INET6]


@pytest.mark.parametrize("service", ["no such service", "http"])
@pytest_twisted.ensureDeferred
async def test_a_service_name_does_what_it_does_with_tcp(service: str) -> None:
    """``connectTCP`` and the endpoints know them, strings and servers do not."""
    outcomes: list[Any] = []
    for kind, client, connect in (
        ("utp", UTPClientEndpoint, connectUTP),
        ("tcp", TCP4ClientEndpoint, lambda reactor, *rest, **named: reactor.connectTCP(*rest, **named)),
    ):
        try:
            connector = connect(reactor, "127.0.0.1", service, ClientFactory(), timeout=1)
        except Exception as problem:
            raised = type(problem)
        else:
            raised, number = None, connector.getDestination().port
            connector.disconnect()
            outcomes.append(number)
        attempt = client(reactor, "127.0.0.1", service, timeout=1).connect(quiet_factory())
        failed: list[Any] = []
        attempt.addErrback(lambda failure, failed=failed: failed.append(failure.type))
        at_once = list(failed)
        attempt.cancel()
        with pytest.raises(ValueError, match="not" if kind == "utp" else "invalid"):
            clientFromString(reactor, f"{kind}:127.0.0.1:{service}")
        outcomes.append((raised, at_once))
    half = len(outcomes) // 2
    assert outcomes[:half] == outcomes[half:]


# -- what strings say --

COLONS = r"A colon in a value is written \:, and an address has no brackets"
SERVER_OPTIONS = "A server is written utp:PORT, and may have the options backlog=, believeUnreachable=, buffer=,"
CLIENT_OPTIONS = "A client is written utp:HOST:PORT, and may have the options believeUnreachable=, bindAddress=,"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("utp:80:interface=::1", [r"Is utp:80:interface=\:\:1 meant?", COLONS, SERVER_OPTIONS]),
        ("utp:80:interface=::", [r"Is utp:80:interface=\:\: meant?"]),
        ("utp:80:interface=2001:db8::5", [r"Is utp:80:interface=2001\:db8\:\:5 meant?"]),
        ("utp:port=80:interface=fe80::1%lo", [r"Is utp:80:interface=fe80\:\:1%lo meant?"]),
        ("utp:80:::1", [r"Is utp:80:interface=\:\:1 meant?", "too many parts without a name: '80', '', '', '1'"]),
        ("utp:[::1]:80", [r"Is utp:80:interface=\:\:1 meant?", COLONS]),
        ("utp:80:[::1]", [r"Is utp:80:interface=\:\:1 meant?", COLONS]),
        (r"utp:[\:\:1]:80", [r"Is utp:80:interface=\:\:1 meant?", "a port is a number from 0 to 65535, not '[::1]'"]),
        (r"utp:80:interface=[\:\:1]", [r"without brackets", r"\:\:1"]),
        ("utp:127.0.0.1:80", ["Is utp:80:interface=127.0.0.1 meant?", "a port is a number"]),
        ("utp:0:iface=127.0.0.1", ["There is no option iface=. Is interface= meant?", SERVER_OPTIONS]),
        ("utp:0:keep_alive=5", ["Is keepalive= meant?"]),
        ("utp:0:zzz=5", ["There is no option zzz=. A server is written"]),
        ("utp:0:timeout=5", ["timeout= is an option of a client", SERVER_OPTIONS]),
        ("utp:0:bindAddress=127.0.0.1", ["bindAddress= is an option of a client. Is interface= meant?"]),
        ("utp", ["This string has no port", SERVER_OPTIONS]),
        ("utp:", ["This string has an empty port", SERVER_OPTIONS]),
        ("utp:80a", ["a port is a number from 0 to 65535, not '80a'"]),
        ("utp:fd=x", ["fd is the number of a file descriptor, not 'x'"]),
        ("utp:fd=", ["This string has an empty fd", "is written utp:fd=NUMBER"]),
        ("utp:6881:fd=3", ["too many parts", "is written utp:fd=NUMBER"]),
        ("utp:fd=3:interface=127.0.0.1", ["interface= is an option of a server", "is written utp:fd=NUMBER"]),
        ("utp:0:target=500ms", ["target is from 1ms to 100ms, not 500ms"]),
        ("utp:0:target=0.5s", ["target is from 0.001s to 0.1s, not 0.5s"]),
        ("utp:0:target=25", ["target is a time like 25ms, with a unit of us, ms, s, min or h, not '25'"]),
        ("utp:0:idle=10ms", ["idle is at least 1000ms, or off, not 10ms"]),
        ("utp:0:idle=never", ["or a number of seconds, or off, not 'never'"]),
        ("utp:0:keepalive=0.2", ["keepalive is at least 1s, or off, not 0.2s"]),
        ("utp:0:mtu=10", ["mtu is from 150B to 65000B, not 10B"]),
        ("utp:0:mtu=9M", ["mtu is from 150B to 65000B, not 9M"]),
        ("utp:0:buffer=2G", ["buffer is from 4k to 1G, not 2G"]),
        ("utp:0:buffer=4q", ["buffer is a number of bytes, like 4M, with or without a unit of k, M or G (of 1024)"]),
        ("utp:0:buffer=1e999G", ["buffer is a number of bytes"]),
        ("utp:0:up=50", ["up is at least 100B, or off, not 50B"]),
        ("utp:0:up=0.01k", ["up is at least 100B, or off, not 10B"]),
        ("utp:0:down=2Mbit", ["down is a number of bytes per second, like 10M, with or without a unit of k, M or G"]),
        ("utp:0:downEach=fast", ["downEach is a number of bytes per second, like 500k", "or off, not 'fast'"]),
        ("utp:0:upeach=2M", ["There is no option upeach=. Is upEach= meant?"]),
        ("utp:0:believeUnreachable=maybe", ["believeUnreachable is yes or no, not 'maybe'"]),
    ],
)
def test_a_server_string_says_what_it_accepts(text: str, says: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        serverFromString(reactor, text)
    check_sentence(str(refused.value), says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("utp:::1:80", [r"Is utp:\:\:1:80 meant?", COLONS, CLIENT_OPTIONS]),
        ("utp:[::1]:80", [r"Is utp:\:\:1:80 meant?", COLONS]),
        ("utp:fe80::1:80", [r"Is utp:fe80\:\:1:80 meant?"]),
        ("utp:::1", [r"Is utp:\:\:1:PORT meant?"]),
        ("utp:host=::1:port=80", [r"Is host=\:\:1 meant?"]),
        ("utp:host=::1:80", [r"Is host=\:\:1 meant?"]),
        (r"utp:host=[\:\:1]:port=80", ["without brackets"]),
        ("utp:example.org:80:bindAddress=::1", [r"Is bindAddress=\:\:1 meant?"]),
        (r"utp:example.org:80:bindAddress=[\:\:1]", ["without brackets"]),
        ("utp:example.org:80:bindaddress=127.0.0.1", ["Is bindAddress= meant?", CLIENT_OPTIONS]),
        ("utp:example.org:80:local_port=5", ["Is localPort= meant?"]),
        ("utp:example.org:80:backlog=5", ["backlog= is an option of a server", CLIENT_OPTIONS]),
        ("utp:example.org:80:interface=127.0.0.1", ["Is bindAddress= meant?"]),
        ("utp:example.org", ["This string has no port", CLIENT_OPTIONS]),
        ("utp:", ["This string has no port", CLIENT_OPTIONS]),
        ("utp::80", ["This string has an empty host", CLIENT_OPTIONS]),
        ("utp:example.org:80a", ["a port is a number from 1 to 65535, not '80a'"]),
        ("utp:example.org:0", ["a port is from 1 to 65535, not 0"]),
        ("utp:example.org:80:10", ["too many parts without a name: 'example.org', '80', '10'", CLIENT_OPTIONS]),
        ("utp:example.org:80:timeout=soon", ["timeout is a number of seconds from 0 on, or a time like 250ms", "off"]),
        ("utp:example.org:80:up=-1", ["up is a number of bytes per second, like 2M", "or off, not '-1'"]),
        ("utp:example.org:80:upEach=1M", ["upEach= is an option of a server"]),
        ("utp:example.org:80:target=2s", ["target is from 0.001s to 0.1s, not 2s"]),
    ],
)
def test_a_client_string_says_what_it_accepts(text: str, says: list[str]) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        clientFromString(reactor, text)
    check_sentence(str(refused.value), says)


def check_sentence(sentence: str, says: list[str]) -> None:
    for words in says:
        assert words in sentence
    assert not re.search(r"\b_\w|\(\)|txutp\.", sentence)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("idle=100", {"idle_timeout_us": 100_000_000}),
        ("idle=250s", {"idle_timeout_us": 250_000_000}),
        ("idle=2min", {"idle_timeout_us": 120_000_000}),
        ("idle=off", {"idle_timeout_us": None}),
        ("keepalive=no", {"keepalive_us": None}),
        ("keepalive=1500ms", {"keepalive_us": 1_500_000}),
        ("mtu=1200", {"maximum_datagram_bytes": 1_200}),
        ("buffer=64k", {"receive_buffer_bytes": 65_536}),
        ("buffer=4M", {"receive_buffer_bytes": 4 << 20}),
        ("buffer=1.5MiB", {"receive_buffer_bytes": 3 << 19}),
        ("buffer=100000B", {"receive_buffer_bytes": 100_000}),
        ("target=25ms:congestion=ledbat", {"target_delay_us": 25_000, "congestion": Ledbat}),
        ("target=5000us", {"target_delay_us": 5_000}),
        ("up=2M:down=10M", {"up_bytes_per_second": 2 << 20, "down_bytes_per_second": 10 << 20}),
        ("up=1500", {"up_bytes_per_second": 1_500}),
        ("up=off:down=1.5k", {"down_bytes_per_second": 1_536}),
        ("believeUnreachable=no", {"believe_unreachable": False}),
    ],
)
def test_options_of_strings_are_settings(text: str, chosen: dict[str, Any]) -> None:
    for endpoint in (
        serverFromString(reactor, f"utp:0:{text}"),
        serverFromString(reactor, f"utp:fd=3:{text}"),
        clientFromString(reactor, f"utp:example.org:80:{text}"),
    ):
        assert endpoint._settings == Settings(**chosen)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10", 10), ("0.5", 0.5), ("250ms", 0.25), ("2min", 120), ("off", None), ("no", None)]
)
def test_a_timeout_may_have_a_unit(text: str, seconds: float | None) -> None:
    assert clientFromString(reactor, f"utp:example.org:80:timeout={text}")._timeout == seconds


# -- the list of options --


def test_the_page_has_a_row_for_each_option() -> None:
    kinds = {ALL: "both", (CLIENT,): "clients"}
    listed = [
        f"| `{option.name}={option.example}` | {kinds.get(option.kinds, 'servers')} | {option.meaning} |"
        f" {f'`{option.field}`' if option.field else ''} |"
        for option in OPTIONS
    ]
    assert [line for line in PAGE.splitlines() if re.match(r"\| `\w+=", line)] == listed


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: f"{option.name}-{option.kinds[0]}")
def test_each_option_is_read_as_its_row_says(option: Any) -> None:
    """The example is accepted by every kind of string that has the option, and nonsense is refused with its name."""
    value = option.read(option, option.example)
    required = {SERVER: {"port": "1"}, ADOPTED: {"fd": "3"}, CLIENT: {"host": "h", "port": "1"}}
    for kind in option.kinds:
        read_kind = read_client if kind == CLIENT else read_server
        arguments, settings = read_kind([], required[kind] | {option.name: option.example})
        assert (getattr(settings, option.field) if option.field else arguments[option.name]) == value
    if option.name not in ("host", "interface", "bindAddress"):
        with pytest.raises(ValueError, match="a port is" if option.name == "port" else option.name):
            option.read(option, "\\nonsense")


def test_each_option_that_is_a_setting_names_one() -> None:
    assert {option.field for option in OPTIONS if option.field} <= {field.name for field in fields(Settings)}


# -- repr --


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        (UTPServerEndpoint(None, 6881), "<UTPServerEndpoint *:6881>"),
        (UTPServerEndpoint(None, 6881, 7, "::1"), "<UTPServerEndpoint [::1]:6881 backlog=7>"),
        (
            UTPServerEndpoint(None, 0, settings=Settings(congestion=LedbatPlusPlus, target_delay_us=25_000)),
            "<UTPServerEndpoint *:0 congestion=LedbatPlusPlus target_delay_us=25000>",
        ),
        (
            UTPServerEndpoint(None, 0, datagramProtocol=CompanionProtocol()),
            "<UTPServerEndpoint *:0 datagramProtocol=DatagramProtocol>",
        ),
        (AdoptedUTPServerEndpoint(None, 3, settings=Settings()), "<AdoptedUTPServerEndpoint fd=3>"),
        (UTPClientEndpoint(None, "example.org", 80), "<UTPClientEndpoint example.org:80>"),
        (
            UTPClientEndpoint(None, "::1", 80, 2.5, ("127.0.0.1", 0), Settings(keepalive_us=None)),
            "<UTPClientEndpoint [::1]:80 timeout=2.5 bindAddress=('127.0.0.1', 0) keepalive_us=None>",
        ),
        (UTPClientEndpoint(None, "::1", "http"), "<UTPClientEndpoint [::1]:http>"),
        (UTPClientEndpoint(None, "a\tb", 80), r"<UTPClientEndpoint 'a\tb:80'>"),
    ],
)
def test_endpoints_tell_what_they_are(endpoint: object, shown: str) -> None:
    assert repr(endpoint) == shown


def test_a_repr_never_raises() -> None:
    class Odd(type):
        def __repr__(cls) -> str:
            raise ValueError("no name")

    class Controller(Ledbat, metaclass=Odd):
        pass

    class Called:
        def __call__(self, **named: Any) -> Ledbat:
            return Ledbat(**named)

        def __repr__(self) -> str:
            raise ValueError("no name")

    assert "congestion=Controller" in repr(UTPServerEndpoint(None, 0, settings=Settings(congestion=Controller)))
    assert "Called" in repr(UTPServerEndpoint(None, 0, settings=Settings(congestion=Called())))
