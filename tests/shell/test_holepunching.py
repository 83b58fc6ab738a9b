"""Attempts to connect that outlive ICMP errors, and what ``docs/howto/holepunching.md`` says of them."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import error, reactor
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater

from tests.support import CLIENT, PORT, SERVER, Accepting, ScriptedServer
from txutp import Settings, UTPClientEndpoint, UTPServerEndpoint
from txutp.core.packet import ST_SYN

LOCAL = "127.0.0.1"
ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs" / "howto" / "holepunching.md").read_text(encoding="utf-8")

STUBBORN = Settings(believe_unreachable=False, syn_timeout_us=200_000)
ICMP_ERRORS = [errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES]


class Unanswered(ScriptedServer):
    """A client whose SYNs are not answered, and an ICMP error for each of them if a test wants it."""

    def __init__(self, settings: Settings, timeout: float = 30) -> None:
        super().__init__(settings=settings, answer=False, timeout=timeout)

    def unreachable(self, code: int) -> None:
        """An ICMP error for the last SYN of the client."""
        [protocol] = [port.protocol for (host, _), port in self.network.ports.items() if host == CLIENT]
        syns = [self.syn.encode(), *self.peer.datagrams]
        protocol.unreachable(syns[-1], (SERVER, PORT), code, 0)
        self.run(0.001)


@pytest.mark.parametrize("code", ICMP_ERRORS)
def test_an_icmp_error_ends_an_attempt_unless_the_settings_forbid_it(code: int) -> None:
    for settings in (Settings(), STUBBORN):
        scene = Unanswered(settings)
        scene.unreachable(code)
        assert bool(scene.failures) is settings.believe_unreachable


def test_syns_are_repeated_after_icmp_errors_as_without_them() -> None:
    """Each SYN draws an error; they leave at the same times, and the timeout ends the attempt."""
    scene = Unanswered(STUBBORN, timeout=5)
    count = 0
    scene.unreachable(errno.ECONNREFUSED)
    while not scene.failures and scene.network.now_us < 10_000_000:
        scene.run(0.01)
        if len(scene.peer.datagrams) > count:
            count = len(scene.peer.datagrams)
            scene.unreachable(errno.ECONNREFUSED)
    assert {packet.type for packet in scene.peer.packets} == {ST_SYN}
    # after 0.2, 0.6, 1.4 and 3.0 seconds
    assert count == 4
    assert scene.failures[0].check(error.TimeoutError)
    assert 4.9 < scene.network.now_us / 1e6 < 5.1


def test_an_error_of_an_early_syn_that_comes_late_does_not_harm_the_connection() -> None:
    """Nothing but the SYN-ACK has come yet, so that others would believe that the server has gone."""
    for settings in (Settings(), STUBBORN):
        scene = Unanswered(settings)
        scene.peer.state()
        scene.run(0.001)
        scene.unreachable(errno.ECONNREFUSED)
        assert bool(scene.client.lost) is settings.believe_unreachable


def test_a_reset_refuses_in_any_case() -> None:
    """NATs send no RESETs: it comes from a peer that does not want the connection."""
    scene = Unanswered(STUBBORN)
    scene.peer.reset()
    scene.run(0.001)
    assert scene.failures[0].check(error.ConnectionRefusedError)


def closed_port(interface: str) -> int:
    """A free UDP port."""
    with socket.socket(socket.AF_INET6 if ":" in interface else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((interface, 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("interface", [LOCAL, "::1"])
@pytest_twisted.ensureDeferred
async def test_a_port_that_opens_later_is_reached(interface: str) -> None:
    """The kernel answers the first SYNs with "port unreachable"."""
    number = closed_port(interface)
    endpoint = UTPClientEndpoint(reactor, interface, number, timeout=20, settings=STUBBORN)
    attempt = endpoint.connect(Accepting())
    await deferLater(reactor, 0.3)  # type: ignore[arg-type]
    assert not attempt.called
    accepting = Accepting()
    port = await UTPServerEndpoint(reactor, number, interface=interface).listen(accepting)
    client: Any = await attempt
    client.transport.write(b"hello")
    while not (accepting.made and accepting.made[0].received):
        await deferLater(reactor, 0.01)  # type: ignore[arg-type]
    client.transport.abortConnection()
    await port.stopListening()


@pytest_twisted.ensureDeferred
async def test_a_port_that_stays_closed_is_a_timeout() -> None:
    endpoint = UTPClientEndpoint(reactor, LOCAL, closed_port(LOCAL), timeout=0.7, settings=STUBBORN)
    with pytest.raises(error.TimeoutError):
        await endpoint.connect(Accepting())


def test_the_string_and_the_setting_are_the_same() -> None:
    where = "utp:127.0.0.1:6881"
    assert clientFromString(reactor, where)._settings.believe_unreachable is True
    assert clientFromString(reactor, f"{where}:believeUnreachable=yes")._settings == Settings()
    stubborn = clientFromString(reactor, f"{where}:target=25ms:believeUnreachable=no")._settings
    assert stubborn == Settings(target_delay_us=25_000, believe_unreachable=False)


@pytest.mark.parametrize("value", ["", "maybe", "False", "0"])
def test_another_word_is_refused_with_those_that_are_accepted(value: str) -> None:
    with pytest.raises(ValueError, match="believeUnreachable is yes or no"):
        clientFromString(reactor, f"utp:127.0.0.1:6881:believeUnreachable={value}")


@pytest.mark.parametrize("value", [0, 1, None, "no"])
def test_the_setting_is_a_truth_value(value: Any) -> None:
    with pytest.raises(TypeError, match="believe_unreachable is True or False, not"):
        Settings(believe_unreachable=value)


def test_the_page_shows_a_program_and_the_commands_of_the_list_of_examples() -> None:
    """A test of the examples runs the commands; each is in that list as it is here."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert [language for language, _ in blocks] == ["python"] + ["sh"] * 5
    examples = (ROOT / "docs" / "howto" / "examples.md").read_text(encoding="utf-8")
    assert all(f"`{command.strip()}`" in examples for language, command in blocks if language == "sh")


@pytest.mark.slow
@pytest.mark.parametrize("answered", [True, False])
def test_the_program_of_the_page(answered: bool) -> None:
    """Two of it find each other; one that is alone gives up in time, and not because of the closed port."""
    [program] = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    ours, theirs = str(closed_port(LOCAL)), str(closed_port(LOCAL))
    swapped = program.replace("6881", "ours").replace("6882", ours).replace("ours", theirs)
    programs = [program.replace("6881", ours).replace("6882", theirs), swapped][: 1 + answered]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", text],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for text in programs
    ]
    try:
        said = [each.communicate(timeout=30)[0] for each in started]
    finally:
        for each in started:
            each.kill()
    if answered:
        assert "connected\n" in said
    else:
        assert said == ["not connected: User timeout caused connection failure: the peer did not answer.\n"]
