"""Writes docs/operators.md from the operators that are registered: ``python docs/operators.py``.

The table cannot drift from the code: tests/test_docs.py compares them.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import onnxprune.ops
from onnxprune.ops import Operator

TARGET = Path(__file__).with_suffix(".md")
_INTRODUCTION = """\
# Supported operators

Written by `python docs/operators.py` from the registry; do not edit.

An operator that is not listed here is *pinned*: every channel that reaches it stays, `onnxprune analyze` lists it,
and the rest of the model is pruned. A listed operator may still pin an axis, where removing from it would change what
the operator means (Softmax over channels, indices computed at run time): the reason is then given. "Opsets" are those
in which the operator has this meaning; models of opset 7 to 23 are read.
"""


def families() -> Iterator[ModuleType]:
    """The modules that define operators, by name."""
    for info in pkgutil.iter_modules(onnxprune.ops.__path__):
        module = importlib.import_module(f"{onnxprune.ops.__name__}.{info.name}")
        if hasattr(module, "OPERATORS"):
            yield module


def opsets(operator: Operator) -> str:
    """The opset range of an operator, for people."""
    if operator.until is None:
        return "all" if operator.since == 1 else f"{operator.since} and later"
    return f"up to {operator.until}" if operator.since == 1 else f"{operator.since} to {operator.until}"


def table(module: ModuleType) -> str:
    """One family: a heading from the module's description, and a row per operator class."""
    rows = [f"## {summary(module)}", "", "| operators | opsets | axes |", "| --- | --- | --- |"]
    for operator in module.OPERATORS:
        prefix = f"{operator.domain}." if operator.domain else ""
        names = ", ".join(f"`{prefix}{name}`" for name in sorted(operator.types))
        rows.append(f"| {names} | {opsets(operator)} | {summary(operator).replace('|', chr(92) + '|')} |")
    return "\n".join(rows) + "\n"


def summary(documented: object) -> str:
    """The first sentence of a docstring, without its full stop."""
    text = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return text.removesuffix(".").replace("``", "`")


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *map(table, families())])


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
