"""Text and bytes by the rules of Node.js; the expectations are what Buffer and string_decoder of Node.js 20 gave."""

from __future__ import annotations

import pytest

from txutp.socket.encodings import decoder_for, encode


@pytest.mark.parametrize(
    ("encoding", "text", "data"),
    [
        ("utf8", "\N{EURO SIGN}", b"\xe2\x82\xac"),
        ("latin1", "\xe9", b"\xe9"),
        ("ascii", "\xe9", b"\xe9"),
        ("ucs2", "a\N{GRINNING FACE}", b"a\0\x3d\xd8\0\xde"),
        ("hex", "6869FF", b"hi\xff"),
        ("base64", "aGk=", b"hi"),
        ("base64", "aG k\n", b"hi"),
        ("base64", "-_-_", b"\xfb\xff\xbf"),
        ("base64url", "-_-_", b"\xfb\xff\xbf"),
    ],
)
def test_what_node_sends(encoding: str, text: str, data: bytes) -> None:
    """The bytes that Buffer.from(text, encoding) has."""
    assert encode(text, encoding) == data


@pytest.mark.parametrize(
    ("encoding", "pieces", "text"),
    [
        ("utf8", [b"\xef\xbb\xbfA"], "\ufeffA"),
        ("utf8", [b"\xe2\x82", b"A"], "\ufffdA"),
        ("utf8", [b"\xff\xfe\x80"], "\ufffd\ufffd\ufffd"),
        ("utf8", [b"\xf0\x9f", b"\x98"], "\ufffd"),
        ("ascii", [b"\xe9A"], "iA"),
        ("binary", [b"\xe9A"], "\xe9A"),
        ("ucs2", [b"\x3d", b"\xd8\x4d", b"\xdc"], "\U0001f44d"),
        ("utf16le", [b"A\0B"], "A"),
        ("utf16le", [b"\x3d\xd8"], "\ufffd"),
        ("base64", [b"\1", b"\2\3", b"\4"], "AQIDBA=="),
        ("base64url", [b"\xfb\xff"], "-_8"),
        ("hex", [b"\1", b"\2\3"], "010203"),
    ],
)
def test_what_node_reads(encoding: str, pieces: list[bytes], text: str) -> None:
    """The text that setEncoding gives."""
    decoder = decoder_for(encoding)
    assert "".join(decoder.write(piece) for piece in pieces) + decoder.end() == text
