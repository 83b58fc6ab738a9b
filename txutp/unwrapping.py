"""``utp_transport`` and ``speaks_utp``: from a Protocol's transport to the uTP stream beneath it, if there is one.

A Protocol's ``transport`` may be a layer above uTP (TLS of ``wrapClientTLS``, a policy of
``twisted.protocols.policies``), and its declared type says nothing of ``stats()`` and ``acknowledged()``.
"""

from __future__ import annotations

from txutp.transport import UTPTransport

# Maximum number of layers, more than any program stacks; it ends a loop of transports.
MAXIMUM_LAYERS = 32


def utp_transport(transport: object) -> UTPTransport:
    """Return the uTP transport that ``transport`` is, or that carries it.

    The function follows the ``transport`` attribute from layer to layer, as those of ``twisted.protocols.tls`` and
    ``twisted.protocols.policies`` have it.  Raises TypeError if the stream is not uTP; ``speaks_utp`` only asks whether
    it is.

    A type checker considers ``isinstance(self.transport, UTPTransport)`` impossible, because ``ITransport`` is not a
    base class, and skips the code behind it.  With this function it does not.
    """
    layer = transport
    for _ in range(MAXIMUM_LAYERS):
        if isinstance(layer, UTPTransport):
            return layer
        layer = getattr(layer, "transport", None)
        if layer is None:
            break
    raise TypeError(f"not a transport over uTP: {transport!r}")


def speaks_utp(transport: object) -> bool:
    """Whether a transport is uTP, or a layer above uTP; False for TCP and for everything else."""
    try:
        utp_transport(transport)
    except TypeError:
        return False
    return True
