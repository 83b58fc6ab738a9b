"""What other systems lack: every option, control message and error queue is an improvement, and none is needed.

The lacks are emulated on a socket whose methods refuse.  What is not emulated: the systems themselves.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.endpoints import serverFromString

from tests.support import CLIENT, PORT, SERVER, Accepting, until
from tests.wire.test_transfer import pattern
from txutp import UTPClientEndpoint, UTPServerEndpoint, adoptUTPPort
from txutp.testing import Link, Network
from txutp.udp.outbox import NO_ROUTE
from txutp.udp.sources import ipv4_option

LOCAL = "127.0.0.1"
Match = Callable[[int, int, Any], bool]

SOL_UDP, SO_RXQ_OVFL, PMTUDISC_PROBE = 17, 40, 3
IP, IPV6 = socket.IPPROTO_IP, socket.IPPROTO_IPV6
OF_IP = (IP, IPV6, SOL_UDP)
BUFFERS = (socket.SO_RCVBUF, socket.SO_SNDBUF)

# Which options a system refuses, by level, number and value (None: it is only read).
LACKS: dict[str, Match] = {
    "segmentation": lambda level, option, value: level == SOL_UDP,
    "the count of what was dropped": lambda level, option, value: (level, option) == (socket.SOL_SOCKET, SO_RXQ_OVFL),
    "the error queue": lambda level, option, value: (level, option) in ((IP, 11), (IPV6, 25)),
    "path MTU": lambda level, option, value: (level, option) in ((IP, 10), (IPV6, 23)),
    "the value PROBE": lambda level, option, value: (
        (level, option) in ((IP, 10), (IPV6, 23)) and value == PMTUDISC_PROBE
    ),
    "the MTU of the interface": lambda level, option, value: (level, option) in ((IP, 14), (IPV6, 24)),
    "local addresses": lambda level, option, value: (level, option) in ((IP, 8), (IPV6, 49)),
    "marks": lambda level, option, value: (level, option) in ((IP, 1), (IPV6, 67)),
    "options of IPv4 on IPv6": lambda level, option, value: level == IP,
    "large buffers": lambda level, option, value: (
        option in BUFFERS and level == socket.SOL_SOCKET and (value or 0) > 1 << 21
    ),
    "buffers": lambda level, option, value: option in BUFFERS and level == socket.SOL_SOCKET and value is not None,
    "to tell its buffers": lambda level, option, value: option in BUFFERS and level == socket.SOL_SOCKET,
    "all options of IP": lambda level, option, value: level in OF_IP,
    "all of it": lambda level, option, value: level in OF_IP or option in (*BUFFERS, SO_RXQ_OVFL),
}
CODES = [errno.EPERM, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOBUFS, errno.ENOSYS]


class Lacking(socket.socket):
    """A socket of a system that lacks something."""

    refuses: Match = staticmethod(lambda level, option, value: False)
    code = errno.EPERM
    asked = 0

    def setsockopt(self, level: int, option: int, *value: Any) -> None:  # type: ignore[override]
        self._ask(level, option, value[0])
        super().setsockopt(level, option, *value)

    def getsockopt(self, level: int, option: int, *size: int) -> Any:  # type: ignore[override]
        self._ask(level, option, None)
        return super().getsockopt(level, option, *size)

    def _ask(self, level: int, option: int, value: Any) -> None:
        if self.refuses(level, option, value):
            type(self).asked += 1
            raise OSError(self.code, os.strerror(self.code))


async def echo_and_transfer(host: str, interface: str, total_bytes: int = 1_000_000) -> Any:
    """A stream each way; returns the server's UDP port."""
    accepting = Accepting()
    port: Any = await UTPServerEndpoint(reactor, 0, interface=interface).listen(accepting)
    client = await UTPClientEndpoint(reactor, host, port.getHost().port, timeout=9).connect(Accepting())
    await until(lambda: accepting.made)
    server = accepting.made[0]
    data = pattern(total_bytes)
    client.transport.write(data)
    server.transport.write(data)
    await until(lambda: len(client.received) == len(server.received) == len(data))
    assert bytes(client.received) == bytes(server.received) == data
    assert client.transport.stats().timeouts == 0
    udp_port = port._utp.port
    client.transport.abortConnection()
    await until(lambda: server.lost)
    await port.stopListening()
    return udp_port


@pytest.mark.parametrize(("host", "interface"), [(LOCAL, ""), ("::1", "::")])
@pytest.mark.parametrize("lack", list(LACKS))
@pytest_twisted.ensureDeferred
async def test_a_system_may_refuse(lack: str, host: str, interface: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with another error; streams flow as if nothing was."""
    code = CODES[list(LACKS).index(lack) % len(CODES)]
    kind = type("Lacking", (Lacking,), {"refuses": staticmethod(LACKS[lack]), "code": code})
    monkeypatch.setattr(socket, "socket", kind)
    port = await echo_and_transfer(host, interface)
    assert kind.asked, "nothing was refused"
    if lack == "large buffers":
        # the largest that is allowed, of which Linux grants twice as much
        limits = [int(Path(f"/proc/sys/net/core/{name}_max").read_text()) for name in ("rmem", "wmem")]
        assert [port.granted_receive_bytes, port.granted_send_bytes] == [2 * min(limit, 1 << 21) for limit in limits]


@pytest_twisted.ensureDeferred
async def test_a_system_without_any_of_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python names only what the system's headers have."""
    for name in ("IP_TOS", "IPV6_TCLASS", "IPV6_RECVPKTINFO", "IPV6_PKTINFO", "MSG_ERRQUEUE", "IP_RECVERR"):
        monkeypatch.delattr(socket, name, raising=False)
    await echo_and_transfer("::1", "::")


# -- no error queue --


class Bsd(Lacking):
    """Without an error queue, where its flag means nothing: an ordinary read."""

    refuses = staticmethod(lambda level, option, value: level in OF_IP)
    code = errno.ENOPROTOOPT
    unreachable = ""

    def recvmsg(self, size: int, room: int = 0, flags: int = 0) -> Any:
        return super().recvmsg(size, room, flags & ~0x2000)

    def sendmsg(self, buffers: Any, ancillary: Any = (), flags: int = 0, address: Any = None) -> int:  # type: ignore[override]
        assert not ancillary, "a control message that nobody has asked for"
        if address[0] == self.unreachable:
            raise OSError(errno.EHOSTDOWN, "Host is down")
        return super().sendmsg(buffers, ancillary, flags, address)


@pytest.mark.parametrize("platform", ["darwin", "freebsd14", "aix"])
@pytest_twisted.ensureDeferred
async def test_errors_of_sending_eat_no_datagrams_where_there_is_no_error_queue(
    platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a neighbour that does not answer is told at once, by the name that BSDs have for it."""
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Bsd, "unreachable", "127.9.9.9")
    monkeypatch.setattr(socket, "socket", Bsd)
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0).listen(accepting)
    client = await UTPClientEndpoint(reactor, LOCAL, port.getHost().port, timeout=9).connect(Accepting())
    data = pattern(3_000_000)
    client.transport.write(data)
    for _ in range(20):
        with pytest.raises(error.NoRouteError):
            await UTPClientEndpoint(reactor, "127.9.9.9", 9, timeout=9).connect(Accepting())
    await until(lambda: accepting.made and len(accepting.made[0].received) == len(data))
    assert bytes(accepting.made[0].received) == data
    client.transport.abortConnection()
    await until(lambda: accepting.made[0].lost)
    await port.stopListening()


def test_how_systems_tell_local_addresses() -> None:
    told = {platform: ipv4_option(platform) for platform in ("linux", "darwin", "freebsd14", "openbsd7", "win32")}
    assert told["win32"] is None
    assert {platform: option.request for platform, option in told.items() if option is not None} == {
        "linux": 8,
        "darwin": 26,
        "freebsd14": 7,
        "openbsd7": 7,
    }


# -- no verdict on a SYN --


class Failing:
    """A port whose first sends fail."""

    def __init__(self, port: Any, code: int, failures: int) -> None:
        self._port = port
        self.code = code
        self.failures = failures

    def send_batch(self, batch: Any) -> int:
        if self.failures:
            self.failures -= 1
            raise OSError(self.code, os.strerror(self.code))
        return int(self._port.send_batch(batch))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def attempt(code: int, failures: int) -> tuple[Network, Accepting, list[Any]]:
    """A client whose first SYNs fail in its own kernel."""
    network = Network(seed=1)
    network.connect(CLIENT, SERVER, Link(delay_us=10_000))
    UTPServerEndpoint(network.reactor(SERVER), PORT).listen(Accepting())
    connecting, problems = Accepting(), list[Any]()
    endpoint = UTPClientEndpoint(network.reactor(CLIENT), SERVER, PORT, timeout=20)
    endpoint.connect(connecting).addErrback(lambda failure: problems.append(failure.value))
    (number,) = (number for host, number in network.ports if host == CLIENT)
    utp = network.ports[CLIENT, number].protocol
    utp._outbox.port = Failing(utp._outbox.port, code, failures)
    return network, connecting, problems


@pytest.mark.parametrize("code", [errno.EPERM, errno.EACCES, errno.EIO, errno.EPROTO, errno.ENODEV])
def test_a_syn_that_a_packet_filter_refuses_is_repeated(code: int) -> None:
    """The table of connections is full, or a rule is about to change: the SYN is repeated, as with TCP."""
    network, connecting, problems = attempt(code, failures=1)
    network.run(5)
    assert len(connecting.made) == 1
    assert problems == []

    network, connecting, problems = attempt(code, failures=100)
    network.run(19)
    assert problems == []
    network.run(2)
    assert [type(problem) for problem in problems] == [error.TimeoutError]


@pytest.mark.parametrize("code", sorted(NO_ROUTE))
def test_without_a_route_there_is_no_waiting(code: int) -> None:
    network, connecting, problems = attempt(code, failures=100)
    network.run(0.1)
    assert [type(problem) for problem in problems] == [error.NoRouteError]
    assert not connecting.made


def test_all_systems_names_for_a_missing_route_are_known() -> None:
    assert {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL} <= NO_ROUTE


# -- reactors that cannot adopt --


class Unadopting:
    """A reactor that is none of descriptors, as Windows' IOCP."""

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> Any:
        raise AssertionError("nothing is opened")

    def callLater(self, seconds: float, function: Any, *arguments: Any) -> None:
        raise AssertionError("nothing is scheduled")


@pytest_twisted.ensureDeferred
async def test_a_reactor_that_cannot_adopt_says_so() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind((LOCAL, 0))
        with pytest.raises(NotImplementedError, match="Unadopting cannot adopt a UDP socket"):
            adoptUTPPort(Unadopting(), theirs.fileno(), Accepting())
        endpoint: Any = serverFromString(Unadopting(), f"utp:fd={theirs.fileno()}")
        with pytest.raises(NotImplementedError, match="cannot adopt"):
            await endpoint.listen(Accepting())
        assert theirs.getsockname()[1], "it is theirs still"
