r"""TLS over uTP by endpoint strings, with a certificate that is made on the spot.

    python examples/tls.py serve utp:6881:interface=127.0.0.1 certificates
    python examples/tls.py ask 'tls:localhost:6881:trustRoots=certificates:endpoint=utp\:127.0.0.1\:6881'

The server writes its certificate into that directory.  The client believes the certificates there only, and only that
of `localhost`; where to connect to is what `endpoint=` says.  It needs the extra `examples`.
"""

from __future__ import annotations

import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react
from twisted.protocols.wire import Echo

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from twisted.internet.ssl import PrivateCertificate
    from twisted.protocols.tls import TLSMemoryBIOFactory
except ModuleNotFoundError as missing:
    sys.exit(f'This example needs {missing.name}. Please run: pip install "txutp[examples]"')


def made_here(host: str) -> tuple[bytes, bytes]:
    """A certificate for a day that nobody but us has signed, and its key, both as PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return certificate.public_bytes(pem), key.private_bytes(pem, pkcs8, serialization.NoEncryption())


async def serve(reactor: Any, where: str, directory: str) -> None:
    certificate, key = made_here("localhost")
    Path(directory).mkdir(exist_ok=True)
    Path(directory, "localhost.pem").write_bytes(certificate)
    options = PrivateCertificate.loadPEM(certificate + key).options()
    # Newer versions of Twisted have wrapServerTLS, which does this to an endpoint.
    factory = TLSMemoryBIOFactory(options, False, Factory.forProtocol(Echo))
    port = await serverFromString(reactor, where).listen(factory)
    print(f"Listening on port {port.getHost().port}.", flush=True)
    await Deferred()


async def ask(reactor: Any, where: str) -> None:
    client, answer = Protocol(), Deferred()
    client.dataReceived = answer.callback
    client.connectionLost = lambda reason: answer.called or answer.errback(reason)
    await connectProtocol(clientFromString(reactor, where), client)
    client.transport.write(b"a secret")
    print((await answer).decode(), "came back through TLS")


if __name__ == "__main__":
    verbs = {"serve": serve, "ask": ask}
    if len(sys.argv) < 3 or sys.argv[1] not in verbs:
        sys.exit(__doc__)
    react(verbs[sys.argv[1]], sys.argv[2:])
