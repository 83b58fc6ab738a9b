"""The tutorials under ``docs/tutorial``: their programs and commands run, in the order of the page."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import Page
from tests.project.test_examples import running, says
from tests.project.test_readme import INSTALL, block, environment, free_port

pytestmark = pytest.mark.skipif(os.name == "nt", reason="programs are ended as POSIX systems do it")

TIMEOUT_SECONDS = 60


def saved(page: Page, place: Path, port: str = "6881") -> list[str]:
    """Saves the programs of a page under the names that it tells; returns its commands, with another port."""
    names = re.findall(r"[Ss]ave this as `([\w.]+)`", page.text)
    for name, program in zip(names, page.programs, strict=True):
        (place / name).write_text(program.replace("6881", port), encoding="utf-8")
    return [command.replace("6881", port) for command in page.commands]


def last(lines: list[str]) -> str:
    """The last line with something on it."""
    return [line for line in lines if line][-1]


def test_echo(tmp_path: Path) -> None:
    """The client prints what the page shows; its second run, without a server, ends as it says."""
    page = Page("tutorial/echo")
    install, serve, ask = saved(page, tmp_path, str(free_port()))
    # A test of the README runs it.
    assert install == block(INSTALL).strip()
    shown = [text.text.splitlines() for text in page.blocks if text.language == "text"]

    with running(serve, tmp_path) as server:
        server.until("listening")
        assert says(ask, tmp_path) == shown[0]
        server.until("connected")
        assert "closed cleanly" in server.until("ended.*")[0]
    if sys.platform == "linux":
        with running(ask, tmp_path) as client:
            assert last(client.end(status=1)) == shown[1][0]


def test_files(tmp_path: Path) -> None:
    """A file arrives, one that is missing is an error, and nothing outside of the folder is sent."""
    page = Page("tutorial/files")
    serve, fetch = saved(page, tmp_path, "0")
    content = os.urandom(300_000)
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "cat.jpg").write_bytes(content)
    (tmp_path / "secret").write_text("secret")
    (here := tmp_path / "here").mkdir()
    fetch = fetch.replace("download.py", "../download.py")

    with running(serve, tmp_path) as server:
        fetch = fetch.replace("127.0.0.1:0", f"127.0.0.1:{server.port()}")
        said = says(fetch, here)
        server.until("cat.jpg: has arrived, .* packets sent again")
        for missing in ("dog.jpg", "../secret"):
            with running(fetch.replace("cat.jpg", missing), here) as client:
                assert last(client.end(status=1)) == f"builtins.FileNotFoundError: {missing}"

    [shown] = [text.text.strip() for text in page.blocks if text.language == "text"]
    assert re.sub(r"\d+\.\d", "0.4", said[-1]) == shown
    assert (here / "cat.jpg").read_bytes() == content


def test_testing(tmp_path: Path) -> None:
    """The tests of the page pass, as many as it says."""
    page = Page("tutorial/testing")
    [command] = saved(page, tmp_path)
    program, *words = shlex.split(command)
    assert program == "python"

    done = subprocess.run(
        [sys.executable, *words, "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "12 passed" in done.stdout
    assert "Twelve tests pass" in page.text
