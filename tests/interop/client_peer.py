"""A whole BitTorrent client as the other side of the matrix of peers: qBittorrent or Transmission.

    python client_peer.py qbittorrent|transmission seed FILE.torrent DIRECTORY [PORT] [OPTIONS]
    python client_peer.py qbittorrent|transmission fetch FILE.torrent DIRECTORY [PORT] [OPTIONS]

Words, options and lines of JSON are those of libtorrent_peer.py, without --until-lost; --stock-buffers changes nothing,
and a seed goes on until it is killed.  The client runs below this program with a profile of
its own, and ends with it.  It hears of a peer from a tracker in this program, which knows only that one.
"""

from __future__ import annotations

import argparse
import ctypes
import http.server
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from bencode2 import bdecode, bencode

LOCALHOST = "127.0.0.1"
POLL_SECONDS = 0.1
START_SECONDS = 20

PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>


def free_port(kind: int = socket.SOCK_STREAM) -> int:
    """A port that nothing listens on."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((LOCALHOST, 0))
        return int(probe.getsockname()[1])


def with_tracker(torrent: str, place: Path, host: str, port: int) -> Path:
    """Serve as the tracker of a torrent that knows this one peer, or none; returns the torrent with it in."""
    compact = socket.inet_aton(host) + port.to_bytes(2, "big") if port else b""
    answer = bencode({b"interval": 60, b"peers": compact})

    class Tracker(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer((LOCALHOST, 0), Tracker)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    described = bdecode(Path(torrent).read_bytes())
    described[b"announce"] = f"http://{LOCALHOST}:{server.server_port}/announce".encode()
    path = place / "with-tracker.torrent"
    path.write_bytes(bencode(described))
    return path


class Client:
    """A client that runs, and what the tests ask of it."""

    def __init__(self, options: argparse.Namespace, place: Path) -> None:
        self.options = options
        self.place = place
        # A client that is told where the peer is listens anywhere.
        self.interface = "0.0.0.0" if options.port else options.host
        self.port = free_port(socket.SOCK_DGRAM)
        self.api_port = free_port()
        self.torrent = with_tracker(options.torrent, place, options.host, options.port)

    def command(self) -> list[str]:
        """Write the profile; returns how to run the client in the foreground."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def add(self) -> None:
        """Give it the torrent."""
        raise NotImplementedError

    def look(self) -> tuple[bool, list[bool]]:
        """Whether the file is complete, and of each peer whether it is connected over uTP."""
        raise NotImplementedError


class QBittorrent(Client):
    """qbittorrent-nox, over uTP only."""

    def command(self) -> list[str]:
        profile = self.place / "qBittorrent" / "config" / "qBittorrent.conf"
        profile.parent.mkdir(parents=True)
        profile.write_text(
            "[BitTorrent]\n"
            "Session\\BTProtocol=UTP\n"
            "Session\\DHTEnabled=false\nSession\\LSDEnabled=false\nSession\\PeXEnabled=false\n"
            f"Session\\Port={self.port}\nSession\\Encryption=2\n"
            "[LegalNotice]\nAccepted=true\n"
            "[Network]\nPortForwardingEnabled=false\n"
            f"[Preferences]\nWebUI\\Port={self.api_port}\nWebUI\\Address={LOCALHOST}\nWebUI\\LocalHostAuth=false\n"
            "WebUI\\CSRFProtection=false\n"
        )
        return ["qbittorrent-nox", f"--profile={self.place}"]

    def ask(self, what: str, fields: dict[str, str] | None = None) -> bytes:
        """One request to its web interface."""
        data = urllib.parse.urlencode(fields).encode() if fields is not None else None
        with urllib.request.urlopen(f"http://{LOCALHOST}:{self.api_port}/api/v2/{what}", data, timeout=5) as answer:
            return bytes(answer.read())

    def is_ready(self) -> bool:
        return self.ask("app/version").startswith(b"v")

    def add(self) -> None:
        boundary = "a-line-that-is-in-no-torrent"
        parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="savepath"\r\n\r\n{self.options.directory}\r\n']
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="torrents"; filename="a.torrent"\r\n'
            "Content-Type: application/x-bittorrent\r\n\r\n"
        )
        body = "".join(parts).encode() + self.torrent.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        request = urllib.request.Request(
            f"http://{LOCALHOST}:{self.api_port}/api/v2/torrents/add",
            body,
            {"Content-Type": f"multipart/form-data; boundary={boundary}"},
        )
        with urllib.request.urlopen(request, timeout=5) as answer:
            assert answer.read() == b"Ok."

    def look(self) -> tuple[bool, list[bool]]:
        torrents = json.loads(self.ask("torrents/info"))
        if not torrents or torrents[0]["state"].startswith(("checking", "queued")):
            return False, []
        peers = json.loads(self.ask(f"sync/torrentPeers?hash={torrents[0]['hash']}"))["peers"].values()
        return torrents[0]["progress"] == 1, ["TP" in peer["connection"] for peer in peers if peer["connection"]]


class Transmission(Client):
    """transmission-daemon, which tries uTP first."""

    session_id = ""

    def command(self) -> list[str]:
        settings = {
            "bind-address-ipv4": self.interface,
            "dht-enabled": False,
            "download-dir": self.options.directory,
            "encryption": 0,
            "lpd-enabled": False,
            "peer-port": self.port,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "rpc-bind-address": LOCALHOST,
            "rpc-port": self.api_port,
            "rpc-whitelist-enabled": False,
            "utp-enabled": True,
            "incomplete-dir-enabled": False,
            "rename-partial-files": False,
        }
        (self.place / "settings.json").write_text(json.dumps(settings))
        return ["transmission-daemon", "--foreground", "--config-dir", str(self.place)]

    def ask(self, method: str, **arguments: object) -> dict[str, Any]:
        """One remote call; the first one only brings the session's name."""
        body = json.dumps({"method": method, "arguments": arguments}).encode()
        for _ in range(2):
            request = urllib.request.Request(
                f"http://{LOCALHOST}:{self.api_port}/transmission/rpc",
                body,
                {"X-Transmission-Session-Id": self.session_id},
            )
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    said = json.loads(answer.read())
                    assert said["result"] == "success", said
                    return dict(said["arguments"])
            except urllib.error.HTTPError as error:
                if error.code != http.HTTPStatus.CONFLICT:
                    raise
                self.session_id = error.headers["X-Transmission-Session-Id"]
        raise AssertionError("Transmission does not take the name of the session")

    def is_ready(self) -> bool:
        return bool(self.ask("session-get"))

    def add(self) -> None:
        self.ask("torrent-add", filename=str(self.torrent))

    def look(self) -> tuple[bool, list[bool]]:
        fields = ["percentDone", "status", "peers", "errorString"]
        [torrent] = self.ask("torrent-get", fields=fields)["torrents"]
        if torrent["errorString"]:
            print(torrent["errorString"], file=sys.stderr)
        verifying = torrent["status"] in (1, 2)
        return torrent["percentDone"] == 1 and not verifying, [bool(peer["isUTP"]) for peer in torrent["peers"]]


def say(**what: object) -> None:
    """Print a line for the test."""
    print(json.dumps(what), flush=True)


def wait_until_ready(client: Client) -> None:
    """Wait until its interface answers."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            if client.is_ready():
                return
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def die_with_parent() -> None:
    """Let the client be killed when this program is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def drive(client: Client, options: argparse.Namespace) -> None:
    """Add the torrent, and tell what becomes of it."""
    wait_until_ready(client)
    client.add()
    while options.verb == "seed" and not client.look()[0]:
        time.sleep(POLL_SECONDS)
    if not options.port:
        say(port=client.port)
    over_utp: set[bool] = set()
    while True:
        complete, peers = client.look()
        over_utp |= set(peers)
        if complete and options.verb == "fetch":
            say(over_utp=sorted(over_utp))
            return
        time.sleep(POLL_SECONDS)


def main() -> None:
    """Run one client with one torrent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["qbittorrent", "transmission"])
    parser.add_argument("verb", choices=["seed", "fetch"])
    parser.add_argument("torrent")
    parser.add_argument("directory")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--host", default=LOCALHOST)
    parser.add_argument("--stock-buffers", action="store_true")
    options = parser.parse_intermixed_args()

    # Beside the torrent, which the test removes: this program may be killed.
    with tempfile.TemporaryDirectory(dir=Path(options.torrent).parent, ignore_cleanup_errors=True) as name:
        client = {"qbittorrent": QBittorrent, "transmission": Transmission}[options.client](options, Path(name))
        program = subprocess.Popen(
            client.command(), stdout=sys.stderr, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent
        )
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        try:
            drive(client, options)
        finally:
            program.kill()
            program.wait()


if __name__ == "__main__":
    main()
