"""The waits before a call is repeated that the kernel has refused.

A reactor calls whenever the kernel reports a socket as ready.  A socket that is reported as ready, and fails all the
same, would keep the process busy.  So after some failures in a row the next attempt waits, each time longer.
"""

from __future__ import annotations

# Seconds of the first wait, and the number of times that it is doubled: up to 64 ms, little in a stream that stalls.
RETRY_SECONDS = 0.001
DOUBLINGS = 6

# Failures in a row without a wait: the reactor may have reported a state that is over by now.
FREE_FAILURES = 8


def retry_seconds(failures: int) -> float:
    """Returns how many seconds to wait after ``failures`` in a row, which is at least 1."""
    return RETRY_SECONDS * (1 << min(failures - 1, DOUBLINGS))
