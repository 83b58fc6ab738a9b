"""The UDP sockets of one port, one for each worker, in an order that stays.

``parent.py`` calls it.  The kernel counts the sockets of a SO_REUSEPORT group in the order in which they were bound,
and moves the last one into the place of one that is closed.  So this process keeps them all, as long as the port is
open: the socket of a worker that has died keeps its place, and its datagrams wait there for the next worker.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from twisted.internet.error import CannotListenError

from txutp.core.batch import Address
from txutp.udp.ports import numeric_address, socket_address
from txutp.workers.steering import attach


class SocketGroup:
    """The sockets of one UDP port."""

    def __init__(
        self,
        interface: str,
        port: int,
        workers: int,
        shared: bool = True,
        given: Sequence[socket.socket] = (),
    ) -> None:
        """Bind them; port 0 lets the system choose.  Raises ``CannotListenError``.

        Without ``shared`` there is one worker, and there will not be more.  ``given`` are sockets that are bound
        already, in this order, with SO_REUSEPORT if they are several; further ones are bound beside them.
        """
        self.family = socket.AF_INET6 if ":" in interface else socket.AF_INET
        self.sockets: list[socket.socket] = list(given)
        self._shared = shared
        self._steered = 0  # workers that the program of the group knows; 0: there is none
        try:
            if given:
                self.address: Address = socket_address(given[0].getsockname())
            else:
                self.address = self._free_address(numeric_address(interface or "0.0.0.0", port))
            while len(self.sockets) < workers:
                self.add()
            self.steer_to(workers)
        except OSError as problem:
            self.close()
            raise CannotListenError(interface, port, problem) from problem

    def add(self) -> None:
        """Bind one more socket, behind the others; it gets nothing before ``steer_to`` counts it in."""
        self.sockets.append(self._bound(self.address, self._shared))

    def steer_to(self, workers: int) -> None:
        """Steer to the first ``workers`` sockets; what has arrived stays where it is."""
        if self._shared and workers != self._steered:
            attach(self.sockets[0], workers)
            self._steered = workers

    def drop_unused(self, workers: int) -> None:
        """Close the sockets behind the first ``workers``, the last one first: so the others keep their places."""
        while len(self.sockets) > workers:
            self.sockets.pop().close()

    def close(self) -> None:
        """Close all sockets."""
        self.drop_unused(0)

    def _free_address(self, wanted: Address) -> Address:
        """The address with a port that no other process has; SO_REUSEPORT alone would let us join its group."""
        alone = self._bound(wanted, shared=False)
        try:
            return socket_address(alone.getsockname())
        finally:
            alone.close()

    def _bound(self, address: Address, shared: bool) -> socket.socket:
        made = socket.socket(self.family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            if shared:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind(address)
        except BaseException:
            made.close()
            raise
        return made
