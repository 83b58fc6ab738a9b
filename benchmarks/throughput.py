"""How fast one stream goes one way between two processes on this machine, and what it costs.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --mebibytes 16 --rounds 1 utp tcp

Every round measures each transport once, so that what else happens on the machine meets all of them.  The table shows
medians, with the smallest and the largest value behind them.  MB are 1,000,000 bytes.  Time and CPU time begin with
the connection, so nobody's start-up counts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from support import machine, markdown, spread, versions, worker

HERE = Path(__file__).parent
PEER = HERE / "utp_native.js"
PACKAGE = HERE.parent / "tests" / "interop" / "node_modules" / "utp-native" / "package.json"

LABELS = {
    "utp": "txutp",
    "utp-no-offload": "txutp, a datagram at a time (no GSO and GRO)",
    "utp-listen-udp": "txutp on `reactor.listenUDP`",
    "tcp": "Twisted TCP",
    "utp-native": "utp-native (libutp, C)",
}


@dataclass
class Measured:
    """What the rounds of one transport gave."""

    megabytes_per_second: list[float] = field(default_factory=list)
    sender_cpu_seconds_per_gigabyte: list[float] = field(default_factory=list)
    receiver_cpu_seconds_per_gigabyte: list[float] = field(default_factory=list)


def commands(transport: str) -> tuple[list[object], list[object]]:
    """How to start a receiver and a sender; a port number follows the sender's."""
    if transport == "utp-native":
        return ["node", PEER, "receive"], ["node", PEER, "send"]
    python = [sys.executable, HERE / "support.py"]
    return [*python, "receive", transport], [*python, "send", transport]


def measure(transport: str, total_bytes: int, measured: Measured) -> None:
    """One transfer."""
    receive, send = commands(transport)
    with worker(*receive, total_bytes) as receiver:
        port = receiver.line()["port"]
        with worker(*send, total_bytes, port) as sender:
            received = receiver.line()
            sent = sender.line()
    gigabytes = total_bytes / 1e9
    measured.megabytes_per_second.append(total_bytes / 1e6 / received["seconds"])
    measured.sender_cpu_seconds_per_gigabyte.append(sent["cpu_seconds"] / gigabytes)
    measured.receiver_cpu_seconds_per_gigabyte.append(received["cpu_seconds"] / gigabytes)


def utp_native() -> str | None:
    """Its version and that of Node.js; None if one of them is not here."""
    node = shutil.which("node")
    if node is None or not PACKAGE.exists():
        return None
    version = json.loads(PACKAGE.read_text())["version"]
    return f"utp-native {version} on Node.js {subprocess.check_output([node, '--version'], text=True).strip()}"


def table(results: dict[str, Measured]) -> str:
    """The results as Markdown."""

    def median(name: str) -> float | None:
        return statistics.median(results[name].megabytes_per_second) if name in results else None

    def times(name: str, other: str) -> str:
        ours, theirs = median(name), median(other)
        return f"{ours / theirs:.2f}" if ours and theirs else "-"

    rows = [
        [
            LABELS[name],
            spread(measured.megabytes_per_second),
            spread(measured.sender_cpu_seconds_per_gigabyte, 1),
            spread(measured.receiver_cpu_seconds_per_gigabyte, 1),
            times(name, "utp-native"),
            times(name, "tcp"),
        ]
        for name, measured in results.items()
    ]
    header = ["", "MB/s", "CPU s/GB, sender", "CPU s/GB, receiver", "times utp-native", "times Twisted TCP"]
    return markdown(header, rows)


def main() -> None:
    """Measure what the command line says, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("transports", nargs="*", metavar="TRANSPORT", help=f"some of: {', '.join(LABELS)}")
    parser.add_argument("--mebibytes", type=int, default=128, help="length of a transfer (default: 128)")
    parser.add_argument("--rounds", type=int, default=5, help="transfers of each transport (default: 5)")
    parser.add_argument("--json", action="store_true", help="print all single values instead of a table")
    options = parser.parse_args()
    for name in options.transports:
        if name not in LABELS:
            parser.error(f"{name} is none of {', '.join(LABELS)}")

    names = options.transports or list(LABELS)
    native = utp_native()
    if native is None:
        names = [name for name in names if name != "utp-native"]
    results = {name: Measured() for name in names}
    for _ in range(options.rounds):
        for name in names:
            measure(name, options.mebibytes * 2**20, results[name])

    about: dict[str, Any] = {
        "machine": machine(),
        "versions": f"{versions()}, {native or 'no utp-native: it needs node, and `npm install` in tests/interop'}",
        "mebibytes": options.mebibytes,
        "rounds": options.rounds,
    }
    if options.json:
        print(json.dumps(about | {"results": {name: asdict(measured) for name, measured in results.items()}}, indent=2))
        return
    print(f"One stream of {options.mebibytes} MiB over loopback; medians [and range] of {options.rounds} rounds.")
    print(f"{about['machine']}; {about['versions']}.\n")
    print(table(results))


if __name__ == "__main__":
    main()
