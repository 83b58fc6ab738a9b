"""What is compared: where the ends of each kind are, and whether they can run here."""

from __future__ import annotations

import functools
import importlib.util
import json
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.processes import LIMIT_SECONDS, Host, Worker, worker
from benchmarks.support import ROOT

NATIVE = ROOT / "benchmarks" / "ends" / "native.js"
NATIVE_PACKAGE = ROOT / "tests" / "interop" / "node_modules" / "utp-native" / "package.json"

# The name of a kind -> how it is called in tables.
LABELS = {
    "utp": "txutp",
    "utp-no-offload": "txutp, a datagram at a time (no GSO and GRO)",
    "utp-listen-udp": "txutp on `reactor.listenUDP`",
    "tcp": "Twisted TCP",
    "utp-native": "utp-native (libutp, C)",
    "libtorrent": "libtorrent uTP (C++)",
    "aioquic": "aioquic (QUIC, encrypted)",
    "blocking": "a blocking socket (Python)",
    "qbittorrent": "qBittorrent (C++)",
}

# Kinds with a module of their own in ``ends``; those that are called like the package that they need.
MODULES = {"aioquic": "quic", "blocking": "blocking", "libtorrent": "torrent", "qbittorrent": "qbittorrent"}
PACKAGES = ("aioquic", "libtorrent")


def end(
    kind: str,
    module: str,
    verb: str,
    on: Host,
    code: Path = ROOT,
    limit_seconds: float = LIMIT_SECONDS,
    **options: Any,
) -> AbstractContextManager[Worker]:
    """Run one end while a block runs; a receiver or server listens on the address of its host unless told otherwise."""
    options = {"host": on.address, "transport": kind, **options}
    if kind == "utp-native":
        program = ["node", str(NATIVE)]
    else:
        module = MODULES.get(kind, module)
        program = [sys.executable, "-m", f"benchmarks.ends.{module}"]
    return worker(on.command(*program, verb, json.dumps(options)), code, limit_seconds)


@functools.cache
def why_not(kind: str) -> str:
    """Why a kind cannot be measured here; empty if it can."""
    if kind == "utp-native":
        if shutil.which("node") is None:
            return "no utp-native: it needs node"
        return "" if NATIVE_PACKAGE.exists() else "no utp-native: it needs `npm install` in tests/interop"
    if kind == "qbittorrent":
        return "" if shutil.which("qbittorrent-nox") else "no qbittorrent: it needs qbittorrent-nox"
    if kind in PACKAGES and importlib.util.find_spec(kind) is None:
        return f"no {kind}: it needs `pip install {kind}`"
    return ""


def versions_of_peers() -> str:
    """Those that are here."""
    words = []
    if not why_not("utp-native"):
        node = subprocess.check_output(["node", "--version"], text=True).strip()
        words.append(f"utp-native {json.loads(NATIVE_PACKAGE.read_text())['version']} on Node.js {node}")
    words += [f"{package} {version(package)}" for package in PACKAGES if not why_not(package)]
    return ", ".join(words)
