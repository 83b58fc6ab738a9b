"""Python runs this when it starts, in the child processes of ``python -m txutp.rebinding``, for it is on PYTHONPATH.

It imports nothing of txutp, for most children never need it: that waits until the child installs a reactor.  A Python
in which txutp is not installed goes on without uTP, and nothing is said.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

INSTALLS_REACTORS = "twisted.internet.main"


class Finder(MetaPathFinder):
    """Finds the module that installs reactors as others find it, and has it loaded by a ``RebindingLoader``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for every other module."""
        if fullname != INSTALLS_REACTORS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = RebindingLoader(spec.loader)
        return spec


class RebindingLoader(Loader):
    """Loads a module by another loader; every reactor that the module installs is rebound."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the other loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """As the other loader does, which the module will be told that it has."""
        self._loader.exec_module(module)
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        install = module.installReactor

        def install_and_begin(reactor: object) -> None:
            install(reactor)
            module.installReactor = install  # type: ignore[attr-defined]
            if importlib.util.find_spec("txutp") is not None:
                from txutp.rebinding.inheriting import begin_as_child

                begin_as_child()

        module.installReactor = install_and_begin  # type: ignore[attr-defined]


here: str = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != here]
sys.meta_path.insert(0, Finder())

# The module of this name that would have been found otherwise, if there is one.
del sys.modules["sitecustomize"]
with suppress(ModuleNotFoundError):
    importlib.import_module("sitecustomize")
sys.modules.setdefault("sitecustomize", importlib.util.module_from_spec(__spec__))
