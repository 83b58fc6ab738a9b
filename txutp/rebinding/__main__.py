"""``python -m txutp.rebinding [options] PROGRAM [ARGUMENTS]``: a whole program with uTP in the place of TCP.

The program runs in this very process, as Python would have run it: with its ``sys.argv``, its ``sys.path``, its exit
code.  It may choose its reactor, and become a daemon.  Its child processes that are Python begin in the same way.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Sequence

from txutp.rebinding.inheriting import bequeath
from txutp.rebinding.options import parser, read_options


def main(words: Sequence[str] | None = None) -> None:
    """Run the program to its end; SystemExit carries its exit code."""
    options = read_options(sys.argv[1:] if words is None else words)
    program, *arguments = [word for place, word in enumerate(options.program) if place or word != "--"] or [""]
    if not program:
        parser().error("which program? A file, or a command like twist; or -m and a module")
    path = "" if options.is_module else find(program)
    if options.children:
        bequeath(options.words, os.environ)
    options.begin(os.path.basename(program))
    sys.argv[:] = [path or program, *arguments]
    try:
        if options.is_module:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            if not getattr(sys.flags, "safe_path", False):
                # Python puts the directory of the file there, and has put ours.
                sys.path[0] = os.path.dirname(os.path.realpath(path))
            runpy.run_path(path, run_name="__main__")
    finally:
        if not options.started:
            options.tell(os.path.basename(program), "never had a reactor, so there was nothing to rebind")


def find(program: str) -> str:
    """The path of a Python program; ends the process with a sentence if there is none."""
    path: str | None = program
    if not os.path.exists(program):
        beside = os.path.dirname(sys.executable)
        path = shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if path is None:
        parser().error(f"there is no file and no command {program!r}; a module needs -m before its name")
    problem = what_is_wrong_with(path)
    if problem:
        parser().error(f"{path} {problem}")
    return path


def what_is_wrong_with(path: str) -> str:
    """Why this Python cannot run a file; empty if it can."""
    if os.path.isdir(path) or path.endswith((".py", ".pyw", ".pyc", ".exe")):
        return ""  # Python says what is wrong with these
    with open(path, "rb") as file:
        line = file.readline(1_000)
    if not line.startswith(b"#!"):
        return "" if line.isascii() and b"\0" not in line else "is no Python program"
    interpreter = line[2:].decode("utf-8", "replace").strip()
    # Installers write a line for /bin/sh where the path of their Python is too long.
    if "python" not in interpreter and not interpreter.endswith("/sh"):
        return f"is no Python program: {interpreter} runs it"
    words = interpreter.split()
    if "env" in os.path.basename(words[0]) or words[0].endswith("/sh"):
        return ""
    if os.path.dirname(os.path.realpath(os.path.dirname(words[0]))) != os.path.dirname(
        os.path.realpath(os.path.dirname(sys.executable))
    ):
        return f"belongs to another Python: install txutp there, and run {words[0]} -m txutp.rebinding"
    return ""


if __name__ == "__main__":
    main()
