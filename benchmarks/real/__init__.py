"""Congestion control on real sockets: the kernel's UDP and TCP, two network namespaces, and a bottleneck between them.

``python -m benchmarks.real`` runs a handful of scenarios there, and the same ones in the simulated suite, side by side.
It needs root on Linux.  From the bottom up:

================= =================================================================================================
``hosts.py``      the namespaces of a run
``router.py``     one bottleneck: a router with ``tbf``
``wire.py``       the other one: a link in user space, over TUN, with delay, rate, queue and loss
``probe.py``      how long a small datagram takes across it, every 20 ms
``workers.py``    one end of a flow: txutp, or TCP with the congestion control that was asked for
``utp_native.js`` the same for libutp
``catalogue.py``  the scenarios and the candidates
``running.py``    one run: scenario and candidate in, numbers out
``simulated.py``  the same from the simulated suite
``noise.py``      how late timers are, and how much delays scatter on an empty path
``report.py``     tables
================= =================================================================================================

Each process is told the moment zero of a run by ``time.monotonic()``, which is one clock for all of them.
"""
