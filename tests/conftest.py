"""Reports of a test run: a slow test while it runs, and at the end skipped tests by reason and the slowest files.

The second report is written to the file that TXUTP_TESTS_SUMMARY names; tests/run prints it at its end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import progress

# Seconds after which a running test is reported, again and again.
PATIENCE_SECONDS = 20.0

SHOWN_FILES = 8


class Heartbeat:
    """Reports a slow test while it runs, past the capture of pytest."""

    def __init__(self, write: Callable[[str], object], patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._write = write
        self._patience_seconds = patience_seconds
        self._test = ""
        self._ended = threading.Event()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self.now_runs("")
        self._thread.join(1.0)

    def now_runs(self, test: str) -> None:
        """Name the test that begins; an empty name means that none runs."""
        with self._changed:
            self._test = test
            progress.tell("")
            self._changed.notify_all()

    def _watch(self) -> None:
        with self._changed:
            while not self._ended.is_set():
                test, began = self._test, time.monotonic()
                while not self._changed.wait(self._patience_seconds) and self._test:
                    part = f": {progress.told()}" if progress.told() else ""
                    self._write(f"\n  {test} has been running for {time.monotonic() - began:.0f} s{part}\n")
                    if self._ended.is_set() or test != self._test:
                        break


class Report:
    """Counts what was skipped and how long files took."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self.skipped: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._heartbeat.now_runs(item.nodeid)
        try:
            return (yield)
        finally:
            self._heartbeat.now_runs("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid.partition("::")[0]] += report.duration
        if report.skipped:
            self.skipped[reason_of(report)] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped[f"{report.nodeid}: {reason_of(report)}"] += 1

    def lines(self) -> list[str]:
        """The lines of the summary."""
        lines = []
        if self.skipped:
            lines.append(f"Left out, {self.skipped.total()} in all:")
            lines += [f"{count:5}  {reason}" for reason, count in self.skipped.most_common()]
        slowest = sorted(self.seconds.items(), key=lambda entry: -entry[1])[:SHOWN_FILES]
        lines.append("The slowest files:")
        lines += [f"{seconds:5.0f} s  {name}" for name, seconds in slowest]
        return lines

    def pytest_sessionfinish(self) -> None:
        self._heartbeat.stop()
        path = os.environ.get("TXUTP_TESTS_SUMMARY")
        if path:
            Path(path).write_text("\n".join([*self.lines(), ""]), encoding="utf-8")


def reason_of(report: Any) -> str:
    """The reason of a skip."""
    _, _, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("", 0, str(report.longrepr))
    return str(reason).removeprefix("Skipped: ")


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    terminal = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")  # type: ignore[union-attr]

    def write(text: str) -> None:
        terminal.write(text)
        terminal.flush()

    heartbeat = Heartbeat(write)
    heartbeat.start()
    config.pluginmanager.register(Report(heartbeat), "txutp-report")
