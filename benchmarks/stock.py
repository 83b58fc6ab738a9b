"""One stream from txutp to peers that keep the receive buffer of a Linux as it comes: 212,992 bytes.

txutp itself asks for 4 MiB and tells its peer when less was granted; most other programs do neither.  Each peer gets
the stream with the default controller and with LEDBAT, into a stock buffer and into a large one.  For comparison
another sender sends to the same peer: one of the peer's own kind, or utp-native where there is none.  qBittorrent is
measured only as it comes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from benchmarks.network import Alone, Cable, Namespaces, why_no_namespaces
from benchmarks.parts import Column, Part, Row, Sizes
from benchmarks.peers import LABELS, why_not
from benchmarks.transfers import row

# Receive buffer -> `kernel_buffers` in the options of an end: as Linux comes, and 4 MiB.
BUFFERS = {"stock": "unasked", "large": "large"}
CONTROLLERS: dict[str, dict[str, str]] = {"default": {}, "ledbat": {"congestion": "ledbat"}}
OTHER = "other"

# Receiver -> the other sender, the module of ``ends`` by which txutp sends, and the buffers.
PEERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "utp-native": ("utp-native", "stream", ("stock", "large")),
    "libtorrent": ("libtorrent", "seed", ("stock", "large")),
    "qbittorrent": ("libtorrent", "seed", ("stock",)),
    "blocking": ("utp-native", "stream", ("stock", "large")),
}

# Which part of the bytes of the fastest we send, and the others.
SHARE = 1 / 8
SHARE_OF_OTHERS = 1 / 16


def why_no_seed(peer: str) -> str:
    """Why no torrent can be sent to a client of BitTorrent; empty if it can, or need not."""
    if PEERS[peer][1] != "seed":
        return ""
    if importlib.util.find_spec("bencode2") is None:
        return f"no seed for {peer}: it needs `pip install bencode2`"
    # it makes the torrent
    return why_not("libtorrent")


def rows_of(network: Namespaces, peer: str, sizes: Sizes) -> Iterator[Row]:
    """What one peer gets."""
    other, module, sizes_of_buffers = PEERS[peer]
    for buffers in sizes_of_buffers:
        for name, options in CONTROLLERS.items():
            total_bytes = int(SHARE * sizes.stream_bytes)
            label = f"{LABELS['utp']}, {name}"
            ours = to_peer(network, "utp", peer, buffers, total_bytes, label, name, module=module, **options)
            yield replace(ours, ours=True, why_not=ours.why_not or why_no_seed(peer))
        total_bytes = int(SHARE_OF_OTHERS * sizes.stream_bytes)
        yield to_peer(network, other, peer, buffers, total_bytes, LABELS[other], OTHER)


def to_peer(
    network: Namespaces, sender: str, peer: str, buffers: str, total_bytes: int, label: str, name: str, **options: Any
) -> Row:
    """One sender and one size of the peer's receive buffer."""
    return row(
        network,
        sender,
        peer,
        total_bytes,
        label=f"{label} to {LABELS[peer]}, {buffers} buffer",
        name=f"{name}-{buffers}",
        group=peer,
        at_receiver={"kernel_buffers": BUFFERS[buffers]},
        **options,
    )


def opened(make: Callable[[], Namespaces]) -> Callable[[Sizes], AbstractContextManager[list[Row]]]:
    """The rows on a network that is made when they are measured."""

    @contextmanager
    def rows(sizes: Sizes) -> Iterator[list[Row]]:
        with make() as network:
            yield [each for peer in PEERS for each in rows_of(network, peer, sizes)]

    return rows


def against(part: str, other: str) -> Callable[[str], str]:
    """A row whose name has one part is compared to the row that has the other part there."""
    return lambda name: name.replace(part, other) if part in name else ""


COLUMNS = (
    Column("granted, bytes", "granted_receive_bytes"),
    Column("MB/s", "megabytes_per_second", drawn=True),
    Column("default, times LEDBAT", "megabytes_per_second", against=against("default", "ledbat")),
    Column("stock, of large", "megabytes_per_second", against=against("stock", "large")),
    Column("default, times the other sender", "megabytes_per_second", against=against("default", OTHER)),
    Column("datagrams lost in the buffer", "dropped_datagrams", drawn=True),
    Column("bytes in each", "payload_bytes_of_packet"),
    Column("% sent again", "sent_again_percent", drawn=True),
    Column("timeouts", "timeouts"),
)
LOOPBACK = Part(
    "stock-peers-loopback",
    "Peers with stock buffers: one stream over loopback",
    COLUMNS,
    opened(Alone),
    why_no_namespaces,
)
VETH = Part(
    "stock-peers-veth",
    "Peers with stock buffers: one stream between two namespaces",
    COLUMNS,
    opened(Cable),
    why_no_namespaces,
)
