"""``utp_transport`` and ``speaks_utp``: from a Protocol's transport to the uTP stream beneath it, if there is one.

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
    ``twisted.protocols.tls`` and ``twisted.protocols.policies`` do.  TypeError says that the stream is not uTP's;
    ``speaks_utp`` asks for no more than that.

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


def speaks_utp(transport: object) -> bool:
    """Whether the stream is uTP's, at once or below layers as above; False for TCP and for everything else."""
    try:
        utp_transport(transport)
    except TypeError:
        return False
    return True
