"""The UDP port beneath uTP: datagrams in runs and batches, with few system calls.

``ports.py`` has the sockets, and ``options.py`` what is set on them.  ``offload.py`` sends and receives whole bursts in
one call (GSO and GRO), ``joiner.py`` joins single datagrams into runs, ``sources.py`` and ``marking.py`` read and write
control messages, ``retries.py`` says when a refused call is made again, and ``outbox.py`` keeps in order what waits to
leave.
"""
