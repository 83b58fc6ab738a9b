"""Programs in Node's style, on real sockets and in processes of their own: they end by themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

PROGRAMS = {
    "only an unref'd server is left": (
        """
        server = createServer().listen(0, "127.0.0.1").unref()
        run()
        print("over")
        """,
        "over",
    ),
    "ref and unref count as the last said": (
        """
        server = createServer(lambda socket: (server.close(), socket.resume())).listen(0, "127.0.0.1")
        assert server.unref().unref().ref().ref().hasRef()
        server.on("close", lambda: print("closed"))
        client = connect(server.address().port, "127.0.0.1").unref()
        client.end("x")
        run()
        print("over")
        """,
        "closed over",
    ),
    "only unref'd sockets are left": (
        """
        sockets = []

        def accept(socket):
            sockets.append(socket.unref())
            socket.on("data", lambda data: (print("data"), client.unref(), client.unref()))

        server = createServer(accept).listen(0, "127.0.0.1").unref()
        client = connect(server.address().port, "127.0.0.1")
        client.write("x")
        run()
        print("over")
        """,
        "data over",
    ),
    "an unref'd server keeps nobody, but its connections do": (
        """
        def accept(socket):
            server.close(lambda: print("closed"))
            socket.pipe(socket)

        server = createServer(accept).listen(0).unref()
        client = connect(server.address().port)
        client.on("data", lambda data: print(data.decode()))
        client.end("echo")
        run()
        print("over")
        """,
        "echo closed over",
    ),
    "an error is told before the end": (
        """
        taken = createServer().listen(0, "127.0.0.1").unref()
        server = createServer().listen(taken.address().port, "127.0.0.1")
        server.on("error", lambda problem: print(type(problem).__name__))
        client = connect(taken.address().port).destroy()
        client.on("close", lambda: print("close"))
        run()
        print("over")
        """,
        "CannotListenError close over",
    ),
    "what was put off is done": (
        """
        from twisted.internet import reactor
        reactor.callLater(0.05, lambda: reactor.callLater(0.05, print, "later"))
        run()
        print("over")
        """,
        "later over",
    ),
    "main is awaited": (
        """
        async def main():
            server = await createServer(lambda socket: socket.pipe(socket)).listen(0, "localhost").listening()
            host, family, port = server.address()
            socket = await connect(port, host).connected()
            assert socket.address() == (host, family, socket.localPort) == ("127.0.0.1", "IPv4", socket.localPort)
            socket.end("x")
            print([data async for data in socket])
            server.close()
        run(main)
        print("over")
        """,
        "[b'x'] over",
    ),
    "what main raises is raised": (
        """
        async def main():
            connect(1).on("error", print)
            raise ValueError("mine")
        try:
            run(main)
        except ValueError as problem:
            print(problem)
        """,
        "mine",
    ),
}


@pytest.mark.parametrize("reactor", ["default", "asyncio"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_end_when_nothing_is_left_to_do(name: str, reactor: str) -> None:
    """As those of Node.js."""
    text, said = PROGRAMS[name]
    assert executed(text, reactor).split() == said.split()


def test_asyncio_tasks_may_await() -> None:
    """On asyncio's reactor, what is given to coroutines becomes a future."""
    program = """
        import asyncio
        from twisted.internet import reactor

        async def task():
            loop = asyncio.get_running_loop()
            await asyncio.sleep(0)
            server = createServer(lambda socket: socket.pipe(socket)).listen(0, "127.0.0.1")
            await server.listening().asFuture(loop)
            socket = await connect(server.address().port, "127.0.0.1").connected().asFuture(loop)
            socket.write("x")
            await socket.drained().asFuture(loop)
            print(await socket.received().asFuture(loop))
            socket.end()
            print(await socket.received().asFuture(loop))
            server.close()
            await server.closed().asFuture(loop)

        from twisted.internet.defer import Deferred

        async def main():
            await Deferred.fromFuture(asyncio.ensure_future(task()))

        run(main)
        print("over")
        """
    assert executed(program, "asyncio").split() == ["b'x'", "None", "over"]


def executed(text: str, reactor: str = "default") -> str:
    """What a program prints that has everything of txutp.socket."""
    lines = text.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    beginning = (
        "from twisted.internet import asyncioreactor\nasyncioreactor.install()\n" if reactor == "asyncio" else ""
    )
    program = beginning + "from txutp.socket import *\n" + "\n".join(line[indent:] for line in lines)
    return output_of([sys.executable, "-c", program])


def output_of(command: list[str]) -> str:
    """What a command prints; it must end well and say nothing on its standard error."""
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::RuntimeWarning"},
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout
