"""Which names are public: the lists of these modules, and nothing else."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.project.test_house import SOURCES, local

# Names that a program may use are in the ``__all__`` of one of these; docs and deprecations speak of them alone.
PUBLIC = (
    "txutp",
    "txutp.congestion",
    "txutp.endpoints",
    "txutp.monitoring",
    "txutp.qlog",
    "txutp.rebinding",
    "txutp.socket",
    "txutp.testing",
    "txutp.workers",
)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_is_there_and_described(name: str) -> None:
    """A list names what exists, once, and each function and class in it has a docstring of its own."""
    module = importlib.import_module(name)

    assert len(module.__all__) == len(set(module.__all__))
    for public in module.__all__:
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isroutine(thing):
            assert vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__, f"{name}.{public}"


@pytest.mark.parametrize("name", PUBLIC)
def test_no_list_has_a_private_name(name: str) -> None:
    """An underscore and a place in the list contradict each other."""
    assert [public for public in importlib.import_module(name).__all__ if public.startswith("_")] == []


def test_nothing_but_modules_stands_beside_the_list() -> None:
    """What ``dir(txutp)`` shows is the list, or a module."""
    module = importlib.import_module("txutp")
    beside = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and name not in module.__all__ and not inspect.ismodule(thing)
    }

    assert beside == set()


def test_only_public_modules_have_a_list() -> None:
    """A list elsewhere would promise something."""
    with_list = {
        f"txutp.{local(name)}".rstrip(".")
        for name, path in SOURCES.items()
        if "\n__all__ = " in path.read_text(encoding="utf-8")
    }

    assert with_list == set(PUBLIC)
