"""The emitter: listeners, and awaiting events."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.defer import Deferred

from txutp.socket.events import Emitter


def outcome_of(deferred: Deferred[Any]) -> list[Any]:
    """A list that gets what a Deferred fires with: a value, or the type of an exception."""
    outcome: list[Any] = []
    deferred.addCallbacks(outcome.append, lambda failure: outcome.append(failure.type))
    return outcome


def test_listeners() -> None:
    """As decorators or not, once or always, off again."""
    emitter = Emitter()
    heard: list[Any] = []

    @emitter.on("x")
    def always(number: int) -> None:
        heard.append(number)

    @emitter.once("x")
    def once(number: int) -> None:
        heard.append(-number)

    assert emitter.listeners("x") == [always, once]
    assert emitter.emit("x", 1) is True
    assert emitter.emit("x", 2) is True
    assert emitter.emit("y") is False
    assert heard == [1, -1, 2]
    assert emitter.on("x", always).listenerCount("x") == 2
    assert emitter.off("x", always).removeListener("x", always) is emitter
    assert emitter.off("x", always).off("z", always).listeners("x") == []
    emitter.addListener("x", always).removeAllListeners("x").addListener("y", always).removeAllListeners()
    assert emitter.listeners("x") == emitter.listeners("y") == []


def test_a_listener_may_change_the_listeners() -> None:
    """An emission goes to those who listened when it began; ``once`` is once even if it emits the same."""
    emitter = Emitter()
    heard: list[str] = []
    emitter.once("x", lambda: emitter.on("x", lambda: heard.append("later")))
    emitter.once("x", lambda: emitter.emit("x"))
    emitter.once("x", lambda: heard.append("once"))
    emitter.emit("x")
    assert heard == ["once", "later"]
    emitter.emit("x")
    assert heard == ["once", "later", "later"]


def test_listeners_may_take_fewer_arguments() -> None:
    """As in JavaScript; and builtins that do not tell get all of them."""
    emitter = Emitter()
    heard: list[Any] = []
    emitter.on("x", lambda: heard.append("none"))
    emitter.on("x", lambda first: heard.append(first))
    emitter.on("x", lambda first, second=None, third=3: heard.append((first, second, third)))
    emitter.on("x", lambda *arguments: heard.append(arguments))
    emitter.on("x", heard.append)
    emitter.emit("x", 1, 2)
    assert heard == ["none", 1, (1, 2, 3), (1, 2), 1]


def test_awaiting_an_event() -> None:
    """Any event, with its first argument; it may be cancelled."""
    emitter = Emitter()
    first, second, failing = (outcome_of(emitter.when("x")) for _ in range(3))
    emitter.emit("x", 1, 2)
    assert (first, second, failing) == ([1], [1], [1])
    failing = outcome_of(emitter.when("x"))
    emitter.emit("error", ValueError())
    closing = outcome_of(emitter.when("x", "y"))
    emitter.emit("close")
    waiting = emitter.when("x", "y")
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    assert (failing, closing) == ([ValueError], [error.ConnectionClosed])
    assert all(emitter.listenerCount(name) == 0 for name in ("x", "y", "error", "close"))
