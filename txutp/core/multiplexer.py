"""Many connections behind one UDP port.

Who calls it
    The shell, with what the socket gave (``receive``, ``receive_joined``) and when time has come
    (``handle_timeouts``); it finds in ``touched`` which connections then want attention.

What flows through
    A datagram, or a run of equally long ones as the kernel joins them, goes to its connection by remote address and
    connection id.  SYNs become connections within limits.  Packets for nobody are answered sparingly, with an ack if
    we still remember the connection, else with a RESET; what is not uTP at all is given back to the caller.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator

from txutp.core.address import local_of, remote_of, with_local
from txutp.core.admission import COOKIE, REMEMBER, Admission, ConnectionRefused, end_silent
from txutp.core.batch import Address, Batch
from txutp.core.congestion.crowd import Crowd
from txutp.core.connection import Connection
from txutp.core.cookies import EARLY, NOTHING, PROOF, SynCookies
from txutp.core.downlink import Downlink
from txutp.core.flow import NEVER_US
from txutp.core.liveness import PROVEN, SUSPECTED, ClosedPorts, Watch, sent_us_of
from txutp.core.memory import LEAST_WINDOW_BYTES, ReceiveMemory
from txutp.core.packet import (
    HEADER,
    HEADER_BYTES,
    HIGH_BYTES,
    LOW_BYTES,
    ST_DATA,
    ST_FIN,
    ST_RESET,
    ST_STATE,
    ST_SYN,
    TYPES,
    VERSION,
    HeaderBlock,
    encode_header,
    is_utp_untrusted,
    parse_extensions_untrusted,
    slices,
)
from txutp.core.parts import LOOK_AGAIN_US, SmallPaths, is_part
from txutp.core.rates import Rates
from txutp.core.resting import share_numbers
from txutp.core.sending import RUN_MAXIMUM_SEGMENTS
from txutp.core.sequence import MASK16, MASK32
from txutp.core.settings import Settings, usual_datagram_bytes
from txutp.core.states import CONNECTED, DONE, FAILED, SYN_RECEIVED, TIMED_OUT
from txutp.core.stats import PortCounters, StreamTotals
from txutp.core.tombstones import Key, Tombstone, Tombstones
from txutp.core.units import SECOND_US

# Our own ids stay away from the end of their 16 bits: libutp does not mask what it adds to one, and looks for a
# connection with id 65536.  So the four ids that neighbours can have need no mask either.
FIRST_ID, LAST_ID = 1, 0xFFFD

DATA_BYTE = bytes((ST_DATA << 4 | VERSION,))
# Where the last ack of a connection may be lost, somebody has to be here to repeat it for so many close timeouts:
# libutp repeats a FIN after one second at the earliest.
LAST_ACK_TIMEOUTS = 2

# Connections that are woken in one call: thousands of keepalives that are due together shall not hold up the others.
MAXIMUM_WOKEN = 1_000

# So many more entries than twice the connections may be in the heap of deadlines.
SPARE_DEADLINES = 100

# When datagrams are lost because the socket's buffer is full, windows shrink by a quarter: not more often than once in
# a while, for it takes a round trip to show, and not to nothing.  After a longer while without losses they grow again.
LARGEST_WINDOW_BYTES = 1 << 30
WINDOW_SHRINKS_US = SECOND_US
WINDOW_GROWS_US = 10 * SECOND_US
SMALLEST_WINDOW_BYTES = 65_536

# Local addresses that are kept in mind; whole networks may be local.
MAXIMUM_LOCALS = 64


class Multiplexer:
    """The connections of one UDP port, by remote address and id."""

    def __init__(
        self,
        settings: Settings,
        random_bytes: Callable[[int], bytes],
        link_mtu: Callable[[Address], int | None] = lambda address: None,
    ) -> None:
        """``link_mtu`` tells the largest IP packet that the interface towards an address takes; None: unknown."""
        self.settings: Settings = settings
        self._link_mtu = link_mtu
        self.buffer_limit_bytes: int = LARGEST_WINDOW_BYTES  # what the socket's own buffer can hold for one connection
        self.window_limit_bytes: int = LARGEST_WINDOW_BYTES  # what it has turned out to hold
        self._window_changed_us = -WINDOW_GROWS_US
        self.listening = False  # whether SYNs are welcome
        self.counters: PortCounters = PortCounters()
        self.ended: StreamTotals = StreamTotals()  # of connections that are no longer here
        self.memory: ReceiveMemory = ReceiveMemory(settings.port_memory_bytes, self.counters)
        self.downlink: Downlink = Downlink(self.touch)
        self.rates: Rates = Rates(self.touch)
        self.touched: list[Connection] = []  # to be settled; each at most once
        self.failures: list[Exception] = []  # what congestion controllers raised, to be logged
        self.replies: deque[Batch] = deque(maxlen=1_000)  # single packets for those who have no connection
        self._random_bytes = random_bytes
        self.draw_id: Callable[[], int] = self._random_id  # chooses the receive ids of connections that we begin
        self._headers = HeaderBlock(RUN_MAXIMUM_SEGMENTS)
        self._connections: dict[Key, Connection] = {}
        self._admission = Admission(self._connections, self._evict)
        self._watch = Watch(self._connections)
        self._cookies = SynCookies(random_bytes)
        self._tombstones = Tombstones()
        self.small_paths: SmallPaths = SmallPaths()  # the shell may let several ports share it
        self.needed_until_us: int = 0  # peers may ask the tombstones for a last ack that was lost
        self._closed_ports = ClosedPorts()
        self._crowd = Crowd()
        self._opening: dict[Address, dict[Connection, None]] = {}  # ours that are not answered yet, by remote address
        self._locals: dict[str, None] = {}  # addresses of ours that connections have, if the socket has several
        self._deadlines: list[tuple[int, Address, int]] = []  # a heap; entries may be out of date
        self._common_numbers: dict[int, int] = {}  # of connections that rest
        self._reset_second = -1
        self._resets_left = 0

    def change_settings(self, settings: Settings) -> None:
        """Other settings, for the port and for new connections."""
        self.settings = settings
        self.memory.limit(settings.port_memory_bytes)

    # -- questions --

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._connections.values()))

    @property
    def half_open(self) -> int:
        """Incoming connections that did not prove their source yet."""
        return len(self._admission.half_open)

    def has_successor(self, connection: Connection) -> bool:
        """Whether the peer has begun another connection with the ids of this one, which has ended."""
        return self._connections.get((connection.address, connection.receive_id), connection) is not connection

    def next_deadline_us(self) -> int | None:
        """When ``handle_timeouts`` wants to be called; None without any timer."""
        deadlines = self._deadlines
        while deadlines:
            deadline_us, address, receive_id = deadlines[0]
            connection = self._connections.get((address, receive_id))
            if connection is not None and connection.scheduled_us == deadline_us:
                if connection.deadline_us < NEVER_US:
                    return deadline_us
                connection.scheduled_us = NEVER_US
            heapq.heappop(deadlines)
        return None

    def judges_silence(self, now_us: int) -> bool:
        """Whether ``handle_timeouts`` would take the silence of a peer for an answer.

        It says nothing while datagrams wait to be read: this process may have been paused, or busy.
        """
        deadlines = self._deadlines
        places = [0]  # in the heap: those that are due, and the two behind each of them
        for place in places:
            if place < len(deadlines) and deadlines[place][0] <= now_us:
                connection = self._connections.get(deadlines[place][1:])
                if connection is not None and connection.judges_silence(now_us):
                    return True
                places += (2 * place + 1, 2 * place + 2)
        return False

    def sender_of(self, datagram: bytes, address: Address) -> Connection | None:
        """Which connection sent a datagram that begins like this to an address."""
        if not is_utp_untrusted(datagram):
            return None
        return self._by_either_id(address, datagram[2] << 8 | datagram[3])

    def knows(self, datagram: bytes, address: Address, now_us: int) -> bool:
        """Whether a packet, which is no SYN, is for a connection that is here, was here, or begins with a cookie."""
        _, _, connection_id, _, _, _, sequence, ack = HEADER.unpack_from(datagram)
        if (
            self.receiver_of(connection_id, address)
            or self._tombstones.get((address, connection_id), now_us) is not None
        ):
            return True
        lifetime_us = self.settings.half_open_timeout_us
        return (
            self._cookies.are_out(now_us)
            and self._cookies.judge(address, connection_id, sequence, ack, lifetime_us, now_us) != NOTHING
        )

    def share_cookies(self, key: bytes, now_us: int) -> None:
        """Take cookies for our own that were made with this key, on a port with the same settings, until now."""
        self._cookies.share(key, self.settings.half_open_timeout_us, now_us)

    def receiver_of(self, connection_id: int, address: Address) -> Connection | None:
        """Which connection gets what comes from an address for an id."""
        return self._connections.get((address, connection_id)) or self._unpinned(address, connection_id)

    # -- ICMP --

    def port_is_closed(self, datagram: bytes, address: Address, from_peer: bool, now_us: int) -> None:
        """An ICMP error says that nobody has the port to which this datagram of ours went.

        ``from_peer`` if the host itself says so: what others say may be for a while only.
        """
        connection = self.sender_of(datagram, address)
        if connection is None or not connection.settings.believe_unreachable:
            return
        connection.port_is_closed()
        self.touch(connection)
        if connection.state != CONNECTED or not from_peer:
            return
        _, _, connection_id, timestamp_us, _, _, sequence, _ = HEADER.unpack_from(datagram)
        sent_us = sent_us_of(connection, connection.sending, sequence, timestamp_us)
        if sent_us is None or connection_id != connection.send_id:
            return
        # The port is open for all connections to it, or for none: one may be quoted first, another one later.
        others = [
            other for other in self._connections.values() if other.address == address and other.state == CONNECTED
        ]
        verdict = self._closed_ports.judge(address, sent_us, max(other.heard_us for other in others), now_us)
        if verdict == SUSPECTED:
            connection.doubt(now_us)
        elif verdict == PROVEN:
            for other in others:
                if other.settings.believe_unreachable:
                    other.forgotten(TIMED_OUT)
                    self.touch(other)

    # -- out --

    def connect(
        self, address: Address, now_us: int, timeout_us: int | None = None, settings: Settings | None = None
    ) -> Connection:
        """A new connection as initiator, in SYN_SENT; raises ``ConnectionRefused`` beyond the limits.

        It may have settings of its own; the limits are always those of the port.
        """
        self._admission.make_room(address[0], self.settings, now_us)
        receive_id = self._fresh_id(address)
        connection = self._new(address, receive_id, receive_id + 1 & MASK16, now_us, settings)
        self._register(connection)
        self._opening.setdefault(remote_of(address), {})[connection] = None
        connection.open(now_us, connection.settings.connect_timeout_us if timeout_us is None else timeout_us)
        self.touch(connection)
        return connection

    # -- in --

    def receive_joined(self, data: bytes, stride: int, address: Address, now_us: int) -> list[bytes]:
        """Datagrams of ``stride`` bytes from one address, the last maybe shorter; gives those that are not uTP.

        Never raises, whatever they hold.
        """
        total_bytes = len(data)
        count = -(-total_bytes // stride)
        if self._receive_run(data, stride, count, address, now_us):
            self.counters.datagrams_received += count
            self.counters.bytes_received += total_bytes
            return []
        return [
            datagram
            for datagram in (data[start : start + stride] for start in range(0, total_bytes, stride))
            if not self.receive(datagram, address, now_us)
        ]

    def _receive_run(self, data: bytes, stride: int, count: int, address: Address, now_us: int) -> bool:
        """Take datagrams together if they are DATA of one connection in order; changes nothing if they are not.

        Six strided comparisons check all headers (0.1 us a segment, one by one 0.6).  Ack, window and timestamps are
        taken from the last header; the others say the same, only earlier.
        """
        if stride <= HEADER_BYTES or len(data) - (count - 1) * stride <= HEADER_BYTES:
            return False
        connection_id = data[2] << 8 | data[3]
        connection = self._connections.get((address, connection_id))
        if connection is None or connection.state != CONNECTED:
            return False
        first = data[16] << 8 | data[17]
        if (
            data[::stride] != DATA_BYTE * count
            or data[1::stride] != bytes(count)
            or data[2::stride] != data[2:3] * count
            or data[3::stride] != data[3:4] * count
            or data[16::stride] != HIGH_BYTES[first : first + count]
            or data[17::stride] != LOW_BYTES[first : first + count]
        ):
            return False
        whole = len(data) // stride
        payloads = slices(HEADER_BYTES, stride - HEADER_BYTES, whole).unpack_from(data)
        if whole < count:
            payloads += (data[whole * stride + HEADER_BYTES :],)
        _, _, _, timestamp_us, difference_us, window_bytes, _, ack = HEADER.unpack_from(data, (count - 1) * stride)
        try:
            connection.receive(
                ST_DATA,
                first,
                ack,
                window_bytes,
                timestamp_us,
                difference_us,
                0,
                payloads,
                len(data) - count * HEADER_BYTES,
                now_us,
            )
        except Exception as problem:
            self._failed(connection, problem)
        self.touch(connection)
        return True

    def receive(self, data: bytes, address: Address, now_us: int) -> bool:
        """One datagram; gives whether it was uTP.  Never raises, whatever it holds."""
        size = len(data)
        counters = self.counters
        counters.datagrams_received += 1
        counters.bytes_received += size
        kind = TYPES.get(data[0]) if size >= HEADER_BYTES else None
        if kind is None:
            counters.foreign += 1
            return False
        _, extension, connection_id, timestamp_us, difference_us, window_bytes, sequence, ack = HEADER.unpack_from(data)
        # the whole datagram is parsed before anything changes
        offset = HEADER_BYTES
        mask: int | None = None
        bits = b""
        if extension:
            offset, mask, bits = parse_extensions_untrusted(data, extension)
            if offset < 0:
                counters.dropped_malformed += 1
                return True

        if kind >= ST_RESET:
            if kind == ST_SYN:
                shown = bool(bits) or mask is not None
                self._receive_syn(address, connection_id, sequence, timestamp_us, shown, now_us)
            else:
                self._receive_reset(address, connection_id, ack, now_us)
            return True
        connection = self._connections.get((address, connection_id)) or self._unpinned(address, connection_id)
        if connection is None and self._cookies.are_out(now_us):
            connection = self._admit(kind, address, connection_id, sequence, ack, size > offset, now_us)
            if connection is None:
                return True
        elif connection is None:
            self._receive_unknown(kind, address, connection_id, sequence, size > offset, now_us)
            return True
        # a DATA packet may be empty and counts all the same; what a STATE carries is nothing
        payloads = (data[offset:],) if kind == ST_DATA or (kind == ST_FIN and size > offset) else ()
        state = connection.state
        received = connection.segments_received
        try:
            if bits and kind == ST_DATA and is_part(bits):
                connection.receive_part(
                    sequence,
                    ack,
                    window_bytes,
                    timestamp_us,
                    difference_us,
                    mask or 0,
                    bits,
                    data[offset:],
                    now_us,
                )
            else:
                connection.receive(
                    kind,
                    sequence,
                    ack,
                    window_bytes,
                    timestamp_us,
                    difference_us,
                    mask or 0,
                    payloads,
                    size - offset,
                    now_us,
                )
            if extension and (bits or mask is not None) and connection.segments_received != received:
                connection.receive_extensions(mask, bits, now_us)
        except Exception as problem:
            self._failed(connection, problem)
        if state != CONNECTED and connection.state != state:
            self._begun(connection)
            self._pin(connection, address)
        self.touch(connection)
        return True

    def _receive_syn(
        self, address: Address, connection_id: int, sequence: int, timestamp_us: int, shown: bool, now_us: int
    ) -> None:
        """A peer wants a connection; it will send to ``connection_id + 1``.

        ``shown`` if the SYN itself has extensions, as the SYNs of old versions of uTorrent.
        """
        for connection in self._opening.get(remote_of(address), ()):
            connection.hole_opened(now_us)
            self.touch(connection)
        receive_id = connection_id + 1 & MASK16
        known = self._connections.get((address, receive_id)) or self._unpinned(address, receive_id)
        if known is not None:
            if known.initiator:
                return
            if known.syn_sequence == sequence:
                known.answer_again()
                self.touch(known)
                return
            if known.state != SYN_RECEIVED:
                return
            # The same peer, started again: the connection that it forgot was never confirmed.
            self._remove(known)
            known.fail(DONE)

        host = address[0]
        if not self.listening:
            self.counters.syns_refused += 1
            self._reset(address, connection_id, sequence, now_us)
            return
        place = self._admission.place_for_syn(host, self.settings, now_us)
        if place != REMEMBER:
            # Nothing of these SYNs is proven, so they use up nothing: else whoever forges a host's address would.
            if place == COOKIE:
                self._answer_with_cookie(address, connection_id, sequence, timestamp_us, now_us)
            else:
                self.counters.syns_refused += 1
            return

        self._tombstones.discard((address, receive_id))
        connection = self._new(address, receive_id, connection_id, now_us)
        self._register(connection, True)
        connection.answer(sequence, timestamp_us, now_us)
        if shown:
            connection.receive_extensions(None, b"", now_us)
        self.touch(connection)

    def _answer_with_cookie(
        self, address: Address, connection_id: int, sequence: int, timestamp_us: int, now_us: int
    ) -> None:
        """Answer a SYN, and remember nothing of it."""
        settings = self.settings
        self.counters.cookies_sent += 1
        cookie = self._cookies.make(address, connection_id, sequence, settings.half_open_timeout_us, now_us)
        share_bytes = max(self.memory.share_bytes, LEAST_WINDOW_BYTES)
        window_bytes = min(settings.receive_buffer_bytes, self.window_limit_bytes, share_bytes)
        difference_us = now_us - timestamp_us & MASK32 if timestamp_us else 0
        header = encode_header(ST_STATE, connection_id, now_us, difference_us, window_bytes, cookie, sequence)
        self.replies.append(Batch(address, [header], 1, HEADER_BYTES))

    def _admit(
        self, kind: int, address: Address, connection_id: int, sequence: int, ack: int, has_payload: bool, now_us: int
    ) -> Connection | None:
        """A packet for no connection comes while cookies are out: the connection that it proves, if it does."""
        lifetime_us = self.settings.half_open_timeout_us
        verdict = self._cookies.judge(address, connection_id, sequence, ack, lifetime_us, now_us)
        if verdict == EARLY:
            return None  # the proof was overtaken, or comes again
        if verdict == PROOF and self.listening:
            try:
                self._admission.make_room(address[0], self.settings, now_us)
            except ConnectionRefused:
                self.counters.syns_refused += 1
            else:
                self._cookies.spend(address, connection_id, sequence, lifetime_us, now_us)
                self._tombstones.discard((address, connection_id))
                connection = self._new(address, connection_id, connection_id - 1 & MASK16, now_us)
                self._register(connection)
                connection.restore(sequence - 1 & MASK16, ack + 1 & MASK16, now_us)
                return connection
        self._receive_unknown(kind, address, connection_id, sequence, has_payload, now_us)
        return None

    def _receive_reset(self, address: Address, connection_id: int, ack: int, now_us: int) -> None:
        """A RESET names the connection by either id: libutp echoes ours, others use the one we listen on."""
        connection = self._by_either_id(address, connection_id)
        if connection is not None:
            connection.receive_reset(ack, now_us)
            self.touch(connection)

    def _receive_unknown(
        self, kind: int, address: Address, connection_id: int, sequence: int, has_payload: bool, now_us: int
    ) -> None:
        """A packet for no connection: one of the past is acknowledged once more, others learn that nobody is here."""
        self.counters.dropped_unknown += 1
        past = self._tombstones.get((address, connection_id), now_us)
        if past is None:
            self._reset(address, connection_id, sequence, now_us)
            return
        ahead = sequence - past.ack & MASK16
        is_new = 0 < ahead < 0x8000
        if is_new and (kind == ST_DATA or (kind == ST_FIN and (has_payload or ahead > 1))):
            # The peer writes on, or something is missing before its FIN.  An ack would tell it that this was received.
            self._reset(address, connection_id, sequence, now_us)
        elif kind != ST_STATE:
            # its FIN may come only now, behind what we know
            if is_new:
                past = past._replace(ack=sequence)
                self._tombstones.update((address, connection_id), past)
            # numbered behind our FIN and like it, see Connection._receive_data
            for number in (past.next_sequence, past.next_sequence - 1):
                header = encode_header(ST_STATE, past.send_id, now_us, 0, past.window_bytes, number, past.ack)
                self.replies.append(Batch(address, [header], 1, HEADER_BYTES))

    def _reset(self, address: Address, connection_id: int, sequence: int, now_us: int) -> None:
        """A RESET to an unknown sender, no longer than what it sent, a limited number each second."""
        second = now_us // SECOND_US
        if second != self._reset_second:
            self._reset_second = second
            self._resets_left = self.settings.resets_per_second
        if self._resets_left <= 0:
            return
        self._resets_left -= 1
        self.counters.resets_sent += 1
        header = encode_header(
            ST_RESET, connection_id, now_us, 0, 0, int.from_bytes(self._random_bytes(2), "big"), sequence
        )
        self.replies.append(Batch(address, [header], 1, HEADER_BYTES))

    # -- our own socket --

    def limit_buffer(self, limit_bytes: int) -> None:
        """The socket's buffer holds so much: no connection may let its peer send more without an answer."""
        self.buffer_limit_bytes = limit_bytes
        self._limit_windows(limit_bytes)

    def on_overflow(self, dropped: int, now_us: int) -> None:
        """The socket's buffer was full, and so many datagrams were lost."""
        self.counters.receive_overflows += dropped
        if now_us >= self._window_changed_us + WINDOW_SHRINKS_US:
            self._window_changed_us = now_us
            largest_bytes = max((connection.receiving.capacity_bytes for connection in self), default=0)
            self._limit_windows(max(largest_bytes * 3 // 4, SMALLEST_WINDOW_BYTES))

    def _limit_windows(self, limit_bytes: int) -> None:
        self.window_limit_bytes = limit_bytes
        for connection in self:
            connection.limit_window(limit_bytes)

    # -- time and attention --

    def touch(self, connection: Connection) -> None:
        """Note that a connection wants to be settled."""
        if not connection.touched:
            connection.touched = True
            self.touched.append(connection)

    def handle_timeouts(self, now_us: int) -> None:
        """Wake connections whose deadline has passed, the earliest first.

        Of very many it leaves some: ``next_deadline_us`` then lies in the past.
        """
        limit_bytes = self.window_limit_bytes
        if limit_bytes < self.buffer_limit_bytes and now_us >= self._window_changed_us + WINDOW_GROWS_US:
            self._window_changed_us = now_us
            self._limit_windows(min(limit_bytes * 5 // 4, self.buffer_limit_bytes))
        deadlines = self._deadlines
        woken = 0
        while deadlines and deadlines[0][0] <= now_us and woken < MAXIMUM_WOKEN:
            deadline_us, address, receive_id = heapq.heappop(deadlines)
            connection = self._connections.get((address, receive_id))
            if connection is None or connection.scheduled_us != deadline_us:
                continue
            connection.scheduled_us = NEVER_US
            if connection.deadline_us <= now_us:
                woken += 1
                try:
                    connection.handle_timeout(now_us)
                    if connection.may_probe:
                        share_numbers(connection, self._common_numbers)
                    if connection.wants_fresh_id:
                        self._rekey(connection)
                except Exception as problem:
                    self._failed(connection, problem)
                self.touch(connection)
            else:
                self.schedule(connection)

    def schedule(self, connection: Connection) -> None:
        """Note a connection's deadline.  A later one than noted costs nothing: it is looked up when that one comes."""
        deadline_us = connection.deadline_us
        if deadline_us < connection.scheduled_us:
            connection.scheduled_us = deadline_us
            heapq.heappush(self._deadlines, (deadline_us, connection.address, connection.receive_id))
            if len(self._deadlines) > SPARE_DEADLINES + len(self._connections) * 5 // 4:
                self._rebuild_deadlines()

    def forget(self, connection: Connection, now_us: int) -> None:
        """A closed connection goes; for a while its late packets are answered as if it were still there."""
        if self._connections.get((connection.address, connection.receive_id)) is not connection:
            return
        was_confirmed = connection not in self._admission.half_open
        self._remove(connection)
        if len(self._deadlines) > SPARE_DEADLINES + 2 * len(self._connections):
            self._rebuild_deadlines()
        settings = connection.settings
        if connection.close_reason == DONE and was_confirmed and settings.tombstone_us:
            if connection.last_ack_may_be_lost:
                needed_us = min(LAST_ACK_TIMEOUTS * settings.close_timeout_us, settings.tombstone_us)
                self.needed_until_us = max(self.needed_until_us, now_us + needed_us)
            tombstone = Tombstone(
                now_us + settings.tombstone_us,
                connection.receiving.next_sequence - 1 & MASK16,
                connection.send_id,
                connection.sending.next_sequence & MASK16,
                settings.receive_buffer_bytes,
            )
            self._tombstones.put((connection.address, connection.receive_id), tombstone, now_us)

    def keep_unread(self, connection: Connection) -> None:
        """A connection that has ended holds data for a paused reader: it keeps its place, and pays for the memory."""
        self._admission.keep(connection)
        connection.receiving.charge()

    def release_unread(self, connection: Connection) -> None:
        """Its reader has taken everything, or is gone."""
        self._admission.release(connection)
        connection.receiving.discard()

    def _rebuild_deadlines(self) -> None:
        """Keep only entries that count, in the same list: others are of connections that are gone, or ring sooner."""
        self._deadlines[:] = [
            entry
            for entry in self._deadlines
            if (connection := self._connections.get(entry[1:])) is not None and connection.scheduled_us == entry[0]
        ]
        heapq.heapify(self._deadlines)

    # -- tables --

    def _unpinned(self, address: Address, connection_id: int) -> Connection | None:
        """The connection of ours with a remote address whose local one is not known before the peer has answered."""
        remote = remote_of(address)
        return None if remote is address else self._connections.get((remote, connection_id))

    def _pin(self, connection: Connection, address: Address) -> None:
        """The peer has answered a connection of ours, to one of our addresses: the connection stays there."""
        if connection.address == address or connection.state != CONNECTED:
            return
        del self._connections[connection.address, connection.receive_id]
        connection.address = address
        connection.scheduled_us = NEVER_US
        self._connections[address, connection.receive_id] = connection
        self._note_local(address)

    def _note_local(self, address: Address) -> None:
        local = local_of(address)
        if local and len(self._locals) < MAXIMUM_LOCALS:
            self._locals[local] = None

    def _ends(self, address: Address) -> list[Address]:
        """A remote address, and with each of the local ones; an address that has a local one is alone."""
        remote = remote_of(address)
        if remote is not address:
            return [address]
        return [address, *(with_local(address, local) for local in self._locals)]

    def _by_either_id(self, address: Address, connection_id: int) -> Connection | None:
        """The connection that listens on an id, or sends to it; the two are neighbours.

        The kernel does not tell the local address of every error.
        """
        for ends in self._ends(address):
            connection = self._by_either_id_at(ends, connection_id)
            if connection is not None:
                return connection
        return None

    def _by_either_id_at(self, address: Address, connection_id: int) -> Connection | None:
        for step in (0, -1, 1):
            known_id = connection_id + step & MASK16
            connection = self._connections.get((address, known_id)) or self._unpinned(address, known_id)
            if connection is not None and connection_id in (connection.receive_id, connection.send_id):
                return connection
        return None

    def _evict(self, connection: Connection) -> None:
        """A connection gives way; the host of a half-open one hears nothing of it."""
        is_half_open = connection in self._admission.half_open
        self._remove(connection)
        if is_half_open:
            connection.fail(DONE)
            self.counters.half_open_evicted += 1
        else:
            end_silent(connection)
            self.touch(connection)

    def _new(
        self, address: Address, receive_id: int, send_id: int, now_us: int, settings: Settings | None = None
    ) -> Connection:
        is_client = settings is not None
        settings = self.settings if settings is None else settings
        datagram_bytes = settings.maximum_datagram_bytes
        if datagram_bytes is None:
            datagram_bytes = usual_datagram_bytes(address[0])
        small = self.small_paths.find(address[0], now_us) if len(self.small_paths) else None
        if small is not None:
            datagram_bytes = min(datagram_bytes, small[0])
        connection = Connection(
            address,
            receive_id,
            send_id,
            int.from_bytes(self._random_bytes(2), "big"),
            settings,
            self._headers,
            datagram_bytes - HEADER_BYTES,
            self._link_mtu,
            self.memory,
            self._watch,
            self.downlink,
            self._crowd,
        )
        connection.limit_window(self.window_limit_bytes)
        self.rates.begin(connection, settings, is_client, now_us)
        connection.small_paths = self.small_paths
        if small is not None:
            connection.small_until_us = small[1] + LOOK_AGAIN_US
        return connection

    def _fresh_id(self, address: Address) -> int:
        """A random id that cannot be mistaken for one of another connection to the same address."""
        ends = self._ends(address)
        for _ in range(1_000):
            candidate = self.draw_id()
            if FIRST_ID <= candidate <= LAST_ID and all(self._is_free(where, candidate) for where in ends):
                return candidate
        raise ConnectionRefused(f"no connection id is left for {address}")

    def _random_id(self) -> int:
        return int.from_bytes(self._random_bytes(2), "big")

    def _is_free(self, address: Address, candidate: int) -> bool:
        # two initiators, or one and an acceptor, use neighbouring ids
        near = [(address, candidate - 1), (address, candidate), (address, candidate + 1), (address, candidate + 2)]
        # a peer may not have heard yet that the last connection with this id has ended, and would ignore the SYN
        return self._connections.keys().isdisjoint(near) and (address, candidate) not in self._tombstones

    def _register(self, connection: Connection, is_half_open: bool = False) -> None:
        self._note_local(connection.address)
        self._connections[connection.address, connection.receive_id] = connection
        self._admission.add(connection, is_half_open)

    def _remove(self, connection: Connection) -> None:
        del self._connections[connection.address, connection.receive_id]
        self._admission.remove(connection)
        connection.add_to(self.ended)
        connection.receiving.end()
        self.rates.end(connection)
        self._begun(connection)

    def _begun(self, connection: Connection) -> None:
        """Its handshake is over, or it is."""
        self._admission.confirm(connection)
        remote = remote_of(connection.address)
        opening = self._opening.get(remote)
        if opening is not None:
            opening.pop(connection, None)
            if not opening:
                del self._opening[remote]

    def _failed(self, connection: Connection, problem: Exception) -> None:
        """What belongs to the connection alone raised, its congestion controller most likely: only that one ends."""
        connection.abort(FAILED)
        self.failures.append(problem)

    def _rekey(self, connection: Connection) -> None:
        fresh_id = self._fresh_id(connection.address)
        del self._connections[connection.address, connection.receive_id]
        connection.reopen(fresh_id, int.from_bytes(self._random_bytes(2), "big"))
        self._connections[connection.address, connection.receive_id] = connection
