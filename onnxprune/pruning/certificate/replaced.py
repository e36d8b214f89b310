"""Certificate of regions that gave way: the original, in which just these regions were replaced, beside the result.

The original runs as it is. Where a region ends, the result has to give what numpy makes of the region's entry and of
the weights in the result; both go on from that. All that the result computes has then to be what this walk computes,
tensor by tensor. Nothing of the code that puts substitutes into graphs is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from onnx import NodeProto

from onnxprune.data.samples import Samples
from onnxprune.data.staging import StagedRun
from onnxprune.errors import VerificationError
from onnxprune.ir.comparing import TensorDifference, compare
from onnxprune.ir.model import Model
from onnxprune.ir.session import Arrays
from onnxprune.ops.substitutes import RESIZED, Kind
from onnxprune.pruning.plan import Replacement

TOLERANCE = 3e-5
"""Largest difference of a tensor, over the spread of the whole tensor."""
_ROUNDING = 4
"""So many times what the type cannot represent of all that is summed is no difference."""

Taken = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""What is taken of numbers: they themselves, or their sizes."""


def differences(
    original: Model, result: Model, replaced: Sequence[Replacement], inputs: Arrays, tolerance: float = TOLERANCE
) -> tuple[TensorDifference, ...]:
    """All tensors that both models make, compared; and those that the result makes and should not.

    Args:
        original: the normalised original.
        result: the original with substitutes, nothing removed.
        replaced: what was replaced.
        inputs: values for the inputs of the model.
        tolerance: largest allowed difference.

    Raises:
        VerificationError: onnxruntime does not run one of the models.
    """
    samples = Samples(inputs, None, max(len(array) for array in inputs.values()), fixed=True)
    makers = {name: index for index, node in enumerate(original.graph.node) for name in node.output if name}
    nodes = {name: node for node in result.graph.node for name in node.output if name}
    between = {name for one in replaced if one.kind == "factors" for name in _between(one, nodes)}
    foreign = [name for name in nodes if name not in makers and name not in between]
    found = [
        TensorDifference(name, nodes[name].name, np.inf, np.inf, passed=False, reason="is none of the original's")
        for name in foreign
    ]
    common = [name for name in makers if name in nodes]
    tried = StagedRun(result, samples, "the model with substitutes", literal=True)
    tried.advance(len(result.graph.node), common)
    reference = StagedRun(original, samples, "the original model", literal=True)
    reference.advance(0, (*common, *(one.entry for one in replaced)))
    ends = {one.exit for one in replaced}
    for one in sorted(replaced, key=lambda one: makers.get(one.exit, -1)):
        if one.exit not in makers:
            raise VerificationError(f"the original does not make '{one.exit}', where region {one} ends")
        reference.advance(makers[one.exit] + 1, (one.exit,))
        was, entry = np.asarray(reference.values(one.exit)[0]), np.asarray(reference.values(one.entry)[0])
        if one.exit not in nodes and one.kind not in ("nothing", "identity"):
            continue  # What read it has given way, too; whatever else reads it would now be found to differ.
        value = _stands_for(one, nodes, result, entry, was, np.positive).astype(was.dtype)
        if one.exit in nodes:
            made = np.asarray(tried.values(one.exit)[0])
            if made.shape == value.shape and made.dtype == value.dtype:
                # Where large products cancel each other, what is left is their rounding.
                sizes = _stands_for(one, nodes, result, entry, was, np.abs)
                value = np.where(np.abs(made - value) <= _ROUNDING * np.finfo(was.dtype).eps * sizes, made, value)
            found.append(compare(one.exit, nodes[one.exit].name, value, made, None, tolerance))
            value = made
        reference.put(one.exit, [value])
    reference.advance(len(original.graph.node), common)
    for name in common:
        if name not in ends:
            wanted, value = np.asarray(reference.values(name)[0]), np.asarray(tried.values(name)[0])
            found.append(compare(name, nodes[name].name, wanted, value, None, tolerance))
    return (*found, *changed_weights(original, result))


def changed_weights(original: Model, result: Model) -> Iterator[TensorDifference]:
    """Weights of the original that have other values in the result."""
    for name, weight in original.weights.items():
        other = result.weights.get(name)
        if other is None or other is weight:
            continue
        if other.shape != weight.shape or other.array.tobytes() != weight.array.tobytes():
            reason = "is a weight whose values are not the original's"
            yield TensorDifference(name, name, np.inf, np.inf, passed=False, reason=reason)


def _stands_for(
    one: Replacement,
    nodes: Mapping[str, NodeProto],
    result: Model,
    entry: NDArray[Any],
    was: NDArray[Any],
    taken: Taken,
) -> NDArray[np.float64]:
    """What a region of this kind gives, [as ``was``]: from its entry and the result's weights, by numpy.

    With their sizes ``taken`` instead, it is the size of what is summed.
    """
    if one.kind == "nothing":
        return np.zeros(was.shape)
    x = taken(entry.astype(np.float64))
    if one.kind == "identity":
        return x
    node, kind = nodes.get(one.exit), one.kind
    if node is None:
        raise VerificationError(f"region {one}: the result makes no '{one.exit}'")
    if kind == "factors":
        wide: Kind = "full" if one.kernel else "pointwise"
        # The first of three has the extents of the entry, what has the window those of the exit.
        steps: list[tuple[Kind, int, Sequence[int]]] = [("pointwise", one.inner, x.shape)] if one.inner else []
        steps.append((wide, one.rank, was.shape))
        names = _between(one, nodes)
        for (step, rank, made), name in zip(steps, names, strict=False):
            code = nodes.get(name)
            weight = None if code is None else _read(one, code, result, taken)[0]
            if code is None or weight is None or weight.shape[0 if weight.ndim > 2 else 1] != rank:
                raise VerificationError(f"region {one}: there are no layers of this rank")
            dim = 1 if weight.ndim > 2 else was.ndim - 1
            x = _layer(one, step, code, result, taken, x, tuple(rank if d == dim else e for d, e in enumerate(made)))
        if len(names) < len(steps):
            raise VerificationError(f"region {one}: there are no {len(steps) + 1} layers")
        kind = "pointwise"
    if kind == RESIZED:
        raise VerificationError(f"region {one}: nothing stands for what is computed on other maps")
    return _layer(one, kind, node, result, taken, x, was.shape)


def _between(one: Replacement, nodes: Mapping[str, NodeProto]) -> list[str]:
    """The tensors between the factors of a region, in order."""
    found: list[str] = []
    name = one.exit
    for _ in range(2 if one.inner else 1):
        if name not in nodes:
            break
        name = nodes[name].input[0]
        found.insert(0, name)
    return found


def _read(one: Replacement, node: NodeProto, result: Model, taken: Taken) -> list[NDArray[np.float64]]:
    """Weight and bias of a layer."""
    weights = [result.weights.get(name) for name in node.input[1:] if name]
    if not weights or any(weight is None for weight in weights):
        raise VerificationError(f"region {one}: node '{node.name}' has no weights that stand for it")
    return [taken(weight.array.astype(np.float64)) for weight in weights if weight is not None]


def _layer(
    one: Replacement,
    kind: Kind,
    node: NodeProto,
    result: Model,
    taken: Taken,
    x: NDArray[np.float64],
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """What a layer of a kind gives, of this shape."""
    matrix, *bias = _read(one, node, result, taken)
    if matrix.ndim == 2:
        if kind != "pointwise":
            raise VerificationError(f"region {one}: node '{node.name}' is not of this kind")
        return _plus(x @ matrix, bias)
    window = tuple(one.kernel) if kind in ("depthwise", "full") else (1,) * (x.ndim - 2)
    alone = kind in ("affine", "depthwise")
    if matrix.shape != (shape[1], 1 if alone else x.shape[1], *window):
        raise VerificationError(f"region {one}: the weight of node '{node.name}' is not of this kind")
    windows = _windows(x, window, shape[2:])
    # Positions of the output, then of the window: N C o… k… with weights M C k…
    spatial = len(window)
    out, inner = "opqr"[:spatial], "tuvw"[:spatial]
    terms = f"nc{out}{inner},c{inner}->nc{out}" if alone else f"nc{out}{inner},mc{inner}->nm{out}"
    product: NDArray[np.float64] = np.einsum(terms, windows, matrix[:, 0] if alone else matrix, optimize=True)
    return _plus(np.moveaxis(product, 1, -1), bias, back=True)


def _plus(value: NDArray[np.float64], bias: Sequence[NDArray[Any]], *, back: bool = False) -> NDArray[np.float64]:
    value = value + bias[0] if bias else value
    return np.moveaxis(value, -1, 1) if back else value


def _windows(x: NDArray[np.float64], window: Sequence[int], after: Sequence[int]) -> NDArray[np.float64]:
    """The windows about every stride-th position, zeros around the map: [N, C, o…, k…]."""
    padded = np.pad(x, [(0, 0), (0, 0), *((k // 2, k // 2) for k in window)])
    found: NDArray[np.float64] = sliding_window_view(padded, tuple(window), axis=tuple(range(2, x.ndim)))
    strides = [-(-was // now) for was, now in zip(x.shape[2:], after, strict=True)]
    chosen = (slice(None), slice(None), *(slice(None, None, stride) for stride in strides))
    return found[chosen]
