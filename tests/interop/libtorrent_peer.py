"""The other side of the BitTorrent tests: libtorrent in a process of its own, over uTP only.

    python libtorrent_peer.py seed FILE.torrent DIRECTORY [PORT] [OPTIONS]
    python libtorrent_peer.py fetch FILE.torrent DIRECTORY [PORT] [OPTIONS]
    python libtorrent_peer.py find FILE.torrent DIRECTORY PORT [OPTIONS]

With a port it connects to that peer; the last one is told only where a node of the DHT is, and has to find
peers there.  Options:

    --host ADDRESS    where to listen, or where the peer is (127.0.0.1 unless told)
    --stock-buffers   leave the buffers of the UDP socket as the system makes them
    --until-lost      the first connection that ends is the end, and its result

Results are lines of JSON. {"port": P} comes first without a port. One more line comes when a peer has
fetched something and gone, or when the file is complete: whether the connection was uTP, how many
connections there were, how they ended, and how many bytes of the file were sent. Then the program
ends.

With TXUTP_INTEROP_TRANSPORT=tcp it is TCP only. That proves the tests themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import libtorrent

OVER_UTP = os.environ.get("TXUTP_INTEROP_TRANSPORT", "utp") == "utp"

LOOPBACKS = ("127.0.0.1", "::1")
POLL_SECONDS = 0.02

# Flag of libtorrent's peer_info for a connection over uTP. Its Python binding has no name for it.
UTP_SOCKET = 1 << 17

ENCRYPTION_DISABLED = 2

# With the kernel's default buffer libtorrent loses packets, and it gives up soon when it does.
SOCKET_BUFFER_BYTES = 4_000_000

SETTINGS = {
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
    "alert_mask": libtorrent.alert.category_t.all_categories,
}

WIDE_BUFFERS = {"recv_socket_buffer_size": SOCKET_BUFFER_BYTES, "send_socket_buffer_size": SOCKET_BUFFER_BYTES}


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


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What makes this session what the command line says."""
    # A client leaves from the loopback interface only if that is where it goes.
    ours = options.host if not options.port or options.host in LOOPBACKS else "0.0.0.0"
    made = SETTINGS | {"listen_interfaces": f"[{ours}]:0" if ":" in ours else f"{ours}:0"}
    if not options.stock_buffers:
        made |= WIDE_BUFFERS
    if options.verb == "find":
        made |= {"enable_dht": True, "dht_bootstrap_nodes": f"{options.host}:{options.port}"}
    return made


def is_over(options: argparse.Namespace, observer: Observer) -> bool:
    """Whether everything has happened that this program was started for."""
    status = observer.torrent.status()
    if options.until_lost:
        return bool(observer.disconnections)
    if options.verb == "seed":
        return bool(status.total_payload_upload and not observer.torrent.get_peer_info())
    return bool(status.is_seeding)


def main() -> None:
    """Do one thing with one torrent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["seed", "fetch", "find"])
    parser.add_argument("torrent")
    parser.add_argument("directory")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--host", default=LOOPBACKS[0])
    parser.add_argument("--stock-buffers", action="store_true")
    parser.add_argument("--until-lost", action="store_true")
    options = parser.parse_intermixed_args()

    session = libtorrent.session(settings(options))
    parameters = libtorrent.load_torrent_file(options.torrent)
    parameters.save_path = options.directory
    torrent = session.add_torrent(parameters)
    observer = Observer(session, torrent)
    while not observer.port or torrent.status().state < libtorrent.torrent_status.downloading:
        observer.look()
    while options.verb == "seed" and not torrent.status().is_seeding:
        observer.look()

    if not options.port:
        print_line({"port": observer.port})
    elif options.verb == "find":
        session.add_dht_node((options.host, options.port))
        torrent.force_dht_announce()
    else:
        torrent.connect_peer((options.host, options.port))
    while not is_over(options, observer):
        observer.look()
    print_line(observer.result())


if __name__ == "__main__":
    main()
