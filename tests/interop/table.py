"""The matrix: every peer, every row, and in one place what a peer cannot do.

A cell that is not listed under ``LIMITS`` is played as its row says.
"""

from __future__ import annotations

import json
import shutil

from . import clients, streams, torrents
from .matrix import (
    ROLES,
    STREAMS,
    THEY_CONNECT,
    TORRENTS,
    WE_CONNECT,
    ByHand,
    Cannot,
    Cell,
    Less,
    Limit,
    Peer,
    Row,
    Untried,
)
from .places import IPV6, mtu, path
from .support import HERE, PYTHON, no_python, python_package

# Peers


def node_package(name: str) -> str:
    """The version of a package of Node.js that is installed here; empty if it is not."""
    description = HERE / "node_modules" / name / "package.json"
    return str(json.loads(description.read_text())["version"]) if description.exists() else ""


def no_node(package: str) -> str:
    """What is missing for a peer in JavaScript."""
    if shutil.which("node") is None:
        return "node is missing: install Node.js 18 or newer, for instance the package nodejs"
    return "" if node_package(package) else f"{package} is missing: run `npm install` in tests/interop"


def javascript(name: str, package: str) -> Peer:
    """A peer that peer.js plays."""
    return Peer(
        name,
        lambda: (shutil.which("node") or "node", str(HERE / "peer.js"), "--library", package),
        STREAMS,
        version=lambda: node_package(package),
        missing=lambda: no_node(package),
    )


UTP_NATIVE = javascript("utp-native", "utp-native")
NPM_UTP = javascript("npm utp", "utp")
LIBTORRENT = Peer(
    "libtorrent",
    lambda: (*PYTHON, str(HERE / "libtorrent_peer.py")),
    TORRENTS,
    version=lambda: python_package("libtorrent"),
    missing=lambda: no_python("libtorrent") or no_python("bencode2"),
)
KTORRENT = Peer(
    "KTorrent",
    clients.ktorrent,
    STREAMS,
    version=lambda: clients.debian_version("libktorrent-dev"),
    missing=clients.no_ktorrent,
    by_hand=True,
    half_closes=False,
)


def whole_client(name: str, package: str, patience_seconds: float = 0) -> Peer:
    """A client that client_peer.py drives."""
    return Peer(
        name,
        lambda: clients.client(package),
        TORRENTS,
        version=lambda: clients.debian_version(package),
        missing=lambda: clients.no_client(package),
        by_hand=True,
        patience_seconds=patience_seconds,
    )


QBITTORRENT = whole_client("qBittorrent", "qbittorrent-nox", patience_seconds=90)
TRANSMISSION = whole_client("Transmission", "transmission-daemon", patience_seconds=60)
PEERS = (UTP_NATIVE, NPM_UTP, LIBTORRENT, KTORRENT, QBITTORRENT, TRANSMISSION)

# Rows

LONG_BYTES = 50_000_000
SOME_BYTES = 2_000_000

ROWS = (
    Row("echo", "echo of 2 MB", streams.echo, length=SOME_BYTES),
    Row("up", "50 MB to the peer", streams.up_to_them, torrents.up_to_them, length=LONG_BYTES, limit_seconds=60),
    Row("down", "50 MB from the peer", streams.down_to_us, torrents.down_to_us, length=LONG_BYTES, limit_seconds=60),
    Row("each-way", "5 MB each way at once", streams.each_way, torrents.each_way, length=5_000_000),
    Row("half-close-by-us", "half close by us, then 2 MB from the peer", streams.half_close_by_us, length=SOME_BYTES),
    Row("half-close-by-them", "half close by the peer, then 2 MB to it", streams.half_close_by_them, length=SOME_BYTES),
    Row("client-closes", "the client writes 3 MB and closes", streams.client_closes, length=3_000_000),
    Row("server-closes", "the server writes 10 bytes and closes", streams.server_closes, length=10),
    Row("closed-port", "a closed port is refused", streams.closed_port, torrents.closed_port),
    Row("crowd", "50 connections at once", streams.crowd, length=20_000, connections=50),
    Row(
        "idle",
        "4 s of silence, keepalive 1 s",
        streams.idle,
        torrents.idle,
        length=1_000_000,
        silence_seconds=4,
        keepalive_us=1_000_000,
    ),
    Row(
        "long-idle",
        "45 s of silence",
        streams.idle,
        torrents.idle,
        length=1_000_000,
        silence_seconds=45,
        limit_seconds=60,
        by_hand=True,
    ),
    Row(
        "killed-reader",
        "the peer is killed while we send",
        streams.killed_reader,
        torrents.killed_reader,
        length=LONG_BYTES,
        limit_seconds=60,
    ),
    Row(
        "killed-writer",
        "the peer is killed while it sends",
        streams.killed_writer,
        torrents.killed_writer,
        length=LONG_BYTES,
        limit_seconds=60,
    ),
    Row(
        "restarted",
        "we are killed and start again on the port while the peer sends",
        streams.restarted,
        torrents.restarted,
        length=LONG_BYTES,
    ),
    Row("ipv6", "5 MB each way over `::1`", streams.each_way, torrents.each_way, ground=IPV6, length=5_000_000),
    Row("mtu-1280", "5 MB each way, MTU 1280", streams.each_way, torrents.each_way, ground=mtu(1280), length=5_000_000),
    Row("mtu-1400", "5 MB each way, MTU 1400", streams.each_way, torrents.each_way, ground=mtu(1400), length=5_000_000),
    Row(
        "loss-2",
        "500 kB each way, 2 % loss, 2 % reordering, 50 ms round trip",
        streams.each_way,
        torrents.each_way,
        ground=path(0.02),
        length=500_000,
        limit_seconds=60,
    ),
    Row(
        "loss-10",
        "100 kB each way, 10 % loss, 2 % reordering, 50 ms round trip",
        streams.each_way,
        torrents.each_way,
        ground=path(0.10),
        length=100_000,
        limit_seconds=60,
    ),
    Row(
        "reordering",
        "500 kB each way, 20 % reordering, 50 ms round trip",
        streams.each_way,
        torrents.each_way,
        ground=path(0.0, reordering=0.20),
        length=500_000,
        limit_seconds=60,
    ),
    Row(
        "stock-buffers",
        "10 MB each way, stock receive buffer at the peer",
        streams.each_way,
        torrents.each_way,
        length=10_000_000,
        stock_buffers=True,
        limit_seconds=60,
    ),
)

# What peers cannot do

Limits = dict[tuple[Peer, str, tuple[str, ...]], Limit]

ONE_FOR_EACH = Cannot("keeps one connection for each torrent with an address and port")
ONLY_IPV4 = Cannot("IPv4 only")
NO_FOREIGN_RESET = Cannot(
    "reads a RESET only by the id that it receives with; that of a host which has forgotten the connection has"
    " the other one, as BEP 29 and libutp have it, and is taken for that of a stranger"
)
NO_HALF_CLOSE = Cannot("knows no half close: it closes both ways when the other side ends")
RING = Less(
    500_000,
    "fewer than 512 packets to the peer: a packet that comes once more right after it was delivered is delivered"
    " again in the place of the one 512 later",
)

ONLY_BITTORRENT = Cannot(
    "speaks BitTorrent, where a connection is neither echoed, nor closed by halves or after a write"
)

MUTE = Untried("the client's interface does not tell how a connection ended")
SAME_BUFFERS = Untried("its buffers are the same in every row")
LOOPBACK_ROWS = ("up", "down", "each-way", "idle", "long-idle", "killed-reader", "killed-writer")
UNREAD = Cannot(
    "as the client it leaves unread what comes in one packet with the handshake until more comes, so it never learns"
    " which pieces there are"
)
NO_LOOPBACK = Cannot("does not connect to addresses of the loopback interface that a tracker names")


def each(names: tuple[str, ...], limit: Limit, *peers: Peer, roles: tuple[str, ...] = ROLES) -> Limits:
    """The same limit for several rows and peers."""
    return {(peer, name, roles): limit for peer in peers for name in names}


LIMITS: Limits = {
    **each(("ipv6",), ONLY_IPV4, UTP_NATIVE, NPM_UTP),
    (UTP_NATIVE, "closed-port", (THEY_CONNECT,)): ByHand("it gives up after 21 s"),
    # npm utp
    (NPM_UTP, "closed-port", (THEY_CONNECT,)): Cannot("repeats its SYN every half second for ever"),
    (NPM_UTP, "restarted", ROLES): NO_FOREIGN_RESET,
    (NPM_UTP, "client-closes", (WE_CONNECT,)): RING,
    **each(("echo", "up", "each-way", "half-close-by-us", "half-close-by-them", "stock-buffers"), RING, NPM_UTP),
    **each(("mtu-1280", "mtu-1400"), RING, NPM_UTP),
    # peers that speak BitTorrent
    **each(
        ("echo", "half-close-by-us", "half-close-by-them", "client-closes", "server-closes"),
        ONLY_BITTORRENT,
        *(LIBTORRENT, QBITTORRENT, TRANSMISSION),
    ),
    **each(("crowd",), ONE_FOR_EACH, LIBTORRENT, QBITTORRENT, TRANSMISSION),
    # KTorrent
    **each(("half-close-by-us", "half-close-by-them"), NO_HALF_CLOSE, KTORRENT),
    (KTORRENT, "closed-port", (THEY_CONNECT,)): Cannot("repeats its SYN for more than 30 s"),
    (KTORRENT, "restarted", ROLES): Cannot("takes no notice of our RESETs, and does not end by itself in 100 s"),
    (KTORRENT, "ipv6", ROLES): Cannot(
        "over IPv6 it ends some connections in the midst of its data, with a FIN numbered behind packets that it never"
        " sends; to itself one of four lost bytes"
    ),
    (KTORRENT, "loss-10", ROLES): Cannot("loses the end of a stream on such a path to itself, too"),
    # whole clients
    **each(("closed-port", "restarted"), MUTE, QBITTORRENT, TRANSMISSION),
    **each(("ipv6",), Untried("the test's tracker names IPv4 addresses"), QBITTORRENT, TRANSMISSION),
    **each(("stock-buffers",), SAME_BUFFERS, QBITTORRENT, TRANSMISSION),
    **each(LOOPBACK_ROWS, NO_LOOPBACK, TRANSMISSION, roles=(THEY_CONNECT,)),
    **each(("mtu-1280", "mtu-1400"), NO_LOOPBACK, TRANSMISSION, roles=(THEY_CONNECT,)),
    **each(("loss-2", "loss-10", "reordering"), UNREAD, TRANSMISSION, roles=(THEY_CONNECT,)),
}


def limits_of(peer: Peer, row: Row, role: str) -> tuple[Limit, ...]:
    """Everything that is declared of a cell."""
    return tuple(
        limit for (who, name, roles), limit in LIMITS.items() if (who, name) == (peer, row.name) and role in roles
    )


CELLS = tuple(Cell(row, peer, role, limits_of(peer, row, role)) for row in ROWS for peer in PEERS for role in ROLES)
