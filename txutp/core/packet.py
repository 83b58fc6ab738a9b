"""The bytes of a uTP datagram (BEP 29), without their meaning.

The multiplexer unpacks headers in place and passes the fields on as arguments, because an object for each packet costs
more than all else that is done with the packet.  ``Packet`` is the readable form, for tests, traces and the command.

Extensions that we send, and when (``docs/explanation/wire.md`` says why)

    ========================  =======================  ================================================================
    extension                 packet                   condition
    ========================  =======================  ================================================================
    SELECTIVE_ACK with bits   STATE                    packets wait behind a gap; every peer may get it (BEP 29)
    SELECTIVE_ACK, all zero   STATE, at most three     enough is unsent to make a probe for larger datagrams worth it
    SELECTIVE_ACK, all zero   the next three STATEs    the peer has sent the first of its own
    SELECTIVE_ACK, all zero,  DATA, a probe of the     the peer has sent a SELECTIVE_ACK or EXTENSION_BITS, of any kind
    EXTENSION_BITS, PADDING   path's MTU
    EXTENSION_BITS            STATE, three             the peer has asked for it with EXTENSION_BITS in a probe
    SELECTIVE_ACK,            STATE                    a large segment was repeated more than once; or the peer asks so
    EXTENSION_BITS                                     (``parts.py``)
    SELECTIVE_ACK all zero,   DATA, part of a segment  the peer has answered that it takes parts, and the path swallows
    EXTENSION_BITS                                     large packets
    ========================  =======================  ================================================================

    SYN, SYN-ACK, FIN, RESET and all other DATA packets never have one.  Unknown extensions of a peer are skipped.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import NamedTuple

ST_DATA, ST_FIN, ST_STATE, ST_RESET, ST_SYN = range(5)
NAMES = ("DATA", "FIN", "STATE", "RESET", "SYN")

VERSION = 1

# The first byte of a datagram tells whether it is uTP, and if so the type.
TYPES = {kind << 4 | VERSION: kind for kind in (ST_DATA, ST_FIN, ST_STATE, ST_RESET, ST_SYN)}

NO_EXTENSION = 0
SELECTIVE_ACK = 1
EXTENSION_BITS = 2  # eight bytes that no other implementation uses any more
PADDING = 0x70  # txutp's own, without meaning

# type and version, first extension, connection id, timestamp, timestamp difference, window, sequence, ack
HEADER = Struct(">BBHIIIHH")
HEADER_BYTES = HEADER.size

# An extension's length is one byte, and BEP 29 wants selective acks in multiples of four.
SELECTIVE_ACK_MAXIMUM_BYTES = 252

# Limit on the extensions of a datagram: a few, and one more for each `EXTENSION_EACH_BYTES` of it, which is more than
# txutp's own padding needs.  The walk along the chain takes time for each, so an attacker may not choose their number.
FEW_EXTENSIONS = 8
EXTENSION_EACH_BYTES = 250

# EXTENSION_BITS between two ends of txutp: whether datagrams longer than an Ethernet frame are welcome.  Other peers
# truncate them when they read them (libtorrent), and stall.
LARGE_WANTED = b"txutp\0\0?"
LARGE_WELCOME = b"txutp\0\0!"

# Sizes of extensions in bytes.  A selective ack comes first even if it is empty: libutp and Wireshark reject a packet
# whose first extension is unknown to them.
EMPTY_SELECTIVE_ACK_BYTES = 6
BITS_BYTES = 10
LEAST_PADDING_BYTES = EMPTY_SELECTIVE_ACK_BYTES + BITS_BYTES + 2

# The high and the low byte of every sequence number, a little past the wrap: ``LOW_BYTES[n : n + count]`` are the low
# bytes of a whole run.  With them a run of headers is written, or checked, by a few strided slices.
LOW_BYTES = bytes(range(256)) * 257
HIGH_BYTES = b"".join(bytes([high]) * 256 for high in range(256)) + bytes(256)

MALFORMED = (-1, None, b"")


@lru_cache(maxsize=256)
def slices(skipped_bytes: int, taken_bytes: int, count: int) -> Struct:
    """Returns a ``Struct`` that skips and takes bytes ``count`` times: all payloads of a run in one call.

    The peer chooses some of these numbers, so the cache is bounded.
    """
    return Struct(f"{skipped_bytes}x{taken_bytes}s" * count)


class HeaderBlock:
    """Memory for the headers of one run; each ``fill`` overwrites the headers of the one before."""

    __slots__ = ("_block", "_views")

    def __init__(self, segments: int) -> None:
        self._block = bytearray(segments * HEADER_BYTES)
        block = memoryview(self._block)
        self._views = [block[at : at + HEADER_BYTES] for at in range(0, len(block), HEADER_BYTES)]

    def fill(self, header: bytes, first_sequence: int, count: int) -> list[memoryview]:
        """Returns views of ``count`` copies of ``header`` that differ in their sequence number only.

        Two strided stores write all sequence numbers, which takes 0.18 us for each segment; packing each takes 0.30.
        """
        end = count * HEADER_BYTES
        first = first_sequence & 0xFFFF
        block = self._block
        block[:end] = header * count
        block[16:end:HEADER_BYTES] = HIGH_BYTES[first : first + count]
        block[17:end:HEADER_BYTES] = LOW_BYTES[first : first + count]
        return self._views[:count]


def encode_header(
    kind: int,
    connection_id: int,
    timestamp_us: int,
    difference_us: int,
    window_bytes: int,
    sequence: int,
    ack: int,
    extension: int = NO_EXTENSION,
) -> bytes:
    """Returns the twenty bytes of a header; ``sequence`` and ``ack`` may be unwrapped."""
    return HEADER.pack(
        kind << 4 | VERSION,
        extension,
        connection_id,
        # BEP 29 has no "none" here, but several peers read 0 as "no timestamp".
        timestamp_us & 0xFFFFFFFF or 1,
        difference_us,
        window_bytes,
        sequence & 0xFFFF,
        ack & 0xFFFF,
    )


def encode_padding(size: int) -> bytes:
    """Returns extensions of ``size`` bytes in all, at least ``LEAST_PADDING_BYTES``, without meaning for most peers.

    The first one is an empty SELECTIVE_ACK, which the caller's header has to announce.
    """
    size -= EMPTY_SELECTIVE_ACK_BYTES + BITS_BYTES
    parts = [encode_selective_ack(0, EXTENSION_BITS), encode_bits(LARGE_WANTED, PADDING)]
    while size:
        body_bytes = min(size - 2, 255)
        if size - 2 - body_bytes == 1:
            body_bytes -= 1  # the byte that is left over would be too short for an extension
        size -= 2 + body_bytes
        parts.append(bytes((PADDING if size else NO_EXTENSION, body_bytes)) + bytes(body_bytes))
    return b"".join(parts)


def encode_bits(bits: bytes, following: int = NO_EXTENSION) -> bytes:
    """Returns an extension of type EXTENSION_BITS; the next one is of type ``following``."""
    return bytes((following, len(bits))) + bits


def encode_selective_ack(mask: int, following: int = NO_EXTENSION) -> bytes:
    """Returns the extension for a mask whose bit ``i`` stands for ``ack + 2 + i`` (BEP 29); the next one is of type
    ``following``.
    """
    body_bytes = min((mask.bit_length() + 31) // 32 * 4 or 4, SELECTIVE_ACK_MAXIMUM_BYTES)
    mask &= (1 << body_bytes * 8) - 1
    return bytes((following, body_bytes)) + mask.to_bytes(body_bytes, "little")


def parse_extensions_untrusted(data: bytes, extension: int) -> tuple[int, int | None, bytes]:
    """Walk along the extensions; returns the offset of the payload, the selective ack mask or None, and EXTENSION_BITS.

    Unknown extensions are skipped.  Returns ``MALFORMED`` if the chain runs past the datagram, or is longer than any
    useful one; the caller drops the datagram before it has changed anything.
    """
    offset = HEADER_BYTES
    end = len(data)
    mask: int | None = None
    bits = b""
    selective = 0  # where the body of the last selective ack begins
    for _ in range(FEW_EXTENSIONS + end // EXTENSION_EACH_BYTES):
        if not extension:
            break
        body = offset + 2
        if body > end:
            return MALFORMED
        if extension == SELECTIVE_ACK:
            selective = body
        elif extension == EXTENSION_BITS:
            bits = data[body : body + data[offset + 1]]
        extension = data[offset]
        offset = body + data[offset + 1]
    if extension or offset > end:
        return MALFORMED
    if selective:
        mask = int.from_bytes(data[selective : selective + data[selective - 1]], "little")
    return offset, mask, bits


class Packet(NamedTuple):
    """One datagram in readable form; the field names are those of Wireshark's ``bt-utp`` dissector."""

    type: int
    connection_id: int
    timestamp_us: int
    timestamp_diff_us: int
    wnd_size: int
    seq_nr: int
    ack_nr: int
    selective_ack: int | None = None
    data: bytes = b""

    def __repr__(self) -> str:
        sack = "" if self.selective_ack is None else f" sack={self.selective_ack:b}"
        data = f" +{len(self.data)}" if self.data else ""
        return (
            f"<{NAMES[self.type]} id={self.connection_id} seq={self.seq_nr} ack={self.ack_nr}"
            f" wnd={self.wnd_size}{sack}{data}>"
        )

    def encode(self) -> bytes:
        """Returns the datagram; ``parse_untrusted`` makes an equal packet of it."""
        has_mask = self.selective_ack is not None
        header = HEADER.pack(
            self.type << 4 | VERSION,
            SELECTIVE_ACK if has_mask else NO_EXTENSION,
            self.connection_id,
            self.timestamp_us,
            self.timestamp_diff_us,
            self.wnd_size,
            self.seq_nr,
            self.ack_nr,
        )
        extension = b"" if self.selective_ack is None else encode_selective_ack(self.selective_ack)
        return header + extension + self.data


def parse_untrusted(data: bytes) -> Packet | None:
    """Returns the packet in a datagram; None if the datagram is not uTP or is malformed."""
    if not is_utp_untrusted(data):
        return None
    type_version, extension, connection_id, *rest = HEADER.unpack_from(data)
    offset, mask, _ = parse_extensions_untrusted(data, extension)
    if offset < 0:
        return None
    timestamp_us, difference_us, window_bytes, sequence, ack = rest
    return Packet(
        type_version >> 4,
        connection_id,
        timestamp_us,
        difference_us,
        window_bytes,
        sequence,
        ack,
        mask,
        bytes(data[offset:]),
    )


def is_utp_untrusted(data: bytes) -> bool:
    """Whether a datagram has the size, type and version of uTP; others are for the other protocol on the UDP port."""
    return len(data) >= HEADER_BYTES and data[0] in TYPES
