"""One file through libtorrent, over uTP only.

Verbs: receive and send.  Options: host, bytes, kernel_buffers; for send also port.  BitTorrent is more than a stream:
its messages, and a SHA-1 of every piece at the receiver, are part of the measurement.  The file is empty space in a
directory that is in memory if there is one.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import libtorrent

from benchmarks.ends.talk import Stopwatch, Words, say, told

PIECE_BYTES = 1 << 20
IN_MEMORY = Path("/dev/shm")
NAME = "nothing"
ENCRYPTION_DISABLED = 2

# Flag of libtorrent's peer_info for a connection over uTP. Its Python binding has no name for it.
UTP_SOCKET = 1 << 17

# With the kernel's default buffer libtorrent loses packets, and it gives up soon when it does.  "unasked" leaves it at
# that, as libtorrent does by itself.
SOCKET_BUFFER_BYTES = 4_000_000
UNASKED = {"recv_socket_buffer_size": 0, "send_socket_buffer_size": 0}


def settings(options: Words) -> dict[str, Any]:
    """uTP and nothing else; no limit but those of uTP."""
    unasked = UNASKED if options.get("kernel_buffers") == "unasked" else {}
    return {
        "listen_interfaces": f"{options['host']}:0",
        "enable_outgoing_tcp": False,
        "enable_incoming_tcp": False,
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "out_enc_policy": ENCRYPTION_DISABLED,
        "in_enc_policy": ENCRYPTION_DISABLED,
        "recv_socket_buffer_size": SOCKET_BUFFER_BYTES,
        "send_socket_buffer_size": SOCKET_BUFFER_BYTES,
        "send_buffer_watermark": SOCKET_BUFFER_BYTES,
        "alert_mask": libtorrent.alert.category_t.status_notification
        | libtorrent.alert.category_t.peer_notification
        | libtorrent.alert.category_t.connect_notification
        | libtorrent.alert.category_t.error_notification,
        **unasked,
    }


def granted_receive_bytes() -> int:
    """The receive buffer of the one UDP socket with a port; libtorrent does not tell it."""
    granted = 0
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as opened:
            if opened.type == socket.SOCK_DGRAM and opened.family == socket.AF_INET and opened.getsockname()[1]:
                granted = max(granted, opened.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF))
    return granted


def torrent_file(total_bytes: int) -> bytes:
    """The torrent of a file of so many zeros; both sides make the same."""
    files = libtorrent.file_storage()
    files.add_file(NAME, total_bytes)
    torrent = libtorrent.create_torrent(files, PIECE_BYTES, libtorrent.create_torrent.v1_only)
    digests: dict[int, bytes] = {}
    for number in range(torrent.num_pieces()):
        length = torrent.piece_size(number)
        if length not in digests:
            digests[length] = hashlib.sha1(bytes(length)).digest()
        torrent.set_hash(number, digests[length])
    return libtorrent.bencode(torrent.generate())


def description(total_bytes: int) -> Any:
    """The same for libtorrent."""
    return libtorrent.torrent_info(libtorrent.bdecode(torrent_file(total_bytes)))


class Peer:
    """A session with the one torrent."""

    def __init__(self, options: Words, directory: str, seed: bool) -> None:
        chosen: Any = settings(options)
        self.session = libtorrent.session(chosen)
        parameters = libtorrent.add_torrent_params()
        parameters.ti = description(options["bytes"])
        parameters.save_path = directory
        parameters.flags = libtorrent.torrent_flags.seed_mode if seed else libtorrent.torrent_flags.update_subscribe
        self.torrent = self.session.add_torrent(parameters)
        self._alerts: list[Any] = []

    def wait(self, *kinds: type) -> Any:
        """The next alert of one of these kinds."""
        while True:
            while self._alerts:
                alert = self._alerts.pop(0)
                if isinstance(alert, kinds):
                    return alert
                if isinstance(alert, (libtorrent.listen_failed_alert, libtorrent.torrent_error_alert)):
                    sys.exit(alert.message())
            self.session.wait_for_alert(1_000)
            self._alerts = self.session.pop_alerts()

    def listening_port(self) -> int:
        """Where it takes uTP."""
        while True:
            alert = self.wait(libtorrent.listen_succeeded_alert)
            if alert.sock_type == alert.sock_type.udp:
                return int(alert.port)


def receive(options: Words, directory: str) -> None:
    """Fetch the file from whoever comes."""
    peer = Peer(options, directory, seed=False)
    port = peer.listening_port()
    say({"port": port})
    peer.wait(libtorrent.peer_connect_alert)
    stopwatch = Stopwatch()
    over_utp = [bool(info.flags & UTP_SOCKET) for info in peer.torrent.get_peer_info()]
    peer.wait(libtorrent.torrent_finished_alert)
    result = stopwatch.read() | {"granted_receive_bytes": granted_receive_bytes()}
    if not all(over_utp):
        sys.exit("that was not uTP")
    peer.session.pause()
    say(result)


def send(options: Words, directory: str) -> None:
    """Offer the file to a peer that is known to want it."""
    with (Path(directory) / NAME).open("wb") as file:
        file.truncate(options["bytes"])
    peer = Peer(options, directory, seed=True)
    peer.listening_port()
    stopwatch = Stopwatch()
    peer.torrent.connect_peer((options["peer"], options["port"]))
    peer.wait(libtorrent.peer_disconnected_alert)
    say(stopwatch.read())


if __name__ == "__main__":
    verb, given = told()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.exists() else None) as where:
        {"receive": receive, "send": send}[verb](given, where)
