"""What the two ends of a transfer say to each other, and what each of them accepts.

``docs/reference/files.md`` has the order.

Messages are lines of JSON (``messages.py``).  A block of a file follows the line that announces it.  Everything that
comes is checked here; ``ProtocolError`` has a sentence for people.
"""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from txutp.cli.messages import LARGEST_COUNT, ProtocolError, checked, count, flag

NAME = "txutp-send"
VERSION = 1

BLOCK_BYTES = 256 * 1024
LARGEST_BLOCK_BYTES = 1 << 20
MAXIMUM_OFFERS = 32  # files that are offered, and not stored or refused yet
DEEPEST_PATH = 100  # components
SHA256_DIGITS = 64
PERMISSIONS = 0o777  # what is carried of a file's mode

# Why a file is not stored.
BUSY = "busy"  # another transfer writes it; it may be offered again
DIFFERENT = "different"  # what arrived has another hash
EXISTS = "exists"
NAMED = "name"  # no name that a file may have here
FULL = "full"
FAILED = "failed"  # the system says why
REASONS = (BUSY, DIFFERENT, EXISTS, NAMED, FULL, FAILED)


def greeting_of(message: dict[str, Any]) -> tuple[int, int]:
    """Returns how many files and bytes the first message announces; raises ``ProtocolError`` for another version."""
    if NAME not in message:
        raise ProtocolError("this port receives files; it speaks the protocol of txutp send only")
    if message[NAME] != VERSION:
        raise ProtocolError(f"this end speaks version {VERSION} of the protocol of txutp send, and not yours")
    values = checked("the greeting", {"files": count, "bytes": count}, message)
    return values["files"], values["bytes"]


@dataclass(frozen=True, slots=True)
class Offer:
    """A file or a folder that the sender has."""

    number: int
    path: tuple[str, ...]
    folder: bool
    size_bytes: int
    mode: int
    modified_ns: int

    def as_message(self) -> dict[str, Any]:
        """Returns what the sender says."""
        return {
            "offer": self.number,
            "path": self.path,
            "folder": self.folder,
            "bytes": self.size_bytes,
            "mode": self.mode,
            "modified_ns": self.modified_ns,
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> Offer:
        """Returns the offer in such a message.  Its path has the right form; whether it is safe is another question."""
        return cls(*checked("an offer", OFFER, message).values())


def _path(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ProtocolError("this is not a list of names")
    if not 1 <= len(value) <= DEEPEST_PATH:
        raise ProtocolError(f"this has no name, or more than {DEEPEST_PATH} of them")
    return tuple(value)


def sha256_of(value: Any) -> str:
    """Returns a hash in hexadecimal digits."""
    if not isinstance(value, str) or len(value) != SHA256_DIGITS or set(value) - set(string.hexdigits):
        raise ProtocolError("this is no SHA-256 in hexadecimal digits")
    return value.lower()


def _reason(value: Any) -> str:
    return value if value in REASONS else FAILED


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ProtocolError("this is not a text")
    return value


OFFER: dict[str, Any] = {
    "offer": count,
    "path": _path,
    "folder": flag,
    "bytes": count,
    "mode": lambda value: count(value, 0, PERMISSIONS),
    "modified_ns": lambda value: count(value, -LARGEST_COUNT),
}
BEGIN: dict[str, Any] = {"begin": count, "at": count}
BLOCK: dict[str, Any] = {"block": lambda value: count(value, 1, LARGEST_BLOCK_BYTES)}
END: dict[str, Any] = {"end": count, "sha256": sha256_of}
DROP: dict[str, Any] = {"drop": count, "why": _text}
ANSWER: dict[str, Any] = {"answer": count, "have": lambda value: count(value, 0, LARGEST_COUNT), "sha256": sha256_of}
REFUSAL: dict[str, Any] = {"refused": count, "reason": _reason, "why": _text}


def name_problem(name: str, paths: ModuleType = os.path) -> str | None:
    """Returns why a file cannot have this name within its folder; None if it can.

    ``paths`` says what names mean on a system: ``posixpath`` or ``ntpath``.
    """
    if name in ("", ".", ".."):
        return f"{name!r} is not the name of a file"
    if "\0" in name:
        return "a name of a file has no NUL"
    if paths.basename(name) != name or paths.splitdrive(name)[0]:
        return "the name of a file is not a path"
    if len(name) > 1 and paths.sep == "\\" and (name[-1] in " ." or ":" in name or _is_device(name)):
        return "Windows has no files of such a name"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "this system cannot write this name"
    return None


def _is_device(name: str) -> bool:
    """Whether Windows takes a name for a device, with any extension."""
    stem = name.partition(".")[0].rstrip().upper()
    return stem in ("CON", "PRN", "AUX", "NUL") or (stem[:3] in ("COM", "LPT") and stem[3:] in tuple("0123456789¹²³"))


def shown(path: tuple[str, ...]) -> str:
    """Returns a path as text that a terminal may show."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in "/".join(path))
