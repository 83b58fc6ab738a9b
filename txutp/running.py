"""Runs a Python program in this process, as Python itself would have run it.

``python -m txutp.rebinding``, ``txutp run`` and the workers of ``python -m txutp.workers`` prepare the process and call
this.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Sequence


class Unusable(Exception):
    """The program cannot be run; the text says why."""


def run_program(program: str, arguments: Sequence[str], is_module: bool, path: str) -> None:
    """Run a program to its end, with its ``sys.argv`` and ``sys.path``; SystemExit carries its exit code.

    ``path`` is what ``find`` has returned; it is not used for a module.
    """
    sys.argv[:] = [path or program, *arguments]
    if not getattr(sys.flags, "safe_path", False):
        # Python puts the directory of the file there, or for a module the current one, and has put ours.
        sys.path[0] = os.getcwd() if is_module else os.path.dirname(os.path.realpath(path))
    if is_module:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(path, run_name="__main__")


def find(program: str, command: str) -> str:
    """The path of a Python program; ``command`` is how it is run, for the sentence in ``Unusable``."""
    path: str | None = program
    if not os.path.exists(program):
        beside = os.path.dirname(sys.executable)
        path = shutil.which(program, path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))
    if path is None:
        raise Unusable(f"there is no file and no command {program!r}; a module needs -m before its name")
    problem = what_is_wrong_with(path, command)
    if problem:
        raise Unusable(f"{path} {problem}")
    return path


def what_is_wrong_with(path: str, command: str) -> str:
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
        return f"belongs to another Python: install txutp there, and run {words[0]} {command}"
    return ""
