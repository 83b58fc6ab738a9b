"""What a connection has to send besides data."""

from __future__ import annotations

# What has to be sent besides data; bits of `_due`.
SYN_DUE, SYN_ACK_DUE, ACK_DUE, FIN_ACK_DUE, KEEPALIVE_DUE, RESET_DUE = (1 << bit for bit in range(6))

# A probe of the peer's presence, see `liveness.py`.
PROBE_DUE = 1 << 8

# What a STATE said besides, in the note of its batch; nothing of it happened if the socket refuses the STATE.
SHOWN, WELCOMED = (1 << bit for bit in range(6, 8))
