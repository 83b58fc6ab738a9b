"""The packets without data that a connection has to send, as bits."""

from __future__ import annotations

# Packets without data that have to be sent; bits of `_due`.
SYN_DUE, SYN_ACK_DUE, ACK_DUE, FIN_ACK_DUE, KEEPALIVE_DUE, RESET_DUE = (1 << bit for bit in range(6))

# A probe of the peer's presence, see `liveness.py`.
PROBE_DUE = 1 << 8

# Extensions that a STATE carried, in the note of its batch: they are due again if the socket refuses the STATE.
SHOWN, WELCOMED = (1 << bit for bit in range(6, 8))
