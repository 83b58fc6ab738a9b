"""One file into qBittorrent, over uTP only, as a user has it: with the buffers that it comes with.

Verb: receive.  Options: host, bytes.  The torrent is that of ``torrent.py``.  qBittorrent tells its progress once in a
second or two, so the sender measures the time.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.ends.talk import Words, say, told
from benchmarks.ends.torrent import IN_MEMORY, torrent_file

PROGRAM = "qbittorrent-nox"
POLL_SECONDS = 0.05

# Nothing but uTP, nothing to find peers with, no login for programs on this machine.
CONFIGURATION = """
[BitTorrent]
Session\\BTProtocol=UTP
Session\\DHTEnabled=false
Session\\Encryption=2
Session\\LSDEnabled=false
Session\\PeXEnabled=false
Session\\Port={port}
[LegalNotice]
Accepted=true
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\\Address={host}
WebUI\\LocalHostAuth=false
WebUI\\Port={web_port}
"""


def free_port(host: str, kind: socket.SocketKind) -> int:
    """A free port of a host."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class Client:
    """The program with its one torrent, driven by its web interface."""

    def __init__(self, options: Words, directory: Path) -> None:
        host = options["host"]
        self.port = free_port(host, socket.SOCK_DGRAM)
        self._web = f"http://{host}:{free_port(host, socket.SOCK_STREAM)}/api/v2/torrents/info"
        folder = directory / "qBittorrent" / "config"
        folder.mkdir(parents=True)
        web_port = self._web.split(":")[2].split("/")[0]
        text = CONFIGURATION.format(host=host, port=self.port, web_port=web_port)
        (folder / "qBittorrent.conf").write_text(text, encoding="utf-8")
        torrent = directory / "file.torrent"
        torrent.write_bytes(torrent_file(options["bytes"]))
        command = [PROGRAM, f"--profile={directory}", f"--save-path={directory}", "--skip-dialog=true", str(torrent)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def torrents(self) -> list[dict[str, Any]]:
        """What the web interface tells, nothing before it is there."""
        if self.process.poll() is not None:
            sys.exit(f"{PROGRAM} has ended")
        try:
            with urllib.request.urlopen(self._web) as answer:
                told_torrents: list[dict[str, Any]] = json.load(answer)
                return told_torrents
        except urllib.error.URLError:
            return []

    def wait(self, *states: str) -> None:
        """Until the torrent is in one of these states."""
        while not any(torrent["state"] in states for torrent in self.torrents()):
            time.sleep(POLL_SECONDS)

    def cpu_seconds(self) -> float:
        """What the process has used so far, in user and kernel mode."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def receive(options: Words, directory: Path) -> None:
    """Fetch the file from the peer that connects."""
    client = Client(options, directory)
    try:
        client.wait("downloading", "stalledDL")
        before = client.cpu_seconds()
        say({"port": client.port})
        client.wait("uploading", "stalledUP")
        say({"cpu_seconds": client.cpu_seconds() - before})
    finally:
        client.process.kill()
        client.process.wait()


if __name__ == "__main__":
    verb, given = told()
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.exists() else None) as where:
        {"receive": receive}[verb](given, Path(where))
