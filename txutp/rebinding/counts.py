"""What a rebinding has done, to be told at the end."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counts:
    """What went over uTP, and what was left to TCP."""

    listened: list[str] = field(default_factory=list)
    """Where uTP was listened on, as ``host:port``."""
    accepted: int = 0
    """uTP connections that came in."""
    connected: int = 0
    """uTP connections that were made."""
    left_to_tcp: int = 0
    """Calls that the rule did not choose."""

    def __str__(self) -> str:
        where = ", ".join(self.listened) or "nowhere"
        return (
            f"listened over uTP: {where}; uTP connections accepted: {self.accepted}, made: {self.connected};"
            f" calls left to TCP: {self.left_to_tcp}"
        )
