"""Memory of idle connections: equal numbers become one object.

A Python integer above 256 takes 32 bytes, and a connection has forty of them.  While it is idle, most are equal to
others: sequence numbers are close to the next one, windows are the same in all connections, timers end together.  The
multiplexer calls this when a timer of a connection rings that has nothing in flight.
"""

from __future__ import annotations

from txutp.core.connection import Connection

# Attributes of ``Flow`` with the same value in most connections of a port.
COMMON = ("segment_bytes", "peer_window_bytes", "_burst_segments")

# Attributes of ``Flow`` and of ``Connection`` whose values are often equal to others of the same connection.
OF_SENDING = (
    "next_sequence",
    "first_unacked",
    "highest_delivered",
    "nameless_sequence",
    "undersized_sequence",
    "_limited_sequence",
    "_recovery_sequence",
    "_window_ack",
    "_timer_started_us",
    "_last_sent_us",
    "newest_delivered_us",
)
OF_CONNECTION = (
    "initial_sequence",
    "receive_id",
    "send_id",
    "syn_sequence",
    "_last_sent_us",
    "_last_received_us",
    "_probe_us",
    "_quiet_since_us",
    "deadline_us",
    "scheduled_us",
)

# Maximum number of values that are shared by all connections of a port.
MAXIMUM_COMMON = 1_000


def share_numbers(connection: Connection, common: dict[int, int]) -> None:
    """Make equal numbers of a connection one object; the connection has nothing in flight.

    Numbers in ``common`` are shared by the whole port.
    """
    sending = connection.sending
    # These mark places in the past: all that was sent has arrived, and later segments lie behind each of them.
    sending._limited_sequence = sending._recovery_sequence = sending.nameless_sequence = sending.first_unacked - 1
    for name in COMMON:
        number = getattr(sending, name)
        if len(common) < MAXIMUM_COMMON or number in common:
            setattr(sending, name, common.setdefault(number, number))
    own: dict[int, int] = {}
    share = own.setdefault
    for name in OF_SENDING:
        number = getattr(sending, name)
        setattr(sending, name, share(number, number))
    for name in OF_CONNECTION:
        number = getattr(connection, name)
        setattr(connection, name, share(number, number))
    receiving = connection.receiving
    for holder, name in ((receiving, "next_sequence"), (sending, "_window_sequence")):
        number = getattr(holder, name)
        setattr(holder, name, share(number, number))
