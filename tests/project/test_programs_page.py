"""Three pages of ``docs/howto`` are true: ``programs``, ``racing`` and ``asyncio``; their programs and commands run.

Programs of others run in ``tests/programs``.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import ROOT, Page
from tests.project.test_examples import running, says
from tests.project.test_readme import environment, free_port

PAGE = Page("howto/programs")
FOREIGN = (ROOT / "tests" / "programs" / "test_programs.py").read_text(encoding="utf-8")
COMMANDS = PAGE.commands
REBOUND, RACED, ASYNCIO = PAGE.programs + Page("howto/racing").programs + Page("howto/asyncio").programs
UVLOOP = ASYNCIO.replace("asyncio.run(main())", "uvloop.run(main())").replace(
    "import asyncio\n", "import asyncio\nimport uvloop\n"
)
HOST = "127.0.0.1"
TIMEOUT_SECONDS = 60

# What the tests below run.
SSH = "ssh -o"
TO_TCP = "twist portforward"
TO_UTP = "python -m txutp.rebinding --connect twist portforward"


def command(beginning: str, **ports: str) -> str:
    """The one command that begins so, with other ports."""
    [found] = [command for command in COMMANDS if command.startswith(beginning)]
    for number, port in ports.items():
        found = found.replace(number.removeprefix("p"), port)
    return found


def test_every_command_is_run() -> None:
    """Here, or in ``tests/programs``, which looks its commands up by the name of the program."""
    here = [text for text in COMMANDS if text.startswith((SSH, TO_TCP, TO_UTP))]
    assert len(here) == 3
    for text in COMMANDS:
        if text not in here:
            found = re.fullmatch(r"python -m txutp\.rebinding (?:-\S+ (?:\d+ )?)*([a-z][\w-]*)( .*)?", text)
            assert found, text
            assert re.search(rf'shown\("{found[1]}["\\ ]', FOREIGN), text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            REBOUND,
            "IPv4Address(type='TCP', host='127.0.0.1', port=PORT) - listened over uTP: 127.0.0.1:PORT;"
            " uTP connections accepted: 0, made: 0; calls left to TCP: 0\n",
        ),
        (RACED, Page("howto/racing").blocks[-1].text.replace("6881", "PORT")),
        (ASYNCIO, "1 MB over uTP\n"),
        pytest.param(
            UVLOOP,
            "1 MB over uTP\n",
            marks=pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="uvloop is not here"),
        ),
    ],
    ids=["rebound", "raced", "asyncio", "uvloop"],
)
def test_programs(text: str, says: str, tmp_path: Path) -> None:
    """Each ends well, and says what it should."""
    port = str(free_port())
    done = subprocess.run(
        [sys.executable, "-c", text.replace("6881", port).replace("8000", port)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == says.replace("PORT", port)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_a_relay_between_tcp_and_utp(tmp_path: Path) -> None:
    """A page goes from a TCP server over uTP to a program that knows TCP alone."""
    page = tmp_path / "page.html"
    page.write_text("<p>over the relay</p>")
    with running(f"twist web --listen tcp:0:interface={HOST} --path .", tmp_path) as web:
        inner, outer = str(free_port()), str(free_port())
        with running(command(TO_TCP, p8080=web.port(), p8081=inner), tmp_path) as to_tcp:
            to_tcp.until(f"starting on {inner}")
            report = tmp_path / "report"
            relay = command(TO_UTP, p8081=inner, p8082=outer).replace("--connect", f"--connect --report={report}")
            with running(relay, tmp_path) as to_utp:
                to_utp.until(f"starting on {outer}")
                assert says(f"curl --silent --fail http://{HOST}:{outer}/page.html", tmp_path) == [page.read_text()]
                to_utp.process.terminate()
                to_utp.process.wait(TIMEOUT_SECONDS)
    assert "made: 1; calls left to TCP: 1" in report.read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH is not here")
def test_ssh_through_a_proxy_command(tmp_path: Path) -> None:
    """OpenSSH agrees on keys with Conch over uTP, and is asked for a password, which it has not."""
    pytest.importorskip("bcrypt")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with running(f"python examples/ssh.py serve utp:0:interface={HOST} secret", tmp_path) as server:
        port = server.port()
        quiet = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=known -F none"
        ssh = command(SSH, p2222=port).replace("ssh ", f"ssh {quiet} ", 1)
        with running(ssh, tmp_path) as client:
            assert any("Permission denied (" in line for line in client.end(status=255))
    assert (tmp_path / "known").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "option", "greeting"),
    [
        ("twist conch --data=. --auth=memory:user:word", "--port utp:2222", b"SSH-2.0-Twisted"),
        ("twist manhole --passwd=passwd", "--sshPort utp:2222", b"SSH-2.0-Twisted"),
        ("twist manhole --passwd=passwd", "--telnetPort utp:2323", b"Username: "),
    ],
    ids=["conch", "manhole by SSH", "manhole by Telnet"],
)
def test_servers_of_twisted(program: str, option: str, greeting: bytes, tmp_path: Path) -> None:
    """Each is given a string, and greets a client."""
    pytest.importorskip("bcrypt")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65_537, 2_048)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "ssh_host_rsa_key").write_bytes(secret)
    (tmp_path / "ssh_host_rsa_key.pub").write_bytes(public)
    (tmp_path / "passwd").write_text("user:word\n")
    assert f"`{option}`" in PAGE.text
    port = free_port()
    if "ssh" in option:
        program += " --sshKeyDir=. --sshKeyName=ssh_host_rsa_key"
    with running(f"{program} {option.rpartition(':')[0]}:{port}:interface={HOST}", tmp_path) as server:
        server.until(f"starting on {port}")
        netcat = [sys.executable, str(ROOT / "examples" / "netcat.py"), f"utp:{HOST}:{port}"]
        client = subprocess.Popen(netcat, env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert client.stdout is not None
        try:
            assert client.stdout.read(len(greeting)) == greeting
        finally:
            client.kill()
            client.communicate()


@pytest.mark.slow
def test_netcat(tmp_path: Path) -> None:
    """A megabyte there and back, and the end of the input reaches the other side."""
    netcat = [sys.executable, str(ROOT / "examples" / "netcat.py")]
    echo = (
        "import sys; from twisted.internet import endpoints, protocol, reactor, interfaces\n"
        "from zope.interface import implementer\n"
        "@implementer(interfaces.IHalfCloseableProtocol)\n"
        "class Echo(protocol.Protocol):\n"
        "    dataReceived = lambda self, data: self.transport.write(data)\n"
        "    readConnectionLost = lambda self: self.transport.loseConnection()\n"
        "    writeConnectionLost = lambda self: None\n"
        f"listening = endpoints.serverFromString(reactor, 'utp:0:interface={HOST}').listen("
        "protocol.Factory.forProtocol(Echo))\n"
        "listening.addCallback(lambda port: print('port', port.getHost().port))\n"
        "reactor.run()\n"
    )
    (tmp_path / "echo.py").write_text(echo)
    content = bytes(range(256)) * 4_000
    with running("python echo.py", tmp_path) as server:
        where = f"utp:{HOST}:{server.port()}"
        done = subprocess.run(
            [*netcat, where],
            input=content,
            env=environment(),
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == content
    done = subprocess.run(
        [*netcat, where], input=b"", env=environment(), capture_output=True, timeout=TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 1
    assert where.encode() in done.stderr
    assert b"Traceback" not in done.stderr
