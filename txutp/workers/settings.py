"""The limits of a port, divided among its workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from txutp.core.settings import LEAST_RATE_BYTES, LIMITS, Settings

# Limits of the whole port: each worker has its share, and all shares together are the limit.
WHOLE = ("maximum_connections", "maximum_half_open", "resets_per_second")

# Caps of the whole port: each worker has its share, which others do not use while it is idle.
RATES = ("up_bytes_per_second", "down_bytes_per_second")

# Limits of one remote host, of which a worker has one at least.
PER_ADDRESS = ("maximum_connections_per_address", "maximum_half_open_per_address")


def share_of(settings: Settings, number: int, workers: int) -> Settings:
    """The settings of one worker.

    Raises ValueError if a limit is too small to be shared.  A limit is reached when the share of one worker is: ids are
    drawn at random, so of a thousand connections all workers have nearly as many.
    """
    if workers == 1:
        return settings
    changes: dict[str, Any] = {}
    for name in WHOLE:
        limit = getattr(settings, name)
        if 0 < limit < workers:
            raise ValueError(f"{name} is {limit}, which {workers} workers cannot share; at least {workers} are needed")
        changes[name] = part_of(limit, number, workers)
    for name in RATES:
        rate = getattr(settings, name)
        if rate is not None:
            if rate < workers * LEAST_RATE_BYTES:
                raise ValueError(
                    f"{name} is {rate}, which {workers} workers cannot share;"
                    f" at least {workers * LEAST_RATE_BYTES} are needed"
                )
            changes[name] = rate // workers
    for name in PER_ADDRESS:
        changes[name] = max(getattr(settings, name) // workers, 1)
    smallest_bytes = LIMITS["receive_memory_bytes"][0]
    changes["receive_memory_bytes"] = max(settings.port_memory_bytes // workers, smallest_bytes)
    return replace(settings, **changes)


def part_of(limit: int, number: int, workers: int) -> int:
    """Returns the part of a limit that the worker ``number`` has; all parts together are the limit."""
    return limit // workers + (number < limit % workers)
