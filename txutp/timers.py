"""Delayed calls that no step of the wall clock delays.

Twisted's reactors time their calls by ``time.time``.  When that clock is set back by an hour (NTP, a resumed virtual
machine, a real-time clock in local time), every call that is pending comes an hour late; when it is set forward, every
call comes at once.  TCP has its timers in the kernel and notices nothing of this, so neither may a connection of ours.

``call_later`` is ``reactor.callLater`` with a due time on the monotonic clock:

- A call that the reactor makes too early is put off until it is due, in a later turn: a reactor compares with the time
  at which it began a turn, and would make it again and again in the same one (the reactor on asyncio, in which new
  calls join the turn).
- An alarm that does not depend on the wall clock rings when a call is overdue, wakes the reactor, and all calls that
  the reactor would make too late get their right times.

The alarm of a real reactor is a thread.  It sleeps until the first pending call is overdue by ``GRACE_US``, so a
thousand idle connections do not wake it; a busy port wakes it a few times a second.  Reactors whose time is virtual
(``task.Clock`` and what inherits from it) are left alone: their clocks do not step.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from time import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.error import AlreadyCalled
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import Clock

from txutp.core.flow import NEVER_US
from txutp.core.units import SECOND_US
from txutp.environment import OPERATING_SYSTEM, IEnvironment

GRACE_US = 300_000  # a call that is late by this much counts as overdue
TOLERANCE_US = 5_000  # difference between the two clocks that is no step
IDLE_SECONDS = 10.0  # life of an alarm's thread without anything to wait for
SAME_CLOCK_SECONDS = 60.0  # difference from `time.time` below which a reactor's clock is the wall clock


class IAlarmClock(IEnvironment):
    """An environment that can also call a function whatever the wall clock does."""

    def ring_at(monotonic_us: int, function: Callable[[], None]) -> None:
        """Call a function in the reactor's thread when the monotonic clock shows this."""


class Timer:
    """A call that is pending, as ``IDelayedCall`` without its getters and setters."""

    __slots__ = ("_arguments", "_delayed_call", "_timers", "due_us", "function")

    def __init__(
        self, timers: SteadyTimers, due_us: int, seconds: float, function: Callable[..., Any], arguments: Any
    ) -> None:
        self.due_us: int = due_us
        self.function: Callable[..., Any] = function
        self._arguments = arguments
        self._timers = timers
        self._delayed_call: IDelayedCall | None = timers.reactor.callLater(seconds, self._ring)

    def active(self) -> bool:
        """Whether the call is still pending."""
        call = self._delayed_call
        return self in self._timers.pending if call is None else call.active()

    def cancel(self) -> None:
        """Cancel the call; raises the exceptions of ``IDelayedCall.cancel`` if it was made, or cancelled."""
        call, pending = self._delayed_call, self._timers.pending
        if call is None and self not in pending:
            raise AlreadyCalled
        pending.discard(self)
        if call is not None:
            call.cancel()

    def correct(self, now_us: int) -> None:
        """Reset the reactor's call if the reactor would make it too late."""
        call = self._delayed_call
        if call is None:
            return  # put off: its next turn has the right time
        if not call.active():
            self._timers.pending.discard(self)  # the reactor's call was cancelled, as trial does at the end of a test
            return
        missing_seconds = max(self.due_us - now_us, 0) / SECOND_US
        reactor_seconds = call.getTime() - self._timers.reactor.seconds()
        if reactor_seconds > missing_seconds + TOLERANCE_US / SECOND_US:
            call.reset(missing_seconds)

    def _ring(self) -> None:
        timers = self._timers
        self._delayed_call = None  # it refers to this timer, and a cycle would need the garbage collector
        if self.due_us - timers.now_us() > TOLERANCE_US:
            timers.call_soon(self._wait_again)
            return
        timers.pending.discard(self)
        self.function(*self._arguments)

    def _wait_again(self) -> None:
        timers = self._timers
        if self in timers.pending:
            missing_us = max(self.due_us - timers.now_us(), 0)
            self._delayed_call = timers.reactor.callLater(missing_us / SECOND_US, self._ring)


class SteadyTimers:
    """The pending calls of one reactor, and the alarm that rings if the reactor is late with one of them."""

    def __init__(
        self,
        reactor: Any,
        now_us: Callable[[], int],
        ring_at: Callable[[int, Callable[[], None]], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """``call_soon`` calls a function in a later turn of the reactor."""
        self.reactor = reactor
        self.now_us = now_us
        self.call_soon = call_soon
        self.pending: set[Timer] = set()
        self._ring_at = ring_at
        self._alarm_us = NEVER_US  # when the alarm rings

    def call_later(self, seconds: float, function: Callable[..., Any], *arguments: Any) -> Timer:
        """Call a function after this many seconds of the monotonic clock."""
        due_us = self.now_us() + int(seconds * SECOND_US)
        timer = Timer(self, due_us, seconds, function, arguments)
        self.pending.add(timer)
        if due_us + GRACE_US < self._alarm_us:
            self._set_alarm(due_us + GRACE_US)
        return timer

    def _set_alarm(self, at_us: int) -> None:
        self._alarm_us = at_us
        self._ring_at(at_us, self._look)

    def _look(self) -> None:
        """The alarm rings: correct the calls that the reactor is late with, and set the alarm for the next one."""
        now_us = self.now_us()
        if now_us < self._alarm_us < NEVER_US:
            return  # an alarm that was replaced by an earlier one, which has rung before
        self._alarm_us = NEVER_US
        for timer in list(self.pending):
            timer.correct(now_us)
        if self.pending:
            self._set_alarm(max(min(timer.due_us for timer in self.pending), now_us) + GRACE_US)


class AlarmThread:
    """Rings at one time of the monotonic clock, in the reactor's thread.

    It waits with the time-out of a socket, which is relative on every system; a wait for a lock or an event follows the
    wall clock where the C library offers no other one (musl, macOS).
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        """``call_soon`` calls a function in a later turn of the reactor, from any thread."""
        self._call_soon = call_soon
        self._process = 0  # the process of the thread: its fork has no thread, and perhaps a lock that stays locked
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._waker: socket.socket | None = None
        self._at_us = NEVER_US
        self._function: Callable[[], None] | None = None

    def ring_at(self, monotonic_us: int, function: Callable[[], None]) -> None:
        """Ring at this time; it replaces the time that was asked for before."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.Lock()
            self._thread = None
        with self._lock:
            self._at_us = monotonic_us
            self._function = function
            if self._thread is not None and self._thread.is_alive():
                assert self._waker is not None
                self._waker.send(b"\0")
                return
            try:
                self._waker, woken = socket.socketpair()
                self._thread = threading.Thread(target=self._run, args=(woken,), name="txutp alarm", daemon=True)
                self._thread.start()
            except (OSError, RuntimeError):
                # no descriptor or no thread is left, so only the reactor's own timers ring
                self._thread = None

    def _run(self, woken: socket.socket) -> None:
        with woken:
            while True:
                with self._lock:
                    function = None
                    if self._at_us == NEVER_US:
                        wait_seconds = IDLE_SECONDS
                    else:
                        wait_seconds = (self._at_us - OPERATING_SYSTEM.monotonic_us()) / SECOND_US
                        if wait_seconds <= 0:
                            function, self._function = self._function, None
                            self._at_us = NEVER_US
                            wait_seconds = IDLE_SECONDS
                if function is not None:
                    try:
                        self._call_soon(function)
                    except Exception:
                        return  # the reactor is gone
                woken.settimeout(wait_seconds)
                try:
                    woken.recv(64)
                except TimeoutError:
                    with self._lock:
                        if self._at_us == NEVER_US:
                            self._thread = None
                            assert self._waker is not None
                            self._waker.close()
                            return


class PlainTimers:
    """Calls of a reactor whose clock does not step, or that no other thread can wake."""

    def __init__(self, reactor: Any) -> None:
        self.call_later: Callable[..., IDelayedCall] = reactor.callLater


def timers_of(reactor: Any) -> Any:
    """Returns the ``SteadyTimers`` of a reactor, or its ``PlainTimers``; the same object each time."""
    found = getattr(reactor, "_txutp_timers", None)
    if isinstance(found, (SteadyTimers, PlainTimers)):
        return found
    timers: SteadyTimers | PlainTimers
    if IAlarmClock.providedBy(reactor):
        timers = SteadyTimers(
            reactor, reactor.monotonic_us, reactor.ring_at, lambda function: reactor.ring_at(0, function)
        )
    elif has_wall_clock(reactor):
        # Twisted's reactor on asyncio makes a delayed call of `callFromThread`, which joins the turn that is under way,
        # and which trial takes for one that a test left behind.
        loop = getattr(reactor, "_asyncioEventloop", None)
        call_soon = reactor.callFromThread if loop is None else loop.call_soon_threadsafe
        timers = SteadyTimers(reactor, OPERATING_SYSTEM.monotonic_us, AlarmThread(call_soon).ring_at, call_soon)
    else:
        timers = PlainTimers(reactor)
    # It is an attribute, because a table of reactors would keep the reactors of tests alive.
    reactor._txutp_timers = timers
    return timers


def has_wall_clock(reactor: Any) -> bool:
    """Whether calls of this reactor follow the wall clock, and another thread can wake it."""
    if IEnvironment.providedBy(reactor) or isinstance(reactor, Clock):
        return False
    if not callable(getattr(reactor, "callFromThread", None)):
        return False
    return isinstance(reactor, ReactorBase) or abs(reactor.seconds() - time()) < SAME_CLOCK_SECONDS


def call_later(reactor: Any, seconds: float, function: Callable[..., Any], *arguments: Any) -> Any:
    """``reactor.callLater``, as exact as the monotonic clock; returns something that has ``active`` and ``cancel``."""
    return timers_of(reactor).call_later(seconds, function, *arguments)
