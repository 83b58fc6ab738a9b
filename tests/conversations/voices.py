"""How a ``Speaker`` speaks: as a Protocol of Twisted, with TLS or without, or as a Socket."""

from __future__ import annotations

from functools import cache
from typing import Any
from unittest.mock import patch

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableProtocol, IPullProducer, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer

from tests.conversations.program import HALF
from tests.conversations.speakers import Speaker
from txutp.socket import Socket

try:
    from OpenSSL import crypto
    from twisted.internet import ssl
except ImportError:  # twisted[tls] is not there
    ssl = None  # type: ignore[assignment]


@cache
def tls_options(is_server: bool) -> Any:
    """Made once in a process: a key takes longer than a conversation."""
    if not is_server:
        return ssl.CertificateOptions(verify=False)
    key = crypto.PKey()
    key.generate_key(crypto.TYPE_RSA, 2048)
    own = crypto.X509()
    own.set_pubkey(key)
    own.gmtime_adj_notBefore(0)
    own.gmtime_adj_notAfter(10 * 86_400)
    own.sign(key, "sha256")
    return ssl.CertificateOptions(privateKey=key, certificate=own)


@implementer(IPushProducer, IPullProducer)
class Producer:
    """What a transport calls; the speaker does the work."""

    def __init__(self, voice: Any, speaker: Speaker) -> None:
        self._voice = voice
        self._speaker = speaker

    def pauseProducing(self) -> None:
        self._voice.full = True

    def resumeProducing(self) -> None:
        self._voice.full = False
        self._speaker.resumeProducing()

    def stopProducing(self) -> None:
        self._voice.full = True
        self._speaker.stopProducing()


class ProtocolVoice(Protocol):
    """A Protocol.  That of a server learns from its connection for whom it speaks."""

    def __init__(self, stage: Any, speaker: Speaker | None = None) -> None:
        self.full = False
        self._stage = stage
        self._speaker = speaker
        self._is_server = speaker is None
        if speaker is not None and speaker.part.kind == HALF:
            directlyProvides(self, IHalfCloseableProtocol)

    def connectionMade(self) -> None:
        connection = self.transport._connection  # type: ignore[union-attr]
        speaker = self._speaker = self._speaker or self._stage.speaker_of(connection)
        if speaker is None:
            self.transport.abortConnection()  # type: ignore[union-attr]
            return
        if speaker.part.kind == HALF:
            directlyProvides(self, IHalfCloseableProtocol)
        if not self._is_server:
            self._stage.client_is_up(speaker, self.transport)
        if speaker.tls:
            transport: Any = self.transport
            # Twisted's TLS takes the global reactor's clock otherwise, which stands still here
            with patch("twisted.protocols.tls._get_default_clock", lambda: transport.reactor):
                transport.startTLS(tls_options(self._is_server))
        speaker.begun(self, connection)

    def dataReceived(self, data: bytes) -> None:
        if self._speaker is not None:
            self._speaker.arrived(data)

    def readConnectionLost(self) -> None:
        assert self._speaker is not None
        self._speaker.peer_ended()

    def writeConnectionLost(self) -> None:
        assert self._speaker is not None
        self._speaker.own_ended()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        speaker, self.transport = self._speaker, None
        if speaker is not None:
            speaker.lost(reason.value)

    # -- called by the speaker --

    def write(self, data: bytes) -> None:
        transport: Any = self.transport
        speaker = self._speaker
        assert speaker is not None
        transport.write(data)
        if speaker.part.asks_acknowledged:
            total_bytes = speaker.written_bytes
            speaker.asked += 1
            transport.acknowledged().addCallbacks(
                lambda result: speaker.told_acknowledged(total_bytes), lambda failure: speaker.told_acknowledged(None)
            )

    def register(self, producer: Speaker, streaming: bool) -> None:
        self.full = False
        self.transport.registerProducer(Producer(self, producer), streaming)  # type: ignore[union-attr]

    def unregister(self) -> None:
        self.transport.unregisterProducer()  # type: ignore[union-attr]

    def pause(self) -> None:
        self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume(self) -> None:
        self.transport.resumeProducing()  # type: ignore[union-attr]

    def end(self) -> None:
        self.transport.loseWriteConnection()  # type: ignore[union-attr]

    def lose(self) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def abort(self) -> None:
        self.transport.abortConnection()  # type: ignore[union-attr]


class VoiceFactory(Factory):
    """Makes the Protocol of one speaker, or those of a server."""

    noisy = False

    def __init__(self, stage: Any, speaker: Speaker | None = None) -> None:
        self._stage = stage
        self._speaker = speaker

    def buildProtocol(self, addr: Any) -> ProtocolVoice:
        return ProtocolVoice(self._stage, self._speaker)


class SocketVoice:
    """A Socket, ours or one that a Server brought."""

    def __init__(self, stage: Any, socket: Socket, speaker: Speaker | None = None) -> None:
        self.full = False
        self._stage = stage
        self._socket = socket
        self._speaker = speaker
        self._problem: BaseException | None = None
        self._closed = 0
        if speaker is not None:
            self._listen(socket)
            socket.on("connect", self._connects)
        else:
            speaker = self._speaker = stage.speaker_of(socket._transport._connection)
            if speaker is None:
                socket.resetAndDestroy()
                return
            self._listen(socket)
            self._connected()

    def _listen(self, socket: Socket) -> None:
        socket.on("data", self._data)
        socket.on("end", self._end)
        socket.on("error", self._error)
        socket.on("close", self._close)
        socket.on("drain", self._drain)
        socket.on("finish", self._finish)

    def _connects(self) -> None:
        self._stage.client_is_up(self._speaker, self._socket._transport)
        self._connected()

    def _connected(self) -> None:
        assert self._speaker is not None
        self._speaker.begun(self, self._socket._transport._connection)

    def _data(self, data: bytes) -> None:
        assert self._speaker is not None
        self._speaker.arrived(data)

    def _end(self) -> None:
        assert self._speaker is not None
        self._speaker.peer_ended()

    def _finish(self) -> None:
        assert self._speaker is not None
        self._speaker.own_ended()

    def _drain(self) -> None:
        self.full = False
        assert self._speaker is not None
        self._speaker.resumeProducing()

    def _error(self, problem: BaseException) -> None:
        assert self._speaker is not None
        if self._problem is not None or self._closed:
            self._speaker.complain(f"another error comes: {problem!r}")
        self._problem = problem

    def _close(self, had_error: bool) -> None:
        speaker = self._speaker
        assert speaker is not None
        self._closed += 1
        if had_error != (self._problem is not None):
            speaker.complain(f"close says {had_error} of the error {self._problem!r}")
        if speaker.made:
            speaker.lost(self._problem or error.ConnectionDone())
        else:
            speaker.refused = self._problem or error.UserError()
            self._stage.note(speaker, f"has no connection: {speaker.refused!r}")

    # -- called by the speaker --

    def write(self, data: bytes) -> None:
        speaker = self._speaker
        assert speaker is not None
        if speaker.part.asks_acknowledged:
            total_bytes = speaker.written_bytes
            speaker.asked += 1

            def told(problem: BaseException | None) -> None:
                speaker.told_acknowledged(total_bytes if problem is None else None)

            self.full = not self._socket.write(data, told)
        else:
            self.full = not self._socket.write(data)

    def register(self, producer: Speaker, streaming: bool) -> None:
        """A Socket is its own producer."""

    def unregister(self) -> None:
        """A Socket is its own producer."""

    def pause(self) -> None:
        self._socket.pause()

    def resume(self) -> None:
        self._socket.resume()

    def end(self) -> None:
        self._socket.end()

    def abort(self) -> None:
        self._socket.resetAndDestroy()

    def destroy(self) -> None:
        self._socket.destroy()
