"""A control socket: a UNIX socket that answers each line of JSON with one line of JSON.

Only the user that runs the program may connect (mode 0600).  An answer about many connections is made piece by piece,
one piece in a turn of the reactor and only as fast as it is read, so that a busy service hardly notices.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
from itertools import islice
from typing import Any

from twisted.application.service import Service
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IPullProducer, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver
from zope.interface import implementer

from txutp.monitoring.figures import Monitor, connection_figures, monitor_of, program_figures

MODE = 0o600

# Connections described in one turn of the reactor, which takes about a millisecond.
PIECE_CONNECTIONS = 50

MAXIMUM_REQUEST_BYTES = 1_000
MAXIMUM_CLIENTS = 20


@implementer(IPullProducer)
class Answer:
    """What the ports and connections are like: the transport asks for the next piece when it has written one."""

    def __init__(self, client: Control, monitor: Monitor, reactor: Any) -> None:
        self._client = client
        self._connections = monitor.connections()
        self._begin = json.dumps(program_figures(monitor, reactor))[:-1] + ', "connections": ['
        self._separator = ""
        self._is_written = False

    def resumeProducing(self) -> None:
        """Write the next piece; when the last one has left, the client may ask again."""
        if self._is_written:
            self._client.answered()
            return
        begin, self._begin = self._begin, ""
        piece = list(islice(self._connections, PIECE_CONNECTIONS))
        texts = [json.dumps(figures) for each in piece if (figures := connection_figures(*each)) is not None]
        if texts:
            begin, self._separator = begin + self._separator, ", "
        self._is_written = len(piece) < PIECE_CONNECTIONS
        transport: Any = self._client.transport
        transport.write((begin + ", ".join(texts) + ("]}\n" if self._is_written else "")).encode())

    def stopProducing(self) -> None:
        """The client has gone."""


class Control(LineReceiver):
    """One client of the socket."""

    delimiter = b"\n"
    MAX_LENGTH = MAXIMUM_REQUEST_BYTES

    def connectionMade(self) -> None:
        self.factory: ControlFactory
        self.factory.clients.add(self)
        if len(self.factory.clients) > MAXIMUM_CLIENTS:
            self._refuse(f"{MAXIMUM_CLIENTS} clients are connected already")

    def connectionLost(self, reason: Any = None) -> None:
        self.factory.clients.discard(self)

    def lineReceived(self, line: bytes) -> None:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        if not isinstance(request, dict) or request.get("get") != "connections":
            self._refuse('the one request that there is: {"get": "connections"}')
            return
        transport: Any = self.transport
        self.pauseProducing()
        transport.registerProducer(Answer(self, self.factory.monitor, self.factory.reactor), False)

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(f"a request has at most {MAXIMUM_REQUEST_BYTES} bytes")

    def answered(self) -> None:
        """An answer has left: read the next request."""
        transport: Any = self.transport
        transport.unregisterProducer()
        self.resumeProducing()

    def _refuse(self, problem: str) -> None:
        transport: Any = self.transport
        transport.write(json.dumps({"error": problem}).encode() + b"\n")
        transport.loseConnection()


class ControlFactory(Factory):
    """Answers for the ports of one reactor."""

    protocol: Any = Control
    noisy = False

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.monitor: Monitor = monitor_of(reactor)
        self.clients: set[Control] = set()

    def stopFactory(self) -> None:
        """Nobody listens any more: the clients go, too."""
        for client in list(self.clients):
            transport: Any = client.transport
            transport.abortConnection()


def remove_stale(path: str) -> None:
    """Remove a socket that a program has left behind when it was killed.

    Raises ``CannotListenError`` where a program answers, or where something else than a socket stands: that is never
    removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as problem:
        raise CannotListenError(None, path, problem) from problem
    if not stat.S_ISSOCK(mode):
        raise CannotListenError(None, path, OSError(errno.EEXIST, "a file that is not a socket is in the way"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:
            pass  # a program is there, and busy; or it is not ours to ask
    raise CannotListenError(None, path, OSError(errno.EADDRINUSE, "another program listens there"))


def openControlSocket(path: str | os.PathLike[str], reactor: Any = None) -> IListeningPort:
    """Open a control socket for ``txutp top``, about all uTP ports of a reactor (None is the usual one).

    The socket belongs to the user of the program alone (mode 0600).  One that a killed program has left is replaced;
    ``stopListening`` of the returned port removes it.  Raises ``CannotListenError`` if another program listens there,
    or if something else has the name, and ``NotImplementedError`` where the reactor has no UNIX sockets.
    """
    if reactor is None:
        from twisted.internet import reactor
    if not IReactorUNIX.providedBy(reactor):
        raise NotImplementedError(f"{reactor.__class__.__name__} has no UNIX sockets to listen on")
    name = os.fspath(path)
    remove_stale(name)
    port: IListeningPort = reactor.listenUNIX(name, ControlFactory(reactor), mode=MODE)
    return port


class ControlSocketService(Service):
    """The same as a service of ``twisted.application``, for ``twist`` plugins and ``.tac`` files."""

    name = "txutp-control"

    def __init__(self, path: str | os.PathLike[str], reactor: Any = None) -> None:
        self._path = path
        self._reactor = reactor
        self._port: Any = None

    def startService(self) -> None:
        """Open the socket; raises ``CannotListenError``."""
        super().startService()
        self._port = openControlSocket(self._path, self._reactor)

    def stopService(self) -> Any:
        """Close and remove it; returns a Deferred that fires when it is gone."""
        super().stopService()
        port, self._port = self._port, None
        return None if port is None else port.stopListening()
