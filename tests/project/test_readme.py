"""Everything that the README shows is true: its commands and programs run, its strings parse, its files are there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.wheels import offline_with, wheels_for

ROOT = Path(__file__).resolve().parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "docs" / "explanation" / "house.md").read_text(encoding="utf-8")

TIMEOUT_SECONDS = 60
INSTALL_SECONDS = 300

# Every fenced block, by how it begins, and the test that runs it.
INSTALL = 'pip install ".[cli]" && txutp demo'
ECHO_SERVER = "from twisted.internet import defer, endpoints, protocol, task\n\n\nclass Echo"
ECHO_CLIENT = "from twisted.internet import defer, endpoints, protocol, task\n\n\n@task.react"
BLOCKS = {
    "sh": [INSTALL],
    "python": [ECHO_SERVER, ECHO_CLIENT],
}


def fenced() -> list[tuple[str, str]]:
    """The blocks of the README: language and text."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def block(beginning: str) -> str:
    """The one block that begins so."""
    [text] = [text for _, text in fenced() if text.startswith(beginning)]
    return text


def environment(scripts: Path = Path(sys.executable).parent, **changes: str) -> dict[str, str]:
    """Commands are those of this Python, or those in ``scripts``."""
    path = os.pathsep.join([str(scripts), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | changes


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that looks like the checkout to commands, and may be written to."""
    for name in ("README.md", "benchmarks", "examples", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def free_port() -> int:
    """A UDP port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(command: str | list[str], place: Path, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    words = shlex.split(command) if isinstance(command, str) else command
    done = subprocess.run(
        words, cwd=place, env=environment(), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    if check:
        assert done.returncode == 0, done.stderr.decode()
    return done


@contextmanager
def running(command: str | list[str], place: Path) -> Iterator[None]:
    """Run a server while the block runs."""
    words = shlex.split(command) if isinstance(command, str) else command
    server = subprocess.Popen(words, cwd=place, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert server.poll() is None, "the server ended"
    finally:
        server.kill()
        server.wait()


def run_until_served(command: str | list[str], place: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a client; again, if its server was not ready yet."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        done = run(command, place, check=False)
        if done.returncode == 0 or time.monotonic() > deadline:
            assert done.returncode == 0, done.stderr.decode()
            return done


def test_every_block_has_a_test() -> None:
    """No block was added, or changed its beginning, without a test that runs it."""
    strangers = [
        (language, text)
        for language, text in fenced()
        if not any(text.startswith(beginning) for beginning in BLOCKS.get(language, []))
    ]

    assert strangers == []
    for beginning in (beginning for beginnings in BLOCKS.values() for beginning in beginnings):
        assert block(beginning)


def test_the_examples_are_the_same() -> None:
    """The echo in the README is that in the examples."""
    assert (ROOT / "examples" / "echo_server.py").read_text() == block(ECHO_SERVER)
    assert (ROOT / "examples" / "echo_client.py").read_text() == block(ECHO_CLIENT)


def test_echo(place: Path) -> None:
    """The two programs talk to each other."""
    port = str(free_port())
    server, client = place / "server.py", place / "client.py"
    server.write_text(block(ECHO_SERVER).replace("6881", port))
    client.write_text(block(ECHO_CLIENT).replace("6881", port))

    with running([sys.executable, str(server)], place):
        done = run_until_served([sys.executable, str(client)], place)

    assert done.stdout.decode().splitlines() == ["Hello over uTP!"]
    assert "`Hello over uTP!`" in README


@pytest.mark.packaging
@pytest.mark.slow
def test_install_and_demo(tmp_path: Path) -> None:
    """In a fresh virtual environment the first command does all that it says."""
    tree = tmp_path / "tree"
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "txutp", "twisted"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy2(source, tree / name)
    venv.create(tmp_path / "venv", with_pip=True)
    wheels = offline_with(wheels_for(tree, tmp_path))
    inside = environment(tmp_path / "venv" / "bin", PIP_DISABLE_PIP_VERSION_CHECK="1", **wheels)
    # What is installed has to do, not what this test was started from.
    del inside["PYTHONPATH"]

    done = subprocess.run(
        ["bash", "-c", block(INSTALL)],
        cwd=tree,
        env=inside,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=INSTALL_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert done.stdout.count("identical") == 2


def test_the_test_command_is_that_of_the_build_machine() -> None:
    """This test is run by the command, so it only looks: people and machines run the same."""
    command = "tests/run"

    assert f"`{command}` makes a virtual environment" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert os.access(ROOT / command, os.X_OK)
    assert f"/{command}" in (ROOT / ".ci" / "run").read_text()


def rows(first_cell: str, page: str = README) -> list[str]:
    """The first cells of the table that begins with this one."""
    lines = page.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first_cell} |"))
    cells = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells.append(line.split("|")[1].strip())
    return cells


def test_the_map_shows_what_is_there() -> None:
    """Every file on the map exists, and no module of the package is missing on it."""
    folder = ROOT
    shown = set()
    for name in re.findall(r"`([^`]+)`", " ".join(rows("Where", MAP))):
        # A name without a folder is in that of the name before it.
        path = ROOT / name if "/" in name else folder / name
        assert path.exists(), name
        folder = path if path.is_dir() else path.parent
        shown.add(path)

    modules = {path for path in (ROOT / "txutp").rglob("*.py") if not path.name.startswith("__")}
    quiet = {ROOT / "txutp" / name for name in ("environment.py", "errors.py", "core/settings.py", "core/stats.py")}
    assert modules - quiet <= shown


def test_links() -> None:
    """Links into the repository and into the page lead somewhere."""
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / target).exists(), target
