"""The benchmarks run and print their tables.  How fast anything is, is not tested here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

if os.name == "nt":
    pytest.skip("the benchmarks ask the system as POSIX systems are asked", allow_module_level=True)
pytest.importorskip("click")
pytest.importorskip("rich")

from benchmarks import (
    buffers,
    commands,
    compare,
    crowds,
    handshakes,
    idle,
    limit,
    loss,
    pingpong,
    profile,
    rates,
    stock,
    streams,
    workers,
)
from benchmarks.catalogue import PARTS, chosen
from benchmarks.network import Network, Routed, why_no_namespaces
from benchmarks.parts import QUICK, Column, Part, Results, Row, Values, measure_round
from benchmarks.peers import end, why_not
from benchmarks.processes import Failed, Host, worker
from benchmarks.support import ROOT, figure, markdown, spread
from tests.pages import Page
from txutp.workers import why_no_steering

TINY = replace(
    QUICK,
    stream_bytes=2 << 20,
    rate_seconds=0.1,
    rates_megabits=(100,),
    loss_bytes=4 << 20,  # of 2,800 packets some are lost for sure
    visits=20,
    visits_at_once=(4,),
    messages=20,
    crowds=(3,),
    crowd_seconds=0.1,
    idle_connections=60,
    idle_crowd=60,
    idle_seconds=0.6,
)


def measured(part: Part, *keys: str) -> dict[str, Values]:
    """One round of some rows of a part, tiny; all must come to their ends."""
    if reason := part.why_not():
        pytest.skip(reason)
    with part.opened(TINY) as rows:
        here = [row for row in rows if (row.key in keys or not keys) and not row.why_not]
        results = Results(part)
        assert list(measure_round(here, results, 0)) == here
    assert results.remarks == []
    table = results.table()
    assert all(row.label in table for row in here)
    return {key: values[0] for key, values in results.rounds.items() if values[0] is not None}


def needs(kind: str) -> None:
    if reason := why_not(kind):
        pytest.skip(reason)


def command(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``python -m benchmarks``."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    if path is not None:
        environment["PATH"] = path
    program = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def cells(output: str) -> list[list[str]]:
    """The rows of the Markdown table in it."""
    lines = [line for line in output.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


# Numbers and tables


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (3.0, "3"), (1213.4, "1213"), (145.4, "145"), (27.72, "27.7"), (6.104, "6.10"), (0.583, "0.58")],
)
def test_figure(value: float, text: str) -> None:
    """A number has the digits that are worth reading."""
    assert figure(value) == text


def test_spread() -> None:
    """The median with the range; a single value has none.  The digits may be chosen."""
    assert spread([3, 1, 2.5]) == "2.50 [1-3]"
    assert spread([7]) == "7"
    assert spread([1.25, 2.25], 1) == "1.8 [1.2-2.2]"


def test_markdown() -> None:
    assert markdown(["", "x"], [["a", "1"]]) == "|  | x |\n| --- | ---: |\n| a | 1 |"


def scripted(name: str, group: str, *rounds: Values | None) -> Row:
    """A row that gives these values, one after the other; None fails."""
    left = iter(rounds)

    def measure(code: Path) -> Values:
        values = next(left)
        if values is None:
            raise Failed("it did not want to")
        return values

    return Row(name, f"{group} {name}", measure, group=group, ours=name == "ours")


SPEED = (Column("speed", "speed", drawn=True), Column("times", "speed", against="theirs"), Column("none", "nothing"))


def filled(rows: list[Row], rounds: int) -> Results:
    results = Results(Part("part", "A part", SPEED, lambda sizes: pytest.fail("not opened")))
    for number in range(rounds):
        list(measure_round(rows, results, number))
    results.rows.sort(key=rows.index)
    return results


def test_ratios_are_taken_within_a_round_and_a_group() -> None:
    """When the machine halves its speed between two rounds, ratios stay."""
    fast, slow = {"speed": 100.0}, {"speed": 50.0}
    rows = [
        scripted("ours", "a", {"speed": 200.0}, {"speed": 100.0}),
        scripted("theirs", "a", fast, slow),
        scripted("ours", "b", {"speed": 5.0}, {"speed": 5.0}),
        scripted("theirs", "b", {"speed": 10.0}, {"speed": 10.0}),
    ]

    header, _, *lines = cells(filled(rows, 2).table())

    assert header == ["", "speed", "times"]  # nobody has anything for the third column
    assert lines[0] == ["a ours", "150 [100-200]", "2 [2-2]"]
    assert lines[2] == ["b ours", "5 [5-5]", "0.50 [0.50-0.50]"]


def test_a_column_may_choose_what_each_row_is_compared_to() -> None:
    """Of those that have nothing to be compared to, there is no number."""
    column = Column("kept", "speed", against=lambda name: name.replace("small", "large") if "small" in name else "")
    results = Results(Part("part", "", (column,), lambda sizes: pytest.fail("not opened")))
    speeds = {"one-small": 1.0, "one-large": 4.0, "two-small": 3.0, "two-large": 2.0}
    rows = [scripted(name, "a", {"speed": speed}) for name, speed in speeds.items()]

    assert list(measure_round(rows, results, 0)) == rows

    assert [results.of(row, column) for row in rows] == [[0.25], [], [1.5], []]


def test_failures_are_told_and_left_out() -> None:
    """A round that failed has no value and no ratio; a line says so once."""
    rows = [scripted("ours", "", {"speed": 8.0}, None, None), scripted("theirs", "", *[{"speed": 4.0}] * 3)]

    results = filled(rows, 3)

    _, _, ours, theirs = cells(results.table())
    assert ours == ["ours", "8", "2"]
    assert theirs[1] == "4 [4-4]"
    assert results.remarks == [" ours failed: it did not want to"]
    assert results.table().count("failed") == 1


def test_every_other_round_goes_backwards() -> None:
    """What drifts during a round meets both sides alike."""
    rows = [scripted("ours", "", *[{}] * 2), scripted("theirs", "", *[{}] * 2)]
    results = Results(Part("part", "", (), lambda sizes: pytest.fail("not opened")))

    names = [[row.name for row in measure_round(rows, results, number)] for number in range(2)]

    assert names == [["ours", "theirs"], ["theirs", "ours"]]


def test_charts(tmp_path: Path) -> None:
    """A picture for what has numbers."""
    pytest.importorskip("matplotlib")
    from benchmarks.charts import draw

    full, empty = (filled([scripted("ours", "", values)], 1) for values in ({"speed": 3.0}, {}))

    assert draw(tmp_path, [full, empty]) == [tmp_path / "part.png"]
    assert (tmp_path / "part.png").read_bytes().startswith(b"\x89PNG")


def test_names_of_parts() -> None:
    assert [part.name for part in chosen(("streams-*", "loss"))] == ["streams-loopback", "streams-veth", "loss"]
    assert chosen(()) == list(PARTS.values())
    assert chosen(("nothing",)) == []


# Processes


def test_last_words_of_a_worker() -> None:
    """A worker that fails ends the measurement with the last line of its errors; so does one that says no JSON."""
    with (
        worker([sys.executable, "-c", "raise ValueError('no luck')"]) as failing,
        pytest.raises(Failed, match="no luck"),
    ):
        failing.line()
    with worker([sys.executable, "-c", "print('hello')"]) as talking, pytest.raises(Failed, match="hello"):
        talking.line()


def test_a_worker_that_hangs() -> None:
    with (
        worker([sys.executable, "-c", "import time; time.sleep(60)"], limit_seconds=0.2) as hanging,
        pytest.raises(Failed, match="without a word"),
    ):
        hanging.line()


def test_an_error_in_the_reactor_ends_an_end() -> None:
    """Twisted would log it and go on, and the measurement would wait for nothing."""
    with (
        end("utp", "pingpong", "play", Host("127.0.0.1"), port=9, bytes=1, count=None) as player,
        pytest.raises(Failed),
    ):
        player.line()


# The parts, each as small as it can be


@pytest.mark.parametrize("key", ["utp", "utp-no-offload", "utp-listen-udp", "tcp"])
def test_stream(key: str) -> None:
    """A rate, and CPU time of both sides."""
    values = measured(streams.LOOPBACK, key)[key]
    assert values["megabytes_per_second"] > 0
    assert values["sender_cpu_seconds_per_gigabyte"] > 0
    assert values["receiver_cpu_seconds_per_gigabyte"] > 0
    assert ("payload_bytes_of_packet" in values) == (key != "tcp")


@pytest.mark.skipif(bool(commands.why_not()), reason=commands.why_not())
def test_commands() -> None:
    """Each moves all bytes, and tells what it used."""
    values = measured(commands.PART, *commands.COMMANDS)
    assert values.keys() == commands.COMMANDS.keys()
    for each in values.values():
        assert each["megabytes_per_second"] > 0
        assert 10 < each["sender_resident_mebibytes"] < 200


@pytest.mark.skipif(bool(commands.why_not()), reason=commands.why_not())
def test_the_memory_of_commands_does_not_grow_with_what_they_move() -> None:
    """Sixteen times as much takes a few megabytes more at most; windows and buffers grow at the beginning."""
    for measure in commands.COMMANDS.values():
        little, much = (measure(Network(), total_bytes, ROOT) for total_bytes in (4 << 20, 64 << 20))
        for name in ("sender_resident_mebibytes", "receiver_resident_mebibytes"):
            if name in much:
                assert much[name] < little[name] + 12, (measure, name)


@pytest.mark.skipif(bool(commands.why_not()), reason=commands.why_not())
def test_a_command_that_ends_badly_is_a_failure() -> None:
    """With its last words."""
    command = commands.Command(ROOT, "cat", "127.0.0.1", "no-port")
    with pytest.raises(Failed, match="port"):
        command.ended(0)
    with pytest.raises(Failed, match=r"192\.0\.2\.1"):
        commands.Command(ROOT, "cat", "-l", "utp:0:interface=192.0.2.1").port()


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("utp-native", "utp-native"),
        ("utp-native", "utp-to-utp-native"),
        ("utp-native", "utp-native-to-utp"),
        ("libtorrent", "libtorrent"),
        ("aioquic", "aioquic"),
    ],
)
def test_stream_with_others(kind: str, key: str) -> None:
    needs(kind)
    assert measured(streams.LOOPBACK, key)[key]["megabytes_per_second"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="runs of datagrams need Linux")
def test_limit() -> None:
    measured_rows = measured(streams.LOOPBACK, *limit.KINDS)
    assert measured_rows.keys() == limit.KINDS.keys()
    assert all(values["megabytes_per_second"] > 0 for values in measured_rows.values())


@pytest.mark.skipif(bool(why_no_steering()), reason=why_no_steering())
def test_workers() -> None:
    """One process on a port, and two if there are cores; the kernel steers every datagram to the right one."""
    for part, metric in (
        (workers.STREAMS, "megabytes_per_second"),
        (workers.HANDSHAKES, "per_second"),
    ):
        values = measured(part, "utp/1", "tcp/1")
        assert values.keys() == {"utp/1", "tcp/1"}
        assert all(each[metric] > 0 and each[f"with_cores_{metric}"] > 0 for each in values.values())
    steered = measured(workers.STEERING, "2", "7", "64")
    assert [each["datagrams"] for each in steered.values()] == [2_000] * 3
    assert {each["wrong"] for each in steered.values()} == {0}
    assert "too few to tell" in workers.too_few_cores(10_000)


def test_idle_crowd() -> None:
    values = measured(idle.CROWD, "crowd")["crowd"]
    assert values["resident_kib"] > 0
    assert values["cpu_percent"] >= 0


def test_stream_between_namespaces() -> None:
    """Datagrams have the size of the path; bursts go to the kernel in one call."""
    values = measured(streams.VETH, "utp", "tcp")["utp"]
    assert 1_000 < values["payload_bytes_of_packet"] <= 1_472
    assert values["datagrams_per_send_call"] > 1


def test_rates() -> None:
    """A rate is a limit: more than that arrives only out of the bucket."""
    values = measured(rates.PART, "100/utp", "100/tcp")
    assert all(0 < each["percent_of_rate"] < 110 for each in values.values())


def test_loss() -> None:
    """With one packet of a hundred lost, some are sent again."""
    assert measured(loss.PART, "utp", "tcp")["utp"]["sent_again_percent"] > 0


def test_loss_takes_one_of_so_many() -> None:
    """Half of the datagrams, if told so."""
    if reason := loss.why_not():
        pytest.skip(reason)
    with Routed() as network:
        network.lose(2)
        # a busy machine takes its time to start the sender, and to read
        receive = "import socket as s; u = s.socket(2, 2); u.setsockopt(s.SOL_SOCKET, s.SO_RCVBUF, 1 << 20); "
        receive += "u.bind(('{}', 9999)); print(1, flush=True); u.settimeout(30)\nn = 0\n"
        receive += "try:\n    while True: u.recv(9); n += 1; u.settimeout(2)\nexcept TimeoutError: print(n)"
        send = "import socket as s; u = s.socket(2, 2); [u.sendto(b'x', ('{}', 9999)) for _ in range(1000)]"
        address = network.receiver.address
        with worker(network.receiver.command(sys.executable, "-c", receive.format(address))) as receiver:
            receiver.line()
            subprocess.run(network.sender.command(sys.executable, "-c", send.format(address)), check=True)
            assert 300 < int(str(receiver.line())) < 700


def test_buffers() -> None:
    """Each row has the buffer that it is about, and what the kernel dropped."""
    values = measured(buffers.LOOPBACK, "utp/large", "utp/stock", "utp/unasked")
    granted = [values[f"utp/{name}"]["granted_receive_bytes"] for name in ("unasked", "stock", "large")]
    assert granted == sorted(granted)
    assert granted[1] == 2 * (212_992 + 1)
    assert all("dropped_datagrams" in each for each in values.values())


@pytest.mark.parametrize("peer", stock.PEERS)
def test_stock_peers(peer: str) -> None:
    """Each row has the receive buffer that it is about, and each way to send to the peer comes to its end."""
    other, _, sizes_of_buffers = stock.PEERS[peer]
    needs(peer)
    needs(other)
    if reason := stock.why_no_seed(peer):
        pytest.skip(reason)
    names = [f"{name}-{buffers}" for buffers in sizes_of_buffers for name in (*stock.CONTROLLERS, stock.OTHER)]

    values = measured(stock.LOOPBACK, *(f"{peer}/{name}" for name in names))

    assert list(values) == [f"{peer}/{name}" for name in names]
    default = int(Path("/proc/sys/net/core/rmem_default").read_text())
    for key, each in values.items():
        if peer != "qbittorrent":  # which does not tell
            granted = each["granted_receive_bytes"]
            assert granted == default if key.endswith("stock") else granted > default
        assert each["megabytes_per_second"] > 0
        assert ("sent_again_percent" in each) == (stock.OTHER not in key)


def test_an_unknown_controller() -> None:
    """The name is used, so a wrong one ends the sender with the words of txutp."""
    with (
        end("utp", "stream", "send", Host("127.0.0.1"), port=9, bytes=1, congestion="nonsense") as sender,
        pytest.raises(Failed, match="congestion is one of"),
    ):
        sender.line()


def test_handshakes() -> None:
    values = measured(handshakes.PART)
    assert {"4/utp", "4/utp-connect", "4/tcp", "4/tcp-connect"} <= values.keys()
    assert all(each["per_second"] > 0 and each["client_cpu_microseconds"] > 0 for each in values.values())


def test_pingpong() -> None:
    values = measured(pingpong.PART)
    assert {"1/utp", "1/tcp", "1000/utp", "1000/tcp"} <= values.keys()
    assert all(0 < each["p50_us"] <= each["p99_us"] for each in values.values())


def test_crowds() -> None:
    """All streams count, and the fairness of one is perfect."""
    values = measured(crowds.PART)
    assert values["utp/1"]["jain"] == values["tcp/1"]["jain"] == 1
    assert 1 / 3 <= values["utp/3"]["jain"] <= 1
    assert "sent_again_percent" in values["utp/3"]


def test_idle() -> None:
    """Idle connections are none of the streams that are counted."""
    values = measured(idle.BESIDE)
    assert values["idle"]["jain"] == 1
    assert values["idle"]["megabytes_per_second"] > 0


def test_memory() -> None:
    values = measured(idle.MEMORY)["memory"]
    assert 0.1 < values["objects_kib"] < 100


def test_network_is_gone_afterwards() -> None:
    """Also after an error."""
    if reason := why_no_namespaces():
        pytest.skip(reason)
    network = Routed()

    def fail() -> None:
        with network:
            assert set(network.names.values()) <= namespaces()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not set(network.names.values()) & namespaces()


def namespaces() -> set[str]:
    output = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in output.splitlines()}


# The command


def test_command(tmp_path: Path) -> None:
    """Tables on standard output, everything in files."""
    done = command("--quick", "--only", "memory", "--json", str(tmp_path / "one.json"), "--output", str(tmp_path))

    assert done.returncode == 0, done.stderr
    assert "KiB" in done.stdout
    assert platform.python_version() in done.stdout
    assert "Twisted" in done.stdout
    assert (tmp_path / "tables.md").read_text(encoding="utf-8").strip() == done.stdout.strip()
    numbers = json.loads((tmp_path / "one.json").read_text(encoding="utf-8"))
    assert numbers == json.loads((tmp_path / "numbers.json").read_text(encoding="utf-8"))
    assert len(numbers["parts"]["memory"]["memory"]) == numbers["rounds"] == 1


def test_command_without_node(tmp_path: Path) -> None:
    """Without Node.js there is no row for utp-native, and a word about it."""
    done = command("--quick", "--only", "pingpong", "--row", "1/*", path=str(tmp_path))

    _, _, *rows = cells(done.stdout)
    assert [row[0] for row in rows] == ["1 byte, txutp", "1 byte, Twisted TCP"]
    assert "Left out: no utp-native: it needs node" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--only", "nonsense"], "No part is called nonsense"),
        (["--only", "memory", "--row", "nonsense"], "No row is called nonsense"),
        (["compare", "nonsense"], "nonsense"),
    ],
)
def test_command_that_asks_for_nothing(arguments: list[str], words: str) -> None:
    done = command(*arguments)
    assert done.returncode
    assert words in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_that_is_interrupted(number: signal.Signals) -> None:
    """No namespace and no process is left."""
    if reason := why_no_namespaces():
        pytest.skip(reason)
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks", "--only", "rates"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: any(f"txutp{process.pid}n" in name for name in namespaces()))
        time.sleep(0.5)
        process.send_signal(number)
        assert process.wait(30)
    finally:
        process.kill()
        process.wait()
    assert not any(f"txutp{process.pid}n" in name for name in namespaces())


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Two commits


def test_compare_measures_each_row_with_both() -> None:
    """Only rows of ours; the second directory's code is the second column."""
    codes: list[Path] = []

    def measure(code: Path) -> Values:
        codes.append(code)
        return {"speed": 4.0 if code == Path("after") else 2.0}

    rows = [Row("ours", "ours", measure, ours=True), Row("theirs", "theirs", measure)]
    pairs = compare.in_turns(rows, Path("before"), Path("after"))
    text = compare.table(filled(pairs, 2), ("old", None))

    assert codes == [Path("before"), Path("after"), Path("after"), Path("before")]
    header, _, *lines = cells(text)
    assert header == ["", "old", "the working tree", "ratio"]
    assert lines == [["ours: speed", "2 [2-2]", "4 [4-4]", "2 [2-2]"]]


def test_compare_without_git_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failed, match=r"git, which has the code of HEAD, is missing"), compare.code_of("HEAD"):
        pass


def test_compare_with_a_commit() -> None:
    """The code of a commit is what is imported, with the programs of this checkout."""
    try:
        with compare.code_of("HEAD") as code:
            assert (code / "txutp" / "__init__.py").exists()
            assert (code / "benchmarks").resolve() == ROOT / "benchmarks"
            program = "import json, txutp, benchmarks.ends.talk; print(json.dumps({'file': txutp.__file__}))"
            with worker([sys.executable, "-c", program], code) as asked:
                assert Path(asked.line()["file"]).is_relative_to(code)
    except Failed as problem:
        pytest.skip(f"not a git checkout: {problem}")
    assert not code.exists()


@pytest.mark.parametrize("has_programs", [True, False])
def test_a_commit_that_todays_programs_do_not_fit_is_measured_by_its_own(
    has_programs: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A module has moved since then; without programs of its own the rows fail, and say what is missing."""

    def commit(files: dict[str, str]) -> None:
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "more"]):
            subprocess.run([*git, *words], cwd=tmp_path, check=True)

    if not shutil.which("git"):
        pytest.skip("git is missing")
    program = "benchmarks/ends/stream.py"
    commit({"txutp/__init__.py": "", "txutp/udp.py": "", "twisted/plugins/a.py": ""})
    if has_programs:
        commit({"benchmarks/ends/__init__.py": "", program: "import txutp.udp"})
    (tmp_path / "txutp/udp.py").unlink()
    commit({"txutp/udp/ports.py": "", "benchmarks/ends/__init__.py": "", program: "import txutp.udp.ports"})
    monkeypatch.setattr(compare, "ROOT", tmp_path)

    commits = ("HEAD~1", "HEAD")
    with ExitStack() as stack:
        codes = [stack.enter_context(compare.code_of(name)) for name in commits]
        old, new = [(code / program).read_text() for code in codes]
        about = compare.remarks(codes, commits)

    assert new == "import txutp.udp.ports"
    assert old == ("import txutp.udp" if has_programs else new)
    assert [remark.split()[0] for remark in about] == (["HEAD~1"] if has_programs else [])


def test_loopback_needs_nothing() -> None:
    """It is just there, and may have the traffic of others."""
    with Network() as network:
        assert network.sender == network.receiver == Host("127.0.0.1")
        assert network.dropped_datagrams() is None


def test_the_profile_tells_places_of_both_ends_and_of_a_message() -> None:
    text = profile.tables(TINY)

    stream_text, messages_text = text.split("\n\n")
    for place in ("the kernel: sendmsg", "txutp/core/connection.py", "Twisted", "**all**"):
        assert f"| {place} |" in stream_text
        assert f"| {place} |" in messages_text
    assert stream_text.startswith("| us per MB | sender | receiver |")
    assert messages_text.startswith("| us per message | who asks |")


def test_an_end_that_ends_badly_under_the_profiler_is_a_failure(tmp_path: Path) -> None:
    with (
        profile.profiled(Host("127.0.0.1"), tmp_path / "file", "pingpong", "play", port=1) as player,
        pytest.raises(Failed),
    ):
        player.finish()


NOTEBOOK = Page("notebook/performance")
SMALLER = {
    "python -m benchmarks --output results": ["--quick", "--only", "pingpong", "--row", "1/utp"],
    "python -m benchmarks --only streams-veth": ["--quick", "--row", "utp"],
    "python -m benchmarks.profile": [],
    "setarch -R python -m benchmarks --only pingpong": ["--quick", "--row", "1/utp"],
}


def test_every_block_of_the_pages_is_run_here() -> None:
    pages = (NOTEBOOK, Page("explanation/comparison"))
    assert {block.language for page in pages for block in page.blocks} == {"sh"}
    assert {command for page in pages for command in page.commands} == set(SMALLER)


@pytest.mark.slow
@pytest.mark.parametrize("command", SMALLER)
def test_the_commands_of_the_page(command: str, tmp_path: Path) -> None:
    words = [sys.executable if word == "python" else word for word in command.split()]
    if shutil.which(words[0]) is None:
        pytest.skip(f"there is no {words[0]}")
    if "streams-veth" in words and why_no_namespaces():
        pytest.skip(str(why_no_namespaces()))
    done = subprocess.run(
        words + SMALLER[command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "| ---: |" in done.stdout
