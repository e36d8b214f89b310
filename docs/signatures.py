"""Signatures that only the running code knows: an extension of griffe, which mkdocstrings reads the package with.

``onnxprune.pruning.options.by_keyword`` makes functions whose keyword arguments are the fields of a dataclass. In the
source they are values of modules; this puts functions in their place, with the signature and docstring of ``help``.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import griffe

_MAKER = "by_keyword"


class MadeFunctions(griffe.Extension):
    """Shows what ``by_keyword`` makes as the functions that they are."""

    def on_module_members(self, *, mod: griffe.Module, **kwargs: Any) -> None:
        """Replaces them in a module that has been read."""
        for name, member in list(mod.members.items()):
            if member.is_alias or not member.is_attribute or not str(member.value).startswith(f"{_MAKER}("):
                continue
            mod.set_member(name, _function(name, getattr(import_module(mod.path), name), member.lineno, mod))


def _function(name: str, made: Any, line: int | None, module: griffe.Module) -> griffe.Function:
    signature = inspect.signature(made)
    parameters = [
        griffe.Parameter(
            each.name,
            annotation=_annotation(each.annotation),
            kind=getattr(griffe.ParameterKind, each.kind.name.lower()),
            default=None if each.default is each.empty else repr(each.default),
        )
        for each in signature.parameters.values()
    ]
    return griffe.Function(
        name,
        parameters=griffe.Parameters(*parameters),
        returns=_annotation(signature.return_annotation),
        docstring=griffe.Docstring(inspect.getdoc(made) or "", lineno=line),
        lineno=line,
        parent=module,
    )


def _annotation(given: Any) -> str | None:
    if given is inspect.Signature.empty or isinstance(given, str):
        return given if isinstance(given, str) else None
    return inspect.formatannotation(given)
