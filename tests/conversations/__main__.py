"""Run conversations: ``python -m tests.conversations --seeds 100000-100499 --jobs 2``, or one with ``--seed N -v``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conversations.running import Total, run_many, show


def seed_range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conversations", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seeds", type=seed_range, help="the first and the last, like 100000-100499")
    which.add_argument("--seed", type=int, help="a single one")
    parser.add_argument("--jobs", type=int, default=1, help="processes; 1 is this one")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the program of a seed, and its packets")
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="with --seed: write its packets, for Wireshark")
    parser.add_argument("--qlog", type=Path, metavar="DIRECTORY", help="with --seed: write a trace of each host")
    arguments = parser.parse_args()
    if arguments.seed is None and (arguments.pcap or arguments.qlog):
        parser.error("--pcap and --qlog are of one conversation: use --seed")
    if arguments.seed is not None:
        total = Total()
        total.add(show(arguments.seed, arguments.verbose, arguments.pcap, arguments.qlog))
    else:
        total = run_many(arguments.seeds, arguments.jobs)
    for line in total.lines():
        print(line)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
