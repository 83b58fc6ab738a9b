"""The bytes of a datagram: BEP 29's header, its extension chain, and what is not uTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txutp.core.packet import (
    EXTENSION_EACH_BYTES,
    FEW_EXTENSIONS,
    NAMES,
    SELECTIVE_ACK,
    ST_DATA,
    ST_FIN,
    ST_RESET,
    ST_STATE,
    ST_SYN,
    HeaderBlock,
    Packet,
    encode_header,
    encode_padding,
    encode_selective_ack,
    is_utp_untrusted,
    parse_untrusted,
)
from txutp.core.sequence import signed32, unwrap

GOLDEN = {
    ST_DATA: "01001234000000640000000a0010000000070006",
    ST_FIN: "11001234000000640000000a0010000000070006",
    ST_STATE: "21001234000000640000000a0010000000070006",
    ST_RESET: "31001234000000640000000a0010000000070006",
    ST_SYN: "41001234000000640000000a0010000000070006",
}


@pytest.mark.parametrize("kind", GOLDEN, ids=[NAMES[kind] for kind in GOLDEN])
def test_golden_headers_of_all_five_types(kind: int) -> None:
    """Parse and serialize each of the five types."""
    packet = Packet(kind, 0x1234, 100, 10, 1 << 20, 7, 6)
    assert encode_header(kind, 0x1234, 100, 10, 1 << 20, 7, 6).hex() == GOLDEN[kind]
    assert packet.encode().hex() == GOLDEN[kind]
    assert parse_untrusted(bytes.fromhex(GOLDEN[kind])) == packet


@pytest.mark.parametrize("first_byte", [0x00, 0x02, 0x20, 0x22, 0x51, 0xF1])
def test_other_versions_and_types_are_not_utp(first_byte: int) -> None:
    datagram = bytes([first_byte]) + bytes.fromhex(GOLDEN[ST_DATA])[1:]
    assert not is_utp_untrusted(datagram)
    assert parse_untrusted(datagram) is None


@pytest.mark.parametrize(
    "datagram",
    [
        b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe",  # a DHT query
        bytes.fromhex("00000417271019800000000012345678"),  # a request to a UDP tracker
        b"",
        bytes.fromhex(GOLDEN[ST_DATA])[:19],
    ],
)
def test_dht_and_tracker_datagrams_are_not_utp(datagram: bytes) -> None:
    assert not is_utp_untrusted(datagram)


def test_timestamp_zero_is_never_sent() -> None:
    """Peers read 0 as "no timestamp"."""
    packet = parse_untrusted(encode_header(ST_STATE, 1, 1 << 32, 0, 0, 0, 0))
    assert packet is not None
    assert packet.timestamp_us == 1


def chained(*extensions: tuple[int, bytes], payload: bytes = b"") -> bytes:
    """A DATA packet with an extension chain."""
    kinds = [kind for kind, _ in extensions] + [0]
    header = encode_header(ST_DATA, 1, 1, 1, 1, 1, 1, kinds[0])
    chain = b"".join(
        bytes([following, len(body)]) + body for following, (_, body) in zip(kinds[1:], extensions, strict=True)
    )
    return header + chain + payload


def test_chain_of_known_and_unknown_extensions() -> None:
    """Selective ack, extension bits, an unknown one, the close reason: the payload is found behind them."""
    datagram = chained((1, bytes([0b101, 0, 0, 0])), (2, bytes(8)), (200, b"?" * 17), (3, bytes(4)), payload=b"payload")
    packet = parse_untrusted(datagram)
    assert packet is not None
    assert packet.selective_ack == 0b101
    assert packet.data == b"payload"


def test_a_chain_cut_anywhere_is_malformed() -> None:
    datagram = chained((1, bytes(4)), (200, b"?" * 17))
    for length in range(20, len(datagram)):
        assert parse_untrusted(datagram[:length]) is None, length
    assert parse_untrusted(datagram) is not None


def test_a_chain_that_is_longer_than_any_that_makes_sense_is_malformed() -> None:
    """32,000 empty extensions fit one datagram, and took three milliseconds, whoever had sent them."""
    assert parse_untrusted(chained(*[(200, b"")] * FEW_EXTENSIONS)) is not None
    assert parse_untrusted(chained(*[(200, b"")] * (FEW_EXTENSIONS + 1))) is None
    some = 2 * FEW_EXTENSIONS
    assert parse_untrusted(chained(*[(200, bytes(EXTENSION_EACH_BYTES))] * some)) is not None


def test_the_longest_padding_is_no_such_chain() -> None:
    padding = encode_padding(65_000)
    assert len(padding) == 65_000
    datagram = bytes((1, SELECTIVE_ACK)) + bytes(18) + padding + b"payload"
    packet = parse_untrusted(datagram)
    assert packet is not None
    assert packet.data == b"payload"


@pytest.mark.parametrize("length", [0, 1, 3, 4, 8, 32, 255])
def test_selective_acks_of_any_length_are_accepted(length: int) -> None:
    body = bytes([1] * length)
    packet = parse_untrusted(chained((1, body), payload=b"x"))
    assert packet is not None
    assert packet.selective_ack == int.from_bytes(body, "little")
    assert packet.data == b"x"


@given(st.integers(min_value=0, max_value=(1 << 3000) - 1))
def test_emitted_selective_acks_are_multiples_of_four(mask: int) -> None:
    following, length, *body = encode_selective_ack(mask)
    assert following == 0
    assert length == len(body)
    assert length % 4 == 0
    assert 4 <= length <= 252
    kept = (1 << length * 8) - 1
    assert int.from_bytes(bytes(body), "little") == mask & kept


@given(st.binary(max_size=1500))
def test_the_parser_takes_any_bytes(datagram: bytes) -> None:
    parse_untrusted(datagram)


@given(
    st.builds(
        Packet,
        st.integers(0, 4),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFF),
        st.integers(0, 0xFFFF),
        st.none() | st.integers(0, (1 << 64) - 1),
        st.binary(max_size=100),
    )
)
def test_round_trip(packet: Packet) -> None:
    assert parse_untrusted(packet.encode()) == packet


def test_a_block_of_headers_counts_across_the_wrap() -> None:
    header = encode_header(ST_DATA, 9, 100, 10, 1000, 65_533, 3)
    views = HeaderBlock(64).fill(header, 65_533, 6)
    packets = [parse_untrusted(bytes(view)) for view in views]
    assert [packet.seq_nr for packet in packets if packet] == [65_533, 65_534, 65_535, 0, 1, 2]
    assert {(packet.connection_id, packet.ack_nr) for packet in packets if packet} == {(9, 3)}


@given(st.integers(-(1 << 40), 1 << 40), st.integers(-0x7FFF, 0x7FFF))
def test_unwrap_finds_the_number_next_to_the_hint(number: int, distance: int) -> None:
    assert unwrap(number & 0xFFFF, number + distance) == number


def test_signed32_sees_small_differences_across_the_wrap() -> None:
    assert signed32(5 - 0xFFFFFFFE) == 7
    assert signed32(0xFFFFFFFE - 5) == -7
