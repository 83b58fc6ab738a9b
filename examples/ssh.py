"""SSH over uTP: Twisted Conch, a server that repeats what it is told and a client that talks to it.

    python examples/ssh.py serve utp:6881:interface=127.0.0.1 PASSWORD
    python examples/ssh.py say 127.0.0.1:6881 PASSWORD "some words"

It needs the extra `examples`.  Keys are made on the spot, so the client cannot know them; a real one checks.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import connectProtocol, serverFromString
from twisted.internet.protocol import Protocol
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath
from zope.interface import implementer

from txutp import connectUTP

try:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from twisted.conch.avatar import ConchUser
    from twisted.conch.client.knownhosts import KnownHostsFile
    from twisted.conch.endpoints import SSHCommandClientEndpoint
    from twisted.conch.interfaces import ISession
    from twisted.conch.ssh.factory import SSHFactory
    from twisted.conch.ssh.keys import Key
    from twisted.conch.ssh.session import SSHSession
except ModuleNotFoundError as missing:
    sys.exit(f'This example needs {missing.name}. Please run: pip install "txutp[examples]"')

USER = b"somebody"


@implementer(ISession)
class User(ConchUser):
    """May run any command, which only says what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.channelLookup[b"session"] = SSHSession

    def execCommand(self, process: Any, command: bytes) -> None:
        def say() -> None:
            process.write(b"you said: " + command)
            process.loseConnection()

        # not before the client has heard that the command has begun
        reactor.callLater(0, say)  # type: ignore[attr-defined]

    def eofReceived(self) -> None: ...

    def closed(self) -> None: ...


@implementer(IRealm)
class Realm:
    def requestAvatar(self, name: bytes, mind: object, *interfaces: type) -> tuple[type, User, Any]:
        return interfaces[0], User(), lambda: None


class Server(SSHFactory):
    def __init__(self, password: str) -> None:
        key = Key(Ed25519PrivateKey.generate())
        self.publicKeys = {b"ssh-ed25519": key.public()}
        self.privateKeys = {b"ssh-ed25519": key}
        self.portal = Portal(Realm(), [InMemoryUsernamePasswordDatabaseDontUse(**{USER.decode(): password.encode()})])

    def getPrimes(self) -> None:
        """Use the groups that need no file of primes."""


class Trusting(KnownHostsFile):
    """Takes any host key, and remembers none."""

    def __init__(self) -> None:
        super().__init__(FilePath(os.devnull))

    def verifyHostKey(self, *ignored: object) -> Deferred[bool]:
        return succeed(True)


class OverUTP:
    """What to give to code that takes a reactor and calls connectTCP, as Conch's client does."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor

    def connectTCP(self, *arguments: Any, **options: Any) -> Any:
        return connectUTP(self.reactor, *arguments, **options)


class Answer(Protocol):
    """Collects what a command says."""

    def __init__(self) -> None:
        self.said = b""
        self.over: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.said += data

    def connectionLost(self, reason: Failure) -> None:
        self.over.callback(self.said)


async def main(clock: Any, verb: str, where: str, password: str, words: str = "") -> None:
    if verb == "serve":
        port = await serverFromString(clock, where).listen(Server(password))
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await Deferred()
    host, _, number = where.rpartition(":")
    endpoint = SSHCommandClientEndpoint.newConnection(
        OverUTP(clock),
        words.encode(),
        USER,
        host.encode(),
        int(number),
        password=password.encode(),
        knownHosts=Trusting(),
    )
    answer = await connectProtocol(endpoint, Answer())
    print((await answer.over).decode())


if __name__ == "__main__":
    words = {"serve": 4, "say": 5}
    if len(sys.argv) < 2 or len(sys.argv) != words.get(sys.argv[1]):
        sys.exit(__doc__)
    react(main, sys.argv[1:])
