"""A race of uTP and TCP: a client that takes the transport that answers first, and a server that listens on both.

utp+tcp:6881                                a server on the UDP port and the TCP port of one number
utp+tcp:example.org:6881                    a client that tries uTP, and TCP as well a quarter of a second later
utp+tcp:example.org:6881:headStart=500ms    with a longer head start for uTP

Both take every other option of a ``utp:`` string but ``fd=``.

``UTPOrTCPClientEndpoint.connect`` runs one ``Race``, as RFC 8305 runs its attempts: two ``Contender`` objects, one for
each transport.  Each has an endpoint that tries all addresses of the name.  The first one that is asked for a protocol
has won: the application's factory is called then, once, and the other attempt is cancelled.  ``RaceMemory`` keeps what
a race has shown, so that the next one begins with the transport that works.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet import defer, error
from twisted.internet.address import HostnameAddress
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from txutp.arguments import is_numeric
from txutp.client import ATTEMPT_DELAY_SECONDS
from txutp.core.settings import Settings
from txutp.core.units import SECOND_US
from txutp.endpoints import UTPClientEndpoint, UTPClientParser, UTPServerEndpoint, UTPServerParser
from txutp.environment import environment_of
from txutp.port import listenUTP
from txutp.sharing import is_ipv6
from txutp.strings import TIMES_US, amount_of

# Number of head starts that a peer gets that has answered uTP before: a slow path is no reason for a TCP connection.
HEAD_STARTS_OF_A_KNOWN_PEER = 4

HEAD_START_UNITS_US = {name: TIMES_US[name] for name in ("ms", "s")}

# Seconds for which the result of a race is remembered.
MEMORY_SECONDS = 600

# Maximum number of peers that are remembered.
MEMORY_PEERS = 1_024

# Maximum number of free TCP ports that are tried until one has a number that is free for UDP as well.
FREE_PORTS = 20

# Errors of a uTP attempt whose cause is the peer, or the path to it; other errors say nothing about the peer.
NO_ANSWER = (error.TimeoutError, error.ConnectionRefusedError, error.NoRouteError)

# Errors that are reported before others: their cause is a message of the peer or the network, not a timeout.
TELLING = (error.ConnectionRefusedError, error.NoRouteError, error.ConnectBindError, error.DNSLookupError)

# A peer as the caller names it.
Peer = tuple[str, int | str]


class RaceMemory:
    """Remembers which peers have answered uTP lately, and which have answered TCP only."""

    def __init__(self, seconds: float = MEMORY_SECONDS, maximum_peers: int = MEMORY_PEERS) -> None:
        """Each peer is remembered for ``seconds``; of more than ``maximum_peers`` the oldest are forgotten."""
        self._lifetime_us = round(seconds * SECOND_US)
        self._maximum_peers = maximum_peers
        self._noted: OrderedDict[Peer, tuple[bool, int]] = OrderedDict()  # whether it answered, and when

    def __len__(self) -> int:
        return len(self._noted)

    def answers(self, peer: Peer, now_us: int) -> bool | None:
        """Whether a peer answers uTP; None if that is unknown."""
        if peer not in self._noted:
            return None
        answered, noted_us = self._noted[peer]
        if now_us - noted_us >= self._lifetime_us:
            del self._noted[peer]
            return None
        return answered

    def note(self, peer: Peer, answered: bool, now_us: int) -> None:
        """A race has shown whether a peer answers uTP."""
        self._noted[peer] = answered, now_us
        self._noted.move_to_end(peer)
        if len(self._noted) > self._maximum_peers:
            self._noted.popitem(last=False)


_memories: WeakKeyDictionary[Any, RaceMemory] = WeakKeyDictionary()


def memory_of(reactor: Any) -> RaceMemory:
    """Returns the memory that the endpoints of a reactor share by default."""
    memory = _memories.get(reactor)
    if memory is None:
        memory = _memories[reactor] = RaceMemory()
    return memory


@implementer(IStreamClientEndpoint)
class UTPOrTCPClientEndpoint:
    """Connects over uTP, or over TCP where uTP is not answered; ``speaks_utp(transport)`` tells which it was."""

    def __init__(
        self,
        reactor: Any,
        host: str | bytes,
        port: int,
        timeout: float | None = 30,
        bindAddress: str | tuple[str, int] | None = None,
        settings: Settings | None = None,
        headStart: float = ATTEMPT_DELAY_SECONDS,
        memory: RaceMemory | None = None,
    ) -> None:
        """The arguments up to ``settings`` are those of ``UTPClientEndpoint``; ``timeout`` is for the whole race.

        ``headStart`` is how many seconds uTP is tried alone, unless it fails before.  A peer that has lately answered
        TCP alone gets TCP first, and uTP after the head start.  ``memory`` remembers that; without one the endpoints of
        a reactor share one.
        """
        if isinstance(headStart, bool) or not isinstance(headStart, (int, float)):
            raise TypeError(f"headStart is a number of seconds, not {headStart!r}")
        if not 0 <= headStart < float("inf"):
            raise ValueError(f"headStart is a number of seconds from 0 on, not {headStart!r}")
        # It checks what it is given.  The race keeps the time itself.
        known = UTPClientEndpoint(reactor, host, port, timeout, bindAddress, settings)
        self._timeout = timeout
        self._host, self._port, self._bind_address = known._host, known._port, known._bind_address
        self._reactor = reactor
        self._head_start = headStart
        self._memory = memory_of(reactor) if memory is None else memory
        self._utp = UTPClientEndpoint(reactor, self._host, port, None, self._bind_address, settings)

    def __repr__(self) -> str:
        host = f"[{self._host}]" if is_ipv6(self._host) else self._host
        return f"<{self.__class__.__name__} {host}:{self._port} headStart={self._head_start}>"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the connected protocol, or with why there is none; cancelling it gives both attempts up.

        If both fail, the error is the one that tells more, and has the other one as its ``__cause__``.
        """
        try:
            return Race(self._reactor, self, protocolFactory).result
        except Exception:  # of the factory's doStart, or of a reactor without TCP
            return defer.fail()

    def _tcp(self) -> Any:
        """An endpoint that tries TCP alone."""
        if not is_numeric(self._host):
            return HostnameEndpoint(self._reactor, self._host, self._port, None, self._bind_address)  # type: ignore[arg-type]
        kind = TCP6ClientEndpoint if is_ipv6(self._host) else TCP4ClientEndpoint
        return kind(self._reactor, self._host, self._port, None, self._bind_address)  # type: ignore[arg-type]


class Race:
    """One connection attempt of an endpoint, over both transports."""

    def __init__(self, reactor: Any, endpoint: UTPOrTCPClientEndpoint, factory: IProtocolFactory) -> None:
        self.factory = factory
        self.result: Deferred[IProtocol] = Deferred(self._cancelled)
        self.winner: Contender | None = None
        self._reactor = reactor
        self._peer: Peer = (endpoint._host, endpoint._port)
        self._memory = endpoint._memory
        self._now_us = environment_of(reactor).monotonic_us
        self._calls: list[IDelayedCall] = []
        self._utp = Contender(self, endpoint._utp)
        self._tcp = Contender(self, endpoint._tcp())

        # Logged once, and counted once, whatever the number of attempts.
        factory.doStart()
        answers = self._memory.answers(self._peer, self._now_us())
        self._contenders = [self._tcp, self._utp] if answers is False else [self._utp, self._tcp]
        first, second = self._contenders
        head_start = endpoint._head_start * (HEAD_STARTS_OF_A_KNOWN_PEER if answers else 1)
        if endpoint._timeout is not None:
            self._calls.append(reactor.callLater(endpoint._timeout, self._timed_out))
        self._calls.append(reactor.callLater(head_start, second.begin))
        first.begin()

    def claim(self, contender: Contender, address: Any) -> Any:
        """A contender is connected and wants a protocol: it has won, unless the other one has."""
        if self.winner is not None or self.result.called:
            return None
        self.winner = contender
        self._end()
        if contender is self._utp:
            self._memory.note(self._peer, True, self._now_us())
        elif self._utp_is_silent:
            self._memory.note(self._peer, False, self._now_us())
        return self.factory.buildProtocol(address)

    @property
    def _utp_is_silent(self) -> bool:
        """Whether the peer had its time to answer uTP, or has refused it."""
        if self._utp.failure is not None:
            return self._utp.failure.check(*NO_ANSWER) is not None
        return self._contenders[0] is self._utp

    def ended(self, contender: Contender, outcome: Any) -> None:
        """The attempt of a contender has come to an end; the last failure is that of the race."""
        if self.result.called or self.winner not in (None, contender):
            return
        if self.winner is contender:
            # A failure is that of the application's buildProtocol or connectionMade.
            self.result.callback(outcome)
            return
        contender.failure = outcome
        for other in self._contenders:
            if other.failure is None:
                other.begin()
                return
        self._fail([one.failure for one in self._contenders])

    def _timed_out(self) -> None:
        failures = [one.failure for one in self._contenders if one.failure is not None]
        self._fail([*failures, Failure(error.TimeoutError())])

    def _fail(self, failures: list[Any]) -> None:
        self._end()
        self.factory.doStop()
        self.result.errback(most_telling(failures))

    def _cancelled(self, result: Deferred[IProtocol]) -> None:
        self._end()
        if self.winner is None:  # else its connection, whose connectionMade raised, stops the factory when it ends
            self.factory.doStop()
        host, port = self._peer
        result.errback(error.ConnectingCancelledError(HostnameAddress(host.encode("idna"), port)))  # type: ignore[arg-type]

    def _end(self) -> None:
        """No timer, and no attempt but that of the winner, goes on."""
        for call in self._calls:
            if call.active():
                call.cancel()
        for contender in self._contenders:
            if contender is not self.winner:
                contender.give_up()


@implementer(IProtocolFactory)
class Contender:
    """One transport in a race: it stands between the application's factory and the endpoint of the transport."""

    def __init__(self, race: Race, endpoint: Any) -> None:
        self._race = race
        self._endpoint = endpoint
        self._attempt: Deferred[IProtocol] | None = None
        self._given_up = False
        self.failure: Failure | None = None  # why it is out of the race

    def begin(self) -> None:
        """Try to connect; nothing happens if that was begun before."""
        if self._attempt is None and not self._given_up:
            self._attempt = self._endpoint.connect(self)
            self._attempt.addBoth(self._ended)

    def give_up(self) -> None:
        """The race is over for this transport."""
        self._given_up = True
        if self._attempt is not None and self.failure is None:
            self._attempt.cancel()

    def _ended(self, outcome: Any) -> None:
        if not self._given_up:
            self._race.ended(self, outcome)

    # -- as a factory --

    def buildProtocol(self, addr: Any) -> Any:
        """The application's protocol, or None if the race is lost."""
        return None if self._given_up else self._race.claim(self, addr)

    def doStart(self) -> None:
        """The race has told the application's factory."""

    def doStop(self) -> None:
        """The connection of the winner has ended."""
        if self._race.winner is self:
            self._race.factory.doStop()


def most_telling(failures: list[Failure]) -> Failure:
    """The failure that says most of what is wrong, with another one as its cause."""

    def rank(failure: Failure) -> int:
        return next((place for place, kind in enumerate(TELLING) if failure.check(kind)), len(TELLING))

    # A time-out comes last, whatever else there is.
    best, *others = sorted(failures, key=lambda failure: (failure.check(error.TimeoutError) is not None, rank(failure)))
    if others and best.value is not None and best.value is not others[0].value:
        best.value.__cause__ = others[0].value
    return best


# -- servers --


@implementer(IListeningPort)
class UTPAndTCPPort:
    """Two ports of one number, for one factory."""

    def __init__(self, utp: Any, tcp: Any) -> None:
        self.utp = utp
        self.tcp = tcp

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self.utp!r} {self.tcp!r}>"

    def startListening(self) -> None:
        """Listen again on both, or on neither; raises ``CannotListenError``."""
        self.tcp.startListening()
        try:
            self.utp.startListening()
        except BaseException:
            self.tcp.stopListening()
            raise

    def stopListening(self) -> Deferred[None]:
        """Accept no more; fires when both ports have stopped."""
        return ensureDeferred(self._stop_listening())

    async def _stop_listening(self) -> None:
        # both begin to stop before either is waited for
        for stopping in [port.stopListening() for port in (self.tcp, self.utp)]:
            if stopping is not None:
                await stopping

    def getHost(self) -> Any:
        """The TCP address; the UDP address has the same host and port."""
        return self.tcp.getHost()


@implementer(IStreamServerEndpoint)
class UTPAndTCPServerEndpoint:
    """Listens for uTP and for TCP on ports of the same number."""

    def __init__(
        self, reactor: Any, port: int, backlog: int = 50, interface: str = "", settings: Settings | None = None
    ) -> None:
        """The arguments are those of ``UTPServerEndpoint``."""
        known = UTPServerEndpoint(reactor, port, backlog, interface, settings)
        self._reactor, self._settings = reactor, settings
        self._port, self._backlog, self._interface = known._port, known._backlog, known._interface

    def __repr__(self) -> str:
        return f"<{self.__class__.__name__} {self._interface or '*'}:{self._port}>"

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with a port that stops both, or with ``CannotListenError`` if one of them is taken."""
        return ensureDeferred(self._listen(protocolFactory))

    async def _listen(self, factory: IProtocolFactory) -> IListeningPort:
        attempts = 1 if self._port else FREE_PORTS
        while True:
            attempts -= 1
            tcp = self._reactor.listenTCP(self._port, factory, self._backlog, self._interface)
            number = tcp.getHost().port
            try:
                utp = listenUTP(self._reactor, number, factory, self._backlog, self._interface, self._settings)
            except BaseException as problem:
                await tcp.stopListening()
                if not attempts or not isinstance(problem, error.CannotListenError):
                    raise
            else:
                return UTPAndTCPPort(utp, tcp)


# -- strings --


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
class UTPOrTCPClientParser:
    """Makes endpoints of ``utp+tcp:`` client strings."""

    prefix = "utp+tcp"

    def parseStreamClient(self, reactor: Any, *args: Any, **kwargs: Any) -> UTPOrTCPClientEndpoint:
        """``headStart=`` is a time with a unit; everything else is for the parser of ``utp:`` strings."""
        head_start = kwargs.pop("headStart", None)
        known = UTPClientParser().parseStreamClient(reactor, *args, **kwargs)
        return UTPOrTCPClientEndpoint(
            reactor,
            known._host,
            known._port,
            known._timeout,
            known._bind_address,
            known._settings,
            ATTEMPT_DELAY_SECONDS if head_start is None else _parse_head_start(head_start),
        )


@implementer(IPlugin, IStreamServerEndpointStringParser)
class UTPAndTCPServerParser:
    """Makes endpoints of ``utp+tcp:`` server strings."""

    prefix = "utp+tcp"

    def parseStreamServer(self, reactor: Any, *args: Any, **kwargs: Any) -> UTPAndTCPServerEndpoint:
        """Every option of a ``utp:`` string but ``fd=``, which names a single socket."""
        if "fd" in kwargs:
            raise ValueError("utp+tcp: opens two sockets, so it takes no fd=; listen on utp:fd= and tcp: instead")
        known = UTPServerParser().parseStreamServer(reactor, *args, **kwargs)
        assert isinstance(known, UTPServerEndpoint)
        return UTPAndTCPServerEndpoint(reactor, known._port, known._backlog, known._interface, known._settings)


def _parse_head_start(text: str) -> float:
    """Returns the seconds in ``250ms`` or ``0.25s``."""
    try:
        return amount_of(text, HEAD_START_UNITS_US, "")[0] / SECOND_US
    except (ValueError, OverflowError) as problem:
        raise ValueError(f"headStart is a time with a unit, like 250ms or 0.25s, not {text!r}") from problem
