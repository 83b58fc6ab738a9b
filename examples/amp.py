"""AMP over uTP: a remote procedure with typed arguments.

python examples/amp.py serve utp:6881:interface=127.0.0.1
python examples/amp.py add utp:127.0.0.1:6881 2 40
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols import amp


class Add(amp.Command):
    arguments = [(b"one", amp.Integer()), (b"other", amp.Integer())]
    response = [(b"total", amp.Integer())]


class Calculator(amp.AMP):
    @Add.responder
    def add(self, one: int, other: int) -> dict[str, int]:
        return {"total": one + other}


async def main(reactor: Any, verb: str, where: str, *numbers: str) -> None:
    if verb == "serve":
        port = await serverFromString(reactor, where).listen(Factory.forProtocol(Calculator))
        print(f"Listening on port {port.getHost().port}.", flush=True)
        await Deferred()
    one, other = map(int, numbers)
    calculator = await connectProtocol(clientFromString(reactor, where), amp.AMP())
    answer = await calculator.callRemote(Add, one=one, other=other)
    print(f"{one} + {other} = {answer['total']}")


if __name__ == "__main__":
    words = {"serve": 3, "add": 5}
    if len(sys.argv) < 2 or len(sys.argv) != words.get(sys.argv[1]):
        sys.exit(__doc__)
    react(main, sys.argv[1:])
