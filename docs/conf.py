"""How Sphinx builds the site: ``sphinx-build -W -n docs SOMEWHERE``.

Pages are Markdown (MyST), the reference comes from docstrings (autodoc), graphs from ``docs/data`` (``graphs.py``).
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import graphs  # noqa: E402

import txutp  # noqa: E402

project = "txutp"
author = "The txutp authors"
copyright = f"2026, {author}"
version = release = txutp.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.intersphinx", "sphinx_copybutton"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"txutp {version}"
html_static_path = ["_static"]
html_css_files = ["txutp.css"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

# Tests build without a network, so links into the documentation of others are made only where they can be.
if os.environ.get("TXUTP_DOCS_ONLINE"):
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "twisted": ("https://docs.twisted.org/en/stable/api", None),
    }
# Names of others, which have no page without these, and those of the package that are not public.
nitpick_ignore_regex = [
    (r"py:.*", r"(twisted|zope|collections|asyncio|os|random|socket|enum|types|typing)\..*"),
    (r"py:class", r"txutp\.[\w.]+\.(Connection|Member|Packet|PosingPort|PosingConnector|Sink|SteeredProtocol)"),
    (r"py:class", r"(txutp\.[\w.]+\.)?(EventName|Listener|(Any)?Writable)|Deferred|Self"),
]

# The modules whose lists are the public names; inside of the package they have longer ones.  Others have no list.
PUBLIC = tuple(
    ".".join(file.relative_to(HERE.parent).with_suffix("").parts).removesuffix(".__init__")
    for file in sorted((HERE.parent / "txutp").rglob("*.py"))
    if re.search(r"^__all__ = ", file.read_text(encoding="utf-8"), re.MULTILINE)
)


def public_name(target: str) -> str | None:
    """Returns the documented name of an object that a signature names by its module; None if it is not public."""
    module_name, _, name = target.rpartition(".")
    if not module_name.startswith("txutp"):
        module_name = ""
    for public in PUBLIC:
        module = importlib.import_module(public)
        thing = getattr(module, name, None) if name in module.__all__ else None
        if thing is not None and (not module_name or getattr(thing, "__module__", module_name) == module_name):
            return f"{public}.{name}"
    return None


def find_public(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Sphinx asks this for a name that it cannot find."""
    if node.get("refdomain") != "py":
        return None
    public = public_name(node["reftarget"])
    if public is None or public == node["reftarget"]:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", public, node, content)


def name_interfaces(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Sphinx shows an interface of zope in a signature by its repr."""
    return tuple(text and re.sub(r"<InterfaceClass ([\w.]+)>", r"\1", text) for text in (arguments, returns))


def setup(app: Any) -> None:
    graphs.draw(HERE / "_static" / "graphs")
    app.connect("missing-reference", find_public)
    app.connect("autodoc-process-signature", name_interfaces)
