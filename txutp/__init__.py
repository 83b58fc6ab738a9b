"""uTP (BEP 29) for Twisted: a second stream transport, over UDP, that yields to other traffic.

Most programs need none of these names: ``serverFromString(reactor, "utp:6881")`` and
``clientFromString(reactor, "utp:example.org:6881")`` work as soon as txutp is installed.

To read the code, start with ``txutp/core/__init__.py`` and ``txutp/core/connection.py``; above them stand, in this
order, ``udp.py`` (the socket), ``protocol.py`` (joins it with connections), ``transport.py`` (what a Protocol sees),
``port.py``, ``client.py`` and ``endpoints.py`` (what an application calls).
"""

from txutp.client import connectUTP
from txutp.core.ledbat import Ledbat
from txutp.core.ledbatpp import LedbatPlusPlus
from txutp.core.settings import Settings
from txutp.core.shallow import Shallow
from txutp.endpoints import AdoptedUTPServerEndpoint, UTPClientEndpoint, UTPServerEndpoint
from txutp.port import adoptUTPPort, listenUTP
from txutp.protocol import UTPProtocol
from txutp.transport import UTPTransport

__all__ = [
    "AdoptedUTPServerEndpoint",
    "Ledbat",
    "LedbatPlusPlus",
    "Settings",
    "Shallow",
    "UTPClientEndpoint",
    "UTPProtocol",
    "UTPServerEndpoint",
    "UTPTransport",
    "adoptUTPPort",
    "connectUTP",
    "listenUTP",
]
__version__ = "0.1.0"
