"""The checks of a conversation; they hold whatever its path does.

``ending_of`` names each end; ``docs/notebook/conversations.md`` explains those that are no failures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet import error

from tests.conversations.program import ABORT, DESTROY, SECOND_US, SOCKETS
from tests.conversations.speakers import Speaker
from txutp.core.states import CLOSED
from txutp.protocol import UTPProtocol
from txutp.socket.program import _going_on

# How an attempt to connect or a connection has ended.
DONE = "both ends: ConnectionDone"
PARTLY_DONE = "one end ConnectionDone, the other ConnectionLost"
LOST = "both ends: ConnectionLost"
ABORTED = "an application broke it off"
NEVER_ACCEPTED = "the client was up, the server never"
ALONE = "left alone: the peer is gone, and its RESET was lost"
REFUSED = "no connection"

RESET_TEXT = "reset"


def mark_of(talk: tuple[Speaker, Speaker]) -> tuple[Any, ...]:
    """Numbers of both ends, of which at least one changes when a talk moves."""
    marks: list[Any] = []
    for speaker in talk:
        marks += [speaker.made, len(speaker.received), speaker.ends_of_peer, len(speaker.reasons), speaker.refused]
        connection = speaker.connection
        if connection is not None:
            marks += [connection.state, connection.sending.first_unacked, connection.bytes_received]
    return tuple(marks)


def judge_stillness(stage: Any, number: int) -> None:
    """Nothing has moved for longer than any timer runs: one end must be alone, and have nothing to send.

    The stage ends it then, as an application would that has waited long enough.
    """
    client, server = stage.speakers[number]
    ups = [speaker for speaker in (client, server) if speaker.is_up]
    for speaker in ups:
        connection = speaker.connection
        sending = connection.sending
        what = (
            f"{speaker} stands still in {connection}: {sending.outstanding} outstanding, {sending.unsent_bytes} unsent"
        )
        if speaker.peer.is_up and speaker.peer.connection.state != CLOSED:
            stage.failures.append(f"{what}, and its peer is there")
        elif sending.outstanding or sending.unsent_bytes:
            stage.failures.append(f"{what}, and its peer is gone")
        elif connection.keepalive_us is not None and stage.is_answered(speaker):
            stage.failures.append(f"{what}, its peer is gone, and keepalives do not tell")
        speaker.was_alone = True
        speaker.abort()
    if not ups and not client.is_over:
        stage.failures.append(f"nobody is up in talk {number}, and it is not over")


def check_speakers(stage: Any, outcome: Any) -> None:
    """Check both ends of each talk, and count its bytes and its end."""
    for client, server in stage.speakers:
        for speaker in (client, server):
            stage.failures += speaker.complaints
            stage.failures += told_wrongly(speaker)
            stage.failures += lies_of(speaker, stage.program.is_calm)
            outcome.bytes += len(speaker.received)
        outcome.connections += 1
        outcome.endings[ending_of(client, server)] += 1


def told_wrongly(speaker: Speaker) -> list[str]:
    """Complaints about events that came too often or never, and about wrong bytes."""
    wrong = []
    peer = speaker.peer
    if speaker.received != peer.payload[: len(speaker.received)] or len(speaker.received) > peer.written_bytes:
        wrong.append(f"{speaker} received other bytes than {peer} wrote")
    if speaker.made > 1 or speaker.ends_of_peer > 1 or speaker.ends_of_own > 1:
        wrong.append(f"{speaker} heard something twice")
    if len(speaker.reasons) + (speaker.refused is not None) > 1:
        wrong.append(f"{speaker} heard of its end twice: {speaker.reasons} {speaker.refused}")
    if speaker.made and not speaker.reasons:
        wrong.append(f"{speaker} never heard of its end")
    if speaker.asked != speaker.told:
        wrong.append(f"{speaker} asked {speaker.asked} times what has arrived, and was told {speaker.told} times")
    return wrong


def lies_of(speaker: Speaker, is_calm: bool) -> list[str]:
    """Complaints about the reason that a speaker was given for its end, if it is not true."""
    if speaker.refused is not None and speaker.part.ending != DESTROY:
        return [] if not is_calm else refusals_in_calm(speaker)
    if not speaker.reasons:
        return []
    (reason,) = speaker.reasons
    peer = speaker.peer
    if isinstance(reason, error.ConnectionDone):
        return lies_of_done(speaker)
    lies = []
    if isinstance(reason, error.ConnectionAborted):
        if not speaker.aborted:
            lies.append(f"{speaker} is called aborted, and was not")
    elif not isinstance(reason, error.ConnectionLost):
        lies.append(f"{speaker} ended with {reason!r}")
    elif RESET_TEXT in str(reason) and speaker.peer_was_up:
        lies.append(f"{speaker} is told of a RESET, and its peer is up")
    elif speaker.tls and (speaker.left or peer.left):
        pass  # Twisted's TLS aborts where it leaves before the handshake is over
    elif is_calm and not peer.left and not (peer.part.kind in SOCKETS and peer.part.ending in (ABORT, DESTROY)):
        lies.append(f"{speaker} ended with {reason!r} although nothing went wrong")
    return lies


def refusals_in_calm(speaker: Speaker) -> list[str]:
    """Attempts succeed where nothing goes wrong, unless the application gives up, or another one has its port."""
    usual = type(speaker.refused) in (error.UserError, error.ConnectingCancelledError, error.ConnectBindError)
    return [] if usual else [f"{speaker} was refused with {speaker.refused!r} although nothing went wrong"]


def lies_of_done(speaker: Speaker) -> list[str]:
    """ConnectionDone says that both streams have arrived, as far as the applications wanted them."""
    if speaker.left and speaker.part.ending in (ABORT, DESTROY):
        return []  # a Socket's ``close`` without an error says nothing more
    lies = []
    peer = speaker.peer
    connection = peer.connection
    arrived_bytes = len(peer.received) if connection is None or speaker.tls else connection.bytes_received
    if arrived_bytes < speaker.accepted_bytes:
        lies.append(f"{speaker} is done, and {arrived_bytes} of its {speaker.accepted_bytes} bytes have arrived")
    if len(peer.received) < speaker.accepted_bytes and not peer.left:
        lies.append(f"{speaker} is done, and {peer} has read {len(peer.received)} of {speaker.accepted_bytes} bytes")
    if not speaker.left:
        if len(speaker.received) < peer.accepted_bytes:
            lies.append(f"{speaker} is done after {len(speaker.received)} of {peer.accepted_bytes} bytes")
        if not peer.ended and not (speaker.ended and not peer.part.half_closeable):
            lies.append(f"{speaker} is done, and {peer} has not ended its stream")
        if speaker.part.kind in SOCKETS and not speaker.ends_of_peer:
            lies.append(f"{speaker} is done, and did not hear the end of the stream")
    return lies


def ending_of(client: Speaker, server: Speaker) -> str:
    """How a talk ended, in one name."""
    if client.refused is not None:
        return f"{REFUSED}: {type(client.refused).__name__}"
    if client.was_alone or server.was_alone:
        return NEVER_ACCEPTED if not server.made else ALONE
    if any(speaker.left and speaker.part.ending in (ABORT, DESTROY) for speaker in (client, server)):
        return ABORTED
    if not server.made:
        return NEVER_ACCEPTED
    done = [isinstance(speaker.reasons[0], error.ConnectionDone) for speaker in (client, server) if speaker.reasons]
    return DONE if all(done) else PARTLY_DONE if any(done) else LOST


def check_nothing_is_left(stage: Any, utps: Iterable[UTPProtocol]) -> None:
    """No port, timer, table entry or event when everybody has gone."""
    network = stage.network
    left: list[str] = []
    left += [f"port {address}" for address in network.ports]
    for name in (*stage.program.clients, "10.0.0.1"):
        left += [f"call {call} on {name}" for call in network.reactor(name).getDelayedCalls()]
    for utp in utps:
        multiplexer = utp.multiplexer
        tables = {name: getattr(multiplexer, name) for name in ("_connections", "_opening", "touched")}
        admission = multiplexer._admission
        tables |= {name: getattr(admission, name) for name in ("half_open", "_per_host", "_half_open_per_host")}
        left += [f"{name} {table}" for name, table in tables.items() if table]
        if multiplexer.next_deadline_us() is not None:
            left.append(f"a deadline of {utp}")
    left += [f"{handle} goes on" for handle in _going_on if handle.reactor.network is network]
    if network._events and not left:
        left.append(f"{len(network._events)} events, the next at {network._events[0][0] / SECOND_US} s")
    if left:
        stage.failures.append(f"left behind: {'; '.join(left)}")
