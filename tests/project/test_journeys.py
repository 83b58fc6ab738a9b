"""``docs/explanation/journeys.md`` against a trace: its calls happen, in its order, in the files that it names."""

from __future__ import annotations

import re
import sys
from types import FrameType

import pytest
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import Factory, Protocol

from tests.pages import ROOT, Page
from txutp import UTPClientEndpoint, UTPServerEndpoint
from txutp.testing import Link, Network

SERVER, CLIENT = "10.0.0.1", "10.0.0.2"
PACKAGE = str(ROOT / "txutp")


def journeys() -> dict[str, list[tuple[str, str]]]:
    """The calls under each heading, as the name of a function and its file."""
    parts = re.split(r"^## (.+)$", Page("explanation/journeys").text, flags=re.MULTILINE)[1:]
    return {
        heading: re.findall(r"^\d+\. `([\w.]+)` \(`([\w/.]+)`\)", text, re.MULTILINE)
        for heading, text in zip(parts[::2], parts[1::2], strict=True)
    }


class Trace:
    """The functions of txutp that are called while the block runs."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []

    def __enter__(self) -> list[tuple[str, str]]:
        sys.setprofile(self._called)
        return self.calls

    def __exit__(self, *problem: object) -> None:
        sys.setprofile(None)

    def _called(self, frame: FrameType, event: str, argument: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(PACKAGE):
            owner = frame.f_locals.get("self")
            names = [kind.__name__ for kind in type(owner).__mro__] if owner is not None else [""]
            short = file.removeprefix(PACKAGE).lstrip("/")
            self.calls += [(f"{name}.{frame.f_code.co_name}", short) for name in names]


def missing_from(calls: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What is left of a journey when the calls have been gone through once, in their order."""
    left = iter(calls)
    return [call for call in wanted if call not in left]


@pytest.mark.skipif(sys.gettrace() is not None, reason="another tool traces")
def test_each_journey_is_made() -> None:
    network = Network(seed=1)
    network.connect(CLIENT, SERVER, Link(delay_us=10_000))
    UTPServerEndpoint(network.reactor(SERVER), 6881).listen(Factory.forProtocol(Protocol))
    client = Protocol()
    connectProtocol(UTPClientEndpoint(network.reactor(CLIENT), SERVER, 6881), client)
    assert network.run(seconds=60, until=lambda: bool(client.connected))
    network.run(seconds=2)
    traced = {}

    with Trace() as calls:
        client.transport.write(bytes(3_000))
        network.run(seconds=0.005)
    traced["Written bytes leave"] = calls
    with Trace() as calls:
        network.run(seconds=0.02)
    traced["A datagram arrives"] = calls
    with Trace() as calls:
        network.run(seconds=60)
    traced["A timer fires"] = calls
    with Trace() as calls:
        client.transport.loseConnection()
        network.run(seconds=1)
    traced["A connection closes"] = calls

    described = journeys()
    assert described.keys() == traced.keys()
    for heading, wanted in described.items():
        assert len(wanted) > 4
        assert missing_from(traced[heading], wanted) == [], heading


def test_a_wrong_journey_is_noticed() -> None:
    """The order counts, and so does each call."""
    calls = [("A.one", "a.py"), ("A.two", "a.py"), ("A.three", "a.py")]

    assert missing_from(calls, [("A.one", "a.py"), ("A.three", "a.py")]) == []
    assert missing_from(calls, [("A.three", "a.py"), ("A.one", "a.py")]) == [("A.one", "a.py")]
    assert missing_from(calls, [("A.one", "b.py")]) == [("A.one", "b.py")]
