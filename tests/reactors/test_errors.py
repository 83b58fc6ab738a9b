"""After an error on a UDP socket no reactor is deaf, and none is busy.

Each reactor takes the error state of a socket in its own way: as something to read, as a hang-up, or as the end of its
watch.  So the same program runs on each of them (worker.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "worker.py"
TIMEOUT_SECONDS = 100

# Which package a reactor needs besides Twisted; the extra "test" has them where there are wheels.
NEEDS = {"select": "select", "poll": "select", "epoll": "select", "asyncio": "asyncio"}
NEEDS |= {"uvloop": "uvloop", "rloop": "rloop", "qt": "PyQt5"}


@pytest.mark.skipif(sys.platform != "linux", reason="Only Linux has an error queue.")
@pytest.mark.parametrize("reactor", list(NEEDS))
def test_after_an_error_the_reactor_goes_on_and_rests(reactor: str) -> None:
    """ICMP errors of both sides, one SYN that draws one, and a datagram that the kernel itself refuses."""
    if find_spec(NEEDS[reactor]) is None:
        pytest.skip(f"{NEEDS[reactor]} is not installed")
    run = subprocess.run(
        [sys.executable, str(WORKER), reactor], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    assert run.stdout, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert [what for what, fine in found.items() if not fine] == []
    assert len(found) == 13
