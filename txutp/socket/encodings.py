"""Text to bytes and back, under the names and by the rules of Node.js.

``encode`` is for data that are written, ``decoder_for`` for data that arrive.  A decoder takes piece after piece and
holds back an unfinished character, so it does not matter where packets end.

``base64`` and ``hex`` work in the opposite direction of their Python namesakes, as in Node.js: writing ``"6869"`` as
hex sends ``b"hi"``, and reading ``b"hi"`` as hex returns ``"6869"``.

Where Node.js silently sends something else, for a character that the encoding does not have or an invalid digit, these
functions raise ValueError.
"""

from __future__ import annotations

import base64
import binascii
import codecs
from collections.abc import Callable
from typing import Protocol

# Other names of encodings.
ALIASES = {"utf-8": "utf8", "binary": "latin1", "ucs2": "utf16le", "ucs-2": "utf16le", "utf-16le": "utf16le"}

SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))
FROM_URL = str.maketrans("-_", "+/")


class Decoder(Protocol):
    """Bytes in, text out."""

    def write(self, data: bytes) -> str:
        """Returns the text that is complete with these bytes; it may be empty."""

    def end(self) -> str:
        """Returns the rest, an unfinished character; no more bytes come."""


class Characters:
    """Characters of several bytes; invalid ones become U+FFFD."""

    def __init__(self, name: str) -> None:
        self._decoder = codecs.getincrementaldecoder(name)("replace")

    def write(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def end(self) -> str:
        return self._decoder.decode(b"", final=True)


class Utf16(Characters):
    """UTF-16; half a code unit at the end is dropped."""

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
    """Returns the one name of an encoding; case does not matter.  Raises TypeError or ValueError if it is unknown."""
    if not isinstance(encoding, str):
        raise TypeError(f"an encoding is a str, one of {', '.join(NAMES)}, not {encoding!r}")
    name = encoding.lower()
    name = ALIASES.get(name, name)
    if name not in DECODERS:
        raise ValueError(f"unknown encoding {encoding!r}; known are {', '.join(NAMES)}")
    return name


def decoder_for(encoding: str) -> Decoder:
    """Returns a new decoder; raises ValueError if the encoding is unknown."""
    return DECODERS[canonical(encoding)]()


def encode(data: object, encoding: object) -> bytes:
    """Returns the bytes to send for a str, or for an object with the buffer interface.

    Raises TypeError for other objects, ValueError if the encoding is unknown or has no bytes for this text.
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
