"""A server on all addresses of a host that has several, on one interface and on two, some of which come and go."""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from benchmarks.namespaces import ip, why_no_namespaces
from tests.namespaces.support import Cables

pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "nothing")

# Of the router, which has two interfaces: the client sees the first one.  Each has a second address.
FIRST4, SECOND4, FAR4, FAR_SECOND4 = "10.79.1.2", "10.79.1.22", "10.79.2.2", "10.79.2.22"
FIRST6, SECOND6, FAR6, FAR_SECOND6 = "fd79:1::2", "fd79:1::22", "fd79:2::2", "fd79:2::22"
PAUSE_SECONDS = 1.5


def with_second_addresses(cables: Cables) -> str:
    """The name of the router, which gets more addresses."""
    router = cables.names["router"]
    for device, ipv4, ipv6 in (("eth1", SECOND4, SECOND6), ("eth2", FAR_SECOND4, FAR_SECOND6)):
        ip("-n", router, "addr", "add", f"{ipv4}/24", "dev", device)
        ip("-n", router, "addr", "add", f"{ipv6}/64", "dev", device, "nodad")
    return router


def link_local(namespace: str, device: str) -> str:
    """The address that an interface has given to itself, as soon as it may be used."""
    for _ in range(100):
        said = subprocess.run(
            ["ip", "-n", namespace, "-j", "-6", "addr", "show", "dev", device, "scope", "link"],
            capture_output=True,
            text=True,
            check=True,
        )
        found = [entry for interface in json.loads(said.stdout) for entry in interface.get("addr_info", [])]
        for entry in found:
            if "local" in entry and not entry.get("tentative"):
                return str(entry["local"])
        time.sleep(0.05)
    raise AssertionError("the interface has no address of its own")


def test_each_of_several_addresses_answers_for_itself() -> None:
    """Also those of IPv4 on an IPv6 port, and the one that an interface gives to itself."""
    with Cables() as cables:
        router = with_second_addresses(cables)
        scoped = link_local(router, "eth1")
        link_local(cables.names["left"], "eth0")
        server = cables.program("router", "addresses.py", "serve")
        ports = server.line()
        of_ipv4 = [FIRST4, SECOND4, FAR4, FAR_SECOND4]
        of_ipv6 = [FIRST6, SECOND6, FAR6, FAR_SECOND6, f"{scoped}%eth0"]
        asked = [
            *((host, ports["ipv4"], host) for host in of_ipv4),
            *((host, ports["ipv6"], f"::ffff:{host}") for host in of_ipv4),
            *((host, ports["ipv6"], host) for host in of_ipv6),
        ]
        asking = cables.program("left", "addresses.py", "ask", *(f"{host}/{port}" for host, port, _ in asked))
        answers = [asking.line() for _ in asked]
        assert [answer for answer in answers if "problem" in answer] == []
        assert [answer["peer"] for answer in answers] == [host for host, _, _ in asked]
        locals_told = [server.line()["local"] for _ in asked]
        assert locals_told == [local.replace("%eth0", "%eth1") for _, _, local in asked]


@pytest.mark.parametrize(("host", "size"), [(SECOND4, 24), (SECOND6, 64)])
def test_an_address_that_goes_for_a_while_costs_nothing_but_time(host: str, size: int) -> None:
    """The stream waits for it, as TCP does; nothing leaves from elsewhere, and nothing is busy."""
    with Cables() as cables:
        router = with_second_addresses(cables)
        server = cables.program("router", "addresses.py", "serve")
        ports = server.line()
        port = ports["ipv6" if ":" in host else "ipv4"]
        asking = cables.program("left", "addresses.py", "keep", host, port, 40)
        assert asking.line()["begun"]
        ip("-n", router, "addr", "del", f"{host}/{size}", "dev", "eth1")
        time.sleep(PAUSE_SECONDS)
        ip("-n", router, "addr", "add", f"{host}/{size}", "dev", "eth1", *(["nodad"] if ":" in host else []))
        assert asking.line() == {"host": host, "left": 0}
        ended = server.line()
        assert ended["local"] == host
        assert 0 < ended["sends_failed"] < 500
