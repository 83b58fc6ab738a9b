"""The same scripted packets for a server of ours and one of libutp: what each answers, and why it differs.

``python -m tests.interop.deviations`` writes ``docs/notebook/deviations.md`` anew.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from txutp.core.packet import (
    HEADER_BYTES,
    NAMES,
    ST_DATA,
    ST_FIN,
    ST_RESET,
    ST_STATE,
    ST_SYN,
    Packet,
    parse_untrusted,
)

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "notebook" / "deviations.md"
HOST = "127.0.0.1"
WINDOW_BYTES = 1 << 20
MASK16 = 0xFFFF

# How long an answer may take, and how long to listen where only the first answers count.  Libutp delays acks by 100 ms,
# and repeats after a second.
ANSWER_SECONDS = 0.35
SHORT_SECONDS = 0.2

OURS = """
from twisted.internet import protocol, reactor
from txutp import listenUTP

class Echo(protocol.Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

port = listenUTP(reactor, 0, protocol.Factory.forProtocol(Echo), interface="127.0.0.1")
print('{"port": %d}' % port.getHost().port, flush=True)
reactor.run()
"""


class Answer(NamedTuple):
    """A packet of the server, with numbers that do not depend on chance."""

    kind: str
    sequence: int | None
    """Counted from the SYN-ACK's; None in a RESET and in another connection, where it is random."""
    ack: int
    connection_id: int
    payload_bytes: int
    selective_ack: int | None
    datagram_bytes: int

    def __str__(self) -> str:
        words = [self.kind]
        words += [] if self.sequence is None else [f"seq {self.sequence}"]
        words += [f"ack {self.ack}"]
        words += [f"+{self.payload_bytes}"] if self.payload_bytes else []
        if self.selective_ack is not None:
            short = self.selective_ack < 1 << 16
            words += [f"sack {self.selective_ack:b}" if short else f"sack, bit {self.selective_ack.bit_length() - 1}"]
        return " ".join(words)


class Client:
    """A client that says what a script wants: id 1000, its SYN has the number 1."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((HOST, 0))
        self._server = (HOST, port)
        self.sequence = 2  # of the next DATA or FIN
        self.syn_ack: int | None = None  # its number
        self.connection_id: int | None = None  # of the first answer
        self.acked = -1  # the last of the server's numbers that we have, counted from the SYN-ACK's
        self.steps: list[list[Answer]] = []

    def send(
        self,
        kind: int,
        data: bytes = b"",
        connection_id: int | None = None,
        sequence: int | None = None,
        acked: int | None = None,
        window_bytes: int = WINDOW_BYTES,
        selective_ack: int | None = None,
    ) -> None:
        """Send a packet; DATA and FIN take the next number if none is given."""
        if connection_id is None:
            connection_id = 1_000 if kind == ST_SYN else 1_001
        if sequence is None:
            sequence = 1 if kind == ST_SYN else self.sequence
            self.sequence += kind in (ST_DATA, ST_FIN)
        ack = 0 if kind == ST_SYN else (self.syn_ack or 0) + (self.acked if acked is None else acked)
        packet = Packet(
            kind,
            connection_id,
            time.monotonic_ns() // 1_000 & 0xFFFFFFFF,
            0,
            window_bytes,
            sequence & MASK16,
            ack & MASK16,
            selective_ack,
            data,
        )
        self.raw(packet.encode())

    def raw(self, datagram: bytes) -> None:
        """Send a datagram as it stands."""
        self.socket.sendto(datagram, self._server)

    def hear(self, seconds: float = ANSWER_SECONDS) -> None:
        """Collect what is answered; repetitions are one answer."""
        answers: list[Answer] = []
        ends = time.monotonic() + seconds
        while (left_seconds := ends - time.monotonic()) > 0:
            self.socket.settimeout(left_seconds)
            try:
                datagram = self.socket.recv(1 << 16)
            except OSError:
                break
            packet = parse_untrusted(datagram)
            assert packet is not None, datagram
            if self.syn_ack is None and packet.type == ST_STATE:
                self.syn_ack = packet.seq_nr
            if self.connection_id is None:
                self.connection_id = packet.connection_id
            sequence = packet.seq_nr - (self.syn_ack or 0) & MASK16
            answer = Answer(
                NAMES[packet.type],
                None if packet.type == ST_RESET or packet.connection_id != self.connection_id else sequence,
                packet.ack_nr,
                packet.connection_id,
                len(packet.data),
                packet.selective_ack,
                len(datagram),
            )
            if answer not in answers:
                answers.append(answer)
        self.steps.append(answers)

    def connect(self) -> None:
        """The handshake, without its answer, which is not shown."""
        self.send(ST_SYN)
        self.hear(SHORT_SECONDS)
        self.steps.pop()

    def talk(self) -> None:
        """The handshake, five bytes and their echo, which is acknowledged; none of it is shown."""
        self.connect()
        self.send(ST_DATA, b"hello")
        self.hear(SHORT_SECONDS)
        self.steps.pop()
        self.acked = 0
        self.send(ST_STATE)


SCRIPTS: dict[str, Callable[[Client], None]] = {}


def script(play: Callable[[Client], None]) -> Callable[[Client], None]:
    """Adds a script; its docstring is its name."""
    assert play.__doc__ is not None
    SCRIPTS[play.__doc__.rstrip(".")] = play
    return play


# -- beginning --


@script
def syn(client: Client) -> None:
    """A SYN."""
    client.send(ST_SYN)
    client.hear()


@script
def syn_twice(client: Client) -> None:
    """A SYN, twice."""
    client.connect()
    client.send(ST_SYN)
    client.hear()


@script
def syn_with_payload(client: Client) -> None:
    """A SYN with payload."""
    client.send(ST_SYN, b"abc")
    client.hear()


@script
def syn_without_window(client: Client) -> None:
    """A SYN that advertises a window of 0."""
    client.send(ST_SYN, window_bytes=0)
    client.hear()


@script
def syn_with_bits(client: Client) -> None:
    """A SYN with extension bits."""
    syn = Packet(ST_SYN, 1_000, 1, 0, WINDOW_BYTES, 1, 0).encode()
    client.raw(syn[:1] + b"\x02" + syn[2:] + b"\x00\x08" + bytes(8))
    client.hear()


@script
def syn_again_later(client: Client) -> None:
    """A SYN again, after data went both ways."""
    client.talk()
    client.send(ST_SYN)
    client.hear()


@script
def syn_of_another(client: Client) -> None:
    """Another SYN from the same address."""
    client.talk()
    client.send(ST_SYN, connection_id=2_000)
    client.hear()


@script
def syn_next_id(client: Client) -> None:
    """A SYN with the id that the first connection sends to."""
    client.talk()
    client.send(ST_SYN, connection_id=1_001)
    client.hear()


@script
def syn_highest_id(client: Client) -> None:
    """A SYN with the id 65535."""
    client.send(ST_SYN, connection_id=MASK16)
    client.hear()


@script
def state_alone(client: Client) -> None:
    """A STATE as the answer to the SYN-ACK."""
    client.connect()
    client.send(ST_STATE)
    client.hear()


@script
def first_data(client: Client) -> None:
    """Five bytes as the answer to the SYN-ACK."""
    client.connect()
    client.send(ST_DATA, b"hello")
    client.hear()


@script
def first_fin(client: Client) -> None:
    """A FIN as the answer to the SYN-ACK."""
    client.connect()
    client.send(ST_FIN)
    client.hear()


@script
def first_reset(client: Client) -> None:
    """A RESET as the answer to the SYN-ACK, then data."""
    client.connect()
    client.send(ST_RESET)
    client.send(ST_DATA, b"x")
    client.hear()


@script
def wrong_proof(client: Client) -> None:
    """Five bytes that acknowledge a number 50 ahead."""
    client.connect()
    client.send(ST_DATA, b"hello", acked=49)
    client.hear()


# -- data --


@script
def data_twice(client: Client) -> None:
    """Data, twice."""
    client.talk()
    client.send(ST_DATA, b"hello", sequence=2)
    client.hear()


@script
def data_without_payload(client: Client) -> None:
    """DATA without payload."""
    client.talk()
    client.send(ST_DATA)
    client.hear()


@script
def data_behind_a_gap(client: Client) -> None:
    """Data behind a gap of one."""
    client.talk()
    client.send(ST_DATA, b"x", sequence=4)
    client.hear()


@script
def data_behind_a_large_gap(client: Client) -> None:
    """Data 500 numbers ahead."""
    client.talk()
    client.send(ST_DATA, b"x", sequence=503)
    client.hear()


@script
def data_far_ahead(client: Client) -> None:
    """Data 3000 numbers ahead."""
    client.talk()
    client.send(ST_DATA, b"x", sequence=3_003)
    client.hear()


@script
def old_data(client: Client) -> None:
    """Data with a number 600 behind."""
    client.talk()
    client.send(ST_DATA, b"x", sequence=3 - 600)
    client.hear()


@script
def gap_filled(client: Client) -> None:
    """Data behind a gap, then what fills the gap."""
    client.talk()
    client.send(ST_DATA, b"b", sequence=4)
    client.hear(SHORT_SECONDS)
    client.send(ST_DATA, b"a", sequence=3)
    client.hear(SHORT_SECONDS)


@script
def data_on_the_other_id(client: Client) -> None:
    """Data with the id that the server sends with."""
    client.talk()
    client.send(ST_DATA, b"x", connection_id=1_000)
    client.hear()


@script
def data_without_window(client: Client) -> None:
    """Data that advertises a window of 0, so that there is no room for the echo."""
    client.talk()
    client.send(ST_DATA, b"x", window_bytes=0)
    client.hear()


# -- acknowledgements --


@script
def state_twice(client: Client) -> None:
    """A STATE that says nothing new, twice."""
    client.talk()
    client.send(ST_STATE)
    client.send(ST_STATE)
    client.hear()


@script
def ack_beyond(client: Client) -> None:
    """A STATE that acknowledges what was not sent."""
    client.talk()
    client.send(ST_STATE, acked=40)
    client.hear()


@script
def data_with_ack_beyond(client: Client) -> None:
    """Data that acknowledge what was not sent."""
    client.talk()
    client.send(ST_DATA, b"x", acked=40)
    client.hear()


@script
def data_with_old_ack(client: Client) -> None:
    """Data that acknowledge a number 2000 behind."""
    client.talk()
    client.send(ST_DATA, b"x", acked=-2_000)
    client.hear()


@script
def selective_ack_beyond(client: Client) -> None:
    """A selective ack of what was not sent."""
    client.talk()
    client.send(ST_STATE, selective_ack=0b1111)
    client.hear()


@script
def keepalive(client: Client) -> None:
    """A STATE with an ack of one less, as libutp's keepalive."""
    client.talk()
    client.send(ST_STATE, acked=-1)
    client.hear()


# -- ends --


@script
def fin(client: Client) -> None:
    """A FIN."""
    client.talk()
    client.send(ST_FIN)
    client.hear()


@script
def fin_with_payload(client: Client) -> None:
    """A FIN with payload."""
    client.talk()
    client.send(ST_FIN, b"x")
    client.hear(SHORT_SECONDS)


@script
def fin_behind_a_gap(client: Client) -> None:
    """A FIN behind a gap."""
    client.talk()
    client.send(ST_FIN, sequence=4)
    client.hear()


@script
def data_behind_fin(client: Client) -> None:
    """Data behind a FIN."""
    client.talk()
    client.send(ST_FIN)
    client.hear(SHORT_SECONDS)
    client.steps.pop()
    client.send(ST_DATA, b"x")
    client.hear(SHORT_SECONDS)


@script
def reset(client: Client) -> None:
    """A RESET, then data."""
    client.talk()
    client.send(ST_RESET)
    client.send(ST_DATA, b"x")
    client.hear()


@script
def reset_with_the_other_id(client: Client) -> None:
    """A RESET with the id that the server sends with, then data."""
    client.talk()
    client.send(ST_RESET, connection_id=1_000)
    client.send(ST_DATA, b"x")
    client.hear()


@script
def reset_with_wrong_ack(client: Client) -> None:
    """A RESET that acknowledges a number 300 behind, then data."""
    client.talk()
    client.send(ST_RESET, acked=-300)
    client.send(ST_DATA, b"x")
    client.hear()


# -- strangers --


@script
def unknown_data(client: Client) -> None:
    """DATA of an unknown connection."""
    client.send(ST_DATA, b"hello", connection_id=5)
    client.hear()


@script
def unknown_state(client: Client) -> None:
    """A STATE of an unknown connection."""
    client.send(ST_STATE, connection_id=5)
    client.hear()


@script
def unknown_fin(client: Client) -> None:
    """A FIN of an unknown connection."""
    client.send(ST_FIN, connection_id=5)
    client.hear()


@script
def unknown_reset(client: Client) -> None:
    """A RESET of an unknown connection."""
    client.send(ST_RESET, connection_id=5)
    client.hear()


# -- malformed --


def altered(client: Client, change: Callable[[bytearray], None], data: bytes = b"x") -> None:
    """A packet of a connection, with bytes changed."""
    client.talk()
    ack = (client.syn_ack or 0) & MASK16
    datagram = bytearray(Packet(ST_DATA, 1_001, 1, 0, WINDOW_BYTES, 3, ack, None, data).encode())
    change(datagram)
    client.raw(bytes(datagram))
    client.hear()


def first_bytes(*values: int) -> Callable[[bytearray], None]:
    """Returns a change of the first bytes of a header."""

    def change(datagram: bytearray) -> None:
        datagram[: len(values)] = bytes(values)

    return change


@script
def version_0(client: Client) -> None:
    """Version 0."""
    altered(client, first_bytes(ST_DATA << 4))


@script
def version_2(client: Client) -> None:
    """Version 2."""
    altered(client, first_bytes(ST_DATA << 4 | 2))


@script
def type_5(client: Client) -> None:
    """Type 5."""
    altered(client, first_bytes(5 << 4 | 1))


@script
def extension_cut_off(client: Client) -> None:
    """An extension that is longer than the datagram."""
    altered(client, first_bytes(1, 1), b"\x00\xff")


@script
def extension_without_length(client: Client) -> None:
    """An extension whose length is missing."""
    altered(client, first_bytes(1, 1), b"\x00")


@script
def unknown_extension(client: Client) -> None:
    """An unknown extension before a byte of data."""
    altered(client, first_bytes(1, 7), b"\x00\x03abcx")


@script
def selective_ack_of_one_byte(client: Client) -> None:
    """A selective ack of one byte before a byte of data."""
    altered(client, first_bytes(1, 1), b"\x00\x01\x00x")


@script
def empty_datagram(client: Client) -> None:
    """An empty datagram."""
    client.talk()
    client.raw(b"")
    client.hear()


@script
def half_a_header(client: Client) -> None:
    """Half a header."""
    client.talk()
    client.raw(Packet(ST_DATA, 1_001, 1, 0, 1, 3, 0).encode()[: HEADER_BYTES // 2])
    client.hear()


@script
def other_protocol(client: Client) -> None:
    """A query of the DHT."""
    client.raw(b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe")
    client.hear()


# Why we answer otherwise than libutp does.
PIGGYBACK = "The echo carries the acknowledgement; libutp sends a STATE besides, some time later."
SYN_ANSWERED_AGAIN = "The SYN-ACK may have been lost: without an answer the client waits for its next repetition."
REASONS: dict[str, str] = {
    "A SYN, twice": SYN_ANSWERED_AGAIN,
    "A SYN again, after data went both ways": SYN_ANSWERED_AGAIN,
    "Five bytes as the answer to the SYN-ACK": PIGGYBACK,
    "A FIN as the answer to the SYN-ACK": "Our FIN carries the acknowledgement; libutp sends a STATE besides.",
    "Data 500 numbers ahead": "Libutp's selective acks have 32 bits, ours as many as it takes.",
    "Data 3000 numbers ahead": "It may be a repetition from long ago, and its sender waits for an acknowledgement.",
    "Data behind a gap, then what fills the gap": PIGGYBACK
    + " Bytes that became readable together are echoed together.",
    "A FIN": "Our FIN carries the acknowledgement; libutp sends a STATE besides.",
    "A FIN with payload": "Our FIN follows the echo at once; libutp's comes with its next look at its timers.",
    "Data behind a FIN": "A FIN is the end of a stream: libutp acknowledges what cannot be part of it.",
    "A RESET with the id that the server sends with, then data": "Both end the connection. The data that follow"
    " are those of an unknown connection: they draw a RESET from us, and nothing from libutp.",
    "A RESET that acknowledges a number 300 behind, then data": "A RESET counts if it acknowledges what was in flight"
    " lately; libutp takes any, so a blind attacker needs to guess its id alone.",
    "An unknown extension before a byte of data": "BEP 29: unknown extensions are skipped. Libutp drops the packet.",
    "A selective ack of one byte before a byte of data": PIGGYBACK + " The peer has shown that it reads extensions, so"
    " it is asked whether large datagrams are welcome.",
}

# Scripts that we answer with more packets or bytes than libutp does, and why that amplifies nothing.
PROVEN = "The source is proven."
MORE: dict[str, str] = {
    "A SYN, twice": "Each SYN draws one packet of its size.",
    "A SYN again, after data went both ways": "Each SYN draws one packet of its size.",
    "Data 500 numbers ahead": PROVEN,
    "Data 3000 numbers ahead": PROVEN,
    "A RESET with the id that the server sends with, then data": "One packet, not longer than what drew it, and a"
    " limited number of them in a second.",
    "A RESET that acknowledges a number 300 behind, then data": PROVEN,
    "An unknown extension before a byte of data": PROVEN,
    "A selective ack of one byte before a byte of data": PROVEN,
}


@contextmanager
def server(command: list[str]) -> Iterator[int]:
    """Run a server; yields its port."""
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield int(json.loads(running.stdout.readline())["port"])
    finally:
        running.kill()
        running.communicate()


def play(name: str, port: int) -> list[list[Answer]]:
    """Returns what a server answers to a script, step by step."""
    client = Client(port)
    try:
        SCRIPTS[name](client)
    finally:
        client.socket.close()
    return client.steps


def play_all() -> dict[str, tuple[list[list[Answer]], list[list[Answer]]]]:
    """Plays all scripts with both servers at the same time; returns our answers and libutp's."""
    told: tuple[dict[str, list[list[Answer]]], ...] = ({}, {})

    def run(port: int, answers: dict[str, list[list[Answer]]]) -> None:
        for name in SCRIPTS:
            answers[name] = play(name, port)

    peer = str(Path(__file__).parent / "peer.js")
    with (
        server([sys.executable, "-c", OURS]) as ours,
        server(["node", peer, "listen", "echo", "--connections", "100000"]) as theirs,
    ):
        threads = [threading.Thread(target=run, args=each) for each in zip((ours, theirs), told, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {name: (told[0][name], told[1][name]) for name in SCRIPTS}


def comparable(steps: list[list[Answer]]) -> list[list[tuple[object, ...]]]:
    """Returns answers without what counts only in sums."""
    return [[answer[:6] for answer in answers] for answers in steps]


def described(steps: list[list[Answer]]) -> str:
    """Returns answers for people."""
    return "; ".join(", ".join(map(str, answers)) or "nothing" for answers in steps)


def cost(steps: list[list[Answer]]) -> tuple[int, int]:
    """Returns how many packets and bytes were answered."""
    answers = [answer for step in steps for answer in step]
    return len(answers), sum(answer.datagram_bytes for answer in answers)


def is_more(ours: list[list[Answer]], theirs: list[list[Answer]]) -> bool:
    """Returns whether we answer with more packets or bytes."""
    return any(our > their for our, their in zip(cost(ours), cost(theirs), strict=True))


def row(name: str, ours: list[list[Answer]], theirs: list[list[Answer]]) -> str:
    """Returns the row of the page for a script that is answered differently."""
    cells = [name, described(theirs), described(ours), REASONS.get(name, "")]
    if is_more(ours, theirs):
        cells[3] += f" More than libutp: {MORE.get(name, '')}"
    return f"| {' | '.join(cells)} |"


def page(told: dict[str, tuple[list[list[Answer]], list[list[Answer]]]]) -> str:
    """Returns the page."""
    different = {name: each for name, each in told.items() if comparable(each[0]) != comparable(each[1])}
    same = [name for name in told if name not in different]
    rows = "\n".join(row(name, *each) for name, each in different.items())
    return f"""# Differences from libutp

A client plays {len(told)} scripts with two echo servers at the same time, one of txutp and one of libutp (utp-native
2.5.3). Both answer {len(same)} of them alike. The table shows the others, and a test compares it with both answers:

| The client sends | libutp answers | txutp answers | Reason |
| --- | --- | --- | --- |
{rows}

Sequence numbers of the server (`seq`) count from that of its SYN-ACK, acknowledged numbers of the client (`ack`) from
its SYN, which has the number 1. `+5` is a payload of five bytes. A semicolon separates the answers to the two parts of
a script. Where a script begins after the handshake, five bytes have gone to the server and back.

txutp never answers with more packets or more bytes than libutp, except where the table says so.

Both answer these scripts alike:

{"".join(f"- {name}{chr(10)}" for name in same)}"""


if __name__ == "__main__":
    PAGE.write_text(page(play_all()), encoding="utf-8")
