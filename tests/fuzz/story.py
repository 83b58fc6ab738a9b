"""Bytes read as choices: how a target turns what a fuzzer draws into numbers, pieces of data and decisions."""

from __future__ import annotations


class Story:
    """Reads choices from bytes; behind their end every choice is the first one, so that each story ends."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = 0

    @property
    def is_over(self) -> bool:
        """Whether everything was read."""
        return self._offset >= len(self._data)

    def byte(self) -> int:
        """Returns the next byte, 0 behind the end."""
        offset = self._offset
        self._offset += 1
        return self._data[offset] if offset < len(self._data) else 0

    def number(self, size: int) -> int:
        """Returns a big-endian number of this many bytes."""
        value = 0
        for _ in range(size):
            value = value << 8 | self.byte()
        return value

    def below(self, limit: int) -> int:
        """Returns a number from 0 up to but not including ``limit``, which is 256 at most."""
        return self.byte() % limit

    def piece(self, limit: int) -> bytes:
        """Returns up to ``limit`` bytes as they stand; their number is read first."""
        size = self.number(2) % (limit + 1)
        start = self._offset
        self._offset += size
        return self._data[start : start + size]
