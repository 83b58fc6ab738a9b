"""The protocol itself, without any input or output.

Nothing in this folder knows Twisted, sockets, clocks, randomness or logging: bytes and a time go in, bytes and a
deadline come out.  That is what lets a test run an hour of traffic in a second, twice, with the same result.

Units
    Times are whole microseconds of a monotonic clock (``..._us``), sizes are bytes (``..._bytes``).  Inside,
    sequence numbers are unwrapped integers; they become 16 bits only on the wire.

Floors
    A file imports only from floors below its own.  ``FLOORS`` in ``tests/project/test_house.py`` lists them.

Verbs
    Things go in through ``receive``, ``write``, ``shutdown``, ``close``, ``abort`` and ``handle_timeout``; things
    come out through ``take`` (stream bytes) and ``next_batch`` (datagrams).  Parts are told facts through ``on_...``.
    An attribute or a noun is a question and never changes anything.

Read next: ``connection.py`` from top to bottom.
"""
