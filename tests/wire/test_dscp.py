"""How packets are marked for the routers (DSCP), seen by those that get them, on the loopback interface."""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString

from tests.support import Accepting, until
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, adoptUTPPort, connectUTP
from txutp.core.dscp import NAMES, dscp_of
from txutp.core.packet import ST_DATA, ST_STATE, ST_SYN, Packet, parse_untrusted

LOCAL = "127.0.0.1"
IP_RECVTOS, IPV6_RECVTCLASS = 13, 66
LOWER_EFFORT, EXPEDITED = 1, 46

linux = pytest.mark.skipif(sys.platform != "linux", reason="The options are those of Linux.")


class Watcher:
    """A peer with a socket of the kernel, which tells how what comes is marked."""

    def __init__(self, host: str) -> None:
        is_ipv6 = ":" in host
        self.socket = socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        if is_ipv6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        self.socket.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
        self.socket.bind((host, 0))
        self.socket.setblocking(False)
        self.number = self.socket.getsockname()[1]

    async def hear(self) -> tuple[Packet, int, Any]:
        """The next packet, its DSCP, and who sent it."""
        heard: list[Any] = []

        def has_come() -> bool:
            try:
                heard.append(self.socket.recvmsg(65_535, 500))
            except BlockingIOError:
                return False
            return True

        await until(has_come)
        data, ancillary, _, address = heard[0]
        packet = parse_untrusted(data)
        assert packet is not None
        ((_, _, value),) = ancillary
        return packet, value[0] >> 2, address

    async def answer(self) -> tuple[int, int]:
        """Take a SYN, accept, and hear data: how both were marked."""
        syn, first, address = await self.hear()
        assert syn.type == ST_SYN
        answer = Packet(ST_STATE, syn.connection_id, 1, 1, 1 << 20, 7_000, syn.seq_nr, None, b"")
        self.socket.sendto(answer.encode(), address[:2])
        packet, second, _ = await self.hear()
        while packet.type != ST_DATA:
            packet, second, _ = await self.hear()
        return first, second

    async def ask(self, host: str, port: int) -> int:
        """Send a SYN: how the answer is marked."""
        self.socket.sendto(Packet(ST_SYN, 500, 1, 0, 1 << 20, 7, 0, None, b"").encode(), (host, port))
        answer, marked, _ = await self.hear()
        assert answer.type == ST_STATE
        return marked


class Speaking(Accepting):
    """Clients that say something, and servers that do."""

    def buildProtocol(self, addr: Any) -> Any:
        made = super().buildProtocol(addr)
        begin = made.connectionMade

        def speak() -> None:
            begin()
            made.transport.write(b"data")  # type: ignore[union-attr]

        made.connectionMade = speak  # type: ignore[method-assign]
        return made

    startedConnecting = clientConnectionLost = clientConnectionFailed = lambda *arguments: None


def leave(connecting: Accepting) -> None:
    for one in connecting.made:
        one.transport.abortConnection()


# -- what is accepted --


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("le", 1), ("LE", 1), ("cs0", 0), ("cs1", 8), ("cs7", 56), ("af11", 10), ("af43", 38), ("ef", 46)),
        *(("va", 44), ("df", 0), ("0", 0), ("63", 63), (0, 0), (8, 8), (63, 63)),
    ],
)
def test_names_and_numbers(value: int | str, number: int) -> None:
    assert Settings(dscp=value).dscp == number
    assert Settings(dscp=number) == Settings(dscp=value)
    server: Any = serverFromString(reactor, f"utp:0:dscp={value}")
    client: Any = clientFromString(reactor, f"utp:host:1:dscp={value}")
    assert server._settings.dscp == client._settings.dscp == number


def test_every_name_of_the_registry() -> None:
    assert len(NAMES) == 2 + 8 + 12 + 2
    assert {NAMES[f"af{x}{y}"] for x in range(1, 5) for y in range(1, 4)} == {
        *(10, 12, 14, 18, 20, 22, 26, 28, 30, 34, 36, 38)
    }


@pytest.mark.parametrize("wrong", ["", "af44", "af1", "cs8", "64", "-1", "1.5", "best", "0x10", "²", 64, -1])
def test_a_value_that_is_no_codepoint_is_refused_with_the_accepted_values(wrong: int | str) -> None:
    with pytest.raises(ValueError, match="from 0 to 63, or a name: le, df, cs0 to cs7, af11 to af43, ef or va; not"):
        dscp_of(wrong)
    with pytest.raises(ValueError, match="dscp is a number from 0 to 63"):
        Settings(dscp=wrong)
    for parse, string in ((serverFromString, "utp:0"), (clientFromString, "utp:host:1")):
        with pytest.raises(ValueError, match="dscp is a number from 0 to 63"):
            parse(reactor, f"{string}:dscp={wrong}")


@pytest.mark.parametrize("wrong", [True, 1.0, b"le", object()])
def test_other_types_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="dscp is a number"):
        Settings(dscp=wrong)


# -- what is on the wire --


@linux
@pytest.mark.parametrize(
    ("option", "expected"), [("", LOWER_EFFORT), (":dscp=cs1", 8), (":dscp=0", 0), (":dscp=ef", EXPEDITED)]
)
@pytest.mark.parametrize("host", [LOCAL, "::1"])
@pytest_twisted.ensureDeferred
async def test_strings_mark_both_ends(host: str, option: str, expected: int) -> None:
    watcher = Watcher(host)
    quoted = host.replace(":", "\\:")
    connecting = Speaking()
    clientFromString(reactor, f"utp:{quoted}:{watcher.number}{option}").connect(connecting)
    assert await watcher.answer() == (expected, expected)
    leave(connecting)

    interface = f":interface={quoted}" if ":" in host else ""
    port = await serverFromString(reactor, f"utp:0{interface}{option}").listen(Accepting())
    assert await Watcher(host).ask(host, port.getHost().port) == expected
    await port.stopListening()


@linux
@pytest_twisted.ensureDeferred
async def test_a_dual_stack_port_marks_ipv4_as_well() -> None:
    settings = Settings(dscp="ef")
    port = await UTPServerEndpoint(reactor, 0, interface="::", settings=settings).listen(Accepting())
    for host in (LOCAL, "127.0.0.2", "::1"):
        assert await Watcher("::1" if ":" in host else LOCAL).ask(host, port.getHost().port) == EXPEDITED
    await port.stopListening()


@linux
@pytest.mark.parametrize(("option", "expected"), [(None, 20), ("ef", EXPEDITED), (0, 0)])
@pytest.mark.parametrize("by_string", [False, True])
@pytest_twisted.ensureDeferred
async def test_an_adopted_socket_keeps_its_own_unless_the_settings_say_one(
    option: Any, expected: int, by_string: bool
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as theirs:
        theirs.bind((LOCAL, 0))
        theirs.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 20 << 2)
        if by_string:
            said = "" if option is None else f":dscp={option}"
            port: Any = await serverFromString(reactor, f"utp:fd={os.dup(theirs.fileno())}{said}").listen(Accepting())
        else:
            port = adoptUTPPort(reactor, theirs.fileno(), Accepting(), settings=Settings(dscp=option))
    number = port.getHost().port
    assert await Watcher(LOCAL).ask(LOCAL, number) == expected

    # a client that leaves from there says what it wants, if it wants something
    for wanted, marked in ((None, expected), ("cs1", 8)):
        watcher, connecting = Watcher(LOCAL), Speaking()
        endpoint = UTPClientEndpoint(
            reactor, LOCAL, watcher.number, bindAddress=(LOCAL, number), settings=Settings(dscp=wanted)
        )
        endpoint.connect(connecting)
        assert await watcher.answer() == (marked, marked)
        leave(connecting)
    await port.stopListening()


@linux
@pytest_twisted.ensureDeferred
async def test_clients_with_different_marks_do_not_get_each_others() -> None:
    """Not those that leave their port to us, and not those that leave from the port of a server."""
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL, settings=Settings(dscp=EXPEDITED)).listen(Accepting())
    number = port.getHost().port
    watchers, clients = [], []
    for ours in (None, (LOCAL, number)):
        for dscp in (None, 8, EXPEDITED, 0):
            watcher, connecting = Watcher(LOCAL), Speaking()
            connectUTP(reactor, LOCAL, watcher.number, connecting, bindAddress=ours, settings=Settings(dscp=dscp))
            watchers.append((watcher, LOWER_EFFORT if dscp is None else dscp))
            clients.append(connecting)
    for watcher, expected in watchers:
        assert await watcher.answer() == (expected, expected)
    assert await Watcher(LOCAL).ask(LOCAL, number) == EXPEDITED
    for connecting in clients:
        leave(connecting)
    await port.stopListening()


@linux
@pytest_twisted.ensureDeferred
async def test_a_server_that_comes_back_marks_as_its_new_settings_say() -> None:
    """Its port was kept open by a connection, which goes on as before."""
    connecting = Speaking()
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, 0, interface=LOCAL).listen(accepting)
    number = port.getHost().port
    watcher = Watcher(LOCAL)
    endpoint = UTPClientEndpoint(reactor, LOCAL, watcher.number, bindAddress=(LOCAL, number), settings=Settings(dscp=8))
    endpoint.connect(connecting)
    assert await watcher.answer() == (8, 8)
    port.stopListening()
    again = await UTPServerEndpoint(reactor, number, interface=LOCAL, settings=Settings(dscp=EXPEDITED)).listen(
        Accepting()
    )
    assert await Watcher(LOCAL).ask(LOCAL, number) == EXPEDITED
    transport: Any = connecting.made[0].transport
    transport.setTcpNoDelay(True)
    transport.write(b"more")
    packet, marked, _ = await watcher.hear()
    while packet.data != b"more":
        packet, marked, _ = await watcher.hear()
    assert marked == 8
    leave(connecting)
    await again.stopListening()
