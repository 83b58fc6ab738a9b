"""The programs that are measured: each is one end of a connection, in a process of its own.

``python -m benchmarks.ends.MODULE VERB OPTIONS`` starts one, with the options as one object of JSON; ``native.js``
takes the same.  They talk in lines of JSON on standard output: who listens says ``{"port": ...}`` first, each says at
its end what it measured, and those that can be asked answer each line of standard input.

They use what txutp offers in public, with few exceptions that tolerate to be wrong: ``python -m benchmarks compare``
runs them with older versions of it.

================== ====================================================================
``talk.py``        lines of JSON, clocks
``transports.py``  from a name like ``utp-no-offload`` to endpoints; what a port has counted
``stream.py``      one stream, as fast as it goes
``echo.py``        a server for the next two
``visits.py``      connect, one byte there and back, close: many of them
``pingpong.py``    a message there and back, again and again
``crowd.py``       many busy streams at once, asked how far they are
``idle.py``        connections that do nothing
``blocking.py``    a plain uTP receiver on a blocking socket
``seed.py``        one file from txutp to a BitTorrent client
``bare.py``        datagrams without any protocol
``quic.py``        aioquic
``torrent.py``     libtorrent
``qbittorrent.py`` qBittorrent
``native.js``      utp-native
================== ====================================================================
"""
