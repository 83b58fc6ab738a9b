"""``--compare tcp``: uTP alone, TCP alone, both at once, and what a ping takes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, FirstError

from txutp.cli.measurement.client import Client
from txutp.cli.measurement.ping import Pinger, percentile
from txutp.cli.measurement.results import Interval, Results
from txutp.cli.measurement.wire import Parameters
from txutp.cli.messages import Refused

UTP, TCP = "utp", "tcp"
PHASES = (("nothing", ()), ("uTP alone", (UTP,)), ("TCP alone", (TCP,)), ("both", (UTP, TCP)))

# Share of the time of a test that nothing but pings is given.
IDLE_SHARE = 0.2
SHORTEST_IDLE_SECONDS = 0.5


class Comparison:
    """Runs the phases one after the other; ``phases`` has what is known of each that has begun."""

    def __init__(
        self,
        reactor: Any,
        parameters: Parameters,
        endpoints: Callable[[str, int], Any],
        port: int,
        wait_seconds: float,
        tell: Callable[[str, str, Results, list[Interval]], object],
        over: Callable[[dict[str, Any]], object],
    ) -> None:
        """``endpoints`` makes one of a kind and a port; ``tell`` gets phase, kind, results and intervals, ``over`` a
        phase that has ended."""
        self._reactor = reactor
        self._parameters = parameters
        self._endpoints = endpoints
        self._port = port
        self._wait_seconds = wait_seconds
        self._tell = tell
        self._over = over
        self.phases: list[dict[str, Any]] = []

    async def run(self) -> None:
        """Run all; raises what a client does, and ``Refused`` by a server that does not offer TCP."""
        for name, kinds in PHASES:
            phase: dict[str, Any] = {"phase": name, "utp_bits_per_second": None, "tcp_bits_per_second": None}
            phase |= {"ping_p50_ms": None, "ping_p95_ms": None, "pings": 0}
            self.phases.append(phase)
            answer = await self._run_phase(phase, kinds)
            if not answer.get("tcp"):
                raise Refused("This server does not listen on TCP under the same number: start it with -s -p PORT.")

    async def _run_phase(self, phase: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
        """Returns what the server says that it offers."""
        # While nothing else flows, a stream that says next to nothing keeps the echo awake.
        parameters = self._parameters
        if not kinds:
            idle = max(SHORTEST_IDLE_SECONDS, IDLE_SHARE * parameters.seconds)
            parameters = replace(parameters, seconds=idle, omit_seconds=0.0, streams=1, bits_per_second=8)
        clients = {kind: self._client(phase["phase"], kind, parameters) for kind in kinds or (UTP,)}
        pinging = _Pinging(self._reactor)
        first = next(iter(clients.values()))
        first.began.addCallback(lambda nothing: pinging.begin(first, self._port))
        running = [Deferred.fromCoroutine(client.run()) for client in clients.values()]
        try:
            await DeferredList(running, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as first_error:
            raise first_error.subFailure.value from None  # type: ignore[misc]
        finally:
            for deferred in running:
                deferred.addErrback(lambda failure: None)
                deferred.cancel()
            await pinging.end()
            if kinds:
                for kind, client in clients.items():
                    totals = [summary.receiver for summary in client.results.summaries()]
                    if any(total.seconds for total in totals):
                        phase[f"{kind}_bits_per_second"] = sum(total.bits_per_second for total in totals)
            round_trips = list(pinging.round_trips_ms)
            phase["ping_p50_ms"] = percentile(round_trips, 0.5)
            phase["ping_p95_ms"] = percentile(round_trips, 0.95)
            phase["pings"] = len(round_trips)
        self._over(phase)
        return first.answer

    def _client(self, phase: str, kind: str, parameters: Parameters) -> Client:
        results = Results(parameters)

        def tell(intervals: list[Interval]) -> None:
            self._tell(phase, kind, results, intervals)

        return Client(self._reactor, self._endpoints(kind, self._port), results, self._wait_seconds, tell)


class _Pinging:
    """The pings of one phase, from a UDP port of their own."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._port: Any = None
        self._pinger: Pinger | None = None

    @property
    def round_trips_ms(self) -> list[float]:
        """What the answers took."""
        return list(self._pinger.round_trips_ms) if self._pinger is not None else []

    def begin(self, client: Client, port: int) -> None:
        """Ask the server of a test that runs."""
        host = client.peer_address.host
        self._pinger = Pinger(self._reactor, (host, port), client.token)
        self._port = self._reactor.listenUDP(0, self._pinger, interface="::" if ":" in host else "")

    async def end(self) -> None:
        """Ask no more."""
        if self._port is not None:
            await self._port.stopListening()
