"""The uTP of one worker: takes what belongs to it, and hands on what the kernel gave it although it does not.

``member.py`` makes a ``SteeredProtocol`` for each port that a worker listens on.  What reaches a worker and belongs to
another one is:

- of a run of datagrams of several connections of one peer, all but the first: the kernel steers the run as a whole;
- a RESET that names our send id, a neighbour of the receive id by which it was steered;
- an ICMP error, which the kernel gives to any socket of the group;
- what was on its way when the number of workers changed.

After a restart the workers of the generation before live on until their last connections end.  They do not read the
port any more.  What finds no connection here may be for one of theirs, and is handed on to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from txutp.core.batch import Address
from txutp.core.connection import Connection
from txutp.core.packet import is_utp_untrusted
from txutp.core.settings import Settings
from txutp.environment import environment_of
from txutp.protocol import UTPProtocol
from txutp.sharing import AdoptedPort
from txutp.workers.lanes import Item
from txutp.workers.settings import share_of
from txutp.workers.steering import RESET_BYTE, SYN_BYTE, WorkerIds, candidates, worker_of

# What is to be done with an item of a lane: take a datagram as if the kernel had given it to us; take a RESET or an
# ICMP error if it is for a connection of ours.
DATAGRAM, RESET, ERROR = range(3)

ITEM_BYTES = 100  # beside the datagram

# How SYNs and RESETs begin.
SYN, STRAY = bytes((SYN_BYTE,)), bytes((RESET_BYTE,))


class Membership(Protocol):
    """What a ``SteeredProtocol`` needs to know of the worker that it is in."""

    number: int
    workers: int
    generation: int
    cookie_key: bytes

    def predecessors(self) -> list[tuple[int, int]]:
        """Generations that live on, the newest first, and how many workers each of them has."""

    def send(self, generation: int, number: int, item: Item, size_bytes: int) -> bool:
        """Hand an item to a worker; returns whether it may arrive there."""

    def flush(self) -> None:
        """Let what was handed on leave."""

    def stopped(self, utp: SteeredProtocol) -> None:
        """A UDP port has closed."""


class SteeredProtocol(UTPProtocol):
    """uTP on a UDP port that other processes share."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        accept: Callable[[Connection], None],
        prefix: str,
        place: int,
        worker: Membership,
    ) -> None:
        """``place`` is that of the port among those of the worker."""
        super().__init__(reactor, share_of(settings, worker.number, worker.workers), accept, prefix=prefix)
        self.place = place
        self.worker = worker
        self.handed_on: int = 0  # datagrams and errors that were another worker's
        multiplexer = self.multiplexer
        ids = WorkerIds(worker.number, worker.workers, worker.generation, environment_of(reactor).random_bytes)
        multiplexer.draw_id = ids.draw
        multiplexer.share_cookies(worker.cookie_key, self.now_us())

    def accept_again(self, accept: Callable[[Connection], None], settings: Settings) -> None:
        super().accept_again(accept, share_of(settings, self.worker.number, self.worker.workers))

    # -- called by the UDP port --

    def datagrams_received(self, data: bytes, stride: int, address: Address) -> None:
        worker = self.worker
        if stride and not is_alike(data, stride):
            for start in range(0, len(data), stride):
                self.datagrams_received(data[start : start + stride], 0, address)
        elif data[:1] == STRAY and is_utp_untrusted(data) and self.multiplexer.sender_of(data, address) is None:
            self._ask_everybody((RESET, self.place, data, address), data)
        elif (owner := worker_of(data, worker.workers)) != worker.number:
            self._hand_on_to(worker.generation, owner, data, stride, address)
        else:
            self._take(data, stride, address)

    def drained(self) -> bool:
        self.worker.flush()
        return super().drained()

    def unreachable(
        self, datagram: bytes, address: Address, code: int, path_mtu_bytes: int, from_peer: bool = True
    ) -> None:
        if is_utp_untrusted(datagram) and self.multiplexer.sender_of(datagram, address) is None:
            self._ask_everybody((ERROR, self.place, datagram, address, code, path_mtu_bytes, from_peer), datagram)
            self.worker.flush()
        else:
            super().unreachable(datagram, address, code, path_mtu_bytes, from_peer)

    def stopProtocol(self) -> None:
        super().stopProtocol()
        self.worker.stopped(self)

    # -- called by the worker --

    def take_item(self, item: Item) -> None:
        """Take what another worker has handed on."""
        kind, _, data, *details = item
        if kind == DATAGRAM:
            self._take(data, *details)
        elif self.multiplexer.sender_of(data, details[0]) is not None:
            if kind == RESET:
                super().datagrams_received(data, 0, *details)
            else:
                super().unreachable(data, *details)

    def retire(self) -> None:
        """Read the port no more: what is for our connections comes from our successors."""
        port: Any = self.transport
        port.deafen()
        self.stop_accepting()
        self.close_when_empty()

    def begin(self) -> None:
        """Read the port."""
        port: Any = self.transport
        port.listen()

    # -- to others --

    def _take(self, data: bytes, stride: int, address: Address) -> None:
        """What belongs to this worker: it is ours, or one of our predecessors has the connection."""
        predecessors = self.worker.predecessors()
        if not predecessors or self._is_ours(data, address):
            super().datagrams_received(data, stride, address)
            return
        generation, workers = predecessors[0]
        if not self._hand_on_to(generation, worker_of(data, workers), data, stride, address):
            super().datagrams_received(data, stride, address)

    def _is_ours(self, data: bytes, address: Address) -> bool:
        """Whether no former worker can have the connection of a datagram."""
        if data[:1] == SYN or not is_utp_untrusted(data):
            return True
        return self.multiplexer.knows(data, address, self.now_us())

    def _hand_on_to(self, generation: int, number: int, data: bytes, stride: int, address: Address) -> bool:
        self.handed_on += -(-len(data) // stride) if stride else 1
        item = (DATAGRAM, self.place, data, stride, address)
        return self.worker.send(generation, number, item, len(data) + ITEM_BYTES)

    def _ask_everybody(self, item: Item, packet: bytes) -> None:
        """Hand a RESET or an error to all that may have its connection."""
        worker = self.worker
        self.handed_on += 1
        for generation, workers in [(worker.generation, worker.workers), *worker.predecessors()]:
            for number in candidates(packet, workers):
                if (generation, number) != (worker.generation, worker.number):
                    worker.send(generation, number, item, len(packet) + ITEM_BYTES)


class WorkerPort(AdoptedPort):
    """The socket of a worker, which is read only while no other process reads it."""

    _is_deaf = True

    def startReading(self) -> None:
        if not self._is_deaf:
            super().startReading()

    def deafen(self) -> None:
        """Read nothing more, whatever asks for it; sending goes on."""
        self._is_deaf = True
        self.stopReading()
        # the reactor closes what it reads when it stops, and would forget this port
        reactor: Any = self.reactor
        reactor.addSystemEventTrigger("during", "shutdown", self._close_if_open)

    def _close_if_open(self) -> None:
        if self.fileno() != -1:
            self.close()

    def listen(self) -> None:
        """Read."""
        self._is_deaf = False
        self.startReading()


def is_alike(data: bytes, stride: int) -> bool:
    """Whether all datagrams of a run have the type and the id of the first one, so that they belong together."""
    count = -(-len(data) // stride)
    return all(data[place::stride] == data[place : place + 1] * count for place in (0, 2, 3))
