"""The part of a long test that is under way: the test sets it, and ``conftest.py`` prints it."""

from __future__ import annotations

_told = ""


def tell(part: str) -> None:
    """Name the part of the test that begins."""
    global _told
    _told = part


def told() -> str:
    """The part of the test that is under way; empty if the test names none."""
    return _told
