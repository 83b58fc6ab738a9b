"""One stream over QUIC with aioquic, as it comes.

Verbs: receive and send.  Options: host, bytes; for send also port.  QUIC always encrypts.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, QuicEvent, StreamDataReceived
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.ends.talk import Stopwatch, Words, say, told

CHUNK = bytes(64 * 1024)
PROTOCOLS = ["benchmark"]


def certificate(host: str) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """One that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return built, key


class Receiver(QuicConnectionProtocol):
    """Counts what comes, and closes when it has all."""

    total_bytes = 0
    ended: asyncio.Event

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._missing_bytes = self.total_bytes
        self._stopwatch = Stopwatch()
        self._result: Words = {}

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, HandshakeCompleted):
            self._stopwatch = Stopwatch()
        elif isinstance(event, StreamDataReceived):
            self._missing_bytes -= len(event.data)
            if not self._missing_bytes and not self._result:
                self._result = self._stopwatch.read()
                self.close()
        elif isinstance(event, ConnectionTerminated):
            say(self._result)
            self.ended.set()


async def receive(options: Words) -> None:
    """Take one connection."""
    configuration = QuicConfiguration(is_client=False, alpn_protocols=PROTOCOLS)
    configuration.certificate, configuration.private_key = certificate(options["host"])
    Receiver.total_bytes = options["bytes"]
    Receiver.ended = asyncio.Event()
    server = await serve(options["host"], 0, configuration=configuration, create_protocol=Receiver)
    transport: Any = server._transport  # nothing public tells which port was free
    say({"port": transport.get_extra_info("sockname")[1]})
    await Receiver.ended.wait()
    server.close()


async def send(options: Words) -> None:
    """Make one connection, and write until it has all."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=PROTOCOLS, verify_mode=ssl.CERT_NONE)
    async with connect(options["host"], options["port"], configuration=configuration) as protocol:
        stopwatch = Stopwatch()
        _, writer = await protocol.create_stream()
        left_bytes = options["bytes"]
        while left_bytes:
            data = CHUNK[:left_bytes]
            left_bytes -= len(data)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
        await protocol.wait_closed()
        say(stopwatch.read())


if __name__ == "__main__":
    verb, given = told()
    asyncio.run({"receive": receive, "send": send}[verb](given))
