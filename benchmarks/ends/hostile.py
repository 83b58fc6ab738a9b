"""What one hostile datagram costs the core of a server, beside an honest one of its length; no sockets.

``python -m benchmarks.ends.hostile KIND '{"datagrams": 100000}'`` prints one line of JSON.

A kind is a function that gets a ``Server`` and returns how to make its ``n``-th datagram, and from where it comes.  The
time of a datagram is that of receiving it and of everything that it makes the server send, as in a turn of the reactor
in which nothing else comes.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import sys
import time
from array import array
from collections.abc import Callable

from txutp.core.connection import Connection
from txutp.core.multiplexer import Multiplexer
from txutp.core.packet import HEADER, HEADER_BYTES, ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, encode_selective_ack
from txutp.core.settings import Settings
from txutp.core.states import CLOSED, CONNECTED

PEER = ("10.0.0.9", 9)
SYN_ID = 100
RECEIVE_ID = SYN_ID + 1
FIRST = 2  # the number of the peer's first DATA

# Datagrams that are made before the clock starts, their bytes where they are large, and the time between two of them.
CHUNK = 500
CHUNK_BYTES = 10_000_000
STEP_US = 20

# The part of the datagrams behind which memory is looked at first.
FIRST_PART = 10

# The largest datagram of an attacker.
LARGEST_BYTES = 64_000

# So many datagrams of honest traffic are measured.
HONEST_DATAGRAMS = 10_000

# Makes the n-th datagram; gives where it comes from, too.
Make = Callable[[int], tuple[bytes, tuple[str, int]]]


def packet(kind: int, number: int, ack: int, extension: bytes = b"", payload: bytes = b"", first: int = 0) -> bytes:
    """A packet of the peer."""
    return segment(kind, RECEIVE_ID, number, ack, 1 << 20, extension, payload, first)


def segment(
    kind: int,
    connection_id: int,
    number: int,
    ack: int,
    window_bytes: int,
    extension: bytes = b"",
    payload: bytes = b"",
    first: int = 0,
) -> bytes:
    header = HEADER.pack(
        kind << 4 | 1, first, connection_id & 0xFFFF, 1, 0, window_bytes, number & 0xFFFF, ack & 0xFFFF
    )
    return header + extension + payload


class Server:
    """A multiplexer, and a shell that reads all streams and sends everything to nobody."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.random = random.Random(1)
        self.multiplexer = Multiplexer(settings or Settings(), self.random.randbytes, lambda address: 1_500)
        self.multiplexer.listening = True
        self.now_us = 1_000_000
        self.reads = True
        self.answers_ends = False  # whether the server ends its half when a peer has
        self.unreachable = False  # whether what comes are ICMP errors that quote such datagrams

    def receive(self, datagram: bytes, address: tuple[str, int]) -> None:
        """One turn."""
        self.now_us += STEP_US
        multiplexer = self.multiplexer
        if self.unreachable:
            if multiplexer.sender_of(datagram, address) is not None:
                multiplexer.port_is_closed(datagram, address, True, self.now_us)
        elif not multiplexer.receive(datagram, address, self.now_us):
            return
        self.settle()

    def settle(self) -> None:
        multiplexer = self.multiplexer
        while multiplexer.touched:
            touched, multiplexer.touched = multiplexer.touched, []
            for connection in touched:
                if self.reads and connection.receiving.ready_bytes:
                    connection.take(1 << 20)
                if self.answers_ends and connection.at_eof:
                    connection.close(self.now_us)
                connection.touched = False
                while connection.next_batch(self.now_us) is not None:
                    pass
                if connection.state == CLOSED:
                    multiplexer.forget(connection, self.now_us)
                else:
                    multiplexer.schedule(connection)
        multiplexer.replies.clear()
        deadline_us = multiplexer.next_deadline_us()
        if deadline_us is not None and deadline_us <= self.now_us:
            multiplexer.handle_timeouts(self.now_us)

    def connected(self) -> Connection:
        """The connection of the peer; made when it is asked for first."""
        for connection in self.multiplexer:
            return connection
        self.receive(segment(ST_SYN, SYN_ID, FIRST - 1, 0, 1 << 20), PEER)
        (connection,) = self.multiplexer
        self.receive(packet(ST_STATE, FIRST, connection.initial_sequence - 1), PEER)
        assert connection.state == CONNECTED
        return connection

    def with_early(self) -> Connection:
        """The same with as many segments behind a gap as there can be."""
        connection = self.connected()
        for ahead in range(1, 2_016):
            self.receive(packet(ST_DATA, FIRST + ahead, connection.initial_sequence - 1, payload=b"xx"), PEER)
        assert len(connection.receiving.early) == 2_015
        return connection

    def with_runs(self) -> Connection:
        """The same with hundreds of single packets in flight, behind a bulk transfer that has widened the window."""
        connection = self.connected()
        sending = connection.sending
        sending.no_delay = True
        connection.write(bytes(10_000_000))
        self.multiplexer.touch(connection)
        while sending.unsent_bytes or sending.outstanding:
            self.now_us += 20_000
            self.receive(packet(ST_STATE, FIRST, sending.next_sequence - 1), PEER)
            if connection.deadline_us <= self.now_us:
                self.multiplexer.handle_timeouts(self.now_us)
        while len(sending.runs) < 900:
            self.now_us += 30
            connection.write(bytes(20))
            self.multiplexer.touch(connection)
            self.multiplexer.handle_timeouts(self.now_us)
            before = len(sending.runs)
            self.settle()
            assert len(sending.runs) > before
        return connection


# -- before the handshake --


def syns_of_new_sources(server: Server) -> Make:
    return lambda n: (
        segment(ST_SYN, n, n >> 8, 0, 1 << 20),
        (f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 1 + n % 60_000),
    )


def syns_of_one_source(server: Server) -> Make:
    return lambda n: (segment(ST_SYN, n, n >> 8, 0, 1 << 20), PEER)


def the_same_syn(server: Server) -> Make:
    return lambda n: (segment(ST_SYN, SYN_ID, 1, 0, 1 << 20), PEER)


def flooded(server: Server) -> None:
    """SYNs of others have used up the places: cookies go out."""
    make = syns_of_new_sources(server)
    for number in range(1_100):
        server.receive(*make(number))
    assert server.multiplexer.counters.cookies_sent


def wrong_cookies(server: Server) -> Make:
    flooded(server)
    return lambda n: (segment(ST_DATA, n, n >> 4, n >> 8, 1 << 20, payload=b"x"), ("10.1.1.1", 1 + n % 60_000))


def whole_connections(server: Server, *rest: bytes) -> Make:
    """Connections of new addresses: a SYN, DATA that proves the address, and these packets of the peer."""
    server.multiplexer._random_bytes = bytes  # our initial sequence number is always 0, so that the ack is known
    steps = (
        segment(ST_SYN, SYN_ID, FIRST - 1, 0, 1 << 20),
        packet(ST_DATA, FIRST, -1, payload=b"x"),
        *rest,
    )

    def make(number: int) -> tuple[bytes, tuple[str, int]]:
        client, step = divmod(number, len(steps))
        return steps[step], (f"10.{client >> 16 & 255}.{client >> 8 & 255}.{client & 255}", 1 + client % 60_000)

    return make


def connections_that_are_reset(server: Server) -> Make:
    return whole_connections(server, packet(ST_RESET, FIRST, -1))


def connections_that_end_well(server: Server) -> Make:
    """The server ends each as soon as its peer has, and the peer acknowledges that."""
    server.answers_ends = True
    return whole_connections(server, packet(ST_FIN, FIRST + 1, -1), packet(ST_STATE, FIRST + 2, 0))


def connections_that_are_left(server: Server) -> Make:
    """The same without that ack."""
    server.answers_ends = True
    return whole_connections(server, packet(ST_FIN, FIRST + 1, -1))


def right_cookies(server: Server) -> Make:
    """Proofs of SYN cookies that were never asked for: each makes a connection, for which an older one has to go."""
    flooded(server)
    lifetime_us = server.multiplexer.settings.half_open_timeout_us
    make_cookie = server.multiplexer._cookies.make

    def make(number: int) -> tuple[bytes, tuple[str, int]]:
        address = f"10.2.{number >> 8 & 255}.{number & 255}", 1 + (number >> 16) % 60_000
        cookie = make_cookie(address, SYN_ID, FIRST - 1, lifetime_us, server.now_us)
        return packet(ST_STATE, FIRST, cookie - 1), address

    return make


def garbage(server: Server) -> Make:
    return lambda n: (b"\xff" + n.to_bytes(4, "big") * 300, PEER)


def unknown_ids(server: Server) -> Make:
    server.connected()
    return lambda n: (segment(ST_DATA, 5_000 + n % 50_000, n, n, 1 << 20, payload=b"x"), PEER)


def unknown_resets(server: Server) -> Make:
    server.connected()
    return lambda n: (segment(ST_RESET, 5_000 + n % 50_000, n, n, 1 << 20), PEER)


def chain_of(count: int, body: bytes, kind: int) -> bytes:
    return (bytes((kind, len(body))) + body) * (count - 1) + bytes((0, len(body))) + body


def empty_extensions(server: Server) -> Make:
    chain = chain_of(LARGEST_BYTES // 2, b"", 0x70)
    return lambda n: (segment(ST_DATA, n, 1, 1, 1, chain, first=0x70), PEER)


def broken_extensions(server: Server) -> Make:
    chain = chain_of(200, b"", 0x70)[:-2] + b"\1\xff"
    return lambda n: (segment(ST_DATA, n, 1, 1, 1, chain, first=0x70), PEER)


def late_fins(server: Server) -> Make:
    """A connection has ended well; its peer repeats the FIN."""
    connection = server.connected()
    ack = connection.initial_sequence
    connection.close(server.now_us)
    server.multiplexer.touch(connection)
    server.settle()
    fin = packet(ST_FIN, FIRST, ack)
    server.receive(fin, PEER)
    server.multiplexer.forget(connection, server.now_us)
    assert not len(server.multiplexer)
    return lambda n: (fin, PEER)


# -- behind it --


def extensions_of_a_peer(server: Server) -> Make:
    connection = server.connected()
    chain = chain_of(LARGEST_BYTES // 2, b"", 0x70)
    return lambda n: (packet(ST_STATE, FIRST, connection.initial_sequence - 1, chain, first=0x70), PEER)


def some_extensions_of_a_peer(server: Server) -> Make:
    connection = server.connected()
    chain = chain_of(100, b"", 0x70)
    return lambda n: (packet(ST_STATE, FIRST, connection.initial_sequence - 1, chain, first=0x70), PEER)


def selective_acks_of_a_peer(server: Server) -> Make:
    connection = server.connected()
    chain = chain_of(240, b"\xff" * 255, 1)
    return lambda n: (packet(ST_STATE, FIRST, connection.initial_sequence - 1, chain, first=1), PEER)


def old_duplicates(server: Server) -> Make:
    connection = server.connected()
    data = packet(ST_DATA, FIRST, connection.initial_sequence - 1, payload=b"x")
    server.receive(data, PEER)
    return lambda n: (data, PEER)


def duplicates_behind_a_gap(server: Server) -> Make:
    connection = server.with_early()
    return lambda n: (packet(ST_DATA, 900, connection.initial_sequence - 1, payload=b"x"), PEER)


def fins_behind_a_gap(server: Server) -> Make:
    connection = server.with_early()
    return lambda n: (packet(ST_FIN, FIRST + 2_100, connection.initial_sequence - 1), PEER)


def states_behind_a_gap(server: Server) -> Make:
    connection = server.with_early()
    return lambda n: (packet(ST_STATE, FIRST, connection.initial_sequence - 1), PEER)


def gaps_that_move(server: Server) -> Make:
    """Each segment closes a gap, and all others stay early."""
    connection = server.with_early()
    ack = connection.initial_sequence - 1
    return lambda n: (packet(ST_DATA, FIRST + (n // 2) + (2_016 if n % 2 else 0), ack, payload=b"x"), PEER)


def tiny_segments_out_of_order(server: Server) -> Make:
    """In blocks of a thousand, backwards."""
    connection = server.connected()
    ack = connection.initial_sequence - 1
    return lambda n: (packet(ST_DATA, FIRST + n // 1_000 * 1_000 + 999 - n % 1_000, ack, payload=b"x"), PEER)


def tiny_segments_for_a_paused_reader(server: Server) -> Make:
    connection = server.connected()
    server.reads = False
    return lambda n: (packet(ST_DATA, FIRST + n, connection.initial_sequence - 1, payload=b"x"), PEER)


def acks_outside(server: Server) -> Make:
    connection = server.connected()
    return lambda n: (packet(ST_DATA, FIRST, connection.initial_sequence + 5_000 + n % 40_000, payload=b"x"), PEER)


def reset_guesses(server: Server) -> Make:
    connection = server.connected()
    return lambda n: (packet(ST_RESET, FIRST, connection.initial_sequence + 5_000 + n % 40_000), PEER)


def closed_windows(server: Server) -> Make:
    connection = server.with_runs()
    first = connection.sending.first_unacked
    return lambda n: (segment(ST_STATE, RECEIVE_ID, FIRST, first - 1, n % 2), PEER)


def selective_acks_of_one_bit(server: Server) -> Make:
    connection = server.with_runs()
    first = connection.sending.first_unacked
    return lambda n: (packet(ST_STATE, FIRST, first - 1, encode_selective_ack(1), first=1), PEER)


def selective_acks_that_change(server: Server) -> Make:
    """Every other packet is named, then the others."""
    connection = server.with_runs()
    first = connection.sending.first_unacked
    masks = [encode_selective_ack(int("01" * 450, 2)), encode_selective_ack(int("10" * 450, 2))]
    return lambda n: (packet(ST_STATE, FIRST, first - 1, masks[n % 2], first=1), PEER)


def empty_selective_acks(server: Server) -> Make:
    connection = server.with_runs()
    first = connection.sending.first_unacked
    extension = bytes((0, 252)) + bytes(252)
    return lambda n: (packet(ST_STATE, FIRST, first - 1, extension, first=1), PEER)


def quotes(server: Server) -> Make:
    """ICMP errors that quote a packet of ours with another timestamp."""
    connection = server.with_runs()
    server.unreachable = True
    first = connection.sending.first_unacked
    quoted = HEADER.pack(ST_DATA << 4 | 1, 0, connection.send_id, 77, 0, 0, first & 0xFFFF, FIRST)
    return lambda n: (quoted + b"x", PEER)


BEFORE = {
    "SYNs, each of a new address": syns_of_new_sources,
    "SYNs of one address": syns_of_one_source,
    "the same SYN": the_same_syn,
    "wrong answers to SYN cookies": wrong_cookies,
    "right answers to SYN cookies": right_cookies,
    "connections of new addresses, with a RESET": connections_that_are_reset,
    "connections of new addresses, with a FIN": connections_that_end_well,
    "connections of new addresses, with a FIN and no ack of ours": connections_that_are_left,
    "no uTP, 1,201 bytes": garbage,
    "DATA with unknown ids": unknown_ids,
    "RESETs with unknown ids": unknown_resets,
    "64 kB of empty extensions": empty_extensions,
    "extensions that run past the end": broken_extensions,
    "a FIN again, of a connection that has ended": late_fins,
}
AFTER = {
    "64 kB of empty extensions": extensions_of_a_peer,
    "100 empty extensions": some_extensions_of_a_peer,
    "60 kB of selective acks": selective_acks_of_a_peer,
    "old DATA": old_duplicates,
    "DATA again, behind 2,015 early segments": duplicates_behind_a_gap,
    "FIN too far ahead, behind 2,015 early segments": fins_behind_a_gap,
    "STATE, behind 2,015 early segments": states_behind_a_gap,
    "a gap that moves, behind 2,015 early segments": gaps_that_move,
    "single bytes, backwards": tiny_segments_out_of_order,
    "single bytes for a paused reader": tiny_segments_for_a_paused_reader,
    "acks of what was not sent": acks_outside,
    "RESETs with a wrong ack": reset_guesses,
    "windows of 0 and 1, 900 packets in flight": closed_windows,
    "selective acks of one bit, 900 packets in flight": selective_acks_of_one_bit,
    "selective acks that change, 900 packets in flight": selective_acks_that_change,
    "empty selective acks, 900 packets in flight": empty_selective_acks,
    "forged ICMP errors, 900 packets in flight": quotes,
}
KINDS = {"before": BEFORE, "after": AFTER}


def honest(server: Server, size: int) -> Make:
    """DATA in order, of so many bytes."""
    payload = bytes(max(size - HEADER_BYTES, 1))
    ack = server.connected().initial_sequence - 1
    return lambda n: (packet(ST_DATA, FIRST + n, ack, payload=payload), PEER)


class Meter:
    """Lets a server receive datagrams, and notes how long that takes."""

    def __init__(self, server: Server, make: Make, size: int) -> None:
        """``size`` is the length of a datagram in bytes."""
        self._server = server
        self._make = make
        self._chunk = max(min(CHUNK, CHUNK_BYTES // size), 1)
        self._times = array("d")
        self.count = 0

    def receive(self, count: int) -> None:
        """Receive so many more."""
        server, make = self._server, self._make
        end = self.count + count
        while self.count < end:
            numbers = range(self.count, min(self.count + self._chunk, end))
            datagrams = [make(number) for number in numbers]
            began = time.process_time()
            for datagram, address in datagrams:
                server.receive(datagram, address)
            self._times.append((time.process_time() - began) / len(numbers) * 1e6)
            self.count = numbers.stop

    @property
    def microseconds(self) -> float:
        """For each datagram: the median of the chunks."""
        return statistics.median(self._times)


def resident_bytes() -> int:
    """Of this process."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as pages:
        return int(pages.read().split()[1]) * 4_096


def main() -> None:
    phase, kind = sys.argv[1].split("/", 1)
    count = json.loads(sys.argv[2])["datagrams"]
    server = Server()
    make = KINDS[phase][kind](server)
    size = len(make(0)[0])
    gc.disable()
    hostile = Meter(server, make, size)
    hostile.receive(CHUNK)  # what is made once is not counted
    before = resident_bytes()
    hostile.receive(count // FIRST_PART)
    first = resident_bytes() - before
    hostile.receive(count - count // FIRST_PART)
    grown = resident_bytes() - before
    usual_server = Server()
    usual = Meter(usual_server, honest(usual_server, size), size)
    usual.receive(min(count, HONEST_DATAGRAMS))
    print(
        json.dumps(
            {
                "hostile_us": hostile.microseconds,
                "honest_us": usual.microseconds,
                "first_kib": first / 1024,
                "grown_kib": grown / 1024,
                "bytes": size,
            }
        )
    )


if __name__ == "__main__":
    main()
