"""startTLS: TLS begins on an open stream, as in SMTP, IMAP, POP3 and AMP.

Twisted does the work: a TLS protocol takes the place of the application's protocol, and calls of the application on its
transport go through it.  That code is private to Twisted, but unchanged since 2011, and its own transports share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import ITLSTransport
from zope.interface import implementer

from txutp.transport import UTPTransport

try:
    from twisted.internet import _newtls as newtls
except ImportError:  # pyOpenSSL is not installed: no TLS, as with Twisted's TCP
    newtls = None  # type: ignore[assignment]


class TLSCapableTransport(UTPTransport):
    """A transport whose application may call ``startTLS``."""

    _tlsClientDefault = False

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        """Speak TLS from now on; ``normal=False`` makes a client the TLS server.  Needs pyOpenSSL."""
        if newtls is None:
            raise NotImplementedError("startTLS needs pyOpenSSL: pip install twisted[tls]")
        newtls.startTLS(self, contextFactory, normal, UTPTransport)

    def write(self, data: bytes) -> None:
        if not self.TLS:
            UTPTransport.write(self, data)
        elif self.connected:
            self.protocol.write(data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        if not self.TLS:
            super().writeSequence(iovec)
        elif self.connected:
            self.protocol.writeSequence(iovec)

    def loseConnection(self) -> None:
        if not self.TLS:
            super().loseConnection()
        elif self.connected and not self.disconnecting:
            self.protocol.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        if self.TLS:
            self.protocol.registerProducer(producer, streaming)
        else:
            super().registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        if self.TLS:
            self.protocol.unregisterProducer()
        else:
            super().unregisterProducer()


if newtls is not None:
    TLSCapableTransport = implementer(ITLSTransport)(TLSCapableTransport)  # type: ignore[misc]
