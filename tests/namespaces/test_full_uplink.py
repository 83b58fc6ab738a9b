"""An uplink that takes less than it is given: what waits for it costs no time."""

from __future__ import annotations

import pytest

from benchmarks.namespaces import call, why_no_namespaces
from tests.namespaces.support import HOSTS, Cables

pytestmark = pytest.mark.skipif(bool(why_no_namespaces("tc")), reason=why_no_namespaces("tc") or "nothing")


def test_keepalives_that_wait_for_a_full_socket_cost_no_time() -> None:
    """They fall due while the kernel takes nothing.  Their timers used to ring 100,000 times a second."""
    with Cables() as cables:
        uplink = ["rate", "100kbit", "burst", "5kb", "limit", "100mb"]
        call("tc", "-n", cables.names["left"], "qdisc", "add", "dev", "eth0", "root", "tbf", *uplink)
        there = HOSTS[4]["right"]
        port = cables.program("right", "worker.py", "receive", there, 1).line()["port"]
        said = cables.program("left", "worker.py", "fill", there, port).line()
    assert said["blocked"]
    assert said["connections"] == 3
    assert said["rings"] < 20
    assert said["cpu_seconds"] < 0.5
