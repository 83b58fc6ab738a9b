"""``txutp.rebinding``: TCP calls of a reactor that speak uTP by a rule, undone without a trace, and whole programs."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor, tcp
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.endpoints import (
    HostnameEndpoint,
    clientFromString,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.interfaces import IConnector, IListeningPort
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from tests.shell.test_racing import Answer, Greeting, ask
from tests.shell.test_unread import certificate
from tests.support import pause, until
from txutp import Settings, speaks_utp
from txutp.rebinding import (
    METHODS,
    Call,
    connecting,
    everything,
    hosts,
    listening,
    ports,
    rebound,
    rebound_when_installed,
)
from txutp.rebinding.posing import as_tcp

ROOT = Path(__file__).resolve().parent.parent.parent
LOCAL = "127.0.0.1"
TIMEOUT_SECONDS = 60

any_reactor: Any = reactor


class Answering(ClientFactory):
    """A client factory for ``connectTCP``, which keeps its one protocol."""

    noisy = False

    def __init__(self) -> None:
        self.client = Answer()
        self.failures: list[Any] = []
        self.addresses: list[Any] = []

    def buildProtocol(self, addr: Any) -> Answer:
        self.addresses.append(addr)
        return self.client

    def clientConnectionFailed(self, connector: Any, reason: Any) -> None:
        self.failures.append(reason.type)


# -- rules --


def to(host: str, port: int | str = 80) -> Call:
    return Call(False, host, port)


@pytest.mark.parametrize(
    ("rule", "chosen", "others"),
    [
        (everything, [to("a"), Call(True, "", 0)], []),
        (listening, [Call(True, "", 80)], [to("a")]),
        (connecting, [to("a")], [Call(True, "", 80)]),
        (
            ports(80, "8000-8002"),
            [to("a", 80), to("a", 8000), to("a", 8002)],
            [to("a", 81), to("a", 8003), to("a", "x")],
        ),
        (hosts("10.0.0.0/8", "::1"), [to("10.1.2.3"), to("::1")], [to("11.0.0.1"), to("::2"), to("a")]),
        (hosts("fe80::/10"), [to("fe80::1%lo")], [to("::1")]),
        (hosts("0.0.0.0"), [Call(True, "", 1)], [Call(True, LOCAL, 1)]),
        (hosts("*.Example.org"), [to("a.example.ORG")], [to("example.org"), to("10.0.0.1")]),
        (hosts("localhost"), [to("localhost"), to(LOCAL)], [to("127.0.0.2"), to("example.org")]),
        (connecting & ports(80) & ~hosts(LOCAL), [to("10.0.0.1")], [to(LOCAL), to("10.0.0.1", 81), Call(True, "", 80)]),
        (ports(1) | ports(2), [to("a", 1), to("a", 2)], [to("a", 3)]),
        (everything & (lambda call: call.tls), [Call(False, "a", 1, tls=True)], [to("a", 1)]),
    ],
    ids=repr,
)
def test_rules(rule: Callable[[Call], bool], chosen: list[Call], others: list[Call]) -> None:
    assert [call for call in chosen if not rule(call)] == []
    assert [call for call in others if rule(call)] == []


@pytest.mark.parametrize("wrong", ["", "x", "1-x", "-1", "65536", "9-8", "1-2-3"])
def test_ports_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="port"):
        ports(wrong)


@pytest.mark.parametrize("wrong", ["", "10.0.0.0/64", "x/8"])
def test_hosts_that_are_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="hosts are addresses"):
        hosts(wrong)


@pytest.mark.parametrize(("target", "rule"), [(object(), everything), (MemoryReactorClock(), None)])
def test_what_cannot_be_rebound(target: Any, rule: Any) -> None:
    with pytest.raises(TypeError):
        rebound(target, rule)


# -- switching --


def attributes(target: Any) -> dict[str, Any]:
    """What is set on this very object in the place of its class' methods."""
    return {name: vars(target).get(name) for name in METHODS}


def test_a_call_that_no_rule_chooses_is_the_reactors_own() -> None:
    target = MemoryReactorClock()
    factory = ClientFactory()
    with rebound(target, ports(1)) as rebinding:
        target.connectTCP("a", 2, factory, bindAddress=("b", 3))
        target.listenTCP(2, factory, interface=LOCAL)
        target.connectSSL("a", 2, factory, "context", timeout=5)
        target.listenSSL(2, factory, "context", 7)
    assert target.tcpClients == [("a", 2, factory, 30, ("b", 3))]
    assert target.tcpServers == [(2, factory, 50, LOCAL)]
    assert target.sslClients == [("a", 2, factory, "context", 5, None)]
    assert target.sslServers == [(2, factory, "context", 7, "")]
    assert rebinding.counts.left_to_tcp == 4


def test_a_rule_is_asked_once_for_each_call() -> None:
    """Also where a reactor makes one of its methods from another one."""
    ssl = pytest.importorskip("twisted.internet.ssl")
    asked: list[Call] = []

    def never(call: Call) -> bool:
        asked.append(call)
        return False

    with rebound(any_reactor, never):
        connector = any_reactor.connectSSL(LOCAL, "http", Answering(), ssl.CertificateOptions())
        connector.stopConnecting()
        with pytest.raises(error.CannotListenError):
            any_reactor.listenTCP(0, Factory(), interface="192.0.2.1")
    assert asked == [Call(False, LOCAL, 80, tls=True), Call(True, "192.0.2.1", 0)]


def test_it_is_undone_at_the_end_whatever_happens() -> None:
    before = attributes(reactor)
    with suppress(ZeroDivisionError), rebound(reactor):
        assert attributes(reactor) != before
        raise ZeroDivisionError
    assert attributes(reactor) == before
    assert any_reactor.listenTCP.__func__ is type(reactor).listenTCP  # type: ignore[attr-defined]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_nested_rebindings_end_in_any_order(order: tuple[int, ...]) -> None:
    target = MemoryReactorClock()
    before = attributes(target)
    rebindings = [rebound(target, ports(9)) for _ in range(3)]
    for place in order:
        assert attributes(target) != before
        rebindings[place].undo()
        rebindings[place].undo()
    assert attributes(target) == before


def test_what_others_have_put_there_stays() -> None:
    """A program has its own methods, from before or from after."""
    target: Any = MemoryReactorClock()
    calls: list[str] = []
    target.connectTCP = lambda *arguments: calls.append("before")
    before = attributes(target)
    with rebound(target, ports(9)):
        ours = target.listenTCP

        def listen(*arguments: Any) -> Any:
            calls.append("after")
            return ours(*arguments)

        target.listenTCP = listen
        target.connectTCP("a", 1, Factory())
    target.connectTCP("a", 1, Factory())
    assert target.listenTCP is listen
    target.listenTCP(1, Factory())
    assert calls == ["before", "before", "after"]
    assert len(target.tcpServers) == 1
    assert attributes(target)["connectTCP"] is before["connectTCP"]


@pytest_twisted.ensureDeferred
async def test_a_call_belongs_to_the_latest_rebinding_that_chooses_it() -> None:
    with rebound(reactor, listening) as outer, rebound(reactor, ports(0), Settings(keepalive_us=None)) as inner:
        port = any_reactor.listenTCP(0, Factory(), interface=LOCAL)
        assert (len(outer.counts.listened), len(inner.counts.listened)) == (0, 1)
        await port.stopListening()
        inner.undo()
        port = any_reactor.listenTCP(0, Factory(), interface=LOCAL)
        assert (len(outer.counts.listened), len(inner.counts.listened)) == (1, 1)
        await port.stopListening()


# -- what callers see --


@pytest_twisted.ensureDeferred
async def test_listen_and_connect_as_tcp_does() -> None:
    server = Factory.forProtocol(Greeting)
    seen: list[Any] = []
    build = server.buildProtocol
    server.buildProtocol = lambda address: (seen.append(address), build(address))[1]  # type: ignore[method-assign]
    factory = Answering()
    with rebound(reactor) as rebinding:
        port = any_reactor.listenTCP(0, server, interface=LOCAL)
        number = port.getHost().port
        connector = any_reactor.connectTCP(LOCAL, number, factory, timeout=10, bindAddress=(LOCAL, 0))
    verifyObject(IListeningPort, port)
    verifyObject(IConnector, connector)
    assert port.getHost() == connector.getDestination() == IPv4Address("TCP", LOCAL, number)
    await until(lambda: factory.client.made)
    transport: Any = factory.client.transport
    assert speaks_utp(transport)
    assert transport.getPeer() == factory.addresses[0] == port.getHost()
    transport.write(b"hello")
    assert await factory.client.answered == b"hello"
    assert transport.getHost() == seen[0]
    assert seen[0].type == "TCP"
    assert str(rebinding.counts) == (
        f"listened over uTP: {LOCAL}:{number}; uTP connections accepted: 1, made: 1; calls left to TCP: 0"
    )
    with pytest.raises(ConnectionRefusedError), socket.create_connection((LOCAL, number)):
        pass
    connector.disconnect()
    await factory.client.ended
    await port.stopListening()


def test_addresses() -> None:
    address = IPv6Address("UDP", "fe80::1", 1, 2, "lo")
    assert as_tcp(address) == IPv6Address("TCP", "fe80::1", 1, 2, "lo")
    assert as_tcp(None) is None


@pytest_twisted.ensureDeferred
async def test_failures_reach_the_factory() -> None:
    factory = Answering()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, rebound(reactor):
        taken.bind((LOCAL, 0))
        number = taken.getsockname()[1]
        with pytest.raises(error.CannotListenError):
            any_reactor.listenTCP(number, Factory(), interface=LOCAL)
        any_reactor.connectTCP(LOCAL, number, factory, timeout=0.1)
        await until(lambda: factory.failures)
    assert factory.failures == [error.TimeoutError]


@pytest.mark.skipif(not hasattr(tcp, "makeBinding"), reason="this Twisted has no makeBinding")
@pytest_twisted.ensureDeferred
async def test_bindings_of_newer_versions_of_twisted() -> None:
    factory = Answering()
    with rebound(reactor, ~ports(9)):
        port = any_reactor.listenTCP(tcp.makeBinding(LOCAL, 0, reuseAddress=True), Factory.forProtocol(Greeting))
        any_reactor.connectTCP(LOCAL, port.getHost().port, factory, bindAddress=tcp.makeBinding(LOCAL))
    await until(lambda: factory.client.made)
    assert speaks_utp(factory.client.transport)
    factory.client.transport.loseConnection()  # type: ignore[union-attr]
    await factory.client.ended
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_endpoints_follow() -> None:
    with rebound(reactor):
        port = await serverFromString(reactor, f"tcp:0:interface={LOCAL}").listen(Factory.forProtocol(Greeting))
        number = port.getHost().port
        assert await ask(clientFromString(reactor, f"tcp:{LOCAL}:{number}"))
        assert await ask(HostnameEndpoint(reactor, "localhost", number))
    await port.stopListening()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyOpenSSL's certificates
@pytest_twisted.ensureDeferred
async def test_tls_with_the_same_context_factories() -> None:
    ssl = pytest.importorskip("twisted.internet.ssl")
    trust = ssl.CertificateOptions(verify=False)
    factory = Answering()
    with rebound(reactor) as rebinding:
        port = any_reactor.listenSSL(0, Factory.forProtocol(Greeting), certificate(), interface=LOCAL)
        number = port.getHost().port
        assert port.getHost().type == "TCP"
        any_reactor.connectSSL(LOCAL, number, factory, trust)
        await until(lambda: factory.client.made)
        assert factory.client.transport.getPeer().type == "TCP"  # type: ignore[union-attr]
        factory.client.transport.write(b"hello")  # type: ignore[union-attr]
        assert await factory.client.answered == b"hello"
        factory.client.transport.loseConnection()  # type: ignore[union-attr]
        await factory.client.ended
        assert await ask(wrapClientTLS(trust, clientFromString(reactor, f"tcp:{LOCAL}:{number}")))
    assert (rebinding.counts.accepted, rebinding.counts.connected) == (2, 2)
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_connections_outlive_the_rebinding() -> None:
    with rebound(reactor):
        port = any_reactor.listenTCP(0, Factory.forProtocol(Greeting), interface=LOCAL)
        client = await connectProtocol(clientFromString(reactor, f"tcp:{LOCAL}:{port.getHost().port}"), Answer())
    await pause()
    client.transport.write(b"still here")
    assert await client.answered == b"still here"
    client.transport.loseConnection()
    await client.ended
    await port.stopListening()


def test_a_reactor_that_is_there_already_is_rebound() -> None:
    rebindings: list[Any] = []
    from twisted.internet import main

    install = main.installReactor
    try:
        rebound_when_installed(ports(9), installed=rebindings.append)
        [rebinding] = rebindings
        assert rebinding.reactor is reactor
        rebinding.undo()
    finally:
        main.installReactor = install


# -- whole programs --

PROGRAM = """
import sys
from twisted.internet import {reactor}
from twisted.internet import reactor
from twisted.internet.protocol import Factory
port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
print(type(port).__name__, sys.argv[1:], sys.path[0] == {place!r}, __name__, flush=True)
reactor.callLater(0, reactor.stop)
reactor.run()
sys.exit(7)
"""


def rebind(*words: str, place: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    # Packages of the checkout are found; the place of the program is not on the path.
    changes = {"PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "txutp.rebinding", *words],
        cwd=place,
        env=os.environ | changes,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


def program(place: Path, text: str) -> str:
    """A file with a program, in a directory of its own."""
    folder = place / "programs"
    folder.mkdir(exist_ok=True)
    (folder / "program.py").write_text(text)
    return str(folder / "program.py")


@pytest.mark.parametrize("chosen", ["asyncioreactor", "selectreactor", "pollreactor"])
def test_a_file_that_chooses_its_reactor(tmp_path: Path, chosen: str) -> None:
    path = program(tmp_path, PROGRAM.format(reactor=f"{chosen}; {chosen}.install()", place=str(tmp_path / "programs")))
    done = rebind("--report", "report", path, "-m", "--ports", "9", place=tmp_path)
    assert done.returncode == 7, done.stderr
    assert done.stdout == "PosingPort ['-m', '--ports', '9'] True __main__\n"
    report = (tmp_path / "report").read_text()
    assert report.startswith("program.py (process ")
    assert "listened over uTP: 127.0.0.1:" in report


def test_a_module(tmp_path: Path) -> None:
    """It is found in the current directory, as ``python -m`` finds it."""
    (tmp_path / "server.py").write_text(PROGRAM.format(reactor="error", place=str(tmp_path)))
    done = rebind("-m", "server", "-x", place=tmp_path)
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("PosingPort ['-x'] ")


def test_a_rule_on_the_command_line(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAM.format(reactor="error", place=""))
    for words, kind in [
        (["--connect"], "Port"),
        (["--listen"], "PosingPort"),
        (["--ports", "1-3,0"], "PosingPort"),
        (["--not-ports=0"], "Port"),
        (["--hosts=127.0.0.0/8"], "PosingPort"),
        (["--not-hosts=localhost"], "Port"),
    ]:
        assert rebind(*words, path, place=tmp_path).stdout.startswith(f"{kind} "), words


def child_says(place: Path, *options: str, **environment: str) -> str:
    """What kind of port a child of a program gets."""
    text = """
import subprocess, sys
child = '''
from twisted.internet import reactor
from twisted.internet.protocol import Factory
print(type(reactor.listenTCP(0, Factory(), interface="127.0.0.1")).__name__)
try:
    import sitecustomize
    print(sitecustomize.NAME)
except (ImportError, AttributeError):
    print("none")
'''
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""
    done = rebind(*options, program(place, text), place=place, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_children_inherit(tmp_path: Path) -> None:
    assert child_says(tmp_path) == "PosingPort\nnone\n"
    assert child_says(tmp_path, "--connect") == "Port\nnone\n"
    assert child_says(tmp_path, "--no-children") == "Port\nnone\n"


def test_a_child_that_needs_no_twisted_imports_none(tmp_path: Path) -> None:
    text = """
import subprocess, sys
child = "import sys; print(sorted({'txutp', 'twisted', 'zope'} & set(sys.modules)))"
sys.exit(subprocess.run([sys.executable, "-c", child]).returncode)
"""
    done = rebind(program(tmp_path, text), place=tmp_path)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_child_without_txutp_goes_on_without_utp(tmp_path: Path) -> None:
    text = f"""
import os, subprocess, sys
found = [path for path in os.environ["PYTHONPATH"].split(os.pathsep) if path != {str(ROOT)!r}]
hide = "import importlib.util as util; find = util.find_spec; "
hide += "util.find_spec = lambda name: name != 'txutp' and find(name) or None"
child = hide + "\\nfrom twisted.internet import reactor; print(reactor.listenTCP.__self__ is reactor)"
environment = os.environ | {{"PYTHONPATH": os.pathsep.join(found)}}
sys.exit(subprocess.run([sys.executable, "-c", child], env=environment).returncode)
"""
    done = rebind(program(tmp_path, text), place=tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_children_keep_the_sitecustomize_that_they_had(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("NAME = 'theirs'\n")
    found = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert child_says(tmp_path, PYTHONPATH=found) == "PosingPort\ntheirs\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which program?"),
        (["nothing-of-this-name"], "there is no file and no command"),
        (["--ports", "80-x", "twist"], "ports are numbers from 0 to 65535"),
        (["--hosts", "x/8", "twist"], "hosts are addresses"),
        (["--listen", "--connect", "twist"], "not allowed with"),
        (["--nothing", "twist"], "unrecognized arguments"),
        (["script"], "is no Python program: /bin/bash runs it"),
        (["foreign"], "belongs to another Python"),
        (["binary"], "is no Python program"),
    ],
)
def test_sentences(tmp_path: Path, words: list[str], sentence: str) -> None:
    for name, content in {
        "script": b"#!/bin/bash\n",
        "foreign": b"#!/somewhere/else/bin/python3\n",
        "binary": b"\x7fELF\0\0",
    }.items():
        (tmp_path / name).write_bytes(content)
    done = rebind(*words, place=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_options_are_those_of_the_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "howto" / "programs.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`--.*?) \|", page, re.MULTILINE)
    done = rebind("--help", place=tmp_path)
    assert done.returncode == 0
    assert set(re.findall(r"--[\w-]+", " ".join(cells))) == set(re.findall(r"^  (--[\w-]+)", done.stdout, re.MULTILINE))


def test_a_program_without_a_reactor_is_told_of(tmp_path: Path) -> None:
    path = program(tmp_path, "print('done')")
    done = rebind("--report=report", path, place=tmp_path)
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert "never had a reactor" in (tmp_path / "report").read_text()


@pytest.mark.skipif(os.name == "nt", reason="there are no daemons")
@pytest.mark.slow
def test_a_daemon(tmp_path: Path) -> None:
    """``twistd`` leaves the terminal, serves over uTP, and ends when it is told to."""
    (tmp_path / "page").write_text("hello")
    done = rebind("--report=report", "twistd", "--pidfile=pid", "web", "--path=page", "--listen=tcp:0", place=tmp_path)
    assert done.returncode == 0, done.stderr
    report = tmp_path / "report"
    deadline = any_reactor.seconds() + TIMEOUT_SECONDS
    while not (tmp_path / "pid").exists() and any_reactor.seconds() < deadline:
        signal.sigtimedwait([], 0.1)
    # The file is there a moment before its content is, and before the handler of the signal.
    while "starting on" not in (tmp_path / "twistd.log").read_text() and any_reactor.seconds() < deadline:
        signal.sigtimedwait([], 0.1)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGTERM)
    while not report.exists() and any_reactor.seconds() < deadline:
        signal.sigtimedwait([], 0.1)
    assert report.read_text().startswith("twistd (process ")
    assert "listened over uTP: 0.0.0.0:" in report.read_text()
