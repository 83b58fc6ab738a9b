"""Attributes that few connections ever change: those that do keep them in a dictionary, the others pay nothing.

A slot takes eight bytes of every connection, and its number often 32 more.  A ``Rare`` attribute is read through a
call, which takes a tenth of a microsecond: it is for what no packet of an ordinary transfer looks at.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class Rare(Generic[Value]):
    """An attribute of a class that has a slot ``_rare``, which is None or the dictionary of what was changed."""

    def __init__(self, default: Value) -> None:
        self._default = default

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Rare[Value]: ...

    @overload
    def __get__(self, instance: Any, owner: type) -> Value: ...

    def __get__(self, instance: Any, owner: type) -> Rare[Value] | Value:
        if instance is None:
            return self
        changed: dict[str, Any] | None = instance._rare
        return self._default if changed is None else changed.get(self._name, self._default)

    def __set__(self, instance: Any, value: Value) -> None:
        changed: dict[str, Any] | None = instance._rare
        if value != self._default:
            if changed is None:
                changed = instance._rare = {}
            changed[self._name] = value
        elif changed is not None:
            changed.pop(self._name, None)
            if not changed:
                instance._rare = None
