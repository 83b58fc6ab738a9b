"""What a long test is at: it tells here, and ``conftest.py`` says it where the test takes long."""

from __future__ import annotations

_told = ""


def tell(part: str) -> None:
    """This part of the test has begun."""
    global _told
    _told = part


def told() -> str:
    """What was told last, by the test that is under way."""
    return _told
