"""Another end, with the profiler of Python watching it: ``profiled MODULE FILE VERB OPTIONS``.

When it has ended, the file holds what ``pstats`` reads.
"""

from __future__ import annotations

import cProfile
import importlib
import sys

from benchmarks.ends.talk import run


def main() -> None:
    module, path, verb, options = sys.argv[1:]
    sys.argv[1:] = [verb, options]
    # what it takes to start is not what is asked for
    act = getattr(importlib.import_module(f"benchmarks.ends.{module}"), verb)
    profile = cProfile.Profile()
    try:
        profile.runcall(run, {verb: act})
    finally:
        profile.dump_stats(path)


if __name__ == "__main__":
    main()
