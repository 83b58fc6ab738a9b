"""``txutp run``: a program of its own process, whose TCP is uTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.cli.support import TIMEOUT_SECONDS, Running, command, environment
from txutp.cli import main

PROGRAM = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory
port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
print(type(port).__name__, sys.argv[1:], sys.path[0], __name__, flush=True)
reactor.callLater(0, reactor.stop)
reactor.run()
sys.exit(7)
"""


def ran(place: Path, *words: str, begin: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end in a folder."""
    return subprocess.run(
        [*(begin or command()), "run", *words],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A file with a program, in a folder of its own."""
    (tmp_path / "programs").mkdir()
    path = tmp_path / "programs" / "server.py"
    path.write_text(PROGRAM)
    return path


def test_a_program_runs_as_python_runs_it(program: Path) -> None:
    """Its words are its own, also those that look like options of ours; so are its path and its exit code."""
    done = ran(program.parent.parent, str(program), "--ports", "9", "-h", "-m")

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"PosingPort ['--ports', '9', '-h', '-m'] {program.parent} __main__\n"


def test_a_module_is_found_where_the_command_was_called(program: Path) -> None:
    """Also by the installed script, for which Python searches the folder of scripts first."""
    scripts = program.parent.parent / "scripts"
    scripts.mkdir()
    (scripts / "txutp").write_text("from txutp.cli import main\nmain()\n")

    done = ran(program.parent, "-m", "server", begin=[sys.executable, str(scripts / "txutp")])

    assert (done.returncode, done.stderr) == (7, "")
    assert done.stdout == f"PosingPort [] {program.parent} __main__\n"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["--connect"], "Port"),
        (["--listen", "--ports", "1-3,7", "--ports", "0", "--hosts", "127.0.0.0/8"], "PosingPort"),
        (["--not-hosts", "10.0.0.1", "--not-hosts", "localhost", "--not-ports=9"], "Port"),
    ],
)
def test_options_choose_what_speaks_utp(program: Path, words: list[str], kind: str) -> None:
    """Each option reaches the rule, also if it is given twice."""
    assert ran(program.parent, *words, str(program)).stdout.startswith(f"{kind} [] ")


def test_the_report_and_the_children(program: Path) -> None:
    """Children inherit the rule and the report, unless the command says otherwise."""
    starter = program.parent / "starter.py"
    starter.write_text("import subprocess, sys\nsubprocess.run([sys.executable, 'server.py'])\n")

    assert ran(program.parent, "--report", "report", str(starter)).stdout.startswith("PosingPort")
    assert "listened over uTP: 127.0.0.1:" in (program.parent / "report").read_text()
    assert ran(program.parent, "--no-children", str(starter)).stdout.startswith("Port")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "which program?"),
        (["nothing-of-this-name"], "there is no file and no command"),
        (["--ports", "80-x", "twist"], "ports are numbers from 0 to 65535"),
        (["--listen", "--connect", "twist"], "not allowed with"),
        (["--nothing", "twist"], "No such option"),
    ],
)
def test_wrong_usage_is_told(words: list[str], sentence: str) -> None:
    """In the name of this command."""
    done = CliRunner().invoke(main, ["run", *words], prog_name="txutp")

    assert done.exit_code == 2
    assert sentence in done.output
    assert "txutp run" in done.output
    assert "rebinding" not in done.output


@pytest.mark.skipif(os.name == "nt", reason="the test interrupts as POSIX systems do it")
def test_an_interrupt_before_there_is_a_reactor(tmp_path: Path) -> None:
    """It ends the command with its exit code and a sentence, as it ends the other commands."""
    waiting = tmp_path / "waiting.py"
    waiting.write_text("import sys, time\nprint('waiting', file=sys.stderr, flush=True)\ntime.sleep(60)\n")
    with Running(tmp_path, "run", str(waiting)) as running:
        running.wait_for("waiting")
        running.process.send_signal(signal.SIGINT)
        assert running.end(None)[0] == 130
    assert "Interrupted." in running.said
    assert "Traceback" not in running.said
