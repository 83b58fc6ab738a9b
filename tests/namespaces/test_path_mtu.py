"""The path's MTU on real interfaces, over IPv4 and IPv6."""

from __future__ import annotations

import pytest

from benchmarks.namespaces import why_no_namespaces
from tests.namespaces.support import Cables

pytestmark = pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "nothing")

TOTAL_BYTES = 4_000_000
# Time for a search in which a size counts as too large only after three lost probes.
LONG_BYTES = 16_000_000
SMALLEST_GAIN = 20  # the search does not care for less


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [1_280, 1_400, 1_500, 9_000])
def test_datagrams_fill_the_frames_of_the_interface(mtu: int, version: int) -> None:
    with Cables(mtu, mtu) as cables:
        stats = cables.transfer(TOTAL_BYTES, version)
    assert mtu - SMALLEST_GAIN <= stats["pmtu"] <= mtu
    assert stats["timeouts"] == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_router_with_a_narrower_link_is_believed(version: int) -> None:
    """It answers probes that do not fit with an ICMP error that says what would."""
    with Cables(9_000, 1_450) as cables:
        stats = cables.transfer(TOTAL_BYTES, version)
    assert 1_450 - SMALLEST_GAIN <= stats["pmtu"] <= 1_450
    assert stats["timeouts"] == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_path_that_swallows_large_packets_does_not_swallow_the_stream(version: int) -> None:
    """No ICMP error reports them."""
    with Cables(9_000, 9_000, deaf_mtu=1_450) as cables:
        stats = cables.transfer(LONG_BYTES, version)
    assert 1_450 - SMALLEST_GAIN <= stats["pmtu"] <= 1_450
    assert stats["timeouts"] == 0
