"""Numbers that wrap: 16-bit sequence numbers and 32-bit microseconds.

Inside txutp, packets have ordinary integers as numbers, which never wrap.  ``unwrap`` turns a number on the wire into
such an integer, with the expected number as the hint; ``& 0xFFFF`` turns it back.
"""

from __future__ import annotations

MASK16 = 0xFFFF
MASK32 = 0xFFFFFFFF


def unwrap(wire: int, near: int) -> int:
    """Returns the integer closest to ``near`` whose low 16 bits are ``wire``."""
    return near + ((wire - near + 0x8000) & MASK16) - 0x8000


def signed32(difference: int) -> int:
    """Returns a difference of two 32-bit clocks as a signed number, whether or not a clock wrapped in between."""
    return ((difference + 0x80000000) & MASK32) - 0x80000000
