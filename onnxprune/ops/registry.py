"""A table of what is known of operators, and what other packages and plugin modules add to it."""

from __future__ import annotations

import importlib
import inspect
import os
import runpy
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any, Generic, Protocol, TypeVar

from onnxprune.errors import RegistryError
from onnxprune.ir.graph import Node

PLUGINS = "ONNXPRUNE_PLUGINS"
"""The environment variable that lists plugin modules, separated by commas; worker processes inherit it."""
_NO_LIMIT = 2**31


class Entry(Protocol):
    """What a table holds: something for operators ``types`` of a domain, from opset ``since`` up to ``until``."""

    @property
    def types(self) -> tuple[str, ...]: ...
    @property
    def domain(self) -> str: ...
    @property
    def since(self) -> int: ...
    @property
    def until(self) -> int | None: ...


_Entry = TypeVar("_Entry", bound=Entry)


class OpsetTable(Generic[_Entry]):
    """Entries by domain, type and opset; immutable, :meth:`extended` returns a new one.

    Raises RegistryError where two claim the same.
    """

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries: dict[tuple[str, str], list[_Entry]] = {}
        for entry in entries:
            for op_type in entry.types:
                known = self._entries.setdefault((entry.domain, op_type), [])
                for other in known:
                    if entry.since <= (other.until or _NO_LIMIT) and other.since <= (entry.until or _NO_LIMIT):
                        raise RegistryError(
                            f"{entry.domain or 'ai.onnx'}.{op_type} is registered twice for overlapping opsets: by "
                            f"{_named(other)} and by {_named(entry)}; give one of them another opset range"
                        )
                known.append(entry)

    def find(self, node: Node) -> _Entry | None:
        """The entry for a node, or None if nobody registered one."""
        for entry in self._entries.get((node.domain, node.op_type), ()):
            if entry.since <= node.version <= (entry.until or _NO_LIMIT):
                return entry
        return None

    def named(self, op_type: str) -> _Entry | None:
        """An entry for a type in whatever domain: runtimes keep the names of what they move to their own."""
        return next((known[-1] for (_, name), known in self._entries.items() if name == op_type), None)

    def extended(self, *entries: _Entry | type[_Entry]) -> OpsetTable[_Entry]:
        """A table that knows these (objects or classes), too; RegistryError if one of them is known already."""
        made = [entry() if isinstance(entry, type) else entry for entry in entries]
        return OpsetTable([*dict.fromkeys(e for known in self._entries.values() for e in known), *made])

    def supported(self) -> list[tuple[str, str, int, int | None]]:
        """(domain, type, first opset, last opset or None) of every entry, sorted."""
        found = ((*key, entry.since, entry.until) for key, known in self._entries.items() for entry in known)
        return sorted(found, key=lambda row: row[:3])


def _named(entry: Entry) -> str:
    return f"{type(entry).__name__} (since {entry.since})"


def contributed(kind: str, accept: Callable[[Any], bool]) -> tuple[Any, ...]:
    """What installed packages and plugin modules offer of a kind: operators, criteria, converters.

    Packages list single objects, classes to be called without arguments, or sequences of these in the entry-point group
    ``onnxprune.<kind>``; plugin modules (see ``PLUGINS``) have a sequence of the kind's name in capitals.

    Raises:
        RegistryError: something cannot be loaded, or ``accept`` does not take it.
    """
    return _contributed(kind, accept, os.environ.get(PLUGINS, ""))


@cache
def _contributed(kind: str, accept: Callable[[Any], bool], plugins: str) -> tuple[Any, ...]:
    found: list[Any] = []
    for entry in entry_points(group=f"onnxprune.{kind}"):
        where = f"entry point {entry.name!r} = {entry.value!r} of group onnxprune.{kind}"
        try:
            loaded = entry.load()
        except Exception as error:
            raise RegistryError(f"{where} cannot be loaded ({error}); mend or uninstall its package") from error
        found.extend(_accepted(loaded, accept, where))
    for name, item in from_plugins(kind, plugins):
        found.extend(_accepted(item, accept, f"{kind.upper()} of plugin {name}"))
    return tuple(found)


def _accepted(loaded: Any, accept: Callable[[Any], bool], where: str) -> Iterator[Any]:
    for item in loaded if isinstance(loaded, list | tuple) else (loaded,):
        made = item() if inspect.isclass(item) else item
        if not accept(made):
            raise RegistryError(f"{where} holds {item!r}, which is no such thing; see CONTRIBUTING.md")
        yield made


def from_plugins(kind: str, plugins: str | None = None) -> Iterator[tuple[str, Any]]:
    """What the plugin modules have under the kind's name in capitals, by module. Raises RegistryError."""
    names = os.environ.get(PLUGINS, "") if plugins is None else plugins
    for name in filter(None, names.split(",")):
        yield name, getattr(plugin(name), kind.upper(), ())


@cache
def plugin(name: str) -> Any:
    """A plugin module: a name that Python can import, or the path of a ``.py`` file. RegistryError if it fails."""
    try:
        if name.endswith(".py"):
            return SimpleNamespace(**runpy.run_path(name))
        return importlib.import_module(name)
    except Exception as error:
        raise RegistryError(f"plugin {name!r} cannot be loaded: {type(error).__name__}: {error}") from error
