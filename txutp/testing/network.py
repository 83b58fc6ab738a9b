"""The network in memory: hosts with reactors, links between them, and virtual time."""

from __future__ import annotations

import heapq
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IReactorTime, IReactorUDP, IUDPTransport
from zope.interface import implementer

from txutp.core.batch import Address
from txutp.core.packet import Packet
from txutp.core.units import SECOND_US
from txutp.testing.links import Datagram, Service, Stage
from txutp.testing.pcap import PcapFile
from txutp.timers import IAlarmClock

FIRST_EPHEMERAL_PORT = 49_152

# So many timers in a row ring at one moment, and no datagram moves: they ring for nothing.
MAXIMUM_RINGS = 10_000


class Discipline(Protocol):
    """The rules of a queue: what it takes, what leaves next, what is dropped instead.

    The link gives it each datagram that comes, and asks for one whenever it can send one.  What is being sent does not
    wait any more.  ``benchmarks/scenarios/queues.py`` has some.
    """

    @property
    def backlog_bytes(self) -> int:
        """What waits."""

    def enqueue(self, datagram: Datagram, now_us: int) -> bool:
        """A datagram comes; False drops it."""

    def dequeue(self, now_us: int) -> Datagram | None:
        """What leaves next; None if nothing waits."""


@dataclass
class Link:
    """One direction of a path: a queue, a rate, and everything that goes wrong behind them.

    Probabilities are from 0 to 1 per datagram.  ``hook(datagram)`` sees each datagram before anything happens to it.
    """

    delay_us: int = 0
    jitter_us: int = 0
    """Uniformly between nothing and this is added; order is kept unless ``reorder`` says otherwise."""
    rate_bytes_per_second: float = 0.0
    """0 is without limit.  IP and UDP headers count.  It may change at any time if there is a ``discipline``; without
    one, what waits already leaves at the old rate."""
    service: Service | None = None
    """When datagrams leave, in the place of a constant rate."""
    queue_bytes: int | None = None
    """What waits for the rate; a datagram that does not fit is dropped.  None is without limit."""
    mtu_bytes: int = 1 << 20
    """Larger IP packets vanish silently."""
    loss: float = 0.0
    reorder: float = 0.0
    reorder_delay_us: int = 20_000
    """How much later a reordered datagram arrives."""
    duplicate: float = 0.0
    corrupt: float = 0.0
    """One bit of the payload flips.  (UDP's checksum would catch it; programs must survive it all the same.)"""
    hook: Callable[[Datagram], None] | None = None
    discipline: Discipline | None = None
    """Another kind of queue in the place of ``queue_bytes``."""
    header_bytes: int | None = None
    """What counts for UDP and IP in each datagram, where it is not what they take."""
    loses: Callable[[], bool] | None = None
    """Loss with a memory: asked for each datagram, and True loses it."""
    keep_order: bool = True
    """False lets ``jitter_us`` reorder."""
    behind: Sequence[Stage] = ()
    """What has left the queue passes these, one after another."""
    gate_us: int = 0
    """What has passed all of that goes on at the next multiple of this, all together: Wi-Fi hands over whole frames,
    and a busy receiver reads its socket now and then."""

    queued_bytes: int = field(default=0, init=False)
    free_at_us: float = field(default=0, init=False)
    sending: bool = field(default=False, init=False)  # something that the discipline gave
    last_arrival_us: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)
    dropped: int = field(default=0, init=False)

    @property
    def queue_delay_us(self) -> int:
        """How long a datagram that comes now would wait; unknown, and 0, where a ``service`` has the say."""
        if not self.rate_bytes_per_second:
            return 0
        queued_bytes = self.queued_bytes
        if self.discipline is not None:
            queued_bytes += self.discipline.backlog_bytes
        return int(queued_bytes / self.rate_bytes_per_second * SECOND_US)


class Network:
    """Hosts, the links between them, and the one virtual clock."""

    def __init__(self, seed: int = 0, interface_mtu_bytes: int | None = None) -> None:
        """``interface_mtu_bytes`` is what every host knows of its interface, for those who search the path's MTU."""
        self.seed = seed
        self.interface_mtu_bytes = interface_mtu_bytes
        self.random: random.Random = random.Random(seed)
        self.now_us: int = 0
        self.ports: dict[Address, SimulatedPort] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._reactors: dict[str, SimulatedReactor] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._serial = 0
        self._rings = 0  # of timers, since time passed or a datagram moved
        self._captures: list[tuple[PcapFile, str]] = []  # with the host that each is of; empty for all

    def __repr__(self) -> str:
        return f"<Network seed={self.seed} now={self.now_us / SECOND_US:.6f} s>"

    # -- building --

    def reactor(
        self,
        host: str,
        clock_offset_us: int = 0,
        clock_drift_ppm: float = 0.0,
        clock_tick_us: int = 1,
        timer_tick_us: int = 1,
    ) -> SimulatedReactor:
        """The reactor of a host, as the first call for that host describes it.

        Its own clock may be off and may drift; timers keep the network's time.  The clock may be coarse, so that it
        shows multiples of ``clock_tick_us`` only, and timers may be: those with a delay come at the next multiple of
        ``timer_tick_us`` on the host's clock, without its drift.
        """
        if host not in self._reactors:
            self._reactors[host] = SimulatedReactor(
                self, host, clock_offset_us, clock_drift_ppm, clock_tick_us, timer_tick_us
            )
        return self._reactors[host]

    def connect(self, one: str, other: str, link: Link, back: Link | None = None) -> None:
        """Put links between two hosts; without ``back`` the way back is like the way there."""
        if back is None:
            if link.discipline is not None or link.loses is not None or link.service is not None or link.behind:
                raise ValueError(
                    "a link with a discipline, service, stage or memory of losses is one way: give a link back, too"
                )
            back = Link(**{name: getattr(link, name) for name in LINK_FIELDS})
        self._links[one, other] = link
        self._links[other, one] = back

    def link(self, source: str, destination: str) -> Link:
        """The link from one host to another; without ``connect`` it is perfect and instant."""
        key = (source, destination)
        link = self._links.get(key)
        if link is None:
            link = self._links[key] = Link()
        return link

    def capture(self, path: str | os.PathLike[str], host: str = "") -> None:
        """Write a pcap file from now on, for Wireshark and ``txutp dump``: a datagram when it leaves, lost ones, too.

        With a ``host`` it is what tcpdump would see there: what leaves from it, and what arrives.  Times are those of
        the network, so they begin in 1970.  ``txutp.qlog.trace_reactor`` traces what a host knows.
        """
        self._captures.append((PcapFile(path), host))

    def wait_us(self, link: Link) -> float:
        """How long a datagram that came to this link now would wait for those before it."""
        busy_us = max(link.free_at_us - self.now_us, 0.0)
        if link.discipline is None:
            return busy_us
        if link.service is not None:
            return busy_us + link.service.wait_us(link.discipline.backlog_bytes, round(self.now_us + busy_us))
        if not link.rate_bytes_per_second:
            return busy_us
        return busy_us + link.discipline.backlog_bytes / link.rate_bytes_per_second * SECOND_US

    # -- running --

    def call_at(self, at_us: int, function: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._serial += 1
        heapq.heappush(self._events, (at_us, self._serial, function))

    def run(self, seconds: float = 0.0, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, or stop as soon as ``until()`` is true; gives whether it became true.

        Raises ``RuntimeError`` if something spins: a million events without time passing, or ten thousand timers
        without time passing or a datagram moving.
        """
        end_us = self.now_us + round(seconds * SECOND_US)
        events = self._events
        spin_at_us, spins = self.now_us, 0
        while True:
            if until is not None and until():
                return True
            if not events or events[0][0] > end_us:
                break
            at_us, _, function = heapq.heappop(events)
            if at_us > self.now_us:
                self.now_us = at_us
                spins = self._rings = 0
            spins += 1
            if spins > 1_000_000:
                raise RuntimeError(f"{self!r} spins at {spin_at_us} us")
            function()
        self.now_us = end_us
        return False

    def count_ring(self, timer: Callable[..., Any]) -> None:
        """A timer of a host rings; ``RuntimeError`` if it does so again and again for nothing."""
        self._rings += 1
        if self._rings > MAXIMUM_RINGS:
            raise RuntimeError(f"{self!r} spins: timers ring and nothing happens, at last {timer!r}")

    # -- datagrams --

    def transmit(self, datagram: Datagram) -> None:
        """Put a datagram on its link."""
        self._rings = 0
        if self._captures:
            self._capture(datagram, datagram.source[0])
        link = self.link(datagram.source[0], datagram.destination[0])
        datagram.header_bytes = link.header_bytes
        if link.hook is not None:
            link.hook(datagram)
        link.sent += 1
        size = datagram.wire_bytes
        if datagram.dropped or size > link.mtu_bytes:
            link.dropped += 1
            return

        # the queue
        if link.discipline is not None:
            if not link.discipline.enqueue(datagram, self.now_us):
                link.dropped += 1
            elif not link.sending:
                self._send_next(link)
            return
        leaves_us = self.now_us
        if link.rate_bytes_per_second or link.service is not None:
            if link.queue_bytes is not None and link.queued_bytes + size > link.queue_bytes:
                link.dropped += 1
                return
            leaves_us = max(leaves_us, int(link.free_at_us))
            if link.service is not None:
                leaves_us = link.service.finish_us(datagram, leaves_us)
            else:
                leaves_us += round(size / link.rate_bytes_per_second * SECOND_US)
            link.free_at_us = leaves_us
            link.queued_bytes += size

            def dequeue() -> None:
                link.queued_bytes -= size

            self.call_at(leaves_us, dequeue)
        self._fly(link, datagram, leaves_us)

    def _send_next(self, link: Link) -> None:
        """The link is free: the discipline says what leaves."""
        assert link.discipline is not None
        datagram = link.discipline.dequeue(self.now_us)
        link.sending = datagram is not None
        if datagram is None:
            return
        size = link.queued_bytes = datagram.wire_bytes
        # fractions of microseconds count, because on fast links they are a share of the rate
        leaves_us = link.free_at_us if link.free_at_us > self.now_us - 1 else self.now_us
        if link.service is not None:
            leaves_us = link.service.finish_us(datagram, round(leaves_us))
        elif link.rate_bytes_per_second:
            leaves_us += size / link.rate_bytes_per_second * SECOND_US
        link.free_at_us = leaves_us

        def leave() -> None:
            link.queued_bytes = 0
            self._fly(link, datagram, self.now_us)
            self._send_next(link)

        self.call_at(max(round(leaves_us), self.now_us), leave)

    def _fly(self, link: Link, datagram: Datagram, leaves_us: int) -> None:
        """Everything behind the queue."""
        chance = self.random.random
        if (link.loss and chance() < link.loss) or (link.loses is not None and link.loses()):
            link.dropped += 1
            return
        if link.corrupt and chance() < link.corrupt and datagram.data:
            bit = self.random.randrange(len(datagram.data) * 8)
            corrupted = bytearray(datagram.data)
            corrupted[bit >> 3] ^= 1 << (bit & 7)
            datagram.data = bytes(corrupted)
        for stage in link.behind:
            passes_us = stage.pass_us(datagram, leaves_us)
            if passes_us is None:
                link.dropped += 1
                return
            leaves_us = passes_us
        if link.gate_us:
            leaves_us = -(-leaves_us // link.gate_us) * link.gate_us
        arrival_us = leaves_us + link.delay_us
        if link.jitter_us:
            arrival_us += round(chance() * link.jitter_us)
        if link.reorder and chance() < link.reorder:
            self.call_at(arrival_us + link.reorder_delay_us, lambda: self._arrive(datagram))
        else:
            if link.keep_order:
                arrival_us = link.last_arrival_us = max(arrival_us, link.last_arrival_us)
            self.call_at(arrival_us, lambda: self._arrive(datagram))
        if link.duplicate and chance() < link.duplicate:
            self.call_at(arrival_us + 1, lambda: self._arrive(datagram))

    def _capture(self, datagram: Datagram, host: str, arrives: bool = False) -> None:
        for file, its_host in self._captures:
            if its_host == host or not (its_host or arrives):
                file.write(self.now_us, datagram.source, datagram.destination, datagram.data)

    def _arrive(self, datagram: Datagram) -> None:
        receiver = self.ports.get(datagram.destination[:2])
        if receiver is None or datagram.dropped:
            return
        self._rings = 0
        if self._captures and datagram.destination[0] != datagram.source[0]:
            self._capture(datagram, datagram.destination[0], arrives=True)
        receiver.arrived.append((datagram.data, datagram.source))
        if len(receiver.arrived) == 1:
            # what arrives at the same moment is read in one turn
            self.call_at(self.now_us, receiver.read)


LINK_FIELDS = [name for name, value in Link.__dataclass_fields__.items() if value.init]


@implementer(IReactorTime, IReactorUDP, IAlarmClock)
class SimulatedReactor:
    """What a host's programs use as their reactor: timers, UDP, and numeric names only."""

    def __init__(
        self,
        network: Network,
        host: str,
        clock_offset_us: int,
        clock_drift_ppm: float,
        clock_tick_us: int = 1,
        timer_tick_us: int = 1,
    ) -> None:
        self.network = network
        self.host = host
        self._clock_offset_us = clock_offset_us
        self._clock_rate = 1 + clock_drift_ppm / 1_000_000
        self._clock_tick_us = clock_tick_us
        self._timer_tick_us = timer_tick_us
        self._wall_offset_us = 0
        self._calls: dict[DelayedCall, None] = {}
        self._next_port = FIRST_EPHEMERAL_PORT

    def __repr__(self) -> str:
        return f"<SimulatedReactor {self.host} of {self.network!r}>"

    # IAlarmClock

    def monotonic_us(self) -> int:
        now_us = self._clock_offset_us + int(self.network.now_us * self._clock_rate)
        return now_us - now_us % self._clock_tick_us

    def random_bytes(self, count: int) -> bytes:
        return self.network.random.randbytes(count)

    def ring_at(self, monotonic_us: int, function: Callable[[], None]) -> None:
        shown_us = -(-monotonic_us // self._clock_tick_us) * self._clock_tick_us
        network_us = (shown_us - self._clock_offset_us) / self._clock_rate
        self.network.call_at(self._timer_us(ceil(network_us)), function)

    # IReactorTime

    def seconds(self) -> float:
        return (self.network.now_us + self._wall_offset_us) / SECOND_US

    def set_wall_clock(self, seconds: float) -> None:
        """Set the wall clock of this host forward, or back if ``seconds`` is negative.

        Twisted's reactors time their calls by it, so those under way come sooner, or later.  The monotonic clock goes
        on as before.
        """
        self._wall_offset_us += round(seconds * SECOND_US)
        for call in self._calls:
            self._schedule(call)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any) -> DelayedCall:
        if 0 < delay < 1 / SECOND_US:
            # Time moves by whole microseconds.  LoopingCall asks for what its division leaves over, such as 1e-17 s,
            # and would ask again for ever if no time passed meanwhile.
            delay = 1 / SECOND_US
        call = DelayedCall(self.seconds() + delay, callable, args, kw, self._cancelled, self._schedule, self.seconds)
        self._schedule(call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        return list(self._calls)

    def _schedule(self, call: DelayedCall) -> None:
        self._calls[call] = None
        at_us = self._timer_us(self._due_us(call))
        self.network.call_at(at_us, lambda: self._run(call, at_us))

    def _due_us(self, call: DelayedCall) -> int:
        """When a call is due, by the network's time; rounded up, so that it is never early."""
        return -int(-call.getTime() * SECOND_US // 1) - self._wall_offset_us

    def _timer_us(self, due_us: int) -> int:
        """When a timer rings that is due then; one without a delay rings at once."""
        now_us = self.network.now_us
        if due_us <= now_us:
            return now_us
        ticks = -(-(due_us + self._clock_offset_us) // self._timer_tick_us)
        return ticks * self._timer_tick_us - self._clock_offset_us

    def _run(self, call: DelayedCall, at_us: int) -> None:
        if call not in self._calls:  # cancelled, or it was called when the clock was set
            return
        if call.delayed_time:
            call.activate_delay()
        if self._due_us(call) > at_us:
            self._schedule(call)
            return
        del self._calls[call]
        self.network.count_ring(call.func)
        call.called = 1
        call.func(*call.args, **call.kw)

    def _cancelled(self, call: DelayedCall) -> None:
        self._calls.pop(call, None)

    # IReactorUDP

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> SimulatedPort:
        """A UDP port of this host; 0 chooses one, a used one raises ``CannotListenError``."""
        host = interface or "0.0.0.0"
        taken = self.network.ports
        if not port:
            while (host, self._next_port) in taken:
                self._next_port += 1
            port = self._next_port
            self._next_port += 1
        key = (self.host if host in ("0.0.0.0", "::") else host, port)
        if key in taken:
            raise error.CannotListenError(interface, port, OSError(98, "Address already in use"))
        simulated = SimulatedPort(self, key, protocol)
        taken[key] = simulated
        protocol.makeConnection(simulated)
        return simulated


@implementer(IUDPTransport, IListeningPort)
class SimulatedPort:
    """The transport of a DatagramProtocol on a simulated host."""

    def __init__(self, reactor: SimulatedReactor, address: Address, protocol: Any) -> None:
        self.reactor = reactor
        self.protocol = protocol
        self.arrived: list[tuple[bytes, Address]] = []
        self.refusing = False  # as a full socket: every write raises
        self._address = address
        self._open = True

    def read(self) -> None:
        """Hand over what has arrived at this moment."""
        arrived, self.arrived = self.arrived, []
        for data, source in arrived:
            if self._open:
                self.protocol.datagramReceived(data, source)

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        if self.refusing:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        assert addr is not None, "a simulated port is never connected"
        network = self.reactor.network
        network.transmit(Datagram(self._address, tuple(addr[:2]), packet, network.now_us))

    def getHost(self) -> Any:
        kind = IPv6Address if ":" in self._address[0] else IPv4Address
        return kind("UDP", *self._address)

    def link_mtu_bytes(self, address: Address) -> int | None:
        """What the interface takes; a link that takes less drops silently, whether fragments are forbidden or not."""
        return self.reactor.network.interface_mtu_bytes

    def getBroadcastAllowed(self) -> bool:
        return False

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Nothing in a simulated network is broadcast."""

    def startListening(self) -> None:
        """A simulated port listens from the start."""

    def stopListening(self) -> Deferred[None]:
        stopped: Deferred[None] = Deferred()
        if self._open:
            self._open = False
            del self.reactor.network.ports[self._address]
            self.protocol.doStop()
        self.reactor.callLater(0, stopped.callback, None)
        return stopped

    loseConnection = stopListening

    def connect(self, host: str, port: int) -> None:
        raise NotImplementedError("a simulated port is never connected")


class Recorder:
    """Writes down each datagram that a link carries, as hook of that link (and passes it to another hook)."""

    def __init__(self, then: Callable[[Datagram], None] | None = None) -> None:
        self.datagrams: list[Datagram] = []
        self._then = then

    def __call__(self, datagram: Datagram) -> None:
        self.datagrams.append(datagram)
        if self._then is not None:
            self._then(datagram)

    @property
    def packets(self) -> list[Packet]:
        """What was uTP, in the order of sending."""
        packets = (datagram.packet for datagram in self.datagrams)
        return [packet for packet in packets if packet is not None]
