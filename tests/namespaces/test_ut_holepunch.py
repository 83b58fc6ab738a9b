"""The example ``ut_holepunch.py`` between two NATs: the kernel's own, each in a namespace with a host behind it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.namespaces import Namespaces, ip, why_no_namespaces
from benchmarks.support import ROOT
from tests.missing import leave_out
from tests.project.test_examples import Program
from tests.project.test_examples import running as running_here

pytest.importorskip("bencode2")
pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "nothing")

RELAY = "198.51.100.1"
# The outer and the inner address of each NAT, and the host behind it.
NATS = {"left": ("198.51.100.2", "192.168.1.1", "192.168.1.2"), "right": ("198.51.100.3", "192.168.2.1", "192.168.2.2")}
PORT = 6881

# What a home router does: it writes its own address into what leaves, and drops what nobody inside has asked for.
RULES = """
table ip nat {
    chain leaving { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
table ip filter {
    chain to_router { type filter hook input priority 0; iifname "wan" ct state new drop; }
    chain through { type filter hook forward priority 0; iifname "wan" ct state new drop; }
}
"""


class Internet(Namespaces):
    """A network with a relay on it, and two NATs with a host behind each; gone afterwards."""

    hosts = ("public", "left", "right", "leftnat", "rightnat")

    def __init__(self) -> None:
        if shutil.which("nft") is None:
            leave_out("nft is missing: install the package nftables")
        super().__init__()

    def join(self) -> None:
        public = self.names["public"]
        ip("-n", public, "link", "add", "bridge", "type", "bridge")
        ip("-n", public, "addr", "add", f"{RELAY}/24", "dev", "bridge")
        ip("-n", public, "link", "set", "bridge", "up")
        for side, addresses in NATS.items():
            self._nat(side, *addresses)

    def _nat(self, side: str, outer: str, inner: str, host: str) -> None:
        public, nat, inside = self.names["public"], self.names[f"{side}nat"], self.names[side]
        self.cable(f"{side}nat", "wan", "public", side)
        ip("-n", public, "link", "set", side, "master", "bridge", "up")
        self.cable(f"{side}nat", "lan", side, "eth0")
        for name, device, where in ((nat, "wan", outer), (nat, "lan", inner), (inside, "eth0", host)):
            ip("-n", name, "addr", "add", f"{where}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
        ip("-n", inside, "route", "add", "default", "via", inner)
        self.sysctl(f"{side}nat", "net.ipv4.ip_forward=1")
        subprocess.run(["ip", "netns", "exec", nat, "nft", "-f", "-"], input=RULES, text=True, check=True)

    @contextmanager
    def running(self, where: str, command: str) -> Iterator[Program]:
        """Runs a command on a host while the block runs."""
        with running_here(f"ip netns exec {self.names[where]} {command}", ROOT) as program:
            yield program


@pytest.mark.slow
def test_two_peers_behind_nats_meet() -> None:
    """Each meets the other one at the outer address of its NAT."""
    with Internet() as internet, internet.running("public", f"python examples/ut_holepunch.py relay {PORT}") as relay:
        relay.until("Listening")
        peer = f"python examples/ut_holepunch.py peer {RELAY}:{PORT}"
        with internet.running("left", peer) as left:
            left_id = left.until(r"connected to the relay as (\S+)")[1]
            relay.until(f"{left_id} is here, from {NATS['left'][0]}:")
            with internet.running("right", peer) as right:
                right_id = right.until(r"connected to the relay as (\S+)")[1]
                assert left.until(rf"met {right_id} at (\S+):")[1] == NATS["right"][0]
                assert right.until(rf"met {left_id} at (\S+):")[1] == NATS["left"][0]


@pytest.mark.slow
def test_the_nats_let_nobody_in_who_was_not_called() -> None:
    """Without the rendezvous a peer does not reach the other one, although that listens and its port is known."""
    ask = (
        "from twisted.internet import endpoints, protocol, task\n"
        "async def main(reactor):\n"
        f"    where = 'utp:{NATS['left'][0]}:{PORT}:timeout=3:believeUnreachable=no'\n"
        "    await endpoints.connectProtocol(endpoints.clientFromString(reactor, where), protocol.Protocol())\n"
        "task.react(main)\n"
    )
    with Internet() as internet, internet.running("public", f"python examples/ut_holepunch.py relay {PORT}") as relay:
        relay.until("Listening")
        with internet.running("left", f"python examples/ut_holepunch.py peer {RELAY}:{PORT}") as left:
            left.until("connected to the relay")
            done = subprocess.run(
                ["ip", "netns", "exec", internet.names["right"], sys.executable, "-c", ask],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                encoding="utf-8",
                timeout=60,
                check=False,
            )
    assert done.returncode == 1
    assert re.search(r"^twisted\.internet\.error\.TimeoutError: ", done.stderr, re.MULTILINE)
