"""The figures as Prometheus reads them: text of version 0.0.4 from a resource of ``twisted.web``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.web.resource import Resource

from txutp.core.states import CLOSED, STATE_NAMES
from txutp.monitoring.figures import Monitor, connection_figures, monitor_of

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

# Counters: from what a port or its connections have counted, to a name and a sentence.
COUNTERS = {
    "port_datagrams_received": ("datagrams_received", "Datagrams of every kind that came."),
    "port_bytes_received": ("datagram_received_bytes", "Bytes of these datagrams."),
    "port_datagrams_sent": ("datagrams_sent", "Datagrams that left."),
    "port_send_calls": ("send_calls", "System calls that sent datagrams."),
    "port_sends_refused": ("sends_refused", "Times that the socket was full; what it refused left later."),
    "port_sends_failed": ("sends_failed", "Times that the network could not be reached."),
    "port_receive_overflows": ("receive_overflows", "Datagrams that the kernel dropped because the socket was full."),
    "port_foreign": ("foreign_datagrams", "Datagrams that were not uTP."),
    "port_dropped_malformed": ("dropped_malformed", "Datagrams with an extension that runs past their end."),
    "port_dropped_unknown": ("dropped_unknown", "Packets for connections that do not exist."),
    "port_syns_refused": ("syns_refused", "SYNs refused because the port does not listen or a limit is reached."),
    "port_cookies_sent": ("cookies_sent", "SYNs that were answered without being remembered."),
    "port_half_open_evicted": ("half_open_evicted", "Unproven connections that made room for newer ones."),
    "port_resets_sent": ("resets_sent", "Answers to packets for connections that do not exist."),
    "port_segments_refused": ("segments_refused", "Segments not accepted while receive memory was short."),
    "stream_connections": ("connections_begun", "Connections that have begun."),
    "stream_bytes_sent": ("stream_sent_bytes", "Payload bytes that left, retransmissions included."),
    "stream_bytes_retrans": ("stream_retransmitted_bytes", "Payload bytes that were sent again."),
    "stream_bytes_acked": ("stream_acknowledged_bytes", "Payload bytes that peers have acknowledged."),
    "stream_bytes_received": ("stream_received_bytes", "Payload bytes that came and were new."),
    "stream_segs_out": ("packets_sent", "uTP packets of connections that left."),
    "stream_segs_in": ("packets_received", "uTP packets of connections that came."),
    "stream_segs_retrans": ("packets_retransmitted", "uTP packets that were sent again."),
    "stream_timeouts": ("retransmission_timeouts", "Retransmission timeouts."),
}

# Gauges of one connection: from a field of ``ConnectionStats`` to a name, a factor and a sentence.
CONNECTION_GAUGES: dict[str, tuple[str, float, str]] = {
    "rtt": ("rtt_seconds", 1e-3, "Round-trip time, smoothed."),
    "queue_delay": ("queue_delay_seconds", 1e-3, "Time that packets wait in queues on their way to the peer."),
    "receive_queue_delay": ("receive_queue_delay_seconds", 1e-3, "Time that the peer's packets wait in queues."),
    "target": ("target_delay_seconds", 1e-3, "Queue delay that the congestion controller aims at."),
    "cwnd": ("congestion_window_bytes", 1, "Bytes that the congestion controller lets be in flight."),
    "in_flight": ("in_flight_bytes", 1, "Payload bytes that are neither acknowledged nor taken for lost."),
    "unsent": ("unsent_bytes", 1, "Bytes that were written and have not left."),
}
CONNECTION_COUNTERS = {
    "bytes_acked": ("acknowledged_bytes", "Payload bytes that the peer has acknowledged."),
    "bytes_received": ("received_bytes", "Payload bytes that came and were new."),
    "segs_retrans": ("retransmitted_packets", "Packets that were sent again."),
}

Labels = Mapping[str, str]


def escaped(value: str) -> str:
    """Returns the value of a label as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def sample(name: str, labels: Labels, value: float) -> str:
    """Returns one line."""
    inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    number = str(value) if isinstance(value, int) else "NaN" if math.isnan(value) else repr(float(value))
    return f"{name}{{{inside}}} {number}" if inside else f"{name} {number}"


def family(name: str, kind: str, words: str, samples: Iterable[tuple[Labels, float]]) -> list[str]:
    """Returns the lines of a metric: its help, its type, its samples."""
    help_text = words.replace("\\", r"\\").replace("\n", r"\n")
    return [
        f"# HELP {name} {help_text}",
        f"# TYPE {name} {kind}",
        *(sample(name, labels, value) for labels, value in samples),
    ]


def prometheus_text(monitor: Monitor, labels: Labels, each_connection: bool) -> str:
    """Returns the figures of a reactor's ports; all of one moment, so that what ends meanwhile is not counted twice."""
    lines: list[str] = []
    counts = monitor.counts()
    for key, (name, words) in COUNTERS.items():
        samples = [({**labels, "port": port}, of_port.get(key, 0)) for port, of_port in counts.items()]
        lines += family(f"txutp_{name}_total", "counter", words, samples)
    ports = monitor.ports()
    states: dict[tuple[str, str], int] = {}
    half_open: dict[str, int] = {}
    held: dict[str, int] = {}
    for port, utp in ports:
        half_open[port] = half_open.get(port, 0) + utp.multiplexer.half_open
        held[port] = held.get(port, 0) + utp.multiplexer.memory.held_bytes
        for state in STATE_NAMES[:CLOSED]:
            states.setdefault((port, state), 0)
        for connection in utp.multiplexer:
            if connection.state != CLOSED:
                states[port, STATE_NAMES[connection.state]] += 1
    lines += family(
        "txutp_connections",
        "gauge",
        "Connections that there are, by state.",
        [({**labels, "port": port, "state": state}, count) for (port, state), count in states.items()],
    )
    for name, words, values in (
        ("half_open_connections", "Incoming connections that have not proved their source.", half_open),
        ("held_bytes", "Received bytes that the port holds for its readers.", held),
    ):
        samples = [({**labels, "port": port}, value) for port, value in values.items()]
        lines += family(f"txutp_{name}", "gauge", words, samples)
    if each_connection:
        lines += _each_connection(monitor, labels)
    return "\n".join(lines) + "\n"


def _each_connection(monitor: Monitor, labels: Labels) -> list[str]:
    figures = [found for each in monitor.connections() if (found := connection_figures(*each)) is not None]
    named = [
        ({**labels, "port": found["port"], "peer": found["peer"], "id": str(found["id"])}, found) for found in figures
    ]
    lines: list[str] = []
    for field, (name, factor, words) in CONNECTION_GAUGES.items():
        samples = [(of_this, found[field] * factor) for of_this, found in named]
        lines += family(f"txutp_connection_{name}", "gauge", words, samples)
    for field, (name, words) in CONNECTION_COUNTERS.items():
        samples = [(of_this, found[field]) for of_this, found in named]
        lines += family(f"txutp_connection_{name}_total", "counter", words, samples)
    return lines


class MetricsResource(Resource):
    """A resource of ``twisted.web`` with the figures of a reactor's uTP ports for Prometheus.

    ``labels`` are added to every sample.  ``each_connection`` adds the figures of each connection, by peer and id:
    each connection is then a time series of its own, so that is for services with few of them.  Counters only grow,
    also when connections and ports end; they begin when the first resource of the reactor is made.
    """

    isLeaf = True

    def __init__(self, reactor: Any = None, labels: Labels | None = None, each_connection: bool = False) -> None:
        super().__init__()
        if reactor is None:
            from twisted.internet import reactor
        self._monitor = monitor_of(reactor)
        self._labels = checked_labels(labels or {})
        self._each_connection = each_connection

    def render_GET(self, request: Any) -> bytes:
        """Answer a scrape."""
        request.setHeader(b"content-type", CONTENT_TYPE)
        return prometheus_text(self._monitor, self._labels, self._each_connection).encode()


def checked_labels(labels: Labels) -> dict[str, str]:
    """Returns a copy; ``ValueError`` says which name Prometheus would not take."""
    for name in labels:
        if not (name.isascii() and name.isidentifier()) or name.startswith("__"):
            raise ValueError(
                f"{name!r} is not the name of a label: letters, digits and underscores, and no digit first"
            )
        if name in ("port", "state", "peer", "id"):
            raise ValueError(f"{name!r} is a label of the metrics already")
    return {name: str(value) for name, value in labels.items()}
