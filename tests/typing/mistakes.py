"""Mistakes that a type checker has to find: each line that ends with ``# wrong`` has one, and no other line has."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol

from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint, listenUTP, utp_transport
from txutp.congestion import Ledbat
from txutp.socket import Server, Socket


class Mistaken(Protocol):
    """What is behind ``utp_transport`` is checked."""

    def connectionMade(self) -> None:
        transport = utp_transport(self.transport)
        print(transport.stats().round_trip)  # wrong
        transport.write("text")  # wrong
        transport.acknowledge()  # wrong
        transport.acknowledged().addCallback(5)  # wrong


class NoController:
    """It has no window."""


settings = Settings(target_delay_us="4 ms")  # wrong
Settings(target_delay=4000)  # wrong
Settings(Ledbat)  # wrong
Settings(congestion=NoController)  # wrong
UTPServerEndpoint(reactor, "6881")  # wrong
UTPClientEndpoint(reactor, 6881, "127.0.0.1")  # wrong
port = listenUTP(reactor, 0, Factory.forProtocol(Mistaken))
print(port.stats().half_opened)  # wrong
Socket().connect("127.0.0.1", 6881)  # wrong
Socket().on("dta", print)  # wrong
Server().once("connect", print)  # wrong
