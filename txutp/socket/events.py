"""Events as Node.js has them: listeners that are called when something happens, by name.

``Emitter`` is the base of ``sockets.py``'s Socket and Server.  Where Python differs from JavaScript:

- A listener may take fewer arguments than its event has, as in JavaScript: ``lambda: ...`` works for any event.
- An async function may be a listener; its exceptions are logged, like those of any other listener.
- An ``error`` without a listener does not end the program.  It is logged as an unhandled failure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from twisted.internet import error
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from typing_extensions import Self

Listener = Callable[..., Any]
AnyListener = TypeVar("AnyListener", bound=Listener)

# The names of events, for type checkers: a misspelt one is found before the program runs.
EventName = TypeVar("EventName", bound=str)
SocketEvent = Literal["close", "connect", "data", "drain", "end", "error", "finish", "lookup", "ready", "timeout"]
ServerEvent = Literal["close", "connection", "error", "listening"]

_log = Logger()


def checked_listener(listener: object, what: str) -> Listener:
    """Returns the listener; raises TypeError if it cannot be called."""
    if not callable(listener):
        raise TypeError(f"{what} has to be a function, or something else that can be called, not {listener!r}")
    return listener


def left_out(value: Any, default: Any, listener: Listener | None) -> tuple[Any, Listener | None]:
    """Returns an argument and the listener.  If a call leaves the argument out, the listener stands in its place."""
    return (default, value) if callable(value) else (value, listener)


def call_guarded(listener: Listener, arguments: tuple[Any, ...], who: object) -> None:
    """Call a listener.  Its exceptions are logged and go no further; the log names ``who``."""
    try:
        result = listener(*arguments)
    except Exception:
        _log_raised(Failure(), listener, who)
        return
    if inspect.iscoroutine(result):
        ensureDeferred(result).addErrback(_log_raised, listener, who)


def _log_raised(failure: Failure, listener: Listener, who: object) -> None:
    _log.failure("{listener} raised, called by {who}", failure=failure, listener=listener, who=who)


def arguments_taken(listener: Listener) -> int | None:
    """Returns the maximum number of positional arguments; None is without limit, or unknown."""
    try:
        parameters = inspect.signature(listener).parameters.values()
    except (TypeError, ValueError):  # some that are written in C do not tell
        return None
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    return sum(
        parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD) for parameter in parameters
    )


@dataclass(eq=False, frozen=True)
class Listening:
    """One listener of one event; each ``on`` makes one."""

    listener: Listener
    once: bool
    taken: int | None  # maximum number of arguments


class Emitter(Generic[EventName]):
    """Calls listeners when something happens; ``EventName`` is the type of the names of its events."""

    def __init__(self) -> None:
        # Lists are replaced, never changed: an emission may be walking through one.
        self._listeners: dict[str, list[Listening]] = {}

    # -- listening --

    @overload
    def on(self, name: EventName) -> Callable[[AnyListener], AnyListener]: ...
    @overload
    def on(self, name: EventName, listener: Listener) -> Self: ...
    def on(self, name: EventName, listener: Listener | None = None) -> Any:
        """Call the listener each time; returns the emitter.  Without a listener it is a decorator."""
        return self._add(name, listener, False)

    addListener = on

    @overload
    def once(self, name: EventName) -> Callable[[AnyListener], AnyListener]: ...
    @overload
    def once(self, name: EventName, listener: Listener) -> Self: ...
    def once(self, name: EventName, listener: Listener | None = None) -> Any:
        """Call the listener the next time only; returns the emitter.  Without a listener it is a decorator."""
        return self._add(name, listener, True)

    def off(self, name: EventName, listener: Listener) -> Self:
        """Remove the listener; if it was added several times, remove it once."""
        self._take_off(name, listener)
        return self

    removeListener = off

    def removeAllListeners(self, name: EventName | None = None) -> Self:
        """Remove the listeners of one event, or of all events."""
        if name is None:
            self._listeners.clear()
        else:
            self._listeners.pop(name, None)
        return self

    def listeners(self, name: EventName) -> list[Listener]:
        """Returns the listeners of an event, in the order of their calls."""
        return [entry.listener for entry in self._listeners.get(name, [])]

    def listenerCount(self, name: EventName) -> int:
        """Returns the number of listeners of an event."""
        return len(self._listeners.get(name, []))

    def _add(self, name: str, listener: Listener | None, once: bool) -> Any:
        if not isinstance(name, str):
            raise TypeError(f"the name of an event is a str like 'data', not {name!r}")
        if listener is None:

            def decorate(listener: AnyListener) -> AnyListener:
                self._add(name, listener, once)
                return listener

            return decorate
        checked_listener(listener, "a listener")
        entry = Listening(listener, once, arguments_taken(listener))
        self._listeners[name] = [*self._listeners.get(name, []), entry]
        self._on_added(name)
        return self

    def _take_off(self, name: str, listener: Listener) -> None:
        for entry in reversed(self._listeners.get(name, [])):
            if entry.listener == listener:
                self._remove(name, entry)
                break

    def _remove(self, name: str, entry: Listening) -> None:
        self._listeners[name] = [other for other in self._listeners[name] if other is not entry]

    def _on_added(self, name: str) -> None:
        """Called when a listener was added; a Socket begins to read with the first listener of ``data``."""

    # -- emitting --

    def emit(self, name: EventName, *arguments: Any) -> bool:
        """Call every listener of an event, now; returns whether there was one."""
        listening = self._listeners.get(name)
        if not listening:
            if name == "error":
                self._log_unhandled(*arguments)
            return False
        for entry in listening:
            if entry.once:
                if entry not in self._listeners.get(name, []):
                    continue  # a listener before it has emitted the same event
                self._remove(name, entry)
            call_guarded(entry.listener, arguments[: entry.taken], self)
        return True

    def _log_unhandled(self, problem: object = None, *others: Any) -> None:
        what = "Unhandled error of {who}: its event 'error' has no listener"
        if isinstance(problem, BaseException):
            _log.failure(what, failure=Failure(problem), who=self)
        else:
            _log.critical(what + " ({problem})", who=self, problem=problem)

    # -- awaiting --

    def when(self, *names: EventName) -> Deferred[Any]:
        """Fires the next time that one of these events happens, with its first argument (None without one).

        It fails with the argument of ``error`` if that event comes first, and with ``ConnectionClosed`` if ``close``
        comes first and is not in ``names``.  It may be cancelled.  With asyncio, await
        ``when("drain").asFuture(loop)``.
        """
        listening: list[tuple[str, Listener]] = []

        def stop(deferred: object = None) -> None:
            for name, listener in listening:
                self._take_off(name, listener)

        def happened(*arguments: Any) -> None:
            stop()
            happening.callback(arguments[0] if arguments else None)

        def failed(problem: object = None) -> None:
            stop()
            exception = problem if isinstance(problem, BaseException) else RuntimeError(f"the event error: {problem!r}")
            happening.errback(Failure(exception))

        def closed() -> None:
            failed(error.ConnectionClosed("closed before it happened"))

        happening: Deferred[Any] = Deferred(stop)
        listening += [(name, happened) for name in names]
        listening += [
            (name, listener) for name, listener in (("error", failed), ("close", closed)) if name not in names
        ]
        for name, listener in listening:
            self._add(name, listener, False)
        return happening
