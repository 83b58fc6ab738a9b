"""``docs/howto/workers.md`` is true: its commands and its program run."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.test_examples import running, says
from tests.project.test_readme import environment, free_port
from txutp.workers import __main__ as command
from txutp.workers import why_no_steering
from txutp.workers.serving import cores, ports_in

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "howto" / "workers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
WEB, FORWARD, SERVICE = (text.strip() for language, text in BLOCKS if language == "sh")
[PROGRAM] = (text for language, text in BLOCKS if language == "python")
HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60

pytestmark = pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())


def test_a_web_server(tmp_path: Path) -> None:
    """It serves, starts anew, grows and shrinks, tells its statistics, and ends, as the table of signals says."""
    (tmp_path / "page.html").write_text("<p>served by several</p>")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    port = str(free_port())
    with running(WEB.replace("8080", port).replace("--workers 4", "--workers 2"), tmp_path) as web:

        def fetch() -> None:
            fetched = says(f"{sys.executable} examples/fetch.py http://{HOST}:{port}/page.html", tmp_path)
            assert any("served by several" in line for line in fetched)

        web.until(f"2 workers on {HOST}:{port}")
        fetch()
        for name, wanted in (("SIGHUP", 2), ("SIGTTIN", 3), ("SIGTTOU", 2)):
            assert f"{name}" in PAGE
            web.process.send_signal(getattr(signal, name))
            web.until(f"Restarted: {wanted} workers")
        fetch()
        web.process.send_signal(signal.SIGUSR1)
        told = json.loads(web.until(r"^(\{.*\})$")[1])
        assert len(told["workers"]) == 2
        assert [each["port"] for each in told["ports"]] == [int(port)]
        web.process.send_signal(signal.SIGTERM)
        web.end()


def test_forwarding(tmp_path: Path) -> None:
    """One worker for each core, of the command `txutp forward`; a client finds the TCP server behind it."""
    ours, theirs = str(free_port()), str(free_port())
    (tmp_path / "page.html").write_text("<p>carried</p>")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with running(f"twist web --listen tcp:{theirs}:interface={HOST} --path .", tmp_path) as web:
        web.until(f"starting on {theirs}")
        text = FORWARD.replace("2222", ours).replace("127.0.0.1:22", f"127.0.0.1:{theirs}")
        with running(text, tmp_path) as forward:
            forward.until(f"{cores()} workers on {HOST}:{ours}")
            fetched = says(f"{sys.executable} examples/fetch.py http://{HOST}:{ours}/page.html", tmp_path)
            assert any("carried" in line for line in fetched)
            forward.process.send_signal(signal.SIGTERM)
            forward.end()


def test_a_service_of_twist(tmp_path: Path) -> None:
    """The same web server as a service."""
    (tmp_path / "page.html").write_text("<p>served by a service</p>")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    port = str(free_port())
    with running(SERVICE.replace("8080", port).replace("--workers 4", "--workers 2"), tmp_path) as web:
        web.until(f"2 workers on {HOST}:{port}")
        assert says(f"{sys.executable} examples/fetch.py http://{HOST}:{port}/page.html", tmp_path) == [
            "<p>served by a service</p>"
        ]


def test_an_interrupt_of_a_terminal_ends_all_without_a_complaint(tmp_path: Path) -> None:
    """It reaches the workers as well, which their parent ends at the same time."""
    port = str(free_port())
    with subprocess.Popen(
        [sys.executable, "-m", "txutp.workers", "--workers", "2", "twist", "web", "--listen", f"utp:{port}"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as service:
        assert service.stdout is not None
        said = ""
        while "2 workers on" not in said:
            line = service.stdout.readline()
            assert line, said
            said += line
        os.killpg(service.pid, signal.SIGINT)
        said += service.stdout.read()
        assert service.wait(TIMEOUT_SECONDS) == 0
    assert said.count("Main loop terminated") == 2
    assert "ReactorNotRunning" not in said


def test_the_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("6881", str(free_port()))],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == "0 connections in 3 workers\n"
    # those of the first generation, and of the second one; all of them print to one pipe
    told = sorted(re.findall("<.*?>", done.stdout))
    assert told == sorted(f"<Worker {number} of {count}>" for count in (2, 3) for number in range(count))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--listen", "utp:1"], "which program"),
        (["twist", "web", "--listen=utp:example.org:80"], "which port do the workers share"),
        (["true.py"], "which port do the workers share"),
        (["--listen", "tcp:1", "twist"], "written utp:PORT, and not 'tcp:1'"),
        (["--listen", "utp:x", "twist"], "a port is a number from 0 to 65535"),
        (["--listen", "utp:1", "no-such-program"], "there is no file and no command 'no-such-program'"),
        (["--listen", "utp:1", "--workers", "0", "twist"], "the number of workers is from 1 to 256"),
    ],
)
def test_sentences(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert sentence in " ".join(capsys.readouterr().err.split())


def test_a_program_that_ends_at_once_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise SystemExit(7)")
    done = subprocess.run(
        [sys.executable, "-m", "txutp.workers", "--workers", "2", "--listen", "utp:0", "broken.py"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "ended before it listened" in done.stderr
    assert "Traceback" not in done.stderr


def test_ports_are_found_among_the_words_of_a_program() -> None:
    """Alone or behind an option, each once; strings of clients and of other kinds are none."""
    words = ["twist", "x", "--listen", "utp:1", "--port=utp:2:interface=\\:\\:", "utp:1", "utp:example.org:3"]
    assert ports_in([*words, "tcp:4", "utp:fd=5", "utp:", "--x=tcp:6"]) == [("", 1), ("::", 2)]
