"""The other side of the BitTorrent tests: libtorrent in a process of its own, over uTP only.

    python libtorrent_peer.py seed FILE.torrent DIRECTORY
    python libtorrent_peer.py fetch FILE.torrent DIRECTORY PORT
    python libtorrent_peer.py find FILE.torrent DIRECTORY PORT

The last one is told only where a node of the DHT is, and has to find peers there.

Results are lines of JSON. {"port": P} comes first from a seed. One more line comes when a peer has
fetched something and gone, or when the file is complete: whether the connection was uTP, how many
connections there were, how they ended, and how many bytes of the file were sent. Then the program
ends.

With TXUTP_INTEROP_TRANSPORT=tcp it is TCP only. That proves the tests themselves.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import libtorrent

OVER_UTP = os.environ.get("TXUTP_INTEROP_TRANSPORT", "utp") == "utp"

HOST = "127.0.0.1"
POLL_SECONDS = 0.02

# Flag of libtorrent's peer_info for a connection over uTP. Its Python binding has no name for it.
UTP_SOCKET = 1 << 17

ENCRYPTION_DISABLED = 2

# With the kernel's default buffer libtorrent loses packets, and it gives up soon when it does.
SOCKET_BUFFER_BYTES = 4_000_000

SETTINGS = {
    "listen_interfaces": f"{HOST}:0",
    "enable_outgoing_utp": OVER_UTP,
    "enable_incoming_utp": OVER_UTP,
    "enable_outgoing_tcp": not OVER_UTP,
    "enable_incoming_tcp": not OVER_UTP,
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "out_enc_policy": ENCRYPTION_DISABLED,
    "in_enc_policy": ENCRYPTION_DISABLED,
    "recv_socket_buffer_size": SOCKET_BUFFER_BYTES,
    "send_socket_buffer_size": SOCKET_BUFFER_BYTES,
    "alert_mask": libtorrent.alert.category_t.all_categories,
}


class Observer:
    """Looks at a session again and again, and keeps what the tests want to know."""

    def __init__(self, session: libtorrent.session, torrent: libtorrent.torrent_handle) -> None:
        self.session = session
        self.torrent = torrent
        self.port = 0
        self.peers_over_utp: set[bool] = set()
        self.connections = 0
        self.disconnections: list[str] = []

    def look(self) -> None:
        """Wait a moment, then note what has happened since the last time."""
        time.sleep(POLL_SECONDS)
        for peer in self.torrent.get_peer_info():
            if not peer.flags & peer.connecting:
                self.peers_over_utp.add(bool(peer.flags & UTP_SOCKET))
        for alert in self.session.pop_alerts():
            if isinstance(alert, libtorrent.listen_succeeded_alert):
                # Both kinds of sockets are opened, but only one of them will be used.
                if (alert.sock_type == alert.sock_type.udp) == OVER_UTP:
                    self.port = alert.port
            elif isinstance(alert, libtorrent.peer_connect_alert):
                self.connections += 1
            elif isinstance(alert, libtorrent.peer_disconnected_alert):
                self.disconnections.append(alert.message())

    def result(self) -> dict[str, Any]:
        """What the tests want to know."""
        return {
            "over_utp": sorted(self.peers_over_utp),
            "connections": self.connections,
            "disconnections": self.disconnections,
            "sent_bytes": self.torrent.status().total_payload_upload,
        }


def print_line(result: dict[str, Any]) -> None:
    """Say something to the test."""
    print(json.dumps(result), flush=True)


def main(verb: str, torrent_path: str, directory: str, port: str = "0") -> None:
    """Do one thing with one torrent."""
    session = libtorrent.session(SETTINGS | {"enable_dht": verb == "find", "dht_bootstrap_nodes": f"{HOST}:{port}"})
    parameters = libtorrent.load_torrent_file(torrent_path)
    parameters.save_path = directory
    torrent = session.add_torrent(parameters)
    observer = Observer(session, torrent)
    while not observer.port or torrent.status().state < libtorrent.torrent_status.downloading:
        observer.look()

    if verb == "seed":
        while not torrent.status().is_seeding:
            observer.look()
        print_line({"port": observer.port})
        while not torrent.status().total_payload_upload or torrent.get_peer_info():
            observer.look()
    else:
        if verb == "find":
            session.add_dht_node((HOST, int(port)))
            torrent.force_dht_announce()
        else:
            torrent.connect_peer((HOST, int(port)))
        while not torrent.status().is_seeding:
            observer.look()

    print_line(observer.result())


if __name__ == "__main__":
    main(*sys.argv[1:])
