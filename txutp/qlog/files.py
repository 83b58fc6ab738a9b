"""A qlog file as a sequence of JSON records (RFC 7464), each written whole and at once.

Nothing waits in memory, so the file holds everything up to the moment in which the process is interrupted or killed,
and no record in it is cut off.  A full disk ends the trace, and nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.logger import Logger

RECORD_SEPARATOR = b"\x1e"

# What qvis reads; later drafts have other names.
QLOG_VERSION = "0.3"

_encode = json.JSONEncoder(separators=(",", ":")).encode


class QlogFile:
    """One trace."""

    _log = Logger()

    def __init__(self, path: str | os.PathLike[str], title: str, vantage_point: str, reference_time_ms: float) -> None:
        """Create the file, or empty it; raises ``OSError``."""
        self.path: Path = Path(path)
        self._file = self.path.open("wb", buffering=0)
        self._groups = 0
        trace = {
            "title": title,
            "vantage_point": {"name": title, "type": vantage_point},
            "common_fields": {
                "protocol_type": ["UTP"],
                "time_format": "relative",
                "reference_time": reference_time_ms,
            },
        }
        try:
            self._append([{"qlog_version": QLOG_VERSION, "qlog_format": "JSON-SEQ", "title": title, "trace": trace}])
        except OSError:
            self._file.close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether events are still written: not after ``close``, nor after the disk was full."""
        return not self._file.closed

    def next_group(self) -> int:
        """Returns a number for one more connection."""
        self._groups += 1
        return self._groups

    def write(self, time_ms: float, group: str, events: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Append events of one connection that happened at one time."""
        if self._file.closed:
            return
        try:
            self._append([{"time": time_ms, "name": name, "group_id": group, "data": data} for name, data in events])
        except OSError as problem:
            self._log.error("{path} cannot be written, the trace ends: {problem}", path=self.path, problem=problem)
            self.close()

    def close(self) -> None:
        """Write no more."""
        self._file.close()

    def _append(self, records: list[dict[str, Any]]) -> None:
        data = memoryview(b"".join(RECORD_SEPARATOR + _encode(record).encode() + b"\n" for record in records))
        while data:
            data = data[self._file.write(data) :]


class NotAQlogFile(ValueError):
    """The file is not a sequence of JSON records that begins with a header of qlog."""


def read_qlog(path: str | os.PathLike[str]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Returns the header of a qlog file, and its events in order.

    A record that is cut off or damaged is passed over, as RFC 7464 wants it.  Raises ``OSError``, and ``NotAQlogFile``.
    """
    records = _records(Path(path))
    header = next(records, None)
    if header is None or header.get("qlog_format") != "JSON-SEQ" or "qlog_version" not in header:
        raise NotAQlogFile(f"{path} is not a qlog file with JSON text sequences")
    return header, (record for record in records if isinstance(record.get("data"), dict))


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        rest = b""
        while block := file.read(1 << 20):
            *texts, rest = (rest + block).split(RECORD_SEPARATOR)
            yield from filter(None, map(_record, texts))
        record = _record(rest)
        if record is not None:
            yield record


def _record(text: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
