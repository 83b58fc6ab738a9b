"""The wall clock is set while timers are pending: none of ours comes late by more than a second, none early.

Processes with real reactors whose ``seconds`` steps, and the timers alone in virtual time.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as running_reactor
from twisted.internet.error import AlreadyCalled
from twisted.internet.task import Clock

from tests.support import CLIENT
from txutp.testing import Network
from txutp.timers import GRACE_US, PlainTimers, SteadyTimers, call_later, timers_of

ROOT = Path(__file__).parent.parent.parent
YEAR = 31_536_000.0

# What each part of the program takes where the clock does not step, in seconds.
USUAL_SECONDS = {"lost before": 0.1, "stream": 0.5, "connect": 3, "time-out": 2, "time-out by name": 2}
SPARE_SECONDS = 1.0
BUSY_SECONDS = 2.0  # of other processes of the machine
CALLS_OF_A_TURN = 1_000


def test_no_step_delays_a_retransmission_a_handshake_or_a_time_out() -> None:
    """On each reactor that is there; all processes at once, because they only wait."""
    steps = {"select": -1.0, "poll": -3_600.0, "epoll": -YEAR, "asyncio": -60.0}
    cases = [(name, step) for name, step in steps.items() if name != "epoll" or sys.platform == "linux"]
    cases += [("select", 3_600.0), ("asyncio", YEAR)]
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.clock_steps", name, str(step)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name, step in cases
    ]
    for case, program in zip(cases, programs, strict=True):
        output, errors = program.communicate(timeout=60)
        assert program.returncode == 0, (case, errors)
        took = json.loads(output)
        assert took.keys() == USUAL_SECONDS.keys()
        late = {name: took[name] - USUAL_SECONDS[name] for name in took}
        assert max(late.values()) < SPARE_SECONDS + BUSY_SECONDS, (case, took)
        for name in ("connect", "time-out", "time-out by name"):
            assert took[name] > 1.9, (case, took)


@pytest.mark.parametrize("step", [-YEAR, -3_600.0, -1.0, -0.2, 0.2, 3.0, 3_600.0, YEAR])
@pytest.mark.parametrize("seconds", [0, 0.001, 0.5, 29])
def test_a_call_comes_in_time(step: float, seconds: float) -> None:
    """Neither sooner, nor later than an alarm takes."""
    network = Network()
    reactor = network.reactor(CLIENT)
    rung: list[int] = []
    begin_us = network.now_us
    timer = call_later(reactor, seconds, lambda: rung.append(network.now_us - begin_us))
    reactor.set_wall_clock(step)
    assert timer.active()
    network.run(60)
    assert len(rung) == 1
    assert -5_000 <= rung[0] - seconds * 1_000_000 <= GRACE_US
    assert not timer.active()


def test_all_calls_are_corrected_when_one_is_late() -> None:
    network = Network()
    reactor = network.reactor(CLIENT)
    rung: dict[float, int] = {}
    for seconds in (0.1, 5, 6.5, 20):
        call_later(reactor, seconds, lambda at=seconds: rung.setdefault(at, network.now_us))
    reactor.set_wall_clock(-3_600)
    network.run(30)
    assert rung.pop(0.1) > 100_000
    assert rung == {5: 5_000_000, 6.5: 6_500_000, 20: 20_000_000}


class Joining(Clock):
    """Calls that are made within a turn join it if they are due at the time when it began, as on asyncio."""

    def __init__(self) -> None:
        super().__init__()
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, function: Callable[[], None]) -> None:
        self.soon.append(function)

    def turn(self) -> None:
        begin = self.rightNow
        soon, self.soon = self.soon, []
        for function in soon:
            function()
        for _ in range(CALLS_OF_A_TURN):
            self._sortCalls()
            if not self.calls or self.calls[0].getTime() > begin:
                return
            call = self.calls.pop(0)
            call.called = 1
            call.func(*call.args, **call.kw)
        pytest.fail("a turn does not end, and no socket is read")


def test_a_clock_that_is_set_back_within_a_turn_keeps_no_socket_waiting() -> None:
    reactor = Joining()
    monotonic_us = 0
    timers = SteadyTimers(reactor, lambda: monotonic_us, lambda at_us, look: None, reactor.call_soon)
    rung: list[int] = []

    def set_back() -> None:
        reactor.rightNow = -YEAR
        timers.call_later(0.5, lambda: rung.append(monotonic_us))

    reactor.callLater(0, set_back)
    reactor.turn()
    reactor.turn()
    assert not rung
    (call,) = reactor.getDelayedCalls()
    assert call.getTime() == -YEAR + 0.5
    reactor.rightNow += 0.5
    monotonic_us = 500_000
    reactor.turn()
    assert rung == [500_000]


def test_a_call_that_is_put_off_can_be_cancelled() -> None:
    reactor = Joining()
    timers = SteadyTimers(reactor, lambda: 0, lambda at_us, look: None, reactor.call_soon)
    timer = timers.call_later(0.5, pytest.fail)
    reactor.rightNow += YEAR
    reactor.turn()
    assert timer.active()
    timer.cancel()
    assert not timer.active()
    with pytest.raises(AlreadyCalled):
        timer.cancel()
    reactor.turn()
    assert not reactor.getDelayedCalls()


def test_a_cancelled_call_never_comes_and_leaves_nothing() -> None:
    network = Network()
    reactor = network.reactor(CLIENT)
    timer = call_later(reactor, 1, pytest.fail)
    other = call_later(reactor, 1, pytest.fail)
    timer.cancel()
    for call in reactor.getDelayedCalls():  # as trial does
        call.cancel()
    assert not timer.active()
    assert not other.active()
    network.run(10)
    timers = timers_of(reactor)
    assert isinstance(timers, SteadyTimers)
    assert not timers.pending
    assert not network._events


def test_idle_calls_wake_nobody() -> None:
    """The alarm of a thousand calls in half a minute rings once, behind the first of them."""
    network = Network()
    reactor = network.reactor(CLIENT)
    alarms: list[float] = []
    timers = SteadyTimers(
        reactor, reactor.monotonic_us, lambda at_us, look: alarms.append(at_us / 1_000_000), lambda function: None
    )
    for number in range(1_000):
        timers.call_later(29 + number / 1_000, lambda: None)
    network.run(28)
    assert alarms == [29.3]


def test_virtual_time_is_left_alone() -> None:
    clock = Clock()
    rung: list[float] = []
    assert isinstance(timers_of(clock), PlainTimers)
    call_later(clock, 10, lambda: rung.append(clock.seconds()))
    clock.advance(10)
    assert rung == [10]


class Stopped:
    """A reactor that makes no calls of its own, only those of other threads."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.pending: list[Any] = []

    def seconds(self) -> float:
        return time.time()

    def callLater(self, seconds: float, function: Any) -> Any:
        return running_reactor.callLater(100 + seconds, function)  # type: ignore[attr-defined]

    def callFromThread(self, function: Any) -> None:
        self.pending.append(function)
        self.asked.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_an_alarm_of_its_own() -> None:
    """As a program that becomes a daemon while it listens."""
    reactor = Stopped()
    timer = call_later(reactor, 0, lambda: None)
    assert reactor.asked.wait(10)
    reactor.asked.clear()
    child = os.fork()
    if not child:
        other = call_later(reactor, 0, lambda: None)
        timers = timers_of(reactor)
        timers._set_alarm(0)
        os._exit(0 if reactor.asked.wait(10) and other.active() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    timer.cancel()
