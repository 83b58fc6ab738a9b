"""An internet in memory, with virtual time: run a program's traffic exactly, and the same again.

::

    network = Network(seed=1)
    network.connect("10.0.0.1", "10.0.0.2", Link(delay_us=20_000, rate_bytes_per_second=1_250_000))
    server, client = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    UTPServerEndpoint(server, 6881).listen(factory)
    UTPClientEndpoint(client, "10.0.0.1", 6881).connect(other_factory)
    network.run(seconds=10)

Each host has a reactor that knows timers and UDP; ordinary Twisted code runs on it unchanged.  A ``Link`` is one
direction of a path.  ``Trace``, ``Turns`` and ``Grants`` are services, by which a link sends as radio, Wi-Fi and cable
do; ``HARQ``, ``Outage`` and ``ThinnedAcks`` are stages behind its queue.  Everything random comes from the network's
seed, which its ``repr`` shows.

``Pair`` sets up the usual case: a server and a client of yours, connected.  ``ScriptedPeer`` is a peer that a test
drives packet by packet, to see what a protocol does when its peer misbehaves or its network fails; it speaks in
``Packet`` and the types ``ST_DATA``, ``ST_FIN``, ``ST_STATE``, ``ST_RESET`` and ``ST_SYN`` of BEP 29.
"""

from txutp.core.packet import ST_DATA, ST_FIN, ST_RESET, ST_STATE, ST_SYN, Packet
from txutp.testing.links import HARQ, Datagram, Grants, Outage, Service, Stage, ThinnedAcks, Trace, Turns
from txutp.testing.network import (
    Discipline,
    Link,
    Network,
    Recorder,
    SimulatedPort,
    SimulatedReactor,
)
from txutp.testing.pair import Pair
from txutp.testing.scripted import ScriptedPeer

__all__ = [
    "HARQ",
    "ST_DATA",
    "ST_FIN",
    "ST_RESET",
    "ST_STATE",
    "ST_SYN",
    "Datagram",
    "Discipline",
    "Grants",
    "Link",
    "Network",
    "Outage",
    "Packet",
    "Pair",
    "Recorder",
    "ScriptedPeer",
    "Service",
    "SimulatedPort",
    "SimulatedReactor",
    "Stage",
    "ThinnedAcks",
    "Trace",
    "Turns",
]
