"""The exceptions of Twisted for the core's close reasons."""

from __future__ import annotations

import errno

from twisted.internet import error

from txutp.core import states

_EXCEPTIONS = {
    states.DONE: lambda: error.ConnectionDone(),
    states.ABORTED: lambda: error.ConnectionAborted(),
    states.RESET: lambda: error.ConnectionLost("the peer reset the connection"),
    states.REFUSED_BY_PEER: lambda: error.ConnectionRefusedError(errno.ECONNREFUSED, "the remote port is closed"),
    states.TIMED_OUT: lambda: error.ConnectionLost("the peer does not answer any more"),
    states.CONNECT_TIMED_OUT: lambda: error.TimeoutError(string="the peer did not answer"),
    states.UNREACHABLE: lambda: error.NoRouteError(string="the network is unreachable"),
    states.PORT_CLOSED: lambda: error.ConnectionLost("the UDP port was closed"),
    states.FAILED: lambda: error.ConnectionLost("an exception in this program ended the connection; the log has it"),
}


def exception_for(reason: int) -> Exception:
    """Returns a new exception for a close reason of ``txutp.core.states``."""
    return _EXCEPTIONS[reason]()
