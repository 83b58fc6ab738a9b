"""Sockets and servers as Node.js has them: ``net.Socket`` and ``net.Server``, over uTP.

::

    from txutp.socket import createServer, run

    server = createServer(lambda socket: socket.pipe(socket))
    server.listen(6881)
    run()

``docs/reference/socket.md`` lists everything, and where it differs from Node.js.
"""

from txutp.socket.duplex import Address, WriteAfterEnd
from txutp.socket.program import run
from txutp.socket.sockets import Server, Socket, connect, createConnection, createServer

__all__ = ["Address", "Server", "Socket", "WriteAfterEnd", "connect", "createConnection", "createServer", "run"]
