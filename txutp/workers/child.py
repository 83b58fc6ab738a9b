"""``python -m txutp.workers.child PROGRAM ARGUMENTS``, which becomes a worker and runs the program."""

from __future__ import annotations

import os
import signal
import sys

from txutp.running import Unusable, find, run_program
from txutp.workers.member import begin


def main() -> None:
    """Run the program to its end; SystemExit carries its exit code."""
    # A terminal interrupts all its processes; the parent, which ends us, is told by it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    begin(os.environ)
    words = sys.argv[1:]
    is_module = words[0] == "-m"
    program, *arguments = words[is_module:]
    try:
        path = "" if is_module else find(program, "-m txutp.workers")
    except Unusable as problem:
        sys.exit(str(problem))
    run_program(program, arguments, is_module, path)


if __name__ == "__main__":
    main()
