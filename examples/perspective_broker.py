"""Perspective Broker over uTP: objects whose methods others call.

python examples/perspective_broker.py serve utp:6881:interface=127.0.0.1
python examples/perspective_broker.py ask utp:127.0.0.1:6881 Twisted
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.task import react
from twisted.spread import pb


class Greeter(pb.Root):
    def remote_greet(self, name: str) -> str:
        return f"Hello, {name}!"


async def main(reactor: Any, verb: str, where: str, name: str = "") -> None:
    if verb == "serve":
        port = await serverFromString(reactor, where).listen(pb.PBServerFactory(Greeter()))
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await Deferred()
    factory = pb.PBClientFactory()
    await clientFromString(reactor, where).connect(factory)
    greeter = await factory.getRootObject()
    print(await greeter.callRemote("greet", name))
    factory.disconnect()


if __name__ == "__main__":
    words = {"serve": 3, "ask": 4}
    if len(sys.argv) < 2 or len(sys.argv) != words.get(sys.argv[1]):
        sys.exit(__doc__)
    react(main, sys.argv[1:])
