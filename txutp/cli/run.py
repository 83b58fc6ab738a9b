"""``txutp run``: a program whose TCP is uTP."""

from __future__ import annotations

import click

from txutp.cli.output import EXIT_INTERRUPTED, give_up
from txutp.rebinding.__main__ import main
from txutp.rebinding.options import OPTIONS, Option


def _click_option(option: Option) -> click.Option:
    """Returns an option of the rebinding as one that click shows and completes."""
    if option.metavar is None:
        return click.Option([option.name], is_flag=True, help=_sentence(option.help))
    kind = click.Path(dir_okay=False) if option.metavar == "FILE" else click.STRING
    return click.Option([option.name], type=kind, metavar=option.metavar, multiple=True, help=_sentence(option.help))


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."


def run_program(program: tuple[str, ...], **values: bool | tuple[str, ...]) -> None:
    """Run a Twisted program, with uTP in the place of TCP.

    PROGRAM is a Python file, or a command beside this Python or on PATH, like `txutp run twist web`. Without options
    every TCP port and connection of its reactor becomes one of uTP; the other side has to speak it, too.
    """
    words: list[str] = []
    for option in OPTIONS:
        value = values[option.name.lstrip("-").replace("-", "_")]
        if isinstance(value, tuple):
            words += [f"{option.name}={each}" for each in value]
        elif value:
            words.append(option.name)
    try:
        main([*words, "--", *program] if program else words, "txutp run")
    except KeyboardInterrupt:
        give_up("Interrupted.", EXIT_INTERRUPTED)


run = click.Command(
    "run",
    callback=run_program,
    help=run_program.__doc__,
    params=[
        *map(_click_option, OPTIONS),
        click.Argument(["program"], nargs=-1, type=click.UNPROCESSED, metavar="PROGRAM [ARGUMENTS]..."),
    ],
    # What follows the program is the program's.
    context_settings={"allow_interspersed_args": False},
    short_help="Run a Twisted program over uTP.",
    epilog=f"Exit codes: those of the program; 2 wrong usage; {EXIT_INTERRUPTED} interrupted before its reactor ran.",
)
