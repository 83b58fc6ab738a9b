"""What comes out of a Socket: flowing and paused, as bytes and as text, and through pipes."""

from __future__ import annotations

import io

import pytest

from tests.socket.test_socket import HERE, THERE, Scene, collected
from tests.wire.test_transfer import pattern
from txutp.socket.encodings import NAMES, decoder_for, encode
from txutp.socket.events import Emitter
from txutp.testing import Link


def test_nothing_flows_before_somebody_wants_it() -> None:
    """The data waits, and soon the other side too."""
    scene = Scene()
    socket, accepted = scene.pair()
    socket.write(pattern(3_000_000))
    scene.run()
    assert accepted.bytesRead < 300_000
    assert socket.writableLength > 1_000_000
    assert not accepted.isPaused()
    data = collected(accepted)
    assert data == []
    scene.run()
    assert b"".join(data) == pattern(3_000_000)


def test_pause_and_resume() -> None:
    """Within a listener too: what has arrived already is held."""
    scene = Scene()
    socket, accepted = scene.pair()
    data: list[bytes] = []

    @accepted.on("data")
    def sip(chunk: bytes) -> None:
        data.append(chunk)
        assert accepted.pause() is accepted

    socket.end(pattern(2_000_000))
    for sips in range(1, 100):
        scene.run(1)
        assert len(data) <= sips
        assert accepted.destroyed or accepted.isPaused()
        assert accepted.resume() is accepted
    assert b"".join(data) == pattern(2_000_000)
    assert accepted.destroyed


def test_a_character_in_two_packets_arrives_whole() -> None:
    """Whatever is not a character becomes U+FFFD, as in Node.js, also at the end."""
    scene = Scene()
    socket, accepted = scene.pair()
    data = collected(accepted.setEncoding("UTF-8"))
    socket.setNoDelay()
    for piece in (b"5 \xe2\x82", b"\xac\xff, \xf0\x9f", b"\x98", b"\x80 \xe2\x82"):
        socket.write(piece)
        scene.run(1)
    assert data == ["5 ", "\N{EURO SIGN}\ufffd, ", "\N{GRINNING FACE} "]
    socket.end()
    scene.run()
    assert data[-1] == "\ufffd"


@pytest.mark.parametrize("name", NAMES)
def test_encodings_in_both_directions(name: str) -> None:
    """What is written in an encoding and read in the same one is the same, wherever packets end."""
    text = {"base64": "AAECA/8=", "base64url": "AAECA_8", "hex": "00010203ff", "ascii": "plain"}
    if name in ("latin1", "binary"):
        text[name] = "\xe9\xff\0"
    sent = text.get(name, "h\xe9 \N{EURO SIGN} \N{GRINNING FACE}")
    scene = Scene()
    socket, accepted = scene.pair()
    data = collected(accepted.setEncoding(name.upper()))
    socket.setNoDelay()
    for byte in encode(sent, name):
        socket.write(bytes([byte]))
        scene.run(1)
    socket.end(sent, name)
    scene.run()
    assert "".join(data) == (sent * 2 if not name.startswith("base64") else encode_twice(sent, name))


def encode_twice(text: str, name: str) -> str:
    """Base64 of the bytes twice, which is not the text twice."""
    decoder = decoder_for(name)
    return decoder.write(encode(text, name) * 2) + decoder.end()


# -- pipes --


def test_a_pipe_echoes_with_back_pressure() -> None:
    """What comes back too slowly is not read ahead; the end is piped too."""
    scene = Scene(link=Link(delay_us=10_000, rate_bytes_per_second=2_000_000, queue_bytes=50_000))
    down = scene.network.link(THERE, HERE)
    down.rate_bytes_per_second = 200_000
    socket = scene.connect()
    data = collected(socket)
    socket.end(pattern(3_000_000))
    scene.run(until=lambda: bool(scene.accepted))
    accepted = scene.accepted[0]
    assert accepted.pipe(accepted) is accepted
    most = 0
    while not socket.destroyed and scene.network.now_us < 100_000_000:
        scene.run(0.01)
        most = max(most, accepted.writableLength)
    assert b"".join(data) == pattern(3_000_000)
    assert most < 500_000
    # the last ack has to cross the network
    scene.run(0.1)
    assert accepted.destroyed


def test_a_pipe_into_a_file() -> None:
    """Anything with a method write will do, and it is left open."""
    scene = Scene()
    socket, accepted = scene.pair()
    file = io.BytesIO()
    assert accepted.pipe(file) is file
    socket.end(pattern(500_000))
    scene.run()
    assert file.getvalue() == pattern(500_000)
    assert not file.closed


def test_pipes_of_one_socket_wait_for_the_slowest_and_can_be_taken_off() -> None:
    class Slow(Emitter):
        def __init__(self) -> None:
            super().__init__()
            self.data: list[bytes] = []

        def write(self, data: bytes) -> bool:
            self.data.append(data)
            return False

    scene = Scene()
    socket, accepted = scene.pair()
    slow, other = Slow(), Slow()
    accepted.pipe(slow, end=False)
    accepted.pipe(other)
    socket.write(pattern(600_000))
    scene.run(5)
    assert (len(slow.data), len(other.data)) == (1, 1)
    slow.emit("drain")
    scene.run(5)
    assert len(slow.data) == 1
    other.emit("drain")
    scene.run(5)
    assert (len(slow.data), len(other.data)) == (2, 2)
    slow.emit("drain")
    assert accepted.unpipe(other) is accepted
    scene.run(5)
    assert (len(slow.data), len(other.data)) == (3, 2)
    slow.emit("close")
    slow.emit("drain")
    scene.run(5)
    assert len(slow.data) == 3
    assert accepted.isPaused()
