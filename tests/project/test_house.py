"""The rules that no linter knows: a pure core, floors, and no traces of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.checkout import files_of_checkout

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "txutp"

# The floors, lowest first. A module imports only from floors below its own; two modules of one
# floor do not know each other. A new module is written into this table, and nowhere else.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "core.batch",
        "core.dscp",
        "core.due",
        "core.packet",
        "core.rare",
        "core.sequence",
        "core.states",
        "core.stats",
        "core.turns",
        "core.units",
    ),
    (
        "core.address",
        "core.caps",
        "core.congestion.capacity",
        "core.congestion.crowd",
        "core.congestion.overload",
        "core.congestion.rhythm",
        "core.congestion.route",
        "core.cookies",
        "core.delay",
        "core.memory",
        "core.mtu",
        "core.pacing",
        "core.parts",
        "core.rate",
        "core.sending",
        "core.tombstones",
    ),
    ("core.bursts", "core.intake", "core.receiving", "core.rtt"),
    ("core.congestion.interface",),
    ("core.congestion", "core.congestion.ledbat", "core.congestion.ledbatpp", "core.congestion.shallow"),
    ("core.congestion.controllers", "core.downlink", "core.settings"),
    ("core.congestion.steering", "core.yielding"),
    ("core.gaps",),
    ("core.flow",),
    ("core.liveness",),
    ("core.fitting",),
    ("core.departures",),
    ("core.connection",),
    ("core.admission", "core.rates", "core.resting", "core.tracing"),
    ("core.multiplexer",),
    ("core",),
    # The glass floor: Twisted, sockets and clocks begin here.
    (
        "cli.messages",
        "environment",
        "openports",
        "qlog.files",
        "rebinding.counts",
        "running",
        "socket.encodings",
        "socket.events",
        "testing.pcap",
        "udp",
        "udp.retries",
        "workers.lanes",
        "workers.settings",
        "workers.steering",
    ),
    ("udp.joiner", "udp.options"),
    ("udp.sources",),
    ("udp.offload",),
    ("arguments", "congestion"),
    ("rebinding.rules", "strings"),
    ("testing.links", "timers"),
    ("socket.program", "testing.network", "udp.ports"),
    ("errors", "socket.readable", "testing.scripted", "udp.marking", "unread", "workers.group"),
    ("newcomers", "silence", "udp.outbox"),
    ("protocol",),
    ("companion", "sharing", "transport"),
    ("socket.duplex", "tls", "unwrapping", "workers.steered"),
    ("client", "port"),
    ("endpoints", "rebinding.posing", "socket.sockets", "workers.member"),
    (
        "monitoring.figures",
        "qlog.observing",
        "racing",
        "rebinding",
        "socket",
        "testing.pair",
        "workers.child",
        "workers.parent",
    ),
    ("monitoring.control", "monitoring.metrics", "qlog", "testing", "workers", "workers.serving"),
    ("monitoring", "workers.__main__", "workers.tap"),
    # The public names, which the command asks for its version.
    ("",),
    ("rebinding.options",),
    ("rebinding.inheriting",),
    ("rebinding.__main__",),
    ("cli.options", "cli.pictures"),
    # The command.
    (
        "cli.captures",
        "cli.exchange",
        "cli.files",
        "cli.files.hashing",
        "cli.files.progress",
        "cli.files.wire",
        "cli.following",
        "cli.measurement",
        "cli.measurement.clock",
        "cli.measurement.plot",
        "cli.measurement.wire",
        "cli.output",
    ),
    (
        "cli.files.channel",
        "cli.files.placing",
        "cli.files.reading",
        "cli.measurement.asked",
        "cli.measurement.ping",
        "cli.measurement.results",
        "cli.measurement.streams",
        "cli.plot",
        "cli.relay",
        "cli.streams",
        "cli.top",
    ),
    ("cli.measurement.ends", "cli.measurement.report"),
    ("cli.files.screen",),
    (
        "cli.files.receiver",
        "cli.files.sender",
        "cli.measurement.client",
        "cli.measurement.live",
        "cli.measurement.server",
    ),
    ("cli.measurement.compare",),
    ("cli.measurement.views",),
    ("cli.cat", "cli.demo", "cli.dump", "cli.forward", "cli.perf", "cli.receive", "cli.run", "cli.send"),
    ("cli.tap",),
    ("cli",),
    ("__main__", "rebinding.startup.sitecustomize"),
)

# What the core may take from outside: nothing that reads a clock, draws lots, talks or logs.
ALLOWED_IN_CORE = {
    "__future__",
    "array",
    "bisect",
    "collections",
    "collections.abc",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "heapq",
    "math",
    "struct",
    "typing",
}

FLOOR_OF = {name: number for number, floor in enumerate(FLOORS) for name in floor}


def dotted(path: Path) -> str:
    """The name of a source file as an import would spell it, like ``txutp.core.packet``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def local(module: str) -> str:
    """The name that the table of floors uses: without the package in front."""
    return module.removeprefix("txutp").removeprefix(".")


SOURCES = {dotted(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str, path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, wherever it stands, as its line and the full name of the module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module if path.name == "__init__.py" else module.rpartition(".")[0]
                for _ in range(node.level - 1):
                    package = package.rpartition(".")[0]
                base = f"{package}.{base}".rstrip(".")
            for alias in node.names:
                # `from txutp.core import packet` means the module packet, not the package.
                full = f"{base}.{alias.name}"
                yield node.lineno, full if full in SOURCES else base


def is_ours(name: str) -> bool:
    """Whether an imported name belongs to this package."""
    return name == "txutp" or name.startswith("txutp.")


@pytest.mark.parametrize("module", [name for name in SOURCES if name.startswith("txutp.core")])
def test_core_is_pure(module: str) -> None:
    """The core imports no Twisted, socket, clock, chance or log, so its tests need none either."""
    path = SOURCES[module]

    strangers = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imports(module, path)
        if name not in ALLOWED_IN_CORE and not name.startswith("txutp.core")
    ]

    assert strangers == []


def test_every_module_has_a_floor() -> None:
    """The table names every module there is, and each of them once."""
    listed = [name for floor in FLOORS for name in floor]

    homeless = [module for module in SOURCES if local(module) not in FLOOR_OF]

    assert homeless == []
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("module", list(SOURCES))
def test_imports_go_down(module: str) -> None:
    """A file imports only from floors below its own; an import for the type checker counts too."""
    path = SOURCES[module]
    floor = FLOOR_OF.get(local(module), len(FLOORS))

    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for line, name in imports(module, path)
        if is_ours(name) and FLOOR_OF.get(local(name), len(FLOORS)) >= floor
    ]

    assert upward == []


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_files_that_a_module_names_exist(name: str) -> None:
    """Beside the module, in a folder above it, or by a path from the package or the checkout."""
    path = SOURCES[name]
    places = [parent for parent in path.parents if parent.is_relative_to(ROOT)]
    named = re.findall(r"`([\w./-]+\.(?:py|md))`", path.read_text(encoding="utf-8"))

    assert [file for file in named if not any((place / file).exists() for place in places)] == []


def text_files() -> Iterator[tuple[Path, str]]:
    """The text files that are in the repository or about to be."""
    for path in files_of_checkout():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path, content.decode("utf-8", "replace")


def test_no_path_of_one_machine() -> None:
    """No file names a directory that exists only where it was written."""
    # In pieces, so that this file does not find itself; and only where a path begins, so that
    # an address with such a directory in the middle is none of our business.
    private = re.compile(r"(?<![\w.-])/(" + "work/|" + "tmp/bash)")

    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if private.search(line)
    ]

    assert found == []


def test_no_package_in_twisted() -> None:
    """The plugin directory has no __init__.py: installed, it would overwrite Twisted's own."""
    assert list((ROOT / "twisted").rglob("__init__.py")) == []
