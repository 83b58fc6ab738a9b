"""uTP (BEP 29) for Twisted: a second stream transport, over UDP, that yields to other traffic.

Most programs need none of these names: ``serverFromString(reactor, "utp:6881")`` and
``clientFromString(reactor, "utp:example.org:6881")`` work as soon as txutp is installed.

What a program may use are the names of this list, and those in the lists of ``txutp.congestion``, ``txutp.endpoints``,
``txutp.monitoring``, ``txutp.qlog``, ``txutp.rebinding``, ``txutp.socket``, ``txutp.testing`` and ``txutp.workers``.
All other modules are the inside of the house: they may change in any release.

To read the code, start with ``txutp/core/__init__.py`` and ``txutp/core/connection.py``; above them stand, in this
order, ``udp/ports.py`` (the socket), ``protocol.py`` (joins it with connections), ``transport.py`` (what a Protocol
sees), ``port.py``, ``client.py`` and ``endpoints.py`` (what an application calls).
"""

from txutp.client import UTPConnector, connectUTP
from txutp.core.congestion.ledbat import Ledbat
from txutp.core.congestion.ledbatpp import LedbatPlusPlus
from txutp.core.congestion.shallow import Shallow
from txutp.core.settings import Settings
from txutp.core.stats import ConnectionStats, PortStats
from txutp.endpoints import AdoptedUTPServerEndpoint, UTPClientEndpoint, UTPServerEndpoint
from txutp.port import UTPPort, adoptUTPPort, listenUTP
from txutp.protocol import UTPProtocol
from txutp.racing import RaceMemory, UTPAndTCPServerEndpoint, UTPOrTCPClientEndpoint
from txutp.transport import UTPTransport
from txutp.unwrapping import speaks_utp, utp_transport

__all__ = [
    "AdoptedUTPServerEndpoint",
    "ConnectionStats",
    "Ledbat",
    "LedbatPlusPlus",
    "PortStats",
    "RaceMemory",
    "Settings",
    "Shallow",
    "UTPAndTCPServerEndpoint",
    "UTPClientEndpoint",
    "UTPConnector",
    "UTPOrTCPClientEndpoint",
    "UTPPort",
    "UTPProtocol",
    "UTPServerEndpoint",
    "UTPTransport",
    "adoptUTPPort",
    "connectUTP",
    "listenUTP",
    "speaks_utp",
    "utp_transport",
]
__version__ = "0.1.0"
