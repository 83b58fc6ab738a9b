"""``utp_transport``: from the transport that a Protocol holds to the uTP stream beneath it, with its type.

A Protocol's ``transport`` may be a layer above uTP (TLS of ``wrapClientTLS``, a policy of
``twisted.protocols.policies``), and its declared type says nothing of ``stats()`` and ``acknowledged()``.
"""

from __future__ import annotations

from txutp.transport import UTPTransport

# More layers than any program stacks; a loop of transports ends here.
MAXIMUM_LAYERS = 32


def utp_transport(transport: object) -> UTPTransport:
    """Return the uTP transport that ``transport`` is, or that carries it.

    Layers whose ``transport`` attribute holds the next one are looked through, as those of
    ``twisted.protocols.tls`` and ``twisted.protocols.policies`` do.  TypeError says that the stream is not uTP's, which
    tells as well which of two transports a connection got.

    To a type checker ``isinstance(self.transport, UTPTransport)`` looks impossible, for ``ITransport`` is no base class
    of anything; it then skips the code behind it.  This function has no such trap.
    """
    layer = transport
    for _ in range(MAXIMUM_LAYERS):
        if isinstance(layer, UTPTransport):
            return layer
        layer = getattr(layer, "transport", None)
        if layer is None:
            break
    raise TypeError(f"not a transport over uTP: {transport!r}")
