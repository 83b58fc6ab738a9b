"""Programs of others over uTP move real data, prove that it went over uTP, and end as they should.

The command lines are those of ``docs/howto/programs.md``, on free ports.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.programs.support import HOST, Installed, sha256_of, some_file, tcp_ports, wait_until
from tests.project.test_readme import free_port

PAGE = (Path(__file__).resolve().parent.parent.parent / "docs" / "howto" / "programs.md").read_text(encoding="utf-8")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="programs are ended as POSIX systems do it"),
]


def shown(program: str, **changes: str) -> tuple[str, str]:
    """A command of the page, from its program on, and the options before it; with other ports, files and so on."""
    [(options, command)] = re.findall(rf"^python -m txutp\.rebinding (.*?)({program}(?: .*)?)$", PAGE, re.MULTILINE)
    for old, new in changes.items():
        old = old.removeprefix("p")
        options, command = options.replace(old, new), command.replace(old, new)
    return command, options


@pytest.fixture
def installed(tmp_path: Path) -> Callable[..., Installed]:
    """Installs packages into a fresh virtual environment."""
    return lambda *packages: Installed(tmp_path, *packages)


SPIDER = """
import hashlib, scrapy

class Spider(scrapy.Spider):
    name = "spider"

    def __init__(self, where):
        self.start_urls = [where]

    def parse(self, response):
        print("sha256", hashlib.sha256(response.body).hexdigest(), flush=True)
"""


def test_scrapy(installed: Any) -> None:
    """A spider fetches a page from Twisted's web server, which is given a string."""
    here = installed("scrapy")
    digest = some_file(here.place / "pages" / "page.bin")
    (here.place / "spider.py").write_text(SPIDER)
    port = free_port()
    with here.running(here.command(f"twist web --listen utp:{port}:interface={HOST} --path pages")) as server:
        server.until(f"starting on {port}")
        command, options = shown("scrapy", p8080=str(port))
        said = here.run(here.rebound(f"{command}page.bin", options))
        assert re.findall(r"sha256 (\w+)", said) == [digest]
        here.stop(server)
    assert here.reported("scrapy") == (0, 1)


def test_magic_wormhole(installed: Any) -> None:
    """Two clients meet at a mailbox server, and one sends the other a file."""
    here = installed("magic-wormhole", "magic-wormhole-mailbox-server")
    digest = some_file(here.place / "file.bin")
    (here.place / "in").mkdir()
    port = free_port()
    with here.running(here.command(f"twist wormhole-mailbox --port=utp:{port}:interface={HOST}")) as mailbox:
        mailbox.until(f"starting on {port}")
        assert port not in tcp_ports()

        code = "7-left-right"
        send, _ = shown("wormhole .* send", p4000=str(port), send=f"send --hide-progress --code {code}")
        receive, _ = shown("wormhole .* receive", p4000=str(port), receive="receive --hide-progress --accept-file")
        with here.running(here.rebound(send)) as sender:
            here.run(here.rebound(f"{receive} {code}"), here.place / "in")
            sender.end()
        here.stop(mailbox)
    assert sha256_of(here.place / "in" / "file.bin") == digest
    accepted, made = here.reported("wormhole")
    # Both went to the mailbox, and one of them to the other one.
    assert accepted >= 1
    assert made >= 3


@pytest.mark.clients
def test_tahoe(installed: Any) -> None:
    """A storage node finds its introducer, and keeps a file; its web interface stays on TCP."""
    here = installed("tahoe-lafs")
    digest = some_file(here.place / "file.bin")
    introducer, node, web = free_port(), free_port(), free_port()

    def listens(port: int) -> str:
        return f"--listen=tcp --port=tcp:{port}:interface={HOST} --location=tcp:{HOST}:{port}"

    here.run(here.command(f"tahoe create-introducer {listens(introducer)} introducer"))
    run, options = shown("tahoe", run="run --allow-stdin-close", p3456=str(web))
    with here.running(here.rebound(run.replace(" node", " introducer"))) as introducing:
        address = here.place / "introducer" / "private" / "introducer.furl"
        wait_until(address.exists, "the introducer")
        here.run(
            here.command(
                f"tahoe create-node {listens(node)} --introducer={address.read_text().strip()}"
                f" --webport=tcp:{web}:interface={HOST} --shares-needed=1 --shares-happy=1 --shares-total=1 node"
            )
        )
        with here.running(here.rebound(run, options)) as storing:
            status = here.place / "node" / "node.url"
            wait_until(lambda: status.exists() and web in tcp_ports(), "the node")
            assert tcp_ports().isdisjoint({introducer, node})
            url = f"http://{HOST}:{web}"
            ask = "curl --silent --fail --retry 60 --retry-all-errors --retry-delay 1"
            capability = here.run(f"{ask} --upload-file file.bin {url}/uri").strip()
            here.run(f"{ask} --output copy.bin {url}/uri/{capability}")
            here.stop(storing)
        here.stop(introducing)
    assert sha256_of(here.place / "copy.bin") == digest
    accepted, made = here.reported("tahoe")
    assert min(accepted, made) >= 2


@pytest.mark.clients
def test_deluge(installed: Any) -> None:
    """The console speaks to the daemon, over TLS: sets a value, asks for it, and ends the daemon."""
    # Deluge 2.2 uses what newer versions of pyOpenSSL have not.
    here = installed("deluge", "libtorrent", "pyopenssl<25", "service-identity<25")
    (here.place / "state").mkdir()
    port = free_port()
    serve, _ = shown("deluged", p58846=str(port))
    ask, _ = shown("deluge-console", p58846=str(port))
    with here.running(here.rebound(f"{serve} -c state")) as daemon:
        known = here.place / "state" / "auth"
        wait_until(lambda: known.exists() and known.read_text().strip(), "the daemon")
        user, password, *_ = known.read_text().split(":")
        secret = os.urandom(500_000).hex()[:100_000]

        def console(command: str) -> str:
            return here.run(here.rebound(f"{ask} -c state -U {user} -P {password} '{command}'"))

        assert port not in tcp_ports()
        console(f"config -s download_location {secret}")
        assert secret in re.sub(r"\s", "", console("config download_location"))
        console("halt")
        daemon.end()
    assert here.reported("deluged")[0] == here.reported("deluge-console")[1] == 3


MASTER = """
from buildbot.plugins import schedulers, steps, util, worker

factory = util.BuildFactory()
factory.addStep(steps.FileUpload(workersrc="up.bin", masterdest="up.copy"))
factory.addStep(steps.FileDownload(mastersrc="up.copy", workerdest="down.copy"))
BuildmasterConfig = {
    "workers": [worker.Worker("w", "secret")],
    "protocols": {"pb": {"port": "tcp:port=PORT:interface=127.0.0.1"}},
    "builders": [util.BuilderConfig(name="b", workernames=["w"], factory=factory)],
    "schedulers": [schedulers.Periodic(name="p", builderNames=["b"], periodicBuildTimer=3600)],
    "buildbotURL": "http://127.0.0.1:8010/",
    "db": {"db_url": "sqlite:///state.sqlite"},
    "buildbotNetUsageData": None,
}
"""


@pytest.mark.clients
def test_buildbot(installed: Any) -> None:
    """A daemonised master and worker, from their unchanged configurations: a build moves a file up and down."""
    here = installed("buildbot", "buildbot-worker")
    port = free_port()
    here.run(here.command("buildbot create-master master"))
    (here.place / "master" / "master.cfg").write_text(MASTER.replace("PORT", str(port)))
    here.run(here.command(f"buildbot-worker create-worker worker {HOST}:{port} w secret"))
    digest = some_file(here.place / "worker" / "b" / "build" / "up.bin")
    try:
        here.run(here.rebound(*shown("buildbot")))
        assert port not in tcp_ports()
        here.run(here.rebound(*shown("buildbot-worker")))
        copy = here.place / "worker" / "b" / "build" / "down.copy"
        wait_until(lambda: copy.exists() and sha256_of(copy) == digest, "the build")
    finally:
        here.run(here.command("buildbot-worker stop worker"))
        here.run(here.command("buildbot stop master"))
    assert sha256_of(here.place / "master" / "up.copy") == digest
    assert here.reported("-c")[0] == here.reported("buildbot-worker")[1] == 1
