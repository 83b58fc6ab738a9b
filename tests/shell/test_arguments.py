"""What a caller passes is checked at once, in the caller's own stack, and nothing stays open behind a refusal."""

from __future__ import annotations

import gc
import math
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import error, reactor
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import ClientFactory, Factory

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, connectUTP, listenUTP
from txutp.core.congestion.ledbat import Ledbat
from txutp.endpoints import AdoptedUTPServerEndpoint
from txutp.socket import Server, Socket
from txutp.udp.ports import BatchPort


def connecting_endpoint(port: Any = 9, host: Any = "127.0.0.1", **options: Any) -> object:
    return UTPClientEndpoint(reactor, host, port, **options)


def connecting(port: Any = 9, host: Any = "127.0.0.1", **options: Any) -> object:
    return connectUTP(reactor, host, port, ClientFactory(), **options)


def connecting_socket(port: Any = 9, host: Any = "127.0.0.1", **options: Any) -> object:
    return Socket(reactor, **options).connect(port, host)


def listening_endpoint(port: Any = 0, **options: Any) -> object:
    return UTPServerEndpoint(reactor, port, **options)


def listening(port: Any = 0, **options: Any) -> object:
    return listenUTP(reactor, port, Factory(), **options)


def listening_server(port: Any = 0, **options: Any) -> object:
    return Server(reactor=reactor, **options).listen(port)


CLIENTS = [connecting_endpoint, connecting, connecting_socket]
SERVERS = [listening_endpoint, listening, listening_server]


def sockets() -> list[int]:
    """The descriptors of this process that are sockets for datagrams."""
    found = []
    for descriptor in range(256):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            continue
        if is_socket:
            with socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.type == socket.SOCK_DGRAM:
                    found.append(descriptor)
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Any:
    """No socket, without the garbage collector's help, and no delayed call."""
    gc.collect()
    gc.disable()
    before = sockets(), len(reactor.getDelayedCalls())  # type: ignore[attr-defined]
    yield
    after = sockets(), len(reactor.getDelayedCalls())  # type: ignore[attr-defined]
    gc.enable()
    assert after == before


@pytest.mark.parametrize("port", [True, 80.0, 1.5, math.nan, None, b"80", object()])
@pytest.mark.parametrize("use", CLIENTS + SERVERS)
def test_a_port_that_is_no_whole_number(use: Callable[..., object], port: Any) -> None:
    with pytest.raises(TypeError, match=r"a port is an int from [01] to 65535, not"):
        use(port)


@pytest.mark.parametrize("port", [-1, 65_536, 10**30])
@pytest.mark.parametrize("use", [connecting, connecting_socket, *SERVERS])
def test_a_port_that_is_out_of_range(use: Callable[..., object], port: int) -> None:
    with pytest.raises(ValueError, match=rf"a port is from [01] to 65535, not {port}"):
        use(port)


@pytest.mark.parametrize("use", [connecting, connecting_socket])
def test_port_0_of_a_peer_is_refused(use: Callable[..., object]) -> None:
    with pytest.raises(ValueError, match="a port is from 1 to 65535, not 0"):
        use(0)


@pytest.mark.parametrize("port", [-1, 0, 65_536, 10**30])
def test_an_endpoint_tells_whoever_connects_of_a_port_that_is_out_of_range(port: int) -> None:
    """As Twisted's do, and at once."""
    failures: list[Any] = []
    UTPClientEndpoint(reactor, "127.0.0.1", port).connect(Factory()).addErrback(failures.append)
    assert failures[0].check(ValueError)
    assert f"a port is from 1 to 65535, not {port}" in str(failures[0].value)


@pytest.mark.parametrize("use", [listening_endpoint, listening, listening_server])
def test_a_server_wants_a_number_and_no_service(use: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="a port is an int"):
        use("http")


@pytest.mark.parametrize("use", CLIENTS)
@pytest.mark.parametrize(
    ("host", "kind", "says"),
    [
        (5, TypeError, "a host is a name or a numeric address, not 5"),
        (None, TypeError, "a host is a name or a numeric address, not None"),
        ("", ValueError, "it is empty"),
        ("a\0b", ValueError, "it has a NUL"),
        ("\ud800.example", ValueError, "invalid hostname"),
        ("x" * 300, ValueError, "invalid hostname"),
    ],
)
def test_a_host_that_is_none(use: Callable[..., object], host: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        use(host=host)


@pytest.mark.parametrize("use", [listening_endpoint, listening])
@pytest.mark.parametrize(
    ("interface", "kind"),
    [(None, TypeError), (5, TypeError), (b"127.0.0.1", TypeError), ("\0", ValueError), ("\ud800", ValueError)],
)
def test_an_interface_that_is_none(use: Callable[..., object], interface: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="interface is a numeric address of ours"):
        use(interface=interface)


@pytest.mark.parametrize("use", [listening_endpoint, listening])
@pytest.mark.parametrize(
    ("backlog", "kind"), [(None, TypeError), ("5", TypeError), (1.0, TypeError), (True, TypeError), (-1, ValueError)]
)
def test_a_backlog_that_is_none(use: Callable[..., object], backlog: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="backlog is a whole number from 0 on, not"):
        use(backlog=backlog)


@pytest.mark.parametrize("use", CLIENTS + SERVERS)
@pytest.mark.parametrize("settings", [{}, "ledbat", Settings])
def test_settings_that_are_none(use: Callable[..., object], settings: Any) -> None:
    with pytest.raises(TypeError, match="settings is a Settings or None, not"):
        use(settings=settings)


def test_an_adopted_socket_has_such_arguments_too() -> None:
    with pytest.raises(ValueError, match="backlog is"):
        AdoptedUTPServerEndpoint(reactor, 0, backlog=-1)
    with pytest.raises(TypeError, match="settings is"):
        AdoptedUTPServerEndpoint(reactor, 0, settings=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("use", [connecting_endpoint, connecting])
@pytest.mark.parametrize("timeout", [-1, math.inf, math.nan, "5", True])
def test_a_timeout_that_is_none(use: Callable[..., object], timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout is a number of seconds"):
        use(timeout=timeout)


@pytest.mark.parametrize("use", [connecting_endpoint, connecting])
@pytest.mark.parametrize("address", [("127.0.0.1",), ("127.0.0.1", -1), ("127.0.0.1", 1.0), (None, 0), 5, "a\0b"])
def test_a_bind_address_that_is_none(use: Callable[..., object], address: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="bindAddress"):
        use(bindAddress=address)


@pytest.mark.parametrize("text", ["-1", "65536"])
def test_strings_are_refused_when_they_are_read(text: str) -> None:
    with pytest.raises(ValueError, match="a port is from 0 to 65535"):
        serverFromString(reactor, f"utp:{text}")
    with pytest.raises(ValueError, match="a port is from 1 to 65535"):
        clientFromString(reactor, f"utp:127.0.0.1:{text}")
    with pytest.raises(ValueError, match="backlog is"):
        serverFromString(reactor, "utp:0:backlog=-1")


# -- congestion controllers --


class WithoutTimeouts(Ledbat):
    on_timeout = property()  # type: ignore[assignment]


def needs_more(segment_bytes: int) -> Ledbat:
    return Ledbat(segment_bytes=segment_bytes)


@pytest.mark.parametrize("wrong", [os.system, os.abort, print, dict, list, needs_more, WithoutTimeouts, lambda **_: 5])
def test_a_callable_that_makes_no_controller_is_refused_at_once(wrong: Any) -> None:
    """It is called once, with arguments that other callables do not take."""
    with pytest.raises(TypeError, match="congestion is a controller class or another callable that"):
        Settings(congestion=wrong)


@pytest.mark.parametrize("name", ["os.system", "builtins.print", "txutp.core.congestion", "twisted.internet.reactor"])
def test_a_string_that_names_no_controller_is_refused_when_it_is_read(name: str) -> None:
    with pytest.raises(TypeError, match="congestion is a controller class or another callable"):
        serverFromString(reactor, f"utp:0:congestion={name}")


def test_a_target_that_the_controller_refuses_is_told_at_once() -> None:
    def picky(*, segment_bytes: int, target_delay_us: int | None) -> Ledbat:
        if target_delay_us is not None:
            raise ValueError("no targets, please")
        return Ledbat(segment_bytes=segment_bytes)

    assert Settings(congestion=picky).congestion is picky
    with pytest.raises(TypeError, match="raised ValueError: no targets, please"):
        Settings(congestion=picky, target_delay_us=5_000)


# -- listening that fails later --


def test_a_port_that_is_taken_leaves_nothing() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        before = sockets()
        for _ in range(3):
            with pytest.raises(error.CannotListenError) as refusal:
                listening(other.getsockname()[1], interface="127.0.0.1")
            # whoever keeps the exception keeps the frames that it came through
            assert sockets() == before, refusal


@pytest.mark.parametrize("interface", ["192.0.2.1", "fe80::1%nosuch", "2001:db8::1"])
def test_an_address_that_is_not_ours_leaves_nothing(interface: str) -> None:
    before = sockets()
    with pytest.raises(error.CannotListenError) as refusal:
        listening(interface=interface)
    assert sockets() == before, refusal


def test_an_option_that_the_system_refuses_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(port: BatchPort, new: socket.socket, host: str) -> None:
        raise OSError("no such option")

    monkeypatch.setattr(BatchPort, "_set_options", refuse)
    before = sockets()
    with pytest.raises(error.CannotListenError, match="no such option") as refusal:
        listening(interface="127.0.0.1")
    assert sockets() == before, refusal
