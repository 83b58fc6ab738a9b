"""The documentation site: it builds without a warning, its links lead somewhere, and the reference is complete."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.pages import DOCS, ROOT
from tests.project.test_exports import PUBLIC

for needed in ("sphinx", "furo", "myst_parser", "sphinx_copybutton", "matplotlib"):
    pytest.importorskip(needed)

TIMEOUT_SECONDS = 300


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site.  Every warning is an error, and so is a name or a page that is not found."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-d", place / "trees", DOCS, place / "html"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return place / "html"


class Links(HTMLParser):
    """The ids of a page, and what it links to or shows."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[str] = []
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value and name == "id":
                self.ids.add(value)
            elif value and name in ("href", "src"):
                self.targets.append(value)


def broken(site: Path) -> Iterator[str]:
    """Links inside of the site that lead nowhere."""
    pages = {file: Links(file) for file in site.rglob("*.html")}
    assert len(pages) > 30
    for file, links in pages.items():
        for target in links.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            found = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            if not found.exists() or (
                parts.fragment and found in pages and unquote(parts.fragment) not in pages[found].ids
            ):
                yield f"{file.relative_to(site)}: {target}"


def test_links_inside_lead_somewhere(site: Path) -> None:
    assert list(broken(site)) == []


def test_a_link_that_leads_nowhere_is_found(site: Path) -> None:
    """The check above can fail."""
    page = site / "wrong.html"
    page.write_text('<a href="index.html#nothing">a</a> <img src="nothing.svg"> <a href="index.html">b</a>')
    try:
        assert list(broken(site)) == ["wrong.html: index.html#nothing", "wrong.html: nothing.svg"]
    finally:
        page.unlink()


def test_the_reference_has_every_public_name(site: Path) -> None:
    """Each has a place of its own; a name that two modules list has one in either of them."""
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, uri: uri)
    documented = {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}
    places: dict[int, list[str]] = {}
    for module in map(import_module, PUBLIC):
        for name in module.__all__:
            places.setdefault(id(getattr(module, name)), []).append(f"{module.__name__}.{name}")

    assert [names for names in places.values() if documented.isdisjoint(names)] == []
