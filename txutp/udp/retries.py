"""When something is tried again that the kernel has refused.

A reactor calls whenever a socket is said to be ready.  A socket that is said to be ready, and fails all the same, would
keep the process busy.  So after some failures in a row we wait before the next attempt, each time longer.
"""

from __future__ import annotations

# Wait after the first failure, and the doublings of it: 64 ms at most, which nobody sees in a stream that stands still.
RETRY_SECONDS = 0.001
DOUBLINGS = 6

# Failures in a row without any wait: the reactor may have told of something that is gone by now.
FREE_FAILURES = 8


def retry_seconds(failures: int) -> float:
    """Returns how long to wait after ``failures`` in a row, one at least."""
    return RETRY_SECONDS * (1 << min(failures - 1, DOUBLINGS))
