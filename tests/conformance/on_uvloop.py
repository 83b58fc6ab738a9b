"""trial on asyncio on uvloop, of which ``--reactor`` does not know: ``python -m tests.conformance.on_uvloop ARGS``."""

from __future__ import annotations

import asyncio

import uvloop
from twisted.internet import asyncioreactor
from twisted.scripts.trial import run


def main() -> None:
    """Let asyncio make uvloop's loops, also for the reactors that the tests make, and run trial."""
    asyncio.new_event_loop = uvloop.new_event_loop
    asyncioreactor.install(asyncio.new_event_loop())
    run()


if __name__ == "__main__":
    main()
