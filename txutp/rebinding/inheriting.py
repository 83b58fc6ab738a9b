"""How child processes of ``python -m txutp.rebinding`` rebind their reactors too.

Options travel in the environment variable ``TXUTP_REBINDING``, written as on the command line.  Python imports a module
``sitecustomize`` when it starts, and finds ours first, because its directory is put in front of ``PYTHONPATH``.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from txutp.rebinding.options import Options, read_options

VARIABLE = "TXUTP_REBINDING"
STARTUP = str(Path(__file__).resolve().parent / "startup")


def bequeath(words: Sequence[str], environment: MutableMapping[str, str]) -> None:
    """Let the children of this process begin with these options."""
    environment[VARIABLE] = shlex.join(words)
    inherited = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != STARTUP]
    environment["PYTHONPATH"] = os.pathsep.join([STARTUP, *inherited])


def begin_as_child() -> None:
    """Called when the child has its reactor: rebind what the parent has asked for."""
    words = shlex.split(os.environ.get(VARIABLE, ""))
    if words:
        options: Options = read_options(words)
        options.begin(os.path.basename(sys.argv[0]) if getattr(sys, "argv", None) else "python")
