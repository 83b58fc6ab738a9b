"""The package as a user gets it: built, installed in each way, used, and taken away again.

An endpoint string works only if the plugin lands where Twisted looks for it, and a wrong plugin
package can break every other plugin of Twisted; no other test would notice either.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.project.checkout import files_of_checkout
from tests.wheels import offline_with, wheels_for

pytestmark = [pytest.mark.packaging, pytest.mark.slow]

ROOT = Path(__file__).resolve().parent.parent.parent

ECHO = '''
"""An echo over utp: strings, with everything from the installed package."""
import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import react


class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)


class Client(Protocol):
    def __init__(self):
        self.received, self.lost = b"", Deferred()

    def connectionMade(self):
        self.transport.write(b"hello " * 1000)

    def dataReceived(self, data):
        self.received += data
        if len(self.received) == 6000:
            self.transport.loseConnection()

    def connectionLost(self, reason):
        self.lost.callback(None)


async def main(reactor):
    server = serverFromString(reactor, "utp:0:interface=127.0.0.1")
    port = await server.listen(Factory.forProtocol(Echo))
    client = Client()
    endpoint = clientFromString(reactor, f"utp:127.0.0.1:{port.getHost().port}")
    await connectProtocol(endpoint, client)
    await client.lost
    await port.stopListening()
    assert client.received == b"hello " * 1000, client.received
    import txutp
    print("echoed with", txutp.__file__)


react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
'''

NO_REACTOR = """
import sys
import twisted.plugins.txutp_endpoints
import twisted.plugins.txutp_services
assert "twisted.internet.reactor" not in sys.modules, "the plugin installs the default reactor"
"""

AFTERWARDS = """
from pathlib import Path

import twisted.plugins
from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IStreamServerEndpointStringParser
from twisted.internet.protocol import Factory, Protocol
from twisted.plugin import getPlugins

assert Path(twisted.plugins.__file__).name == "__init__.py", twisted.plugins
assert list(getPlugins(IStreamServerEndpointStringParser)), "Twisted's own plugins are gone"

port = []
serverFromString(reactor, "tcp:0:interface=127.0.0.1").listen(
    Factory.forProtocol(Protocol)
).addCallback(port.append)
assert port, "tcp: does not listen"
try:
    serverFromString(reactor, "utp:0")
except ValueError as error:
    assert "Unknown endpoint type" in str(error), error
else:
    raise AssertionError("utp: is still there")
"""


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command, with more variables of the environment; what it says is returned, or shown when it fails."""
    # Where we come from must not help: no inherited path, no warnings about pip's age.
    environment = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment.update(variables)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=300,
    )
    if done.returncode:
        words = " ".join(str(word) for word in command)
        pytest.fail(f"{words}\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what belongs to the checkout, so that building leaves nothing behind in it."""
    copy = tmp_path_factory.mktemp("tree")
    for file in files_of_checkout():
        place = copy / file.relative_to(ROOT)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, place)
    return copy


@pytest.fixture(scope="session")
def wheelhouse(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All that the package depends on or is built with, so that only this needs the network, and only once."""
    return wheels_for(tree, tmp_path_factory.mktemp("wheels"))


@pytest.fixture(scope="session")
def artifacts(tree: Path, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, and the wheel that is built from it."""
    output = tmp_path_factory.mktemp("artifacts")
    run(sys.executable, "-m", "build", "--outdir", output, tree, cwd=output, **offline_with(wheelhouse))
    [sdist] = output.glob("*.tar.gz")
    [wheel] = output.glob("*.whl")
    return {"sdist": sdist, "wheel": wheel}


def names_in(archive: Path) -> set[str]:
    """The files in an archive, without the directory in which a source distribution has them."""
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as tar:
        return {name.partition("/")[2] for name in tar.getnames()}


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_contents(artifacts: dict[str, Path], kind: str) -> None:
    """What is built has the plugin, the mark of typing and all modules, and nothing that harms."""
    names = names_in(artifacts[kind])

    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "txutp").rglob("*.py")}
    assert names >= modules | {
        "txutp/py.typed",
        "twisted/plugins/txutp_endpoints.py",
        "twisted/plugins/txutp_services.py",
    }
    assert any(name.endswith("LICENSE") for name in names)
    assert not [name for name in names if name.endswith((".pyc", "dropin.cache"))]
    # Installed, these would overwrite files of Twisted itself.
    assert names.isdisjoint({"twisted/__init__.py", "twisted/plugins/__init__.py"})


def test_a_package_index_gets_no_link_that_leads_nowhere(artifacts: dict[str, Path]) -> None:
    """There the README stands alone: links into the repository are absolute, or words."""
    with zipfile.ZipFile(artifacts["wheel"]) as wheel:
        [name] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        text = wheel.read(name).decode()

    links = re.findall(r"\]\(([^)]*)\)", text)
    assert "# txutp" in text
    assert any(link.startswith("https://") for link in links)
    assert [link for link in links if not link.startswith(("https://", "#"))] == []


def test_the_source_distribution_is_the_checkout(artifacts: dict[str, Path], tree: Path) -> None:
    """Packagers run the tests from it, and most files are of some use to a test."""
    files = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file()}
    made = {name for name in files if name.partition("/")[0] in ("build", "dist") or ".egg-info/" in name}
    assert files - made - names_in(artifacts["sdist"]) == set()


def test_its_tests_run_from_the_source_distribution(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """Unpacked, without a repository and not installed: the tests of files, of the core and of the transport."""
    with tarfile.open(artifacts["sdist"]) as tar:
        tar.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    [unpacked] = tmp_path.iterdir()
    names = ("project/test_house", "project/test_scenarios", "wire/test_packet", "shell/test_transport")
    some = [f"tests/{name}.py" for name in names]
    said = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *some, cwd=unpacked)
    assert re.search(r"^\d{3,} passed", said, re.MULTILINE), said
    everything = run(sys.executable, "-m", "pytest", "-q", "--collect-only", cwd=unpacked)
    assert "error" not in everything.rpartition("\n\n")[2]


@pytest.mark.parametrize("way", ["sdist", "wheel", "directory", "editable"])
def test_install_use_uninstall(
    way: str, tree: Path, artifacts: dict[str, Path], wheelhouse: Path, tmp_path: Path
) -> None:
    """Installed in each way it serves utp: strings; uninstalled it leaves Twisted as it was."""
    # Its own copy, because pip may write into the directory that it installs from.
    copy = shutil.copytree(tree, tmp_path / "copy")
    what = {"directory": [copy], "editable": ["-e", copy]}.get(way) or [artifacts[way]]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Without a pip of its own the environment is made in a moment; ours can work on it.
    venv.create(tmp_path / "venv", with_pip=False)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)

    # install and use
    run(*pip, "install", "--quiet", *what, cwd=elsewhere, **offline_with(wheelhouse))
    assert "echoed with" in run(python, "-c", ECHO, cwd=elsewhere)
    run(python, "-c", NO_REACTOR, cwd=elsewhere)
    assert list(scripts.glob("txutp*"))
    assert "--workers" in run(python, "-m", "twisted", "utp-workers", "--help", cwd=elsewhere)

    # uninstall and look at what is left
    run(*pip, "uninstall", "--quiet", "--yes", "txutp", cwd=elsewhere)
    run(python, "-c", AFTERWARDS, cwd=elsewhere)
    assert not list(scripts.glob("txutp*"))
