"""Which block of the original network a node comes from, as far as names say."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Sequence
from typing import TypeAlias

from torch import nn

from onnxprune.ir.graph import Node

Scope: TypeAlias = "tuple[str, ...]"
"""Names of modules, from the outermost."""

_RESERVED = frozenset(dir(nn.ModuleDict())) | {"self"}
_LONGEST = 40


def legal(part: str) -> str:
    """The nearest name that code can use for an attribute; whole numbers stay, as those of a list."""
    plain = re.sub(r"\W+", "_", part, flags=re.ASCII)[:_LONGEST]
    if plain.isdigit():
        return str(int(plain))
    if not plain or plain[0].isdigit():
        plain = f"_{plain}"
    # What begins with two underscores would be renamed in a class.
    plain = re.sub(r"^_{2,}", "_", plain)
    return f"{plain}_" if plain in _RESERVED or keyword.iskeyword(plain) else plain


def common(scopes: Sequence[Scope]) -> Scope:
    """The innermost scope around all of these."""
    shared = scopes[0]
    for scope in scopes[1:]:
        count = next((i for i, (a, b) in enumerate(zip(shared, scope, strict=False)) if a != b), None)
        shared = shared[: min(len(shared), len(scope)) if count is None else count]
    return shared


def scope_of(node: Node) -> Scope | None:
    """The modules around a node, or None where its names say nothing.

    PyTorch's exporters write them into metadata (``['', 'layer1', 'layer1.0', 'relu']``) or into the node's name
    (``/layer1/layer1.0/Relu``), those of TensorFlow into the name (``model/conv1/Relu``).
    """
    for entry in node.proto.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            return _from_metadata(entry.value)
    parts = [part for part in node.name.split("/") if part]
    return _relative(parts[:-1]) if "/" in node.name else None


def scope_of_weight(name: str) -> Scope | None:
    """The same from the name of a weight with slashes."""
    parts = [part for part in name.split("/") if part]
    return _relative(parts[:-1]) if len(parts) > 1 else None


def _from_metadata(value: str) -> Scope | None:
    try:
        names = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        return None
    # The last is the operation, the one before it the whole path of the innermost module.
    return _relative([name for name in names[:-1] if name])


def _relative(parts: Sequence[str]) -> Scope:
    """Each part without what it repeats of the one around it: layer1, layer1.0 -> layer1, 0."""
    found: list[str] = []
    before = ""
    for part in parts:
        rest = part.removeprefix(f"{before}.") if before else part
        found += [legal(piece) for piece in rest.split(".") if piece]
        before = part
    return tuple(found)
