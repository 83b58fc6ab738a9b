"""``txutp dump``: the uTP packets and connections in a capture."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import quantiles
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from txutp.cli.captures import Capture, CapturedDatagram, UnreadableCapture
from txutp.cli.following import Direction, Followed, Follower, Seen, packets_in
from txutp.cli.output import EXIT_UNREADABLE, give_up
from txutp.core.packet import NAMES, VERSION, Packet
from txutp.endpoints import host_and_port


@click.command(
    short_help="Show uTP packets and connections in a capture.",
    epilog=f"Exit codes: {EXIT_UNREADABLE} the file is not a capture, or damaged.",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-s", "--summary", is_flag=True, help="Show the connections only, not their packets.")
@click.option("-c", "--connection", type=click.IntRange(min=1), help="Show this connection only, by its number.")
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="Look only at datagrams from or to this UDP port.")
@click.option("--json", "as_json", is_flag=True, help="Print packets, and then connections, as lines of JSON.")
def dump(files: tuple[Path, ...], summary: bool, connection: int | None, port: int | None, as_json: bool) -> None:
    """Show the uTP packets in captures of tcpdump or Wireshark, and a summary of each connection.

    Packets have the names of Wireshark's `bt-utp` dissector. Pcap and pcapng are read, of Ethernet (with VLANs),
    loopback, "any" and raw IP. UDP of other protocols is left out: a connection counts if both sides spoke with ids
    that belong together, or one of them began with a SYN.
    """
    for path in files:
        try:
            follower = Follower()
            for _ in _packets(path, port, follower):
                pass
            shown = [
                followed
                for followed in follower.connections
                if followed.is_certain and connection in (None, followed.number)
            ]
            if not summary:
                # Again from the beginning: at the first packet of a connection it is not certain that it is one.
                _print_packets(path, port, {followed.number for followed in shown}, as_json)
        except UnreadableCapture as problem:
            give_up(str(problem), EXIT_UNREADABLE)
        if as_json:
            for followed in shown:
                click.echo(json.dumps(_connection_dictionary(followed)))
        else:
            _print_summary(path, shown)


def _packets(path: Path, port: int | None, follower: Follower) -> Iterator[tuple[CapturedDatagram, Seen]]:
    """Yields the datagrams of a capture that may be uTP, with what the follower says of each."""
    for datagram in Capture(path):
        if port in (None, datagram.source[1], datagram.destination[1]):
            cut_off_bytes = datagram.length - len(datagram.data)
            for data in packets_in(datagram.data):
                seen = follower.on_datagram(
                    datagram.time_us, datagram.source, datagram.destination, data, len(data) + cut_off_bytes
                )
                if seen is not None:
                    yield datagram, seen


def _print_packets(path: Path, port: int | None, numbers: set[int], as_json: bool) -> None:
    start_us: int | None = None
    for datagram, seen in _packets(path, port, Follower()):
        start_us = datagram.time_us if start_us is None else start_us
        if seen.connection.number in numbers:
            click.echo(_packet_json(datagram, seen) if as_json else _packet_line(datagram, start_us, seen))


def _packet_line(datagram: CapturedDatagram, start_us: int, seen: Seen) -> str:
    packet = seen.packet
    sack = "" if packet.selective_ack is None else f" sack={_acked_behind(packet)}"
    length = f" len={seen.payload_bytes}" if seen.payload_bytes else ""
    arrow = f"{host_and_port(*datagram.source)} > {host_and_port(*datagram.destination)}"
    return (
        f"{(datagram.time_us - start_us) / 1e6:10.6f} #{seen.connection.number} {arrow} {NAMES[packet.type]}"
        f" id={packet.connection_id} seq={packet.seq_nr} ack={packet.ack_nr} wnd={packet.wnd_size}"
        f" delay={packet.timestamp_diff_us}us{sack}{length}{f'  [{seen.remark}]' if seen.remark else ''}"
    )


def _acked_behind(packet: Packet) -> str:
    """Returns the numbers that a selective ack names, as ranges."""
    mask = packet.selective_ack or 0
    ranges: list[list[int]] = []
    for bit in range(mask.bit_length()):
        if mask >> bit & 1:
            number = packet.ack_nr + 2 + bit
            if ranges and ranges[-1][1] == number - 1:
                ranges[-1][1] = number
            else:
                ranges.append([number, number])
    return (
        "nothing"
        if not ranges
        else ",".join(
            f"{first & 0xFFFF}" if first == last else f"{first & 0xFFFF}-{last & 0xFFFF}" for first, last in ranges
        )
    )


def _packet_json(datagram: CapturedDatagram, seen: Seen) -> str:
    packet = seen.packet
    described: dict[str, Any] = {
        "frame.time_epoch": datagram.time_us / 1e6,
        "ip.src": datagram.source[0],
        "udp.srcport": datagram.source[1],
        "ip.dst": datagram.destination[0],
        "udp.dstport": datagram.destination[1],
        "connection": seen.connection.number,
        "bt-utp.ver": VERSION,
        "bt-utp.type": packet.type,
        "bt-utp.connection_id": packet.connection_id,
        "bt-utp.timestamp_us": packet.timestamp_us,
        "bt-utp.timestamp_diff_us": packet.timestamp_diff_us,
        "bt-utp.wnd_size": packet.wnd_size,
        "bt-utp.seq_nr": packet.seq_nr,
        "bt-utp.ack_nr": packet.ack_nr,
        "bt-utp.len": seen.payload_bytes,
    }
    if packet.selective_ack is not None:
        described["bt-utp.extension_bitmask"] = f"{packet.selective_ack:x}"
    if seen.remark:
        described["remark"] = seen.remark
    return json.dumps(described)


def _percentiles_ms(values_us: list[int]) -> dict[str, float] | None:
    """Returns the median, the 95th percentile and the largest value in milliseconds; None without values."""
    if not values_us:
        return None
    cuts = quantiles(values_us, n=20, method="inclusive") if len(values_us) > 1 else values_us * 19
    return {"p50": round(cuts[9] / 1e3, 3), "p95": round(cuts[18] / 1e3, 3), "max": round(max(values_us) / 1e3, 3)}


def _direction_dictionary(direction: Direction) -> dict[str, Any]:
    return {
        "source": host_and_port(*direction.source),
        "connection_id": direction.connection_id,
        "packets": direction.packets,
        "data_packets": direction.data_packets,
        "payload_bytes": direction.payload_bytes,
        "largest_payload_bytes": direction.largest_payload_bytes,
        "retransmitted_packets": direction.retransmitted_packets,
        "retransmitted_bytes": direction.retransmitted_bytes,
        "out_of_order_packets": direction.out_of_order_packets,
        "selective_acks": direction.selective_acks,
        "zero_windows": direction.zero_windows,
        "round_trip_ms": _percentiles_ms(direction.round_trips_us),
        "queue_delay_ms": _percentiles_ms(direction.queue_delays_us),
        "queue_delay_histogram": direction.histogram(),
    }


def _connection_dictionary(followed: Followed) -> dict[str, Any]:
    initiator, acceptor = followed.directions
    handshake_us = followed.handshake_us
    return {
        "connection": followed.number,
        "seconds": (followed.last_us - followed.begun_us) / 1e6,
        "syns": followed.syns,
        "handshake_ms": None if handshake_us is None else handshake_us / 1e3,
        "end": followed.end,
        "initiator": _direction_dictionary(initiator),
        "acceptor": _direction_dictionary(acceptor),
    }


def _print_summary(path: Path, shown: Iterable[Followed]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    count = 0
    for followed in shown:
        count += 1
        initiator, acceptor = followed.directions
        handshake = "no SYN seen" if not followed.syns else f"{followed.syns} SYN" + "s" * (followed.syns > 1)
        if followed.handshake_us is not None:
            handshake += f", answered after {followed.handshake_us / 1e3:.3f} ms"
        seconds = (followed.last_us - followed.begun_us) / 1e6
        table = Table(
            title=f"#{followed.number} {host_and_port(*initiator.source)} > {host_and_port(*acceptor.source)}",
            caption=f"{handshake}; {seconds:.3f} s; end: {followed.end}",
            title_justify="left",
            caption_justify="left",
        )
        for heading in ("", "from the initiator", "from the acceptor"):
            table.add_column(heading, justify="right" if heading else "left")
        for name, text in ROWS.items():
            table.add_row(name, text(initiator), text(acceptor))
        console.print(table)
    if not count:
        console.print(f"{path}: no uTP connection.")


def _milliseconds(values_us: list[int]) -> str:
    described = _percentiles_ms(values_us)
    return "-" if described is None else f"{described['p50']:g} / {described['p95']:g} / {described['max']:g}"


def _bars(direction: Direction) -> str:
    """Returns the histogram of queue delays, the buckets that are not empty."""
    return "\n".join(f"{edge}: {number}" for edge, number in direction.histogram().items() if number) or "-"


ROWS: dict[str, Any] = {
    "packets": lambda direction: f"{direction.packets:,}",
    "payload bytes": lambda direction: f"{direction.payload_bytes:,}",
    "largest payload": lambda direction: f"{direction.largest_payload_bytes:,}",
    "sent again": lambda direction: f"{direction.retransmitted_packets:,}",
    "out of order": lambda direction: f"{direction.out_of_order_packets:,}",
    "selective acks": lambda direction: f"{direction.selective_acks:,}",
    "windows of 0": lambda direction: f"{direction.zero_windows:,}",
    "round trip, ms (p50 / p95 / max)": lambda direction: _milliseconds(direction.round_trips_us),
    "queue delay, ms (p50 / p95 / max)": lambda direction: _milliseconds(direction.queue_delays_us),
    "queue delays": _bars,
}
