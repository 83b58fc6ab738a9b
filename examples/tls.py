"""TLS over uTP: Twisted's own wrappers around utp: endpoints, with a certificate that is made on the spot.

    python examples/tls.py serve utp:6881:interface=127.0.0.1 certificate.pem
    python examples/tls.py ask utp:127.0.0.1:6881 certificate.pem

The server writes its certificate into the file, and the client believes that certificate only.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, CertificateOptions, DistinguishedName, KeyPair, PrivateCertificate
from twisted.internet.task import react
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.protocols.wire import Echo

NAME = "txutp.example"


def made_here() -> PrivateCertificate:
    """A key and a certificate that nobody but us has signed."""
    key = KeyPair.generate(size=2048)
    name = DistinguishedName(commonName=NAME)
    request = key.certificateRequest(name)
    signed = key.signCertificateRequest(name, request, lambda name: True, 1)
    return PrivateCertificate.load(signed, key)


async def main(reactor: Any, verb: str, where: str, path: str) -> None:
    if verb == "serve":
        certificate = made_here()
        Path(path).write_bytes(certificate.dumpPEM())
        factory = TLSMemoryBIOFactory(certificate.options(), False, Factory.forProtocol(Echo))
        port = await serverFromString(reactor, where).listen(factory)
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await Deferred()
    trusted = Certificate.loadPEM(Path(path).read_bytes())
    # Who has a name to check, too, uses wrapClientTLS(optionsForClientTLS(name), clientFromString(reactor, where)).
    factory = TLSMemoryBIOFactory(CertificateOptions(trustRoot=trusted), True, Factory.forProtocol(Protocol))
    client = (await clientFromString(reactor, where).connect(factory)).wrappedProtocol
    answer: Deferred[bytes] = Deferred()
    client.dataReceived = answer.callback
    client.transport.write(b"a secret")
    print((await answer).decode(), "came back through TLS")


if __name__ == "__main__":
    react(main, sys.argv[1:])
