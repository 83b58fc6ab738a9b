"""An internet in memory, with virtual time: run a program's traffic exactly, and the same again.

::

    network = Network(seed=1)
    network.connect("10.0.0.1", "10.0.0.2", Link(delay_us=20_000, rate_bytes_per_second=1_250_000))
    server, client = network.reactor("10.0.0.1"), network.reactor("10.0.0.2")
    UTPServerEndpoint(server, 6881).listen(factory)
    UTPClientEndpoint(client, "10.0.0.1", 6881).connect(other_factory)
    network.run(seconds=10)

Each host has a reactor that knows timers and UDP; ordinary Twisted code runs on it unchanged.  A ``Link`` is one
direction of a path.  Everything random comes from the network's seed, which its ``repr`` shows.
"""

from txutp.testing.network import (
    Datagram,
    Discipline,
    Link,
    Network,
    Recorder,
    SimulatedPort,
    SimulatedReactor,
)

__all__ = [
    "Datagram",
    "Discipline",
    "Link",
    "Network",
    "Recorder",
    "SimulatedPort",
    "SimulatedReactor",
]
