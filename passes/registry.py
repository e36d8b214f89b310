"""Finding passes by name: those of this package, and those that other packages offer."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import onnxprune.passes
from onnxprune.errors import PassError
from onnxprune.ops.registry import from_plugins
from onnxprune.passes.base import Pass

ENTRY_POINTS = "onnxprune.passes"
"""The entry-point group in which other packages list their passes (any name = "module:PassClass")."""


def available_passes() -> Mapping[str, type[Pass]]:
    """Every pass by name, sorted.

    Raises:
        PassError: two passes have one name, or another package's pass cannot be loaded.
    """
    found: dict[str, type[Pass]] = {}
    plugged = [_checked(cls, f"PASSES of plugin {name}") for name, own in from_plugins("passes") for cls in own]
    for cls in (*_own_passes(), *map(_load, entry_points(group=ENTRY_POINTS)), *plugged):
        if found.setdefault(cls.name, cls) is not cls:
            first = found[cls.name]
            raise PassError(
                f"two passes are named {cls.name!r}: {first.__module__}.{first.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one, or uninstall its package"
            )
    return MappingProxyType(dict(sorted(found.items())))


def find_pass(name: str) -> type[Pass]:
    """The pass of that name. Raises PassError where there is none."""
    available = available_passes()
    if name not in available:
        close = difflib.get_close_matches(name, available, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(available)}"
        raise PassError(f"there is no pass {name!r}; {hint}")
    return available[name]


def required(cls: Callable[..., Pass]) -> list[str]:
    """The arguments without which a pass cannot be made."""
    parameters = inspect.signature(cls).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


def _own_passes() -> Iterator[type[Pass]]:
    """The passes of this package: every concrete and public one that a module defines and that needs nothing."""
    for module_info in pkgutil.iter_modules(onnxprune.passes.__path__):
        if not module_info.name.startswith("_"):
            module = importlib.import_module(f"{onnxprune.passes.__name__}.{module_info.name}")
            for _, cls in inspect.getmembers(module, inspect.isclass):
                if cls.__module__ != module.__name__ or not issubclass(cls, Pass):
                    continue
                if not inspect.isabstract(cls) and not required(cls) and not cls.__name__.startswith("_"):
                    yield cls


def _load(entry: EntryPoint) -> type[Pass]:
    where = f"entry point {entry.name!r} = {entry.value!r} of group {ENTRY_POINTS}"
    try:
        cls = entry.load()
    except Exception as error:
        raise PassError(f"{where} cannot be loaded ({error}); mend or uninstall its package") from error
    return _checked(cls, where)


def _checked(cls: Any, where: str) -> type[Pass]:
    if not (inspect.isclass(cls) and issubclass(cls, Pass)) or inspect.isabstract(cls):
        raise PassError(f"{where} is not a concrete subclass of onnxprune.passes.Pass; mend its package")
    return cls
