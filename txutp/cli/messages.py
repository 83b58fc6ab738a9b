"""Messages between two commands: lines of JSON, each an object; how they are cut out of a stream, and checked.

``measurement/wire.py`` and ``files/wire.py`` say which messages there are.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

LONGEST_LINE_BYTES = 64 * 1024
LONGEST_SENTENCE_CHARACTERS = 200
LARGEST_COUNT = 1 << 62


class ProtocolError(Exception):
    """The other end says what this protocol has no place for."""


class Refused(Exception):
    """The server speaks the protocol and does not want the test; its sentence says why."""


class Unanswered(Exception):
    """The other end said nothing for too long."""


class Broken(Exception):
    """A connection ended before the test did."""


def encode(message: dict[str, Any]) -> bytes:
    """Returns the line of a message."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> dict[str, Any]:
    """Returns the message of a line without its end; raises ``ProtocolError`` if there is none."""
    try:
        message = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as problem:
        raise ProtocolError("a line is no JSON") from problem
    if not isinstance(message, dict):
        raise ProtocolError("a line is no JSON object")
    return message


def _no_constant(name: str) -> float:
    raise ValueError(name)


class Lines:
    """Cuts a stream into lines."""

    def __init__(self, longest_bytes: int = LONGEST_LINE_BYTES) -> None:
        self._longest_bytes = longest_bytes
        self._data = b""
        self._place = 0  # of the next line in it: cutting each line off would copy the rest as often

    @property
    def rest(self) -> bytes:
        """What came behind the last whole line."""
        return self._data[self._place :]

    @classmethod
    def behind(cls, lines: Lines) -> Lines:
        """Returns what cuts the rest of a stream, whose first line was cut by others."""
        new = cls()
        new._data = lines.rest
        return new

    def next(self, data: bytes = b"") -> bytes | None:
        """Take these bytes; returns the next whole line without its end, or None.

        Raises ``ProtocolError`` for a line that is too long."""
        if data:
            self._data, self._place = self.rest + data, 0
        begin = self._place
        end = self._data.find(b"\n", begin)
        if (len(self._data) if end < 0 else end) - begin > self._longest_bytes:
            raise ProtocolError("a line is too long")
        if end < 0:
            return None
        self._place = end + 1
        return self._data[begin:end]


def sentence_of(message: dict[str, Any]) -> str:
    """Returns the ``error`` of a message as text that a terminal may show."""
    words = "".join(letter for letter in str(message["error"]) if letter.isprintable())
    return words[:LONGEST_SENTENCE_CHARACTERS]


def count(value: Any, lowest: int = 0, highest: int = LARGEST_COUNT) -> int:
    """Returns a whole number in a range."""
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ProtocolError(f"this is not a whole number from {lowest} to {highest}")
    return value


def quantity(value: Any, lowest: float = 0.0, highest: float = 1e15) -> float:
    """Returns a finite number in a range."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not lowest <= value <= highest:
        raise ProtocolError(f"this is not a number from {lowest:g} to {highest:g}")
    return float(value)


def flag(value: Any) -> bool:
    """Returns True or False."""
    if not isinstance(value, bool):
        raise ProtocolError("this is neither true nor false")
    return value


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Returns the check that lets None pass as well."""
    return lambda value: None if value is None else check(value)


def checked(what: str, checks: dict[str, Callable[[Any], Any]], values: Any) -> dict[str, Any]:
    """Returns the values that have checks; other ones may come from later versions."""
    if not isinstance(values, dict):
        raise ProtocolError(f"{what} is no JSON object")
    for name in checks:
        if name not in values:
            raise ProtocolError(f"{what} has no {name}")
    checked = {}
    for name, check in checks.items():
        try:
            checked[name] = check(values[name])
        except ProtocolError as problem:
            raise ProtocolError(f"{what}: {name}: {problem}") from problem
    return checked
