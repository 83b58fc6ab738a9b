"""The life of a program in Node's style: it runs while it has something to wait for, and ends by itself.

Sockets and servers of ``sockets.py`` are ``Handle``s.  From ``connect`` or ``listen`` until ``close`` they keep the
program running, unless they are ``unref``'d.  A handle also has the queue of events for a later turn of the reactor
(Node's ``process.nextTick``), so that no listener runs within a call of the program.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txutp.socket.events import Emitter, EventName, call_guarded, checked_listener
from txutp.timers import Timer, call_later

if TYPE_CHECKING:
    from typing_extensions import Self

# Active handles of all reactors.  A reactor keeps its own alive, through their connections and ports.
_going_on: WeakSet[Handle[Any]] = WeakSet()

# Called when a handle has ended; each call of ``run`` adds one.
_watchers: list[Callable[[], None]] = []


class Handle(Emitter[EventName]):
    """An emitter that lives on a reactor, and keeps a program running while it goes on."""

    def __init__(self, reactor: Any = None) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self._counts = True  # ref'd
        self._later: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        self._later_call: Timer | None = None

    def ref(self) -> Self:
        """Keep the program running while this goes on, as it is from the start."""
        self._counts = True
        return self

    def unref(self) -> Self:
        """Let the program end although this goes on."""
        self._counts = False
        self._tell_watchers()
        return self

    def hasRef(self) -> bool:
        """Whether it keeps the program running while it goes on."""
        return self._counts

    def _goes_on(self) -> None:
        _going_on.add(self)

    def _has_ended(self) -> None:
        _going_on.discard(self)
        self._tell_watchers()

    def _tell_watchers(self) -> None:
        for watcher in _watchers:
            watcher()

    def _program_ends(self) -> None:
        """Close without an event: the program has ended."""

    # -- later turns --

    def _do_later(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call this in a later turn of the reactor, in the order of asking, and not after what happens then."""
        self._later.append((function, arguments))
        if self._later_call is None:
            self._later_call = call_later(self.reactor, 0, self._do_now)

    def _do_now(self) -> None:
        """Make the calls that were put off, before anything else in this turn."""
        call, self._later_call = self._later_call, None
        if call is not None and call.active():
            call.cancel()
        # calls that are put off meanwhile wait for a turn of their own
        for _ in range(len(self._later)):
            function, arguments = self._later.popleft()
            call_guarded(function, arguments, self)


def run(main: Callable[[], Coroutine[Deferred[Any], Any, Any]] | None = None, reactor: Any = None) -> None:
    """Run the reactor until nothing is left to do, as Node.js does.

    The program goes on while there are active sockets and servers that are not ``unref``'d, calls that the program has
    put off with ``reactor.callLater``, or ``main``, an async function that is called when the reactor runs.  An
    exception of ``main`` ends the program, and ``run`` raises it.  Other work, in threads or with other transports, has
    to be awaited in ``main``.

    At the end the remaining connections close without an event, and data that were written to them, or to others before
    ``end`` or ``destroy``, have five seconds to arrive.  A reactor runs only once, and so does ``run``.
    """
    if main is not None:
        checked_listener(main, "main")
    if reactor is None:
        from twisted.internet import reactor
    _Run(reactor, main).run()


class _Run:
    """One call of ``run``."""

    def __init__(self, reactor: Any, main: Callable[[], Coroutine[Deferred[Any], Any, Any]] | None) -> None:
        self._reactor = reactor
        self._main = main
        self._main_runs = main is not None
        self._failure: Failure | None = None
        self._look_call: IDelayedCall | None = None
        self._over = False

    def run(self) -> None:
        self._reactor.addSystemEventTrigger("before", "shutdown", self._end)
        self._reactor.callWhenRunning(self._begin)
        _watchers.append(self._look_soon)
        try:
            self._reactor.run()
        finally:
            _watchers.remove(self._look_soon)
        if self._failure is not None:
            self._failure.raiseException()

    def _begin(self) -> None:
        if self._main is not None:
            try:
                coroutine = self._main()
                ensureDeferred(coroutine).addCallbacks(self._main_ended, self._main_failed)
            except Exception:
                self._main_failed(Failure())
        self._look_soon()

    def _main_ended(self, result: object) -> None:
        self._main_runs = False
        self._look_soon()

    def _main_failed(self, failure: Failure) -> None:
        self._failure = failure
        self._stop()

    def _look_soon(self) -> None:
        """Look after the listeners of what has ended have had their turn: they may begin something."""
        self._look_after(0)

    def _look_after(self, seconds: float) -> None:
        if self._over:
            return
        if self._look_call is not None and self._look_call.active():
            self._look_call.cancel()
        self._look_call = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        """Stop the reactor if nothing is left to do; else look again later."""
        if self._main_runs or any(handle.hasRef() for handle in self._handles()):
            return
        times = [call.getTime() for call in self._reactor.getDelayedCalls() if _is_of_the_program(call)]
        if times:
            self._look_after(max(min(times) - self._reactor.seconds(), 0))
        else:
            self._stop()

    def _stop(self) -> None:
        if not self._over:
            self._end()
            with suppress(ReactorNotRunning):  # stopped by the program in this very turn
                self._reactor.stop()

    def _end(self) -> None:
        self._over = True
        for handle in self._handles():
            handle._program_ends()

    def _handles(self) -> list[Handle[Any]]:
        return [handle for handle in _going_on if handle.reactor is self._reactor]


def _is_of_the_program(call: Any) -> bool:
    """Returns whether a delayed call is the program's, not a timer of ours; calls that a handle put off count."""
    function = getattr(call, "func", None)
    timer = getattr(function, "__self__", None)
    if isinstance(timer, Timer):
        function = timer.function
    if getattr(function, "__func__", None) is Handle._do_now:
        return True
    return not str(getattr(function, "__module__", "")).startswith("txutp.")
