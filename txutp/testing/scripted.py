"""A peer that a test drives packet by packet."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import DatagramProtocol

from txutp.core.packet import NAMES, ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet, parse_untrusted
from txutp.testing.network import SimulatedPort, SimulatedReactor

WINDOW_BYTES = 1 << 20
CONNECTION_ID = 1_000
SEQUENCE = 5_000
TURN_SECONDS = 0.001  # of virtual time: longer than a link without a delay takes


class ScriptedPeer(DatagramProtocol):
    """A uTP peer on a host of a ``Network`` that sends what a test tells it to, and remembers what it gets.

    ::

        peer = ScriptedPeer(network.reactor("10.0.0.2"), remote=("10.0.0.1", 6881))
        peer.connect()
        peer.data(b"hello")
        network.run(0.1)
        answers = peer.take()
        peer.reset()

    It acknowledges nothing and repeats nothing on its own.  ``send_id``, ``sequence``, ``ack`` and ``window`` are the
    fields of its next packet; any field may be given to each of its methods instead, by the name that it has in
    ``Packet``.
    """

    noisy = False

    def __init__(self, reactor: SimulatedReactor, port: int = 0, remote: tuple[str, int] = ("10.0.0.1", 6881)) -> None:
        """``port`` is its UDP port (0: any); it sends to ``remote``, or to where the last datagram came from."""
        self.reactor = reactor
        self.datagrams: list[bytes] = []
        self.port: SimulatedPort = reactor.listenUDP(port, self)
        self.remote: tuple[str, int] = remote
        self.send_id: int = 0
        self.sequence: int = 0
        self.ack: int = 0
        self.window = WINDOW_BYTES

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.datagrams.append(datagram)
        self.remote = addr

    # -- connections --

    def connect(self, connection_id: int = CONNECTION_ID, sequence: int = SEQUENCE) -> Packet:
        """Connect to ``remote``, over links without a delay; returns the answer to the SYN.

        A STATE follows, which proves this peer's address to the server.  Raises ``ValueError`` if anything but one
        STATE has come by then.
        """
        self.syn(connection_id, sequence)
        self._turn()
        answer = self._take_one(ST_STATE)
        self.send_id = connection_id + 1
        self.sequence = sequence + 1
        self.ack = answer.seq_nr - 1
        self.state()
        self._turn()
        return answer

    def accept(self, sequence: int = SEQUENCE, answer: bool = True) -> Packet:
        """Take a SYN that has arrived, and answer it unless ``answer`` is False; returns the SYN.

        Raises ``ValueError`` if anything but one SYN has come.
        """
        syn = self._take_one(ST_SYN)
        self.send_id = syn.connection_id
        self.sequence = sequence
        self.ack = syn.seq_nr
        if answer:
            self.state()
            self._turn()
        return syn

    def _take_one(self, kind: int) -> Packet:
        packets = self.take()
        if [packet.type for packet in packets] != [kind]:
            raise ValueError(f"expected one {NAMES[kind]}, not {packets}")
        return packets[0]

    def _turn(self) -> None:
        self.reactor.network.run(TURN_SECONDS)

    # -- what came --

    @property
    def packets(self) -> list[Packet]:
        """Everything that came since the last ``take``; raises ``AssertionError`` for a datagram that is not uTP."""
        packets = [parse_untrusted(datagram) for datagram in self.datagrams]
        assert None not in packets
        return packets  # type: ignore[return-value]

    def take(self) -> list[Packet]:
        """What came since the last call."""
        packets = self.packets
        self.datagrams.clear()
        return packets

    # -- what goes --

    def send_bytes(self, datagram: bytes) -> None:
        """Send any datagram."""
        self.port.write(datagram, self.remote)

    def send(self, kind: int, **fields: Any) -> None:
        """Send a packet, with the fields of the connection where none are given.  DATA and FIN count up."""
        packet = Packet(
            kind,
            fields.get("connection_id", self.send_id),
            fields.get("timestamp_us", self.reactor.network.now_us & 0xFFFFFFFF or 1),
            fields.get("timestamp_diff_us", 1_000),
            fields.get("wnd_size", self.window),
            fields.get("seq_nr", self.sequence) & 0xFFFF,
            fields.get("ack_nr", self.ack) & 0xFFFF,
            fields.get("selective_ack"),
            fields.get("data", b""),
        )
        if kind in (ST_DATA, ST_FIN) and "seq_nr" not in fields:
            self.sequence += 1
        self.send_bytes(packet.encode())

    def data(self, data: bytes, **fields: Any) -> None:
        """Send a DATA packet."""
        self.send(ST_DATA, data=data, **fields)

    def state(self, **fields: Any) -> None:
        """Send a STATE packet: an acknowledgement."""
        self.send(ST_STATE, **fields)

    def fin(self, **fields: Any) -> None:
        """Send a FIN packet: the end of this peer's half."""
        self.send(ST_FIN, **fields)

    def reset(self, **fields: Any) -> None:
        """Send a RESET packet."""
        self.send(ST_RESET, **fields)

    def syn(self, connection_id: int, sequence: int, **fields: Any) -> None:
        """Send a SYN packet."""
        self.send(ST_SYN, connection_id=connection_id, seq_nr=sequence, ack_nr=0, **fields)
