"""What a seed draws: the hosts, the paths between them, who talks to whom, and how.

Everything is plain data, so that ``-v`` can print it.  Times are microseconds of virtual time, sizes bytes.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from txutp import Ledbat, LedbatPlusPlus, Settings, Shallow
from txutp.core.settings import RATES

MILLISECOND_US = 1_000
SECOND_US = 1_000_000

Span = tuple[int, int]

# The applications.  A plain Protocol ends with the peer's stream; the others may go on.
PLAIN, HALF, SOCKET, OPEN_SOCKET = "Protocol", "half-closeable Protocol", "Socket", "Socket(allowHalfOpen=True)"
SOCKETS = (SOCKET, OPEN_SOCKET)

# How they hand over what they write.
WRITE, PUSH, PULL = "write", "push producer", "pull producer"

# How they end.
LOSE = "loseConnection"  # when everything is written
LOSE_READ = "loseConnection when all is read"  # and written
HALF_CLOSE = "loseWriteConnection"  # then they wait for the peer's end
WAIT = "wait for the peer's end"
ABORT = "abortConnection"
DESTROY = "destroy"  # a Socket's

# What a datagram is without its payload, over IPv4.
IP_UDP_BYTES = 28


@dataclass(frozen=True)
class Weather:
    """One direction of a path."""

    delay_us: int = 10_000
    jitter_us: int = 0
    keep_order: bool = True
    rate_bytes_per_second: float = 0.0
    queue_bytes: int | None = None
    mtu_bytes: int = 1 << 20
    loss: float = 0.0
    bursts: tuple[float, float] | None = None
    """Loss in bursts: the chance that one begins, and that it ends, per datagram."""
    reorder: float = 0.0
    reorder_delay_us: int = 20_000
    duplicate: float = 0.0
    outages: tuple[Span, ...] = ()
    strips_selective_acks: bool = False

    @property
    def loses(self) -> bool:
        """Whether anything but the queue of the link may lose a datagram."""
        return bool(self.loss or self.bursts or self.outages)

    @property
    def is_slow(self) -> bool:
        """Whether a few windows that know nothing of each other take seconds."""
        return 0 < self.rate_bytes_per_second < 1_000_000


@dataclass(frozen=True)
class Host:
    """A computer: its clocks, its socket, and the settings of its program."""

    settings: Settings = field(default_factory=Settings)
    clock_offset_us: int = 0
    clock_drift_ppm: float = 0.0
    wall_clock_steps: tuple[tuple[int, float], ...] = ()
    """When its wall clock is set, and by how many seconds."""
    refusals: tuple[Span, ...] = ()
    """When its socket takes nothing."""
    overflows: tuple[int, ...] = ()
    """When its kernel drops something that came (and windows shrink)."""


@dataclass(frozen=True)
class Part:
    """What one end of a connection does."""

    kind: str
    total_bytes: int
    """What it means to write."""
    piece_bytes: int
    gap_us: int
    """Between two writes; 0 is all in one turn."""
    by: str
    ending: str
    delay_us: int
    """Before it ends, once everything is written; an abort comes so long after the beginning."""
    pauses: tuple[tuple[int, int], ...] = ()
    """After so many received bytes it reads nothing for so long."""
    answers_after_bytes: int = 0
    """It writes nothing before it has received so much (or the peer has ended)."""
    asks_acknowledged: bool = False

    @property
    def half_closeable(self) -> bool:
        """Whether it goes on when the peer's stream has ended."""
        return self.kind != PLAIN


@dataclass(frozen=True)
class Talk:
    """One connection, or the attempt to make it."""

    begins_us: int
    client_host: str
    client: Part
    server: Part
    tls: bool = False
    own_port: int = 0
    """The client's; 0 is one that it shares with others."""
    gives_up_us: int | None = None
    """So long after its beginning the attempt is cancelled."""


@dataclass(frozen=True)
class Program:
    """A conversation: everything that a seed draws."""

    seed: int
    interface_mtu_bytes: int | None
    server: Host
    clients: dict[str, Host]
    up: dict[str, Weather]
    """From each client to the server."""
    down: dict[str, Weather]
    talks: tuple[Talk, ...]
    stops_listening: tuple[Span, ...]
    """When nobody listens; a span of no length listens again in the same turn."""

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens that could cost a connection.

        On a slow link with a bottomless queue others may hold a handshake up for longer than it is waited for.
        """
        hosts = (self.server, *self.clients.values())
        weathers = (*self.up.values(), *self.down.values())
        lossy = any(weather.loses or weather.queue_bytes is not None or weather.is_slow for weather in weathers)
        disturbed = any(host.refusals or host.overflows or host.wall_clock_steps for host in hosts)
        return not lossy and not disturbed and not self.stops_listening

    @property
    def quiet_us(self) -> int:
        """When the last disturbance is over."""
        hosts = (self.server, *self.clients.values())
        ends = [end for host in hosts for _, end in host.refusals]
        ends += [at + max(int(-step * SECOND_US), 0) for host in hosts for at, step in host.wall_clock_steps]
        ends += [end for weather in (*self.up.values(), *self.down.values()) for _, end in weather.outages]
        return max([*ends, *(end for _, end in self.stops_listening), 0])

    def describe(self) -> str:
        """The program as text, without what is as usual."""
        return "\n".join(described(self))


def described(value: Any, name: str = "", indent: str = "") -> list[str]:
    """A dataclass as lines, without the fields that have their default."""
    label = f"{indent}{name}: " if name else indent
    if is_dataclass(value):
        usual = {one.name: one.default for one in fields(value)}
        shown = {key: getattr(value, key) for key in usual}
        lines = [f"{label}{type(value).__name__}"]
        for key, its_value in shown.items():
            if usual[key] is not its_value and usual[key] != its_value:
                lines += described(its_value, key, indent + "  ")
        return lines
    if isinstance(value, dict):
        return [line for key, its_value in value.items() for line in described(its_value, f"{name}[{key}]", indent)]
    if isinstance(value, tuple) and any(map(is_dataclass, value)):
        numbered = enumerate(value)
        return [line for number, its_value in numbered for line in described(its_value, f"{name}[{number}]", indent)]
    return [f"{label}{value.__name__ if isinstance(value, type) else value!r}"]


# -- drawing --

SERVER = "10.0.0.1"
CLIENTS = ("10.0.0.2", "10.0.0.3")


def draw(seed: int) -> Program:
    """The program of a seed."""
    lots = random.Random(seed)
    hosts = CLIENTS[: 2 if lots.random() < 0.2 else 1]
    mtu_bytes = lots.choice((None, None, None, 1_500, 9_000))
    temper = lots.random()
    up, down = {}, {}
    for name in hosts:
        up[name], down[name] = draw_weather(lots, temper), draw_weather(lots, temper)
    slowest_us = max(round_trip_us(up[name], down[name]) for name in hosts)
    server = draw_host(lots, temper, slowest_us)
    clients = {name: draw_host(lots, temper, slowest_us) for name in hosts}
    count = lots.choice((1, 1, 1, 2, 3, 4, 6))
    talks = tuple(draw_talk(lots, hosts, count) for _ in range(count))
    stops: tuple[Span, ...] = ()
    if temper > 0.3 and lots.random() < 0.12:
        begins_us = lots.randrange(draw_while(lots))
        stops = ((begins_us, begins_us + lots.choice((0, 0, lots.randrange(20 * SECOND_US)))),)
    return Program(seed, mtu_bytes, server, clients, up, down, talks, stops)


def round_trip_us(up: Weather, down: Weather) -> int:
    """The longest that a small packet and its answer take, without a queue."""
    return sum(way.delay_us + way.jitter_us + bool(way.reorder) * way.reorder_delay_us for way in (up, down))


def draw_weather(lots: random.Random, temper: float) -> Weather:
    """One direction; the ``temper`` of a program is from 0, where nothing goes wrong, to 1."""
    chance = lots.random
    rate = lots.choice((0.0, 0.0, 20_000.0, 125_000.0, 1_250_000.0))
    changes: dict[str, Any] = {
        "delay_us": int(1_000 * 10 ** lots.uniform(-0.5, 2.4)),
        "rate_bytes_per_second": rate,
    }
    if chance() < 0.25:
        changes["mtu_bytes"] = lots.randrange(1_402 + IP_UDP_BYTES, 2_000)
    if temper < 0.15:
        return Weather(**changes)

    if rate and chance() < 0.5:
        changes["queue_bytes"] = lots.choice((3_000, 8_000, 30_000, 100_000))
    if chance() < 0.3:
        changes["jitter_us"] = int(changes["delay_us"] * lots.uniform(0, 2))
        changes["keep_order"] = chance() < 0.5
    if chance() < 0.25:
        changes["reorder"] = lots.choice((0.01, 0.1, 0.5))
        changes["reorder_delay_us"] = lots.choice((1_000, 20_000, 200_000))
    if chance() < 0.25:
        changes["duplicate"] = lots.choice((0.01, 0.1, 0.5))
    if chance() < 0.15:
        changes["strips_selective_acks"] = True
    if temper < 0.3:
        return Weather(**changes)

    if chance() < 0.5:
        changes["loss"] = round(0.3 * chance() ** 2, 4)
    if chance() < 0.15:
        changes["bursts"] = (round(0.05 * chance(), 4), round(lots.uniform(0.1, 0.7), 4))
    if chance() < 0.15:
        changes["outages"] = draw_spans(lots, draw_while(lots), lots.choice((300_000, 3_000_000, 20_000_000)))
    return Weather(**changes)


def draw_while(lots: random.Random) -> int:
    """In what time things go wrong: most connections are short."""
    return lots.choice((SECOND_US, 5 * SECOND_US, 25 * SECOND_US))


def draw_spans(lots: random.Random, until_us: int, longest_us: int) -> tuple[Span, ...]:
    """One to three spans of time; they may overlap."""
    begins = sorted(lots.randrange(until_us) for _ in range(lots.choice((1, 1, 2, 3))))
    return tuple((at, at + lots.randrange(1_000, longest_us)) for at in begins)


def draw_host(lots: random.Random, temper: float, round_trip_us: int) -> Host:
    chance = lots.random
    changes: dict[str, Any] = {}
    if chance() < 0.4:
        changes["clock_offset_us"] = lots.randrange(1 << 40)
        changes["clock_drift_ppm"] = round(lots.uniform(-200, 200), 1)
    if temper > 0.3:
        if chance() < 0.08:
            steps = [(lots.randrange(draw_while(lots)), lots.choice((-4.0, -0.3, 0.3, 40.0, 3_600.0)))]
            changes["wall_clock_steps"] = tuple(steps)
        if chance() < 0.2:
            changes["refusals"] = draw_spans(lots, draw_while(lots), lots.choice((20_000, 500_000, 8_000_000)))
        if chance() < 0.1:
            changes["overflows"] = tuple(sorted(lots.randrange(draw_while(lots)) for _ in range(lots.choice((1, 8)))))
    return Host(draw_settings(lots, round_trip_us), **changes)


def draw_settings(lots: random.Random, round_trip_us: int) -> Settings:
    chance = lots.random
    changes: dict[str, Any] = {}
    congestion = lots.choice((Shallow, Shallow, Ledbat, LedbatPlusPlus))
    if chance() < 0.5:
        changes["receive_buffer_bytes"] = int(4_096 * 16 ** chance())
    if chance() < 0.15:
        changes["maximum_outstanding_packets"] = lots.choice((2, 3, 5, 20))
    if chance() < 0.1:
        changes["maximum_datagram_bytes"] = lots.choice((150, 576, 1_200))
    if chance() < 0.2:
        # not less than a packet and its answer may take
        changes["maximum_timeout_us"] = max(lots.choice((2, 4, 10)) * SECOND_US, 4 * round_trip_us)
    if chance() < 0.2:
        changes["keepalive_us"] = lots.choice((None, SECOND_US, 5 * SECOND_US))
    elif chance() < 0.1:
        changes["idle_timeout_us"] = 150 * SECOND_US
    if chance() < 0.1:
        changes["close_timeout_us"] = lots.choice((0, 5 * SECOND_US))
    if chance() < 0.1:
        changes["tombstone_us"] = lots.choice((0, 2 * SECOND_US))
    # by lots of their own, so that a seed draws everything else as it did before there were caps
    caps = random.Random(f"{round_trip_us} {changes}")
    if caps.random() < 0.25:
        for name in caps.sample(RATES, caps.choice((1, 2, 4))):
            changes[name] = int(8_000 * 200 ** caps.random())
    return Settings(congestion=congestion, **changes)


def draw_bytes(lots: random.Random) -> int:
    """How long a stream is: most are short, a few are not."""
    if lots.random() < 0.15:
        return 0
    return int(10 ** lots.uniform(0, 5.8 if lots.random() < 0.25 else 4.6))


def draw_talk(lots: random.Random, hosts: tuple[str, ...], count: int) -> Talk:
    chance = lots.random
    tls = chance() < 0.08
    client, server = draw_part(lots, tls), draw_part(lots, tls)
    if tls:
        # TLS has no half close: one end leaves when it has read everything, the other one waits for that
        endings = [WAIT, LOSE_READ] if chance() < 0.5 else [LOSE_READ, WAIT]
        client, server = (
            replace(part, ending=ending, kind=PLAIN, answers_after_bytes=0)
            for part, ending in zip((client, server), endings, strict=True)
        )
    elif WAIT == client.ending == server.ending:
        # two ends that wait for each other would wait for ever
        client = replace(client, ending=lots.choice((LOSE, HALF_CLOSE)))
    client = replace(client, answers_after_bytes=0)
    server = replace(server, answers_after_bytes=min(server.answers_after_bytes, client.total_bytes))
    return Talk(
        begins_us=lots.randrange(10 * SECOND_US) if count > 1 else 0,
        client_host=lots.choice(hosts),
        client=client,
        server=server,
        tls=tls,
        own_port=lots.randrange(5_000, 5_003) if chance() < 0.15 and client.kind not in SOCKETS else 0,
        gives_up_us=lots.randrange(5 * SECOND_US) if chance() < 0.03 else None,
    )


def draw_part(lots: random.Random, tls: bool) -> Part:
    chance = lots.random
    kind = PLAIN if tls else lots.choice((PLAIN, PLAIN, HALF, SOCKET, OPEN_SOCKET))
    # A Socket has no pull producers, and those of TLS go by Twisted's global reactor.
    by = lots.choice((WRITE, WRITE, PUSH, PUSH if tls or kind in SOCKETS else PULL))
    endings = [LOSE, LOSE, LOSE_READ, LOSE_READ, HALF_CLOSE, WAIT, WAIT]
    if chance() < 0.12:
        endings = [ABORT, DESTROY] if kind in SOCKETS else [ABORT]
    total_bytes = draw_bytes(lots)
    piece_bytes = max(int(10 ** lots.uniform(2, 5)), total_bytes // 60, 1)
    return Part(
        kind=kind,
        total_bytes=total_bytes,
        piece_bytes=piece_bytes,
        gap_us=lots.choice((0, 0, 1_000, 20_000, 100_000, 900_000)),
        by=by,
        ending=lots.choice(endings),
        delay_us=lots.choice((0, 0, int(10 ** lots.uniform(3, 7.3)))),
        pauses=tuple(
            (lots.randrange(30_000), int(10 ** lots.uniform(4, 7.5)))
            for _ in range(lots.choice((0, 0, 0, 1, 2)) * (not tls))
        ),
        answers_after_bytes=draw_bytes(lots) if chance() < 0.2 else 0,
        asks_acknowledged=not tls and chance() < 0.3,
    )
