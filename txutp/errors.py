"""From the core's close reasons to the exceptions that Twisted applications know."""

from __future__ import annotations

import errno

from twisted.internet import error

from txutp.core import connection

_EXCEPTIONS = {
    connection.DONE: lambda: error.ConnectionDone(),
    connection.ABORTED: lambda: error.ConnectionAborted(),
    connection.RESET: lambda: error.ConnectionLost("the peer reset the connection"),
    connection.REFUSED_BY_PEER: lambda: error.ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens there"),
    connection.TIMED_OUT: lambda: error.ConnectionLost("the peer does not answer any more"),
    connection.CONNECT_TIMED_OUT: lambda: error.TimeoutError(string="the peer did not answer"),
    connection.UNREACHABLE: lambda: error.NoRouteError(string="the network is unreachable"),
    connection.PORT_CLOSED: lambda: error.ConnectionLost("the UDP port was closed"),
    connection.FAILED: lambda: error.ConnectionLost("something in this program raised, as its log tells"),
}


def exception_for(reason: int) -> Exception:
    """A fresh exception for a close reason of ``txutp.core.connection``."""
    return _EXCEPTIONS[reason]()
