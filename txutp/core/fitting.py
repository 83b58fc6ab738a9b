"""The size of a connection's datagrams: the search for the MTU of its path, and black holes.

``departures.py`` calls it when datagrams leave, ``connection.py`` when the peer answers or the connection ends.  The
rules are in ``mtu.py`` and ``parts.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from txutp.core.batch import Address, ip_overhead_bytes
from txutp.core.due import ACK_DUE
from txutp.core.flow import Flow
from txutp.core.liveness import Liveness
from txutp.core.mtu import MtuSearch
from txutp.core.parts import LOOK_AGAIN_US, PARTS_WANTED, SMALLEST_DATAGRAM_BYTES, BlackHoleSearch, SmallPaths
from txutp.core.rare import Rare
from txutp.core.sending import RUN_MAXIMUM_BYTES
from txutp.core.settings import Settings, usual_datagram_bytes

# MTU of Ethernet: every peer takes datagrams that fit one frame; larger ones are welcome only where a peer says so.
ETHERNET_BYTES = 1_500


class Fitting(Liveness):
    """The part of a connection that fits its datagrams to the path."""

    __slots__ = (
        "_due",
        "_link_mtu",
        "_peer_reads_extensions",
        "_rare",
        "_says",
        "_swallows_bytes",
        "address",
        "initial_sequence",
        "initiator",
        "sending",
        "settings",
        "small_paths",
        "small_until_us",
    )

    address: Address
    settings: Settings
    sending: Flow
    initial_sequence: int
    initiator: bool
    small_paths: SmallPaths | None
    small_until_us: int
    _due: int
    _link_mtu: Callable[[Address], int | None]
    _peer_reads_extensions: bool
    _rare: dict[str, Any] | None
    _says: bytes
    _swallows_bytes: int
    _black_hole: Rare[BlackHoleSearch | None] = Rare(None)  # made when a large segment is repeated more than once

    def path_takes(self, datagram_bytes: int) -> None:
        """A router reports the largest datagram that it takes."""
        if self.sending.mtu is not None:
            self.sending.mtu.on_hint(datagram_bytes)

    @property
    def _parts_datagram_bytes(self) -> int:
        """The size of the largest datagram that is known to arrive, on a path that drops large ones silently."""
        mtu = self.sending.mtu
        return SMALLEST_DATAGRAM_BYTES if mtu is None else mtu.passed_bytes

    def _begin_mtu_search(self) -> bool:
        """Begin a search with the MTU of the interface as upper limit; returns whether a search is wanted."""
        if self.settings.maximum_datagram_bytes is not None:
            return False
        sending = self.sending
        start_bytes = sending.datagram_bytes
        interface_bytes = usual_datagram_bytes(self.address[0]) if self.small_until_us else start_bytes
        largest_bytes = ETHERNET_BYTES - ip_overhead_bytes(self.address)
        link_bytes = self._link_mtu(self.address)
        if link_bytes is not None:
            interface_bytes = min(link_bytes - ip_overhead_bytes(self.address), RUN_MAXIMUM_BYTES)
            start_bytes = min(start_bytes, interface_bytes)
            sending.set_datagram_bytes(start_bytes)
        sending.mtu = MtuSearch(
            start_bytes, min(largest_bytes, interface_bytes), interface_bytes, self._peer_reads_extensions
        )
        if self.small_until_us:
            sending.mtu.wait_until(self.small_until_us)
        return True

    def _ask_behind_large(self, now_us: int) -> None:
        """The first segment in flight is retransmitted again: if it is large, ask the peer whether it takes parts."""
        sequence, datagram_bytes, arrived = self.sending.stuck_segment()
        if datagram_bytes <= SMALLEST_DATAGRAM_BYTES:
            return
        if self._black_hole is None:
            self._black_hole = BlackHoleSearch()
        if self._black_hole.on_stuck(sequence, arrived, self.sending.attempt):
            self._says = PARTS_WANTED
            self._due |= ACK_DUE

    def _on_parts_welcome(self, now_us: int) -> None:
        """The peer takes parts; its answer may prove that the path carries small packets, but not the large segment."""
        sending = self.sending
        sequence, datagram_bytes, arrived = sending.stuck_segment()
        if self._black_hole is None or not self._black_hole.on_answer(sequence, arrived):
            return
        if sending.mtu is not None or self._begin_mtu_search():
            assert sending.mtu is not None
            sending.mtu.peer_reads_extensions = True
            sending.mtu.on_swallowed(SMALLEST_DATAGRAM_BYTES, datagram_bytes)
        self._swallows_bytes = datagram_bytes
        sending.on_swallowed(SMALLEST_DATAGRAM_BYTES, now_us)
        self._remember_path(SMALLEST_DATAGRAM_BYTES, now_us)

    def _remember_path(self, datagram_bytes: int, now_us: int) -> None:
        """Tell other connections to the host which size of datagrams arrives there."""
        if self.small_paths is None:
            return
        if datagram_bytes >= (self._swallows_bytes or usual_datagram_bytes(self.address[0])):
            self._swallows_bytes = self.small_until_us = 0  # unlucky losses, or a better path
            self.small_paths.forget(self.address[0])
        else:
            self.small_paths.remember(self.address[0], datagram_bytes, now_us)

    def _remember_if_swallowed(self, now_us: int) -> None:
        """The connection ends because a segment never arrived.

        If the segment is large, and none ever arrived or the peer was heard meanwhile, the next connection to the host
        begins with small ones.
        """
        sending = self.sending
        _, datagram_bytes, _ = sending.stuck_segment()
        never = sending.first_unacked == self.initial_sequence + self.initiator
        if datagram_bytes > SMALLEST_DATAGRAM_BYTES and (never or self._last_received_us > now_us - sending.timeout_us):
            # that is no proof, so the next connection shall probe for larger ones at once
            self._remember_path(SMALLEST_DATAGRAM_BYTES, now_us - LOOK_AGAIN_US)
