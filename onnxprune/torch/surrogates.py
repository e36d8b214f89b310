"""A gradient through thresholds: a spike is 0 or 1, and tells what made it only where it nearly changed.

The derivative of a comparison is 0 everywhere, so that nothing before it learns. What is put in its place is that of a
smooth step, and nothing but the gradient: values stay, to the bit. It is the usual way to train spiking and binary
networks: "SuperSpike", Zenke & Ganguli, 2018 (fast sigmoid), and "Incorporating Learnable Membrane Time Constant",
Fang et al., ICCV 2021 (arctan). Slopes are those of snntorch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx

from onnxprune.torch.module import OnnxModule
from onnxprune.torch.ops.elementwise import cast, cast_like, where

Kind = Literal["fast-sigmoid", "atan"]

SLOPES: Mapping[Kind, float] = {"fast-sigmoid": 25.0, "atan": 2.0}
"""How steep each one is where nothing else is said."""


@dataclass(frozen=True)
class Surrogate:
    """The gradient that was put in.

    Attributes:
        kind: which step's derivative it is; None where none was wanted.
        slope: how steep.
        thresholds: how many places it stands at.
        weights: how many weights have no gradient without it.
        of: how many there are.
    """

    kind: Kind | None
    slope: float
    thresholds: int
    weights: int
    of: int

    def __str__(self) -> str:
        which = f"{self.weights} of {self.of} weights reach the output only through thresholds"
        if self.kind is None:
            return f"{which}, and learn nothing without a surrogate gradient"
        return (
            f"{which}; their gradient is a surrogate ({self.kind}, slope {self.slope:g}, at {self.thresholds} places)"
        )


def install(
    module: OnnxModule, inputs: Sequence[Tensor], position: int, choice: str = "auto", slope: float | None = None
) -> Surrogate | None:
    """Put in the gradient that was chosen, and say what it is for.

    Args:
        module: changed in place.
        inputs: its arguments, for a few samples.
        position: of the output that is learned from.
        choice: which surrogate, ``none``, or ``auto``: a fast sigmoid where weights would have no gradient at all.
        slope: how steep; None is the usual one of its kind.

    Returns:
        None where there is no threshold that it could pass, or ``auto`` finds no need.
    """
    if not any(True for _ in _ends(module)):
        return None
    count, of = len(starved(module, inputs, position)), len(list(module.parameters()))
    if choice == "none" or (choice == "auto" and not count):
        return Surrogate(None, 0.0, 0, count, of) if count else None
    kind: Kind = "atan" if choice == "atan" else "fast-sigmoid"
    steepness = SLOPES[kind] if slope is None else slope
    return Surrogate(kind, steepness, give_surrogates(module, kind, steepness), count, of)


def starved(module: OnnxModule, inputs: Sequence[Tensor], position: int) -> tuple[str, ...]:
    """The parameters that get no gradient from an output, because all ways to it lead through thresholds.

    Args:
        module: in any mode; it is left as it is.
        inputs: its arguments.
        position: of the output.
    """
    if not any(True for _ in _ends(module)):
        return ()
    training, names = module.training, dict(module.named_parameters())
    module.eval()
    try:
        results = module(*inputs)
        result = results if isinstance(results, Tensor) else results[position]
        if not result.requires_grad:
            return tuple(names)
        # Not the plain sum, which is the same for all probabilities.
        uneven = torch.linspace(1, 2, result.numel(), dtype=result.dtype).reshape(result.shape)
        found = torch.autograd.grad((result * uneven).sum(), list(names.values()), allow_unused=True)
    finally:
        module.train(training)
    return tuple(name for name, gradient in zip(names, found, strict=True) if gradient is None or not gradient.any())


def give_surrogates(module: OnnxModule, kind: Kind, slope: float | None = None) -> int:
    """Let gradients pass the module's thresholds, in place; returns at how many places.

    Those are comparisons (and what And, Or and Not make of them) that become numbers: by Cast, by Where between
    constants, and Sign. A Where between values that have gradients of their own is left as it is.
    """
    how = kind, SLOPES[kind] if slope is None else slope
    graph, found = module.graph, list(_ends(module))
    for node in found:
        readers = list(node.users)
        with graph.inserting_after(node):
            passed = graph.call_function(carried, (node,))
        for reader in readers:
            reader.replace_input_with(node, passed)
        with graph.inserting_before(passed):
            if node.target is torch.sign:
                soft = graph.call_function(rising, ("gt", node.args[0], 0.0, *how))
                passed.args = (node, graph.call_function(between, (soft, 1.0, -1.0)))
                continue
            soft = _twin(graph, node.args[0], how)
            passed.args = (node, graph.call_function(between, (soft, *node.args[1:])) if node.target is where else soft)
    module.recompile()
    return len(found)


def _ends(module: OnnxModule) -> Iterator[fx.Node]:
    """Where what is decided becomes a number."""
    for node in module.graph.nodes:
        if node.op != "call_function":
            continue
        number = node.target is cast_like or (node.target is cast and node.args[1].is_floating_point)
        chosen = node.target is where and not any(_learns(argument) for argument in node.args[1:])
        if node.target is torch.sign or ((number or chosen) and _is_decided(node.args[0])):
            yield node


def _is_decided(value: Any) -> bool:
    """Whether a value is what comparisons say, and nothing else."""
    if not isinstance(value, fx.Node) or value.op != "call_function":
        return False
    if value.target in _LOGIC:
        return all(_is_decided(argument) for argument in value.args)
    return value.target in _COMPARISONS


def _learns(value: Any) -> bool:
    """Whether a value is more than a constant of the model."""
    return isinstance(value, fx.Node) and value.op != "get_attr"


def _twin(graph: fx.Graph, node: Any, how: tuple[Kind, float]) -> fx.Node:
    """The smooth twin of a truth value."""
    if node.target in _COMPARISONS:
        return graph.call_function(rising, (_COMPARISONS[node.target], *node.args[:2], *how))
    parts = [_twin(graph, argument, how) for argument in node.args]
    return graph.call_function(joined, (_LOGIC[node.target], *parts))


_COMPARISONS: Mapping[Any, str] = {torch.gt: "gt", torch.ge: "ge", torch.lt: "lt", torch.le: "le"}
_LOGIC: Mapping[Any, str] = {torch.logical_not: "not", torch.logical_and: "and", torch.logical_or: "or"}


def carried(value: Tensor, soft: Tensor) -> Tensor:
    """The value as it is, with the gradient of its twin."""
    if not soft.requires_grad:
        return value
    result: Tensor = _Carried.apply(value, soft)  # type: ignore[no-untyped-call]
    return result


def rising(comparison: str, a: Tensor, b: Tensor | float, kind: Kind, slope: float) -> Tensor:
    """A comparison as 0 and 1, with the gradient of a smooth step."""
    fired: Tensor = getattr(torch, comparison)(a, b)
    distance = a - b if comparison[0] == "g" else b - a
    if not distance.is_floating_point():
        return fired.to(torch.get_default_dtype())
    result: Tensor = _Step.apply(fired, distance, kind, slope)  # type: ignore[no-untyped-call]
    return result


def joined(logic: str, a: Tensor, b: Tensor | None = None) -> Tensor:
    """Not, And and Or of zeros and ones, which have gradients."""
    if b is None:
        return 1 - a
    return a * b if logic == "and" else a + b - a * b


def between(soft: Tensor, high: Tensor | float, low: Tensor | float) -> Tensor:
    """What a choice between two constants rises by, along its twin."""
    gap = torch.as_tensor(high, device=soft.device) - torch.as_tensor(low, device=soft.device)
    return soft * torch.nan_to_num(gap.detach().to(soft.dtype), 0.0, 0.0, 0.0)


class _Carried(torch.autograd.Function):
    """(value, soft) → value, with both their gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, soft: Tensor) -> Tensor:
        ctx.to = soft.dtype, soft.shape
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        dtype, shape = ctx.to
        (gradient,) = gradients
        return gradient, gradient.to(dtype).sum_to_size(shape)


class _Step(torch.autograd.Function):
    """(fired, distance, kind, slope) → fired as a number; backwards, the derivative of a smooth step."""

    @staticmethod
    def forward(ctx: Any, fired: Tensor, distance: Tensor, kind: Kind, slope: float) -> Tensor:
        ctx.save_for_backward(distance)
        ctx.how = kind, slope
        return fired.to(distance.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (distance,) = ctx.saved_tensors
        (gradient,) = gradients
        return None, gradient * derivative(distance, *ctx.how), None, None


def derivative(distance: Tensor, kind: Kind, slope: float) -> Tensor:
    """Of the smooth step, by how far a value is above its threshold; 0 where that is no number."""
    if kind == "fast-sigmoid":
        found = (slope * distance.abs() + 1).square().reciprocal()
    else:
        found = slope / 2 / (1 + (math.pi / 2 * slope * distance).square())
    return torch.nan_to_num(found, 0.0, 0.0, 0.0)
