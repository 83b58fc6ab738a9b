"""Run conversations: ``python -m tests.conversations --seeds 100000-100499 --jobs 2``, or one with ``--seed N -v``."""

from __future__ import annotations

import argparse
import sys

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
    arguments = parser.parse_args()
    if arguments.seed is not None:
        total = Total()
        total.add(show(arguments.seed, arguments.verbose))
    else:
        total = run_many(arguments.seeds, arguments.jobs)
    for line in total.lines():
        print(line)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
