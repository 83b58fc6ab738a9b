"""``txutp send`` and ``txutp receive``: files that arrive as they were, resume, and never land outside of a folder."""

from __future__ import annotations

import fcntl
import hashlib
import json
import ntpath
import os
import posixpath
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.cli.support import ROOT, TIMEOUT_SECONDS, Running, environment, run
from txutp.cli.files.progress import Progress
from txutp.cli.files.screen import checksum_line, time_left
from txutp.cli.files.wire import MAXIMUM_OFFERS, name_problem, shown
from txutp.cli.output import (
    EXIT_DIFFERENT,
    EXIT_INTERRUPTED,
    EXIT_LOST,
    EXIT_NOT_STORED,
    EXIT_TIMED_OUT,
    EXIT_UNCONNECTED,
    EXIT_UNREADABLE,
)

pytestmark = pytest.mark.skipif(os.name == "nt", reason="txutp receive needs POSIX")

NOTHING = hashlib.sha256().hexdigest()
PATTERN = "*.txutp-part"


def receiver(place: Path, folder: Path, *options: str, listen: str = "utp:0:interface=127.0.0.1") -> Running:
    """Returns a receiver that puts files into a folder, which is made."""
    folder.mkdir(exist_ok=True)
    return Running(place, "receive", "-l", listen, "-o", str(folder), *options, stdin=subprocess.DEVNULL)


def bytes_of(size_bytes: int, seed: int = 1) -> bytes:
    """Returns bytes that differ from one another."""
    return random.Random(seed).randbytes(size_bytes)


def checksum(data: bytes, name: str) -> str:
    """Returns the line of a file, as sha256sum prints it."""
    return f"{hashlib.sha256(data).hexdigest()}  {name}\n"


def everything_in(folder: Path) -> dict[str, bytes | None]:
    """Returns all that is in a folder by name: contents of files, None for all else, which may be a FIFO."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# Between two commands


def test_files_and_folders_arrive_as_they_are(tmp_path: Path) -> None:
    """Contents, odd names, empty files and folders, permissions and times; both sides print the same checksums."""
    source = tmp_path / "source"
    (source / "folder" / "deep" / "empty folder").mkdir(parents=True)
    contents = {"folder/deep/large": bytes_of(3_000_000), "folder/empty": b"", "folder/new\nline \\": b"x"}
    for name, data in contents.items():
        (source / name).write_bytes(data)
    not_utf8 = os.fsencode(source) + b"/folder/\xff\xfe"
    with open(not_utf8, "wb") as file:
        file.write(b"bytes")
    (source / "folder" / "link").symlink_to("/etc/passwd")
    (source / "alone").write_bytes(b"alone")
    (source / "alone").chmod(0o751)
    os.utime(source / "alone", ns=(1_000_000_007, 1_234_567_890_123_456_789))
    os.mkfifo(source / "folder" / "fifo")
    there = tmp_path / "there"

    with receiver(tmp_path, there) as receiving:
        words = ["send", str(source / "folder"), str(source / "alone"), "127.0.0.1", receiving.port()]
        with Running(tmp_path, *words, stdin=subprocess.DEVNULL) as sending:
            sent = sending.end(None)
        code, printed = receiving.end(None)

    assert (sent[0], code) == (0, 0), (sending.said, receiving.said)
    expected = contents | {"alone": b"alone", os.fsdecode(b"folder/\xff\xfe"): b"bytes"}
    folders = {"folder": None, "folder/deep": None, "folder/deep/empty folder": None}
    assert everything_in(there) == expected | folders
    assert sorted(printed.splitlines()) == sorted(sent[1].splitlines())
    assert checksum(contents["folder/deep/large"], "folder/deep/large").encode() in printed
    status = (there / "alone").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o751 & ~_umask(), 1_234_567_890_123_456_789)
    assert "link is not sent: it is a symbolic link." in sending.said
    assert "fifo is not sent: it is not a regular file." in sending.said
    checked = subprocess.run(["sha256sum", "-c", "--quiet"], input=printed, cwd=there, check=False)
    assert checked.returncode == 0


def _umask() -> int:
    umask = os.umask(0o022)
    os.umask(umask)
    return umask


@pytest.mark.parametrize("killed", ["sender", "receiver"])
def test_a_transfer_goes_on_after_either_side_is_killed(tmp_path: Path, killed: str) -> None:
    """What has come is kept under another name, and is not sent again."""
    size_bytes = 150_000_000
    source, there = tmp_path / "large", tmp_path / "there"
    source.write_bytes(bytes_of(1_000_000) * (size_bytes // 1_000_000))
    listen = f"utp:{free_port()}:interface=127.0.0.1"
    sending = ["send", "--json", "-q", str(source), listen.replace(":", ":127.0.0.1:", 1).rpartition(":")[0]]
    with receiver(tmp_path, there, listen=listen) as receiving:
        receiving.port()
        with Running(tmp_path, *sending) as first:
            part = wait_for_part(there, 20_000_000)
            (receiving if killed == "receiver" else first).process.send_signal(signal.SIGKILL)
            if killed == "receiver":
                receiving.process.wait()
                with receiver(tmp_path, there, listen=listen) as again:
                    code, printed = first.end(None)
                    assert again.process.wait(TIMEOUT_SECONDS) == 0
            else:
                first.process.wait()
                assert not (there / "large").exists()
                with Running(tmp_path, *sending) as second:
                    code, printed = second.end(None)
                assert receiving.process.wait(TIMEOUT_SECONDS) == 0

    told = json.loads(printed)
    assert code == 0
    [file] = told["files"]
    assert (file["result"], file["bytes"]) == ("stored", size_bytes)
    if killed == "sender":
        assert told["bytes_moved"] < size_bytes - 19_000_000
    assert file["sha256"] == hashlib.sha256((there / "large").read_bytes()).hexdigest()
    assert hashlib.sha256(source.read_bytes()).hexdigest() == file["sha256"]
    assert not part.exists()


def free_port() -> int:
    """Returns a UDP port that nothing has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_part(folder: Path, size_bytes: int) -> Path:
    """Wait until a file that is not complete has so much; returns it."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        for part in folder.glob("." + PATTERN):
            with suppress(FileNotFoundError):
                if part.stat().st_size >= size_bytes:
                    return part
        time.sleep(0.01)
    raise AssertionError("nothing comes")


def test_a_beginning_that_differs_is_sent_anew(tmp_path: Path) -> None:
    """A file that was changed between two attempts is not mixed of both."""
    source, there = tmp_path / "file", tmp_path / "there"
    there.mkdir()
    data = bytes_of(1_000_000)
    source.write_bytes(data)
    digits = hashlib.sha256(b"file").hexdigest()[:24]
    (there / f".{digits}.txutp-part").write_bytes(b"another beginning")

    with receiver(tmp_path, there) as receiving:
        done = run("send", str(source), "127.0.0.1", receiving.port())

    assert (done.returncode, everything_in(there)) == (0, {"file": data})


def test_a_file_that_is_there_stays_unless_it_may_be_replaced(tmp_path: Path) -> None:
    """The same file is no problem; another one is, for this file alone."""
    there = tmp_path / "there"
    there.mkdir()
    for name, ours, theirs in (("same", b"1", b"1"), ("longer", b"2", b"22"), ("other", b"3", b"4")):
        (tmp_path / name).write_bytes(ours)
        (there / name).write_bytes(theirs)
    (tmp_path / "new").write_bytes(b"5")
    files = [str(tmp_path / name) for name in ("same", "longer", "other", "new")]

    with receiver(tmp_path, there) as receiving:
        done = run("send", *files, "127.0.0.1", receiving.port())
        assert receiving.process.wait(TIMEOUT_SECONDS) == EXIT_NOT_STORED
    assert done.returncode == EXIT_NOT_STORED
    assert everything_in(there) == {"same": b"1", "longer": b"22", "other": b"4", "new": b"5"}
    assert "other was not stored: another file of this name is there." in done.stderr
    assert done.stdout == checksum(b"1", "same") + checksum(b"5", "new")

    with receiver(tmp_path, there, "--overwrite") as receiving:
        assert run("send", *files, "127.0.0.1", receiving.port()).returncode == 0
    assert everything_in(there) == {"same": b"1", "longer": b"2", "other": b"3", "new": b"5"}


def test_several_senders_at_once_and_one_after_the_other(tmp_path: Path) -> None:
    """With ``-k`` the receiver stays; an interrupt ends it."""
    there = tmp_path / "there"
    data = [bytes_of(5_000_000, seed) for seed in range(3)]
    for number, content in enumerate(data):
        (tmp_path / f"file{number}").write_bytes(content)
    with receiver(tmp_path, there, "-k") as receiving:
        port = receiving.port()
        with (
            Running(tmp_path, "send", str(tmp_path / "file0"), "127.0.0.1", port) as first,
            Running(tmp_path, "send", str(tmp_path / "file1"), "127.0.0.1", port) as second,
        ):
            assert [sending.end(None)[0] for sending in (first, second)] == [0, 0]
        assert run("send", str(tmp_path / "file2"), "127.0.0.1", port).returncode == 0
        receiving.process.send_signal(signal.SIGINT)
        assert receiving.process.wait(TIMEOUT_SECONDS) == EXIT_INTERRUPTED
    assert everything_in(there) == {f"file{number}": content for number, content in enumerate(data)}
    assert receiving.said.count("1 file of 127.0.0.1:") == 3


def test_a_disk_that_is_full_is_told_to_both(tmp_path: Path) -> None:
    """Early where the file system says how much is free; later where a limit is met while writing."""
    there = tmp_path / "there"
    (tmp_path / "small").write_bytes(b"small")
    (tmp_path / "large").write_bytes(bytes(3_000_000))
    limited = (
        "import resource, runpy, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        " resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000));"
        " runpy.run_module('txutp', run_name='__main__', alter_sys=True)"
    )
    there.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", limited, "receive", "-l", "utp:0:interface=127.0.0.1", "-o", str(there)],
        cwd=ROOT, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr is not None
        port = process.stderr.readline().rpartition(":")[2].strip(".\n")
        done = run("send", str(tmp_path / "large"), str(tmp_path / "small"), "127.0.0.1", port)
        printed, said = process.communicate(timeout=TIMEOUT_SECONDS)
    assert (done.returncode, process.returncode) == (EXIT_NOT_STORED, EXIT_NOT_STORED)
    assert "large was not stored: File too large." in done.stderr
    assert "is not stored: File too large." in said
    assert printed == done.stdout == checksum(b"small", "small")
    assert (there / "small").read_bytes() == b"small"
    assert not (there / "large").exists()

    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 42)
    with receiver(tmp_path, there) as receiving:
        done = run("send", str(sparse), "127.0.0.1", receiving.port())
    assert done.returncode == EXIT_NOT_STORED
    assert "sparse was not stored: there is not enough room for it." in done.stderr


def test_files_that_cannot_be_read_or_change_do_not_arrive(tmp_path: Path) -> None:
    """The others do, and the exit code says that some did not."""
    there = tmp_path / "there"
    (tmp_path / "good").write_bytes(b"good")
    with receiver(tmp_path, there) as receiving:
        done = run("send", str(tmp_path / "missing"), str(tmp_path / "good"), "127.0.0.1", receiving.port())
    assert done.returncode == EXIT_UNREADABLE
    assert "missing is not sent: No such file or directory." in done.stderr
    done = run("send", str(tmp_path / "missing"), "127.0.0.1", "9")
    assert (done.returncode, done.stderr.count("\n")) == (EXIT_UNREADABLE, 1)

    growing = tmp_path / "growing"
    growing.write_bytes(bytes_of(20_000_000))
    with receiver(tmp_path, there) as receiving, growing.open("ab") as more:
        with Running(tmp_path, "send", str(growing), "127.0.0.1", receiving.port()) as sending:
            while sending.process.poll() is None:
                more.write(b"more")
                more.flush()
            assert sending.process.returncode == EXIT_UNREADABLE
        assert receiving.process.wait(TIMEOUT_SECONDS) == 0
    assert "growing changed while it was sent" in sending.said
    assert not (there / "growing").exists()
    assert (there / "good").read_bytes() == b"good"


def test_sentences(tmp_path: Path) -> None:
    """Wrong usage, and places where nothing answers."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_bytes(b"y")
    port = str(free_port())
    for arguments, code, words in (
        (["send", str(file), "127.0.0.1", port], EXIT_UNCONNECTED, "refused"),
        (["send", "127.0.0.1", port], 2, "say `txutp send FILE... HOST PORT`"),
        (["send", "/", "127.0.0.1", port], 2, "has no name"),
        (["send", str(file), str(tmp_path / "other" / "file"), "127.0.0.1", port], 2, "the same name there"),
        (["receive", "-l", "0", "-o", str(file)], 2, "is a file"),
        (["receive", "-l", "utp:0", "-6"], 2, "do not go with an endpoint string"),
        (["receive", "-l", "0", "-s", "127.0.0.1", "-w", "100ms"], EXIT_TIMED_OUT, "No sender came"),
    ):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert words in " ".join(done.stderr.replace("│", "").split())


# With an end that does not play by the rules, over TCP


class Line:
    """A socket that speaks lines of JSON."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT_SECONDS)
        self._file = sock.makefile("rwb")

    def say(self, *messages: Any, data: bytes = b"") -> None:
        """Send messages, then bytes."""
        for message in messages:
            self._file.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")
        self._file.write(data)
        self._file.flush()

    def hear(self) -> Any:
        """Returns the next message; None at the end."""
        line = self._file.readline()
        return json.loads(line) if line else None

    def read(self, size_bytes: int) -> bytes:
        """Returns bytes of a block."""
        return self._file.read(size_bytes)


HELLO = {"txutp-send": 1, "files": 1, "bytes": 10}


def offer(path: Any, number: int = 0, **more: Any) -> dict[str, Any]:
    """Returns an offer of one byte."""
    return {"offer": number, "path": path, "folder": False, "bytes": 1, "mode": 0o644, "modified_ns": 0} | more


@pytest.fixture(scope="module")
def listening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    """A receiver over TCP, and its folder."""
    place = tmp_path_factory.mktemp("receiver")
    with receiver(place, place / "there", "-k", listen="tcp:0:interface=127.0.0.1") as receiving:
        receiving.port()
        yield receiving, place / "there"


@pytest.fixture
def line(listening: tuple[Running, Path]) -> Iterator[Line]:
    """A connection to it."""
    with socket.create_connection(("127.0.0.1", int(listening[0].port()))) as sock:
        yield Line(sock)


NAMES = {
    "parent": [".."],
    "parent within": ["folder", "..", "..", "escaped"],
    "itself": ["."],
    "nothing": [""],
    "absolute": ["/escaped"],
    "path": ["folder/../../escaped"],
    "NUL": ["a\0b"],
    "too long": ["x" * 5_000],
    "not to be encoded": ["\ud800"],
    "one of ours": [".0.txutp-part"],
    "link": ["link", "escaped"],
    "link to a folder": ["outside", "escaped"],
    "dangling link": ["dangling"],
    "folder": ["a folder"],
    "below a file": ["a file", "escaped"],
    "FIFO": ["fifo"],
}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leads_out_of_the_folder(name: str, line: Line, listening: tuple[Running, Path]) -> None:
    """A name that is none is refused, and nothing is followed, opened or replaced."""
    there = listening[1]
    if not (there / "outside").is_symlink():
        (there / "outside").symlink_to(there.parent)
        (there / "link").symlink_to("..")
        (there / "dangling").symlink_to("../escaped")
        (there / "a folder").mkdir()
        (there / "a file").write_bytes(b"ours")
        os.mkfifo(there / "fifo")
    outside = set(there.parent.iterdir())

    line.say(HELLO)
    assert line.hear() == {"accepted": True}
    line.say(offer(NAMES[name]))
    answer = line.hear()
    assert answer["refused"] == 0, answer
    line.say(offer(["good"], 1), {"begin": 0, "at": 0}, {"block": 1}, data=b"x")
    while (answer := line.hear()).get("answer") != 1:
        assert "refused" in answer
    line.say({"end": 0, "sha256": hashlib.sha256(b"x").hexdigest()}, {"drop": 1, "why": ""})

    assert set(there.parent.iterdir()) == outside
    assert (there / "a file").read_bytes() == b"ours"
    links = {path.name for path in there.iterdir() if path.is_symlink()}
    assert links == {"outside", "link", "dangling"}


@pytest.mark.parametrize(
    "messages",
    [
        [b"no JSON\n"],
        [b"x" * 70_000],
        [[]],
        [{"txutp-perf": 1}],
        [HELLO | {"txutp-send": 2}],
        [HELLO | {"files": -1}],
        [HELLO, offer("string")],
        [HELLO, offer([])],
        [HELLO, offer([1])],
        [HELLO, offer(["x"] * 1_000)],
        [HELLO, offer(["x"], 7)],
        [HELLO, offer(["x"], bytes=-1)],
        [HELLO, offer(["x"], bytes=1e3)],
        [HELLO, offer(["x"], mode=0o4755)],
        [HELLO, offer(["x"], modified_ns="now")],
        [HELLO, {"begin": 0, "at": 0}],
        [HELLO, {"block": 0}],
        [HELLO, {"block": 1 << 30}],
        [HELLO, {"end": 0, "sha256": "x"}],
        [HELLO, *(offer([f"{number}"], number) for number in range(3 * MAXIMUM_OFFERS))],
    ],
)
def test_messages_that_make_no_sense_end_the_connection(messages: list[Any], line: Line) -> None:
    """With a sentence, and nothing else."""
    line.say(*messages)

    heard = []
    while (message := line.hear()) is not None:
        heard.append(message)
    assert isinstance(heard[-1]["error"], str), heard


def test_other_bytes_than_were_hashed_are_not_stored(line: Line, listening: tuple[Running, Path]) -> None:
    """Nor more than were offered."""
    there = listening[1]
    line.say(HELLO)
    assert line.hear() == {"accepted": True}
    line.say(offer(["wrong"]), offer(["long"], 1))
    assert line.hear() == {"answer": 0, "have": 0, "sha256": NOTHING}
    assert line.hear()["answer"] == 1
    line.say({"begin": 0, "at": 0}, {"block": 1}, data=b"x")
    line.say({"end": 0, "sha256": hashlib.sha256(b"y").hexdigest()})
    assert line.hear() == {"refused": 0, "reason": "different", "why": "what arrived is not what was sent"}
    line.say({"begin": 1, "at": 0}, {"block": 2}, data=b"xx")
    assert "more than was offered" in line.hear()["error"]
    assert line.hear() is None
    assert not {"wrong", "long"} & set(everything_in(there))


def test_two_transfers_do_not_write_one_file(line: Line, listening: tuple[Running, Path]) -> None:
    """Another process that has the lock, as another transfer would."""
    there = listening[1]
    part = there / f".{hashlib.sha256(b'locked').hexdigest()[:24]}.txutp-part"
    with part.open("wb") as holding:
        fcntl.flock(holding, fcntl.LOCK_EX)
        line.say(HELLO, offer(["locked"]))
        assert line.hear() == {"accepted": True}
        assert line.hear() == {"refused": 0, "reason": "busy", "why": "another transfer writes this file"}
    line.say(offer(["locked"], 1))
    assert line.hear()["answer"] == 1


def test_a_receiver_that_does_not_play_by_the_rules(tmp_path: Path) -> None:
    """The sender says so, and sends nothing that was not asked for."""
    (tmp_path / "file").write_bytes(b"secret")
    answers: list[tuple[list[Any], int]] = [
        ([{"error": "no \x1b[2J room"}], EXIT_LOST),
        ([b"SSH-2.0-OpenSSH\r\n"], EXIT_DIFFERENT),
        ([{"accepted": True}, {"answer": 7, "have": 0, "sha256": NOTHING}], EXIT_DIFFERENT),
        ([{"accepted": True}, {"stored": 0}], EXIT_DIFFERENT),
        ([{"accepted": True}, {"answer": 0, "have": 3, "sha256": "?"}], EXIT_DIFFERENT),
    ]
    for messages, code in answers:
        with socket.create_server(("127.0.0.1", 0)) as server:
            heard: list[Any] = []

            def serve(server: socket.socket, messages: list[Any], heard: list[Any]) -> None:
                sock, _ = server.accept()
                with sock:
                    line = Line(sock)
                    heard.append(line.hear())
                    line.say(messages[0])
                    if len(messages) > 1:
                        heard.append(line.hear())
                        line.say(*messages[1:])
                    with suppress(ConnectionResetError):  # the sender has heard enough
                        while line.hear() is not None:
                            pass

            serving = threading.Thread(target=serve, args=(server, messages, heard))
            serving.start()
            done = run("send", "--retry", "0s", str(tmp_path / "file"), f"tcp:127.0.0.1:{server.getsockname()[1]}")
            serving.join(TIMEOUT_SECONDS)
        assert done.returncode == code, done.stderr
        assert heard[0] == {"txutp-send": 1, "files": 1, "bytes": 6}
        assert "\x1b" not in done.stderr


# Parts


@pytest.mark.parametrize("name", ["a", "a b", "ü", "\udcff", "-rf", "~", "..."])
def test_ordinary_names(name: str) -> None:
    assert name_problem(name, posixpath) is None


@pytest.mark.parametrize(
    "name", ["C:", "C:\\x", "a\\b", "..\\x", "\\\\host\\share", "x:stream", "NUL", "com1.txt", "CON ", "x.", "a/b"]
)
def test_names_that_windows_takes_for_something_else(name: str) -> None:
    assert name_problem(name, ntpath) is not None


def test_terminals_are_not_spoken_to_by_names() -> None:
    assert shown(("a", "\x1b[2J\n\udcff")) == "a/\\x1b[2J\\n\\udcff"
    assert checksum_line(("a\nb",), "00") == b"\\00  a\\nb"


def test_progress_counts_what_is_done_and_how_fast() -> None:
    """What was there already takes no time; a break sends it back."""
    now = [0.0]
    progress = Progress(lambda: now[0])
    progress.expect(1_000)
    assert progress.left_seconds is None
    progress.begin(("a",), 600, 400)
    for _ in range(5):
        now[0] += 1
        progress.moved(40, 3.0)
    assert (progress.done_bytes, progress.moved_bytes) == (600, 200)
    assert progress.bytes_per_second == pytest.approx(40)
    assert progress.left_seconds == pytest.approx(10)
    progress.broke()
    assert progress.done_bytes == 0
    progress.begin(("a",), 600, 600)
    progress.settled(("a",), 600)
    progress.settled(("refused",), 400)
    assert (progress.done_bytes, progress.left_seconds) == (1_000, 0)


def test_times_to_go() -> None:
    assert [time_left(seconds) for seconds in (None, 0.4, 62, 3_723, 1e9)] == ["-", "0:00", "1:02", "1:02:03", "-"]
