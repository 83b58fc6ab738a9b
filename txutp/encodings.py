"""Text to bytes and back, under the names and by the rules of Node.js.

``socket.py`` calls it: ``encode`` for what is written, ``decoder_for`` for what arrives.  A decoder is fed piece by
piece and holds back what is not a whole character yet, so it does not matter where packets end.

``base64`` and ``hex`` are the other way round than their Python namesakes, as in Node.js: writing ``"6869"`` as hex
sends ``b"hi"``, and reading ``b"hi"`` as hex gives ``"6869"``.

Where Node.js silently sends something else than it was given, a character that the encoding does not have or a digit
that is none, we raise ValueError.
"""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import Callable
from typing import Protocol

# Other names of the same.
ALIASES = {"utf-8": "utf8", "binary": "latin1", "ucs2": "utf16le", "ucs-2": "utf16le", "utf-16le": "utf16le"}

SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))
FROM_URL = str.maketrans("-_", "+/")


class Decoder(Protocol):
    """Bytes in, text out."""

    def write(self, data: bytes) -> str:
        """The text that is complete with these bytes; it may be empty."""

    def end(self) -> str:
        """What is left of an unfinished character; nothing comes any more."""


class Characters:
    """Characters of several bytes; those that are broken become U+FFFD."""

    def __init__(self, name: str) -> None:
        self._decoder = codecs.getincrementaldecoder(name)("replace")

    def write(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class Utf16(Characters):
    """The same, but half a code unit at the end is dropped."""

    def end(self) -> str:
        rest, _ = self._decoder.getstate()
        return rest[: len(rest) & ~1].decode("utf-16-le", "replace")


class Groups:
    """Groups of ``size`` bytes that become text one by one; only the last may be smaller."""

    def __init__(self, size: int, text_of: Callable[[bytes], str]) -> None:
        self._size = size
        self._text_of = text_of
        self._rest = b""

    def write(self, data: bytes) -> str:
        data = self._rest + data
        whole = len(data) - len(data) % self._size
        self._rest = data[whole:]
        return self._text_of(data[:whole])

    def end(self) -> str:
        return self._text_of(self._rest)


def _from_ascii(data: bytes) -> str:
    return data.translate(SEVEN_BITS).decode("ascii")


def _from_latin1(data: bytes) -> str:
    return data.decode("latin-1")


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _to_base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _from_base64(text: str) -> bytes:
    """Both alphabets, with or without padding, and with white space anywhere, as Node.js."""
    digits = "".join(text.split()).translate(FROM_URL).rstrip("=")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)


DECODERS: dict[str, Callable[[], Decoder]] = {
    "utf8": lambda: Characters("utf-8"),
    "utf16le": lambda: Utf16("utf-16-le"),
    "latin1": lambda: Groups(1, _from_latin1),
    "ascii": lambda: Groups(1, _from_ascii),
    "base64": lambda: Groups(3, _to_base64),
    "base64url": lambda: Groups(3, _to_base64url),
    "hex": lambda: Groups(1, bytes.hex),
}

ENCODERS: dict[str, Callable[[str], bytes]] = {
    "utf8": str.encode,
    "utf16le": lambda text: text.encode("utf-16-le"),
    "latin1": lambda text: text.encode("latin-1"),
    "ascii": lambda text: text.encode("latin-1"),  # Node.js lets the eighth bit through in this direction
    "base64": _from_base64,
    "base64url": _from_base64,
    "hex": binascii.unhexlify,
}

NAMES = (*DECODERS, *ALIASES)


def canonical(encoding: object) -> str:
    """One name for each encoding; upper and lower case are the same.  Raises if there is none of that name."""
    if not isinstance(encoding, str):
        raise TypeError(f"an encoding is a str, one of {', '.join(NAMES)}, not {encoding!r}")
    name = encoding.lower()
    name = ALIASES.get(name, name)
    if name not in DECODERS:
        raise ValueError(f"unknown encoding {encoding!r}; known are {', '.join(NAMES)}")
    return name


def decoder_for(encoding: str) -> Decoder:
    """A new decoder; ValueError if the encoding is unknown."""
    return DECODERS[canonical(encoding)]()


def encode(data: object, encoding: object) -> bytes:
    """The bytes to send for a str, or for bytes and what is like them.

    TypeError if it is neither, ValueError if the encoding is unknown or has no bytes for this text.
    """
    name = canonical(encoding)
    if isinstance(data, str):
        try:
            return ENCODERS[name](data)
        except ValueError as problem:
            raise ValueError(f"this text cannot be sent as {encoding}: {problem}") from problem
    if isinstance(data, bytes):
        return data
    try:
        return bytes(memoryview(data))  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"data is a str, or bytes, a bytearray or a memoryview, not {type(data).__name__}") from None
