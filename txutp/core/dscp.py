"""The Differentiated Services Codepoint (RFC 2474), which asks routers for a treatment of packets: number or name.

uTP yields to other traffic at the ends of a path; lower effort (RFC 8622) asks the routers in between for the same.
"""

from __future__ import annotations

# Lower effort (RFC 8622): such packets leave only when no others wait.
LOWER_EFFORT = 1
HIGHEST_DSCP = 63

# The names of IANA's registry "Differentiated Services Field Codepoints"; DF means unmarked (RFC 8436).
NAMES: dict[str, int] = {
    "le": LOWER_EFFORT,
    "df": 0,
    **{f"cs{number}": 8 * number for number in range(8)},
    **{f"af{group}{drop}": 8 * group + 2 * drop for group in range(1, 5) for drop in range(1, 4)},
    "ef": 46,
    "va": 44,
}

ACCEPTED = f"a number from 0 to {HIGHEST_DSCP}, or a name: le, df, cs0 to cs7, af11 to af43, ef or va"


def dscp_of(value: int | str) -> int:
    """Returns the codepoint of a number or a name; raises ValueError or TypeError, which say what is accepted."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise TypeError(f"dscp is {ACCEPTED}; not {value!r}")
    if isinstance(value, str):
        found = NAMES.get(value.strip().lower())
        if found is not None:
            return found
        if not (value.isascii() and value.isdecimal()):
            raise ValueError(f"dscp is {ACCEPTED}; not {value!r}")
        value = int(value)
    if not 0 <= value <= HIGHEST_DSCP:
        raise ValueError(f"dscp is {ACCEPTED}; not {value!r}")
    return value


def traffic_class(dscp: int) -> int:
    """Returns the byte of the IP header; its two lower bits belong to ECN, which stays off."""
    return dscp << 2
