"""BitTorrent clients as peers: programs that a Debian package installs, or that are built on its libraries.

tests/run does not use them.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from .support import HERE, PYTHON, no_python

KTORRENT_SOURCE = HERE / "ktorrent_peer.cpp"
KTORRENT_HEADERS = Path("/usr/include/KF5/libktorrent")


def debian_version(package: str) -> str:
    """The version of a Debian package that is installed here; empty if it is not."""
    if shutil.which("dpkg-query") is None:
        return ""
    asked = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True)
    return asked.stdout if asked.returncode == 0 else ""


def no_debian(*packages: str) -> str:
    """Which of these Debian packages are missing, as a sentence."""
    missing = " ".join(package for package in packages if not debian_version(package))
    return f"run `apt-get install {missing}`" if missing else ""


def no_ktorrent() -> str:
    """What is missing for the program on KTorrent's library."""
    return no_debian("g++", "pkg-config", "libktorrent-dev")


def client(package: str) -> tuple[str, ...]:
    """The command that drives a whole client."""
    return (*PYTHON, str(HERE / "client_peer.py"), package.partition("-")[0])


def no_client(package: str) -> str:
    """What is missing for a whole client."""
    return no_debian(package) or no_python("bencode2")


@functools.cache
def ktorrent() -> tuple[str, ...]:
    """Build the program on KTorrent's library, once for each version of its source; returns its command."""
    stamp = f"{KTORRENT_SOURCE.stat().st_mtime_ns:x}-{debian_version('libktorrent-dev')}"
    program = Path(tempfile.gettempdir()) / f"txutp-ktorrent-peer-{stamp}"
    if not program.exists():
        qt = subprocess.run(
            ["pkg-config", "--cflags", "--libs", "Qt5Core", "Qt5Network"], capture_output=True, text=True, check=True
        )
        made = program.with_suffix(".new")
        includes = [f"-I{KTORRENT_HEADERS}", f"-I{KTORRENT_HEADERS.parent}"]
        command = ["g++", "-std=c++17", "-O1", "-fPIC", "-o", str(made), str(KTORRENT_SOURCE)]
        subprocess.run([*command, *includes, *qt.stdout.split(), "-lKF5Torrent"], check=True)
        made.rename(program)
    return (str(program),)
