"""The ``txutp`` command: one module for each of its commands.

Results go to standard output.  Standard error gets errors, and progress if it is a terminal.
"""

from __future__ import annotations

import sys

from txutp import __version__

try:
    import click
    import dpkt  # noqa: F401 - the commands read captures with it
    import rich  # noqa: F401 - the commands draw with it
except ModuleNotFoundError as missing:
    sys.exit(f'The txutp command needs {missing.name}. Please run: pip install "txutp[cli]"')

from txutp.cli.cat import cat
from txutp.cli.demo import demo, demo_server
from txutp.cli.dump import dump
from txutp.cli.forward import forward
from txutp.cli.perf import perf
from txutp.cli.plot import plot
from txutp.cli.receive import receive
from txutp.cli.run import run
from txutp.cli.send import send
from txutp.cli.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="txutp")
def main() -> None:
    """uTP (BEP 29) for Twisted: a stream over UDP that yields to other traffic."""


for command in (cat, demo, demo_server, dump, forward, perf, plot, receive, run, send, top):
    main.add_command(command)
