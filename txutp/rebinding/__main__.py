"""``python -m txutp.rebinding [options] PROGRAM [ARGUMENTS]``: a whole program with uTP in the place of TCP.

The program runs in this very process, as Python would have run it: with its ``sys.argv``, its ``sys.path``, its exit
code.  It may choose its reactor, and become a daemon.  Its child processes that are Python begin in the same way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from txutp.rebinding.inheriting import bequeath
from txutp.rebinding.options import COMMAND, parser, read_options
from txutp.running import Unusable, find, run_program


def main(words: Sequence[str] | None = None, command: str = COMMAND) -> None:
    """Run the program to its end; SystemExit carries its exit code.  ``command`` is how we were called."""
    options = read_options(sys.argv[1:] if words is None else words, command)
    program, *arguments = [word for place, word in enumerate(options.program) if place or word != "--"] or [""]
    if not program:
        parser(command).error("which program? A file, or a command like twist; or -m and a module")
    try:
        path = "" if options.is_module else find(program, command.removeprefix("python "))
    except Unusable as problem:
        parser(command).error(str(problem))
    if options.children:
        bequeath(options.words, os.environ)
    options.begin(os.path.basename(program))
    try:
        run_program(program, arguments, options.is_module, path)
    finally:
        if not options.started:
            options.tell(os.path.basename(program), "never had a reactor, so there was nothing to rebind")


if __name__ == "__main__":
    main()
