"""What the kernel and Python leave room for: runs of datagrams without any protocol, in one direction.

    python -m benchmarks.limit

One process gives runs to the kernel (GSO), another one takes them (GRO) and joins them.  Nobody who sends datagrams of
this size from Python can be faster than that, so it is what the streams are compared with.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from benchmarks.network import Network
from benchmarks.parts import FULL, Column, Part, Results, Row, Sizes, Values, measure_round
from benchmarks.support import machine, versions
from benchmarks.transfers import transfer

SMALL = "limit-1400"
LARGE = "limit-65000"

# Name -> label, bytes of a datagram, datagrams in a run.
KINDS = {
    SMALL: ("limit: no protocol, 45 datagrams of 1400 bytes at a time", 1_400, 45),
    LARGE: ("limit: no protocol, single datagrams of 65,000 bytes", 65_000, 1),
}
ROUNDS = 5


def rows(network: Network, sizes: Sizes) -> list[Row]:
    """Both kinds, as rows of a table."""
    return [one(network, name, sizes.stream_bytes) for name in KINDS]


def one(network: Network, name: str, total_bytes: int) -> Row:
    label, datagram_bytes, run_datagrams = KINDS[name]

    def measure(code: Path) -> Values:
        options = {"datagram_bytes": datagram_bytes, "run_datagrams": run_datagrams}
        return transfer(network, "utp", "utp", total_bytes, code, module="bare", **options)

    return Row(name, label, measure)


def main() -> None:
    """Only these, over loopback."""
    columns = (
        Column("MB/s", "megabytes_per_second"),
        Column("CPU s/GB, sender", "sender_cpu_seconds_per_gigabyte"),
        Column("CPU s/GB, receiver", "receiver_cpu_seconds_per_gigabyte"),
    )
    measured = rows(Network(), FULL)
    part = Part("limit", "Datagrams without any protocol over loopback", columns, lambda sizes: nullcontext(measured))
    results = Results(part)
    for number in range(ROUNDS):
        for _ in measure_round(measured, results, number):
            pass
    print(f"{results.table()}\n{machine()}; {versions()}.")


if __name__ == "__main__":
    main()
