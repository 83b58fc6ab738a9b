"""A reactor that stops: nothing written before loseConnection is lost, and everybody hears of the end."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

REACTORS = ["select", "poll", "epoll", "asyncio"]


def run(code: str, reactor: str, *arguments: str) -> str:
    """Run a program under a reactor; gives what it printed."""
    install = f"from twisted.application.reactors import installReactor; installReactor({reactor!r})\n"
    done = subprocess.run(
        [sys.executable, "-c", install + textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


STOP_AT_ONCE = """
    import subprocess, sys
    from twisted.internet import reactor
    from twisted.internet.endpoints import clientFromString, serverFromString
    from twisted.internet.protocol import Factory, Protocol

    class Sink(Protocol):
        count = 0
        def dataReceived(self, data):
            self.count += len(data)
        def connectionLost(self, reason):
            print(self.count, reason.type.__name__)
            reactor.stop()

    class Source(Protocol):
        def connectionMade(self):
            self.transport.write(b"x" * 3_000_000)
            self.transport.loseConnection()
            reactor.stop()

    if len(sys.argv) > 1:
        clientFromString(reactor, "utp:127.0.0.1:" + sys.argv[1]).connect(Factory.forProtocol(Source))
        reactor.run()
    else:
        listening = serverFromString(reactor, "utp:0:interface=127.0.0.1").listen(Factory.forProtocol(Sink))
        child = subprocess.Popen([sys.executable, "-c", SOURCE, str(listening.result.getHost().port)])
        reactor.run()
        sys.exit(child.wait())
"""


@pytest.mark.parametrize("reactor", REACTORS)
def test_stopping_the_reactor_right_after_lose_connection_loses_nothing(reactor: str) -> None:
    program = textwrap.dedent(STOP_AT_ONCE)
    source = f"SOURCE = None\nfrom twisted.application.reactors import installReactor\ninstallReactor({reactor!r})\n"
    code = f"SOURCE = {source + program!r}\n" + program
    assert run(code, reactor) == "3000000 ConnectionDone\n"


@pytest.mark.parametrize("reactor", REACTORS)
def test_a_stopping_reactor_tells_every_protocol_and_leaves_nothing(reactor: str) -> None:
    """connectionLost(ConnectionLost) on both sides, no delayed call and no selectable afterwards."""
    code = """
        from twisted.internet import reactor
        from twisted.internet.endpoints import clientFromString, serverFromString
        from twisted.internet.protocol import Factory, Protocol

        class Open(Protocol):
            def connectionMade(self):
                self.transport.write(b"x")
            def dataReceived(self, data):
                heard.append(data)
                if len(heard) == 2:
                    reactor.stop()
            def connectionLost(self, reason):
                print(reason.type.__name__)

        heard = []
        port = serverFromString(reactor, "utp:0:interface=127.0.0.1").listen(Factory.forProtocol(Open)).result
        clientFromString(reactor, f"utp:127.0.0.1:{port.getHost().port}").connect(Factory.forProtocol(Open))
        reactor.run()
        print(reactor.getDelayedCalls(), reactor.removeAll())
    """
    assert run(code, reactor) == "ConnectionLost\nConnectionLost\n[] []\n"


@pytest.mark.parametrize("reactor", REACTORS)
def test_all_who_share_a_port_hear_of_the_end_and_nothing_is_left(reactor: str) -> None:
    """Clients that are up, that are closing and that are still connecting, some of them from the port that listens."""
    code = """
        from twisted.internet import reactor
        from twisted.internet.protocol import ClientFactory, DatagramProtocol, Factory, Protocol
        from txutp import connectUTP, listenUTP

        class Open(Protocol):
            def connectionMade(self):
                made.append(self)
                if len(made) == 12:
                    made[0].transport.loseConnection()
                    reactor.callLater(0, reactor.stop)
            def connectionLost(self, reason):
                told.append("lost")

        class Silent(DatagramProtocol):
            def datagramReceived(self, datagram, addr):
                pass

        class Connecting(ClientFactory):
            noisy = False
            protocol = Open
            def clientConnectionFailed(self, connector, reason):
                told.append("failed")

        made, told = [], []
        port = listenUTP(reactor, 0, Factory.forProtocol(Open), interface="127.0.0.1")
        number = port.getHost().port
        silent = reactor.listenUDP(0, Silent(), interface="127.0.0.1")
        for ours in (None, ("127.0.0.1", number)):
            for _ in range(3):
                connectUTP(reactor, "127.0.0.1", number, Connecting(), bindAddress=ours)
            connectUTP(reactor, "127.0.0.1", silent.getHost().port, Connecting(), bindAddress=ours)
        reactor.run()
        print(sorted(told).count("failed"), sorted(told).count("lost"))
        print(reactor.getDelayedCalls(), reactor.removeAll())
    """
    assert run(code, reactor) == "2 12\n[] []\n"


LISTEN = {
    "tcp": "reactor.listenTCP(0, Noisy(), interface='127.0.0.1')",
    "utp": "listenUTP(reactor, 0, Noisy(), interface='127.0.0.1')",
    "utp beside": "listenUTP(reactor, 0, Noisy(), interface='127.0.0.1', datagramProtocol=Beside())",
}


@pytest.mark.parametrize("reactor", REACTORS)
def test_a_factory_stops_with_its_reactor_as_with_tcp(reactor: str) -> None:
    """Programs close their files in stopFactory; so does one that never calls stopListening."""
    code = """
        from twisted.internet import reactor
        from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
        from twisted.python import log
        from txutp import listenUTP

        class Noisy(Factory):
            protocol = Protocol
            def stopFactory(self):
                print("stopFactory", self.numPorts)

        class Beside(DatagramProtocol):
            def stopProtocol(self):
                print("stopProtocol")

        def note(event):
            text = " ".join(event["message"])
            if "Closed" in text and "UDP" not in text:
                print(text.replace("UTP", "TCP").replace(str(number), "N"))

        port = LISTEN
        number = port.getHost().port
        log.addObserver(note)
        reactor.callWhenRunning(reactor.stop)
        reactor.run()
        print(port.connected, port.stopListening())
    """
    said = {kind: run(code.replace("LISTEN", call), reactor).splitlines() for kind, call in LISTEN.items()}
    assert said["utp"] == said["tcp"]
    assert said["tcp"][1:] == ["stopFactory 0", "False None"]
    assert said["utp beside"] == ["stopProtocol", *said["tcp"]]
