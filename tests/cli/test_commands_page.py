"""``docs/reference/commands.md``: its commands run, every command is on it, exit codes are those of the code."""

from __future__ import annotations

import re
import shlex
import socket
import threading
from pathlib import Path

from tests.cli.support import ROOT, TIMEOUT_SECONDS, Running, run
from tests.cli.test_dump import conversation, write
from tests.project.test_examples import running, says
from tests.project.test_readme import free_port
from txutp.cli import main, output

PAGE = (ROOT / "docs" / "reference" / "commands.md").read_text(encoding="utf-8")
RECEIVE_FILES, SEND_FILES, RECEIVE, SEND, HERE, THERE, WEB, DUMP, BASH = (
    text.strip() for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)


def words(command: str, port: str, **changes: str) -> list[str]:
    """Returns the words of a command behind ``txutp``, with another port and without redirections."""
    text = re.sub(r" [<>] \S+", "", command).replace("6881", port)
    for old, new in changes.items():
        text = text.replace(old, new)
    return shlex.split(text)[1:]


def test_a_file_is_sent(tmp_path: Path) -> None:
    """The first two commands, with their redirections as pipes."""
    with (
        Running(tmp_path, *words(RECEIVE, "0")) as receiver,
        Running(tmp_path, *words(SEND, receiver.port())) as sender,
    ):
        received: list[tuple[int, bytes]] = []
        ending = threading.Thread(target=lambda: received.append(receiver.end(b"")))
        ending.start()
        assert sender.end(bytes(1_000_000)) == (0, b"")
        ending.join(TIMEOUT_SECONDS)

    assert received == [(0, bytes(1_000_000))]


def test_files_and_folders_are_sent(tmp_path: Path) -> None:
    """The two commands for files, in a place that has what they name."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one").write_bytes(b"1")
    (tmp_path / "debian.iso").write_bytes(b"2")
    (tmp_path / "inbox").mkdir()
    changes = {name: str(tmp_path / name) for name in ("photos", "debian.iso", "inbox")}
    with (
        Running(tmp_path, *words(RECEIVE_FILES, "0", **changes), "-s", "127.0.0.1") as receiver,
        Running(tmp_path, *words(SEND_FILES, receiver.port(), **changes)) as sender,
    ):
        # The sender prints them in the order of its words, and the receiver in the order in which they are stored.
        (sent_code, sent), (received_code, received) = sender.end(b""), receiver.end(b"")
        assert (sent_code, sorted(sent.splitlines())) == (received_code, sorted(received.splitlines()))
        assert sent_code == 0
        assert [line.split()[1] for line in sent.splitlines()] == [b"debian.iso", b"photos/one"]

    assert (tmp_path / "inbox" / "photos" / "one").read_bytes() == b"1"
    assert (tmp_path / "inbox" / "debian.iso").read_bytes() == b"2"


def test_connections_are_carried(tmp_path: Path) -> None:
    """The two commands in a row, in front of a TCP server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = str(server.getsockname()[1])
        there_words = [f"tcp:127.0.0.1:{number}" if word.startswith("tcp:") else word for word in words(THERE, "0")]
        with Running(tmp_path, *there_words) as there:
            here_words = [word.replace("2222", "0") for word in words(HERE, there.port())]
            with (
                Running(tmp_path, *here_words) as here,
                socket.create_connection(("127.0.0.1", int(here.port()))) as client,
            ):
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                stream, _ = server.accept()
                with stream:
                    stream.settimeout(TIMEOUT_SECONDS)
                    assert stream.recv(100) == b"question"
                    stream.sendall(b"answer")
                client.settimeout(TIMEOUT_SECONDS)
                assert client.recv(100) == b"answer"


def test_a_program_speaks_utp(tmp_path: Path) -> None:
    """The web server says that it starts, and serves over uTP."""
    (tmp_path / "page.html").write_text("served over uTP")
    port = str(free_port())
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with running(WEB.replace("8080", port), tmp_path) as web:
        web.until(f"starting on {port}")
        assert says(f"python examples/fetch.py http://127.0.0.1:{port}/page.html", tmp_path) == ["served over uTP"]


def test_a_capture_is_shown(tmp_path: Path) -> None:
    """The last command, on a capture of a simulated conversation."""
    datagrams, _ = conversation(("10.0.0.1", "10.0.0.2"), 3_000, 0.0)
    path = write(tmp_path / "capture.pcap", datagrams, "ethernet")

    done = run(*words(DUMP, "6881", **{"capture.pcap": str(path)}))

    assert done.returncode == 0
    assert "end: FIN" in done.stdout


def test_every_command_and_exit_code_is_there() -> None:
    """The tables have what the code has."""
    rows = "".join(re.findall(r"^\| (`txutp .*?) \|", PAGE, re.MULTILINE))
    shown = set(re.findall(r"`txutp (\w+)`", rows))
    assert shown == {name for name, command in main.commands.items() if not command.hidden}
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    assert codes == {0, 1, 2, *(value for name, value in vars(output).items() if name.startswith("EXIT_"))}
