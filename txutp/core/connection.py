"""One uTP connection: its state, its timers, and the recipe that joins the parts.

Who calls it
    The multiplexer gives it packets (``receive``, ``receive_reset``) and wakes it at ``deadline_us``
    (``handle_timeout``).  The shell gives it the application's wishes (``write``, ``shutdown``, ``close``, ``abort``),
    takes stream bytes (``take``) and then pulls datagrams (``next_batch``) until there are none.  If the socket
    refuses some of a batch, the shell says so with ``refuse``, of the last one first: what did not leave was never
    sent.

States
    Four, and two numbers.  The legal moves are in ``MOVES``::

        SYN_SENT ──STATE with the right ack──> CONNECTED ──both FINs, RESET, time-outs, abort──> CLOSED
        SYN_RECEIVED ──packet with the exact ack──> CONNECTED
        SYN_SENT, SYN_RECEIVED ──refused, too late──> CLOSED

    ``fin_sequence`` is the number of our FIN once it is sent, ``eof_sequence`` that of the peer's once it is seen.
    A FIN closes one direction only (BEP 29), so half-closed is no state: it is one of these numbers being known.

What the wire looks like is in ``packet.py``; why it is so odd in places (a SYN-ACK that takes no sequence number, a
STATE that carries the number of a packet not sent yet) is history that every peer depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from txutp.core.address import remote_of
from txutp.core.batch import Address, ip_overhead_bytes
from txutp.core.congestion.crowd import Crowd
from txutp.core.departures import BULK_RECEIVED_SEGMENTS, Departures
from txutp.core.downlink import Downlink
from txutp.core.due import ACK_DUE, FIN_ACK_DUE, KEEPALIVE_DUE, PROBE_DUE, RESET_DUE, SYN_ACK_DUE, SYN_DUE
from txutp.core.flow import BULK_SEGMENTS, NEVER_US, Flow
from txutp.core.intake import Intake
from txutp.core.liveness import (
    GIVE_UP,
    KEEPALIVE_US,
    PATIENCE,
    PROBE,
    STALL_US,
    STREAM_SEGMENTS,
    Watch,
    spread,
)
from txutp.core.memory import ReceiveMemory
from txutp.core.packet import (
    HEADER_BYTES,
    LARGE_WANTED,
    LARGE_WELCOME,
    ST_DATA,
    ST_FIN,
    ST_STATE,
    HeaderBlock,
)
from txutp.core.parts import (
    PARTS_WANTED,
    PARTS_WELCOME,
    PartJoiner,
    SmallPaths,
    bytes_of_segment,
)
from txutp.core.rare import Rare
from txutp.core.receiving import DUPLICATE, EARLY, IN_ORDER, ReceiveBuffer
from txutp.core.sequence import MASK16, MASK32, signed32, unwrap
from txutp.core.settings import Settings
from txutp.core.states import (
    ABORTED,
    CLOSED,
    CONNECT_TIMED_OUT,
    CONNECTED,
    DONE,
    MOVES,
    REASON_NAMES,
    REFUSED_BY_PEER,
    RESET,
    STATE_NAMES,
    SYN_RECEIVED,
    SYN_SENT,
    TIMED_OUT,
)
from txutp.core.stats import ConnectionStats, StreamTotals
from txutp.core.yielding import Yielding

# libutp accepts acks that are so many packets older than what it knows; so reordered acks still count.
ACK_SLACK = 3

# A third SYN takes a fresh id: a libtorrent peer may hold a socket for the old one that rejects our acks.
SYN_TRIES_PER_ID = 2

# STATEs in which a peer hears that large datagrams are welcome.
WELCOMES = 3

# STATEs that answer an empty selective ack with one: as many as a path that loses every tenth packet needs.
ANSWERS = 3

# Retransmission timeouts of our FIN for which the application waits.  The FIN itself is tried as often as data.
FIN_TIMEOUTS = 3

STATE_REPEATS = 5

BULK_ROUND_TRIP_US = 3_000

# Segments received before the waits of later ones are measured, and the payload of a packet that may be part of a bulk
# transfer: probes of our presence, and conversations, are none of it.
WATCHED_SEGMENTS = 4
LEAST_WATCHED_BYTES = 256


class Connection(Departures):
    """A stream to one peer.  Attributes without underscore are there to be read."""

    # what no connection changes while it is up and ordinary, see rare.py
    close_reason: Rare[int] = Rare(DONE)
    syn_tries: Rare[int] = Rare(0)
    write_ignored: Rare[bool] = Rare(False)  # something was written behind our FIN, or behind the end
    released: Rare[bool] = Rare(False)  # the application has waited long enough: what goes on is only about our FIN
    _port_closed = Rare(False)  # an ICMP error said so when nothing but the ack of our FIN was missing
    _syn_sent_us = Rare(0)
    _connect_deadline_us = Rare(NEVER_US)
    _handshake_deadline_us = Rare(NEVER_US)
    _linger_deadline_us = Rare(NEVER_US)
    _parts: Rare[PartJoiner | None] = Rare(None)  # of the peer's segments
    _update_backoff = Rare(0)
    segments_early: Rare[int] = Rare(0)  # something before these segments was lost, or overtaken
    keep_alive: Rare[bool] = Rare(False)  # the application wants keepalives, see set_keep_alive

    __slots__ = (
        "_downlink",
        "_look_from",
        "_unheard",
        "_update_deadline_us",
        "_watch",
        "accepted",
        "bytes_received",
        "deadline_us",
        "owner",
        "touched",
    )

    def __init__(
        self,
        address: Address,
        receive_id: int,
        send_id: int,
        initial_sequence: int,
        settings: Settings,
        headers: HeaderBlock,
        segment_bytes: int,
        link_mtu: Callable[[Address], int | None],
        memory: ReceiveMemory,
        watch: Watch,
        downlink: Downlink,
        crowd: Crowd,
    ) -> None:
        super().__init__()
        self._rare: dict[str, Any] | None = None

        # who we are
        self.address = address
        self.receive_id: int = receive_id
        self.send_id: int = send_id
        self.settings: Settings = settings
        self.owner: Any = None  # the shell's own; never touched here
        self.initiator: bool = False
        self.accepted: bool = False  # handed to the application, or refused by it

        # state
        self.state: int = CLOSED
        self.initial_sequence: int = initial_sequence  # of our SYN, or of our SYN-ACK and first DATA
        self.syn_sequence: int = 0  # of the peer's SYN, 16 bits
        self.fin_requested: bool = False
        self.fin_sequence: int | None = None
        self.eof_sequence: int | None = None
        self._unheard = False  # we answered the SYN-ACK, and do not know whether the peer heard it
        self._closing = False  # the application is gone: incoming data is acknowledged and discarded

        # the stream, both ways
        self.sending: Flow = Flow(initial_sequence, segment_bytes, settings, crowd)
        self._headers = headers
        self._link_mtu = link_mtu
        self.reply_us: int = 0  # what we send back as timestamp difference; 0 until the peer's first timestamp
        self.receiving: ReceiveBuffer = ReceiveBuffer(settings.receive_buffer_bytes, memory)
        self.advertised_bytes: int = settings.receive_buffer_bytes  # free in the buffer when we sent our last packet
        self._downlink = downlink  # of the whole UDP port
        self._yielding: Yielding | None = None  # what is known of incoming data, once there is much of it
        self.intake: Intake | None = None  # while the peer's rate is capped
        # the count of received segments at which a wait is measured next
        self._look_from = NEVER_US if settings.receive_target_delay_us is None else WATCHED_SEGMENTS

        # timers, microseconds of the monotonic clock
        self.deadline_us: int = NEVER_US  # when `handle_timeout` wants to be called
        self.scheduled_us = NEVER_US  # what the multiplexer's heap knows of it
        self.touched: bool = False  # the multiplexer's: waits to be settled
        self._watch = watch
        self._update_deadline_us = NEVER_US  # repeat a STATE that nothing acknowledges: window update, proof of source

        # what next_batch has to send besides data
        self._due = 0
        self._peer_reads_extensions = False  # it has sent one itself
        self._shows = 0  # so many STATEs show the peer that we read extensions
        self._welcomes = 0  # in so many STATEs the peer hears that it may send large datagrams

        # see `parts.py`
        self.small_paths: SmallPaths | None = None  # of the multiplexer
        self.small_until_us = 0  # segments are small because another connection found a black hole
        self._swallows_bytes = 0  # datagrams of this size vanish on the path; segments of theirs leave in parts
        self._says = b""  # EXTENSION_BITS of the next STATE

        # counters
        self.bytes_received: int = 0  # payload that was new
        self.segments_sent = 0  # packets of every type
        self.segments_received: int = 0
        self._bulk_from = BULK_RECEIVED_SEGMENTS  # so many received: we have said nothing for long

    def __repr__(self) -> str:
        return f"<Connection {STATE_NAMES[self.state]} {remote_of(self.address)} receive_id={self.receive_id}>"

    # -- questions --

    @property
    def at_eof(self) -> bool:
        """Everything up to the peer's FIN has arrived (though the application may not have taken it all)."""
        return self.eof_sequence is not None and self.receiving.next_sequence > self.eof_sequence

    @property
    def fin_acknowledged(self) -> bool:
        """The peer has everything that was written, and knows that it was all."""
        return self.fin_sequence is not None and self.sending.first_unacked > self.fin_sequence

    @property
    def closing(self) -> bool:
        """``close`` was called, and somebody waits for the end."""
        return self._closing and self.state != CLOSED and not self.released

    @property
    def awaits_reader(self) -> bool:
        """The peer has ended its stream, and the application has not taken all of it: the peer may be gone by now."""
        return self.eof_sequence is not None and self.receiving.ready_bytes > 0 and self.at_eof

    @property
    def keepalive_us(self) -> int | None:
        """After so long without sending a keepalive goes out; None: never."""
        if self.eof_sequence is not None and self.awaits_reader:
            return None  # it would draw a RESET from a peer that has closed
        keepalive_us = self.settings.keepalive_us
        if keepalive_us is None:
            if not self.keep_alive:
                return None
            keepalive_us = KEEPALIVE_US
        return keepalive_us if self.initiator else keepalive_us + keepalive_us // PATIENCE

    @property
    def may_probe(self) -> bool:
        """Whether nothing of ours is on its way, or waits to be, that the peer has to answer."""
        return not self.sending.runs and not self.sending.unsent_bytes

    @property
    def last_ack_may_be_lost(self) -> bool:
        """It ended well, but on a path that loses packets: the peer may ask for the ack of its FIN once more.

        That cannot be if each transmission of our FIN carried that ack, for the peer has acknowledged one of them.
        (In TCP the passive closer has no TIME-WAIT for the same reason, RFC 9293 3.6.)
        """
        lossy = self.sending.losses or self.segments_early
        ended_well = lossy and self.state == CLOSED and self.close_reason == DONE
        return bool(ended_well and self.at_eof and self.fin_acknowledged and not self._fin_acknowledges_eof)

    @property
    def is_bulk(self) -> bool:
        """Much flows in one direction, and nobody waits for each packet.

        What is in flight has to last while nobody looks for answers: on a path shorter than that each one counts.
        """
        sending = self.sending
        return self.segments_received >= self._bulk_from or (
            sending.flight_bytes >= BULK_SEGMENTS * sending.segment_bytes
            and sending.round_trip.smoothed_us >= BULK_ROUND_TRIP_US
        )

    def stats(self, now_us: int) -> ConnectionStats:
        """How the connection is doing."""
        sending = self.sending
        round_trip = sending.round_trip
        steering = sending.steering
        yielding = self._yielding
        cap, intake = sending.cap, self.intake
        receive_window = self.receiving.window_bytes
        if yielding:
            receive_window = yielding.bound_bytes(receive_window)
        if intake:
            receive_window = intake.bound_bytes(receive_window)
        if yielding:
            receive_waited_us = yielding.waited_us
        else:
            receive_waited_us = steering.delay.theirs.above_base_us(self.reply_us) if steering else 0
        return ConnectionStats(
            state=STATE_NAMES[self.state],
            close_reason=REASON_NAMES[self.close_reason] if self.state == CLOSED else None,
            rtt=round_trip.smoothed_us / 1_000,
            rttvar=round_trip.variation_us / 1_000,
            minrtt=round_trip.minimum_us / 1_000,
            rto=sending.timeout_us / 1_000,
            queue_delay=steering.queue_delay_us / 1_000 if steering else 0.0,
            base_delay=signed32(steering.delay.ours.base_us) / 1_000 if steering else 0.0,
            target=steering.controller.target_delay_us / 1_000 if steering else 0.0,
            cwnd=sending.window_bytes,
            mss=sending.segment_bytes,
            pmtu=sending.segment_bytes + HEADER_BYTES + ip_overhead_bytes(self.address),
            pacing_rate=sending.pacing_rate,
            delivery_rate=steering.delivery.bytes_per_second if steering else 0.0,
            send_window=sending.peer_window_bytes,
            receive_window=receive_window,
            receive_queue_delay=receive_waited_us / 1_000,
            receive_target=yielding.target_delay_us / 1_000 if yielding else 0.0,
            receive_rate=yielding.rate if yielding else 0.0,
            up_limit=cap.bytes_per_second if cap else None,
            down_limit=intake.cap.bytes_per_second if intake else None,
            held=cap.held_us(now_us) / 1_000 if cap else 0.0,
            unsent=sending.unsent_bytes,
            unacked=sending.outstanding,
            in_flight=sending.flight_bytes,
            lost=sending.lost_segments,
            lastsnd=(now_us - self._last_sent_us) / 1_000 if self.segments_sent else 0.0,
            lastrcv=(now_us - self._last_received_us) / 1_000 if self._last_received_us else 0.0,
            bytes_sent=sending.bytes_sent + sending.bytes_resent,
            bytes_retrans=sending.bytes_resent,
            bytes_acked=sending.bytes_sent - (sending.unacked_bytes - sending.unsent_bytes),
            bytes_received=self.bytes_received,
            segs_out=self.segments_sent,
            segs_in=self.segments_received,
            segs_retrans=sending.segments_resent,
            timeouts=sending.total_timeouts,
        )

    def add_to(self, totals: StreamTotals) -> None:
        """Add to ``totals`` what the connection has counted; at its end, or to a copy of the totals."""
        sending = self.sending
        totals.connections += 1
        totals.bytes_acked += sending.acknowledged_bytes
        totals.bytes_received += self.bytes_received
        totals.bytes_retrans += sending.bytes_resent
        totals.bytes_sent += sending.bytes_sent + sending.bytes_resent
        totals.segs_in += self.segments_received
        totals.segs_out += self.segments_sent
        totals.segs_retrans += sending.segments_resent
        totals.timeouts += sending.total_timeouts

    # -- verbs of the handshake, called by the multiplexer --

    def open(self, now_us: int, timeout_us: int) -> None:
        """Begin as initiator: a SYN, repeated until it is answered or ``timeout_us`` are over."""
        self.initiator = True
        self.state = SYN_SENT
        self.sending.renumber(self.initial_sequence + 1)  # the SYN takes a number
        self._connect_deadline_us = now_us + timeout_us
        self._send_syn(now_us)
        self._set_deadline()  # the SYN may have to wait for our own socket

    def reopen(self, receive_id: int, initial_sequence: int) -> None:
        """The SYNs so far were in vain: try as somebody new."""
        self.receive_id = receive_id
        self.send_id = receive_id + 1 & MASK16
        self.initial_sequence = initial_sequence
        self.sending.renumber(initial_sequence + 1)

    def hole_opened(self, now_us: int) -> None:
        """A SYN came from where ours goes, so the way is open now, through filters that may have swallowed ours.

        It is repeated sooner then, but not before an answer to it can have come.
        """
        if self.state == SYN_SENT:
            soonest_us = max(now_us, self._syn_sent_us + self.settings.minimum_timeout_us)
            self._handshake_deadline_us = min(self._handshake_deadline_us, soonest_us)
            self._set_deadline()

    @property
    def wants_fresh_id(self) -> bool:
        """Whether the SYN that is due should go out under another id."""
        return bool(self._due & SYN_DUE) and self.syn_tries > 1 and self.syn_tries % SYN_TRIES_PER_ID == 1

    def answer(self, sequence: int, timestamp_us: int, now_us: int) -> None:
        """Begin as acceptor: a SYN with this sequence number came; the SYN-ACK is due."""
        self.state = SYN_RECEIVED
        self.syn_sequence = sequence
        self.receiving.next_sequence = sequence + 1
        # One peer puts milliseconds into its SYN, so the timestamp is echoed but not kept as a sample.
        self.reply_us = now_us - timestamp_us & MASK32 if timestamp_us else 0
        self._last_received_us = now_us
        self._handshake_deadline_us = now_us + self.settings.half_open_timeout_us
        self._due |= SYN_ACK_DUE
        self._set_deadline()  # the SYN-ACK may have to wait for our own socket

    def restore(self, syn_sequence: int, initial_sequence: int, now_us: int) -> None:
        """Begin as acceptor where a SYN was answered and not remembered; what follows is the packet that proves it."""
        self.initial_sequence = initial_sequence
        self.sending.renumber(initial_sequence)
        self.answer(syn_sequence, 0, now_us)
        self._due = 0

    def answer_again(self) -> None:
        """The same SYN came once more: the same SYN-ACK is due (another number would cut the stream's head off)."""
        self._due |= SYN_ACK_DUE

    def hurry(self, deadline_us: int) -> None:
        """Wait for the proof of the source until then at the latest."""
        self._handshake_deadline_us = min(self._handshake_deadline_us, deadline_us)
        self._set_deadline()

    # -- packets --

    def receive(
        self,
        kind: int,
        sequence16: int,
        ack16: int,
        window_bytes: int,
        timestamp_us: int,
        difference_us: int,
        selective: int,
        payloads: Sequence[bytes],
        payload_bytes: int,
        now_us: int,
    ) -> None:
        """A DATA, FIN or STATE packet, or a run of DATA packets that are alike.

        ``selective`` is the mask of a selective ack, 0 if there was none or it was empty; both mean the same.
        ``sequence16`` is that of the first packet of a run; everything else is from the last one.  Nothing changes
        if the packet cannot belong to this connection as it is.
        """
        sending = self.sending
        ack = unwrap(ack16, sending.next_sequence)

        # handshake, or a proof that the peer saw what we sent
        if self.state == CONNECTED:
            if not sending.first_unacked - 1 - ACK_SLACK <= ack < sending.next_sequence:
                if kind != ST_STATE and not self._peer_reads_extensions:
                    self._receive_unchanged(kind, sequence16, ack, payloads, payload_bytes, now_us)
                return
            if self._unheard and not self._is_syn_ack(kind, sequence16, ack):
                self._unheard = False
                self._update_deadline_us = NEVER_US
        elif self.state == SYN_RECEIVED:
            if ack != sending.first_unacked - 1:
                return
            self._connected(now_us)
        elif self.state == SYN_SENT:
            # Other types are ignored unacknowledged, so that their payload comes again behind the SYN-ACK.
            if kind != ST_STATE or ack != sending.first_unacked - 1:
                return
            self._answered(sequence16, now_us)
        else:
            return

        self.segments_received += len(payloads) or 1
        self._last_received_us = now_us
        if self._probes:
            # nothing but a probe draws a STATE that says nothing new
            is_new = sending.runs or ack != sending.first_unacked - 1 or window_bytes != sending.peer_window_bytes
            self._on_heard(kind == ST_STATE and not is_new)
        if timestamp_us:
            self.reply_us = reply_us = now_us - timestamp_us & MASK32
            if sending.steering is not None:
                sending.steering.delay.on_reply(reply_us, now_us)

        # what the peer says of our data
        sequence = unwrap(sequence16, self.receiving.next_sequence)
        window_grew = sending.receive_window(ack, sequence, window_bytes)
        if sending.runs:
            pure_ack = kind == ST_STATE and not window_grew
            sending.receive_ack(ack, selective, difference_us, pure_ack, now_us)

        # its own data
        if kind != ST_STATE:
            self._receive_data(kind, sequence, payloads, payload_bytes)
            if self.segments_received >= self._look_from and payloads and timestamp_us:
                self._look(reply_us, difference_us, len(payloads[-1]), now_us)
        if self.intake is not None:
            self.intake.on_packets(len(payloads) or 1, payload_bytes, now_us)
        if self._closing:
            self._finish_if_done(now_us)

    def _look(self, reply_us: int, difference_us: int, size: int, now_us: int) -> None:
        """See how long the last packet waited on its way; the window that it leads to is in the next header."""
        yielding = self._yielding
        if yielding is None:
            if size < LEAST_WATCHED_BYTES:
                self._look_from = self.segments_received + WATCHED_SEGMENTS
                return
            target_us = self.settings.receive_target_delay_us
            assert target_us is not None
            yielding = self._yielding = Yielding(
                target_us, self._downlink, self._open_window, self.bytes_received, now_us
            )
        self._look_from = self.segments_received + yielding.on_data(
            now_us,
            reply_us,
            difference_us,
            size,
            self.bytes_received,
            self.sending.round_trip.smoothed_us,
            self.receiving,
        )

    def _open_window(self) -> None:
        """It is the peer's turn: a STATE tells it so, again and again until its data comes."""
        self.tell_window(until_heard=True)

    def tell_window(self, until_heard: bool) -> None:
        """Let a STATE tell the peer of its window; again and again until data comes if ``until_heard``."""
        if self.state == CONNECTED:
            self._due |= ACK_DUE
            if until_heard:
                self._repeat_state()
            self._downlink.touch(self)

    @property
    def round_trip_us(self) -> int:
        """The smoothed round trip, by our data or the peer's; 0 if neither tells it."""
        yielding = self._yielding
        return (yielding.round_trip.smoothed_us if yielding else 0) or self.sending.round_trip.smoothed_us

    def _is_syn_ack(self, kind: int, sequence16: int, ack: int) -> bool:
        """Whether a packet may be the SYN-ACK once more, which shows nothing of what we have sent since.

        It may have been duplicated on its way, or be the answer to a SYN that was repeated.  What only a server can
        send that has heard us differs: DATA, a FIN, a keepalive (with an older ack), an ack of more than the SYN.
        """
        return kind == ST_STATE and ack == self.initial_sequence and sequence16 == self.receiving.next_sequence & MASK16

    def receive_extensions(self, selective: int | None, bits: bytes, now_us: int) -> None:
        """The packet that was just received had a selective ack, maybe empty, or EXTENSION_BITS, or both.

        The peer reads extensions then, so it may be sent some.  An empty selective ack asks us to show the same, unless
        it answers our own question.
        """
        mtu = self.sending.mtu
        if not self._peer_reads_extensions:
            self._peer_reads_extensions = True
            if mtu is not None:
                mtu.peer_reads_extensions = True
            if selective == 0 and (mtu is None or not mtu.has_asked):
                self._shows = ANSWERS
        if self.state != CONNECTED:
            return
        if bits == PARTS_WANTED:
            self._says = PARTS_WELCOME
            self._due |= ACK_DUE
        elif bits == PARTS_WELCOME:
            self._on_parts_welcome(now_us)
        elif bits == LARGE_WANTED:
            self._welcomes = WELCOMES
            self._due |= ACK_DUE
        elif bits == LARGE_WELCOME and mtu is not None:
            mtu.on_welcome()

    def receive_part(
        self,
        sequence16: int,
        ack16: int,
        window_bytes: int,
        timestamp_us: int,
        difference_us: int,
        selective: int,
        bits: bytes,
        payload: bytes,
        now_us: int,
    ) -> None:
        """A DATA packet with a part of a segment.  The last part brings the whole segment; the others draw no ack."""
        payloads: tuple[bytes, ...] = ()
        receiving = self.receiving
        sequence = unwrap(sequence16, receiving.next_sequence)
        ack = unwrap(ack16, self.sending.next_sequence)
        if sequence < receiving.next_sequence or sequence in receiving.early:
            payloads = (payload,)  # it has come before, and the peer has not heard that
        elif self.state == CONNECTED and self.sending.first_unacked - 1 - ACK_SLACK <= ack < self.sending.next_sequence:
            if self._parts is None:
                self._parts = PartJoiner()
            if not receiving.would_refuse(sequence, bytes_of_segment(bits)):
                joined = self._parts.add(sequence, receiving.next_sequence, bits, payload)
                payloads = () if joined is None else (joined,)
        due = self._due
        self.receive(
            ST_DATA,
            sequence16,
            ack16,
            window_bytes,
            timestamp_us,
            difference_us,
            selective,
            payloads,
            sum(map(len, payloads)),
            now_us,
        )
        if not payloads:
            self._due &= ~ACK_DUE | due

    def receive_reset(self, ack16: int, now_us: int) -> None:
        """A RESET for this connection; it counts only if its ack shows that the sender sees our packets."""
        sending = self.sending
        if self.state == SYN_SENT:
            if ack16 == self.initial_sequence & MASK16:
                self._close(REFUSED_BY_PEER)
            return
        ack = unwrap(ack16, sending.next_sequence)
        # It acknowledges the number of the packet that it answers; a STATE carries that of the next one to be sent.
        if self.state == CLOSED or not sending.first_unacked - 1 - ACK_SLACK <= ack <= sending.next_sequence:
            return
        self.forgotten()

    def port_is_closed(self) -> None:
        """The peer's host says that nobody has the port.

        That is easily forged, so a single error counts only as long as nothing has shown that the peer knows this
        connection (RFC 5927): a server may have stopped right after its SYN-ACK.  And when both streams have arrived it
        says that our FIN need not go on alone, behind the application's back.
        """
        if self.state != CONNECTED:
            return
        if self._unheard:
            self.forgotten()
        elif self._closing and self._is_complete:
            self._port_closed = True
            if self.released:
                self._close(DONE)

    def doubt(self, now_us: int) -> None:
        """Probe the peer now and a while later: an ICMP error says that it is gone."""
        if self.state == CONNECTED:
            self._due |= PROBE_DUE
            self._doubt(now_us)
            self._set_deadline()

    def forgotten(self, reason: int = RESET) -> None:
        """The peer does not know us any more, or is gone."""
        # After a complete exchange peers answer late packets so (libutp).
        self._close(DONE if self._is_complete else reason)

    @property
    def _is_complete(self) -> bool:
        """Both streams have arrived; the ack of our FIN may be missing, and that of a peer that nobody reads."""
        sending = self.sending
        everything_arrived = not sending.unsent_bytes and (
            not sending.outstanding or sending.first_unacked == self.fin_sequence
        )
        # the application that has not closed waits for more of their stream, until its end
        return everything_arrived and (self.at_eof or self._closing)

    # -- the application's wishes --

    def write(self, data: bytes) -> None:
        """Append bytes, at least one, to the stream; ignored once the FIN is on its way, as TCP does."""
        if self.fin_sequence is None and self.state != CLOSED:
            self.sending.write(data)
        else:
            self.write_ignored = True

    def shutdown(self) -> None:
        """End our half of the stream behind what was written; the peer may go on."""
        self.fin_requested = True

    def close(self, now_us: int) -> None:
        """End our half, discard what still comes, and go when the peer has everything (or is gone)."""
        if self.state == CLOSED:
            return
        self._closing = True
        self.fin_requested = True
        self.receiving.discard()
        if self.state != CONNECTED and not self.sending.unsent_bytes:
            self._close(DONE)
            return
        self._finish_if_done(now_us)

    def abort(self, reason: int = ABORTED) -> None:
        """Forget everything at once and tell the peer with a RESET."""
        if self.state in (CONNECTED, SYN_RECEIVED):
            self._due = RESET_DUE
        self._close(reason)

    def fail(self, reason: int) -> None:
        """End at once without a word to the peer."""
        self._close(reason)

    def set_keep_alive(self, enabled: bool) -> None:
        """Send keepalives although ``Settings.keepalive_us`` is None; or again only if it is not.

        They keep the bindings of NATs open, and tell whether the peer is there, as those of TCP do: a peer that has
        been silent for 57 seconds, and has left at least 20 probes unanswered, ends the connection with TIMED_OUT.
        That holds for a peer that has answered a probe before, as those of txutp, libutp and libtorrent do; one that
        never has is only told that we are here.
        """
        self.keep_alive = enabled
        self._set_deadline()

    def use_settings(self, settings: Settings) -> None:
        """Take other settings than those of the port, if next to nothing was sent and received yet.

        Congestion control, in both directions, begins with the first packets that can tell something.
        """
        if self.sending.steering is None and self._yielding is None:
            self.settings = settings
            self.sending.use_settings(settings)
            self._look_from = NEVER_US if settings.receive_target_delay_us is None else WATCHED_SEGMENTS

    def limit_window(self, limit_bytes: int) -> None:
        """Hold no more than this for the application, nor more than the settings say, and let the peer send no more."""
        self.receiving.capacity_bytes = capacity_bytes = min(limit_bytes, self.settings.receive_buffer_bytes)
        self.advertised_bytes = min(self.advertised_bytes, capacity_bytes)

    def take(self, limit_bytes: int) -> bytes:
        """The next bytes of the stream; empty if there are none.  Taking opens the window again."""
        receiving = self.receiving
        if not receiving.ready_bytes:
            return b""
        data = receiving.take(limit_bytes)
        if self.advertised_bytes < receiving.capacity_bytes // 4:
            self._update_window()
        return data

    # -- time --

    def judges_silence(self, now_us: int) -> bool:
        """Whether ``handle_timeout`` would take the peer's silence for an answer: then read first what it has said."""
        if self.state != CONNECTED:
            return True
        return (
            now_us >= self._linger_deadline_us
            or now_us >= self._idle_deadline_us
            or self.sending.judges_silence(now_us)
            or self.is_on_trial(self.keepalive_us or 0, now_us)
        )

    def handle_timeout(self, now_us: int) -> None:
        """Do what is due at ``now_us``; harmless when nothing is."""
        if self.state == CONNECTED:
            self._handle_connected_timeout(now_us)
        elif self.state == SYN_SENT:
            if now_us >= self._connect_deadline_us:
                self._close(CONNECT_TIMED_OUT)
            elif now_us >= self._handshake_deadline_us:
                self._send_syn(now_us)
        elif self.state == SYN_RECEIVED and now_us >= self._handshake_deadline_us:
            self._close(TIMED_OUT)
        self._set_deadline()

    # -- handshake --

    def _send_syn(self, now_us: int) -> None:
        self._due |= SYN_DUE
        wait_us = self.settings.syn_timeout_us << self.syn_tries
        self.syn_tries += 1
        self._syn_sent_us = now_us
        self._handshake_deadline_us = now_us + wait_us

    def _answered(self, sequence16: int, now_us: int) -> None:
        """Our SYN was answered.  The SYN-ACK takes no number: the peer's first DATA carries the same one."""
        self.receiving.next_sequence = sequence16
        if self.syn_tries == 1:
            self.sending.round_trip.on_sample(now_us - self._syn_sent_us)
        # A server that speaks first waits for this STATE, and nothing would repeat it for its own sake.
        self._due = ACK_DUE
        self._unheard = True
        self._repeat_state()
        self._connected(now_us)

    def _connected(self, now_us: int) -> None:
        self._move(CONNECTED)
        self._handshake_deadline_us = self._connect_deadline_us = NEVER_US
        self._syn_sent_us = self.syn_tries = 0
        self._last_sent_us = now_us
        self._begin_trials(now_us)
        self.sending.begin(now_us)
        if self.intake is not None:
            self._open_window()

    # -- data --

    def _receive_unchanged(
        self, kind: int, sequence16: int, ack: int, payloads: Sequence[bytes], payload_bytes: int, now_us: int
    ) -> None:
        """Take the data of a packet whose ack is too old for a reordered one; nothing else in it is news.

        Npm's utp repeats packets as they were, with the ack of the first time.  As in TCP an ack may be as old as what
        may be in flight (RFC 5961 5.2).  Forged data is refused more strictly where the peer has shown an extension,
        which npm's utp knows none of.
        """
        if not 0 < self.sending.first_unacked - ack <= self.settings.maximum_outstanding_packets:
            return
        self.segments_received += len(payloads) or 1
        self._last_received_us = now_us
        self._receive_data(kind, unwrap(sequence16, self.receiving.next_sequence), payloads, payload_bytes)
        if self._closing:
            self._finish_if_done(now_us)

    def _receive_data(self, kind: int, sequence: int, payloads: Sequence[bytes], payload_bytes: int) -> None:
        receiving = self.receiving
        self._due |= ACK_DUE
        eof_sequence = self.eof_sequence

        # what is in order is taken whole, one packet or a run
        if (
            sequence == receiving.next_sequence
            and payload_bytes
            and kind == ST_DATA
            and eof_sequence is None
            and receiving.insert_run(payloads, payload_bytes)
        ):
            self._update_deadline_us = NEVER_US
            self.bytes_received += payload_bytes
            if self._closing:
                receiving.discard()
            return

        # FIN: from here on nothing can follow
        if eof_sequence is not None and sequence > eof_sequence:
            return
        if kind == ST_FIN:
            if eof_sequence is None and sequence >= receiving.next_sequence:
                if receiving.would_refuse(sequence, payload_bytes):
                    return
                self.eof_sequence = sequence
                receiving.forget_behind(sequence)
            elif sequence != eof_sequence:
                return
            if not payloads:
                payloads = (b"",)

        for payload in payloads:
            if self.eof_sequence is not None and sequence > self.eof_sequence:
                break
            result = receiving.insert(sequence, payload)
            sequence += 1
            if result == IN_ORDER:
                self._update_deadline_us = NEVER_US
                self.bytes_received += len(payload)
                if self._closing:
                    receiving.discard()
            elif result == EARLY:
                self._update_deadline_us = NEVER_US
                self.bytes_received += len(payload)
                self.segments_early += 1
            elif result == DUPLICATE:
                self._bulk_from += 1  # no part of a stream: a probe, most likely
                if self.fin_sequence is not None:
                    # The peer repeats what we acknowledged: libtorrent ignores STATEs numbered behind our FIN, libutp
                    # those numbered like it, so it gets one of each.
                    self._due |= FIN_ACK_DUE

    def _update_window(self) -> None:
        """The application read, and the peer may think that there is no room: tell it when there is."""
        receiving = self.receiving
        enough_bytes = receiving.limit_bytes // 4
        if self.advertised_bytes < enough_bytes <= receiving.window_bytes and self.state == CONNECTED:
            self._due |= ACK_DUE
            self._repeat_state()

    def _repeat_state(self) -> None:
        """Send the STATE that is due again, a few times, unless something shows that it arrived."""
        self._update_backoff = 0
        self._update_deadline_us = 0  # armed with the next deadline

    # -- close --

    def _finish_if_done(self, now_us: int) -> None:
        """The application is gone: so are we, once the peer has our FIN and we have its.

        The application waits for the second of the two only a while: all data has arrived, and peers are known to
        vanish without their FIN, or without acknowledging ours (libutp forgets a connection when its own FIN is
        acknowledged).  Behind its back our FIN goes on as long as data would: a peer that has not heard it waits for
        it.
        """
        if self.state != CONNECTED:
            return
        at_eof = self.at_eof
        fin_acknowledged = self.fin_acknowledged
        if fin_acknowledged and at_eof:
            self._close(DONE)
        elif self._linger_deadline_us == NEVER_US and (
            fin_acknowledged or (at_eof and self.sending.first_unacked == self.fin_sequence and not self.released)
        ):
            # time enough to send our own FIN twice
            self._linger_deadline_us = now_us + max(self.settings.close_timeout_us, 3 * self.sending.timeout_us)

    def _release(self) -> None:
        """Let the application go; our FIN is sent on until it is acknowledged, or was tried as often as data.

        If nobody is there who could hear it, the connection ends instead.
        """
        self._linger_deadline_us = NEVER_US
        if self._port_closed:
            self._close(DONE)
        else:
            self.released = True

    def _close(self, reason: int) -> None:
        if self.state == CLOSED:
            return
        self._move(CLOSED)
        self.close_reason = reason
        self._due &= RESET_DUE | ACK_DUE | FIN_ACK_DUE
        self.deadline_us = NEVER_US

    def _move(self, state: int) -> None:
        assert state in MOVES[self.state], f"{STATE_NAMES[self.state]} to {STATE_NAMES[state]}"
        self.state = state

    # -- timers --

    def _set_deadline(self) -> None:
        """The earliest of all timers that run.

        A timer that has rung runs no more, or from then on: our own socket may take nothing for a while, so that what
        is due does not leave, and a deadline that only sending moves would ring without end.
        """
        if self.state != CONNECTED:
            self.deadline_us = (
                NEVER_US if self.state == CLOSED else min(self._handshake_deadline_us, self._connect_deadline_us)
            )
            return
        deadline_us = self.sending.deadline_us
        if self._linger_deadline_us < deadline_us:
            deadline_us = self._linger_deadline_us
        if self._doubt_deadline_us < deadline_us:
            deadline_us = self._doubt_deadline_us
        if self._yielding is not None and self._yielding.looks_again_us < deadline_us:
            deadline_us = self._yielding.looks_again_us
        if self.intake is not None and self.intake.due_us < deadline_us:
            deadline_us = self.intake.due_us
        keepalive_us = self.keepalive_us
        if keepalive_us is not None and not self._due & (KEEPALIVE_DUE | PROBE_DUE):
            deadline_us = min(deadline_us, self._presence_deadline_us(keepalive_us))
        if self.settings.idle_timeout_us is not None:
            deadline_us = min(deadline_us, self._idle_deadline_us)
        if self._update_deadline_us != NEVER_US:
            if not self._update_deadline_us:
                self._update_deadline_us = self._last_sent_us + self.sending.timeout_us
            deadline_us = min(deadline_us, self._update_deadline_us)
        self.deadline_us = deadline_us

    def _presence_deadline_us(self, keepalive_us: int) -> int:
        """When the peer is to be told that we are here, or asked whether it is."""
        may_probe = self.may_probe
        interval_us = self._ask_interval_us(keepalive_us) if may_probe else keepalive_us
        deadline_us = self.presence_deadline_us(spread(keepalive_us, self._common_id), may_probe, interval_us)
        if self._receives_stream:
            deadline_us = min(deadline_us, self._last_received_us + min(STALL_US, keepalive_us))
        return deadline_us

    def _ask_interval_us(self, keepalive_us: int) -> int:
        """After how much silence the peer is probed."""
        progress = self.receiving.next_sequence + self.sending.first_unacked
        interval_us = self.ask_interval_us(keepalive_us, self._watch.soonest_us, progress, not self.initiator)
        return spread(interval_us, self._common_id)

    @property
    def _common_id(self) -> int:
        """The id of the connection in its SYN, which both ends know."""
        return self.receive_id if self.initiator else self.send_id

    @property
    def _receives_stream(self) -> bool:
        """Whether the peer sends, and nothing of ours leaves that would draw an error if it was gone."""
        return self.segments_received >= self._bulk_from - BULK_RECEIVED_SEGMENTS + STREAM_SEGMENTS and self.may_probe

    @property
    def _idle_deadline_us(self) -> int:
        """When the silence of the peer has lasted too long, where the settings say what that is."""
        idle_us = self.settings.idle_timeout_us
        if idle_us is None or self.awaits_reader:
            return NEVER_US
        # a reader that took the end late answers it only now
        answers_end = self._closing and self.at_eof
        return idle_us + (max(self._last_received_us, self._last_sent_us) if answers_end else self._last_received_us)

    def _handle_connected_timeout(self, now_us: int) -> None:
        settings = self.settings
        # one of the two FINs does not come, or the ack of ours
        if now_us >= self._linger_deadline_us:
            if self.fin_acknowledged:
                self._close(DONE)
            else:
                self._release()
            if self.state == CLOSED:
                return
        if settings.idle_timeout_us is not None and now_us >= self._idle_deadline_us:
            self.abort(DONE if self._is_complete else TIMED_OUT)
            return
        # nothing came back
        if self.sending.handle_timeout(now_us, self._last_received_us):
            timeouts = self.sending.timeouts
            if timeouts >= settings.maximum_timeouts:
                self._remember_if_swallowed(now_us)
                self.abort(DONE if self._is_complete else TIMED_OUT)
                return
            if timeouts >= FIN_TIMEOUTS and self._closing and self.sending.first_unacked == self.fin_sequence:
                self._release()
                if self.state == CLOSED:
                    return
        if self.sending.is_stuck:
            self._ask_behind_large(now_us)
        # a STATE that matters may be lost
        if now_us >= self._update_deadline_us > 0:
            self._update_backoff += 1
            self._due |= ACK_DUE
            self._update_deadline_us = (
                NEVER_US
                if self._update_backoff >= STATE_REPEATS
                else now_us + (self.sending.timeout_us << self._update_backoff)
            )
        yielding = self._yielding
        if yielding is not None:
            if now_us >= yielding.looks_again_us:
                yielding.wait_on(now_us)
            if yielding.is_idle(now_us):
                self._downlink.leave(yielding)
                self._yielding = None
                self._look_from = self.segments_received + WATCHED_SEGMENTS
        if self.intake is not None and now_us >= self.intake.due_us:
            self.intake.ask(now_us)
        # an ICMP error has said that the peer is gone
        if now_us >= self._doubt_deadline_us and self._must_confirm(now_us):
            self._due |= PROBE_DUE
        # is the peer there, and does the NAT know that we are?
        keepalive_us = self.keepalive_us
        if keepalive_us is None or now_us < self._presence_deadline_us(keepalive_us):
            return
        if self._receives_stream:
            self._due |= PROBE_DUE  # once, until more has come
            return
        presence = self.presence(keepalive_us, self.may_probe, self._ask_interval_us(keepalive_us), now_us)
        if presence == GIVE_UP:
            self.abort(DONE if self._is_complete else TIMED_OUT)
        else:
            self._due |= PROBE_DUE if presence == PROBE else KEEPALIVE_DUE
