"""Numbers that wrap: 16-bit sequence numbers and 32-bit microseconds.

Everything inside txutp counts packets with ordinary integers that never wrap.  ``unwrap`` turns what the wire says
into such an integer, with the number that we expect as the hint; ``& 0xFFFF`` turns it back.
"""

from __future__ import annotations

MASK16 = 0xFFFF
MASK32 = 0xFFFFFFFF


def unwrap(wire: int, near: int) -> int:
    """The integer closest to ``near`` whose low 16 bits are ``wire``."""
    return near + ((wire - near + 0x8000) & MASK16) - 0x8000


def signed32(difference: int) -> int:
    """A difference of two 32-bit clocks as a signed number, so that a wrap between them does not show."""
    return ((difference + 0x80000000) & MASK32) - 0x80000000
