"""What pages of reference and the page of BitTorrent show: strings make endpoints, and programs and commands run."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString, serverFromString

from tests.pages import ROOT, Page
from tests.project.test_readme import free_port, run, run_until_served, running
from txutp import (
    AdoptedUTPServerEndpoint,
    UTPAndTCPServerEndpoint,
    UTPClientEndpoint,
    UTPOrTCPClientEndpoint,
    UTPServerEndpoint,
)


def test_endpoint_strings() -> None:
    """Each string of the table makes an endpoint of ours."""
    strings = [row["String"].strip("`") for row in Page("reference/strings").tables[0]]

    assert len(strings) == 13
    for string in strings:
        if string.startswith("utp+tcp:"):
            parse = clientFromString if "example.org" in string else serverFromString
            assert isinstance(parse(reactor, string), (UTPOrTCPClientEndpoint, UTPAndTCPServerEndpoint))
        elif string.startswith("utp:example.org"):
            assert isinstance(clientFromString(reactor, string), UTPClientEndpoint)
        elif "fd=" in string:
            assert isinstance(serverFromString(reactor, string), AdoptedUTPServerEndpoint)
        else:
            assert isinstance(serverFromString(reactor, string), UTPServerEndpoint)


def test_settings(tmp_path: Path) -> None:
    """The example of settings runs."""
    [text] = Page("reference/settings").programs
    run([sys.executable, "-c", text], tmp_path)


def test_bittorrent(tmp_path: Path) -> None:
    """Two seeders offer a file, one of them beside a DHT node, and the leecher fetches it."""
    bencode2 = pytest.importorskip("bencode2")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    content = os.urandom(1_000_000)
    (tmp_path / "debian.iso").write_bytes(content)
    length = 1 << 18
    pieces = [content[start : start + length] for start in range(0, len(content), length)]
    hashes = b"".join(hashlib.sha1(piece).digest() for piece in pieces)
    information = {"length": len(content), "name": "debian.iso", "piece length": length, "pieces": hashes}
    (tmp_path / "debian.torrent").write_bytes(bencode2.bencode({"info": information}))
    ports = {port: str(free_port()) for port in ("6881", "6882")}
    seed, seed_beside_a_node, fetch = (
        re.sub("|".join(ports), lambda found: ports[found[0]], command) for command in Page("howto/bittorrent").commands
    )

    with running(seed, tmp_path), running(seed_beside_a_node, tmp_path):
        run_until_served(fetch, tmp_path)

    assert (tmp_path / "copy.iso").read_bytes() == content
