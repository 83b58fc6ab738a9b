"""The states of a connection, the moves between them, and the reasons for which it ends."""

from __future__ import annotations

SYN_SENT, SYN_RECEIVED, CONNECTED, CLOSED = range(4)
STATE_NAMES = ("SYN_SENT", "SYN_RECEIVED", "CONNECTED", "CLOSED")
MOVES: dict[int, tuple[int, ...]] = {
    SYN_SENT: (CONNECTED, CLOSED),
    SYN_RECEIVED: (CONNECTED, CLOSED),
    CONNECTED: (CLOSED,),
    CLOSED: (),
}

# The reasons for which a connection is CLOSED.
DONE, ABORTED, RESET, REFUSED_BY_PEER, TIMED_OUT, CONNECT_TIMED_OUT, UNREACHABLE, PORT_CLOSED, FAILED = range(9)
REASON_NAMES = (
    "DONE",
    "ABORTED",
    "RESET",
    "REFUSED_BY_PEER",
    "TIMED_OUT",
    "CONNECT_TIMED_OUT",
    "UNREACHABLE",
    "PORT_CLOSED",
    "FAILED",
)
