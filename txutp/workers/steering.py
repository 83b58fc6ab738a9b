"""Which worker a datagram belongs to, for the kernel and for ourselves.

A connection belongs to the worker whose number is its receive id modulo the number of workers.  Every packet that a
peer sends carries that id, except for a SYN, which carries the id below it (BEP 29), and for some RESETs and what ICMP
errors quote, which carry our send id, a neighbour.  What is not uTP belongs to worker 0.

``steering_program`` says that to the kernel: a classic BPF program of a group of SO_REUSEPORT sockets, which returns
the place of a socket in the group.  ``worker_of`` says it in Python, because the kernel looks only at the first
datagram of a run that it has joined (GRO), or that a sender on this host has not cut yet (GSO).
"""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from collections.abc import Callable

from txutp.core.packet import HEADER_BYTES, ST_RESET, ST_SYN, TYPES, VERSION
from txutp.core.sequence import MASK16

# In asm-generic/socket.h; Python's socket module does not name it.
SO_ATTACH_REUSEPORT_CBPF = 51

SYN_BYTE = ST_SYN << 4 | VERSION
RESET_BYTE = ST_RESET << 4 | VERSION

# Workers of one port at most: each has at least 40 ids for connections that it begins to one address.
MAXIMUM_WORKERS = 256

# Ids that a worker chooses are this many times the number of workers apart, so that no two of them are neighbours.
SPACING = 3

# Halves of the range of ids, of which workers use one and their successors the other.
HALVES = ((1, 0x7FFF), (0x8000, 0xFFFD))

# Instructions of classic BPF (linux/filter.h): code, jumps if true and false, operand.
INSTRUCTION = struct.Struct("=HBBI")
LOAD_LENGTH, LOAD_BYTE, LOAD_SHORT = 0x80, 0x30, 0x28
ADD, AND, MODULO = 0x04, 0x54, 0x94
JUMP_IF_GREATER, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST = 0x25, 0x15, 0x35
RETURN, RETURN_RESULT = 0x06, 0x16


def worker_of(datagram: bytes, workers: int) -> int:
    """The number of the worker that a datagram belongs to; of a run, its first datagram counts."""
    if len(datagram) < HEADER_BYTES or datagram[0] not in TYPES:
        return 0
    receive_id = datagram[2] << 8 | datagram[3]
    if datagram[0] == SYN_BYTE:
        receive_id = receive_id + 1 & MASK16
    return receive_id % workers


def candidates(datagram: bytes, workers: int) -> set[int]:
    """The workers that may have the connection of a packet whose id is the receive id or the send id of ours."""
    connection_id = datagram[2] << 8 | datagram[3]
    return {(connection_id + step & MASK16) % workers for step in (-1, 0, 1)}


def steering_program(workers: int) -> bytes:
    """The BPF program that returns ``worker_of`` of a datagram; its instructions see the payload of UDP."""
    instructions = (
        (LOAD_LENGTH, 0, 0, 0),
        (JUMP_IF_AT_LEAST, 0, 9, HEADER_BYTES),
        (LOAD_BYTE, 0, 0, 0),
        (JUMP_IF_GREATER, 7, 0, SYN_BYTE),
        (AND, 0, 0, 0x0F),
        (JUMP_IF_EQUAL, 0, 5, VERSION),
        (LOAD_BYTE, 0, 0, 0),
        (JUMP_IF_EQUAL, 4, 0, SYN_BYTE),
        (LOAD_SHORT, 0, 0, 2),
        (MODULO, 0, 0, workers),
        (RETURN_RESULT, 0, 0, 0),
        (RETURN, 0, 0, 0),  # what is not uTP
        (LOAD_SHORT, 0, 0, 2),
        (ADD, 0, 0, 1),
        (AND, 0, 0, MASK16),
        (MODULO, 0, 0, workers),
        (RETURN_RESULT, 0, 0, 0),
    )
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in instructions)


def attach(udp_socket: socket.socket, workers: int) -> None:
    """Steer the datagrams of a group of sockets, of which this is one; raises ``OSError`` if the kernel cannot.

    It takes the place of the program that the group had.
    """
    program = array("B", steering_program(workers))
    address, size = program.buffer_info()
    described = struct.pack("HP", size // INSTRUCTION.size, address)
    udp_socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, described)


def why_no_steering() -> str:
    """Why the kernel of this host cannot share a UDP port between processes; empty if it can."""
    problem = "it is not Linux"
    if sys.platform == "linux":
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                probe.bind(("127.0.0.1", 0))
                attach(probe, 2)
            return ""
        except OSError as refusal:
            problem = str(refusal)
    return f"This system cannot steer the datagrams of a UDP port to several processes ({problem}); one has to do."


class WorkerIds:
    """Draws the receive ids of connections that a worker begins, so that the answers find it.

    No two of them are neighbours, in whichever workers they are: so the receive id of one is never the send id of
    another one, which a RESET may name.  The workers of the next generation draw from the other half of the ids,
    because connections of this one may live on beside them.
    """

    def __init__(self, number: int, workers: int, generation: int, random_bytes: Callable[[int], bytes]) -> None:
        lowest, highest = HALVES[generation % 2]
        self._random_bytes = random_bytes
        # Of (id // workers) % 3 a worker with an even number has 0, others have 1.  So ids of two workers whose numbers
        # are neighbours are none, nor are those of the last worker and the first one, where id // workers grows by 1.
        self._step = SPACING * workers
        base = number % 2 * workers + number
        first = -(-(lowest - base) // self._step)
        self._base = base + first * self._step
        self._count = (highest - self._base) // self._step + 1

    def draw(self) -> int:
        """A random one."""
        return self._base + int.from_bytes(self._random_bytes(4), "big") % self._count * self._step
