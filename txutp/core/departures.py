"""The datagrams of a connection: which ones leave next, and their contents.

The shell pulls them with ``next_batch``.  ``_due`` has a bit for each packet without data that has to leave; data comes
from ``Flow``.  A datagram that the socket refuses counts as not sent: ``refuse`` restores counters and due bits.
"""

from __future__ import annotations

from txutp.core.batch import Batch, Buffer
from txutp.core.due import (
    ACK_DUE,
    FIN_ACK_DUE,
    KEEPALIVE_DUE,
    PROBE_DUE,
    RESET_DUE,
    SHOWN,
    SYN_ACK_DUE,
    SYN_DUE,
    WELCOMED,
)
from txutp.core.fitting import Fitting
from txutp.core.flow import BULK_SEGMENTS
from txutp.core.intake import Intake
from txutp.core.packet import (
    BITS_BYTES,
    EMPTY_SELECTIVE_ACK_BYTES,
    EXTENSION_BITS,
    HEADER_BYTES,
    LARGE_WELCOME,
    NO_EXTENSION,
    SELECTIVE_ACK,
    ST_DATA,
    ST_FIN,
    ST_RESET,
    ST_STATE,
    ST_SYN,
    HeaderBlock,
    encode_bits,
    encode_header,
    encode_padding,
    encode_selective_ack,
)
from txutp.core.parts import encode_part
from txutp.core.rare import Rare
from txutp.core.receiving import ReceiveBuffer
from txutp.core.rtt import PROBE_MARGIN_US
from txutp.core.sending import Run
from txutp.core.states import CONNECTED
from txutp.core.yielding import Yielding

# Packets received in a row, without data of ours in between, from which on the peer's data counts as bulk.
BULK_RECEIVED_SEGMENTS = 32


class Departures(Fitting):
    """The part of a connection that makes its datagrams."""

    __slots__ = (
        "_bulk_from",
        "_closing",
        "_headers",
        "_shows",
        "_welcomes",
        "_yielding",
        "advertised_bytes",
        "eof_sequence",
        "fin_requested",
        "fin_sequence",
        "intake",
        "receive_id",
        "receiving",
        "reply_us",
        "scheduled_us",
        "segments_received",
        "segments_sent",
        "send_id",
        "state",
        "syn_sequence",
    )

    advertised_bytes: int
    eof_sequence: int | None
    fin_requested: bool
    fin_sequence: int | None
    intake: Intake | None
    receive_id: int
    receiving: ReceiveBuffer
    reply_us: int
    scheduled_us: int
    segments_received: int
    segments_sent: int
    send_id: int
    state: int
    syn_sequence: int
    _bulk_from: int
    _closing: bool
    _headers: HeaderBlock
    _shows: int
    _welcomes: int
    _yielding: Yielding | None
    _fin_acknowledges_eof = Rare(False)  # the peer's FIN had arrived when ours left for the first time

    @property
    def at_eof(self) -> bool:
        raise NotImplementedError

    def _finish_if_done(self, now_us: int) -> None:
        raise NotImplementedError

    def _set_deadline(self) -> None:
        raise NotImplementedError

    def next_batch(self, now_us: int) -> Batch | None:
        """Returns the next datagrams to send; None if there is nothing to send now.

        They count as sent.  A batch of several datagrams is valid until the next such batch is made, see ``batch.py``.
        """
        if self.state == CONNECTED:
            sending = self.sending
            batch = None
            repairs = False
            if sending.lost_segments or sending.probe_due:
                batch = self._next_resend(now_us)
                # New segments are smaller than those that are retransmitted in parts, and would use up the window.
                # A retransmission that waits for the pace goes first as well.
                repairs = bool(self._swallows_bytes and sending.lost_segments) or sending.is_paced
            if sending.unsent_bytes and batch is None and not repairs:
                if sending.unsent_bytes >= BULK_SEGMENTS * sending.segment_bytes:
                    batch = self._next_probe(now_us)
                if batch is None:
                    batch = self._next_run(now_us)
            if batch is None and self.fin_requested:
                batch = self._next_fin(now_us)
            if batch is not None:
                return batch
        due = self._due
        if due:
            return self._next_control(due, now_us)
        # A timer that rings soon sets the deadline anew anyway; only in these cases it may have to be earlier.
        if (
            self.scheduled_us > now_us + PROBE_MARGIN_US
            or self._closing
            or self.sending.is_paced
            or self.intake is not None
        ):
            self._set_deadline()
        return None

    def refuse(self, batch: Batch, accepted: int) -> None:
        """The socket took only the first ``accepted`` datagrams of a batch: the others were never sent.

        The caller refuses batches in reverse order, the latest one first.
        """
        run: Run | None
        due, run, index = batch.note
        missing = batch.count - accepted
        self.segments_sent -= missing
        if self.sending.cap is not None:
            self.sending.cap.on_refused(batch, missing, run is not None and not run.is_fin)
        if not accepted:
            self._due |= due & ~(SHOWN | WELCOMED)
            if due & PROBE_DUE:
                self._on_probe_refused()
            self._shows += bool(due & SHOWN)
            self._welcomes += bool(due & WELCOMED)
        if run is None:
            return
        if run.is_fin and index < 0:
            self.fin_sequence = None
        self.sending.refuse(run, index, accepted)

    def _next_resend(self, now_us: int) -> Batch | None:
        """Returns one lost segment: with its number and payload as before, all other fields as of now."""
        lost = self.sending.next_resend(now_us)
        if lost is None:
            return None
        run, index = lost
        payload = run.payloads[index]
        if self._swallows_bytes and HEADER_BYTES + len(payload) > self._parts_datagram_bytes:
            return self._give_parts(run, index, payload, now_us)
        header = self._header(ST_FIN if run.is_fin else ST_DATA, run.first + index, now_us)
        return self._give([header, payload] if payload else [header], 1, run, index, False, now_us)

    def _give_parts(self, run: Run, index: int, payload: Buffer, now_us: int) -> Batch:
        """Returns one segment in parts, which the peer joins (``parts.py``)."""
        datagram_bytes = self._parts_datagram_bytes
        step = datagram_bytes - HEADER_BYTES - EMPTY_SELECTIVE_ACK_BYTES - BITS_BYTES
        header = bytearray(self._header(ST_DATA, run.first + index, now_us))
        header[1] = SELECTIVE_ACK
        header += encode_selective_ack(0, EXTENSION_BITS)
        buffers: list[Buffer] = []
        for offset in range(0, len(payload), step):
            bits = encode_bits(encode_part(offset, len(payload)))
            buffers += [bytes(header) + bits, payload[offset : offset + step]]
        batch = self._give(buffers, len(buffers) // 2, run, index, False, now_us)
        batch.datagram_bytes = datagram_bytes
        return batch

    def too_large(self, batch: Batch) -> None:
        """The interface refused the latest batch, a probe of the path's MTU, as too large: it was never sent."""
        assert self.sending.mtu is not None
        self.sending.mtu.on_lost(certain=True)
        self.refuse(batch, 0)

    def _next_probe(self, now_us: int) -> Batch | None:
        """Returns a full packet with padding that probes the path's MTU; None if no probe is due.

        If the peer has not shown yet that it reads extensions, a STATE with an empty selective ack asks it to.
        """
        sending = self.sending
        if sending.mtu is None and not self._begin_mtu_search():
            return None
        if self._swallows_bytes or self.small_until_us:
            self._remember_path(self._parts_datagram_bytes, now_us)
        probe = sending.next_probe(now_us)
        if probe is None:
            assert sending.mtu is not None
            if sending.mtu.question_due:
                sending.mtu.question_due = False
                self._shows = 1
                self._due |= ACK_DUE
            return None
        run, datagram_bytes = probe
        header = bytearray(self._header(ST_DATA, run.first, now_us))
        header[1] = SELECTIVE_ACK
        header += encode_padding(datagram_bytes - HEADER_BYTES - run.total_bytes)
        batch = self._give([bytes(header), run.payloads[0]], 1, run, -1, False, now_us)
        batch.datagram_bytes = datagram_bytes
        batch.dont_fragment = True
        return batch

    def _next_run(self, now_us: int) -> Batch | None:
        """Returns new data."""
        run = self.sending.next_run(now_us, self.fin_requested)
        if run is None:
            return None
        header = self._header(ST_DATA, run.first, now_us)
        # The peer has no room for a persist probe, and libtorrent ignores DATA that acknowledges its FIN.
        is_read = run.total_bytes <= self.sending.peer_window_bytes and (self.eof_sequence is None or not self.at_eof)
        count = run.count
        if count == 1:
            return self._give([header, run.payloads[0]], 1, run, -1, is_read, now_us)
        buffers: list[Buffer] = [header] * (2 * count)
        buffers[::2] = self._headers.fill(header, run.first, count)
        buffers[1::2] = run.payloads
        return self._give(buffers, count, run, -1, is_read, now_us)

    def _next_fin(self, now_us: int) -> Batch | None:
        """Returns our FIN once all data was sent."""
        sending = self.sending
        if not self.fin_requested or self.fin_sequence is not None or sending.unsent_bytes:
            return None
        run = sending.next_fin(now_us)
        self.fin_sequence = run.first
        self._fin_acknowledges_eof = self.at_eof
        if self._closing:
            self._finish_if_done(now_us)
        return self._give([self._header(ST_FIN, run.first, now_us)], 1, run, -1, True, now_us)

    def _next_control(self, due: int, now_us: int) -> Batch:
        """Returns the most urgent packet without data that is due."""
        sequence = self.sending.next_sequence
        if due & RESET_DUE:
            self._due = 0
            header = self._header(ST_RESET, sequence, now_us)
            return self._give_control(RESET_DUE, header, now_us)
        if due & SYN_DUE:
            self._due &= ~SYN_DUE
            # The SYN has our own id, and its ack has no meaning.
            header = encode_header(ST_SYN, self.receive_id, now_us, 0, self._window_bytes(), self.initial_sequence, 0)
            return self._give_control(SYN_DUE, header, now_us)
        if due & SYN_ACK_DUE:
            self._due &= ~SYN_ACK_DUE
            header = encode_header(
                ST_STATE,
                self.send_id,
                now_us,
                self.reply_us,
                self._window_bytes(),
                self.initial_sequence,
                self.syn_sequence,
            )
            return self._give_control(SYN_ACK_DUE, header, now_us)

        if due & PROBE_DUE:
            # The sequence number is one that the peer has acknowledged, but not our FIN's.  It is not the last such
            # one: npm's utp keeps DATA with that number, and delivers it in the place of a later packet.  Where only
            # our SYN was acknowledged, its number has to do.
            self._due &= ~PROBE_DUE
            self._bulk_from = self.segments_received + BULK_RECEIVED_SEGMENTS
            only_syn = self.initiator and self.sending.first_unacked == self.initial_sequence + 1
            known = self.sending.first_unacked - (1 if only_syn else 2)
            self._on_probe_sent(now_us)
            return self._give_control(PROBE_DUE, self._header(ST_DATA, known, now_us) + b"\0", now_us)

        # an ack, or a keepalive, which is an ack of one packet less (libutp)
        if due & ACK_DUE or not due & FIN_ACK_DUE:
            due &= ACK_DUE | KEEPALIVE_DUE
        else:
            assert self.fin_sequence is not None
            sequence = self.fin_sequence
            due = FIN_ACK_DUE
        self._due &= ~due
        behind = 1 if due == KEEPALIVE_DUE else 0
        # The bits of a selective ack count from the ack, so one that is moved back carries none.
        mask = self.receiving.selective_ack_mask() if self.receiving.early and not behind else 0
        extension = SELECTIVE_ACK if mask or self._shows or self._welcomes or self._says else NO_EXTENSION
        header = self._header(ST_STATE, sequence, now_us, extension, behind)
        if self._says:
            # a lost question or answer is repeated
            header += encode_selective_ack(mask, EXTENSION_BITS) + encode_bits(self._says)
            self._says = b""
            return self._give_control(due, header, now_us)
        if self._welcomes:
            self._welcomes -= 1
            due |= WELCOMED
            header += encode_selective_ack(mask, EXTENSION_BITS) + encode_bits(LARGE_WELCOME)
        elif mask or self._shows:
            header += encode_selective_ack(mask)
        if self._shows:
            self._shows -= 1
            due |= SHOWN
        return self._give_control(due, header, now_us)

    def _header(
        self, kind: int, sequence: int, now_us: int, extension: int = NO_EXTENSION, packets_behind: int = 0
    ) -> bytes:
        """Returns a header with the newest window, and an ack that lies ``packets_behind`` the newest."""
        window_bytes = self._window_bytes()
        ack = self.receiving.next_sequence - 1 - packets_behind
        return encode_header(kind, self.send_id, now_us, self.reply_us, window_bytes, sequence, ack, extension)

    def _window_bytes(self) -> int:
        """Returns the window to advertise: the room in the buffer, or less if the peer shall yield, or is capped."""
        self.advertised_bytes = window_bytes = self.receiving.window_bytes
        yielding = self._yielding
        if yielding is not None and yielding.offered_bytes:
            window_bytes = yielding.bound_bytes(window_bytes)
        return window_bytes if self.intake is None else self.intake.advertise(window_bytes)

    def _give(self, buffers: list[Buffer], count: int, run: Run, index: int, is_read: bool, now_us: int) -> Batch:
        """Returns a batch with data.  Its ack replaces a pending STATE, unless the STATE has an extension to carry.

        The ack in a packet may not be read: libutp drops DATA that it has already, and a path drops a probe that is too
        large.  For such batches ``is_read`` is False, and a pending ack still leaves in a STATE of its own.
        """
        due = self._due
        if due and is_read and not self.receiving.early and not self._welcomes and not self._shows:
            self._due = due & ~(ACK_DUE | KEEPALIVE_DUE)
            due &= ACK_DUE | KEEPALIVE_DUE
        else:
            due = 0
        self._last_sent_us = now_us
        self.segments_sent += count
        self._bulk_from = self.segments_received + BULK_RECEIVED_SEGMENTS
        payload_bytes = run.total_bytes if run.count == 1 else run.segment_bytes
        batch = Batch(self.address, buffers, count, HEADER_BYTES + payload_bytes, (due, run, index))
        if self._swallows_bytes or self.small_until_us:
            batch.alone = True
        if self.sending.cap is not None:
            self.sending.cap.on_batch(batch, not run.is_fin, now_us)
        return batch

    def _give_control(self, due: int, header: bytes, now_us: int) -> Batch:
        self._last_sent_us = now_us
        self.segments_sent += 1
        batch = Batch(self.address, [header], 1, len(header), (due, None, -1))
        if self.sending.cap is not None:
            self.sending.cap.on_batch(batch, False, now_us)
        return batch
