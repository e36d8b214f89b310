"""Names of parameters and submodules, as near to those in the ONNX file as PyTorch allows."""

from __future__ import annotations

import keyword
import unicodedata

import torch
from torch import fx, nn

_RESERVED = frozenset(dir(fx.GraphModule)) | frozenset(dir(nn.Module())) | {"meta", "_graph", "_code"}


class Paths:
    """Hands out dotted paths below a root module, each once."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._inner: set[str] = set()

    def claim(self, name: str) -> str:
        """A free path: ``name`` itself wherever that is possible.

        Dots separate modules, as in the names that PyTorch exports. Where a module of that name has a meaning of its
        own, or the name is taken, the path differs.
        """
        parts = [_legal(part) for part in name.split(".")]
        if any(self._prefix(parts, n) in self._leaves for n in range(1, len(parts))):
            parts = ["_".join(parts)]
        path, number = ".".join(parts), 0
        while path in self._leaves or path in self._inner:
            number += 1
            path = ".".join([*parts[:-1], f"{parts[-1]}_{number}"])
        self._leaves.add(path)
        self._inner.update(self._prefix(parts, n) for n in range(1, len(parts)))
        return path

    @staticmethod
    def _prefix(parts: list[str], count: int) -> str:
        return ".".join(parts[:count])


def _legal(part: str) -> str:
    """The nearest name that PyTorch can write into the source text of ``forward`` without its meaning anything."""
    if part.isidentifier():
        part = unicodedata.normalize("NFKC", part)  # as Python reads it
    else:
        # The others are written between double quotes, as they are.
        part = "".join("_" if char in '"\\' or not char.isprintable() else char for char in part)
    return f"{part}_" if not part or part in _RESERVED or keyword.iskeyword(part) else part


def place(root: nn.Module, path: str, value: nn.Module | torch.Tensor) -> None:
    """Put a module, parameter or buffer (any other tensor) at a dotted path, making empty modules on the way."""
    *parents, last = path.split(".")
    for part in parents:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if isinstance(value, nn.Module):
        root.add_module(last, value)
    elif isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    else:
        root.register_buffer(last, value)
