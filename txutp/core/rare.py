"""Attributes that few connections ever change: only connections that change them use memory for them.

A slot takes eight bytes of every connection, and the number in it often 32 more.  Reading a ``Rare`` attribute is a
call, which takes a tenth of a microsecond: it is for attributes that no packet of an ordinary transfer reads.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class Rare(Generic[Value]):
    """An attribute of a class with a slot ``_rare``, which is None or the dictionary of changed attributes."""

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
