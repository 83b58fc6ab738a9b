"""Several processes on one UDP port, on real sockets of the loopback interface.

The workers run ``worker_program.py``.  No test waits for a time: each waits until something is so.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from tests.support import pause
from tests.support import until as until_in
from txutp import UTPClientEndpoint, listenUTP
from txutp.core.packet import ST_DATA, ST_RESET, ST_STATE, ST_SYN, Packet, parse_untrusted
from txutp.udp.options import SOL_UDP, UDP_SEGMENT, has_option
from txutp.workers import Workers, WorkersFailed, parent, why_no_steering

ROOT = Path(__file__).resolve().parent
PROGRAM = str(ROOT / "worker_program.py")
PATIENCE_SECONDS = 60.0
MISSING = "TXUTP_TEST_BROKEN"  # as in worker_program.py
HOSTS = ["127.0.0.1", "::1"]

pytestmark = pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())


async def until(true: Any) -> None:
    await until_in(true, PATIENCE_SECONDS)


@asynccontextmanager
async def running(workers: int, *hosts: str, **environment: str) -> AsyncIterator[Workers]:
    """Workers that listen on a port of each host."""
    hosts = hosts or ("127.0.0.1",)
    made = Workers(
        reactor,
        [PROGRAM, *(f"{host}=0" for host in hosts)],
        workers,
        [(host, 0) for host in hosts],
        {**os.environ, "PYTHONPATH": str(ROOT.parent.parent), **environment},
    )
    made.startService()
    try:
        await made.when_ready()
        yield made
    finally:
        await made.stopService()
    assert made.pids == []


@pytest_twisted.async_yield_fixture(scope="module")
async def workers() -> AsyncIterator[Workers]:
    """Three workers on a port of each version of IP, for the tests that leave them as they are."""
    async with running(3, *HOSTS) as made:
        yield made


class Client(Protocol):
    """Says lines, and hears a line for each."""

    transport: Any

    def __init__(self) -> None:
        self.heard = b""
        self.asked: list[Deferred[str]] = []
        self.bulk_bytes = 0
        self.digest = hashlib.sha256()
        self.arrived: Deferred[str] | None = None
        self.lost = False

    def ask(self, line: str) -> Deferred[str]:
        answer: Deferred[str] = Deferred()
        answer.addTimeout(PATIENCE_SECONDS, reactor)
        self.asked.append(answer)
        self.transport.write(line.encode() + b"\n")
        return answer

    def echo(self, content: bytes) -> Deferred[str]:
        """Fires with the digest of what has come back, when it is all there."""
        self.arrived = Deferred()
        self.arrived.addTimeout(PATIENCE_SECONDS, reactor)
        self.bulk_bytes = len(content)
        self.transport.write(b"bulk\n" + content)
        return self.arrived

    def dataReceived(self, data: bytes) -> None:
        if self.arrived is not None:
            self.digest.update(data)
            self.bulk_bytes -= len(data)
            if not self.bulk_bytes:
                self.arrived.callback(self.digest.hexdigest())
            return
        *lines, self.heard = (self.heard + data).split(b"\n")
        for line in lines:
            self.asked.pop(0).callback(line.decode())

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True


async def clients_of(workers: Workers, count: int, place: int = 0) -> list[Client]:
    """Connections to a port of the workers, all from one UDP port."""
    host, port = workers.addresses[place][:2]
    endpoint = UTPClientEndpoint(reactor, host, port)
    return list(await gatherResults([connectProtocol(endpoint, Client()) for _ in range(count)]))


async def asked(clients: list[Client], line: str = "who") -> list[list[str]]:
    answers = await gatherResults([client.ask(line) for client in clients])
    return [answer.split() for answer in answers]


def expected(workers: Workers) -> set[tuple[str, str]]:
    """What the workers answer to ``who``."""
    return {(str(number), str(pid)) for number, pid in enumerate(workers.pids)}


async def settled(workers: Workers, connections: int, place: int = 0) -> Any:
    """The statistics of a port when it has so many connections."""
    end = reactor.seconds() + PATIENCE_SECONDS
    while True:
        statistics = (await workers.stats())[place]
        if statistics.connections == connections:
            return statistics
        assert reactor.seconds() < end, statistics
        await pause()


@pytest_twisted.ensureDeferred
async def test_every_connection_stays_with_its_worker_under_load(workers: Workers) -> None:
    """On IPv4 and IPv6: lines and bulk in both directions at once, and each byte comes back on its connection."""
    lots = random.Random(1)
    for place in range(len(HOSTS)):
        before = await settled(workers, 0, place)
        busy = await clients_of(workers, 12, place)
        contents = [lots.randbytes(400_000) for _ in busy]
        echoes = [client.echo(content) for client, content in zip(busy, contents, strict=True)]
        talking = await clients_of(workers, 40, place)
        first = await asked(talking)
        for _ in range(5):
            assert await asked(talking) == first
        assert {(number, pid) for number, pid in first} == expected(workers)
        digests = await gatherResults(echoes)
        assert digests == [hashlib.sha256(content).hexdigest() for content in contents]
        statistics = await settled(workers, len(busy) + len(talking), place)
        assert statistics.dropped_unknown == before.dropped_unknown
        assert statistics.resets_sent == before.resets_sent
        assert statistics.dropped_malformed == 0
        for client in busy + talking:
            client.transport.loseConnection()


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("place", range(len(HOSTS)), ids=HOSTS)
async def test_workers_dial_from_the_port_that_they_share(workers: Workers, place: int) -> None:
    """The answers find them; and an ICMP error finds the worker that dials, whichever socket the kernel gives it to."""

    class Greeting(Protocol):
        transport: Any

        def connectionMade(self) -> None:
            peer = self.transport.getPeer()
            peers.append((peer.host, peer.port))

        def dataReceived(self, data: bytes) -> None:
            self.transport.write(b"to " + data)

    host = HOSTS[place]
    peers: list[tuple[str, int]] = []
    listening = listenUTP(reactor, 0, Factory.forProtocol(Greeting), interface=host)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((host, 0))
        closed = probe.getsockname()[1]
    clients = await clients_of(workers, 24, place)
    for _ in range(3):
        for number, *words in await asked(clients, f"dial {host} {listening.getHost().port}"):
            assert words == ["to", "hello", "from", number]
    assert set(peers) == {workers.addresses[place][:2]}
    assert len(peers) == 3 * len(clients)
    # one after the other: SYNs that leave in one run are one datagram for ICMP
    for client in clients[:12]:
        [[_, *words]] = await asked([client], f"dial {host} {closed}")
        assert words == ["ConnectionRefusedError"]
    for client in clients:
        client.transport.loseConnection()
    await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_what_is_not_utp_goes_to_one_worker(workers: Workers) -> None:
    """And its answers leave from the port; from as many sources as there are."""
    for number in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
            node.setblocking(False)
            node.sendto(b"d1:ad2:id%d" % number, workers.addresses[0])
            answers: list[tuple[bytes, Any]] = []

            def look(node: socket.socket = node, answers: list[tuple[bytes, Any]] = answers) -> bool:
                try:
                    answers.append(node.recvfrom(100))
                except BlockingIOError:
                    return False
                return True

            await until(look)
            assert answers == [(b"0 heard d1:ad2:id%d" % number, workers.addresses[0])]
    assert (await workers.stats())[0].foreign == 20


class ByHand:
    """A peer with a UDP socket of its own, whose packets the test writes."""

    def __init__(self, address: Any) -> None:
        self._address = address
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.heard: list[Packet] = []

    def send(self, *packets: Packet) -> None:
        for packet in packets:
            self.socket.sendto(packet.encode(), self._address)

    def look(self) -> int:
        """Read what has come; returns the number of packets so far."""
        try:
            while True:
                packet = parse_untrusted(self.socket.recv(2_000))
                assert packet is not None
                self.heard.append(packet)
        except BlockingIOError:
            return len(self.heard)


def packet(kind: int, connection_id: int, sequence: int, ack: int = 0, data: bytes = b"") -> Packet:
    return Packet(kind, connection_id, 1, 0, 1 << 20, sequence & 0xFFFF, ack & 0xFFFF, None, data)


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("step", [0, 1], ids=["send id", "receive id"])
async def test_a_reset_ends_its_connection_whichever_id_it_names(workers: Workers, step: int) -> None:
    """A libutp that does not know a connection echoes the id that it was sent, which is our send id."""
    before = await settled(workers, 0)
    peer = ByHand(workers.addresses[0])
    ids = range(1_000, 1_060, 10)  # of all workers
    peer.send(*(packet(ST_SYN, syn_id, 50) for syn_id in ids))
    await until(lambda: peer.look() == len(ids))
    numbers = {answer.connection_id: answer.seq_nr for answer in peer.heard}
    peer.send(*(packet(ST_DATA, syn_id + 1, 51, numbers[syn_id] - 1, b"x") for syn_id in ids))
    await settled(workers, len(ids))
    await until(lambda: peer.look() >= 2 * len(ids))
    peer.send(*(packet(ST_RESET, syn_id + step, 52, numbers[syn_id]) for syn_id in ids))
    statistics = await settled(workers, 0)
    assert statistics.resets_sent == before.resets_sent


@pytest_twisted.ensureDeferred
async def test_a_run_of_many_connections_is_divided(workers: Workers) -> None:
    """The kernel steers a run that leaves in one system call as a whole: by its first datagram."""
    before = await settled(workers, 0)
    peer = ByHand(workers.addresses[0])
    if not has_option(peer.socket, UDP_SEGMENT, None):
        pytest.skip("the kernel sends no runs")
    ids = range(2_000, 2_048, 4)  # of all workers
    run = b"".join(packet(ST_SYN, syn_id, 50).encode() for syn_id in ids)
    peer.socket.setsockopt(SOL_UDP, UDP_SEGMENT, len(run) // len(ids))
    peer.socket.sendto(run, workers.addresses[0])
    await until(lambda: peer.look() == len(ids))
    assert {answer.connection_id for answer in peer.heard} == set(ids)
    assert {answer.type for answer in peer.heard} == {ST_STATE}
    # what comes one by one goes where the kernel steers it, and finds the connections there; so does another run
    numbers = {answer.connection_id: answer.seq_nr for answer in peer.heard}
    single = [packet(ST_DATA, syn_id + 1, 51, numbers[syn_id] - 1, b"x") for syn_id in ids]
    second = [packet(ST_DATA, syn_id + 1, 52, numbers[syn_id] - 1, b"y").encode() for syn_id in ids]
    peer.socket.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    peer.send(*single)
    await until(lambda: acknowledged(peer) == dict.fromkeys(ids, 51))
    peer.socket.setsockopt(SOL_UDP, UDP_SEGMENT, len(second[0]))
    peer.socket.sendto(b"".join(second), workers.addresses[0])
    await until(lambda: acknowledged(peer) == dict.fromkeys(ids, 52))
    statistics = await settled(workers, len(ids))
    assert statistics.half_open == 0
    assert statistics.dropped_unknown == before.dropped_unknown
    assert statistics.resets_sent == before.resets_sent
    peer.socket.setsockopt(SOL_UDP, UDP_SEGMENT, 0)
    peer.send(*(packet(ST_RESET, syn_id, 53, numbers[syn_id]) for syn_id in ids))
    await settled(workers, 0)


def acknowledged(peer: ByHand) -> dict[int, int]:
    """The highest ack that came for each connection."""
    peer.look()
    return {answer.connection_id: answer.ack_nr for answer in sorted(peer.heard, key=lambda answer: answer.ack_nr)}


@pytest_twisted.ensureDeferred
async def test_a_worker_that_dies_takes_its_own_connections_only() -> None:
    """It is started again under its number; what the others do goes on meanwhile, and all ids lead where they led."""
    async with running(3) as workers:
        clients = await clients_of(workers, 45)
        first = await asked(clients)
        before = workers.pids
        doomed = next(client for client, (number, _) in zip(clients, first, strict=True) if number == "1")
        others = [client for client, (number, _) in zip(clients, first, strict=True) if number != "1"]
        busy = [await clients_of(workers, 1) for _ in range(6)]
        owners = [(await asked(each))[0][0] for each in busy]
        content = random.Random(2).randbytes(600_000)
        echoes = [each[0].echo(content) for each, owner in zip(busy, owners, strict=True) if owner != "1"]

        doomed.transport.write(b"die\n")
        await until(lambda: workers.pids[1] not in (None, before[1]))

        assert await gatherResults(echoes) == [hashlib.sha256(content).hexdigest()] * len(echoes)
        answers = await asked(others)
        assert {int(number) for number, _ in answers} == {0, 2}
        assert answers == [answer for answer in first if answer[0] != "1"]
        again = await asked(await clients_of(workers, 30))
        assert {(number, pid) for number, pid in again} == expected(workers)
        assert (workers.pids[0], workers.pids[2]) == (before[0], before[2])
        # the new worker knows nothing of the old connections, and says so
        await until(
            lambda: all(client.lost for client, (number, _) in zip(clients, first, strict=True) if number == "1")
        )


@pytest_twisted.ensureDeferred
async def test_a_restart_with_another_number_keeps_every_connection() -> None:
    """Old workers go on with theirs, through sockets that they do not read; they end with the last one."""
    async with running(2) as workers:
        generations: list[tuple[list[Client], list[list[str]]]] = []
        for wanted in (2, 3, 1):
            if wanted != 2:
                content = random.Random(3).randbytes(500_000)
                busy = await clients_of(workers, 4)
                echoes = [client.echo(content) for client in busy]
                await workers.restart(wanted)
                assert await gatherResults(echoes) == [hashlib.sha256(content).hexdigest()] * len(busy)
                for client in busy:
                    client.transport.loseConnection()
            clients = await clients_of(workers, 30)
            answers = await asked(clients)
            assert len(workers.pids) == wanted
            assert {(number, pid) for number, pid in answers} == expected(workers)
            generations.append((clients, answers))
            for old_clients, old_answers in generations:
                assert await asked(old_clients) == old_answers
        assert workers.retiring
        # the middle generation ends first
        for place in (1, 0):
            clients, _ = generations.pop(place)
            for client in clients:
                client.transport.loseConnection()
            await until(lambda: workers.retiring == (2 if generations[1:] else 0))
        clients, answers = generations[0]
        assert await asked(clients) == answers
        assert (await settled(workers, len(clients))).resets_sent == 0


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["ended", "killed"])
async def test_peers_hear_of_an_old_worker_that_ends_before_its_connections(how: int) -> None:
    """One that is ended says so itself; of one that was killed the new workers tell with the next packet."""
    async with running(2) as workers:
        clients = await clients_of(workers, 16)
        first, old = await asked(clients), workers.pids
        await workers.restart()
        assert old[1] is not None
        os.kill(old[1], how)
        await until(lambda: workers.retiring == 1)
        doomed = [client for client, (number, _) in zip(clients, first, strict=True) if number == "1"]
        for client in doomed:
            if how == signal.SIGKILL:
                client.transport.write(b"who\n")
        await until(lambda: all(client.lost for client in doomed))
        kept = [client for client in clients if client not in doomed]
        assert await asked(kept) == [answer for answer in first if answer[0] == "0"]


@pytest_twisted.ensureDeferred
async def test_stopped_in_a_restart() -> None:
    """Who waits for the restart hears that."""
    async with running(1) as workers:
        restart = workers.restart(2)
        await workers.stopService()
        with pytest.raises(WorkersFailed, match="the service has stopped"):
            await restart


@pytest_twisted.ensureDeferred
async def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Even if that is killed: else a new parent would find its port in use."""
    told = tmp_path / "told"
    program = f"import os, sys; open({str(told)!r}, 'a').write(str(os.getpid()) + '\\n'); import runpy;"
    program += f" sys.argv = [{PROGRAM!r}, '127.0.0.1=0']; runpy.run_path({PROGRAM!r}, run_name='__main__')"
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-m", "txutp.workers", "--workers", "2", "--listen", "utp:0:interface=127.0.0.1"]
    killed = subprocess.Popen(
        [*command, str(tmp_path / "program.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent.parent)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert killed.stderr is not None
        assert "2 workers on" in await deferToThread(killed.stderr.readline)
    finally:
        killed.kill()
        killed.wait()
    pids = [int(line) for line in told.read_text().split()]
    assert len(pids) == 2
    await until(lambda: not any(is_alive(pid) for pid in pids))


def is_alive(pid: int) -> bool:
    """Whether there is a process that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest_twisted.ensureDeferred
async def test_a_restart_that_fails_changes_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    async with running(2, **{MISSING: str(broken)}) as workers:
        clients = await clients_of(workers, 10)
        first, before = await asked(clients), workers.pids
        broken.touch()
        with pytest.raises(WorkersFailed, match=r"ended before it listened: .* exit code 3"):
            await workers.restart(3)
        assert workers.pids == before
        assert await asked(clients) == first
        assert {(number, pid) for number, pid in await asked(await clients_of(workers, 20))} == expected(workers)
        broken.unlink()
        await workers.restart(3)
        assert {(number, pid) for number, pid in await asked(await clients_of(workers, 30))} == expected(workers)
        assert await asked(clients) == first


@pytest_twisted.ensureDeferred
async def test_programs_that_never_listen_are_told_of() -> None:
    with pytest.raises(WorkersFailed, match="ended before it listened"):
        async with running(2, **{MISSING: str(ROOT)}):
            raise AssertionError("it listens")


@pytest_twisted.ensureDeferred
async def test_where_the_kernel_cannot_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restarts and all the rest are as with several."""
    monkeypatch.setattr(parent, "why_no_steering", lambda: "This system cannot.")
    async with running(4) as workers:
        assert workers.why_one == "This system cannot."
        assert len(workers.pids) == 1
        clients = await clients_of(workers, 5)
        first = await asked(clients)
        await workers.restart(3)
        assert len(workers.pids) == 1
        assert await asked(clients) == first
        assert {(number, pid) for number, pid in await asked(await clients_of(workers, 5))} == expected(workers)


@pytest_twisted.ensureDeferred
async def test_killed_before_a_restart_a_worker_is_none_that_is_waited_for() -> None:
    async with running(2) as workers:
        clients = await clients_of(workers, 20)
        first = await asked(clients)
        killed = workers.pids[0]
        assert killed is not None
        os.kill(killed, signal.SIGKILL)
        await workers.restart()
        assert {(number, pid) for number, pid in await asked(await clients_of(workers, 20))} == expected(workers)
        kept = [client for client, answer in zip(clients, first, strict=True) if answer[0] == "1"]
        assert await asked(kept) == [answer for answer in first if answer[0] == "1"]


def test_what_is_not_accepted_raises() -> None:
    port = [("127.0.0.1", 0)]
    with pytest.raises(ValueError, match="from 1 to 256, not 0"):
        Workers(reactor, [PROGRAM], 0, port)
    with pytest.raises(ValueError, match="a program is needed"):
        Workers(reactor, [], 1, port)
    with pytest.raises(ValueError, match="at least one port"):
        Workers(reactor, [PROGRAM], 1, [])


# Binds two sockets as systemd does, and becomes the command; it prints the port first.
SYSTEMD = """
import os, socket, sys
sockets = []
port = 0
for _ in range(2):
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if "alone" not in sys.argv[1]:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    port = bound.getsockname()[1]
    sockets.append(os.dup(bound.fileno()))
    if "alone" in sys.argv[1]:
        break
print(port, flush=True)
high = [os.dup2(each, 100 + place) for place, each in enumerate(sockets)]
for place, each in enumerate(high):
    os.dup2(each, 3 + place, inheritable=True)
names = ":".join(["utp.socket"] * len(high))
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(high)), "LISTEN_FDNAMES": names}
command = [word.replace("PORT", str(port)) for word in sys.argv[2:]]
os.execv(sys.executable, [sys.executable, "-m", "txutp.workers", "--systemd", *command])
"""


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("kind", ["group", "alone", "strange"])
async def test_sockets_of_systemd(kind: str) -> None:
    """Two that can be steered are two workers; others are refused with a sentence."""
    port = "PORT" if kind != "strange" else "1"
    arguments = ["--listen", f"utp:{port}:interface=127.0.0.1", PROGRAM, f"127.0.0.1={port}"]
    process = subprocess.Popen(
        [sys.executable, "-c", SYSTEMD, kind, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT.parent.parent)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        number = int(await deferToThread(process.stdout.readline))
        if kind == "strange":
            said = await deferToThread(process.stderr.read)
            assert "which no --listen names" in said
        elif kind == "alone":
            said = await deferToThread(process.stderr.read)
            assert "Couldn't listen on 127.0.0.1" in said
            assert "Traceback" not in said
        else:
            assert await deferToThread(process.stderr.readline) == f"2 workers on 127.0.0.1:{number}.\n"
            endpoint = UTPClientEndpoint(reactor, "127.0.0.1", number)
            clients = list(await gatherResults([connectProtocol(endpoint, Client()) for _ in range(20)]))
            assert {worker for worker, _ in await asked(clients)} == {"0", "1"}
    finally:
        process.terminate()
        assert await deferToThread(process.wait) == {"group": 0, "alone": 1, "strange": 2}[kind]
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
