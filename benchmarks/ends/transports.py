"""Twisted's endpoints for each transport that is compared, and what the UDP port below a stream has counted."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.endpoints import clientFromString, serverFromString

from benchmarks.ends.talk import Words
from txutp import Settings, UTPServerEndpoint
from txutp.udp import ports as udp

# More connections than that from one address need settings of their own; so many is the default limit of txutp.
USUAL_CONNECTIONS = 5_000

# What ``kernel_buffers`` in the options means, as the value of ``txutp.udp.ports.KERNEL_BUFFER_BYTES``.
# Linux grants twice what is asked for, and no more than twice its limit (net.core.rmem_max, 212,992 as it comes), so
# one byte above the default asks, and gets what a kernel as it comes would grant at most.  Half of the default does
# not ask at all.
KERNEL_BUFFER_BYTES = {"stock": 212_992 + 1, "unasked": 212_992 // 2}

# What is told of a connection, and of its port, by those versions of txutp that know it.
IN_STATS = {
    "timeouts": "timeouts",
    "packets_sent": "segs_out",
    "packets_sent_again": "segs_retrans",
    "payload_bytes_of_packet": "mss",
}
IN_COUNTERS = ("receive_overflows",)


class OtherPorts:
    """The reactor, with UDP ports as other systems or other programs would give them to txutp."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def __getattr__(self, name: str) -> Any:
        # What the reactor provides is not handed on: txutp sees no IReactorFDSet, and so it calls listenUDP.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.reactor, name)


class NoOffload(OtherPorts):
    """UDP ports with large buffers that send and receive one datagram at a time."""

    def listenUDP(self, port: int, protocol: Any, interface: str = "", maxPacketSize: int = 8192) -> udp.BatchPort:
        udp_port = udp.BatchPort(port, protocol, interface, self.reactor, offload=False)
        udp_port.startListening()
        return udp_port


def same(reactor: Any) -> Any:
    """The reactor as it is."""
    return reactor


# Name in the options -> first word of the endpoint string, and the reactor to use.
TRANSPORTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "utp": ("utp", same),
    "utp-no-offload": ("utp", NoOffload),
    "utp-listen-udp": ("utp", OtherPorts),
    "tcp": ("tcp", same),
}


def prepare(options: Words) -> None:
    """What has to be done before any socket is opened."""
    if "kernel_buffers" in options:
        udp.KERNEL_BUFFER_BYTES = KERNEL_BUFFER_BYTES.get(options["kernel_buffers"], udp.KERNEL_BUFFER_BYTES)


def server(reactor: Any, options: Words) -> Any:
    """A server endpoint on a free port of ``host``, for ``connections`` if they are many."""
    prepare(options)
    word, adapt = TRANSPORTS[options["transport"]]
    host, connections = options["host"], options.get("connections", 0)
    if word == "utp" and connections > USUAL_CONNECTIONS:
        settings = Settings(maximum_connections=2 * connections, maximum_connections_per_address=2 * connections)
        return UTPServerEndpoint(adapt(reactor), 0, interface=host, settings=settings)
    return serverFromString(adapt(reactor), f"{word}:0:backlog=1000:interface={host}")


def client(reactor: Any, options: Words) -> Any:
    """A client endpoint to ``port`` of ``host``; ``congestion`` names a controller of txutp."""
    prepare(options)
    word, adapt = TRANSPORTS[options["transport"]]
    congestion = f":congestion={options['congestion']}" if "congestion" in options else ""
    return clientFromString(adapt(reactor), f"{word}:{options['host']}:{options['port']}{congestion}")


def use_cubic(transport: Any) -> None:
    """Let a TCP connection use what most computers use, whatever this one would choose."""
    handle = getattr(transport, "getHandle", None)
    if handle is not None and hasattr(socket, "TCP_CONGESTION"):
        with suppress(OSError):
            handle().setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")


def counted(transport: Any) -> Words:
    """What txutp counted for a connection and its UDP port; nothing for other transports."""
    words: Words = {}
    utp = getattr(transport, "_utp", None)  # nothing public leads from a connection to its port's counters
    if utp is None:
        return words
    stats = transport.stats()
    counters = utp.multiplexer.counters
    words = {name: getattr(stats, attribute) for name, attribute in IN_STATS.items() if hasattr(stats, attribute)}
    words |= {name: getattr(counters, name) for name in IN_COUNTERS if hasattr(counters, name)}
    port = utp.port
    if port is None:
        return words
    words["granted_receive_bytes"] = getattr(port, "granted_receive_bytes", 0)
    # without offload, one call of ours is many of the system
    if counters.send_calls and getattr(port, "offload_send", False):
        words["datagrams_per_send_call"] = counters.datagrams_sent / counters.send_calls
    return words
