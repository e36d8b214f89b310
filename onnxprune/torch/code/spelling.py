"""Nodes of a PyTorch graph as Python expressions: calls of functions, and how the modules are made."""

from __future__ import annotations

import inspect
import math
import operator
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

from onnxprune.errors import ConversionError
from onnxprune.torch.code.helpers import file_of
from onnxprune.torch.code.layout import Expression, bracket, flat, group, keyed, text

INFIX: Mapping[Callable[..., Any], str] = {
    torch.add: "+",
    torch.sub: "-",
    torch.mul: "*",
    torch.true_divide: "/",
    torch.matmul: "@",
}
_HOMES = (("torch", torch), ("F", F), ("torch.linalg", torch.linalg), ("math", math))
_BUILTINS: tuple[Callable[..., Any], ...] = (sum, max, min)
_PER_AXIS = frozenset({"kernel_size", "stride", "padding", "output_padding", "dilation"})
_NOT_SAID = frozenset({"self", "device", "dtype", "inplace"})


class Speller:
    """Writes expressions, and keeps what they need.

    Attributes:
        helpers: functions and classes of this package that are called, (module, name) each.
        called: those of them that are called by file and name.
        imports: modules outside PyTorch whose functions are called.
    """

    def __init__(self) -> None:
        self.helpers: set[tuple[str, str]] = set()
        self.called: set[str] = set()
        self.imports: set[str] = set()

    def value(self, given: Any, names: Callable[[fx.Node], str]) -> Expression:
        """An argument. ``names`` gives the expression of each node's value."""
        match given:
            case fx.Node():
                return names(given)
            case tuple():
                return group([self.value(v, names) for v in given])
            case list():
                return bracket("[", [self.value(v, names) for v in given], "]")
            case dict():
                return bracket("{", [keyed(text(str(k)), self.value(v, names), ": ") for k, v in given.items()], "}")
            case str():
                return text(given)
            case bool() | None | int():
                return repr(given)
            case float():
                return number(given)
            case slice():
                raise ConversionError("a slice outside of an index")
            case torch.dtype():
                return repr(given)
        raise ConversionError(f"PyTorch code cannot hold a {type(given).__name__}")

    def call(self, node: fx.Node, names: Callable[[fx.Node], str]) -> Expression:
        """A call of a function. Raises ConversionError for functions without a name that can be imported."""
        function = node.target
        assert callable(function)
        if function is operator.getitem:
            base, index = node.args
            return f"{flat(self.value(base, names))}[{self._index(index, names)}]"
        if function in INFIX and len(node.args) == 2 and not node.kwargs:
            sides = [flat(self.value(side, names)) for side in node.args]
            return f" {INFIX[function]} ".join(f"({s})" if s.startswith("-") else s for s in sides)
        arguments = [self.value(given, names) for given in node.args]
        arguments += [keyed(key, self.value(given, names)) for key, given in node.kwargs.items()]
        return bracket(f"{self.function(function)}(", arguments)

    def _index(self, index: Any, names: Callable[[fx.Node], str]) -> str:
        if isinstance(index, tuple) and index:
            return ", ".join(self._index(i, names) for i in index) + ("," if len(index) == 1 else "")
        if not isinstance(index, slice):
            return flat(self.value(index, names))
        start, stop = ("" if v is None else flat(self.value(v, names)) for v in (index.start, index.stop))
        step = "" if index.step in (None, 1) else f":{flat(self.value(index.step, names))}"
        return f"{start}:{stop}{step}"

    def function(self, function: Callable[..., Any]) -> str:
        """The name under which code finds a function or class."""
        name = getattr(function, "__name__", "")
        if function in _BUILTINS:
            return name
        for prefix, home in _HOMES:
            if name and getattr(home, name, None) is function:
                if prefix == "math":
                    self.imports.add("math")
                return f"{prefix}.{name}"
        module = getattr(function, "__module__", None) or ""
        importable = name.isidentifier() and all(part.isidentifier() for part in module.split("."))
        if not importable or getattr(sys.modules.get(module), name, None) is not function:
            raise ConversionError(f"{function!r} has no name that code could call it by")
        if module.startswith("onnxprune."):
            self.helpers.add((module, name))
            self.called.add(f"{file_of(module)}.{name}")
            return f"{file_of(module)}.{name}"
        self.imports.add(module)
        return f"{module}.{name}"

    def constructor(self, module: nn.Module) -> Expression:
        """How a module is made, without its values. Raises ConversionError where its attributes do not say it."""
        kind = type(module)
        public = getattr(nn, kind.__name__, None) is kind
        name = f"nn.{kind.__name__}" if public else self.function(kind)
        arguments: list[Expression] = []
        for key, parameter in _parameters(kind).items():
            if key in _NOT_SAID or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            if not hasattr(module, key):
                raise ConversionError(f"{kind.__name__} does not keep its argument '{key}'")
            value = getattr(module, key)
            if isinstance(value, nn.Parameter) or (value is None and key in module._parameters):
                value = value is not None
            written = self.value(_plain(key, value), _no_names)
            if parameter.default is inspect.Parameter.empty:
                arguments.append(written)
            elif not _is_default(value, parameter.default):
                arguments.append(keyed(key, written))
        dtypes = {p.dtype for p in module.parameters(recurse=False)} - {torch.float32}
        if dtypes:
            arguments.append(f"dtype={dtypes.pop()}")
        return bracket(f"{name}(", arguments)


def number(value: float) -> str:
    """A float; those that come from single precision in the digits that say it there."""
    if math.isnan(value) or math.isinf(value):
        return f'float("{value}")'
    with np.errstate(over="ignore"):
        single = np.float32(value)
    return repr(float(str(single))) if float(single) == value else repr(value)


def _parameters(kind: type[nn.Module]) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(kind.__init__).parameters)
    if issubclass(kind, nn.RNNBase):
        # They hand on what they get.
        found = dict(inspect.signature(nn.RNNBase.__init__).parameters)
        found.pop("mode")
        if kind is nn.RNN:
            found["nonlinearity"] = inspect.Parameter("nonlinearity", inspect.Parameter.KEYWORD_ONLY, default="tanh")
    return found


def _plain(key: str, value: Any) -> Any:
    """A tuple that says the same for each axis as one number."""
    if key in _PER_AXIS and isinstance(value, tuple) and value and len(set(value)) == 1:
        return value[0]
    return list(value) if isinstance(value, torch.Size) else value


def _is_default(value: Any, default: Any) -> bool:
    if isinstance(value, tuple) and isinstance(default, int):
        return set(value) == {default}
    if isinstance(value, float) and isinstance(default, float):
        return float(number(value)) == default if math.isfinite(value) else value == default
    return bool(value == default)


def _no_names(node: fx.Node) -> str:
    raise AssertionError(f"{node} is no setting")
