"""The UDP ports with uTP that each reactor has open, for traces and for monitoring.

``UTPProtocol`` reports when its port opens and closes; connections and packets cost nothing more.  A watcher is called
with each port that is open, and with each one that is opened later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

# A watcher gets a ``UTPProtocol``.
Watcher = Callable[[Any], None]


class OpenPorts:
    """The open ports of one reactor, in the order in which they were opened."""

    def __init__(self) -> None:
        self._open: dict[Any, None] = {}
        self._on_open: list[Watcher] = []
        self._on_close: list[Watcher] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._open))

    def opened(self, utp: Any) -> None:
        """A UDP port with uTP has opened."""
        self._open[utp] = None
        for watcher in list(self._on_open):
            watcher(utp)

    def closed(self, utp: Any) -> None:
        """A port has closed, and all its connections have ended."""
        if utp in self._open:
            del self._open[utp]
            for watcher in list(self._on_close):
                watcher(utp)

    def watch(self, on_open: Watcher, on_close: Watcher) -> None:
        """Call ``on_open`` with each port that is open or will open, and ``on_close`` with each port that closes."""
        self._on_open.append(on_open)
        self._on_close.append(on_close)
        for utp in self:
            on_open(utp)

    def unwatch(self, on_open: Watcher, on_close: Watcher) -> None:
        """Stop the calls that ``watch`` began."""
        self._on_open.remove(on_open)
        self._on_close.remove(on_close)


def open_ports_of(reactor: Any) -> OpenPorts:
    """Returns the open ports of a reactor, which holds the object, so that it lives no longer than the reactor."""
    found = getattr(reactor, "_txutp_open_ports", None)
    if not isinstance(found, OpenPorts):
        found = reactor._txutp_open_ports = OpenPorts()
    return found
