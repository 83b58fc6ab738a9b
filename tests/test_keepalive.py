"""Keepalives of one connection, whatever the settings say, and what they find out about the peer."""

from __future__ import annotations

import pytest
from twisted.internet import error

from tests.support import CLIENT, PORT, SERVER, Pair, ScriptedClient
from txutp import Settings, listenUTP
from txutp.core.packet import ST_STATE

SILENT = Settings(keepalive_us=None)


def keep_alive(scene: ScriptedClient, enabled: bool) -> None:
    connection = scene.server.connection
    connection.set_keep_alive(enabled)
    scene.ports[0]._utp.touch(connection)


def test_a_connection_may_ask_for_keepalives_where_the_settings_have_none() -> None:
    """After 29 seconds of silence, and again; and no more when it does not want them any more."""
    scene = ScriptedClient(settings=SILENT)
    scene.run(100)
    assert scene.peer.take() == []
    keep_alive(scene, True)
    scene.run(59)
    keepalives = scene.peer.take()
    assert [(packet.type, packet.ack_nr) for packet in keepalives] == [(ST_STATE, 4_999)] * 3
    keep_alive(scene, False)
    scene.run(100)
    assert scene.peer.take() == []
    assert scene.server_reactor.getDelayedCalls() == []


@pytest.mark.parametrize("enabled", [True, False])
def test_where_the_settings_have_keepalives_they_stay_as_they_are(enabled: bool) -> None:
    """Switching them off again is not switching off those that keep the bindings of NATs open."""
    scene = ScriptedClient(settings=Settings(keepalive_us=10_000_000))
    keep_alive(scene, enabled)
    scene.run(31)
    assert len(scene.peer.take()) == 3


def test_a_peer_that_was_started_again_is_found_out() -> None:
    """It answers our keepalive with a RESET, which acknowledges the number that our next packet will have."""
    pair = Pair(settings=SILENT)
    pair.client.connection.set_keep_alive(True)
    pair.network.ports[SERVER, PORT].stopListening()
    pair.run(1)
    listenUTP(pair.server_reactor, PORT, pair.accepting)
    assert not pair.client.lost
    pair.run(30)
    assert pair.client.lost_type is error.ConnectionLost
    pair.run(1)
    assert not [port for port in pair.network.ports if port[0] == CLIENT]


def test_a_peer_that_is_gone_without_a_word_is_not() -> None:
    """No implementation answers a keepalive, so silence says nothing; an idle timeout is for that."""
    pair = Pair(settings=SILENT)
    pair.client.connection.set_keep_alive(True)
    pair.up.hook = lambda datagram: setattr(datagram, "dropped", True)
    pair.run(600)
    assert not pair.client.lost
